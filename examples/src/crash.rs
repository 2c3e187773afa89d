//! What becomes of a provision whose worker dies: at every port call of it, another worker on the same store takes
//! over once the lease has run out, goes on from the step in hand, and creates nothing twice.

mod bench;

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use cdm_core::domain::operation::StepStatus;
use cdm_core::domain::{Operation, Status, TerminalStatus};
use cdm_core::engine::Settings;
use cdm_testkit::faults::Fault;

use crate::Told;
use bench::{Bench, Kill};

/// What was seen around one kill.
struct Resumed {
    kill: Kill,
    /// The operation as the dead worker left it.
    before: Operation,
    /// The operation at its end.
    after: Operation,
    /// How long it lay untouched.
    lay: Duration,
    /// What was created, and how often.
    created: BTreeMap<String, u32>,
}

/// Kills a worker at every point of a provision, telling `out` of one of them in full and of all in a table.
///
/// # Errors
/// The first resume that is not as it should be.
pub fn play(out: &mut dyn Write) -> Told<()> {
    let kills = kills()?;
    let all = kills.into_iter().map(resume).collect::<Told<Vec<_>>>()?;
    for resumed in &all {
        resumed.check()?;
    }
    let in_full = |resumed: &&Resumed| {
        resumed.kill.at.name == "cluster.put_route" && resumed.kill.fault == Fault::CrashAfterEffect
    };
    if let Some(resumed) = all.iter().find(in_full) {
        tell(out, resumed)?;
    }
    table(out, &all)
}

/// Every way in which a worker can die in a provision: before each of its port calls, and, where a call changes
/// something, also between its effect and its answer.
fn kills() -> Told<Vec<Kill>> {
    let calls = Bench::new()?.calls_of_a_provision()?;
    let mut kills = Vec::new();
    for (after, at) in calls.into_iter().enumerate() {
        kills.push(Kill { after, at, fault: Fault::CrashBefore });
        if at.changes {
            kills.push(Kill { after, at, fault: Fault::CrashAfterEffect });
        }
    }
    Ok(kills)
}

/// Kills a worker there, and lets another one finish.
fn resume(kill: Kill) -> Told<Resumed> {
    let mut bench = Bench::new()?;
    let before = bench.provision_until(kill)?;
    let (after, lay) = bench.go_on(&before)?;
    Ok(Resumed { kill, before, after, lay, created: bench.created() })
}

impl Resumed {
    /// The step in hand when the worker died; `None` when all were done.
    fn step(&self) -> Option<usize> {
        self.before.state.steps.iter().position(|step| step.status != StepStatus::Succeeded)
    }

    fn step_name(&self) -> &str {
        self.step().and_then(|step| self.before.state.steps.get(step)).map_or("(ended)", |step| &step.name)
    }

    fn owned(&self) -> bool {
        self.before.state.owner.is_some() && !self.before.state.status.rests()
    }

    /// How often the step in hand was begun again.
    fn begun_again(&self) -> u32 {
        let attempts = |operation: &Operation| {
            self.step().and_then(|step| operation.state.steps.get(step)).map_or(0, |step| step.attempts)
        };
        attempts(&self.after) - attempts(&self.before)
    }

    fn check(&self) -> Told<()> {
        let claims = [
            ("it succeeds", self.after.state.status == Status::Ended(TerminalStatus::Succeeded)),
            ("nothing is created twice, nothing is left out", self.created_once()),
            ("what was done is not touched again", {
                let done = self.step().unwrap_or(self.before.state.steps.len());
                self.before.state.steps.get(..done) == self.after.state.steps.get(..done)
            }),
            ("the step in hand is begun again", self.step().is_none() || self.begun_again() > 0),
            ("the lease is waited out", !self.owned() || self.lay >= Settings::default().lease),
            ("the new owner has an epoch of its own", {
                let taken_over = u64::from(!self.before.state.status.rests());
                self.after.state.epoch == self.before.state.epoch + taken_over
            }),
        ];
        match claims.iter().find(|(_, holds)| !holds) {
            None => Ok(()),
            Some((claim, _)) => Err(format!("killed {}, it is not so that {claim}", self.kill).into()),
        }
    }

    fn created_once(&self) -> bool {
        self.created.len() == Bench::CREATED && self.created.values().all(|count| *count == 1)
    }
}

/// One kill in full.
fn tell(out: &mut dyn Write, resumed: &Resumed) -> Told<()> {
    writeln!(out, "A worker is killed {}.", resumed.kill)?;
    writeln!(
        out,
        "\nIt leaves the operation {}, in its epoch {}:",
        resumed.before.id, resumed.before.state.epoch
    )?;
    steps(out, &resumed.before)?;
    let (lay, step) = (resumed.lay.as_secs_f64(), resumed.step_name());
    writeln!(out, "\nAnother worker waits {lay:.1} s for its lease to run out, and goes on from {step}.")?;
    let status = resumed.after.state.status;
    writeln!(out, "The operation has {status}, in epoch {}:", resumed.after.state.epoch)?;
    steps(out, &resumed.after)?;
    writeln!(out, "\nWhat was created, and how often:")?;
    for (what, count) in &resumed.created {
        writeln!(out, "  {what:<24} {count}")?;
    }
    Ok(())
}

fn steps(out: &mut dyn Write, operation: &Operation) -> Told<()> {
    for step in &operation.state.steps {
        let times = if step.attempts == 1 { "time" } else { "times" };
        let name = &step.name;
        writeln!(out, "  {name:<16} {:<10} begun {} {times}", step.status.as_str(), step.attempts)?;
    }
    Ok(())
}

/// All of them, by the step in hand.
fn table(out: &mut dyn Write, all: &[Resumed]) -> Told<()> {
    let mut rows: Vec<(&str, bool, Vec<&Resumed>)> = Vec::new();
    for resumed in all {
        let key = (resumed.step_name(), resumed.owned());
        match rows.iter_mut().find(|(step, owned, _)| (*step, *owned) == key) {
            Some((.., row)) => row.push(resumed),
            None => rows.push((key.0, key.1, vec![resumed])),
        }
    }
    writeln!(out, "\nAll {} points at which it can be killed:\n", all.len())?;
    writeln!(
        out,
        "{:<16} {:<8} {:>6}  {:>13}  {:>11}  {:>12}",
        "went on from", "owner", "points", "lay untouched", "begun since", "created once"
    )?;
    for (step, owned, row) in rows {
        let lay = row.iter().map(|resumed| resumed.lay.as_secs_f64());
        let (least, most) =
            lay.fold((f64::MAX, 0.0_f64), |(least, most), lay| (least.min(lay), most.max(lay)));
        let again = row.iter().map(|resumed| resumed.begun_again()).max().unwrap_or_default();
        let once = row.iter().filter(|resumed| resumed.created_once()).count();
        writeln!(
            out,
            "{step:<16} {:<8} {:>6}  {:>13}  {:>11}  {:>12}",
            if owned { "the dead" } else { "nobody" },
            row.len(),
            format!("{least:.1}..{most:.1} s"),
            format!("{again}x"),
            format!("{once} of {}", row.len()),
        )?;
    }
    Ok(())
}
