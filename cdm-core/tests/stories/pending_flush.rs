//! Caches are flushed while further sites are moved; when the rollout is at rest, every moved site has been flushed.

use std::time::Duration;

use cdm_core::domain::rollout::{Counts, MemberOutcome, PendingFlush, RolloutSpec, WaveTarget, Window};
use cdm_core::domain::{Color, RolloutStatus};
use cdm_core::ports::{Clock, JobState};
use cdm_testkit::fakes::JobScript;
use cdm_testkit::world::{Process, World};

use super::waves::{all, fleet, on_green, outcomes, status_and_code};
use super::{
    ManualPoll, PollState, advance_to_next_event, assert_sound, number, rollout, run_once, start_rollout,
};

/// Waves of one site, of one site, and of the remaining sites.
fn in_waves() -> RolloutSpec {
    RolloutSpec {
        waves: vec![WaveTarget::Count(1), WaveTarget::Count(2), WaveTarget::Percent(100)],
        ..all(0)
    }
}

/// Flushes that take a minute each.
pub(super) fn slow_flushes(world: &World, jobs: usize) {
    let result = JobState::Succeeded { failed: Vec::new() };
    world
        .cluster
        .script_job("flush-caches", vec![JobScript { takes: Duration::from_secs(60), result }; jobs]);
}

fn jobs(world: &World) -> usize {
    world.cluster.jobs().iter().filter(|(name, ..)| name.as_str().starts_with("rollout-")).count()
}

/// Polls an owner, one call per poll, until this number of 12 sites is on green.
fn until_moved(world: &World, process: &Process, moved: usize) -> ManualPoll<cdm_core::engine::RunSummary> {
    world.faults.use_one_connection();
    let mut owner = run_once(process);
    while on_green(world, 12).len() < moved {
        assert!(matches!(owner.poll(world), PollState::Pending));
    }
    world.faults.use_many_connections();
    owner
}

#[test]
fn sites_are_moved_during_a_flush_and_then_flushed_together() {
    let mut world = fleet(6);
    slow_flushes(&world, 3);
    let operation_id = world.clock.monotonic();
    let number = number(start_rollout(&mut world, &in_waves()));
    let mut owner = run_once(&world.process());
    while world.clock.monotonic().since(operation_id) < Duration::from_secs(50) {
        assert!(matches!(owner.poll(&world), PollState::Pending));
        advance_to_next_event(&world);
    }
    assert_eq!((on_green(&world, 6).len(), jobs(&world)), (6, 1), "all are moved during the first flush");
    let _ = owner.finish(&world);
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
    let took = world.clock.monotonic().since(operation_id).as_secs();
    assert!((120..140).contains(&took), "two flushes, one after the other: {took}");
    assert_eq!(jobs(&world), 2);
    assert_sound(&mut world);
}

#[test]
fn the_number_of_unflushed_sites_is_limited() {
    let mut world = fleet(1_300);
    slow_flushes(&world, 1);
    let operation_id = world.clock.monotonic();
    let wanted = RolloutSpec { waves: Vec::new(), max_concurrent: 64, ..all(0) };
    let number = number(start_rollout(&mut world, &wanted));
    let mut owner = run_once(&world.process());
    while world.clock.monotonic().since(operation_id) < Duration::from_secs(50) {
        assert!(matches!(owner.poll(&world), PollState::Pending));
        advance_to_next_event(&world);
    }
    let flushed = rollout(&world, number).phase.progress().pending_flush.expect("a flush").window.end;
    assert_eq!(
        on_green(&world, 1_300).len(),
        (flushed + PendingFlush::MAX) as usize,
        "the sites of the flush, and the maximum of unflushed sites"
    );
    assert!(flushed >= Window::size(64) / 2, "{flushed}");
    let _ = owner.finish(&world);
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
    assert_sound(&mut world);
}

#[test]
fn a_failing_background_flush_parks_its_own_sites() {
    let mut world = fleet(6);
    world.cluster.script_job("flush-caches", super::failing(3));
    let number = number(start_rollout(&mut world, &in_waves()));
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
    let expected: Vec<_> =
        (0..6).map(|n| Some(if n == 0 { MemberOutcome::Parked } else { MemberOutcome::Moved })).collect();
    assert_eq!(outcomes(&world, number), expected);
    assert_eq!(rollout(&world, number).counts(), Counts { succeeded: 5, parked: 1, ..Counts::default() });
    assert_sound(&mut world);
}

#[test]
fn every_moved_site_is_flushed_after_a_pause_or_takeover() {
    for (pauses, moved) in [true, false].into_iter().flat_map(|pauses| (1..12).map(move |n| (pauses, n))) {
        let mut world = fleet(12);
        slow_flushes(&world, 2);
        let number = number(start_rollout(&mut world, &in_waves()));
        let owner = until_moved(&world, &world.process(), moved);
        if pauses {
            let accepted = world.request(move |manager, request| {
                Box::pin(async move { manager.pause(&request, number).await })
            });
            let _ = accepted.expect("the rollout is running");
            let _ = owner.finish(&world);
            world.run();
            let rollout_record = rollout(&world, number);
            assert_eq!(
                (rollout_record.status, rollout_record.phase.progress().pending_flush),
                (RolloutStatus::Paused, None),
                "{moved}"
            );
            let flushed = world.cluster.flushes();
            let on_green = world.store.all_sites().into_iter().filter(|site| site.service == Color::Green);
            let on_green: Vec<_> = on_green.collect();
            assert!(on_green.len() >= moved, "{moved}: {} sites were moved", on_green.len());
            for site in on_green {
                assert!(flushed.contains(&(number, site.uid)), "{moved}: `{}` is not flushed", site.id);
            }
            world
                .request(move |manager, request| {
                    Box::pin(async move { manager.resume(&request, number).await })
                })
                .expect("the rollout is paused");
        } else {
            drop(owner);
            world.restart();
        }
        world.run();
        assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None), "{pauses} {moved}");
        assert_eq!(on_green(&world, 12).len(), 12);
        assert_sound(&mut world);
    }
}

#[test]
fn a_graceful_shutdown_does_not_wait_for_a_flush() {
    let mut world = fleet(12);
    slow_flushes(&world, 3);
    let number = number(start_rollout(&mut world, &in_waves()));
    let mut owner = until_moved(&world, &world.process(), 2);
    let operation_id = world.clock.monotonic();
    world.process().worker.stop();
    // Calls in flight take some polls and no time.
    let ended = (0..100).any(|_| matches!(owner.poll(&world), PollState::Done(_)));
    if !ended {
        let _ = owner.finish(&world);
    }
    let took = world.clock.monotonic().since(operation_id);
    assert!(took <= Duration::from_secs(2), "{took:?}");
    assert_eq!(rollout(&world, number).owner, None, "the next owner does not wait for a lease");
    world.restart();
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
    assert_sound(&mut world);
}
