//! Images on the two services, observed from outside.

use cdm_core::domain::service::{Release, Verdict};
use cdm_core::domain::{Color, Digest, OperationInput, ReasonCode, Service, State, Status, TerminalStatus};
use cdm_core::manager::{Accepted, ManagerError};
use cdm_core::ports::{Canary, Clock};
use cdm_testkit::faults::{Fault, Plan};
use cdm_testkit::log::EffectKind;
use cdm_testkit::world::{Verb, World, digest, now};

use super::{
    ManualPoll, assert_parked, assert_sound, calls, code, first, never_ready, operation, operation_id, retry,
    routed, run_once, status,
};

fn service(world: &World, color: Color) -> Service {
    now(world.raw().store.service(color)).unwrap()
}

fn canary(world: &World) -> Option<Canary> {
    now(world.raw().cluster.canary()).unwrap()
}

/// Returns what the service runs, and whether it is ready.
fn running(world: &World, color: Color) -> (Option<Digest>, bool) {
    let view = now(world.raw().cluster.service(color)).unwrap();
    (view.digest, view.is_ready())
}

/// Returns the newest release of the digest.
fn release(world: &World, color: Color, digest: Digest) -> Release {
    let found = service(world, color).releases.into_iter().find(|release| release.digest == digest);
    found.unwrap_or_else(|| panic!("`{digest}` was never released to `{color}`"))
}

fn rollback(world: &mut World, color: Color) -> Result<Accepted, ManagerError> {
    world.request(move |manager, request| {
        Box::pin(async move { manager.rollback(&request, Some(color)).await })
    })
}

pub(super) fn mark(world: &mut World, digest: Digest, verdict: Verdict) -> Result<Accepted, ManagerError> {
    world.request(move |manager, request| {
        Box::pin(async move { manager.mark(&request, digest, verdict, "set by a test").await })
    })
}

/// Deploys an image, and waits for the end of the operation.
pub(super) fn deployed(world: &mut World, image: u8, color: Color) {
    let deploy = operation_id(world.deploy(digest(image), color, false));
    world.run();
    assert_eq!(status(world, &deploy), Status::Ended(TerminalStatus::Succeeded));
}

#[test]
fn a_good_image_is_deployed_and_stored_in_the_canary_and_its_sites_are_flushed() {
    let mut world = World::new(1);
    world.create_active_site("a");
    let deploy = operation_id(world.deploy(digest(1), Color::Blue, false));
    world.run();
    assert_eq!(status(&world, &deploy), Status::Ended(TerminalStatus::Succeeded));
    assert_eq!(running(&world, Color::Blue), (Some(digest(1)), true));
    assert_eq!(running(&world, Color::Green), (Some(digest(0)), true));
    let canary = canary(&world).unwrap();
    assert_eq!((canary.color, canary.digest), (Color::Blue, Some(digest(1))));
    let release = release(&world, Color::Blue, digest(1));
    assert!(release.ready_at.is_some() && release.reason.is_none(), "{release:?}");
    let flushes = world.log.since(0).into_iter().filter(|effect| {
        matches!(&effect.kind, EffectKind::JobStarted(name, _, "flush-caches") if name.as_str().starts_with("rollout-"))
    });
    assert_eq!(flushes.count(), 1);
    assert_eq!(routed(&world, "a"), Some(Color::Blue));
    assert_sound(&mut world);
}

#[test]
fn a_deploy_to_a_service_without_sites_names_no_rollout() {
    let mut world = World::new(1);
    let deploy = operation_id(world.deploy(digest(1), Color::Green, false));
    world.run();
    let operation = operation(&world, &deploy);
    assert_eq!(operation.state.status, Status::Ended(TerminalStatus::Succeeded));
    let OperationInput::Deploy(input) = operation.state.input else {
        panic!("not a deploy: {:?}", operation.state.input)
    };
    assert_eq!(input.rollout, None, "the operation names a missing rollout");
    assert_sound(&mut world);
}

#[test]
fn an_image_that_never_gets_ready_is_rolled_back_and_marked_bad() {
    let mut world = World::new(1);
    world.create_active_site("a");
    world.select(Color::Blue).unwrap();
    world.run();
    let (template, before) =
        (now(world.raw().cluster.service(Color::Blue)).unwrap().template, canary(&world));
    world.cluster.script(digest(9), never_ready(true, "CrashLoopBackOff: no such plugin"));
    let deploy = operation_id(world.deploy(digest(9), Color::Blue, true));
    world.run();
    let operation = operation(&world, &deploy).state;
    assert_eq!(operation.status, Status::Ended(TerminalStatus::Failed));
    let reason = operation.reason.unwrap();
    assert_eq!(
        (reason.code, reason.message.as_str()),
        (ReasonCode::ImageNotReady, "CrashLoopBackOff: no such plugin")
    );
    let view = now(world.raw().cluster.service(Color::Blue)).unwrap();
    assert_eq!((&view.template, view.digest, view.is_ready()), (&template, Some(digest(0)), true));
    let release = release(&world, Color::Blue, digest(9));
    assert_eq!(release.verdict, Verdict::Bad);
    assert_eq!(release.reason.as_deref(), Some("CrashLoopBackOff: no such plugin"));
    assert_eq!(service(&world, Color::Blue).running, Some(digest(0)));
    assert_eq!(canary(&world), before);
    assert!(world.store.all_rollouts().is_empty());
    assert_sound(&mut world);
}

