//! Rollouts with a health gate, and with a bake time between waves.

use std::time::Duration;

use cdm_core::domain::rollout::{
    Budget, Counts, HealthGate, MemberOutcome, RolloutKind, RolloutPhase, RolloutSpec, WaveTarget,
};
use cdm_core::domain::service::Verdict;
use cdm_core::domain::{Color, ReasonCode, RolloutStatus, Status, TerminalStatus};
use cdm_core::manager::RolloutScope;
use cdm_core::ports::Clock;
use cdm_testkit::fakes::Unreachable;
use cdm_testkit::log::EffectKind;
use cdm_testkit::world::{World, digest, now};

use super::controls::{Control, send_control};
use super::waves::{all, fleet, nth, on_green, outcomes, status_and_code};
use super::{assert_sound, number, operation, rollout, site, start_rollout};

fn gate() -> HealthGate {
    HealthGate::new("/health").expect("a gate")
}

fn gated(budget: u32) -> RolloutSpec {
    RolloutSpec { gate: Some(gate()), ..all(budget) }
}

/// Returns a platform with this number of sites on blue, which runs the default digest; green, the canary, runs
/// another digest.
fn two_images(sites: u32) -> World {
    let mut world = fleet(sites);
    world.deploy(digest(1), Color::Green, false).unwrap();
    world.run();
    world
}

fn reasons(world: &World, number: u64) -> Vec<(u32, String)> {
    let members = world.store.pages(number).into_iter().flat_map(|page| page.members);
    (0..).zip(members).filter_map(|(n, member)| Some((n, member.why?))).collect()
}

fn verdict(world: &World, color: Color, n: u8) -> Option<Verdict> {
    let service = now(world.raw().store.service(color)).unwrap();
    let release = service.releases.into_iter().find(|release| release.digest == digest(n));
    release.map(|release| release.verdict)
}

fn moved_routes(world: &World) -> usize {
    let effects = world.log.since(0);
    effects.iter().filter(|effect| matches!(effect.kind, EffectKind::RouteMoved(..))).count()
}

#[test]
fn every_healthy_site_stays_where_it_was_moved() {
    let mut world = two_images(12);
    let number = number(start_rollout(&mut world, &gated(0)));
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
    assert_eq!(on_green(&world, 12).len(), 12);
    // Each site is probed once at the target and once through the route.
    assert_eq!(world.probe.probe_count(), 24);
    assert_sound(&mut world);
}

#[test]
fn one_broken_site_is_rolled_back_with_its_reason() {
    let mut world = two_images(40);
    let broken = site(&world, &nth(17)).uid;
    world.probe.break_site(broken, digest(1));
    let number = number(start_rollout(&mut world, &gated(1)));
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
    assert_eq!(outcomes(&world, number)[17], Some(MemberOutcome::Unhealthy));
    let reasons_found = reasons(&world, number);
    let named: Vec<_> = rollout(&world, number).failures.iter().map(|bad| bad.site.to_string()).collect();
    assert_eq!((reasons_found.len(), named), (1, vec![nth(17)]));
    assert_eq!(reasons_found[0].0, 17);
    assert!(reasons_found[0].1.contains("answers 500 instead of 200"), "{reasons_found:?}");
    assert_eq!(on_green(&world, 40), (0..40).filter(|n| *n != 17).collect::<Vec<_>>());
    assert_eq!(verdict(&world, Color::Green, 1), Some(Verdict::Unknown));
    assert_sound(&mut world);
}

#[test]
fn one_broken_site_of_a_thousand_is_rolled_back() {
    let mut world = two_images(1_000);
    let broken = site(&world, &nth(617)).uid;
    world.probe.break_site(broken, digest(1));
    let wanted = RolloutSpec { max_concurrent: 64, ..gated(1) };
    let number = number(start_rollout(&mut world, &wanted));
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
    let head = rollout(&world, number);
    assert_eq!(head.counts(), Counts { succeeded: 999, failed: 1, ..Counts::default() });
    assert_eq!(on_green(&world, 1_000), (0..1_000).filter(|n| *n != 617).collect::<Vec<_>>());
    assert_eq!((head.failures.len(), head.failures[0].site.to_string()), (1, nth(617)));
    assert_sound(&mut world);
}

