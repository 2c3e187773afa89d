//! The only loop that does: it stores an intent, makes the attempt, stores what came of it.

use std::sync::Mutex;
use std::time::Duration;

use super::pipeline::{Change, Pipeline, Registry, StepContext, StepError, StepOutput};
use super::plan::{self, Next, Waits};
use super::{
    Backoff, Lease, Lost, Pauses, Record, RetryBudget, Settings, Unwritten, is_transient, retry_write,
};
use crate::domain::lifecycle::Illegal;
use crate::domain::operation::{IllegalEvent, OperationState, Position, Status};
use crate::domain::{Color, LockMode, MonotonicTime, OperationId, TerminalStatus, Timestamp};
use crate::ports::{ErrorKind, FeedEvent, Mutation, PortError, Ports, StoreError, WriteBatch, WriteError};

/// How a worker left an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunOutcome {
    /// It rests, or a person is needed.
    Resting,
    /// It waits until then.
    Waiting(Option<Timestamp>),
    /// It waits under the reason that is stored, and this worker looks again.
    Again(NextPoll),
    /// It was given back.
    HandedOver,
    /// Another worker has it, or the lease is gone.
    Lost,
    /// This process does not know its pipeline's version.
    Unknown,
    /// A table of transitions does not have what was to follow. That is a bug; nothing was stored.
    Illegal(String),
}

/// When a worker looks again at what waits. It is kept in memory: the record says why it waits, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextPoll {
    /// When.
    pub at: MonotonicTime,
    /// How often in a row a backend has kept it from going on; 0 where it waits for something else.
    pub tries: u32,
    /// Whether news of the cluster ends the wait.
    pub news: bool,
}

/// Why a run ends before the operation rests or waits.
enum Broken {
    Lost,
    Illegal(String),
}

impl From<Lost> for Broken {
    fn from(_: Lost) -> Self {
        Self::Lost
    }
}

impl From<IllegalEvent> for Broken {
    fn from(illegal: IllegalEvent) -> Self {
        Self::Illegal(illegal.to_string())
    }
}

impl From<Illegal> for Broken {
    fn from(illegal: Illegal) -> Self {
        Self::Illegal(illegal.to_string())
    }
}

impl From<Broken> for RunOutcome {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Lost => Self::Lost,
            Broken::Illegal(illegal) => Self::Illegal(illegal),
        }
    }
}

/// Runs one operation at a time; many runners' futures may run side by side.
pub struct Runner<'a> {
    /// The world.
    pub ports: &'a Ports,
    /// What this process can run.
    pub registry: &'a Registry,
    /// Under which lease.
    pub lease: &'a Lease,
    /// The measures.
    pub settings: &'a Settings,
    /// The retry budget, shared by all runners of a process.
    pub budget: &'a Mutex<RetryBudget>,
    /// Whether the process wants to end; asked at each step boundary, and while the store does not take a result.
    pub stopping: &'a (dyn Fn() -> bool + Sync),
}

/// What a commit leaves.
enum Committed {
    /// This record.
    Written(Record),
    /// What was stored before: it says already why the operation waits.
    Unchanged,
    /// No operation any more.
    Ended,
}

