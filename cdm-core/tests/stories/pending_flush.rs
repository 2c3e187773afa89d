//! Caches are flushed while further sites are moved; whoever finds the rollout at rest finds none that were not.

use std::time::Duration;

use cdm_core::domain::rollout::{Counts, MemberOutcome, PendingFlush, WaveTarget, Window};
use cdm_core::domain::{Color, RolloutStatus};
use cdm_core::manager::RolloutRequest;
use cdm_core::ports::{Clock, JobState};
use cdm_testkit::fakes::JobScript;
use cdm_testkit::world::{Process, World};

use super::waves::{all, fleet, on_green, outcomes, stands};
use super::{Hand, Left, assert_sound, number, pass, roll, rollout, run_once};

/// Waves of one site, of one, and of the others.
fn in_waves() -> RolloutRequest {
    RolloutRequest {
        waves: vec![WaveTarget::Count(1), WaveTarget::Count(2), WaveTarget::Percent(100)],
        ..all(0)
    }
}

/// Flushes that take a minute each.
pub(super) fn slowly(world: &World, jobs: usize) {
    let result = JobState::Succeeded { failed: Vec::new() };
    world
        .cluster
        .script_job("flush-caches", vec![JobScript { takes: Duration::from_secs(60), result }; jobs]);
}

fn jobs(world: &World) -> usize {
    world.cluster.jobs().iter().filter(|(name, ..)| name.as_str().starts_with("rollout-")).count()
}

/// Drives an owner, a call a poll, until so many of 12 sites are on green.
fn until_moved(world: &World, process: &Process, moved: usize) -> Hand<cdm_core::engine::RunSummary> {
    world.faults.narrow();
    let mut owner = run_once(process);
    while on_green(world, 12).len() < moved {
        assert!(matches!(owner.poll(world), Left::Waits));
    }
    world.faults.widen();
    owner
}

#[test]
fn sites_are_moved_during_a_flush_and_then_flushed_together() {
    let mut world = fleet(6);
    slowly(&world, 3);
    let begun = world.clock.monotonic();
    let number = number(roll(&mut world, &in_waves()));
    let mut owner = run_once(&world.process());
    while world.clock.monotonic().since(begun) < Duration::from_secs(50) {
        assert!(matches!(owner.poll(&world), Left::Waits));
        pass(&world);
    }
    assert_eq!((on_green(&world, 6).len(), jobs(&world)), (6, 1), "all are moved during the first flush");
    let _ = owner.finish(&world);
    world.run();
    assert_eq!(stands(&world, number), (RolloutStatus::Succeeded, None));
    let took = world.clock.monotonic().since(begun).as_secs();
    assert!((120..140).contains(&took), "two flushes, one after the other: {took}");
    assert_eq!(jobs(&world), 2);
    assert_sound(&mut world);
}

#[test]
fn no_more_sites_are_moved_during_a_flush_than_may_be_behind() {
    let mut world = fleet(1_300);
    slowly(&world, 1);
    let begun = world.clock.monotonic();
    let wanted = RolloutRequest { waves: Vec::new(), max_concurrent: 64, ..all(0) };
    let number = number(roll(&mut world, &wanted));
    let mut owner = run_once(&world.process());
    while world.clock.monotonic().since(begun) < Duration::from_secs(50) {
        assert!(matches!(owner.poll(&world), Left::Waits));
        pass(&world);
    }
    let (moved, most) = (on_green(&world, 1_300).len(), PendingFlush::MOST as usize);
    assert_eq!(moved, Window::size(64) as usize + most, "those of the flush, and as many as may be behind");
    let _ = owner.finish(&world);
    world.run();
    assert_eq!(stands(&world, number), (RolloutStatus::Succeeded, None));
    assert_sound(&mut world);
}

#[test]
fn a_flush_that_trails_and_fails_parks_its_own_sites_and_the_totals_agree() {
    let mut world = fleet(6);
    world.cluster.script_job("flush-caches", super::failing(3));
    let number = number(roll(&mut world, &in_waves()));
    world.run();
    assert_eq!(stands(&world, number), (RolloutStatus::Succeeded, None));
    let expected: Vec<_> =
        (0..6).map(|n| Some(if n == 0 { MemberOutcome::Parked } else { MemberOutcome::Moved })).collect();
    assert_eq!(outcomes(&world, number), expected);
    assert_eq!(rollout(&world, number).counts(), Counts { succeeded: 5, parked: 1, ..Counts::default() });
    assert_sound(&mut world);
}

#[test]
fn who_pauses_or_takes_over_at_any_moment_finds_every_moved_site_flushed_in_the_end() {
    for (pauses, moved) in [true, false].into_iter().flat_map(|pauses| (1..12).map(move |n| (pauses, n))) {
        let mut world = fleet(12);
        slowly(&world, 2);
        let number = number(roll(&mut world, &in_waves()));
        let owner = until_moved(&world, &world.process(), moved);
        if pauses {
            let asked = world
                .ask(move |manager, request| Box::pin(async move { manager.pause(&request, number).await }));
            let _ = asked.expect("it runs");
            let _ = owner.finish(&world);
            world.run();
            let left = rollout(&world, number);
            assert_eq!((left.status, left.pending_flush), (RolloutStatus::Paused, None), "{moved}");
            let flushed = world.cluster.flushes();
            let on_green = world.store.all_sites().into_iter().filter(|site| site.service == Color::Green);
            for site in on_green {
                assert!(flushed.contains(&(number, site.uid)), "{moved}: `{}` is not flushed", site.id);
            }
            world
                .ask(move |manager, request| Box::pin(async move { manager.resume(&request, number).await }))
                .expect("it is paused");
        } else {
            drop(owner);
            world.restart();
        }
        world.run();
        assert_eq!(stands(&world, number), (RolloutStatus::Succeeded, None), "{pauses} {moved}");
        assert_eq!(on_green(&world, 12).len(), 12);
        assert_sound(&mut world);
    }
}

#[test]
fn a_process_that_ends_in_good_order_does_not_wait_for_a_flush() {
    let mut world = fleet(12);
    slowly(&world, 3);
    let number = number(roll(&mut world, &in_waves()));
    let mut owner = until_moved(&world, &world.process(), 2);
    let begun = world.clock.monotonic();
    world.process().worker.stop();
    // Calls that are under way take some polls and no time.
    let ended = (0..100).any(|_| matches!(owner.poll(&world), Left::Done(_)));
    if !ended {
        let _ = owner.finish(&world);
    }
    let took = world.clock.monotonic().since(begun);
    assert!(took <= Duration::from_secs(2), "{took:?}");
    assert_eq!(rollout(&world, number).owner, None, "the next one need not wait for a lease");
    world.restart();
    world.run();
    assert_eq!(stands(&world, number), (RolloutStatus::Succeeded, None));
    assert_sound(&mut world);
}