#[test]
fn an_image_that_never_gets_ready_on_an_empty_service_parks_and_is_displaced() {
    let mut world = World::bare(1);
    world.cluster.script(digest(9), never_ready(true, "CrashLoopBackOff"));
    let deploy = operation_id(world.deploy(digest(9), Color::Blue, false));
    world.run();
    assert_parked(&world, &deploy, ReasonCode::ImageNotReady);
    assert_eq!(release(&world, Color::Blue, digest(9)).verdict, Verdict::Bad);
    assert_eq!(running(&world, Color::Blue), (Some(digest(9)), false));
    assert_eq!(canary(&world), None);
    deployed(&mut world, 1, Color::Blue);
    assert_eq!(status(&world, &deploy), Status::Ended(TerminalStatus::Cancelled));
    assert_eq!(running(&world, Color::Blue), (Some(digest(1)), true));
    assert_sound(&mut world);
}

#[test]
fn an_image_whose_pods_cannot_be_scheduled_is_not_marked_bad() {
    let mut world = World::new(1);
    world.cluster.script(digest(9), never_ready(false, "0/3 nodes are available"));
    let deploy = operation_id(world.deploy(digest(9), Color::Blue, false));
    world.run();
    assert_parked(&world, &deploy, ReasonCode::ImageNotReady);
    let message = operation(&world, &deploy).state.reason.unwrap().message;
    assert!(message.contains("0/3 nodes are available"), "{message}");
    assert_eq!(release(&world, Color::Blue, digest(9)).verdict, Verdict::Unknown);
    assert_eq!(running(&world, Color::Blue), (Some(digest(9)), false));
    assert_sound(&mut world);
}

#[test]
fn a_deploy_displaces_a_parked_deploy_and_takes_over_its_lock() {
    let mut world = World::new(1);
    world.cluster.script(digest(9), never_ready(false, "0/3 nodes are available"));
    let parked = operation_id(world.deploy(digest(9), Color::Blue, false));
    world.run();
    assert_parked(&world, &parked, ReasonCode::ImageNotReady);
    let next = operation_id(world.deploy(digest(1), Color::Blue, false));
    assert_eq!(status(&world, &parked), Status::Ended(TerminalStatus::Cancelled));
    assert_eq!(retry(&mut world, &parked).unwrap_err().code(), "operation_in_flight");
    world.run();
    assert_eq!(status(&world, &next), Status::Ended(TerminalStatus::Succeeded));
    assert_eq!(running(&world, Color::Blue), (Some(digest(1)), true));
    // The digest was never ready, so its verdict is not healthy.
    assert_eq!(release(&world, Color::Blue, digest(9)).verdict, Verdict::Unknown);
    assert_sound(&mut world);
}

#[test]
fn a_digest_that_was_ready_when_replaced_is_healthy_and_others_are_unknown() {
    let mut world = World::new(1);
    deployed(&mut world, 1, Color::Blue);
    assert_eq!(release(&world, Color::Blue, digest(1)).verdict, Verdict::Unknown);
    deployed(&mut world, 2, Color::Blue);
    assert_eq!(release(&world, Color::Blue, digest(1)).verdict, Verdict::Healthy);
    world.cluster.break_service(Color::Blue, None);
    deployed(&mut world, 3, Color::Blue);
    assert_eq!(release(&world, Color::Blue, digest(2)).verdict, Verdict::Unknown);
    assert_sound(&mut world);
}

