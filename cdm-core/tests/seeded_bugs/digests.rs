//! Scenarios that catch bugs in the handling of the running digest.

use std::time::Duration;

use cdm_core::domain::rollout::{HealthGate, RolloutSpec};
use cdm_core::domain::service::Verdict;
use cdm_core::domain::{Color, ReasonCode, Rollout, RolloutStatus};
use cdm_core::manager::{Force, Resume};
use cdm_testkit::world::{World, digest, now};

use super::{expect, fleet, in_two_waves, rollout, violations};

/// Starts a rollout: two sites are on green, which ran `digest(1)`, and two are not; then green runs `digest(2)`.
fn changed(gate: Option<HealthGate>) -> (World, u64) {
    let mut world = fleet(&["a", "b", "c", "d"]);
    let _ = world.deploy(digest(1), Color::Green, false);
    world.run();
    let number = rollout(&mut world, RolloutSpec { bake: Duration::from_secs(600), gate, ..in_two_waves() });
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
    let service = now(world.raw().store.service(Color::Green)).expect("a service");
    let mut releases = service.releases.into_iter().filter(|release| release.digest == digest(image));
    releases.any(|release| release.verdict == Verdict::Bad)
}

pub(super) fn changed_between_waves() -> Vec<String> {
    let (mut world, number) = changed(None);
    let mut findings = violations(&mut world);
    let waits = head(&world, number);
    let on_green = world.store.all_sites().iter().filter(|site| site.service == Color::Green).count();
    expect(
        &mut findings,
        waits.status == RolloutStatus::Waiting,
        "the rollout continued with another digest",
    );
    expect(&mut findings, on_green == 2, "a site was moved to a digest that was not requested");
    findings
}

pub(super) fn accepted_and_rejected() -> Vec<String> {
    let (mut world, number) = changed(HealthGate::new("/").ok());
    let wanted = Resume { accept: Some(digest(2)), force: Force::No };
    let _ = world.request(move |manager, request| {
        Box::pin(async move { manager.resume_on(&request, number, wanted).await })
    });
    world.run();
    let mut findings = violations(&mut world);
    expect(&mut findings, !is_bad(&world, 1), "a digest is bad although no site failed on it");
    expect(&mut findings, is_bad(&world, 2), "the digest on which sites failed is not bad");
    findings
}

pub(super) fn rolled_back_twice() -> Vec<String> {
    let mut world = fleet(&["a"]);
    for image in [1, 2] {
        let _ = world.deploy(digest(image), Color::Green, false);
        world.run();
    }
    for _ in 0..2 {
        let _ = world.request(|manager, request| {
            Box::pin(async move { manager.rollback(&request, Some(Color::Green)).await })
        });
        world.run();
    }
    let view = now(world.raw().cluster.service(Color::Green)).expect("a service");
    let mut findings = violations(&mut world);
    expect(&mut findings, view.digest != Some(digest(2)), "the second rollback brought the image back");
    findings
}
