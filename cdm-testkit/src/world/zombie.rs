//! Two workers over one story: one stands still at a call for longer than its lease, another takes over, and the first
//! goes on at a chosen moment.

use std::time::Duration;

use super::{Scenario, Summary, Verb, World};
use crate::check::Violation;
use crate::faults::{Fault, Plan};

/// When the worker that stood still goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// After so many effects of its successor.
    After(usize),
    /// When everything rests.
    AtRest,
    /// When the site has been terminated since.
    Terminated,
    /// When a site of the same id has been created since.
    Recreated,
}

/// What came of it.
#[derive(Debug)]
pub struct Woken {
    /// Whether a worker stood still at all, and had not gone on before it was to.
    pub stood_still: bool,
    /// What was broken.
    pub violations: Vec<Violation>,
    /// What it came to.
    pub summary: Summary,
    /// How many effects there were from the moment it stood still until rest.
    pub effects: usize,
}

/// Plays `scenario` with a worker that stands still at its `at`th call and goes on at `wake`.
pub fn zombie(scenario: &Scenario, at: usize, wake: Wake) -> Woken {
    let mut world = World::new(1);
    (scenario.before)(&mut world);
    let before = world.log.len();
    world.faults.arm(Plan(vec![(at, Fault::Paused(u8::MAX))]));
    if let Wake::After(effects) = wake {
        world.wake_after(effects);
    }
    (scenario.act)(&mut world);
    let effects = world.log.len() - before;
    let mut stood_still = world.has_zombie();
    if let Wake::After(_) = wake {
        stood_still = !stood_still;
    }
    // Its lease is over whatever happened meanwhile.
    world.clock.advance(Duration::from_secs(60));
    let then = match wake {
        Wake::After(_) | Wake::AtRest => None,
        Wake::Terminated => Some(false),
        Wake::Recreated => Some(true),
    };
    if let Some(again) = then {
        let _ = world.on_site("rrr", Verb::Terminate);
        world.run();
        if again {
            world.settle_site("rrr");
        }
    }
    world.finish_zombies();
    world.converge();
    let mut violations = world.violations();
    // Of a rollout two sites may have been under way.
    let under_way = if scenario.name.contains("rollout") { 2 } else { 1 };
    if world.late_changes() > under_way {
        let detail = format!("{} calls by a worker whose lease was over", world.late_changes());
        violations.push(Violation { invariant: "OneOwner", detail });
    }
    Woken { stood_still, violations, summary: Summary::of(&world), effects }
}

impl World {
    /// Whether a process stands still.
    pub fn has_zombie(&self) -> bool {
        !self.zombies.0.is_empty()
    }

    /// Lets whoever stands still go on once that many more effects have happened.
    pub fn wake_after(&mut self, effects: usize) {
        self.wake_at = Some(self.log.len() + effects);
    }

    /// How many changing calls were sent by workers that had stood still for longer than their lease. Each may have
    /// sent those that were under way when it was stopped, and no other.
    pub const fn late_changes(&self) -> u64 {
        self.late_changes
    }
}
