//! How work is shown while it is waited for: a bar on a terminal, lines elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::error::{Subject, SubjectKind};
use crate::printer::{Printer, Talk, clean};
use crate::view::plain;
use crate::watching::{Watched, failure, list, told};
use crate::world::Screen;

/// What has been shown of some work.
pub(crate) struct Progress {
    kind: SubjectKind,
    id: String,
    bar: Option<ProgressBar>,
    steps: BTreeMap<String, String>,
    reason: String,
    /// What the last step said, which a reason need not say again.
    message: String,
    line: String,
    watched: Watched,
    /// How many sites that failed were told of.
    failures: usize,
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Progress {
    /// Nothing shown yet.
    pub(crate) fn new(subject: &Subject, printer: &Printer) -> Self {
        let bar = (printer.screen == Screen::Terminal && printer.talk == Talk::Normal).then(|| {
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
            watched: Watched::default(),
            failures: 0,
        }
    }

    /// Shows what is new.
    pub(crate) fn show(&mut self, value: &Value, printer: &mut Printer) {
        match self.kind {
            SubjectKind::Operation => self.operation(value, printer),
            SubjectKind::Rollout => self.rollout(value, printer),
        }
        let reason = value.get("reason").filter(|reason| !reason.is_null()).map(reason).unwrap_or_default();
        let on_screen = self.bar.is_some() && self.kind == SubjectKind::Rollout;
        if reason != self.reason {
            if !reason.is_empty() && !on_screen {
                let said = value.pointer("/reason/message").map(plain).is_some_and(|it| it == self.message);
                let shown = if said { value.pointer("/reason/code").map(plain) } else { None };
                let shown = shown.as_ref().unwrap_or(&reason);
                self.say(&format!("{}: {shown}", text(value, "status")), printer);
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
                // On a terminal the bar tells what runs.
                if self.bar.is_none() || status != "running" {
                    self.say(&format!("step {name} {status}{colon}{message}"), printer);
                    self.message = message;
                }
            }
        }
        let message = format!("{} {}: {} {at}", text(value, "kind"), self.id, text(value, "status"));
        self.draw(done, steps.len() as u64, message.trim_end().to_owned());
    }

    fn rollout(&mut self, value: &Value, printer: &mut Printer) {
        let now = printer.clock.monotonic();
        self.watched.see(value, now);
        if let Some(bar) = &self.bar {
            if let Ok(style) = ProgressStyle::with_template("{msg}") {
                bar.set_style(style);
            }
            bar.set_message(self.watched.screen(value, now, printer.width.unwrap_or(80)));
            return;
        }
        let line = told(value);
        if line != self.line {
            self.say(&format!("{line}{}", self.watched.speed(value, now)), printer);
        }
        self.line = line;
        let failures = list(value, "failures");
        for bad in failures.iter().skip(self.failures) {
            self.say(&failure(bad), printer);
        }
        self.failures = self.failures.max(failures.len());
    }

    /// A rollout with its rate and the time it may still take.
    pub(crate) fn line(&self, value: &Value, printer: &Printer) -> Value {
        self.watched.line(value, printer.clock.monotonic())
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

    fn say(&self, line: &str, printer: &mut Printer) {
        match &self.bar {
            Some(bar) => bar.suspend(|| printer.note(line)),
            None => printer.note(line),
        }
    }

    /// Clears what was drawn.
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
