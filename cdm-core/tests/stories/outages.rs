//! Backends that are unavailable, throttle, deny or reject permanently, observed from outside.

use std::time::Duration;

use cdm_core::domain::rollout::RolloutSpec;
use cdm_core::domain::{Color, OperationId, ReasonCode, RolloutStatus, Status, TerminalStatus};
use cdm_core::engine::Settings;
use cdm_core::ports::Clock;
use cdm_testkit::faults::{Outage, OutageKind};
use cdm_testkit::log::EffectKind;
use cdm_testkit::world::{Verb, World};

use super::engine::server;
use super::waves::{all, fleet};
use super::{
    PollState, advance_to_next_event, assert_parked, assert_sound, cancel, code, exists, number, operation,
    operation_id, retry, rollout, start_rollout, status,
};

fn outage(port: &'static str, kind: OutageKind, minutes: u64) -> Outage {
    Outage { port, kind, from: 0, lasts: Duration::from_secs(60 * minutes), crash: None }
}

/// Creates the site `a` and queues its provision.
fn provision(world: &mut World) -> OperationId {
    let _ = world.create("a");
    world.run();
    operation_id(world.on_site("a", Verb::Provision))
}

/// Returns an active site `a` whose promotion has exhausted its attempts, because of permanent conflicts.
fn exhausted() -> (World, OperationId) {
    let mut world = World::new(1);
    world.create_active_site("a");
    world.select(Color::Green).expect("green is selected");
    world.run();
    world.faults.outage(Some(outage("cluster.move_route", OutageKind::Conflict, 600)));
    let promote = operation_id(world.on_site("a", Verb::Promote));
    for _ in 0..100 {
        let _ = world.run_once();
        if status(&world, &promote).is_settled() {
            break;
        }
        world.clock.advance(Duration::from_secs(5));
    }
    assert_parked(&world, &promote, ReasonCode::AttemptsExhausted);
    (world, promote)
}

/// Returns how often the record of a site was written since effect `since`.
fn writes(world: &World, since: usize) -> usize {
    let effects = world.log.since(since);
    effects.iter().filter(|effect| matches!(effect.kind, EffectKind::Site(..))).count()
}

#[test]
fn an_operation_without_attempts_parks_with_the_last_error_and_can_be_retried() {
    let (mut world, promote) = exhausted();
    let message = operation(&world, &promote).state.reason.expect("a reason").message;
    assert!(message.contains("8 attempts") && message.contains("injected Conflict"), "{message}");
    let before = world.log.len();
    for _ in 0..20 {
        let _ = world.run_once();
        world.clock.advance(Duration::from_secs(3));
    }
    assert_eq!(writes(&world, before), 0, "a parked operation is not written");
    world.faults.outage(None);
    let _ = retry(&mut world, &promote).expect("the retry is accepted");
    world.run();
    assert_eq!(status(&world, &promote), Status::Ended(TerminalStatus::Succeeded));
    assert_sound(&mut world);
}

#[test]
fn an_operation_without_attempts_can_be_canceled_or_displaced() {
    let (mut world, promote) = exhausted();
    world.faults.outage(None);
    let _ = cancel(&mut world, &promote).expect("the cancel is accepted");
    world.run();
    assert_eq!(status(&world, &promote), Status::Ended(TerminalStatus::Cancelled));
    assert_sound(&mut world);

    let (mut world, promote) = exhausted();
    world.faults.outage(None);
    let terminate = operation_id(world.on_site("a", Verb::Terminate));
    assert_eq!(status(&world, &promote), Status::Ended(TerminalStatus::Cancelled));
    world.run();
    assert_eq!(status(&world, &terminate), Status::Ended(TerminalStatus::Succeeded));
    assert!(!exists(&world, "a"));
    assert_sound(&mut world);
}

