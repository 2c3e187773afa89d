//! All output: results go to standard output, everything else to standard error.

use std::error::Error;
use std::fmt;
use std::io::Write;
use std::sync::Arc;

use anstyle::{AnsiColor, Style};
use cdm_core::domain::Timestamp;
use cdm_core::ports::Clock;
use serde_json::{Value, json};

use crate::args::Format;
use crate::client::{More, Received};
use crate::error::{CliError, Subject};
use crate::hints;
use crate::invocation::{Invocation, Target};
use crate::io::{Paint, Screen};
use crate::text::clean;
use crate::view::{self, Row, Shown};

const RED: Style = AnsiColor::Red.on_default().bold();
const CYAN: Style = AnsiColor::Cyan.on_default().bold();
const DIM: Style = Style::new().dimmed();

/// How much is printed besides results and errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbosity {
    /// Progress and notes as well.
    Normal,
    /// No progress and no notes.
    Quiet,
}

/// Writes results and messages.
pub struct Printer {
    pub(crate) out: Box<dyn Write + Send>,
    pub(crate) err: Box<dyn Write + Send>,
    pub(crate) format: Format,
    pub(crate) verbosity: Verbosity,
    pub(crate) width: Option<usize>,
    pub(crate) screen: Screen,
    pub(crate) paint: Paint,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) invocation: Invocation,
}

impl fmt::Debug for Printer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Printer")
            .field("format", &self.format)
            .field("verbosity", &self.verbosity)
            .finish_non_exhaustive()
    }
}

impl Printer {
    /// Returns the time of day, from which ages are computed.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.wall()
    }

    /// Prints one object.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn value<T: Shown>(&mut self, item: &Received<T>) -> Result<(), CliError> {
        let text = match self.format {
            Format::Table => T::format(item, self.now(), self.width),
            Format::Json | Format::Yaml => self.serialize(&item.json)?,
        };
        self.text(&text)
    }

    /// Prints a list; `more` states whether it has further items.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn list<T: Row>(&mut self, items: &[Received<T>], more: More) -> Result<(), CliError> {
        let text = match self.format {
            Format::Table if items.is_empty() => {
                self.note(&format!("no {}", T::PLURAL));
                return Ok(());
            }
            Format::Table => view::format_list(items, self.now(), self.width),
            Format::Json | Format::Yaml => {
                let items: Vec<&Value> = items.iter().map(|item| &item.json).collect();
                self.serialize(&json!({ "items": items }))?
            }
        };
        self.text(&text)?;
        if more == More::Remaining {
            self.note(&format!("the first {} items; there are more: --limit N or --all", items.len()));
        }
        Ok(())
    }

    /// Prints work that is not waited for: its id in a table format, else the whole object.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn started(&mut self, subject: &Subject, json: &Value) -> Result<(), CliError> {
        let text = match self.format {
            Format::Table => format!("{}\n", clean(&subject.id)),
            Format::Json | Format::Yaml => self.serialize(json)?,
        };
        self.text(&text)
    }

    /// Prints one event, without buffering.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn event(&mut self, value: &Value) -> Result<(), CliError> {
        let text = match self.format {
            Format::Table => view::event(value),
            Format::Json => format!("{value}\n"),
            Format::Yaml => format!("---\n{}", self.serialize(value)?),
        };
        self.text(&text)
    }

    /// Prints text unchanged.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn text(&mut self, text: &str) -> Result<(), CliError> {
        self.bytes(text.as_bytes())
    }

    /// Prints bytes unchanged.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.out.write_all(bytes).and_then(|()| self.out.flush()).map_err(CliError::from_output)
    }

    fn serialize(&self, value: &Value) -> Result<String, CliError> {
        let failed = |error: String| CliError::Failed(format!("the result cannot be written: {error}"));
        match self.format {
            Format::Table | Format::Json => serde_json::to_string_pretty(value)
                .map(|text| text + "\n")
                .map_err(|error| failed(error.to_string())),
            Format::Yaml => serde_norway::to_string(value).map_err(|error| failed(error.to_string())),
        }
    }

    /// Prints a note, unless the output is quiet.
    pub fn note(&mut self, text: &str) {
        if self.verbosity == Verbosity::Normal {
            self.message(None, text);
        }
    }

    /// Prints a warning, even if the output is quiet.
    pub fn warn(&mut self, text: &str) {
        self.message(Some((RED, "warning:")), text);
    }

    /// Prints what to do next.
    pub fn hint(&mut self, text: &str) {
        self.message(Some((CYAN, "hint:")), text);
    }

    /// Prints an error with its invalid fields, and a hint.
    pub fn error(&mut self, error: &CliError) {
        match error {
            CliError::OutputClosed => return,
            CliError::Interrupted { subject: Some(subject), .. } => {
                let noun = subject.kind.noun();
                let continuation = match self.invocation.target() {
                    Target::Server => format!("the {noun} continues; follow it with"),
                    Target::InProcess => {
                        format!("the {noun} is released; the next process on this store resumes it")
                    }
                };
                self.message(None, &format!("{continuation}: {}", subject.watch_command(&self.invocation)));
                return;
            }
            CliError::Interrupted { subject: None, .. } => return,
            _ => {}
        }
        let mut text = error.to_string();
        let mut fields = &[][..];
        if let CliError::Rejected(problem) = error {
            fields = &problem.errors;
            // The detail repeats the message of the first field: it is printed once, or, with several fields, next to
            // its field.
            let first = fields.first().is_some_and(|first| first.message == problem.detail);
            match fields {
                [_] if first => fields = &[],
                [_, ..] if first => text = format!("{} fields are invalid", fields.len()),
                _ => {}
            }
        }
        let mut cause = match error {
            CliError::Transport(error) => error.source(),
            _ => error.source(),
        };
        while let Some(next) = cause {
            text = format!("{text}: {next}");
            cause = next.source();
        }
        self.message(Some((RED, "error:")), &text);
        for error in fields {
            self.message(None, &format!("  {}: {}", error.field, error.message));
        }
        if let Some(hint) = hints::for_error(error, &self.invocation) {
            self.hint(&hint);
        }
        if let CliError::Rejected(problem) = error
            && problem.status >= 500
            && let Some(id) = &problem.request_id
        {
            self.message(Some((DIM, "request:")), id);
        }
    }

    /// Prints a prompt on standard error.
    pub fn prompt(&mut self, text: &str) {
        self.write_err(format!("{} ", clean(text)).as_bytes());
    }

    fn message(&mut self, label: Option<(Style, &str)>, text: &str) {
        let text = clean(text);
        let line = match (label, self.paint) {
            (None, _) => format!("{text}\n"),
            (Some((_, label)), Paint::Plain) => format!("{label} {text}\n"),
            (Some((style, label)), Paint::Colored) => format!("{style}{label}{style:#} {text}\n"),
        };
        self.write_err(line.as_bytes());
    }

    /// Writes to standard error. If that fails, there is nowhere to report it.
    fn write_err(&mut self, bytes: &[u8]) {
        drop(self.err.write_all(bytes).and_then(|()| self.err.flush()));
    }
}