/// What one commit changes.
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
    /// Takes the operation in `record` and runs it until it rests, waits or is lost. `tries` is how often in a row a
    /// backend has kept it from going on, as [`NextPoll::tries`] had it.
    pub async fn run(&self, record: Record, tries: u32) -> RunOutcome {
        let Some(operation) = record.operation() else { return RunOutcome::Lost };
        let Some(pipeline) = self.registry.of(operation) else { return RunOutcome::Unknown };
        let mine = operation.owner.as_ref() == Some(self.lease.worker());
        let left = if mine && operation.status == Status::Waiting {
            self.go_on(record, pipeline, tries).await
        } else {
            self.claim(record, pipeline).await
        };
        left.unwrap_or_else(RunOutcome::from)
    }

    async fn claim(&self, record: Record, pipeline: &Pipeline) -> Result<RunOutcome, Broken> {
        let Some(mut operation) = record.operation().cloned() else { return Ok(RunOutcome::Lost) };
        plan::claim(&mut operation, self.lease.worker(), self.now())?;
        match self.commit(&record, Edit { operation, changes: Vec::new(), end: None }).await? {
            Committed::Written(record) => self.go_on(record, pipeline, 0).await,
            Committed::Unchanged | Committed::Ended => Ok(RunOutcome::Resting),
        }
    }

    /// Gives back an operation of this worker's that waits. One that is another worker's by now is left to it.
    pub async fn hand_over(&self, record: Record) -> RunOutcome {
        let Some(operation) = record.operation() else { return RunOutcome::Lost };
        if operation.owner.as_ref() != Some(self.lease.worker()) || self.registry.of(operation).is_none() {
            return RunOutcome::Lost;
        }
        let mut operation = operation.clone();
        let given = match plan::hand_over(&mut operation) {
            Ok(()) => self.commit(&record, Edit { operation, changes: Vec::new(), end: None }).await,
            Err(illegal) => Err(illegal.into()),
        };
        given.map_or_else(RunOutcome::from, |_| RunOutcome::HandedOver)
    }

    fn now(&self) -> Timestamp {
        self.ports.clock.wall()
    }

    async fn go_on(
        &self,
        mut record: Record,
        pipeline: &Pipeline,
        mut tries: u32,
    ) -> Result<RunOutcome, Broken> {
        // What was found waiting has been waited for, whatever its stored moment says.
        let mut woken = true;
        loop {
            let Some(operation) = record.operation() else { return Ok(RunOutcome::Resting) };
            let mut operation = operation.clone();
            let now = self.now();
            let mut changes = Vec::new();
            let mut later = None;
            if std::mem::take(&mut woken) && operation.status == Status::Waiting {
                operation.next_poll_at = None;
            }
            match plan::next(&operation, pipeline, self.settings.attempts, now) {
                Next::Leave => return Ok(RunOutcome::Resting),
                Next::Sleep => return Ok(RunOutcome::Waiting(operation.next_poll_at)),
                Next::Rest(_) => {}
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
                    // What has waited looks before it takes its hold again: most looks find that it goes on waiting.
                    let mut result = if held || waited {
                        self.attempt(&record, &operation, pipeline, now, held).await
                    } else {
                        Err(StepError::NeedsLock)
                    };
                    if crate::bug!(JournalAfterEffect) && result.is_ok() {
                        // The next step's effect, whose intent nobody stored.
                        let mut ahead = operation.clone();
                        plan::done(&mut ahead, pipeline, &StepOutput::default(), now)?;
                        if ahead.forward().is_some_and(|step| step < pipeline.steps.len()) {
                            let _ = self.attempt(&record, &ahead, pipeline, now, true).await;
                        }
                    }
                    match result {
                        Err(StepError::Lost) => return Ok(RunOutcome::Lost),
                        // The commit below takes the hold, or makes the operation wait for it.
                        Err(StepError::NeedsLock) => {}
                        _ => {
                            later = self.record_attempt(
                                &mut operation,
                                pipeline,
                                &mut result,
                                &mut changes,
                                tries,
                            )?;
                            tries = later.map_or(0, |later| later.tries);
                        }
                    }
                }
            }
            let later = later.filter(|_| operation.status == Status::Waiting);
            if let Some(later) = later
                && self.says_the_same(&record, &operation, &changes)
            {
                return Ok(RunOutcome::Again(later));
            }
            let end = match plan::next(&operation, pipeline, self.settings.attempts, now) {
                Next::Rest(end) => Some(end),
                _ => None,
            };
            let handed_over = operation.status == Status::Queued;
            match self.commit(&record, Edit { operation, changes, end }).await? {
                Committed::Written(_) if handed_over => return Ok(RunOutcome::HandedOver),
                Committed::Written(written) => record = written,
                Committed::Unchanged => return Ok(RunOutcome::Again(self.poll_interval())),
                Committed::Ended => return Ok(RunOutcome::Resting),
            }
            // An attempt too many is given up at once, and a request to cancel is seen to.
            let waits = record.operation().is_some_and(|operation| {
                plan::next(operation, pipeline, self.settings.attempts, self.now()) == Next::Sleep
            });
            if let Some(later) = later
                && waits
            {
                return Ok(RunOutcome::Again(later));
            }
        }
    }

    /// Whether what is stored says of the wait what there is to say, but for when it is looked at again. Nothing is
    /// written then, however long the wait lasts.
    fn says_the_same(&self, stored: &Record, operation: &OperationState, changes: &[Change]) -> bool {
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

    /// Puts an attempt's result into the slot, and what it changes besides into `changes`. Answers when the step is
    /// looked at again, where it waits.
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
            Ok(done) => std::mem::take(&mut done.changes),
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
            plan::note(operation, change);
        }
        let stop = match result {
            Ok(done) => {
                self.with_budget(|budget| budget.succeeded("step"));
                plan::done(operation, pipeline, done, now)?;
                return Ok(None);
            }
            Err(stop) => stop,
        };
        let (pause, tries, news) = match stop {
            StepError::Retry(error) => {
                let asked = match error.kind {
                    ErrorKind::Throttled(asked) => asked,
                    _ => None,
                };
                let tries = tries + 1;
                let (attempt, jitter) = (operation.attempts.max(tries) + 1, self.ports.entropy.jitter());
                let pause = self
                    .with_budget(|budget| budget.pause(error.port, attempt, asked, jitter, self.settings));
                (pause, tries, false)
            }
            StepError::Wait { again, .. } => (*again, 0, true),
            StepError::PersistAndRetry(_)
            | StepError::Park(..)
            | StepError::Fail(..)
            | StepError::NeedsLock
            | StepError::Lost => (Duration::ZERO, 0, false),
        };
        let (away, denied) = self.registry.timeouts(pipeline, operation);
        plan::stopped(operation, stop, &Waits { pause, away, denied }, now)?;
        // Never later than the moment at which it is given up.
        let pause = operation.next_poll_at.map_or(pause, |next_poll_at| next_poll_at.since(now));
        let at = self.ports.clock.monotonic().after(pause);
        Ok((operation.status == Status::Waiting).then_some(NextPoll { at, tries, news }))
    }

    fn with_budget<T>(&self, act: impl FnOnce(&mut RetryBudget) -> T) -> T {
        act(&mut self.budget.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Stores an edit over `read`, and answers the record as it then is.
    ///
    /// A record that changed meanwhile is read again, and if the operation is still this worker's, the same edit is
    /// made to what is there now: what others may write beside a running operation (a request to cancel, a verdict, a
    /// hold) is kept.
    async fn commit(&self, read: &Record, edit: Edit) -> Result<Committed, Broken> {
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
                    .is_some_and(|operation| self.says_the_same(before, operation, &edit.changes))
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
                Err(Unwritten { error: WriteError::Store(_), .. }) => return Err(Broken::Lost),
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
                return Err(Broken::Lost);
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

    /// The pause before the store is asked again. A process that wants to end does not wait for it: what it could not
    /// store is found out again by the next owner.
    async fn sleep(&self, backoff: &mut Backoff) -> Result<(), Lost> {
        if (self.stopping)() {
            return Err(Lost);
        }
        backoff.wait(&*self.ports.clock).await;
        Ok(())
    }

    /// The batch that makes the edit to `fresh`; its first write is the record as it is afterwards.
    async fn batch(&self, fresh: &Record, edit: &Edit) -> Result<WriteBatch, Broken> {
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
                writes.splice(0..0, next.rest(end, now)?);
            }
            None => writes.insert(0, next.write()),
        }
        Ok(WriteBatch { writes, events, ..WriteBatch::default() })
    }

    /// Lets go of the hold that the slot has and takes the wanted one, in the slot's own record or in a colour's that
    /// is written with it. A hold that is not to be had makes the operation wait.
    async fn change_lock(
        &self,
        record: &mut Record,
        operation: &mut OperationState,
        wanted: Option<(Color, LockMode)>,
        ends: bool,
    ) -> Result<Vec<Mutation>, Broken> {
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
                        // What is held stays so, and is let go of later; but not left behind.
                        if ends {
                            return Err(Broken::Lost);
                        }
                        if takes.is_some() {
                            let message = format!("the record of `{color}` is refused");
                            let stop = StepError::Retry(PortError::new("store", ErrorKind::Denied, message));
                            plan::stopped(operation, &stop, &self.waits(operation), now)?;
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
                    let stop = StepError::Wait {
                        code: crate::domain::ReasonCode::ServiceLocked,
                        message: format!("`{color}` is held by another operation"),
                        timeout: Duration::from_secs(3_600),
                        again: self.settings.scan,
                        changes: Vec::new(),
                    };
                    plan::stopped(operation, &stop, &self.waits(operation), now)?;
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
        NextPoll { at: self.ports.clock.monotonic().after(self.settings.scan), tries: 0, news: true }
    }

    fn waits(&self, operation: &OperationState) -> Waits {
        let timeout = self.registry.of(operation).map(|pipeline| self.registry.timeouts(pipeline, operation));
        let (away, denied) = timeout.unwrap_or_default();
        Waits { pause: self.settings.longest_pause, away, denied }
    }

    /// What the feed is told of an edit: a change of status, or of the step.
    fn events(
        &self,
        before: &Record,
        state: &OperationState,
        end: Option<TerminalStatus>,
        now: Timestamp,
    ) -> Vec<FeedEvent> {
        let Some(old) = before.operation() else { return Vec::new() };
        let status = end.map_or(state.status, Status::Ended);
        // That it is looked at again is no news.
        let woken = (old.status, status) == (Status::Waiting, Status::Running);
        let same = old.status == status || woken;
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