#[test]
fn an_unavailable_backend_is_awaited_and_its_last_error_is_stored_once() {
    for (kind, why) in [
        (OutageKind::Refused, ReasonCode::Retrying),
        (OutageKind::Stopped, ReasonCode::Retrying),
        (OutageKind::Throttled, ReasonCode::Throttled),
    ] {
        let mut world = World::new(1);
        let provision = provision(&mut world);
        let (before, began) = (world.log.len(), world.wall());
        world.faults.outage(Some(outage("databases", kind, 30)));
        let until = world.clock.monotonic().after(Duration::from_secs(29 * 60));
        while world.clock.monotonic() < until {
            let _ = world.run_once();
            world.clock.advance(Duration::from_secs(1));
        }
        let state = operation(&world, &provision).state;
        let reason = state.reason.expect("a reason");
        assert_eq!((state.status, state.attempts, reason.code), (Status::Waiting, 1, why), "{kind:?}");
        assert!(reason.message.contains("injected"), "{reason:?}");
        assert!(reason.since.since(began) < Duration::from_secs(20), "{reason:?}");
        assert_eq!(reason.until, Some(reason.since.after(Duration::from_secs(3_600))), "{kind:?}");
        assert!(writes(&world, before) <= 3, "{kind:?}: {} writes", writes(&world, before));
        let (_, calls) = world.faults.outage_calls();
        assert!((29 * 4 - 10..=29 * 6).contains(&calls) || kind == OutageKind::Stopped, "{kind:?}: {calls}");
        world.clock.advance(Duration::from_secs(60));
        let back = world.clock.monotonic();
        while operation(&world, &provision).state.position == state.position {
            let _ = world.run_once();
            world.clock.advance(Duration::from_secs(1));
        }
        assert!(world.clock.monotonic().since(back) <= Duration::from_secs(16), "{kind:?}");
        world.run();
        assert_eq!(status(&world, &provision), Status::Ended(TerminalStatus::Succeeded), "{kind:?}");
        assert_sound(&mut world);
    }
}

#[test]
fn a_denying_backend_is_retried_for_five_minutes() {
    for (minutes, parks) in [(4, false), (30, true)] {
        let mut world = World::new(1);
        let provision = provision(&mut world);
        let began = world.wall();
        world.faults.outage(Some(outage("objects", OutageKind::Denied, minutes)));
        let mut waited = false;
        for _ in 0..2_000 {
            let _ = world.run_once();
            let operation = operation(&world, &provision).state;
            if operation.status.is_settled() {
                break;
            }
            if let Some(reason) = operation.reason.filter(|reason| reason.code == ReasonCode::Denied) {
                waited |= operation.status == Status::Waiting;
                assert!(
                    reason.message.contains("injected") && reason.message.contains("5 min"),
                    "{reason:?}"
                );
                assert_eq!(reason.until, Some(reason.since.after(Duration::from_secs(300))));
            }
            world.clock.advance(Duration::from_secs(1));
        }
        assert!(waited, "the operation does not wait with its reason");
        if parks {
            assert_parked(&world, &provision, ReasonCode::Denied);
            let reason = operation(&world, &provision).state.reason.expect("a reason");
            let after = reason.since.since(began).as_secs();
            assert!(
                (300..330).contains(&after) && reason.message.contains("injected"),
                "{after}: {reason:?}"
            );
            world.faults.outage(None);
            let _ = retry(&mut world, &provision).expect("the retry is accepted");
            world.run();
        }
        assert_eq!(status(&world, &provision), Status::Ended(TerminalStatus::Succeeded));
        assert_sound(&mut world);
    }
}

#[test]
fn an_operation_with_attempts_counted_by_an_earlier_version_continues() {
    for (attempts, why) in
        [(8, ReasonCode::Retrying), (9, ReasonCode::Throttled), (9, ReasonCode::AttemptsExhausted)]
    {
        let mut world = World::new(1);
        let provision = provision(&mut world);
        world.faults.outage(Some(outage("databases", OutageKind::Refused, 5)));
        let _ = world.run_once();
        assert_eq!(code(&world, &provision), Some(ReasonCode::Retrying));
        world.edit_site("a", |site| {
            let operation = site.operation.as_mut().expect("an operation");
            (operation.attempts, operation.waiting_since, operation.trouble_since) = (attempts, None, None);
            operation.reason.as_mut().expect("a reason").code = why;
        });
        world.restart();
        world.run();
        assert_eq!(status(&world, &provision), Status::Ended(TerminalStatus::Succeeded), "{attempts} {why}");
        assert_sound(&mut world);
    }
}

/// Runs a server for `seconds`, and returns the number of calls.
fn serve(world: &World, server: &mut super::ManualPoll<()>, seconds: u64) -> u64 {
    let (calls, until) = (world.faults.total(), world.clock.monotonic().after(Duration::from_secs(seconds)));
    while world.clock.monotonic() < until {
        assert!(matches!(server.poll(world), PollState::Pending));
        advance_to_next_event(world);
    }
    world.faults.total() - calls
}

