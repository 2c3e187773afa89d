//! Freezes: who is stopped by them, and who is not.

use std::time::Duration;

use cdm_core::domain::rollout::{Counts, MemberOutcome};
use cdm_core::domain::{Color, ReasonCode, RolloutStatus, SiteId};
use cdm_core::manager::{ManagerError, NewFreeze, RolloutRequest};
use cdm_core::ports::Clock;
use cdm_testkit::world::{Verb, World, digest};

use super::asked::{Wish, ask};
use super::waves::{all, fleet, nth, on_green, outcomes, stands};
use super::{assert_sound, begun, number, roll, rollout, routed};

fn freeze(world: &mut World, sites: Option<&[u32]>, lasts: Option<Duration>) -> Result<u64, ManagerError> {
    let parse = |n: &u32| SiteId::parse(&nth(*n)).expect("a site id");
    let wanted = NewFreeze {
        sites: sites.map(|sites| sites.iter().map(parse).collect()),
        reason: "the sale of the year".to_owned(),
        until: lasts.map(|lasts| world.clock.wall().after(lasts)),
    };
    let begun = world.ask(move |manager, request| {
        let wanted = wanted.clone();
        Box::pin(async move { manager.freeze(&request, &wanted).await })
    });
    begun.map(|freeze| freeze.number)
}

fn thaw(world: &mut World, number: u64) {
    let thawed =
        world.ask(move |manager, request| Box::pin(async move { manager.thaw(&request, number).await }));
    thawed.expect("it was there");
}

#[test]
fn in_a_freeze_nobody_is_moved_and_whoever_asks_is_told_why() {
    let mut world = fleet(3);
    let number = freeze(&mut world, None, None).unwrap();
    for verb in [Verb::Promote, Verb::Upgrade] {
        let refused = world.on_site(&nth(1), verb).unwrap_err();
        assert_eq!(refused.code(), "frozen");
        assert!(refused.to_string().contains("the sale of the year"), "{refused}");
    }
    assert_eq!(roll(&mut world, &all(0)).unwrap_err().code(), "frozen");
    assert_eq!(world.deploy(digest(1), Color::Green, true).unwrap_err().code(), "frozen");
    // What mends, begins or ends a site goes on.
    let _ = begun(world.deploy(digest(1), Color::Green, false));
    world.settle_site("new");
    let _ = begun(world.on_site(&nth(2), Verb::Terminate));
    world.run();
    assert_eq!(on_green(&world, 2), [0; 0]);
    thaw(&mut world, number);
    let _ = begun(world.on_site(&nth(1), Verb::Promote));
    world.run();
    assert_eq!(routed(&world, &nth(1)), Some(Color::Green));
    assert_sound(&mut world);
}

#[test]
fn a_rollout_under_way_waits_and_goes_on_when_the_freeze_is_removed_or_ends() {
    for removed in [true, false] {
        let mut world = fleet(30);
        let number = number(roll(&mut world, &all(0)));
        let mut owner = super::run_once(&world.process());
        // A call takes longer than a poll.
        world.faults.narrow();
        while on_green(&world, 30).len() < 3 {
            assert!(matches!(owner.poll(&world), super::Left::Waits));
        }
        world.faults.widen();
        let begun = world.clock.monotonic();
        let lasts = (!removed).then_some(Duration::from_secs(3_600));
        let freeze = freeze(&mut world, None, lasts).unwrap();
        let _ = owner.finish(&world);
        for _ in 0..5 {
            let _ = world.run_once();
        }
        assert_eq!(stands(&world, number), (RolloutStatus::Waiting, Some(ReasonCode::Frozen)));
        let moved = on_green(&world, 30).len();
        // At most what was in flight, and what a look a second apart lets go.
        assert!(moved < 30, "{moved}");
        let until = rollout(&world, number).reason.expect("a reason").until;
        assert_eq!(until.is_some(), !removed);
        if removed {
            thaw(&mut world, freeze);
        }
        world.run();
        assert_eq!(stands(&world, number), (RolloutStatus::Succeeded, None));
        let waited = world.clock.monotonic().since(begun);
        assert_eq!(waited >= Duration::from_secs(3_600), !removed, "{waited:?}");
        assert_sound(&mut world);
    }
}

#[test]
fn a_frozen_site_is_left_out_of_a_rollout_and_can_be_taken_up_later() {
    let mut world = fleet(10);
    let frozen = freeze(&mut world, Some(&[2, 7]), None).unwrap();
    let number = number(roll(&mut world, &all(0)));
    world.run();
    assert_eq!(stands(&world, number), (RolloutStatus::Succeeded, None));
    assert_eq!(outcomes(&world, number)[7], Some(MemberOutcome::SkippedFrozen));
    assert_eq!(rollout(&world, number).counts(), Counts { succeeded: 8, skipped: 2, ..Counts::default() });
    assert!(!on_green(&world, 10).contains(&2));
    assert_eq!(world.on_site(&nth(2), Verb::Promote).unwrap_err().code(), "frozen");
    thaw(&mut world, frozen);
    let retried = world
        .ask(move |manager, request| Box::pin(async move { manager.retry_rollout(&request, number).await }));
    let again = super::number(retried);
    world.run();
    assert_eq!(rollout(&world, again).counts(), Counts { succeeded: 2, ..Counts::default() });
    assert_eq!(on_green(&world, 10).len(), 10);
    assert_sound(&mut world);
}

#[test]
fn a_freeze_keeps_nobody_from_pausing_aborting_or_returning() {
    let mut world = fleet(12);
    super::waves::lose_route(&world, 5);
    let wanted = RolloutRequest { auto_rollback: true, waves: Vec::new(), ..all(0) };
    let halting = number(roll(&mut world, &wanted));
    let mut owner = super::run_once(&world.process());
    while rollout(&world, halting).direction == cdm_core::domain::Direction::Forward {
        assert!(matches!(owner.poll(&world), super::Left::Waits));
        super::pass(&world);
    }
    freeze(&mut world, None, None).unwrap();
    let _ = owner.finish(&world);
    world.run();
    assert_eq!(rollout(&world, halting).status, RolloutStatus::Failed);
    assert_eq!(on_green(&world, 12), [0; 0]);

    let mut world = fleet(12);
    let number = number(roll(&mut world, &all(0)));
    freeze(&mut world, None, None).unwrap();
    let _ = world.run_once();
    assert_eq!(stands(&world, number), (RolloutStatus::Waiting, Some(ReasonCode::Frozen)));
    ask(&mut world, number, Wish::Abort).unwrap();
    world.run();
    assert_eq!(stands(&world, number).0, RolloutStatus::Aborted);
    assert_eq!(on_green(&world, 12), [0; 0]);
    assert_sound(&mut world);
}

#[test]
fn a_freeze_that_has_ended_stops_nobody_and_one_in_the_past_or_of_nobody_is_refused() {
    let mut world = fleet(2);
    assert_eq!(freeze(&mut world, None, Some(Duration::ZERO)).unwrap_err().code(), "invalid");
    assert_eq!(freeze(&mut world, Some(&[]), None).unwrap_err().code(), "invalid");
    freeze(&mut world, None, Some(Duration::from_secs(60))).unwrap();
    world.clock.advance(Duration::from_secs(61));
    let _ = begun(world.on_site(&nth(0), Verb::Promote));
    for _ in 0..100 {
        freeze(&mut world, None, Some(Duration::from_secs(600))).unwrap();
    }
    assert_eq!(freeze(&mut world, None, None).unwrap_err().code(), "invalid");
}
