//! The status of a rollout, and the table of its transitions.

/// The status of a rollout.
///
/// ```
/// use cdm_core::domain::rollout::{RolloutStatus, Transition};
///
/// let paused = RolloutStatus::Running.next(Transition::Pause).expect("a running rollout can be paused");
/// assert_eq!(paused, RolloutStatus::Paused);
/// assert_eq!(paused.next(Transition::Resume), Ok(RolloutStatus::Waiting));
/// assert!(paused.next(Transition::Claim).is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RolloutStatus {
    /// Accepted, or waiting for the condition that its reason names.
    Waiting,
    /// Claimed by a worker, which moves sites.
    Running,
    /// Stopped by a request or for a reason that needs a user; can be resumed.
    Paused,
    /// Stopped since a wave exceeded its budget; can be resumed.
    Halted,
    /// Stopped by a request; cannot be resumed.
    Aborted,
    /// Ended: every site has an outcome, and no wave exceeded its budget, or a user resumed it after that.
    Succeeded,
    /// Ended: its deploy did not succeed, or a wave exceeded its budget and the sites were rolled back.
    Failed,
}

/// A change of the status of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transition {
    /// A worker claims the rollout.
    Claim,
    /// The rollout waits for a condition.
    Wait,
    /// A requested pause takes effect, or the rollout needs a user.
    Pause,
    /// A user resumes the rollout.
    Resume,
    /// A wave exceeds its budget, and its sites stay where they are.
    Halt,
    /// A requested abort takes effect.
    Abort,
    /// Every site has its outcome.
    Succeed,
    /// The deploy did not succeed, or the rollback has ended.
    Fail,
}

/// An event that a rollout cannot have in its present status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event `{event}` is not possible while the rollout is `{status}`")]
pub struct IllegalRollout {
    /// The name of the status, or of the phase.
    pub status: &'static str,
    /// The name of the event.
    pub event: &'static str,
}

impl Transition {
    /// All transitions, in the order of their definition.
    pub const ALL: [Self; 8] = [
        Self::Claim,
        Self::Wait,
        Self::Pause,
        Self::Resume,
        Self::Halt,
        Self::Abort,
        Self::Succeed,
        Self::Fail,
    ];

    /// Returns the name in error messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Wait => "wait",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Halt => "halt",
            Self::Abort => "abort",
            Self::Succeed => "succeed",
            Self::Fail => "fail",
        }
    }
}

impl RolloutStatus {
    /// All statuses, in the order of their definition.
    pub const ALL: [Self; 7] = [
        Self::Waiting,
        Self::Running,
        Self::Paused,
        Self::Halted,
        Self::Aborted,
        Self::Succeeded,
        Self::Failed,
    ];

    /// Returns the name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Halted => "halted",
            Self::Aborted => "aborted",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }

    /// Returns whether the status is final.
    pub const fn ended(self) -> bool {
        match self {
            Self::Aborted | Self::Succeeded | Self::Failed => true,
            Self::Waiting | Self::Running | Self::Paused | Self::Halted => false,
        }
    }

    /// Returns whether a worker can claim the rollout.
    pub const fn runnable(self) -> bool {
        match self {
            Self::Waiting | Self::Running => true,
            Self::Paused | Self::Halted | Self::Aborted | Self::Succeeded | Self::Failed => false,
        }
    }

    /// Returns the status after a transition.
    ///
    /// # Errors
    /// [`IllegalRollout`] for each pair that is not in the table.
    pub fn next(self, transition: Transition) -> Result<Self, IllegalRollout> {
        use Transition as T;
        match (self, transition) {
            (Self::Waiting | Self::Running, T::Claim) => Ok(Self::Running),
            (Self::Running, T::Wait) => Ok(Self::Waiting),
            (Self::Running | Self::Waiting, T::Pause) => Ok(Self::Paused),
            (Self::Paused | Self::Halted | Self::Waiting, T::Resume) => Ok(Self::Waiting),
            (Self::Running, T::Halt) => Ok(Self::Halted),
            (Self::Running | Self::Waiting | Self::Paused | Self::Halted, T::Abort) => Ok(Self::Aborted),
            (Self::Running, T::Succeed) => Ok(Self::Succeeded),
            (Self::Running, T::Fail) => Ok(Self::Failed),
            _ => Err(IllegalRollout { status: self.as_str(), event: transition.as_str() }),
        }
    }
}
