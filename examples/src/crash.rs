//! Crash recovery of a provision: a worker is killed at each of its port calls. Another worker on the same store
//! takes over after the lease has expired, resumes at the current step, and creates nothing twice.

mod scenario;

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use cdm_core::domain::operation::StepStatus;
use cdm_core::domain::{Operation, Status, TerminalStatus};
use cdm_core::engine::Settings;
use cdm_testkit::faults::Fault;

use crate::ExampleResult;
use scenario::{Kill, Scenario};

/// What was observed around one kill.
struct Resumed {
    kill: Kill,
    /// The operation as the dead worker left it.
    before: Operation,
    /// The operation at its end.
    after: Operation,
    /// Time from the kill until the takeover, or until the operation ended.
    takeover: Duration,
    /// The created objects, and how often each was created.
    created: BTreeMap<String, u32>,
}

/// Kills a worker at every point of a provision; prints one kill in full, and all of them in a table.
///
/// # Errors
/// The first resume that violates a claim.
pub fn run(out: &mut dyn Write) -> ExampleResult<()> {
    let kills = kills()?;
    let all = kills.into_iter().map(resume).collect::<ExampleResult<Vec<_>>>()?;
    for resumed in &all {
        resumed.check()?;
    }
    let in_full = |resumed: &&Resumed| {
        resumed.kill.at.name == "cluster.put_route" && resumed.kill.fault == Fault::CrashAfterEffect
    };
    if let Some(resumed) = all.iter().find(in_full) {
        print_kill(out, resumed)?;
    }
    table(out, &all)
}

/// Returns all points at which a worker can die in a provision: before each of its port calls, and, if a call changes
/// something, also between its effect and its response.
fn kills() -> ExampleResult<Vec<Kill>> {
    let calls = Scenario::new()?.calls_of_a_provision()?;
    let mut kills = Vec::new();
    for (after, at) in calls.into_iter().enumerate() {
        kills.push(Kill { after, at, fault: Fault::CrashBefore });
        if at.changes {
            kills.push(Kill { after, at, fault: Fault::CrashAfterEffect });
        }
    }
    Ok(kills)
}

/// Kills a worker at that point, and lets another worker finish.
fn resume(kill: Kill) -> ExampleResult<Resumed> {
    let mut scenario = Scenario::new()?;
    let before = scenario.provision_until(kill)?;
    let (after, takeover) = scenario.resume(&before)?;
    Ok(Resumed { kill, before, after, takeover, created: scenario.created() })
}

impl Resumed {
    /// Returns the step in progress when the worker died; `None` if all steps were finished.
    fn step(&self) -> Option<usize> {
        self.before.state.steps.iter().position(|step| step.status != StepStatus::Succeeded)
    }

    fn step_name(&self) -> &str {
        self.step().and_then(|step| self.before.state.steps.get(step)).map_or("(ended)", |step| &step.name)
    }

    fn owned(&self) -> bool {
        self.before.state.owner.is_some() && !self.before.state.status.is_settled()
    }

    /// Returns how often the step in progress was started again.
    fn restarts(&self) -> u32 {
        let attempts = |operation: &Operation| {
            self.step().and_then(|step| operation.state.steps.get(step)).map_or(0, |step| step.attempts)
        };
        attempts(&self.after) - attempts(&self.before)
    }

    fn check(&self) -> ExampleResult<()> {
        let claims = [
            ("the operation succeeds", self.after.state.status == Status::Ended(TerminalStatus::Succeeded)),
            ("each object is created exactly once", self.created_once()),
            ("finished steps are not changed", {
                let done = self.step().unwrap_or(self.before.state.steps.len());
                self.before.state.steps.get(..done) == self.after.state.steps.get(..done)
            }),
            ("the step in progress is started again", self.step().is_none() || self.restarts() > 0),
            (
                "the takeover waits for the lease to expire",
                !self.owned() || self.takeover >= Settings::default().lease,
            ),
            ("a takeover increments the epoch", {
                let (before, after) = (self.before.state.epoch, self.after.state.epoch);
                after == if self.before.state.status.is_settled() { before } else { before.next() }
            }),
        ];
        match claims.iter().find(|(_, holds)| !holds) {
            None => Ok(()),
            Some((claim, _)) => {
                Err(format!("with a worker killed {}, this claim does not hold: {claim}", self.kill).into())
            }
        }
    }

    fn created_once(&self) -> bool {
        self.created.len() == Scenario::CREATED && self.created.values().all(|count| *count == 1)
    }
}

/// Prints one kill in full.
fn print_kill(out: &mut dyn Write, resumed: &Resumed) -> ExampleResult<()> {
    writeln!(out, "A worker is killed {}.", resumed.kill)?;
    writeln!(
        out,
        "\nIt leaves the operation {} in epoch {}:",
        resumed.before.id, resumed.before.state.epoch
    )?;
    steps(out, &resumed.before)?;
    let (takeover, step) = (resumed.takeover.as_secs_f64(), resumed.step_name());
    writeln!(out, "\nAnother worker waits {takeover:.1} s for the lease to expire, and resumes at {step}.")?;
    let status = resumed.after.state.status;
    writeln!(out, "The operation has {status}, in epoch {}:", resumed.after.state.epoch)?;
    steps(out, &resumed.after)?;
    writeln!(out, "\nThe created objects, and how often each was created:")?;
    for (what, count) in &resumed.created {
        writeln!(out, "  {what:<24} {count}")?;
    }
    Ok(())
}

fn steps(out: &mut dyn Write, operation: &Operation) -> ExampleResult<()> {
    for step in &operation.state.steps {
        let times = if step.attempts == 1 { "time" } else { "times" };
        let name = &step.name;
        writeln!(out, "  {name:<16} {:<10} started {} {times}", step.status.as_str(), step.attempts)?;
    }
    Ok(())
}

/// Prints all kills, grouped by the step in progress.
fn table(out: &mut dyn Write, all: &[Resumed]) -> ExampleResult<()> {
    let mut rows: Vec<(&str, bool, Vec<&Resumed>)> = Vec::new();
    for resumed in all {
        let key = (resumed.step_name(), resumed.owned());
        match rows.iter_mut().find(|(step, owned, _)| (*step, *owned) == key) {
            Some((.., row)) => row.push(resumed),
            None => rows.push((key.0, key.1, vec![resumed])),
        }
    }
    writeln!(out, "\nAll {} points at which the worker can be killed:\n", all.len())?;
    writeln!(
        out,
        "{:<16} {:<8} {:>6}  {:>13}  {:>11}  {:>12}",
        "resumed at", "owner", "points", "takeover", "restarts", "created once"
    )?;
    for (step, owned, row) in rows {
        let takeover = row.iter().map(|resumed| resumed.takeover.as_secs_f64());
        let (least, most) = takeover
            .fold((f64::MAX, 0.0_f64), |(least, most), takeover| (least.min(takeover), most.max(takeover)));
        let again = row.iter().map(|resumed| resumed.restarts()).max().unwrap_or_default();
        let once = row.iter().filter(|resumed| resumed.created_once()).count();
        writeln!(
            out,
            "{step:<16} {:<8} {:>6}  {:>13}  {:>11}  {:>12}",
            if owned { "dead" } else { "none" },
            row.len(),
            format!("{least:.1}..{most:.1} s"),
            format!("{again}x"),
            format!("{once} of {}", row.len()),
        )?;
    }
    Ok(())
}
