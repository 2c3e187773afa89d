//! Grants of further sites while earlier ones move.

use cdm_core::domain::RolloutStatus;
use cdm_core::domain::rollout::{RolloutSpec, Window};
use cdm_testkit::log::EffectKind;

use super::controls::{Control, control_of};
use super::waves::{all, fleet, on_green};
use super::{assert_sound, number, rollout, start_rollout};

/// More sites than two grants.
const SITES: u32 = 2 * Window::MIN + 20;

/// One wave of all sites.
fn wide() -> RolloutSpec {
    RolloutSpec { waves: Vec::new(), ..all(0) }
}

#[test]
fn further_sites_are_granted_before_the_last_ones_are_used_up() {
    let mut world = fleet(SITES);
    let before = world.log.len();
    let number = number(start_rollout(&mut world, &wide()));
    world.run();
    let mut ends = Vec::new();
    for effect in world.log.since(before) {
        let EffectKind::Rollout(rollout) = &effect.kind else { continue };
        let Window { start, end } = rollout.window();
        assert!(end - start <= 2 * Window::MIN, "more than two windows are granted: {start} to {end}");
        if ends.last().is_some_and(|last| *last < end) {
            let last = ends.last().copied().unwrap_or_default();
            assert!(last == 0 || start < last, "no site was in flight when {end} was granted after {last}");
        }
        ends.push(end);
    }
    ends.dedup();
    assert_eq!(ends, [0, Window::MIN, 2 * Window::MIN, SITES]);
    assert_eq!(rollout(&world, number).status, RolloutStatus::Succeeded);
    assert_sound(&mut world);
}

/// The owner is paused for longer than its lease, so that another worker takes over the open sites of both windows.
#[test]
fn two_granted_windows_are_taken_over_at_any_call() {
    let mut taken_over = 0;
    for call in (0..).step_by(29) {
        let Some((mut world, number, _)) = control_of(SITES, &wide(), call, &[]) else { break };
        assert_eq!(rollout(&world, number).status, RolloutStatus::Succeeded, "call {call}");
        assert_eq!(on_green(&world, SITES).len(), SITES as usize, "call {call}");
        assert_sound(&mut world);
        taken_over += 1;
    }
    assert!(taken_over > 25, "{taken_over}");
}

#[test]
fn an_abort_of_two_granted_windows_moves_no_site_that_was_not_granted() {
    let mut aborted = 0;
    for call in (0..).step_by(29) {
        let Some((mut world, number, accepted)) = control_of(SITES, &wide(), call, &[Control::Abort]) else {
            break;
        };
        if accepted == [true] {
            let rollout = rollout(&world, number);
            assert_eq!(rollout.status, RolloutStatus::Aborted, "call {call}");
            let green = on_green(&world, SITES);
            assert!(green.iter().all(|n| *n < rollout.window().end), "call {call}: {green:?}");
            aborted += 1;
        }
        assert_sound(&mut world);
    }
    assert!(aborted > 25, "{aborted}");
}
