//! Where a rollout is, and the table of what may follow what.

/// Where a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RolloutStatus {
    /// Accepted, or waiting for the reason that it names.
    Waiting,
    /// An owner moves sites.
    Running,
    /// Stopped because someone asked; resumable.
    Paused,
    /// Stopped because a wave went over its budget; resumable.
    Halted,
    /// Stopped for good.
    Aborted,
    /// Every site has an outcome, and no wave went over its budget.
    Succeeded,
    /// Its image did not get ready, or a wave went over its budget and its sites were returned.
    Failed,
}

/// What can happen to a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RolloutEvent {
    /// A worker takes it.
    Claim,
    /// It has to wait.
    Wait,
    /// A request to pause takes effect.
    Pause,
    /// A person asks to go on.
    Resume,
    /// A wave is over its budget.
    Halt,
    /// A request to abort takes effect.
    Abort,
    /// Every site has its outcome.
    Succeed,
    /// It cannot succeed any more.
    Fail,
}

/// A transition that the table of rollouts does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a rollout that is {status} does not take the event `{event}`")]
pub struct IllegalRollout {
    /// The status's word.
    pub status: &'static str,
    /// The event's word.
    pub event: &'static str,
}

impl RolloutEvent {
    /// All of them.
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

    /// The event in words.
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
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Waiting,
        Self::Running,
        Self::Paused,
        Self::Halted,
        Self::Aborted,
        Self::Succeeded,
        Self::Failed,
    ];

    /// The word that users see.
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

    /// Whether nothing can happen to it any more.
    pub const fn ended(self) -> bool {
        match self {
            Self::Aborted | Self::Succeeded | Self::Failed => true,
            Self::Waiting | Self::Running | Self::Paused | Self::Halted => false,
        }
    }

    /// Whether a worker has something to do.
    pub const fn runnable(self) -> bool {
        match self {
            Self::Waiting | Self::Running => true,
            Self::Paused | Self::Halted | Self::Aborted | Self::Succeeded | Self::Failed => false,
        }
    }

    /// What follows when `event` happens.
    ///
    /// # Errors
    /// [`IllegalRollout`], naming both, for every pair that the table does not have.
    pub fn next(self, event: RolloutEvent) -> Result<Self, IllegalRollout> {
        use RolloutEvent as E;
        match (self, event) {
            (Self::Waiting | Self::Running, E::Claim) => Ok(Self::Running),
            (Self::Running, E::Wait) => Ok(Self::Waiting),
            (Self::Running | Self::Waiting, E::Pause) => Ok(Self::Paused),
            (Self::Paused | Self::Halted | Self::Waiting, E::Resume) => Ok(Self::Waiting),
            (Self::Running, E::Halt) => Ok(Self::Halted),
            (Self::Running | Self::Waiting | Self::Paused | Self::Halted, E::Abort) => Ok(Self::Aborted),
            (Self::Running, E::Succeed) => Ok(Self::Succeeded),
            (Self::Running, E::Fail) => Ok(Self::Failed),
            _ => Err(IllegalRollout { status: self.as_str(), event: event.as_str() }),
        }
    }
}
