//! User requests to a rollout, at every call of its owner.

use std::sync::Arc;

use cdm_core::domain::operation::OperationParent;
use cdm_core::domain::rollout::RolloutSpec;
use cdm_core::domain::{Color, OperationId, RolloutStatus, Status, TerminalStatus};
use cdm_core::manager::{Accepted, ManagerError};
use cdm_testkit::faults::{Fault, Plan};
use cdm_testkit::world::World;

use super::waves::{all, fleet, nth, on_green, outcomes};
use super::{assert_sound, number, rollout, run_once, site, start_rollout, status};

/// A user request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    Pause,
    Resume,
    Abort,
}

pub(super) fn send_control(
    world: &mut World,
    number: u64,
    control: Control,
) -> Result<Accepted, ManagerError> {
    world.request(move |manager, request| {
        let manager = Arc::clone(&manager);
        Box::pin(async move {
            match control {
                Control::Pause => manager.pause(&request, number).await,
                Control::Resume => manager.resume(&request, number).await,
                Control::Abort => manager.abort(&request, number).await,
            }
        })
    })
}

const SITES: u32 = 6;

fn control_at_call(call: usize, controls: &[Control]) -> Option<(World, u64, Vec<bool>)> {
    control_of(SITES, &all(0), call, controls)
}

/// Pauses the owner of a rollout of this many sites in its `call`th call, and sends the requests at that moment; `None`
/// if the owner makes no such call. Returns which requests were accepted.
pub(super) fn control_of(
    sites: u32,
    wanted: &RolloutSpec,
    call: usize,
    controls: &[Control],
) -> Option<(World, u64, Vec<bool>)> {
    let mut world = fleet(sites);
    let number = number(start_rollout(&mut world, wanted));
    world.faults.arm(Plan(vec![(call, Fault::Paused(255))]));
    let mut owner = run_once(&world.process());
    if !owner.runs_until_paused(&world) {
        return None;
    }
    world.restart();
    let accepted =
        controls.iter().map(|control| send_control(&mut world, number, *control).is_ok()).collect();
    let _ = owner.finish(&world);
    world.run();
    Some((world, number, accepted))
}

/// Asserts that every site is consistent: on one of the two services, and not claimed.
fn assert_consistent(world: &mut World, number: u64, call: usize) {
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
fn a_pause_at_any_call_stops_between_two_sites_and_a_resume_moves_the_rest() {
    let mut stopped = 0;
    for call in 0.. {
        let Some((mut world, number, accepted)) = control_at_call(call, &[Control::Pause]) else { break };
        let status = rollout(&world, number).status;
        if accepted == [true] {
            assert_eq!(status, RolloutStatus::Paused, "call {call}");
            stopped += 1;
            assert_consistent(&mut world, number, call);
            send_control(&mut world, number, Control::Resume).unwrap();
            world.run();
        }
        assert_eq!(rollout(&world, number).status, RolloutStatus::Succeeded, "call {call}");
        assert_eq!(on_green(&world, SITES).len(), 6, "call {call}");
        assert_consistent(&mut world, number, call);
    }
    assert!(stopped > 40, "{stopped}");
}

#[test]
fn an_abort_at_any_call_ends_the_rollout_and_grants_no_further_window() {
    let mut stopped = 0;
    for call in 0.. {
        let Some((mut world, number, accepted)) = control_at_call(call, &[Control::Abort]) else { break };
        let rollout = rollout(&world, number);
        if accepted == [true] {
            assert_eq!(rollout.status, RolloutStatus::Aborted, "call {call}");
            let green = on_green(&world, SITES);
            assert!(green.iter().all(|n| *n < rollout.window().end), "call {call}: {green:?}");
            assert_eq!(
                send_control(&mut world, number, Control::Resume).unwrap_err().code(),
                "illegal_transition"
            );
            stopped += 1;
        } else {
            assert_eq!(rollout.status, RolloutStatus::Succeeded, "call {call}");
        }
        assert_consistent(&mut world, number, call);
        // The fleet is free for another rollout.
        let _ = super::number(start_rollout(&mut world, &all(0)));
        world.run();
        assert_eq!(on_green(&world, SITES).len(), 6, "call {call}");
        assert_sound(&mut world);
    }
    assert!(stopped > 40, "{stopped}");
}

#[test]
fn an_abort_outranks_a_pause_in_either_order_at_any_call() {
    for controls in [[Control::Pause, Control::Abort], [Control::Abort, Control::Pause]] {
        let mut aborted = 0;
        for call in (0..).step_by(3) {
            let Some((mut world, number, accepted)) = control_at_call(call, &controls) else { break };
            let status = rollout(&world, number).status;
            if accepted.contains(&true) {
                assert_eq!(status, RolloutStatus::Aborted, "{controls:?} at call {call}");
                aborted += 1;
            }
            assert_consistent(&mut world, number, call);
        }
        assert!(aborted > 13, "{controls:?}: {aborted}");
    }
}

#[test]
fn a_pause_followed_by_a_resume_has_no_lasting_effect() {
    let mut paused = 0;
    for call in (0..).step_by(3) {
        let Some((mut world, number, accepted)) = control_at_call(call, &[Control::Pause, Control::Resume])
        else {
            break;
        };
        if rollout(&world, number).status == RolloutStatus::Paused {
            assert!(!accepted[1], "call {call}: an accepted resume was lost");
            send_control(&mut world, number, Control::Resume).unwrap();
            world.run();
        }
        paused += usize::from(accepted[0]);
        assert_eq!(rollout(&world, number).status, RolloutStatus::Succeeded, "call {call}");
        assert_consistent(&mut world, number, call);
    }
    assert!(paused > 13, "{paused}");
}

#[test]
fn an_unclaimed_rollout_is_paused_and_aborted_at_once() {
    let mut world = fleet(SITES);
    let number = number(start_rollout(&mut world, &all(0)));
    send_control(&mut world, number, Control::Pause).unwrap();
    assert_eq!(rollout(&world, number).status, RolloutStatus::Paused);
    world.run();
    assert_eq!(on_green(&world, SITES), Vec::<u32>::new());
    send_control(&mut world, number, Control::Abort).unwrap();
    assert_eq!(rollout(&world, number).status, RolloutStatus::Aborted);
    world.run();
    assert_eq!(site(&world, &nth(0)).service, Color::Blue);
    assert_consistent(&mut world, number, 0);
}

#[test]
fn sites_that_an_aborted_rollout_did_not_reach_have_no_queued_operation() {
    let mut world = fleet(SITES);
    let number = number(start_rollout(&mut world, &all(0)));
    send_control(&mut world, number, Control::Abort).unwrap();
    world.run();
    let first = rollout(&world, number).first_number;
    let member = OperationId { number: first, parent: OperationParent::Rollout(number, 0) };
    assert_eq!(status(&world, &member), Status::Ended(TerminalStatus::Cancelled));
    assert_sound(&mut world);
}
