//! What the engine asks of a pipeline: a named, versioned list of steps.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::{Lease, Lost, Record, StepTimeouts};
use crate::domain::operation::{OperationInput, OperationState, Position, Previous, Status, Step};
use crate::domain::{
    Actor, Color, LockMode, MonotonicTime, OperationKind, ReasonCode, ServiceChange, SiteChange, Timestamp,
};
use crate::ports::{CallContext, ErrorKind, Outcome, PortError, Ports, StoreError};

/// A named, versioned list of steps.
///
/// A step is begun only after its intent was stored, and may be begun again after a crash at any point of it: it looks
/// first and acts on what is missing. It is asked for one thing at a time and returns at once; waiting is the
/// engine's.
#[async_trait]
pub trait Pipeline: Send + Sync + fmt::Debug + 'static {
    /// What it does.
    fn kind(&self) -> OperationKind;

    /// Raised whenever the list of steps, or what a step relies on, changes. An operation of another version is left
    /// to a worker that knows it.
    fn version(&self) -> u32;

    /// The steps, as users see them.
    fn steps(&self) -> &'static [&'static str];

    /// What undoes them, in order; each looks first, and is content where there is nothing to undo.
    fn undo(&self) -> &'static [&'static str];

    /// Whether a request to cancel still takes effect once `step` was begun.
    fn cancellable(&self, step: usize) -> bool;

    /// The hold that the operation needs at its present position.
    fn lock(&self, operation: &OperationState) -> Option<(Color, LockMode)>;

    /// Makes one attempt at the step at `at`.
    ///
    /// # Errors
    /// Why the step is not done; see [`StepError`].
    async fn attempt(&self, context: &StepContext<'_>, at: Position) -> Result<StepOutput, StepError>;
}

/// What a finished step leaves.
#[derive(Clone, Debug, Default)]
pub struct StepOutput {
    /// What is written together with the result.
    pub changes: Vec<Change>,
    /// What there is to say to the user.
    pub message: Option<String>,
}

impl StepOutput {
    /// Done, with these changes.
    pub const fn with(changes: Vec<Change>) -> Self {
        Self { changes, message: None }
    }

    /// Done, with something to say.
    pub fn saying(message: impl Into<String>) -> Self {
        Self { changes: Vec::new(), message: Some(message.into()) }
    }
}

/// What is written together with a step's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// To the site.
    Site(SiteChange),
    /// To the colour.
    Service(ServiceChange),
    /// The step's job failed and is followed by another.
    NextJob,
    /// The step's job, and what it printed.
    Job(String, Option<String>),
    /// What a deploy replaces.
    Previous(Previous),
    /// The rollout that runs a deploy's hooks.
    Rollout(u64),
}

/// Why a step is not done.
#[derive(Clone, Debug)]
pub enum StepError {
    /// Something was learnt that must be stored first; then the step is attempted again, at once.
    PersistAndRetry(Vec<Change>),
    /// It waits for something outside.
    Wait {
        /// Why.
        code: ReasonCode,
        /// The particulars.
        message: String,
        /// How long it may wait in all, before it is parked.
        timeout: Duration,
        /// After how long it looks again, where no news comes.
        again: Duration,
        /// What is written down with it.
        changes: Vec<Change>,
    },
    /// It did not work, or nobody knows; it may the next time. A backend that is away, asks for fewer calls or denies is
    /// waited for, and the attempt is not counted.
    Retry(PortError),
    /// A person is needed.
    Park(ReasonCode, String),
    /// It cannot be done; what was done is to be undone.
    Fail(ReasonCode, String, Vec<Change>),
    /// The attempt has come to a change, and was only to look, because the operation has not its hold.
    NeedsLock,
    /// The worker has lost the operation.
    Lost,
}

impl From<Lost> for StepError {
    fn from(_: Lost) -> Self {
        Self::Lost
    }
}

impl From<PortError> for StepError {
    fn from(error: PortError) -> Self {
        let message = || format!("{error}");
        match error.kind {
            // A permission that was just granted, or that a backend which has just started has yet to load, is refused for
            // a while: https://github.com/kubernetes/kubernetes/issues/121635.
            ErrorKind::Conflict
            | ErrorKind::Throttled(_)
            | ErrorKind::Unavailable
            | ErrorKind::Full
            | ErrorKind::Denied => Self::Retry(error),
            ErrorKind::Foreign => Self::Park(ReasonCode::Foreign, message()),
            ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Exists | ErrorKind::Gone => {
                Self::Park(ReasonCode::Invalid, message())
            }
        }
    }
}

impl From<StoreError> for StepError {
    fn from(error: StoreError) -> Self {
        let kind = match error {
            StoreError::Unavailable(_) => ErrorKind::Unavailable,
            StoreError::Full(_) => ErrorKind::Full,
            StoreError::Throttled => ErrorKind::Throttled(None),
            StoreError::Denied(_) => ErrorKind::Denied,
        };
        Self::from(PortError::new("store", kind, error.to_string()))
    }
}

/// What an attempt has to work with.
#[derive(Debug)]
pub struct StepContext<'a> {
    /// The world.
    pub ports: &'a Ports,
    /// The record that the operation lives in.
    pub record: &'a Record,
    /// The operation.
    pub operation: &'a OperationState,
    /// Now.
    pub now: Timestamp,
    pub(crate) lease: &'a Lease,
    /// Whether the attempt may change something; else it only looks.
    pub(crate) changes: bool,
}

