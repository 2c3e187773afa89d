//! Backends that are away, ask for fewer calls, deny or go on refusing, told from outside.

use std::time::Duration;

use cdm_core::domain::{Color, OperationId, ReasonCode, RolloutStatus, Status, TerminalStatus};
use cdm_core::engine::Settings;
use cdm_core::manager::RolloutRequest;
use cdm_core::ports::Clock;
use cdm_testkit::faults::{Outage, OutageKind};
use cdm_testkit::log::What;
use cdm_testkit::world::{Verb, World};

use super::engine::server;
use super::waves::{all, fleet};
use super::{
    Left, assert_parked, assert_sound, begun, cancel, code, exists, number, operation, pass, retry, roll,
    rollout, status,
};

fn outage(port: &'static str, kind: OutageKind, minutes: u64) -> Outage {
    Outage { port, kind, from: 0, lasts: Duration::from_secs(60 * minutes), crash: None }
}

/// A created site `a` whose provision is queued.
fn provision(world: &mut World) -> OperationId {
    let _ = world.create("a");
    world.run();
    begun(world.on_site("a", Verb::Provision))
}

/// A live site `a` whose promotion meets conflicts without end; it has run out of attempts.
fn exhausted() -> (World, OperationId) {
    let mut world = World::new(1);
    world.settle_site("a");
    world.select(Color::Green).expect("green is selected");
    world.run();
    world.faults.outage(Some(outage("cluster.move_route", OutageKind::Conflict, 600)));
    let promote = begun(world.on_site("a", Verb::Promote));
    for _ in 0..100 {
        let _ = world.run_once();
        if status(&world, &promote).rests() {
            break;
        }
        world.clock.advance(Duration::from_secs(5));
    }
    assert_parked(&world, &promote, ReasonCode::AttemptsExhausted);
    (world, promote)
}

/// How often the record of a site was written since then.
fn writes(world: &World, since: usize) -> usize {
    let effects = world.log.since(since);
    effects.iter().filter(|effect| matches!(effect.what, What::Site(..))).count()
}

#[test]
fn an_operation_that_runs_out_of_attempts_parks_with_the_last_error_and_can_be_retried() {
    let (mut world, promote) = exhausted();
    let message = operation(&world, &promote).state.reason.expect("a reason").message;
    assert!(message.contains("8 attempts") && message.contains("injected Conflict"), "{message}");
    let before = world.log.len();
    for _ in 0..20 {
        let _ = world.run_once();
        world.clock.advance(Duration::from_secs(3));
    }
    assert_eq!(writes(&world, before), 0, "what is parked is not written");
    world.faults.outage(None);
    let _ = retry(&mut world, &promote).expect("it is retried");
    world.run();
    assert_eq!(status(&world, &promote), Status::Ended(TerminalStatus::Succeeded));
    assert_sound(&mut world);
}

#[test]
fn an_operation_that_ran_out_of_attempts_is_cancelled_or_displaced() {
    let (mut world, promote) = exhausted();
    world.faults.outage(None);
    let _ = cancel(&mut world, &promote).expect("it is cancelled");
    world.run();
    assert_eq!(status(&world, &promote), Status::Ended(TerminalStatus::Cancelled));
    assert_sound(&mut world);

    let (mut world, promote) = exhausted();
    world.faults.outage(None);
    let terminate = begun(world.on_site("a", Verb::Terminate));
    assert_eq!(status(&world, &promote), Status::Ended(TerminalStatus::Cancelled));
    world.run();
    assert_eq!(status(&world, &terminate), Status::Ended(TerminalStatus::Succeeded));
    assert!(!exists(&world, "a"));
    assert_sound(&mut world);
}

