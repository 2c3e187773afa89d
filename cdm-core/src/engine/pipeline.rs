//! Pipelines as values: an operation of one kind is a table of steps, and each step has its own row.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::{Lease, Lost, PipelineSettings, Record};
use crate::domain::operation::{
    OperationInput, OperationState, Position, Previous, Status, Step as StepState,
};
use crate::domain::{
    Actor, Color, Epoch, LockMode, OperationKind, ReasonCode, ServiceChange, SiteChange, Timestamp,
};
use crate::ports::{CallContext, ErrorKind, Outcome, PortError, Ports, StoreError};

/// What an operation of one kind does: a named, versioned table of steps.
#[derive(Clone, Copy, Debug)]
pub struct Pipeline {
    /// The kind of operation that it runs.
    pub kind: OperationKind,
    /// Increases whenever the table changes, or data that a step relies on. An operation of an unknown version waits for
    /// a worker that supports it.
    pub version: u32,
    /// The steps, in order. Undo steps run in the order of the table, too.
    pub steps: &'static [Step],
}

/// One step of a pipeline.
///
/// A step starts only after its intent was stored, and may start again after a crash at any point. It reads first and
/// writes what is missing. One attempt makes its calls and returns; the engine waits and retries.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The name that users see.
    pub name: &'static str,
    /// Makes one attempt at the step.
    pub run: Run,
    /// Reverts the step when the operation fails or is canceled. `None`: the effect stays, and a later operation adopts
    /// or removes it.
    pub undo: Option<Undo>,
    /// The lock that the step holds while it runs.
    pub lock: Option<Lock>,
    /// Whether a request to cancel takes effect once the step has started.
    pub cancel: Cancel,
}

/// The reversal of a step.
#[derive(Clone, Copy, Debug)]
pub struct Undo {
    /// The name that users see.
    pub name: &'static str,
    /// Makes one attempt. It reads first, and succeeds where nothing needs to be reverted.
    pub run: Run,
    /// The lock that the reversal holds while it runs.
    pub lock: Option<Lock>,
}

/// Whether an operation can be canceled once a step has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// A request to cancel takes effect before the next attempt.
    Allowed,
    /// From this step on, the operation only goes forward.
    Refused,
}

/// A lock on a service.
///
/// A shared lock is held while the operation runs; an exclusive one also while it waits, except for the lock itself.
#[derive(Clone, Copy)]
pub struct Lock {
    mode: LockMode,
    color: fn(&OperationState) -> Option<Color>,
}

impl Lock {
    /// Creates a lock that other moves share: no deploy changes the service meanwhile.
    pub const fn shared(color: fn(&OperationState) -> Option<Color>) -> Self {
        Self { mode: LockMode::Shared, color }
    }

    /// Creates a lock that excludes moves and other deploys.
    pub const fn exclusive(color: fn(&OperationState) -> Option<Color>) -> Self {
        Self { mode: LockMode::Exclusive, color }
    }

    /// Returns the lock that the operation needs in its present status.
    fn needed(&self, operation: &OperationState) -> Option<(Color, LockMode)> {
        let code = operation.reason.as_ref().map(|reason| reason.code);
        let held = match (operation.status, self.mode) {
            (Status::Running, _) => true,
            (Status::Waiting, LockMode::Exclusive) => code != Some(ReasonCode::ServiceLocked),
            (Status::Waiting, LockMode::Shared) | (Status::Queued | Status::Parked | Status::Ended(_), _) => {
                false
            }
        };
        if held { (self.color)(operation).map(|color| (color, self.mode)) } else { None }
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lock({:?})", self.mode)
    }
}

/// The result of one attempt.
pub type StepResult = Result<StepOutput, StepError>;

/// A function that makes one attempt at a step.
///
/// ```
/// use cdm_core::engine::{Run, StepContext, StepOutput, StepResult};
///
/// async fn check(context: &StepContext<'_>) -> StepResult {
///     Ok(StepOutput::message(format!("checked at {}", context.now)))
/// }
///
/// const CHECK: Run = Run::new(|context| Box::pin(check(context)));
/// ```
#[derive(Clone, Copy)]
pub struct Run(for<'a> fn(&'a StepContext<'a>) -> Attempt<'a>);

/// One attempt in progress.
pub type Attempt<'a> = Pin<Box<dyn Future<Output = StepResult> + Send + 'a>>;

impl Run {
    /// Wraps an async function.
    pub const fn new(run: for<'a> fn(&'a StepContext<'a>) -> Attempt<'a>) -> Self {
        Self(run)
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Run")
    }
}

