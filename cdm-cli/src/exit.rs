//! What the process ends with. No other place knows the numbers.

use cdm_core::wiring::EndSignal;

use crate::error::CliError;
use crate::wait::Ending;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// What was asked for is done.
    Done,
    /// The work failed, was cancelled or is parked.
    Failed,
    /// The request was wrong.
    Usage,
    /// The token may not do this, or is none.
    Denied,
    /// There is no such thing.
    NotFound,
    /// Something stands against it.
    Conflict,
    /// The work goes on, but the wait for it ended.
    TimedOut,
    /// A rollout ended with some sites not moved.
    Partly,
    /// The server does not answer.
    Unreachable,
    /// SIGHUP.
    HungUp,
    /// Ctrl-C.
    Interrupted,
    /// SIGTERM.
    Terminated,
}

impl Exit {
    /// All of them, by number.
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

    /// What it means, for people.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "the work failed, was cancelled or is parked",
            Self::Usage => "usage: the arguments or the input are wrong, or a deletion was not confirmed",
            Self::Denied => "not allowed: no token, a wrong one, or one whose role does not suffice",
            Self::NotFound => "not found, or a rollout names a site that is not there",
            Self::Conflict => "conflict: something else is at work, or the state does not take it",
            Self::TimedOut => "the wait timed out; the work goes on",
            Self::Partly => "partly done: a rollout ended, and some sites failed, were parked or skipped",
            Self::Unreachable => "the server, or a backend of it, does not answer, or it limits requests",
            Self::HungUp => "hangup (SIGHUP); the work goes on",
            Self::Interrupted => "Ctrl-C; the work goes on",
            Self::Terminated => "SIGTERM; the work goes on",
        }
    }

    /// The process's exit code.
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

    /// Of an HTTP status that is none of success.
    pub const fn of_status(status: u16) -> Self {
        match status {
            400 | 413 | 415 | 422 => Self::Usage,
            401 | 403 => Self::Denied,
            404 | 410 => Self::NotFound,
            409 => Self::Conflict,
            // The work that was asked for is not what failed.
            429 | 502..=504 => Self::Unreachable,
            _ => Self::Failed,
        }
    }
}

impl From<&CliError> for Exit {
    fn from(error: &CliError) -> Self {
        match error {
            // A name that was not found, wherever it stood.
            CliError::Refused(problem) if problem.code == "unknown_sites" => Self::NotFound,
            CliError::Refused(problem) => Self::of_status(problem.status),
            CliError::Transport(_) => Self::Unreachable,
            CliError::Usage(_)
            | CliError::Plaintext(_)
            | CliError::Unconfirmed { .. }
            | CliError::Unsaid
            | CliError::Redirected { .. } => Self::Usage,
            CliError::Interrupted { by, .. } => Self::from(*by),
            CliError::WaitTimedOut { .. } => Self::TimedOut,
            CliError::Answer(_) | CliError::Failed(_) | CliError::Io { .. } => Self::Failed,
            // Whoever reads the output has closed it: nothing is wrong.
            CliError::Closed => Self::Done,
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