impl StepContext<'_> {
    /// The context of one call that changes something.
    ///
    /// # Errors
    /// [`StepError::Lost`] when the lease does not last for it; [`StepError::NeedsLock`] where the attempt is only to look.
    pub fn call(&self) -> Result<CallContext, StepError> {
        if !self.changes {
            return Err(StepError::NeedsLock);
        }
        Ok(self.lease.call(self.ports, self.operation.fence())?)
    }

    /// Makes sure that the operation is still this worker's.
    ///
    /// What was read before this and is expected by a write after it, is from before anyone else took over: so a
    /// successor's fence can never be read and then overwritten.
    ///
    /// # Errors
    /// [`StepError::Lost`] when it is not; when the store does not answer, as that says.
    pub async fn still_owner(&self) -> Result<(), StepError> {
        let record = Record::read(self.ports, &self.record.subject()).await?;
        let operation = record.as_ref().and_then(Record::operation);
        let ours = operation.is_some_and(|operation| {
            operation.fence() == self.operation.fence() && operation.owner == self.operation.owner
        });
        if ours || crate::bug!(RouteFenceIgnored) { Ok(()) } else { Err(StepError::Lost) }
    }

    /// Now, on the monotonic clock.
    pub fn tick(&self) -> MonotonicTime {
        self.ports.clock.monotonic()
    }
}

impl<T> Outcome<T, PortError> {
    /// The value of an applied call.
    ///
    /// # Errors
    /// Not applied: what the error says. Unknown: again; the next attempt reads back what became of it.
    pub fn applied(self) -> Result<T, StepError> {
        match self {
            Self::Applied(value) => Ok(value),
            Self::NotApplied(error) => Err(error.into()),
            Self::Unknown(error) if crate::bug!(TimeoutIsFailure) => {
                Err(StepError::Fail(ReasonCode::Invalid, error.to_string(), Vec::new()))
            }
            Self::Unknown(error) => {
                Err(StepError::Retry(PortError { kind: ErrorKind::Unavailable, ..error }))
            }
        }
    }

    /// Like [`Outcome::applied`], where an error of `kind` means that it is done already.
    ///
    /// # Errors
    /// As [`Outcome::applied`].
    pub fn applied_or(self, kind: ErrorKind) -> Result<(), StepError> {
        match self {
            Self::NotApplied(error) if error.kind == kind => Ok(()),
            other => other.applied().map(drop),
        }
    }
}

/// The pipelines that a process knows.
#[derive(Debug, Default)]
pub struct Registry {
    pipelines: Vec<Box<dyn Pipeline>>,
    timeout: StepTimeouts,
}

impl Registry {
    /// These.
    pub fn new(pipelines: Vec<Box<dyn Pipeline>>) -> Self {
        Self { pipelines, timeout: StepTimeouts::default() }
    }

    /// With another patience for backends than the default.
    #[must_use]
    pub fn with_timeouts(self, timeout: StepTimeouts) -> Self {
        Self { timeout, ..self }
    }

    /// How long the step that `slot` is at waits for a backend that is away, and for one that denies.
    pub fn timeouts(&self, pipeline: &dyn Pipeline, operation: &OperationState) -> (Duration, Duration) {
        let (steps, at) = match operation.position {
            Position::Forward(step) => (pipeline.steps(), step),
            Position::Undo(step, _) => (pipeline.undo(), step),
        };
        let away = steps.get(at).map_or(self.timeout.backend, |step| self.timeout.of(step));
        (away, self.timeout.denied)
    }

    /// The names of all steps, of undo steps too.
    pub fn step_names(&self) -> BTreeSet<&'static str> {
        self.pipelines.iter().flat_map(|it| it.steps().iter().chain(it.undo())).copied().collect()
    }

    /// The pipeline that runs `slot`; `None` when this process does not know its version.
    pub fn of(&self, operation: &OperationState) -> Option<&dyn Pipeline> {
        let kind = operation.input.kind();
        self.pipelines.iter().map(AsRef::as_ref).find(|pipeline| {
            let version = pipeline.version() == operation.pipeline || crate::bug!(UnknownVersionRun);
            pipeline.kind() == kind && version
        })
    }

    /// The newest version of a pipeline.
    pub fn newest(&self, kind: OperationKind) -> Option<&dyn Pipeline> {
        let of_kind = self.pipelines.iter().filter(|pipeline| pipeline.kind() == kind);
        of_kind.max_by_key(|pipeline| pipeline.version()).map(AsRef::as_ref)
    }

    /// An operation that was just asked for.
    pub fn queued(
        &self,
        number: u64,
        input: OperationInput,
        requested_by: &Actor,
        now: Timestamp,
    ) -> OperationState {
        let pipeline = self.newest(input.kind());
        let steps = pipeline.map_or(&[][..], |pipeline| pipeline.steps());
        OperationState {
            number,
            pipeline: pipeline.map_or(1, |pipeline| pipeline.version()),
            input,
            epoch: 0,
            owner: None,
            status: Status::Queued,
            position: Position::Forward(0),
            attempts: 0,
            job: 1,
            next_poll_at: None,
            waiting_since: None,
            trouble_since: None,
            reason: None,
            cancel: false,
            locked_color: None,
            member: None,
            steps: steps.iter().map(|name| Step::pending(name)).collect(),
            requested_by: requested_by.clone(),
            retry_of: None,
            created_at: now,
            started_at: None,
        }
    }
}
