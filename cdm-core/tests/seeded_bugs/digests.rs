//! What catches the bugs that are about the digest that runs.

use std::time::Duration;

use cdm_core::domain::rollout::HealthGate;
use cdm_core::domain::service::Verdict;
use cdm_core::domain::{Color, ReasonCode, Rollout, RolloutStatus};
use cdm_core::manager::{Force, Resume, RolloutRequest};
use cdm_testkit::world::{World, digest, now};

use super::{expect, fleet, in_two_waves, rollout, seen_in};

/// Two sites are on green, which ran `digest(1)`, and two are not; by then it runs `digest(2)`.
fn changed(gate: Option<HealthGate>) -> (World, u64) {
    let mut world = fleet(&["a", "b", "c", "d"]);
    let _ = world.deploy(digest(1), Color::Green, false);
    world.run();
    let number =
        rollout(&mut world, RolloutRequest { bake: Duration::from_secs(600), gate, ..in_two_waves() });
    for _ in 0..50 {
        let _ = world.run_once();
        if head(&world, number).reason.is_some_and(|reason| reason.code == ReasonCode::Baking) {
            break;
        }
        world.clock.advance(Duration::from_secs(1));
    }
    world.probe.break_digest(digest(2));
    let _ = world.deploy(digest(2), Color::Green, false);
    world.run();
    (world, number)
}

fn head(world: &World, number: u64) -> Rollout {
    let all = world.store.all_rollouts();
    all.into_iter().find(|rollout| rollout.number == number).expect("the rollout")
}

fn is_bad(world: &World, image: u8) -> bool {
    let service = now(world.raw().store.service(Color::Green)).expect("a colour");
    let mut releases = service.releases.into_iter().filter(|release| release.digest == digest(image));
    releases.any(|release| release.verdict == Verdict::Bad)
}

pub(super) fn changed_between_waves() -> Vec<String> {
    let (mut world, number) = changed(None);
    let mut seen = seen_in(&mut world);
    let waits = head(&world, number);
    let on_green = world.store.all_sites().iter().filter(|site| site.service == Color::Green).count();
    expect(&mut seen, waits.status == RolloutStatus::Waiting, "it went on with another digest");
    expect(&mut seen, on_green == 2, "a site was moved on a digest that nobody asked for");
    seen
}

pub(super) fn accepted_and_condemned() -> Vec<String> {
    let (mut world, number) = changed(HealthGate::new("/").ok());
    let wanted = Resume { accept: Some(digest(2)), force: Force::No };
    let _ = world.ask(move |manager, request| {
        Box::pin(async move { manager.resume_on(&request, number, wanted).await })
    });
    world.run();
    let mut seen = seen_in(&mut world);
    expect(&mut seen, !is_bad(&world, 1), "a digest is bad that no site spoke against");
    expect(&mut seen, is_bad(&world, 2), "the digest that sites spoke against is not bad");
    seen
}

pub(super) fn rolled_back_twice() -> Vec<String> {
    let mut world = fleet(&["a"]);
    for image in [1, 2] {
        let _ = world.deploy(digest(image), Color::Green, false);
        world.run();
    }
    for _ in 0..2 {
        let _ = world.ask(|manager, request| {
            Box::pin(async move { manager.rollback(&request, Some(Color::Green)).await })
        });
        world.run();
    }
    let view = now(world.raw().cluster.service(Color::Green)).expect("a service");
    let mut seen = seen_in(&mut world);
    expect(&mut seen, view.digest != Some(digest(2)), "the second rollback brought the image back");
    seen
}
