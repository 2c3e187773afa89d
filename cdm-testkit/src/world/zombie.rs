//! Two workers run one scenario: the first pauses at a call for longer than its lease, the second takes over,
//! and the first resumes at a chosen moment.

use std::time::Duration;

use super::{Scenario, Summary, Verb, World};
use crate::check::Violation;
use crate::faults::{Fault, Plan};

/// When the paused worker resumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// After this many effects of its successor.
    After(usize),
    /// When the platform is quiescent.
    Quiescent,
    /// After the site was terminated.
    Terminated,
    /// After a site with the same id was created again.
    Recreated,
}

/// The outcome of a run with a paused worker.
#[derive(Debug)]
pub struct ZombieOutcome {
    /// Whether a worker paused, and did not resume too early.
    pub paused: bool,
    /// The violations of the run.
    pub violations: Vec<Violation>,
    /// The summary of the run.
    pub summary: Summary,
    /// Number of effects from the pause until the platform was quiescent.
    pub effects: usize,
}

/// Runs `scenario` with a worker that pauses at its call number `at` and resumes at `wake`.
pub fn zombie(scenario: &Scenario, at: usize, wake: Wake) -> ZombieOutcome {
    let mut world = World::new(1);
    (scenario.before)(&mut world);
    let before = world.log.len();
    world.faults.arm(Plan(vec![(at, Fault::Paused(u8::MAX))]));
    if let Wake::After(effects) = wake {
        world.wake_after(effects);
    }
    (scenario.act)(&mut world);
    let effects = world.log.len() - before;
    let mut paused = world.has_zombie();
    if let Wake::After(_) = wake {
        paused = !paused;
    }
    // The lease of the paused worker expires in any case.
    world.clock.advance(Duration::from_secs(60));
    let then = match wake {
        Wake::After(_) | Wake::Quiescent => None,
        Wake::Terminated => Some(false),
        Wake::Recreated => Some(true),
    };
    if let Some(again) = then {
        let _ = world.on_site("rrr", Verb::Terminate);
        world.run();
        if again {
            world.create_active_site("rrr");
        }
    }
    world.finish_zombies();
    world.converge();
    let mut violations = world.violations();
    // A rollout may have had two sites in progress.
    let under_way = if scenario.name.contains("rollout") { 2 } else { 1 };
    if world.late_changes() > under_way {
        let detail = format!("{} calls by a worker whose lease had expired", world.late_changes());
        violations.push(Violation { invariant: "OneOwner", detail });
    }
    ZombieOutcome { paused, violations, summary: Summary::of(&world), effects }
}

impl World {
    /// Returns whether a process is paused.
    pub fn has_zombie(&self) -> bool {
        !self.zombies.0.is_empty()
    }

    /// Resumes the paused process after this many further effects.
    pub fn wake_after(&mut self, effects: usize) {
        self.wake_at = Some(self.log.len() + effects);
    }

    /// Returns how many changing calls were sent by workers after a pause longer than their lease. Each worker
    /// may send the calls that were in progress when it paused, and no others.
    pub const fn late_changes(&self) -> u64 {
        self.late_changes
    }
}