#[test]
fn a_rollback_takes_the_newest_healthy_digest_and_never_a_bad_one() {
    let mut world = World::new(1);
    for image in [1, 2, 3, 4] {
        deployed(&mut world, image, Color::Blue);
    }
    let _ = mark(&mut world, digest(3), Verdict::Bad).unwrap();
    let back = operation_id(rollback(&mut world, Color::Blue));
    world.run();
    assert_eq!(status(&world, &back), Status::Ended(TerminalStatus::Succeeded));
    assert_eq!(running(&world, Color::Blue), (Some(digest(2)), true));
    // The rolled-back digest is not healthy, and the next rollback skips it and takes the previous digest.
    assert_eq!(release(&world, Color::Blue, digest(4)).verdict, Verdict::RolledBack);
    let _ = operation_id(rollback(&mut world, Color::Blue));
    world.run();
    assert_eq!(running(&world, Color::Blue), (Some(digest(1)), true));
    assert_eq!(release(&world, Color::Blue, digest(2)).verdict, Verdict::RolledBack);
    // Neither time nor another deploy changes the verdict; an operator can.
    deployed(&mut world, 4, Color::Blue);
    world.clock.advance(std::time::Duration::from_secs(1_000));
    assert_eq!(release(&world, Color::Blue, digest(4)).verdict, Verdict::RolledBack);
    let _ = mark(&mut world, digest(2), Verdict::Healthy).unwrap();
    let _ = mark(&mut world, digest(1), Verdict::Bad).unwrap();
    let _ = operation_id(rollback(&mut world, Color::Blue));
    world.run();
    assert_eq!(running(&world, Color::Blue), (Some(digest(2)), true));
    for image in [0, 1, 4] {
        let _ = mark(&mut world, digest(image), Verdict::Bad).unwrap();
    }
    let refused = rollback(&mut world, Color::Blue).unwrap_err();
    assert_eq!(refused, ManagerError::NoHealthyDigest);
    assert_eq!(running(&world, Color::Blue), (Some(digest(2)), true));
    assert_sound(&mut world);
}

#[test]
fn a_rollback_without_a_healthy_digest_is_rejected_until_one_is_marked() {
    let mut world = World::new(1);
    assert_eq!(rollback(&mut world, Color::Blue).unwrap_err(), ManagerError::NoHealthyDigest);
    world.cluster.script(digest(9), never_ready(true, "CrashLoopBackOff"));
    let failed = operation_id(world.deploy(digest(9), Color::Blue, false));
    world.run();
    assert_eq!(status(&world, &failed), Status::Ended(TerminalStatus::Failed));
    assert_eq!(rollback(&mut world, Color::Blue).unwrap_err(), ManagerError::NoHealthyDigest);
    assert_eq!(mark(&mut world, digest(7), Verdict::Healthy).unwrap_err().code(), "not_found");
    world.cluster.script(digest(9), cdm_testkit::fakes::ImageScript::default());
    let _ = mark(&mut world, digest(9), Verdict::Healthy).unwrap();
    let _ = operation_id(rollback(&mut world, Color::Blue));
    world.run();
    assert_eq!(running(&world, Color::Blue), (Some(digest(9)), true));
    assert_sound(&mut world);
}

#[test]
fn of_two_deploys_to_one_service_the_second_is_rejected() {
    let mut world = World::new(1);
    let once = operation_id(world.deploy(digest(1), Color::Blue, false));
    let refused = world.deploy(digest(2), Color::Blue, false).unwrap_err();
    assert_eq!(refused, ManagerError::OperationInFlight(once.clone()));
    let other = operation_id(world.deploy(digest(2), Color::Green, false));
    let _ = world.run_once();
    let refused = world.deploy(digest(2), Color::Blue, false).unwrap_err();
    assert_eq!(refused, ManagerError::OperationInFlight(once));
    world.run();
    assert_eq!(status(&world, &other), Status::Ended(TerminalStatus::Succeeded));
    assert_eq!(running(&world, Color::Blue), (Some(digest(1)), true));
    assert_eq!(running(&world, Color::Green), (Some(digest(2)), true));
    assert_sound(&mut world);
}

/// Creates `a` on blue, and selects green.
fn green_selected(world: &mut World) {
    world.create_active_site("a");
    world.select(Color::Green).unwrap();
    world.run();
}

#[test]
fn a_deploy_waits_while_a_promote_moves_a_route_to_its_service() {
    let point = calls(green_selected, |world| {
        let _ = world.on_site("a", Verb::Promote);
        world.run();
    });
    let mut world = World::new(1);
    green_selected(&mut world);
    world.faults.arm(Plan(vec![(first(&point, "cluster.move_route"), Fault::Paused(255))]));
    let promote = operation_id(world.on_site("a", Verb::Promote));
    let mut slow: ManualPoll<_> = run_once(&world.process());
    assert!(slow.runs_until_paused(&world));
    assert!(service(&world, Color::Green).lock.moves.contains(&promote.number));

    world.restart();
    let deploy = operation_id(world.deploy(digest(1), Color::Green, false));
    let _ = world.run_once();
    assert_eq!(
        (status(&world, &deploy), code(&world, &deploy)),
        (Status::Waiting, Some(ReasonCode::ServiceLocked))
    );
    assert_eq!(running(&world, Color::Green), (Some(digest(0)), true));
    assert_eq!(service(&world, Color::Green).lock.deploy, None);
    let _ = slow.finish(&world);
    assert_eq!(routed(&world, "a"), Some(Color::Green));
    world.run();
    assert_eq!(status(&world, &deploy), Status::Ended(TerminalStatus::Succeeded));
    assert_eq!(status(&world, &promote), Status::Ended(TerminalStatus::Succeeded));
    assert_sound(&mut world);
}

