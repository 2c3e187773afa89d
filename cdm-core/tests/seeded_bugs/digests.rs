//! What catches the bugs that are about the digest that runs.

use std::time::Duration;

use cdm_core::domain::colour::Verdict;
use cdm_core::domain::rollout::Gate;
use cdm_core::domain::{Code, Rollout, RolloutStatus, Selector};
use cdm_core::services::{Force, Resume, RolloutRequest};
use cdm_testkit::world::{World, digest, now};

use super::{expect, fleet, in_two_waves, rollout, seen_in};

/// Two sites are on green, which ran `digest(1)`, and two are not; by then it runs `digest(2)`.
fn changed(gate: Option<Gate>) -> (World, u64) {
    let mut world = fleet(&["a", "b", "c", "d"]);
    let _ = world.deploy(digest(1), Selector::Green, false);
    world.run();
    let number =
        rollout(&mut world, RolloutRequest { bake: Duration::from_secs(600), gate, ..in_two_waves() });
    for _ in 0..50 {
        let _ = world.turn();
        if head(&world, number).reason.is_some_and(|reason| reason.code == Code::Baking) {
            break;
        }
        world.clock.advance(Duration::from_secs(1));
    }
    world.probe.break_digest(digest(2));
    let _ = world.deploy(digest(2), Selector::Green, false);
    world.run();
    (world, number)
}

fn head(world: &World, number: u64) -> Rollout {
    let all = world.store.all_rollouts();
    all.into_iter().find(|rollout| rollout.number == number).expect("the rollout")
}

fn is_bad(world: &World, image: u8) -> bool {
    let colour = now(world.raw().store.colour(Selector::Green)).expect("a colour");
    let mut releases = colour.releases.into_iter().filter(|release| release.digest == digest(image));
    releases.any(|release| release.verdict == Verdict::Bad)
}

pub(super) fn changed_between_waves() -> Vec<String> {
    let (mut world, number) = changed(None);
    let mut seen = seen_in(&mut world);
    let waits = head(&world, number);
    let on_green = world.store.all_sites().iter().filter(|site| site.service == Selector::Green).count();
    expect(&mut seen, waits.status == RolloutStatus::Waiting, "it went on with another digest");
    expect(&mut seen, on_green == 2, "a site was moved on a digest that nobody asked for");
    seen
}

pub(super) fn accepted_and_condemned() -> Vec<String> {
    let (mut world, number) = changed(Gate::new("/").ok());
    let wanted = Resume { accept: Some(digest(2)), force: Force::No };
    let _ = world.ask(move |services, request| {
        Box::pin(async move { services.resume_on(&request, number, wanted).await })
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
        let _ = world.deploy(digest(image), Selector::Green, false);
        world.run();
    }
    for _ in 0..2 {
        let _ = world.ask(|services, request| {
            Box::pin(async move { services.rollback(&request, Some(Selector::Green)).await })
        });
        world.run();
    }
    let view = now(world.raw().cluster.service(Selector::Green)).expect("a service");
    let mut seen = seen_in(&mut world);
    expect(&mut seen, view.digest != Some(digest(2)), "the second rollback brought the image back");
    seen
}