impl Pipeline {
    /// Returns the reversals, in the order in which they run.
    pub fn undo(&self) -> impl Iterator<Item = &'static Undo> {
        self.steps.iter().filter_map(|step| step.undo.as_ref())
    }

    /// Returns the names of the steps in the order in which they run.
    pub fn step_names(&self) -> impl Iterator<Item = &'static str> {
        self.steps.iter().map(|step| step.name)
    }

    /// Returns whether every step, or every reversal, has finished.
    pub fn is_finished(&self, position: Position) -> bool {
        match position {
            Position::Forward(index) => index >= self.steps.len(),
            Position::Undo(index, _) => index >= self.undo().count(),
        }
    }

    /// Returns whether a request to cancel takes effect at a step.
    pub fn is_cancelable(&self, index: usize) -> bool {
        self.steps.get(index).is_some_and(|step| step.cancel == Cancel::Allowed)
    }

    /// Returns the lock that the operation needs at its position and in its status.
    pub fn lock(&self, operation: &OperationState) -> Option<(Color, LockMode)> {
        let lock = match operation.position {
            Position::Forward(index) => self.steps.get(index).and_then(|step| step.lock.as_ref()),
            Position::Undo(index, _) => self.undo().nth(index).and_then(|undo| undo.lock.as_ref()),
        };
        lock.and_then(|lock| lock.needed(operation))
    }

    /// Returns the name of the step, or of the reversal, at a position.
    pub fn name_at(&self, position: Position) -> Option<&'static str> {
        match position {
            Position::Forward(index) => self.steps.get(index).map(|step| step.name),
            Position::Undo(index, _) => self.undo().nth(index).map(|undo| undo.name),
        }
    }

    /// Makes one attempt at the operation's present step. A position past the end succeeds.
    ///
    /// # Errors
    /// The reason why the step has not finished; see [`StepError`].
    pub async fn attempt(&self, context: &StepContext<'_>) -> StepResult {
        let run = match context.operation.position {
            Position::Forward(index) => self.steps.get(index).map(|step| step.run),
            Position::Undo(index, _) => self.undo().nth(index).map(|undo| undo.run),
        };
        match run {
            Some(run) => (run.0)(context).await,
            None => Ok(StepOutput::default()),
        }
    }
}

/// The output of a finished step.
#[derive(Clone, Debug, Default)]
pub struct StepOutput {
    /// Changes that are stored together with the result.
    pub changes: Vec<Change>,
    /// A message for the user.
    pub message: Option<String>,
}

impl StepOutput {
    /// Creates an output with changes.
    pub const fn with(changes: Vec<Change>) -> Self {
        Self { changes, message: None }
    }

    /// Creates an output with a message for the user.
    pub fn message(message: impl Into<String>) -> Self {
        Self { changes: Vec::new(), message: Some(message.into()) }
    }
}

/// A change that is stored together with the result of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A change of the site.
    Site(SiteChange),
    /// A change of the service.
    Service(ServiceChange),
    /// The job of the step failed; the next attempt starts another one.
    NextJob,
    /// The name of the step's job, and its output once it is known.
    Job(String, Option<String>),
    /// The state that a deploy replaces.
    Previous(Previous),
    /// The number of the rollout that runs the hooks of a deploy.
    Rollout(u64),
}

/// The reason why a step has not finished.
#[derive(Clone, Debug)]
pub enum StepError {
    /// Changes must be stored before the step goes on. It is attempted again at once.
    PersistAndRetry(Vec<Change>),
    /// The step waits for an external condition.
    Wait {
        /// The reason that users see.
        code: ReasonCode,
        /// The particulars, for users.
        message: String,
        /// The total duration after which the operation is parked.
        timeout: Duration,
        /// The interval of attempts while no change is reported.
        again: Duration,
        /// Changes that are stored together with the reason.
        changes: Vec<Change>,
    },
    /// The attempt failed, or its outcome is unknown. While a backend is unavailable, throttles or denies, the attempt
    /// is not counted.
    Retry(PortError),
    /// The operation needs a person.
    Park(ReasonCode, String),
    /// The step cannot succeed; the operation is undone.
    Fail(ReasonCode, String, Vec<Change>),
    /// The attempt was made without its lock, and has reached the first write.
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
            // A backend refuses for a while what was just granted, or what it has yet to load after a start:
            // https://github.com/kubernetes/kubernetes/issues/121635.
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

/// The inputs of one attempt.
#[derive(Debug)]
pub struct StepContext<'a> {
    /// The backends that the step calls.
    pub ports: &'a Ports,
    /// The same settings for every pipeline of the process.
    pub settings: &'a PipelineSettings,
    /// The record that contains the operation.
    pub record: &'a Record,
    /// The operation whose step is attempted.
    pub operation: &'a OperationState,
    /// The time of the attempt.
    pub now: Timestamp,
    pub(crate) lease: &'a Lease,
    /// Whether the attempt may write; otherwise it only reads.
    pub(crate) changes: bool,
}