#[test]
fn an_active_service_is_selected_without_an_operation() {
    let mut world = World::new(1);
    let select = |world: &mut World, color| {
        world
            .request(move |manager, request| Box::pin(async move { manager.select(&request, color).await }))
            .unwrap()
    };
    let once = select(&mut world, Color::Green);
    assert!(once.operation.is_some() && once.warnings.is_empty());
    // An identical request while the operation runs returns the same operation; another request is rejected.
    assert_eq!(select(&mut world, Color::Green).operation, once.operation);
    assert_eq!(world.select(Color::Blue).unwrap_err().code(), "operation_in_flight");
    world.run();
    let before = (canary(&world), world.log.len());
    let again = select(&mut world, Color::Green);
    assert_eq!(again.operation, None);
    assert!(world.is_quiescent());
    assert_eq!(canary(&world), before.0);
    world.cluster.break_service(Color::Blue, None);
    let warned = select(&mut world, Color::Blue);
    assert!(warned.operation.is_some() && warned.warnings[0].contains("`blue` is not ready"), "{warned:?}");
    world.run();
    assert_sound(&mut world);
}

#[test]
fn a_concurrently_changed_canary_is_read_again_and_overwritten() {
    let act = |world: &mut World| {
        let _ = world.select(Color::Green);
        world.run();
    };
    let set = first(&calls(|_| (), act), "cluster.set_canary");
    let mut world = World::new(1);
    world.faults.arm(Plan(vec![(set, Fault::Conflict)]));
    act(&mut world);
    assert_eq!(world.faults.fired(), 1);
    assert_eq!(canary(&world).unwrap().color, Color::Green);
    let sets =
        world.log.since(0).into_iter().filter(|effect| matches!(effect.kind, EffectKind::CanarySet(..)));
    assert_eq!(sets.count(), 1);
    assert!(world.parked().is_empty());
    assert_sound(&mut world);
}

#[test]
fn a_deploy_with_promote_moves_only_the_sites_of_its_service() {
    let mut world = World::new(1);
    world.create_active_site("b");
    green_selected(&mut world);
    let _ = operation_id(world.on_site("a", Verb::Upgrade));
    world.run();
    assert_eq!(routed(&world, "a"), Some(Color::Blue));
    let deploy = operation_id(world.deploy(digest(1), Color::Green, true));
    world.run();
    assert_eq!(status(&world, &deploy), Status::Ended(TerminalStatus::Succeeded));
    assert_eq!((routed(&world, "a"), routed(&world, "b")), (Some(Color::Green), Some(Color::Blue)));
    assert_eq!(super::site(&world, "a").state(), State::Active);
    assert_sound(&mut world);
}

#[test]
fn a_deploy_that_waits_too_long_parks_and_a_canceled_deploy_is_undone() {
    let mut world = World::new(1);
    world.create_active_site("a");
    let slow = cdm_testkit::fakes::ImageScript { ready_after: None, failure: None };
    world.cluster.script(digest(9), slow);
    let deploy = operation_id(world.deploy(digest(9), Color::Blue, false));
    let requested_at = world.clock.monotonic();
    world.run();
    assert_parked(&world, &deploy, ReasonCode::ImageNotReady);
    assert!(world.clock.monotonic().since(requested_at).as_secs() >= 900);
    assert_eq!(release(&world, Color::Blue, digest(9)).verdict, Verdict::Unknown);
    let _ = super::cancel(&mut world, &deploy).unwrap();
    world.run();
    assert_eq!(status(&world, &deploy), Status::Ended(TerminalStatus::Cancelled));
    assert_eq!(running(&world, Color::Blue), (Some(digest(0)), true));
    assert_eq!(service(&world, Color::Blue).running, Some(digest(0)));
    assert_sound(&mut world);
}

#[test]
fn a_digest_that_was_ready_for_five_minutes_is_healthy_while_it_is_ready() {
    let mut world = World::new(1);
    let _ = world.deploy(digest(1), Color::Blue, false).unwrap();
    world.run();
    let verdict = |world: &mut World| {
        let history = world.request(|manager, _| Box::pin(async move { manager.history(Color::Blue).await }));
        history.unwrap()[0].verdict
    };
    assert_eq!(verdict(&mut world), Verdict::Unknown);
    world.clock.advance(std::time::Duration::from_secs(300));
    world.cluster.break_service(Color::Blue, None);
    assert_eq!(verdict(&mut world), Verdict::Unknown);
    world.cluster.repair_service(Color::Blue);
    assert_eq!(verdict(&mut world), Verdict::Healthy);
    assert_sound(&mut world);
}
