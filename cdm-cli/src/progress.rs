//! Progress of work that is waited for: a bar on a terminal, lines elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::error::{Subject, SubjectKind};
use crate::io::Screen;
use crate::printer::{Printer, Verbosity, clean};
use crate::rollout_progress::{RolloutProgress, failure, list, summary};
use crate::view::plain;

/// What has been shown of one operation or rollout.
pub(crate) struct Progress {
    kind: SubjectKind,
    id: String,
    bar: Option<ProgressBar>,
    steps: BTreeMap<String, String>,
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
            kind: subject.kind,
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
    pub(crate) fn show(&mut self, value: &Value, printer: &mut Printer) {
        match self.kind {
            SubjectKind::Operation => self.operation(value, printer),
            SubjectKind::Rollout => self.rollout(value, printer),
        }
        let reason = value.get("reason").filter(|reason| !reason.is_null()).map(reason).unwrap_or_default();
        let on_screen = self.bar.is_some() && self.kind == SubjectKind::Rollout;
        if reason != self.reason {
            if !reason.is_empty() && !on_screen {
                let repeated =
                    value.pointer("/reason/message").map(plain).is_some_and(|it| it == self.message);
                let shown = if repeated { value.pointer("/reason/code").map(plain) } else { None };
                let shown = shown.as_ref().unwrap_or(&reason);
                self.print(&format!("{}: {shown}", text(value, "status")), printer);
            }
            self.reason = reason;
        }
    }

    fn operation(&mut self, value: &Value, printer: &mut Printer) {
        let steps = list(value, "steps");
        let mut done = 0_u64;
        let mut at = String::new();
        for step in steps {
            let (name, status) = (text(step, "name"), text(step, "status"));
            match status.as_str() {
                "succeeded" | "skipped" => done += 1,
                "running" | "failed" => at.clone_from(&name),
                _ => {}
            }
            let before = self.steps.insert(name.clone(), status.clone());
            if before.as_ref() != Some(&status) && status != "pending" {
                let message = text(step, "message");
                let colon = if message.is_empty() { "" } else { ": " };
                // On a terminal, the bar shows the running step.
                if self.bar.is_none() || status != "running" {
                    self.print(&format!("step {name} {status}{colon}{message}"), printer);
                    self.message = message;
                }
            }
        }
        let message = format!("{} {}: {} {at}", text(value, "kind"), self.id, text(value, "status"));
        self.draw(done, steps.len() as u64, message.trim_end().to_owned());
    }

    fn rollout(&mut self, value: &Value, printer: &mut Printer) {
        let now = printer.clock.monotonic();
        self.progress.record(value, now);
        if let Some(bar) = &self.bar {
            if let Ok(style) = ProgressStyle::with_template("{msg}") {
                bar.set_style(style);
            }
            bar.set_message(self.progress.screen(value, now, printer.width.unwrap_or(80)));
            return;
        }
        let line = summary(value);
        if line != self.line {
            self.print(&format!("{line}{}", self.progress.speed(value, now)), printer);
        }
        self.line = line;
        let failures = list(value, "failures");
        for bad in failures.iter().skip(self.failures) {
            self.print(&failure(bad), printer);
        }
        self.failures = self.failures.max(failures.len());
    }

    /// Returns a rollout with its rate and the estimated remaining time.
    pub(crate) fn line(&self, value: &Value, printer: &Printer) -> Value {
        self.progress.line(value, printer.clock.monotonic())
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

fn reason(value: &Value) -> String {
    format!("{}: {}", text(value, "code"), text(value, "message"))
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).map(plain).unwrap_or_default()
}