#[test]
fn a_site_that_fails_only_through_its_route_is_rolled_back() {
    // The target itself is healthy; its responses are too slow only after the move.
    let mut world = two_images(6);
    let quick = gate().with_latency(2_000).unwrap().with_settle(Duration::from_secs(5)).unwrap();
    world.probe.slow_down(digest(1), Duration::from_millis(400));
    let wanted = RolloutSpec { gate: Some(quick), ..all(6) };
    let number = number(start_rollout(&mut world, &wanted));
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
    assert_eq!(outcomes(&world, number), [Some(MemberOutcome::Returned); 6]);
    assert_eq!(on_green(&world, 6), [0; 0]);
    for n in 0..6 {
        assert_eq!(site(&world, &nth(n)).service, Color::Blue);
    }
    assert!(reasons(&world, number)[0].1.contains("takes 400 ms, more than 160 ms"));
    assert_sound(&mut world);
}

#[test]
fn a_ready_image_that_returns_500_halts_in_the_first_wave_and_is_bad() {
    let mut world = two_images(30);
    world.probe.break_digest(digest(1));
    let wanted = RolloutSpec { scope: RolloutScope::Inactive, auto_rollback: true, ..gated(0) };
    let number = number(start_rollout(&mut world, &wanted));
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Failed, Some(ReasonCode::BudgetExceeded)));
    let head = rollout(&world, number);
    assert_eq!(head.counts(), Counts { failed: 1, ..Counts::default() });
    assert_eq!(head.rollback, None);
    assert_eq!(on_green(&world, 30), [0; 0]);
    assert_eq!(verdict(&world, Color::Green, 1), Some(Verdict::Bad));
    assert_eq!(moved_routes(&world), 0);
    assert_sound(&mut world);
}

#[test]
fn an_image_deployed_in_place_that_returns_500_is_rolled_back() {
    let mut world = two_images(10);
    // All sites are on green, which runs digest 1; digest 2 is deployed over it.
    let first = number(start_rollout(&mut world, &all(0)));
    world.run();
    assert_eq!(status_and_code(&world, first), (RolloutStatus::Succeeded, None));
    world.probe.break_digest(digest(2));
    let wanted =
        RolloutSpec { digest: Some(digest(2)), scope: RolloutScope::Active, auto_rollback: true, ..gated(0) };
    let number = number(start_rollout(&mut world, &wanted));
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Failed, Some(ReasonCode::BudgetExceeded)));
    let head = rollout(&world, number);
    let restored = head.rollback.expect("a deploy");
    assert_eq!(operation(&world, &restored).state.status, Status::Ended(TerminalStatus::Succeeded));
    let view = now(world.raw().cluster.service(Color::Green)).unwrap();
    assert_eq!((view.digest, view.is_ready()), (Some(digest(1)), true));
    assert_eq!(verdict(&world, Color::Green, 2), Some(Verdict::Bad));
    assert_eq!(on_green(&world, 10).len(), 10);
    assert_sound(&mut world);
}

#[test]
fn a_response_of_the_old_service_does_not_count_for_the_new_one() {
    // The expected text is only in responses of the target; requests reach blue for a while.
    let mut world = two_images(3);
    world.probe.delay_routes(Duration::from_secs(8), &world.cluster.routes());
    let before = world.clock.monotonic();
    let number = number(start_rollout(&mut world, &gated(0)));
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
    assert_eq!(on_green(&world, 3).len(), 3);
    assert!(world.clock.monotonic().since(before) >= Duration::from_secs(16));
    assert!(world.probe.probe_count() > 6);
    assert_sound(&mut world);
}

#[test]
fn a_route_that_does_not_settle_is_inconclusive_and_the_site_is_rolled_back() {
    let mut world = two_images(3);
    world.probe.delay_routes(Duration::from_secs(600), &world.cluster.routes());
    let number = number(start_rollout(&mut world, &gated(0)));
    world.run();
    let head = rollout(&world, number);
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Paused, Some(ReasonCode::GateInconclusive)));
    let message = head.reason.as_ref().expect("a reason").message.clone();
    assert!(message.contains("`s000`") && message.contains("still leads to `blue`"), "{message}");
    assert_eq!((head.counts(), on_green(&world, 3)), (Counts::default(), vec![]));
    assert_eq!(verdict(&world, Color::Green, 1), Some(Verdict::Unknown));
    assert_eq!(site(&world, &nth(0)).operation, None);
    assert_sound(&mut world);
}

