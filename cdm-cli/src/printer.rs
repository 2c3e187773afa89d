//! The one place that writes: results to standard output, everything else to standard error.

use std::error::Error;
use std::fmt;
use std::io::Write;
use std::sync::Arc;

use anstyle::{AnsiColor, Style};
use cdm_core::domain::Timestamp;
use cdm_core::ports::Clock;
use serde_json::{Value, json};

use crate::args::Format;
use crate::error::{CliError, Subject};
use crate::hints;
use crate::view::{self, Shape};
use crate::way::{Place, Way};
use crate::world::{Paint, Screen};

const RED: Style = AnsiColor::Red.on_default().bold();
const CYAN: Style = AnsiColor::Cyan.on_default().bold();
const DIM: Style = Style::new().dimmed();

/// How much is said beside results and errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Talk {
    /// What happens.
    Normal,
    /// Nothing.
    Quiet,
}

/// Writes results and messages.
pub struct Printer {
    pub(crate) out: Box<dyn Write + Send>,
    pub(crate) err: Box<dyn Write + Send>,
    pub(crate) format: Format,
    pub(crate) talk: Talk,
    pub(crate) width: Option<usize>,
    pub(crate) screen: Screen,
    pub(crate) paint: Paint,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) way: Way,
}

impl fmt::Debug for Printer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Printer")
            .field("format", &self.format)
            .field("talk", &self.talk)
            .finish_non_exhaustive()
    }
}

impl Printer {
    /// The time of day, which ages are told from.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.wall()
    }

    /// What the server said of one thing.
    ///
    /// # Errors
    /// When standard output does not take it.
    pub fn value(&mut self, shape: Shape, value: &Value) -> Result<(), CliError> {
        let text = match self.format {
            Format::Table => view::one(shape, value, self.now(), self.width),
            Format::Json | Format::Yaml => self.machine(value)?,
        };
        self.text(&text)
    }

    /// What the server said of many; `next` when there are more.
    ///
    /// # Errors
    /// When standard output does not take it.
    pub fn list(&mut self, shape: Shape, items: &[Value], more: More) -> Result<(), CliError> {
        let text = match self.format {
            Format::Table if items.is_empty() => {
                self.note(&format!("no {}", shape.plural()));
                return Ok(());
            }
            Format::Table => view::many(shape, items, self.now(), self.width),
            Format::Json | Format::Yaml => self.machine(&json!({ "items": items }))?,
        };
        self.text(&text)?;
        if more == More::Left {
            self.note(&format!("the first {}; there are more: --limit N or --all", items.len()));
        }
        Ok(())
    }

    /// Work that is not waited for: its id, or for a program all of it.
    ///
    /// # Errors
    /// When standard output does not take it.
    pub fn begun(&mut self, subject: &Subject, value: &Value) -> Result<(), CliError> {
        let text = match self.format {
            Format::Table => format!("{}\n", clean(&subject.id)),
            Format::Json | Format::Yaml => self.machine(value)?,
        };
        self.text(&text)
    }

    /// One event, at once.
    ///
    /// # Errors
    /// When standard output does not take it.
    pub fn event(&mut self, value: &Value) -> Result<(), CliError> {
        let text = match self.format {
            Format::Table => view::event(value),
            Format::Json => format!("{value}\n"),
            Format::Yaml => format!("---\n{}", self.machine(value)?),
        };
        self.text(&text)
    }

    /// Text as it is.
    ///
    /// # Errors
    /// When standard output does not take it.
    pub fn text(&mut self, text: &str) -> Result<(), CliError> {
        self.bytes(text.as_bytes())
    }

    /// Bytes as they are.
    ///
    /// # Errors
    /// When standard output does not take them.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.out.write_all(bytes).and_then(|()| self.out.flush()).map_err(CliError::of_output)
    }

    fn machine(&self, value: &Value) -> Result<String, CliError> {
        let failed = |error: String| CliError::Failed(format!("the result cannot be written: {error}"));
        match self.format {
            Format::Table | Format::Json => serde_json::to_string_pretty(value)
                .map(|text| text + "\n")
                .map_err(|error| failed(error.to_string())),
            Format::Yaml => serde_norway::to_string(value).map_err(|error| failed(error.to_string())),
        }
    }

    /// What happens, unless nobody wants to hear it.
    pub fn note(&mut self, text: &str) {
        if self.talk == Talk::Normal {
            self.message(None, text);
        }
    }

    /// A remark of the server that is wanted even by those who want little.
    pub fn warn(&mut self, text: &str) {
        self.message(Some((RED, "warning:")), text);
    }

    /// What to do next.
    pub fn hint(&mut self, text: &str) {
        self.message(Some((CYAN, "hint:")), text);
    }

    /// What went wrong, field by field, and what to do about it.
    pub fn error(&mut self, error: &CliError) {
        match error {
            CliError::Closed => return,
            CliError::Interrupted { subject: Some(subject), .. } => {
                let noun = subject.kind.noun();
                let goes_on = match self.way.place() {
                    Place::Server => format!("the {noun} goes on; come back with"),
                    Place::Here => {
                        format!("the {noun} is given back; the next process on this store goes on with it")
                    }
                };
                self.message(None, &format!("{goes_on}: {}", subject.come_back(&self.way)));
                return;
            }
            CliError::Interrupted { subject: None, .. } => return,
            _ => {}
        }
        let mut text = error.to_string();
        let mut fields = &[][..];
        if let CliError::Refused(problem) = error {
            fields = &problem.errors;
            // The detail is that of the first field: it is said once, and where there are more, with its field.
            let first = fields.first().is_some_and(|(_, message)| *message == problem.detail);
            match fields {
                [_] if first => fields = &[],
                [_, ..] if first => text = format!("{} fields are not right", fields.len()),
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
        for (field, message) in fields {
            self.message(None, &format!("  {field}: {message}"));
        }
        if let Some(hint) = hints::for_error(error, &self.way) {
            self.hint(&hint);
        }
        if let CliError::Refused(problem) = error
            && problem.status >= 500
            && let Some(id) = &problem.request_id
        {
            self.message(Some((DIM, "request:")), id);
        }
    }

    /// Asks, on standard error.
    pub fn prompt(&mut self, text: &str) {
        self.quietly(format!("{} ", clean(text)).as_bytes());
    }

    fn message(&mut self, label: Option<(Style, &str)>, text: &str) {
        let text = clean(text);
        let line = match (label, self.paint) {
            (None, _) => format!("{text}\n"),
            (Some((_, label)), Paint::Plain) => format!("{label} {text}\n"),
            (Some((style, label)), Paint::Coloured) => format!("{style}{label}{style:#} {text}\n"),
        };
        self.quietly(line.as_bytes());
    }

    /// There is nowhere to say that a message could not be said.
    fn quietly(&mut self, bytes: &[u8]) {
        drop(self.err.write_all(bytes).and_then(|()| self.err.flush()));
    }
}

/// Whether a list goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// It does.
    Left,
    /// That was all.
    None,
}

/// Without the characters that would move the cursor: what a server says is not ours.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|letter| match letter {
            '\n' | '\r' | '\t' => ' ',
            letter if letter.is_control() => '\u{fffd}',
            letter => letter,
        })
        .collect()
}