#[test]
fn a_backend_that_is_away_is_waited_for_with_its_last_error_in_a_reason_that_is_stored_once() {
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
fn a_backend_that_denies_is_asked_again_for_five_minutes_before_the_operation_parks() {
    for (minutes, parks) in [(4, false), (30, true)] {
        let mut world = World::new(1);
        let provision = provision(&mut world);
        let began = world.wall();
        world.faults.outage(Some(outage("objects", OutageKind::Denied, minutes)));
        let mut waited = false;
        for _ in 0..2_000 {
            let _ = world.run_once();
            let operation = operation(&world, &provision).state;
            if operation.status.rests() {
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
        assert!(waited, "it does not wait under its reason");
        if parks {
            assert_parked(&world, &provision, ReasonCode::Denied);
            let reason = operation(&world, &provision).state.reason.expect("a reason");
            let after = reason.since.since(began).as_secs();
            assert!(
                (300..330).contains(&after) && reason.message.contains("injected"),
                "{after}: {reason:?}"
            );
            world.faults.outage(None);
            let _ = retry(&mut world, &provision).expect("it is retried");
            world.run();
        }
        assert_eq!(status(&world, &provision), Status::Ended(TerminalStatus::Succeeded));
        assert_sound(&mut world);
    }
}

#[test]
fn a_slot_whose_attempts_an_earlier_version_counted_in_an_outage_goes_on() {
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

/// Runs a server for so long; how many calls were made meanwhile.
fn serve(world: &World, server: &mut super::Hand<()>, seconds: u64) -> u64 {
    let (calls, until) = (world.faults.total(), world.clock.monotonic().after(Duration::from_secs(seconds)));
    while world.clock.monotonic() < until {
        assert!(matches!(server.poll(world), Left::Waits));
        pass(world);
    }
    world.faults.total() - calls
}

#[test]
fn a_server_without_its_store_asks_at_its_pace_and_goes_on_when_it_is_back() {
    let mut world = World::new(1);
    let provision = provision(&mut world);
    let (worker, mut first) = server(&world, "server");
    // Something waits, and there is news of the cluster that nobody has taken notice of; another worker was at work.
    while code(&world, &provision) != Some(ReasonCode::JobRunning) {
        assert!(matches!(first.poll(&world), Left::Waits));
    }
    let (_, mut other) = server(&world, "other");
    assert!(matches!(other.poll(&world), Left::Waits));
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
fn a_server_that_is_told_to_stop_in_an_outage_ends_within_its_grace() {
    for port in ["databases", "store", "cluster"] {
        for kind in OutageKind::ALL {
            let mut world = World::new(1);
            let provision = provision(&mut world);
            world.faults.outage(Some(outage(port, kind, 20)));
            let (worker, mut hand) = server(&world, "server");
            let _ = serve(&world, &mut hand, 31);
            worker.stop();
            let stopped = world.clock.monotonic();
            hand.finish(&world);
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

/// What the rollout shows at each moment from now on until it ends: status and code.
fn shown(world: &mut World, number: u64) -> Vec<(RolloutStatus, Option<ReasonCode>)> {
    let mut shown = Vec::new();
    let (_, mut hand) = server(world, "server");
    for _ in 0..20_000 {
        let it = rollout(world, number);
        let now = (it.status, it.reason.as_ref().map(|reason| reason.code));
        if shown.last() != Some(&now) {
            shown.push(now);
        }
        if it.status.ended() {
            return shown;
        }
        assert!(matches!(hand.poll(world), Left::Waits));
        pass(world);
    }
    panic!("the rollout does not end: {shown:?}");
}

#[test]
fn a_rollout_whose_cluster_is_away_says_so_and_not_that_the_service_is_not_ready() {
    for (kind, why) in [
        (OutageKind::Refused, ReasonCode::Retrying),
        (OutageKind::Throttled, ReasonCode::Throttled),
        (OutageKind::Denied, ReasonCode::Denied),
    ] {
        let mut world = fleet(6);
        let number = number(roll(&mut world, &RolloutRequest { waves: Vec::new(), ..all(0) }));
        let before = world.log.len();
        world.faults.outage(Some(outage("cluster", kind, 3)));
        let shown = shown(&mut world, number);
        assert!(shown.contains(&(RolloutStatus::Waiting, Some(why))), "{kind:?}: {shown:?}");
        let untrue = shown.iter().any(|(_, code)| *code == Some(ReasonCode::ServiceNotReady));
        assert!(!untrue, "{kind:?}: {shown:?}");
        let writes = world.log.since(before);
        let writes = writes.iter().filter(|effect| matches!(effect.what, What::Rollout(_))).count();
        assert!(writes < 30, "{kind:?}: {writes} writes of the rollout");
        assert_eq!(rollout(&world, number).status, RolloutStatus::Succeeded);
        assert_sound(&mut world);
    }
}

#[test]
fn a_rollout_shows_that_it_waits_for_its_flush() {
    let mut world = fleet(6);
    super::pending_flush::slowly(&world, 2);
    let number = number(roll(&mut world, &RolloutRequest { waves: Vec::new(), ..all(0) }));
    let shown = shown(&mut world, number);
    assert!(shown.contains(&(RolloutStatus::Running, Some(ReasonCode::JobRunning))), "{shown:?}");
    assert_eq!(shown.last(), Some(&(RolloutStatus::Succeeded, None)));
    assert_sound(&mut world);
}
