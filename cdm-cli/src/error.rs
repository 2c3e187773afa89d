//! What can go wrong, as far as it makes a difference to the person at the keyboard.

use std::io;

use cdm_core::wiring::EndSignal;
use serde_json::Value;

use crate::transport::{Response, TransportError};
use crate::way::Way;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The server refused.
    #[error("{}", .0.said())]
    Refused(Box<Problem>),
    /// The server could not be asked.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The arguments do not go together, or a value is wrong.
    #[error("{0}")]
    Usage(String),
    /// A secret would have been sent without TLS to another machine.
    #[error("{0}")]
    Plaintext(String),
    /// A deletion that nobody confirmed.
    #[error("site `{site}` was not deleted: its id was not confirmed")]
    Unconfirmed {
        /// The site.
        site: String,
    },
    /// A rollout that does not say what is to be moved.
    #[error("a rollout is told what to do: nothing was started")]
    Unsaid,
    /// Ctrl-C or another signal; whatever was started goes on.
    #[error("interrupted")]
    Interrupted {
        /// By which.
        by: EndSignal,
        /// What goes on, and how to come back to it.
        subject: Option<Subject>,
    },
    /// The wait ended before the work.
    #[error("the wait for `{}` timed out; it goes on", .subject.id)]
    WaitTimedOut {
        /// What goes on.
        subject: Subject,
    },
    /// The server answered what no server of this kind answers.
    #[error("the server's answer was not understood: {0}")]
    Answer(String),
    /// The server leads to another address.
    #[error(
        "the server leads to `{target}`, and redirects are not followed: the token is for the server that was named"
    )]
    Redirected {
        /// Where it leads.
        target: String,
    },
    /// The work itself failed, in words.
    #[error("{0}")]
    Failed(String),
    /// A file could not be read or written.
    #[error("{what} failed")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Whoever reads the output has closed it.
    #[error("the output was closed")]
    Closed,
}

impl CliError {
    /// What came of writing a result.
    pub(crate) fn of_output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Io { what: "writing the output".into(), source: error },
        }
    }
}

/// Work that can be waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// What it is.
    pub kind: SubjectKind,
    /// Its id.
    pub id: String,
}

/// What work can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectKind {
    /// An operation.
    Operation,
    /// A rollout.
    Rollout,
}

impl SubjectKind {
    /// What people call it.
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Operation => "operation",
            Self::Rollout => "rollout",
        }
    }

    /// The command that it goes by.
    pub const fn command(self) -> &'static str {
        match self {
            Self::Operation => "op",
            Self::Rollout => "rollout",
        }
    }
}

impl Subject {
    /// An operation.
    pub fn operation(id: impl Into<String>) -> Self {
        Self { kind: SubjectKind::Operation, id: id.into() }
    }

    /// A rollout.
    pub fn rollout(id: impl Into<String>) -> Self {
        Self { kind: SubjectKind::Rollout, id: id.into() }
    }

    /// Where the API has it.
    pub fn path(&self) -> String {
        let id = crate::transport::segment(&self.id);
        match self.kind {
            SubjectKind::Operation => format!("/operations/{id}"),
            SubjectKind::Rollout => format!("/rollouts/{id}"),
        }
    }

    /// The command that comes back to it.
    pub fn come_back(&self, way: &Way) -> String {
        way.command(&format!("{} watch {}", self.kind.command(), self.id))
    }
}

/// A refusal, as RFC 9457 has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// What kind of refusal, in words.
    pub title: String,
    /// The particulars.
    pub detail: String,
    /// The stable code.
    pub code: String,
    /// What the server's log calls the request.
    pub request_id: Option<String>,
    /// Field by field, what is wrong.
    pub errors: Vec<(String, String)>,
    /// The operation that stands against it.
    pub operation: Option<String>,
    /// How that operation stands, where it does not go on by itself.
    pub operation_status: Option<String>,
    /// The digest that a rollout's service runs.
    pub running: Option<String>,
    /// The rollout that stands against it.
    pub rollout: Option<String>,
}

impl Problem {
    /// What a response says that is none of success.
    pub fn of(response: &Response) -> Self {
        let body: Value = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
        let text = |key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
        let id = |key: &str| {
            let named = body.get(key)?;
            named.as_str().or_else(|| named.get("id")?.as_str()).map(str::to_owned)
        };
        let errors = body.get("errors").and_then(Value::as_array).into_iter().flatten().map(|entry| {
            let part = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            (part("field"), part("message"))
        });
        Self {
            status: response.status,
            title: text("title").unwrap_or_default(),
            detail: text("detail").unwrap_or_default(),
            code: text("code").unwrap_or_else(|| Self::default_code(response.status).into()),
            request_id: text("requestId").or_else(|| response.header("x-request-id").map(str::to_owned)),
            errors: errors.collect(),
            operation: id("operation"),
            operation_status: text("operationStatus"),
            running: text("running"),
            rollout: id("rollout"),
        }
    }

    /// A proxy on the way says no more than its status.
    const fn default_code(status: u16) -> &'static str {
        match status {
            401 => "unauthorized",
            403 => "forbidden",
            404 => "not_found",
            429 => "rate_limited",
            502..=504 => "unavailable",
            _ => "",
        }
    }

    fn said(&self) -> String {
        match (self.detail.as_str(), self.title.as_str()) {
            ("", "") => format!("the server answered {}", self.status),
            ("", title) => title.to_owned(),
            (detail, _) => detail.to_owned(),
        }
    }
}
