//! The work that a command waits for: an operation or a rollout.

use cdm_http::api::operation::{Operation, OperationStatus, Reason};
use cdm_http::api::rollout::{Rollout, RolloutStatus};
use serde::de::DeserializeOwned;

use crate::error::{Subject, SubjectKind};
use crate::view::Shown;

/// Which outcome counts as success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The work succeeds.
    Success,
    /// The work ends, as a cancel or an abort requested.
    End,
}

/// How work ended or stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The goal was reached.
    Done,
    /// Failed, canceled or parked.
    Failed,
    /// Some sites were moved, others were not.
    Partly,
}

/// An operation or a rollout, as the server sent it last.
#[derive(Clone, Copy, Debug)]
pub enum State<'a> {
    /// The operation that the command started or waits for.
    Operation(&'a Operation),
    /// The rollout that the command started or waits for.
    Rollout(&'a Rollout),
}

/// Work that a command starts and waits for.
pub trait Work: DeserializeOwned + Shown + Send + Sync {
    /// The kind of all values of the type, for paths and messages.
    const KIND: SubjectKind;

    /// Returns the operation or the rollout, for code that handles the two differently.
    fn state(&self) -> State<'_>;

    /// Returns the subject of the work, with its id.
    fn subject(&self) -> Subject {
        Subject { kind: Self::KIND, id: self.state().id().to_owned() }
    }
}

impl Work for Operation {
    const KIND: SubjectKind = SubjectKind::Operation;

    fn state(&self) -> State<'_> {
        State::Operation(self)
    }
}

impl Work for Rollout {
    const KIND: SubjectKind = SubjectKind::Rollout;

    fn state(&self) -> State<'_> {
        State::Rollout(self)
    }
}

impl<'a> State<'a> {
    fn id(self) -> &'a str {
        match self {
            Self::Operation(operation) => operation.id.as_str(),
            Self::Rollout(rollout) => rollout.id.as_str(),
        }
    }

    /// Returns the status as text.
    pub fn status(self) -> &'a str {
        match self {
            Self::Operation(operation) => operation.status.as_str(),
            Self::Rollout(rollout) => rollout.status.as_str(),
        }
    }

    /// Returns why the work waits, is parked or has failed.
    pub const fn reason(self) -> Option<&'a Reason> {
        match self {
            Self::Operation(operation) => operation.reason.as_ref(),
            Self::Rollout(rollout) => rollout.reason.as_ref(),
        }
    }

    /// Returns whether the work makes no further progress without a request. A status of a newer server counts as
    /// progress, so the wait lasts until a known status or the timeout.
    pub fn is_settled(self, goal: Goal) -> bool {
        match (self, goal) {
            (Self::Operation(operation), Goal::Success) => match operation.status {
                OperationStatus::Succeeded
                | OperationStatus::Failed
                | OperationStatus::Parked
                | OperationStatus::Cancelled => true,
                OperationStatus::Queued
                | OperationStatus::Running
                | OperationStatus::Waiting
                | OperationStatus::Other(_) => false,
            },
            // A parked operation that is being canceled may stay `parked` for a moment.
            (Self::Operation(operation), Goal::End) => matches!(
                operation.status,
                OperationStatus::Succeeded | OperationStatus::Failed | OperationStatus::Cancelled
            ),
            (Self::Rollout(rollout), Goal::Success) => match rollout.status {
                RolloutStatus::Succeeded
                | RolloutStatus::Failed
                | RolloutStatus::Halted
                | RolloutStatus::Paused
                | RolloutStatus::Aborted => true,
                RolloutStatus::Waiting => {
                    rollout.reason.as_ref().is_some_and(|reason| reason.code.is_digest_changed())
                }
                RolloutStatus::Running | RolloutStatus::Other(_) => false,
            },
            (Self::Rollout(rollout), Goal::End) => matches!(
                rollout.status,
                RolloutStatus::Succeeded | RolloutStatus::Failed | RolloutStatus::Aborted
            ),
        }
    }

    /// Returns how work ended for which [`State::is_settled`] returns true.
    pub const fn ending(self, goal: Goal) -> Ending {
        match self {
            Self::Operation(operation) => match (goal, &operation.status) {
                (Goal::Success, OperationStatus::Succeeded) | (Goal::End, OperationStatus::Cancelled) => {
                    Ending::Done
                }
                _ => Ending::Failed,
            },
            Self::Rollout(rollout) => match (goal, &rollout.status) {
                (Goal::End, RolloutStatus::Aborted) => Ending::Done,
                (_, RolloutStatus::Succeeded) => {
                    match rollout.counts.failed + rollout.counts.parked + rollout.counts.skipped {
                        0 => Ending::Done,
                        _ => Ending::Partly,
                    }
                }
                _ => match rollout.counts.succeeded {
                    0 => Ending::Failed,
                    _ => Ending::Partly,
                },
            },
        }
    }
}
