//! What people ask of a rollout, at every call that its owner makes.

use std::sync::Arc;

use cdm_core::domain::operation::OperationParent;
use cdm_core::domain::{Color, OperationId, RolloutStatus, Status, TerminalStatus};
use cdm_core::manager::{Accepted, ManagerError};
use cdm_testkit::faults::{Fault, Plan};
use cdm_testkit::world::World;

use super::waves::{all, fleet, nth, on_green, outcomes};
use super::{assert_sound, number, roll, rollout, run_once, site, status};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Pause,
    Resume,
    Abort,
}

pub(super) fn ask(world: &mut World, number: u64, wish: Wish) -> Result<Accepted, ManagerError> {
    world.ask(move |manager, request| {
        let manager = Arc::clone(&manager);
        Box::pin(async move {
            match wish {
                Wish::Pause => manager.pause(&request, number).await,
                Wish::Resume => manager.resume(&request, number).await,
                Wish::Abort => manager.abort(&request, number).await,
            }
        })
    })
}

const SITES: u32 = 6;

/// A rollout of six sites whose owner stands still in its `call`th call, and what is asked in that moment by someone
/// else; `None` when the owner makes no such call. Answers which of the wishes were accepted.
fn asked_at(call: usize, wishes: &[Wish]) -> Option<(World, u64, Vec<bool>)> {
    let mut world = fleet(SITES);
    let number = number(roll(&mut world, &all(0)));
    world.faults.arm(Plan(vec![(call, Fault::Paused(255))]));
    let mut owner = run_once(&world.process());
    if !owner.stands_still(&world) {
        return None;
    }
    world.restart();
    let answers = wishes.iter().map(|wish| ask(&mut world, number, *wish).is_ok()).collect();
    let _ = owner.finish(&world);
    world.run();
    Some((world, number, answers))
}

/// Whatever stopped it, every site is whole: on one side or the other, in nobody's hands.
fn assert_whole(world: &mut World, number: u64, call: usize) {
    let rollout = rollout(world, number);
    assert_eq!((rollout.owner, rollout.locked_color), (None, None), "call {call}");
    for (n, outcome) in (0..).zip(outcomes(world, number)) {
        let site = site(world, &nth(n));
        let there = Some(site.service) == site.routed_service();
        assert!(site.operation.is_none() && there, "call {call}: {outcome:?} {site:?}");
    }
    assert_sound(world);
}

#[test]
fn a_pause_at_any_call_stops_the_rollout_between_two_sites_and_a_resume_brings_all_of_them_over() {
    let mut stopped = 0;
    for call in 0.. {
        let Some((mut world, number, answers)) = asked_at(call, &[Wish::Pause]) else { break };
        let status = rollout(&world, number).status;
        if answers == [true] {
            assert_eq!(status, RolloutStatus::Paused, "call {call}");
            stopped += 1;
            assert_whole(&mut world, number, call);
            ask(&mut world, number, Wish::Resume).unwrap();
            world.run();
        }
        assert_eq!(rollout(&world, number).status, RolloutStatus::Succeeded, "call {call}");
        assert_eq!(on_green(&world, SITES).len(), 6, "call {call}");
        assert_whole(&mut world, number, call);
    }
    assert!(stopped > 40, "{stopped}");
}

#[test]
fn an_abort_at_any_call_stops_the_rollout_for_good_and_begins_no_other_window() {
    let mut stopped = 0;
    for call in 0.. {
        let Some((mut world, number, answers)) = asked_at(call, &[Wish::Abort]) else { break };
        let rollout = rollout(&world, number);
        if answers == [true] {
            assert_eq!(rollout.status, RolloutStatus::Aborted, "call {call}");
            let green = on_green(&world, SITES);
            assert!(green.iter().all(|n| *n < rollout.window.end), "call {call}: {green:?}");
            assert_eq!(ask(&mut world, number, Wish::Resume).unwrap_err().code(), "illegal_transition");
            stopped += 1;
        } else {
            assert_eq!(rollout.status, RolloutStatus::Succeeded, "call {call}");
        }
        assert_whole(&mut world, number, call);
        // The fleet is free for another.
        let _ = super::number(roll(&mut world, &all(0)));
        world.run();
        assert_eq!(on_green(&world, SITES).len(), 6, "call {call}");
        assert_sound(&mut world);
    }
    assert!(stopped > 40, "{stopped}");
}

#[test]
fn an_abort_outranks_a_pause_whichever_was_asked_first_at_any_call() {
    for wishes in [[Wish::Pause, Wish::Abort], [Wish::Abort, Wish::Pause]] {
        for call in (0..).step_by(3) {
            let Some((mut world, number, answers)) = asked_at(call, &wishes) else { break };
            let status = rollout(&world, number).status;
            if answers.contains(&true) {
                assert_eq!(status, RolloutStatus::Aborted, "{wishes:?} at call {call}");
            }
            assert_whole(&mut world, number, call);
        }
    }
}

#[test]
fn a_pause_and_a_resume_at_once_change_nothing_in_the_end() {
    for call in (0..).step_by(3) {
        let Some((mut world, number, answers)) = asked_at(call, &[Wish::Pause, Wish::Resume]) else {
            break;
        };
        if rollout(&world, number).status == RolloutStatus::Paused {
            assert!(!answers[1], "call {call}: a resume was accepted and lost");
            ask(&mut world, number, Wish::Resume).unwrap();
            world.run();
        }
        assert_eq!(rollout(&world, number).status, RolloutStatus::Succeeded, "call {call}");
        assert_whole(&mut world, number, call);
    }
}

#[test]
fn a_rollout_that_nobody_has_taken_yet_is_paused_and_aborted_at_once() {
    let mut world = fleet(SITES);
    let number = number(roll(&mut world, &all(0)));
    ask(&mut world, number, Wish::Pause).unwrap();
    assert_eq!(rollout(&world, number).status, RolloutStatus::Paused);
    world.run();
    assert_eq!(on_green(&world, SITES), Vec::<u32>::new());
    ask(&mut world, number, Wish::Abort).unwrap();
    assert_eq!(rollout(&world, number).status, RolloutStatus::Aborted);
    world.run();
    assert_eq!(site(&world, &nth(0)).service, Color::Blue);
    assert_whole(&mut world, number, 0);
}

#[test]
fn the_operation_of_a_site_that_an_aborted_rollout_never_came_to_is_not_queued_for_ever() {
    let mut world = fleet(SITES);
    let number = number(roll(&mut world, &all(0)));
    ask(&mut world, number, Wish::Abort).unwrap();
    world.run();
    let first = rollout(&world, number).first_number;
    let member = OperationId { number: first, parent: OperationParent::Rollout(number, 0) };
    assert_eq!(status(&world, &member), Status::Ended(TerminalStatus::Cancelled));
    assert_sound(&mut world);
}