#[test]
fn a_site_that_cannot_be_probed_pauses_the_rollout_without_a_failure() {
    let mut world = two_images(8);
    let away = site(&world, &nth(5)).uid;
    world.probe.set_unreachable(away, Unreachable::Yes);
    let number = number(start_rollout(&mut world, &gated(0)));
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Paused, Some(ReasonCode::GateInconclusive)));
    assert_eq!(rollout(&world, number).counts().failed, 0);
    assert_eq!(outcomes(&world, number)[5], None);
    assert!(!on_green(&world, 8).contains(&5));
    world.probe.set_unreachable(away, Unreachable::No);
    send_control(&mut world, number, Control::Resume).unwrap();
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
    assert_eq!(on_green(&world, 8).len(), 8);
    assert_eq!(verdict(&world, Color::Green, 1), Some(Verdict::Unknown));
    assert_sound(&mut world);
}

#[test]
fn without_a_service_header_the_gate_waits_for_the_route_to_settle() {
    let mut world = two_images(2);
    world.probe.omit_service();
    let before = world.clock.monotonic();
    let number = number(start_rollout(&mut world, &RolloutSpec { waves: Vec::new(), ..gated(0) }));
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
    assert!(world.clock.monotonic().since(before) >= HealthGate::DEFAULT_SETTLE);
    assert_sound(&mut world);
}

#[test]
fn an_abort_does_not_wait_for_a_gate() {
    let mut world = two_images(4);
    world.probe.delay_routes(Duration::from_secs(600), &world.cluster.routes());
    let long = gate().with_settle(HealthGate::MAX_SETTLE).unwrap();
    let wanted = RolloutSpec { gate: Some(long), waves: Vec::new(), ..all(0) };
    let number = number(start_rollout(&mut world, &wanted));
    let mut owner = super::run_once(&world.process());
    while on_green(&world, 4).is_empty() {
        assert!(matches!(owner.poll(&world), super::PollState::Pending));
        super::advance_to_next_event(&world);
    }
    let aborted_at = world.clock.monotonic();
    send_control(&mut world, number, Control::Abort).unwrap();
    let _ = owner.finish(&world);
    world.run();
    assert_eq!(status_and_code(&world, number).0, RolloutStatus::Aborted);
    assert!(world.clock.monotonic().since(aborted_at) < Duration::from_secs(10));
    assert_eq!(on_green(&world, 4), [0; 0]);
    assert_sound(&mut world);
}

#[test]
fn a_rejected_route_does_not_count_against_the_image() {
    let mut world = two_images(3);
    super::waves::lose_route(&world, 0);
    let number = number(start_rollout(&mut world, &gated(0)));
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Halted, Some(ReasonCode::BudgetExceeded)));
    assert_eq!(verdict(&world, Color::Green, 1), Some(Verdict::Unknown));
    super::waves::assert_sound_except(&mut world, &[0]);
}

#[test]
fn a_gate_without_moves_is_rejected() {
    let mut world = two_images(1);
    let refused = start_rollout(&mut world, &RolloutSpec { kind: RolloutKind::Upgrade, ..gated(0) });
    assert_eq!(refused.unwrap_err().code(), "invalid");
}

#[test]
fn waves_bake_and_a_resumed_wave_bakes_for_the_remaining_time() {
    let mut world = two_images(20);
    let wanted = RolloutSpec {
        bake: Duration::from_secs(600),
        waves: vec![WaveTarget::Count(2), WaveTarget::Percent(100)],
        budget: Budget::Count(0),
        ..all(0)
    };
    let number = number(start_rollout(&mut world, &wanted));
    while rollout(&world, number).status != RolloutStatus::Waiting
        || rollout(&world, number).window().start == 0
    {
        let _ = world.run_once();
    }
    let operation_id = world.clock.monotonic();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Waiting, Some(ReasonCode::Baking)));
    let until =
        rollout(&world, number).reason.and_then(|reason| reason.until).expect("the end of the bake time");
    assert!(matches!(rollout(&world, number).phase, RolloutPhase::Baking { until: end, .. } if end == until));
    assert_eq!(on_green(&world, 20).len(), 2);
    send_control(&mut world, number, Control::Pause).unwrap();
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Paused, Some(ReasonCode::Paused)));
    send_control(&mut world, number, Control::Resume).unwrap();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Waiting, Some(ReasonCode::Baking)));
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
    assert!(world.clock.monotonic().since(operation_id) >= Duration::from_secs(600));
    assert_eq!(on_green(&world, 20).len(), 20);
    assert_sound(&mut world);
}
