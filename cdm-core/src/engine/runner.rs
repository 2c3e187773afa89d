//! The loop that runs an operation: it stores an intent, makes the attempt, and stores the result.

use std::sync::Mutex;
use std::time::Duration;

use super::pipeline::{Change, Pipeline, Registry, StepContext, StepError, StepOutput};
use super::plan::{self, Next, WaitLimits};
use super::{
    Backoff, Lease, Lost, Pauses, Record, RetryBudget, Settings, Unwritten, is_transient, retry_write,
};
use crate::domain::lifecycle::Illegal;
use crate::domain::operation::{IllegalEvent, OperationState, Position, Status};
use crate::domain::{Color, LockMode, MonotonicTime, OperationId, TerminalStatus, Timestamp};
use crate::ports::{ErrorKind, FeedEvent, Mutation, PortError, Ports, StoreError, WriteBatch, WriteError};

/// The outcome of a run of an operation or a rollout by a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunOutcome {
    /// It has ended, or needs a user.
    Settled,
    /// It waits until this time, or until it is woken.
    Waiting(Option<Timestamp>),
    /// It waits for the stored reason, and this worker polls it again.
    PollAgain(NextPoll),
    /// It was released for another worker.
    HandedOver,
    /// Another worker owns it, or this worker has lost its lease.
    Lost,
    /// This process does not support the version of its pipeline.
    Unknown,
    /// A transition was not possible, which is a bug. Nothing was stored.
    Illegal(String),
}

/// The next poll of a waiting operation or rollout. The worker keeps it in memory; the record contains the reason and
/// the end of the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextPoll {
    /// The time of the poll.
    pub at: MonotonicTime,
    /// The number of consecutive failures of a backend; 0 if the wait has another reason.
    pub tries: u32,
    /// Whether a change in the cluster triggers an earlier poll.
    pub on_change: bool,
}

/// The reason why a run ends although the operation neither has ended nor waits.
enum RunError {
    Lost,
    Illegal(String),
}

impl From<Lost> for RunError {
    fn from(_: Lost) -> Self {
        Self::Lost
    }
}

impl From<IllegalEvent> for RunError {
    fn from(illegal: IllegalEvent) -> Self {
        Self::Illegal(illegal.to_string())
    }
}

impl From<Illegal> for RunError {
    fn from(illegal: Illegal) -> Self {
        Self::Illegal(illegal.to_string())
    }
}

impl From<RunError> for RunOutcome {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Lost => Self::Lost,
            RunError::Illegal(illegal) => Self::Illegal(illegal),
        }
    }
}

/// Runs one operation. The futures of many runners can run concurrently.
pub struct Runner<'a> {
    /// The backends that the steps call.
    pub ports: &'a Ports,
    /// The pipelines that this process can run.
    pub registry: &'a Registry,
    /// The lease of the worker.
    pub lease: &'a Lease,
    /// Leases, timeouts and retry limits, which all runners of a process share.
    pub settings: &'a Settings,
    /// The retry budget, which all runners of a process share.
    pub budget: &'a Mutex<RetryBudget>,
    /// Returns whether the process stops. Called at each step boundary, and while the store does not accept a result.
    pub stopping: &'a (dyn Fn() -> bool + Sync),
}

/// The result of a commit.
enum Committed {
    /// The batch was stored; this is the record as it was written.
    Written(Record),
    /// Nothing was written: the stored record already contains the reason of the wait.
    Unchanged,
    /// The operation has ended.
    Ended,
}

/// The changes of one commit.
struct Edit {
    operation: OperationState,
    changes: Vec<Change>,
    end: Option<TerminalStatus>,
}

impl std::fmt::Debug for Runner<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").field("lease", self.lease).finish_non_exhaustive()
    }
}

