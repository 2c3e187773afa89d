//! The errors of a command, distinguished where the user has to act differently.

use std::io;

use cdm_core::wiring::EndSignal;
use cdm_http::api::operation::OperationStatus;
use cdm_http::api::problem::FieldError;
use cdm_http::api::{Digest, OperationId, RolloutId};
use serde::Deserialize;

use crate::invocation::Invocation;
use crate::transport::{Response, TransportError};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The server rejected the request.
    #[error("{}", .0.message())]
    Rejected(Box<Problem>),
    /// The server could not be reached.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The arguments contradict each other, or a value is invalid.
    #[error("{0}")]
    Usage(String),
    /// A token would have been sent to another machine without TLS.
    #[error("{0}")]
    Plaintext(String),
    /// A deletion was not confirmed.
    #[error("site `{site}` was not deleted: its id was not confirmed")]
    Unconfirmed {
        /// Id of the site.
        site: String,
    },
    /// A rollout was requested without sites and without an action.
    #[error(
        "nothing was started: a rollout requires `--promote`, `--scope`, `--sites`, `--image` or `--plan`"
    )]
    NothingSelected,
    /// Ctrl-C or another signal ended the command; work that was started continues.
    #[error("interrupted")]
    Interrupted {
        /// The signal that the process received.
        by: EndSignal,
        /// The work that continues, if there is any.
        subject: Option<Subject>,
    },
    /// The timeout expired before the work ended.
    #[error("the wait for `{}` timed out; the {} continues", .subject.id, .subject.kind.noun())]
    WaitTimedOut {
        /// The work that continues.
        subject: Subject,
    },
    /// The response is not one that a CDM server sends.
    #[error("the server's response is invalid: {0}")]
    InvalidResponse(String),
    /// The server redirects to another address.
    #[error(
        "the server redirects to `{target}`; redirects are not followed, because the token is only for the named server"
    )]
    Redirected {
        /// Target of the redirect.
        target: String,
    },
    /// The command failed for the reason in the text.
    #[error("{0}")]
    Failed(String),
    /// A file or stream could not be read or written.
    #[error("{what} failed")]
    Io {
        /// What was attempted, as the subject of "failed".
        what: String,
        /// Cause of the failure.
        source: io::Error,
    },
    /// The reader of the output has closed it.
    #[error("the output was closed")]
    OutputClosed,
}

impl CliError {
    /// Converts the error of a write to standard output.
    pub(crate) fn from_output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Io { what: "writing the output".into(), source: error },
        }
    }
}

/// Work that a command can wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Which path of the API has the work: `/operations` or `/rollouts`.
    pub kind: SubjectKind,
    /// Id in the API.
    pub id: String,
}

/// Kinds of work that a command can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectKind {
    /// Work on one site, on a service or on the fleet.
    Operation,
    /// Moves of many sites in waves.
    Rollout,
}

impl SubjectKind {
    /// Returns the noun for messages.
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Operation => "operation",
            Self::Rollout => "rollout",
        }
    }

    /// Returns the subcommand of `cdm` for this kind.
    pub const fn command(self) -> &'static str {
        match self {
            Self::Operation => "op",
            Self::Rollout => "rollout",
        }
    }
}

impl Subject {
    /// Refers to the operation with this id.
    pub fn operation(id: impl Into<String>) -> Self {
        Self { kind: SubjectKind::Operation, id: id.into() }
    }

    /// Refers to the rollout with this id.
    pub fn rollout(id: impl Into<String>) -> Self {
        Self { kind: SubjectKind::Rollout, id: id.into() }
    }

    /// Returns the path of the work in the API.
    pub fn path(&self) -> String {
        let id = crate::transport::segment(&self.id);
        match self.kind {
            SubjectKind::Operation => format!("/operations/{id}"),
            SubjectKind::Rollout => format!("/rollouts/{id}"),
        }
    }

    /// Returns the command that waits for the work again.
    pub fn watch_command(&self, invocation: &Invocation) -> String {
        invocation.command(&format!("{} watch {}", self.kind.command(), self.id))
    }
}

/// An error response: the problem document of the API (RFC 9457), or the response of a proxy, which lacks its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Problem {
    /// The HTTP status, as in the status line of the response.
    pub status: u16,
    /// Short text for the kind of problem.
    pub title: String,
    /// What happened, with particulars.
    pub detail: String,
    /// Error code of the API; derived from the status if the response has none.
    pub code: String,
    /// Id of the request in the server's log.
    pub request_id: Option<String>,
    /// Invalid fields, with a message for each.
    pub errors: Vec<FieldError>,
    /// Id of the conflicting operation.
    pub operation: Option<OperationId>,
    /// Status of the conflicting operation, if it does not continue automatically.
    pub operation_status: Option<OperationStatus>,
    /// Digest that the service of a rollout runs.
    pub running: Option<Digest>,
    /// Id of the conflicting rollout.
    pub rollout: Option<RolloutId>,
}

impl Problem {
    /// Parses an error response.
    pub fn of(response: &Response) -> Self {
        let mut problem: Self = serde_json::from_slice(&response.body).unwrap_or_default();
        problem.status = response.status;
        if problem.code.is_empty() {
            problem.code = Self::default_code(response.status).to_owned();
        }
        let logged = || response.header("x-request-id").map(str::to_owned);
        problem.request_id = problem.request_id.or_else(logged);
        problem
    }

    /// Returns the code for a response without one, such as that of a proxy.
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

    fn message(&self) -> String {
        match (self.detail.as_str(), self.title.as_str()) {
            ("", "") => format!("the server responded with status {}", self.status),
            ("", title) => title.to_owned(),
            (detail, _) => detail.to_owned(),
        }
    }
}