impl StepContext<'_> {
    /// Returns the context of one call that writes.
    ///
    /// # Errors
    /// [`StepError::Lost`] when the lease ends before the call would; [`StepError::NeedsLock`] when the attempt may only
    /// read.
    pub fn call(&self) -> Result<CallContext, StepError> {
        if !self.changes {
            return Err(StepError::NeedsLock);
        }
        Ok(self.lease.call(self.ports, self.operation.fence())?)
    }

    /// Verifies in the store that this worker still owns the operation.
    ///
    /// A value that was read before this check, and that a later write expects, is older than any takeover: the fence of
    /// a successor can never be read and then overwritten.
    ///
    /// # Errors
    /// [`StepError::Lost`] when another worker owns it; an error of the store.
    pub async fn still_owner(&self) -> Result<(), StepError> {
        let record = Record::read(self.ports, &self.record.subject()).await?;
        let stored = record.as_ref().and_then(Record::operation);
        let ours = stored.is_some_and(|stored| {
            stored.fence() == self.operation.fence() && stored.owner == self.operation.owner
        });
        if ours || crate::bug!(RouteFenceIgnored) { Ok(()) } else { Err(StepError::Lost) }
    }
}

impl<T> Outcome<T, PortError> {
    /// Returns the value of an applied call.
    ///
    /// # Errors
    /// The error of a call that was not applied. After an unknown outcome [`StepError::Retry`]: the next attempt reads
    /// what was applied.
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

    /// Like [`Outcome::applied`], where an error of `kind` means that an earlier call was applied.
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

/// The pipelines of a process, with their settings.
#[derive(Debug)]
pub struct Registry {
    pipelines: Vec<Pipeline>,
    settings: PipelineSettings,
}

impl Registry {
    /// Creates a registry of these pipelines, which run with these settings.
    pub const fn new(pipelines: Vec<Pipeline>, settings: PipelineSettings) -> Self {
        Self { pipelines, settings }
    }

    /// Returns the settings that each step receives in its context.
    pub const fn settings(&self) -> &PipelineSettings {
        &self.settings
    }

    /// Returns how long the present step of `operation` waits for a backend that is unavailable, and for one that
    /// denies.
    pub fn timeouts(&self, pipeline: &Pipeline, operation: &OperationState) -> (Duration, Duration) {
        let timeouts = &self.settings.timeouts;
        let name = pipeline.name_at(operation.position);
        (name.map_or(timeouts.backend, |step| timeouts.of(step)), timeouts.denied)
    }

    /// Returns the names of all steps and reversals.
    pub fn step_names(&self) -> BTreeSet<&'static str> {
        let all = self.pipelines.iter();
        all.flat_map(|pipeline| pipeline.step_names().chain(pipeline.undo().map(|undo| undo.name))).collect()
    }

    /// Returns the pipeline that runs `operation`; `None` when this process does not support its version.
    pub fn of(&self, operation: &OperationState) -> Option<&Pipeline> {
        let kind = operation.input.kind();
        self.pipelines.iter().find(|pipeline| {
            let version = pipeline.version == operation.pipeline || crate::bug!(UnknownVersionRun);
            pipeline.kind == kind && version
        })
    }

    /// Returns the newest version of a pipeline.
    pub fn newest(&self, kind: OperationKind) -> Option<&Pipeline> {
        let of_kind = self.pipelines.iter().filter(|pipeline| pipeline.kind == kind);
        of_kind.max_by_key(|pipeline| pipeline.version)
    }

    /// Creates the state of an operation that was just requested.
    pub fn queued(
        &self,
        number: u64,
        input: OperationInput,
        requested_by: &Actor,
        now: Timestamp,
    ) -> OperationState {
        let pipeline = self.newest(input.kind());
        OperationState {
            number,
            pipeline: pipeline.map_or(1, |pipeline| pipeline.version),
            steps: pipeline
                .map_or_else(Vec::new, |known| known.step_names().map(StepState::pending).collect()),
            input,
            epoch: Epoch::ZERO,
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
            requested_by: requested_by.clone(),
            retry_of: None,
            created_at: now,
            started_at: None,
        }
    }
}