impl Runner<'_> {
    /// Claims the operation in `record` and runs it until it ends, is parked, waits or is lost. `tries` is the last
    /// [`NextPoll::tries`] of the operation.
    pub async fn run(&self, record: Record, tries: u32) -> RunOutcome {
        let Some(operation) = record.operation() else { return RunOutcome::Lost };
        let Some(pipeline) = self.registry.of(operation) else { return RunOutcome::Unknown };
        let mine = operation.owner.as_ref() == Some(self.lease.worker());
        let outcome = if mine && operation.status == Status::Waiting {
            self.continue_run(record, pipeline, tries).await
        } else {
            self.claim(record, pipeline).await
        };
        outcome.unwrap_or_else(RunOutcome::from)
    }

    async fn claim(&self, record: Record, pipeline: &Pipeline) -> Result<RunOutcome, RunError> {
        let Some(mut operation) = record.operation().cloned() else { return Ok(RunOutcome::Lost) };
        plan::claim(&mut operation, self.lease.worker(), self.now())?;
        match self.commit(&record, Edit { operation, changes: Vec::new(), end: None }).await? {
            Committed::Written(record) => self.continue_run(record, pipeline, 0).await,
            Committed::Unchanged | Committed::Ended => Ok(RunOutcome::Settled),
        }
    }

    /// Releases a waiting operation of this worker. Does nothing if another worker owns the operation now.
    pub async fn hand_over(&self, record: Record) -> RunOutcome {
        let Some(operation) = record.operation() else { return RunOutcome::Lost };
        if operation.owner.as_ref() != Some(self.lease.worker()) || self.registry.of(operation).is_none() {
            return RunOutcome::Lost;
        }
        let mut operation = operation.clone();
        let result = match plan::hand_over(&mut operation) {
            Ok(()) => self.commit(&record, Edit { operation, changes: Vec::new(), end: None }).await,
            Err(illegal) => Err(illegal.into()),
        };
        result.map_or_else(RunOutcome::from, |_| RunOutcome::HandedOver)
    }

    fn now(&self) -> Timestamp {
        self.ports.clock.wall()
    }

    async fn continue_run(
        &self,
        mut record: Record,
        pipeline: &Pipeline,
        mut tries: u32,
    ) -> Result<RunOutcome, RunError> {
        // The worker has decided that the wait is over, also before the stored time of the next poll.
        let mut resumed = true;
        loop {
            let Some(operation) = record.operation() else { return Ok(RunOutcome::Settled) };
            let mut operation = operation.clone();
            let now = self.now();
            let mut changes = Vec::new();
            let mut next_poll = None;
            if std::mem::take(&mut resumed) && operation.status == Status::Waiting {
                operation.next_poll_at = None;
            }
            match plan::next(&operation, pipeline, self.settings.attempts, now) {
                Next::Ignore => return Ok(RunOutcome::Settled),
                Next::Sleep => return Ok(RunOutcome::Waiting(operation.next_poll_at)),
                Next::Finish(_) => {}
                Next::BeginUndo => plan::begin_undo(&mut operation, TerminalStatus::Cancelled, now)?,
                Next::GiveUp => {
                    let made = operation.attempts.saturating_sub(1);
                    plan::give_up(&mut operation, made, now)?;
                }
                Next::Attempt if (self.stopping)() => plan::hand_over(&mut operation)?,
                Next::Attempt => {
                    let waited = operation.status == Status::Waiting;
                    if waited {
                        plan::wake(&mut operation)?;
                    }
                    let wanted = pipeline.lock(&operation).map(|(wanted, _)| wanted);
                    let held = wanted.is_none() || operation.locked_color == wanted;
                    // A step that has waited reads before it takes its lock again, since most waits continue.
                    let mut result = if held || waited {
                        self.attempt(&record, &operation, pipeline, now, held).await
                    } else {
                        Err(StepError::NeedsLock)
                    };
                    if crate::bug!(JournalAfterEffect) && result.is_ok() {
                        // The effect of the next step, whose intent was not stored.
                        let mut ahead = operation.clone();
                        plan::complete_step(&mut ahead, pipeline, &StepOutput::default(), now)?;
                        if ahead.forward().is_some_and(|step| step < pipeline.steps.len()) {
                            let _ = self.attempt(&record, &ahead, pipeline, now, true).await;
                        }
                    }
                    match result {
                        Err(StepError::Lost) => return Ok(RunOutcome::Lost),
                        // The commit below takes the lock, or makes the operation wait for it.
                        Err(StepError::NeedsLock) => {}
                        _ => {
                            next_poll = self.record_attempt(
                                &mut operation,
                                pipeline,
                                &mut result,
                                &mut changes,
                                tries,
                            )?;
                            tries = next_poll.map_or(0, |next_poll| next_poll.tries);
                        }
                    }
                }
            }
            let next_poll = next_poll.filter(|_| operation.status == Status::Waiting);
            if let Some(next_poll) = next_poll
                && self.is_unchanged(&record, &operation, &changes)
            {
                return Ok(RunOutcome::PollAgain(next_poll));
            }
            let end = match plan::next(&operation, pipeline, self.settings.attempts, now) {
                Next::Finish(end) => Some(end),
                _ => None,
            };
            let handed_over = operation.status == Status::Queued;
            match self.commit(&record, Edit { operation, changes, end }).await? {
                Committed::Written(_) if handed_over => return Ok(RunOutcome::HandedOver),
                Committed::Written(written) => record = written,
                Committed::Unchanged => return Ok(RunOutcome::PollAgain(self.poll_interval())),
                Committed::Ended => return Ok(RunOutcome::Settled),
            }
            // After the last attempt the operation is parked at once, and a requested cancel takes effect at once.
            let waits = record.operation().is_some_and(|operation| {
                plan::next(operation, pipeline, self.settings.attempts, self.now()) == Next::Sleep
            });
            if let Some(next_poll) = next_poll
                && waits
            {
                return Ok(RunOutcome::PollAgain(next_poll));
            }
        }
    }

    /// Returns whether the stored record already describes the wait, except for the time of the next poll. Then nothing
    /// is written, however long the wait lasts.
    fn is_unchanged(&self, stored: &Record, operation: &OperationState, changes: &[Change]) -> bool {
        if crate::bug!(WaitAlwaysStored) {
            return false;
        }
        let next_poll_at = stored.operation().and_then(|operation| operation.next_poll_at);
        let mut next = stored.clone();
        for change in changes {
            next.apply(change, self.now());
        }
        next.set_operation(Some(OperationState { next_poll_at, ..operation.clone() }));
        next == *stored && operation.status == Status::Waiting
    }

    async fn attempt(
        &self,
        record: &Record,
        operation: &OperationState,
        pipeline: &Pipeline,
        now: Timestamp,
        changes: bool,
    ) -> Result<StepOutput, StepError> {
        let (ports, settings, lease) = (self.ports, self.registry.settings(), self.lease);
        let context = StepContext { ports, settings, record, operation, now, lease, changes };
        pipeline.attempt(&context).await
    }

    /// Records the result of an attempt in the state of the operation, and the other changes in `changes`. Returns the
    /// next poll, if the step waits.
    fn record_attempt(
        &self,
        operation: &mut OperationState,
        pipeline: &Pipeline,
        result: &mut Result<StepOutput, StepError>,
        changes: &mut Vec<Change>,
        tries: u32,
    ) -> Result<Option<NextPoll>, IllegalEvent> {
        let now = self.now();
        *changes = match result {
            Ok(output) => std::mem::take(&mut output.changes),
            Err(
                StepError::PersistAndRetry(changes)
                | StepError::Wait { changes, .. }
                | StepError::Fail(_, _, changes),
            ) => std::mem::take(changes),
            Err(StepError::Retry(_) | StepError::Park(..) | StepError::NeedsLock | StepError::Lost) => {
                Vec::new()
            }
        };
        for change in changes.iter() {
            plan::apply_change(operation, change);
        }
        let error = match result {
            Ok(output) => {
                self.with_budget(|budget| budget.succeeded("step"));
                plan::complete_step(operation, pipeline, output, now)?;
                return Ok(None);
            }
            Err(error) => error,
        };
        let (pause, tries, on_change) = match error {
            StepError::Retry(error) => {
                let requested = match error.kind {
                    ErrorKind::Throttled(requested) => requested,
                    _ => None,
                };
                let tries = tries + 1;
                let (attempt, jitter) = (operation.attempts.max(tries) + 1, self.ports.entropy.jitter());
                let pause = self.with_budget(|budget| {
                    budget.pause(error.port, attempt, requested, jitter, self.settings)
                });
                (pause, tries, false)
            }
            StepError::Wait { again, .. } => (*again, 0, true),
            StepError::PersistAndRetry(_)
            | StepError::Park(..)
            | StepError::Fail(..)
            | StepError::NeedsLock
            | StepError::Lost => (Duration::ZERO, 0, false),
        };
        let (unavailable, denied) = self.registry.timeouts(pipeline, operation);
        plan::record_error(operation, error, &WaitLimits { pause, unavailable, denied }, now)?;
        // The next poll is not later than the timeout.
        let pause = operation.next_poll_at.map_or(pause, |next_poll_at| next_poll_at.since(now));
        let at = self.ports.clock.monotonic().after(pause);
        Ok((operation.status == Status::Waiting).then_some(NextPoll { at, tries, on_change }))
    }

    fn with_budget<T>(&self, act: impl FnOnce(&mut RetryBudget) -> T) -> T {
        act(&mut self.budget.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Stores an edit of the record `read`, and returns the stored record.
    ///
    /// If the record has changed meanwhile, it is read again. If this worker still owns the operation, the same edit is
    /// applied to the new version, which keeps concurrent changes: a requested cancel, a verdict, a lock.
    async fn commit(&self, read: &Record, edit: Edit) -> Result<Committed, RunError> {
        let held = read.operation().map(OperationState::fence).ok_or(Lost)?;
        let owner = read.operation().and_then(|operation| operation.owner.clone());
        let mut again: Option<Record> = None;
        let mut backoff = Backoff::of(self.settings);
        loop {
            let before = again.as_ref().unwrap_or(read);
            let mut batch = self.batch(before, &edit).await?;
            if let [Mutation::Site(_) | Mutation::Service(_) | Mutation::Fleet(_)] = &batch.writes[..]
                && let Some(after) = batch.writes.first().cloned().and_then(Record::written)
                && edit.end.is_none()
                && after
                    .operation()
                    .is_some_and(|operation| self.is_unchanged(before, operation, &edit.changes))
            {
                return Ok(Committed::Unchanged);
            }
            let pauses =
                Pauses { clock: &*self.ports.clock, backoff, stopping: Some(self.stopping), tries: None };
            let call = || self.lease.call(self.ports, edit.operation.fence());
            let written = retry_write(pauses, call, is_transient, |call| {
                let (store, batch) = (&self.ports.store, &batch);
                async move { store.write(&call, batch).await }
            })
            .await?;
            match written {
                Ok(()) if edit.end.is_some() => return Ok(Committed::Ended),
                Ok(()) => {
                    let written = Record::written(batch.writes.swap_remove(0));
                    return Ok(written.map_or(Committed::Ended, Committed::Written));
                }
                Err(Unwritten { error: WriteError::Store(_), .. }) => return Err(RunError::Lost),
                Err(_) => {}
            }
            let fresh = self.read_again(read, &mut backoff).await?;
            if crate::bug!(ConflictOverwritten) {
                let mut overwritten = read.clone();
                overwritten.set_version(fresh.version());
                again = Some(overwritten);
                continue;
            }
            let still_ours = fresh
                .operation()
                .is_some_and(|operation| operation.fence() == held && operation.owner == owner);
            if !still_ours {
                return Err(RunError::Lost);
            }
            again = Some(fresh);
        }
    }

    async fn read_again(&self, record: &Record, backoff: &mut Backoff) -> Result<Record, Lost> {
        loop {
            match Record::read(self.ports, &record.subject()).await {
                Ok(Some(record)) => return Ok(record),
                Ok(None) | Err(StoreError::Denied(_)) => return Err(Lost),
                Err(_) => {
                    self.sleep(backoff).await?;
                    self.lease.call(self.ports, crate::domain::Fence::default())?;
                }
            }
        }
    }

    /// Pauses before the next call to the store. A process that stops does not pause: the next owner finds out the state
    /// again.
    async fn sleep(&self, backoff: &mut Backoff) -> Result<(), Lost> {
        if (self.stopping)() {
            return Err(Lost);
        }
        backoff.wait(&*self.ports.clock).await;
        Ok(())
    }

    /// Returns the batch that applies the edit to `fresh`. Its first write is the edited record.
    async fn batch(&self, fresh: &Record, edit: &Edit) -> Result<WriteBatch, RunError> {
        let now = self.now();
        let mut next = fresh.clone();
        for change in &edit.changes {
            next.apply(change, now);
        }
        let mut operation = edit.operation.clone();
        operation.cancel |= fresh.operation().is_some_and(|operation| operation.cancel);
        let mut writes = Vec::new();
        let wanted = match edit.end {
            Some(_) => None,
            None => self.registry.of(&operation).and_then(|pipeline| pipeline.lock(&operation)),
        };
        if operation.locked_color != wanted.map(|(color, _)| color) {
            writes = self.change_lock(&mut next, &mut operation, wanted, edit.end.is_some()).await?;
        }
        let events = self.events(fresh, &operation, edit.end, now);
        next.set_operation(Some(operation));
        match edit.end {
            Some(end) => {
                writes.splice(0..0, next.finish(end, now)?);
            }
            None => writes.insert(0, next.write()),
        }
        Ok(WriteBatch { writes, events, ..WriteBatch::default() })
    }

    /// Releases the lock of the operation and acquires the wanted one, in the record of the operation or in the record
    /// of a service that is written with it. If the lock is not available, the operation waits.
    async fn change_lock(
        &self,
        record: &mut Record,
        operation: &mut OperationState,
        wanted: Option<(Color, LockMode)>,
        ends: bool,
    ) -> Result<Vec<Mutation>, RunError> {
        let now = self.now();
        let mut writes = Vec::new();
        let mut backoff = Backoff::of(self.settings);
        let held = operation.locked_color;
        for color in Color::ALL {
            let takes = wanted.filter(|(wanted, _)| *wanted == color);
            if held != Some(color) && takes.is_none() {
                continue;
            }
            let mut other = None;
            let service = match record {
                Record::Service(service) if service.color == color => &mut **service,
                Record::Site(_) | Record::Service(_) | Record::Fleet(_) => {
                    let read = loop {
                        match self.ports.store.service(color).await {
                            Ok(service) => break Some(service),
                            Err(StoreError::Denied(_)) => break None,
                            Err(_) => {
                                self.sleep(&mut backoff).await?;
                                self.lease.call(self.ports, operation.fence())?;
                            }
                        }
                    };
                    let Some(read) = read else {
                        // The lock stays and is released later, but not after the end of the operation.
                        if ends {
                            return Err(RunError::Lost);
                        }
                        if takes.is_some() {
                            let message = format!("the store denies access to the record of `{color}`");
                            let error = StepError::Retry(PortError::new("store", ErrorKind::Denied, message));
                            plan::record_error(operation, &error, &self.wait_limits(operation), now)?;
                        }
                        continue;
                    };
                    other.insert(read)
                }
            };
            match takes {
                None => service.lock.release(operation.number),
                Some((_, mode)) if service.lock.acquire(operation.number, mode) => {}
                Some(_) => {
                    let error = StepError::Wait {
                        code: crate::domain::ReasonCode::ServiceLocked,
                        message: format!("another operation holds the lock on `{color}`"),
                        timeout: Duration::from_secs(3_600),
                        again: self.settings.scan,
                        changes: Vec::new(),
                    };
                    plan::record_error(operation, &error, &self.wait_limits(operation), now)?;
                    continue;
                }
            }
            match takes {
                Some((color, _)) => operation.locked_color = Some(color),
                None => operation.locked_color = operation.locked_color.filter(|held| *held != color),
            }
            if let Some(service) = other {
                writes.push(Mutation::Service(Box::new(service)));
            }
        }
        Ok(writes)
    }

    fn poll_interval(&self) -> NextPoll {
        NextPoll { at: self.ports.clock.monotonic().after(self.settings.scan), tries: 0, on_change: true }
    }

    fn wait_limits(&self, operation: &OperationState) -> WaitLimits {
        let timeout = self.registry.of(operation).map(|pipeline| self.registry.timeouts(pipeline, operation));
        let (unavailable, denied) = timeout.unwrap_or_default();
        WaitLimits { pause: self.settings.longest_pause, unavailable, denied }
    }

    /// Returns the feed events of an edit: a change of the status, or of the step.
    fn events(
        &self,
        before: &Record,
        state: &OperationState,
        end: Option<TerminalStatus>,
        now: Timestamp,
    ) -> Vec<FeedEvent> {
        let Some(old) = before.operation() else { return Vec::new() };
        let status = end.map_or(state.status, Status::Ended);
        // Another poll of a waiting operation is not an event.
        let resumed = (old.status, status) == (Status::Waiting, Status::Running);
        let same = old.status == status || resumed;
        if same && old.position == state.position {
            return Vec::new();
        }
        let subject = before.subject();
        let id = OperationId::on(state.number, subject.clone());
        let event = |what: String| FeedEvent {
            at: now,
            subject: Some(subject.clone()),
            operation: Some(OperationId::clone(&id)),
            rollout: None,
            what,
        };
        let mut events = Vec::new();
        if let (Position::Forward(step), true) = (old.position, old.position != state.position)
            && let Some(step) = state.steps.get(step)
        {
            events.push(event(format!("step {} {}", step.name, step.status.as_str())));
        }
        if !same {
            events.push(event(status.as_str().to_owned()));
        }
        events
    }
}
