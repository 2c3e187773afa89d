//! The exit codes of the process. They are defined in this file only.

use cdm_core::wiring::EndSignal;

use crate::error::CliError;
use crate::work::Ending;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The command succeeded.
    Done,
    /// The operation or rollout failed, was canceled or is parked.
    Failed,
    /// The arguments or the request are invalid.
    Usage,
    /// The token is missing or invalid, or its role does not permit the action.
    Denied,
    /// The object does not exist.
    NotFound,
    /// Another operation, or the current state, does not allow the action.
    Conflict,
    /// The wait timed out; the work continues.
    TimedOut,
    /// A rollout ended or stopped, and some sites were not moved.
    Partly,
    /// The server does not respond, or limits requests.
    Unreachable,
    /// SIGHUP ended the command.
    HungUp,
    /// Ctrl-C (SIGINT) ended the command.
    Interrupted,
    /// SIGTERM ended the command.
    Terminated,
}

impl Exit {
    /// All values, in the order of their codes.
    pub const ALL: [Self; 12] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::Denied,
        Self::NotFound,
        Self::Conflict,
        Self::TimedOut,
        Self::Partly,
        Self::Unreachable,
        Self::HungUp,
        Self::Interrupted,
        Self::Terminated,
    ];

    /// Returns the meaning, for the manual pages.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "the operation or rollout failed, was canceled or is parked",
            Self::Usage => "usage: the arguments or the input are invalid, or a deletion was not confirmed",
            Self::Denied => {
                "not allowed: the token is missing or invalid, or its role does not permit the action"
            }
            Self::NotFound => "not found, or a rollout names a site that does not exist",
            Self::Conflict => {
                "conflict: another operation is in progress, or the current state does not allow the action"
            }
            Self::TimedOut => "the wait timed out; the operation continues",
            Self::Partly => "partly done: a rollout ended, and some sites failed, were parked or skipped",
            Self::Unreachable => {
                "the server or one of its backends is unavailable, or the server limits requests"
            }
            Self::HungUp => "hangup (SIGHUP); the operation continues",
            Self::Interrupted => "Ctrl-C; the operation continues",
            Self::Terminated => "SIGTERM; the operation continues",
        }
    }

    /// Returns the exit code of the process.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Denied => 3,
            Self::NotFound => 4,
            Self::Conflict => 5,
            Self::TimedOut => 6,
            Self::Partly => 7,
            Self::Unreachable => 8,
            Self::HungUp => 129,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }

    /// Maps an HTTP status that is not a success.
    pub const fn of_status(status: u16) -> Self {
        match status {
            400 | 413 | 415 | 422 => Self::Usage,
            401 | 403 => Self::Denied,
            404 | 410 => Self::NotFound,
            409 => Self::Conflict,
            // The request was not executed, so no work has failed.
            429 | 502..=504 => Self::Unreachable,
            _ => Self::Failed,
        }
    }
}

impl From<&CliError> for Exit {
    fn from(error: &CliError) -> Self {
        match error {
            // A site that a rollout names and that does not exist.
            CliError::Rejected(problem) if problem.code == "unknown_sites" => Self::NotFound,
            CliError::Rejected(problem) => Self::of_status(problem.status),
            CliError::Transport(_) => Self::Unreachable,
            CliError::Usage(_)
            | CliError::Plaintext(_)
            | CliError::Unconfirmed { .. }
            | CliError::NothingSelected
            | CliError::Redirected { .. } => Self::Usage,
            CliError::Interrupted { by, .. } => Self::from(*by),
            CliError::WaitTimedOut { .. } => Self::TimedOut,
            CliError::InvalidResponse(_) | CliError::Failed(_) | CliError::Io { .. } => Self::Failed,
            // The reader has closed the output, which is not an error.
            CliError::OutputClosed => Self::Done,
        }
    }
}

impl From<EndSignal> for Exit {
    fn from(signal: EndSignal) -> Self {
        match signal {
            EndSignal::Hangup => Self::HungUp,
            EndSignal::Interrupt => Self::Interrupted,
            EndSignal::Terminate => Self::Terminated,
        }
    }
}

impl From<Ending> for Exit {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Done => Self::Done,
            Ending::Failed => Self::Failed,
            Ending::Partly => Self::Partly,
        }
    }
}