#[test]
fn a_server_without_its_store_polls_slowly_and_recovers() {
    let mut world = World::new(1);
    let provision = provision(&mut world);
    let (worker, mut first) = server(&world, "server");
    // An operation waits, and the cluster has an unprocessed change; another worker was active.
    while code(&world, &provision) != Some(ReasonCode::JobRunning) {
        assert!(matches!(first.poll(&world), PollState::Pending));
    }
    let (_, mut other) = server(&world, "other");
    assert!(matches!(other.poll(&world), PollState::Pending));
    let _ = serve(&world, &mut first, 5);
    world.faults.outage(Some(outage("store", OutageKind::Refused, 10)));
    let calls = serve(&world, &mut first, 300);
    assert!(calls <= 300, "{calls} calls in five minutes without the store");
    world.faults.outage(None);
    let _ = serve(&world, &mut first, 60);
    assert_eq!(status(&world, &provision), Status::Ended(TerminalStatus::Succeeded));
    worker.stop();
    first.finish(&world);
    drop(other);
    assert_sound(&mut world);
}

#[test]
fn a_server_stopped_during_an_outage_ends_within_its_grace_period() {
    for port in ["databases", "store", "cluster"] {
        for kind in OutageKind::ALL {
            let mut world = World::new(1);
            let provision = provision(&mut world);
            world.faults.outage(Some(outage(port, kind, 20)));
            let (worker, mut future) = server(&world, "server");
            let _ = serve(&world, &mut future, 31);
            worker.stop();
            let stopped = world.clock.monotonic();
            future.finish(&world);
            let took = world.clock.monotonic().since(stopped);
            assert!(took <= Settings::default().grace * 2, "{port} {kind:?}: {took:?}");
            world.faults.outage(None);
            world.restart();
            world.run();
            assert_eq!(
                status(&world, &provision),
                Status::Ended(TerminalStatus::Succeeded),
                "{port} {kind:?}"
            );
            assert_sound(&mut world);
        }
    }
}

/// Returns each combination of status and code that the rollout shows until it ends.
fn statuses_until_end(world: &mut World, number: u64) -> Vec<(RolloutStatus, Option<ReasonCode>)> {
    let mut statuses_until_end = Vec::new();
    let (_, mut future) = server(world, "server");
    for _ in 0..20_000 {
        let it = rollout(world, number);
        let now = (it.status, it.reason.as_ref().map(|reason| reason.code));
        if statuses_until_end.last() != Some(&now) {
            statuses_until_end.push(now);
        }
        if it.status.ended() {
            return statuses_until_end;
        }
        assert!(matches!(future.poll(world), PollState::Pending));
        advance_to_next_event(world);
    }
    panic!("the rollout does not end: {statuses_until_end:?}");
}

#[test]
fn a_rollout_reports_an_unavailable_cluster_and_not_an_unready_service() {
    for (kind, why) in [
        (OutageKind::Refused, ReasonCode::Retrying),
        (OutageKind::Throttled, ReasonCode::Throttled),
        (OutageKind::Denied, ReasonCode::Denied),
    ] {
        let mut world = fleet(6);
        let number = number(start_rollout(&mut world, &RolloutSpec { waves: Vec::new(), ..all(0) }));
        let before = world.log.len();
        world.faults.outage(Some(outage("cluster", kind, 3)));
        let statuses_until_end = statuses_until_end(&mut world, number);
        assert!(
            statuses_until_end.contains(&(RolloutStatus::Waiting, Some(why))),
            "{kind:?}: {statuses_until_end:?}"
        );
        let untrue = statuses_until_end.iter().any(|(_, code)| *code == Some(ReasonCode::ServiceNotReady));
        assert!(!untrue, "{kind:?}: {statuses_until_end:?}");
        let writes = world.log.since(before);
        let writes = writes.iter().filter(|effect| matches!(effect.kind, EffectKind::Rollout(_))).count();
        assert!(writes < 30, "{kind:?}: {writes} writes of the rollout");
        assert_eq!(rollout(&world, number).status, RolloutStatus::Succeeded);
        assert_sound(&mut world);
    }
}

#[test]
fn a_rollout_shows_that_it_waits_for_its_flush() {
    let mut world = fleet(6);
    super::pending_flush::slow_flushes(&world, 2);
    let number = number(start_rollout(&mut world, &RolloutSpec { waves: Vec::new(), ..all(0) }));
    let statuses_until_end = statuses_until_end(&mut world, number);
    assert!(
        statuses_until_end.contains(&(RolloutStatus::Running, Some(ReasonCode::JobRunning))),
        "{statuses_until_end:?}"
    );
    assert_eq!(statuses_until_end.last(), Some(&(RolloutStatus::Succeeded, None)));
    assert_sound(&mut world);
}
