//! Freezes: what they stop, and what continues.

use std::time::Duration;

use cdm_core::domain::rollout::{Counts, MemberOutcome, RolloutSpec};
use cdm_core::domain::{Color, ReasonCode, RolloutStatus, SiteId};
use cdm_core::manager::{ManagerError, NewFreeze};
use cdm_core::ports::Clock;
use cdm_testkit::world::{Verb, World, digest};

use super::controls::{Control, send_control};
use super::waves::{all, fleet, nth, on_green, outcomes, status_and_code};
use super::{assert_sound, number, operation_id, rollout, routed, start_rollout};

fn freeze(world: &mut World, sites: Option<&[u32]>, lasts: Option<Duration>) -> Result<u64, ManagerError> {
    let parse = |n: &u32| SiteId::parse(&nth(*n)).expect("a site id");
    let wanted = NewFreeze {
        sites: sites.map(|sites| sites.iter().map(parse).collect()),
        reason: "the sale of the year".to_owned(),
        until: lasts.map(|lasts| world.clock.wall().after(lasts)),
    };
    let accepted = world.request(move |manager, request| {
        let wanted = wanted.clone();
        Box::pin(async move { manager.freeze(&request, &wanted).await })
    });
    accepted.map(|freeze| freeze.number)
}

fn thaw(world: &mut World, number: u64) {
    let thawed =
        world.request(move |manager, request| Box::pin(async move { manager.thaw(&request, number).await }));
    thawed.expect("the freeze exists");
}

#[test]
fn during_a_freeze_no_site_is_moved_and_requests_get_the_reason() {
    let mut world = fleet(3);
    let number = freeze(&mut world, None, None).unwrap();
    for verb in [Verb::Promote, Verb::Upgrade] {
        let refused = world.on_site(&nth(1), verb).unwrap_err();
        assert_eq!(refused.code(), "frozen");
        assert!(refused.to_string().contains("the sale of the year"), "{refused}");
    }
    assert_eq!(start_rollout(&mut world, &all(0)).unwrap_err().code(), "frozen");
    assert_eq!(world.deploy(digest(1), Color::Green, true).unwrap_err().code(), "frozen");
    // Requests that repair, create or end a site are accepted.
    let _ = operation_id(world.deploy(digest(1), Color::Green, false));
    world.create_active_site("new");
    let _ = operation_id(world.on_site(&nth(2), Verb::Terminate));
    world.run();
    assert_eq!(on_green(&world, 2), [0; 0]);
    thaw(&mut world, number);
    let _ = operation_id(world.on_site(&nth(1), Verb::Promote));
    world.run();
    assert_eq!(routed(&world, &nth(1)), Some(Color::Green));
    assert_sound(&mut world);
}

#[test]
fn a_running_rollout_waits_until_the_freeze_is_removed_or_expires() {
    for removed in [true, false] {
        let mut world = fleet(30);
        let number = number(start_rollout(&mut world, &all(0)));
        let mut owner = super::run_once(&world.process());
        // A call takes longer than a poll.
        world.faults.use_one_connection();
        while on_green(&world, 30).len() < 3 {
            assert!(matches!(owner.poll(&world), super::PollState::Pending));
        }
        world.faults.use_many_connections();
        let started = world.clock.monotonic();
        let lasts = (!removed).then_some(Duration::from_secs(3_600));
        let freeze = freeze(&mut world, None, lasts).unwrap();
        let _ = owner.finish(&world);
        for _ in 0..5 {
            let _ = world.run_once();
        }
        assert_eq!(status_and_code(&world, number), (RolloutStatus::Waiting, Some(ReasonCode::Frozen)));
        let moved = on_green(&world, 30).len();
        // At most the sites in flight, and those that are granted until the next check, one second apart.
        assert!(moved < 30, "{moved}");
        let until = rollout(&world, number).reason.expect("a reason").until;
        assert_eq!(until.is_some(), !removed);
        if removed {
            thaw(&mut world, freeze);
        }
        world.run();
        assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
        let waited = world.clock.monotonic().since(started);
        assert_eq!(waited >= Duration::from_secs(3_600), !removed, "{waited:?}");
        assert_sound(&mut world);
    }
}

#[test]
fn a_frozen_site_is_skipped_and_can_be_retried() {
    let mut world = fleet(10);
    let frozen = freeze(&mut world, Some(&[2, 7]), None).unwrap();
    let number = number(start_rollout(&mut world, &all(0)));
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
    assert_eq!(outcomes(&world, number)[7], Some(MemberOutcome::SkippedFrozen));
    assert_eq!(rollout(&world, number).counts(), Counts { succeeded: 8, skipped: 2, ..Counts::default() });
    assert!(!on_green(&world, 10).contains(&2));
    assert_eq!(world.on_site(&nth(2), Verb::Promote).unwrap_err().code(), "frozen");
    thaw(&mut world, frozen);
    let retried = world.request(move |manager, request| {
        Box::pin(async move { manager.retry_rollout(&request, number).await })
    });
    let again = super::number(retried);
    world.run();
    assert_eq!(rollout(&world, again).counts(), Counts { succeeded: 2, ..Counts::default() });
    assert_eq!(on_green(&world, 10).len(), 10);
    assert_sound(&mut world);
}

#[test]
fn a_freeze_does_not_block_pauses_aborts_and_rollbacks() {
    let mut world = fleet(12);
    super::waves::lose_route(&world, 5);
    let wanted = RolloutSpec { auto_rollback: true, waves: Vec::new(), ..all(0) };
    let halting = number(start_rollout(&mut world, &wanted));
    let mut owner = super::run_once(&world.process());
    while rollout(&world, halting).direction() == cdm_core::domain::Direction::Forward {
        assert!(matches!(owner.poll(&world), super::PollState::Pending));
        super::advance_to_next_event(&world);
    }
    freeze(&mut world, None, None).unwrap();
    let _ = owner.finish(&world);
    world.run();
    assert_eq!(rollout(&world, halting).status, RolloutStatus::Failed);
    assert_eq!(on_green(&world, 12), [0; 0]);

    let mut world = fleet(12);
    let number = number(start_rollout(&mut world, &all(0)));
    freeze(&mut world, None, None).unwrap();
    let _ = world.run_once();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Waiting, Some(ReasonCode::Frozen)));
    send_control(&mut world, number, Control::Abort).unwrap();
    world.run();
    assert_eq!(status_and_code(&world, number).0, RolloutStatus::Aborted);
    assert_eq!(on_green(&world, 12), [0; 0]);
    assert_sound(&mut world);
}

#[test]
fn an_expired_freeze_has_no_effect_and_an_invalid_freeze_is_rejected() {
    let mut world = fleet(2);
    assert_eq!(freeze(&mut world, None, Some(Duration::ZERO)).unwrap_err().code(), "invalid");
    assert_eq!(freeze(&mut world, Some(&[]), None).unwrap_err().code(), "invalid");
    freeze(&mut world, None, Some(Duration::from_secs(60))).unwrap();
    world.clock.advance(Duration::from_secs(61));
    let _ = operation_id(world.on_site(&nth(0), Verb::Promote));
    for _ in 0..100 {
        freeze(&mut world, None, Some(Duration::from_secs(600))).unwrap();
    }
    assert_eq!(freeze(&mut world, None, None).unwrap_err().code(), "invalid");
}
