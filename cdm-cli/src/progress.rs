//! Progress of work that is waited for: a bar on a terminal, lines elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use cdm_http::api::operation::{Operation, Reason, StepStatus};
use cdm_http::api::rollout::Rollout;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::error::Subject;
use crate::io::Screen;
use crate::printer::{Printer, Verbosity};
use crate::rollout_progress::{RolloutProgress, failure, summary};
use crate::text::clean;
use crate::work::State;

/// What has been shown of one operation or rollout.
pub(crate) struct Progress {
    id: String,
    bar: Option<ProgressBar>,
    steps: BTreeMap<String, StepStatus>,
    reason: String,
    /// Message of the last step; a reason with the same message is printed without it.
    message: String,
    line: String,
    progress: RolloutProgress,
    /// Number of failed sites that were already printed.
    failures: usize,
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Progress {
    /// Creates a display that has shown nothing.
    pub(crate) fn new(subject: &Subject, printer: &Printer) -> Self {
        let bar = (printer.screen == Screen::Terminal && printer.verbosity == Verbosity::Normal).then(|| {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self {
            id: clean(&subject.id),
            bar,
            steps: BTreeMap::new(),
            reason: String::new(),
            message: String::new(),
            line: String::new(),
            progress: RolloutProgress::default(),
            failures: 0,
        }
    }

    /// Shows what has changed since the last call.
    pub(crate) fn show(&mut self, work: State<'_>, printer: &mut Printer) {
        match work {
            State::Operation(operation) => self.operation(operation, printer),
            State::Rollout(rollout) => self.rollout(rollout, printer),
        }
        let reason = work.reason().map(reason).unwrap_or_default();
        if reason == self.reason {
            return;
        }
        let on_screen = self.bar.is_some() && matches!(work, State::Rollout(_));
        if let Some(detail) = work.reason().filter(|_| !on_screen) {
            let repeated = clean(&detail.message) == self.message;
            let shown = if repeated { clean(detail.code.as_str()) } else { reason.clone() };
            self.print(&format!("{}: {shown}", clean(work.status())), printer);
        }
        self.reason = reason;
    }

    fn operation(&mut self, operation: &Operation, printer: &mut Printer) {
        let mut done = 0_u64;
        let mut at = String::new();
        for step in &operation.steps {
            let name = clean(&step.name);
            if step.status.is_done() {
                done += 1;
            } else if step.status.is_current() {
                at.clone_from(&name);
            }
            let before = self.steps.insert(name.clone(), step.status.clone());
            if before.as_ref() != Some(&step.status) && step.status != StepStatus::Pending {
                let message = step.message.as_deref().map(clean).unwrap_or_default();
                let colon = if message.is_empty() { "" } else { ": " };
                // On a terminal, the bar shows the running step.
                if self.bar.is_none() || step.status != StepStatus::Running {
                    let status = clean(step.status.as_str());
                    self.print(&format!("step {name} {status}{colon}{message}"), printer);
                    self.message = message;
                }
            }
        }
        let (kind, status) = (clean(operation.kind.as_str()), clean(operation.status.as_str()));
        let message = format!("{kind} {}: {status} {at}", self.id);
        self.draw(done, operation.steps.len() as u64, message.trim_end().to_owned());
    }

    fn rollout(&mut self, rollout: &Rollout, printer: &mut Printer) {
        let now = printer.clock.monotonic();
        self.progress.record(rollout, now);
        if let Some(bar) = &self.bar {
            if let Ok(style) = ProgressStyle::with_template("{msg}") {
                bar.set_style(style);
            }
            bar.set_message(self.progress.screen(rollout, now, printer.width.unwrap_or(80)));
            return;
        }
        let line = summary(rollout);
        if line != self.line {
            self.print(&format!("{line}{}", self.progress.speed(rollout, now)), printer);
        }
        self.line = line;
        let failures = &rollout.failures;
        for bad in failures.iter().skip(self.failures) {
            self.print(&failure(bad), printer);
        }
        self.failures = self.failures.max(failures.len());
    }

    /// Returns the JSON of a rollout with its rate and the estimated remaining time.
    pub(crate) fn line(&self, json: &Value, rollout: &Rollout, printer: &Printer) -> Value {
        self.progress.line(json, rollout, printer.clock.monotonic())
    }

    fn draw(&self, done: u64, of: u64, message: String) {
        let Some(bar) = &self.bar else { return };
        if of > 0 && bar.length() != Some(of) {
            bar.set_length(of);
            if let Ok(style) =
                ProgressStyle::with_template("{spinner} [{bar:24}] {pos}/{len} {wide_msg} {elapsed}")
            {
                bar.set_style(style.progress_chars("=> "));
            }
        }
        bar.set_position(done);
        bar.set_message(message);
    }

    fn print(&self, line: &str, printer: &mut Printer) {
        match &self.bar {
            Some(bar) => bar.suspend(|| printer.note(line)),
            None => printer.note(line),
        }
    }

    /// Removes the bar from the terminal.
    pub(crate) fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn reason(reason: &Reason) -> String {
    format!("{}: {}", clean(reason.code.as_str()), clean(&reason.message))
}
