//! The only loop that does: it stores an intent, makes the attempt, stores what came of it.

use std::sync::Mutex;
use std::time::Duration;

use super::pipeline::{Change, Context, Done, Pipeline, Registry, Stop};
use super::plan::{self, Next, Waits};
use super::{Lease, Lost, Record, RetryBudget, Settings};
use crate::domain::lifecycle::Illegal;
use crate::domain::operation::{IllegalEvent, Position, Slot, Status};
use crate::domain::{End, HoldMode, OperationId, Selector, Tick, Timestamp};
use crate::ports::{Batch, ErrorKind, FeedEvent, Outcome, PortError, Ports, Refused, StoreError, Write};

/// How a worker left an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// It rests, or a person is needed.
    Resting,
    /// It waits until then.
    Waiting(Option<Timestamp>),
    /// It waits under the reason that is stored, and this worker looks again.
    Again(Later),
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
pub struct Later {
    /// When.
    pub at: Tick,
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

impl From<Broken> for Left {
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
    slot: Slot,
    changes: Vec<Change>,
    end: Option<End>,
}

impl std::fmt::Debug for Runner<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").field("lease", self.lease).finish_non_exhaustive()
    }
}

impl Runner<'_> {
    /// Takes the operation in `record` and runs it until it rests, waits or is lost. `tries` is how often in a row a
    /// backend has kept it from going on, as [`Later::tries`] had it.
    pub async fn run(&self, record: Record, tries: u32) -> Left {
        let Some(slot) = record.slot() else { return Left::Lost };
        let Some(pipeline) = self.registry.of(slot) else { return Left::Unknown };
        let mine = slot.owner.as_ref() == Some(self.lease.worker());
        let left = if mine && slot.status == Status::Waiting {
            self.go_on(record, pipeline, tries).await
        } else {
            self.claim(record, pipeline).await
        };
        left.unwrap_or_else(Left::from)
    }

    async fn claim(&self, record: Record, pipeline: &dyn Pipeline) -> Result<Left, Broken> {
        let Some(mut slot) = record.slot().cloned() else { return Ok(Left::Lost) };
        plan::claim(&mut slot, self.lease.worker(), self.now())?;
        match self.commit(&record, Edit { slot, changes: Vec::new(), end: None }).await? {
            Committed::Written(record) => self.go_on(record, pipeline, 0).await,
            Committed::Unchanged | Committed::Ended => Ok(Left::Resting),
        }
    }

    /// Gives back an operation of this worker's that waits. One that is another worker's by now is left to it.
    pub async fn hand_over(&self, record: Record) -> Left {
        let Some(slot) = record.slot() else { return Left::Lost };
        if slot.owner.as_ref() != Some(self.lease.worker()) || self.registry.of(slot).is_none() {
            return Left::Lost;
        }
        let mut slot = slot.clone();
        let given = match plan::hand_over(&mut slot) {
            Ok(()) => self.commit(&record, Edit { slot, changes: Vec::new(), end: None }).await,
            Err(illegal) => Err(illegal.into()),
        };
        given.map_or_else(Left::from, |_| Left::HandedOver)
    }

    fn now(&self) -> Timestamp {
        self.ports.clock.wall()
    }

    async fn go_on(
        &self,
        mut record: Record,
        pipeline: &dyn Pipeline,
        mut tries: u32,
    ) -> Result<Left, Broken> {
        // What was found waiting has been waited for, whatever its stored moment says.
        let mut woken = true;
        loop {
            let Some(slot) = record.slot() else { return Ok(Left::Resting) };
            let mut slot = slot.clone();
            let now = self.now();
            let mut changes = Vec::new();
            let mut later = None;
            if std::mem::take(&mut woken) && slot.status == Status::Waiting {
                slot.wake = None;
            }
            match plan::next(&slot, pipeline, self.settings.attempts, now) {
                Next::Leave => return Ok(Left::Resting),
                Next::Sleep => return Ok(Left::Waiting(slot.wake)),
                Next::Rest(_) => {}
                Next::Turn => plan::turn(&mut slot, End::Cancelled, now)?,
                Next::GiveUp => {
                    let made = slot.attempts.saturating_sub(1);
                    plan::give_up(&mut slot, made, now)?;
                }
                Next::Attempt if (self.stopping)() => plan::hand_over(&mut slot)?,
                Next::Attempt => {
                    let waited = slot.status == Status::Waiting;
                    if waited {
                        plan::wake(&mut slot)?;
                    }
                    let wanted = pipeline.hold(&slot).map(|(wanted, _)| wanted);
                    let held = wanted.is_none() || slot.holds == wanted;
                    // What has waited looks before it takes its hold again: most looks find that it goes on waiting.
                    let mut result = if held || waited {
                        self.attempt(&record, &slot, pipeline, now, held).await
                    } else {
                        Err(Stop::Hold)
                    };
                    if crate::bug!(JournalAfterEffect) && result.is_ok() {
                        // The next step's effect, whose intent nobody stored.
                        let mut ahead = slot.clone();
                        plan::done(&mut ahead, pipeline, &Done::default(), now)?;
                        if ahead.forward().is_some_and(|step| step < pipeline.steps().len()) {
                            let _ = self.attempt(&record, &ahead, pipeline, now, true).await;
                        }
                    }
                    match result {
                        Err(Stop::Lost) => return Ok(Left::Lost),
                        // The commit below takes the hold, or makes the operation wait for it.
                        Err(Stop::Hold) => {}
                        _ => {
                            later = self.absorb(&mut slot, pipeline, &mut result, &mut changes, tries)?;
                            tries = later.map_or(0, |later| later.tries);
                        }
                    }
                }
            }
            let later = later.filter(|_| slot.status == Status::Waiting);
            if let Some(later) = later
                && self.says_the_same(&record, &slot, &changes)
            {
                return Ok(Left::Again(later));
            }
            let end = match plan::next(&slot, pipeline, self.settings.attempts, now) {
                Next::Rest(end) => Some(end),
                _ => None,
            };
            let handed_over = slot.status == Status::Queued;
            match self.commit(&record, Edit { slot, changes, end }).await? {
                Committed::Written(_) if handed_over => return Ok(Left::HandedOver),
                Committed::Written(written) => record = written,
                Committed::Unchanged => return Ok(Left::Again(self.look_again())),
                Committed::Ended => return Ok(Left::Resting),
            }
            // An attempt too many is given up at once, and a request to cancel is seen to.
            let waits = record.slot().is_some_and(|slot| {
                plan::next(slot, pipeline, self.settings.attempts, self.now()) == Next::Sleep
            });
            if let Some(later) = later
                && waits
            {
                return Ok(Left::Again(later));
            }
        }
    }

    /// Whether what is stored says of the wait what there is to say, but for when it is looked at again. Nothing is
    /// written then, however long the wait lasts.
    fn says_the_same(&self, stored: &Record, slot: &Slot, changes: &[Change]) -> bool {
        if crate::bug!(WaitAlwaysStored) {
            return false;
        }
        let wake = stored.slot().and_then(|slot| slot.wake);
        let mut next = stored.clone();
        for change in changes {
            next.apply(change, self.now());
        }
        next.set_slot(Some(Slot { wake, ..slot.clone() }));
        next == *stored && slot.status == Status::Waiting
    }

    async fn attempt(
        &self,
        record: &Record,
        slot: &Slot,
        pipeline: &dyn Pipeline,
        now: Timestamp,
        changes: bool,
    ) -> Result<Done, Stop> {
        let context = Context { ports: self.ports, record, slot, now, lease: self.lease, changes };
        pipeline.attempt(&context, slot.position).await
    }

    /// Puts an attempt's result into the slot, and what it changes besides into `changes`. Answers when the step is
    /// looked at again, where it waits.
    fn absorb(
        &self,
        slot: &mut Slot,
        pipeline: &dyn Pipeline,
        result: &mut Result<Done, Stop>,
        changes: &mut Vec<Change>,
        tries: u32,
    ) -> Result<Option<Later>, IllegalEvent> {
        let now = self.now();
        *changes = match result {
            Ok(done) => std::mem::take(&mut done.changes),
            Err(Stop::Note(changes) | Stop::Wait { changes, .. } | Stop::Fail(_, _, changes)) => {
                std::mem::take(changes)
            }
            Err(Stop::Again(_) | Stop::Park(..) | Stop::Hold | Stop::Lost) => Vec::new(),
        };
        for change in changes.iter() {
            plan::note(slot, change);
        }
        let stop = match result {
            Ok(done) => {
                self.with_budget(|budget| budget.succeeded("step"));
                plan::done(slot, pipeline, done, now)?;
                return Ok(None);
            }
            Err(stop) => stop,
        };
        let (pause, tries, news) = match stop {
            Stop::Again(error) => {
                let asked = match error.kind {
                    ErrorKind::Throttled(asked) => asked,
                    _ => None,
                };
                let tries = tries + 1;
                let (attempt, jitter) = (slot.attempts.max(tries) + 1, self.ports.ids.jitter());
                let pause = self
                    .with_budget(|budget| budget.pause(error.port, attempt, asked, jitter, self.settings));
                (pause, tries, false)
            }
            Stop::Wait { again, .. } => (*again, 0, true),
            Stop::Note(_) | Stop::Park(..) | Stop::Fail(..) | Stop::Hold | Stop::Lost => {
                (Duration::ZERO, 0, false)
            }
        };
        let (away, denied) = self.registry.patience(pipeline, slot);
        plan::stopped(slot, stop, &Waits { pause, away, denied }, now)?;
        // Never later than the moment at which it is given up.
        let pause = slot.wake.map_or(pause, |wake| wake.since(now));
        let at = self.ports.clock.monotonic().after(pause);
        Ok((slot.status == Status::Waiting).then_some(Later { at, tries, news }))
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
        let held = read.slot().map(Slot::fence).ok_or(Lost)?;
        let owner = read.slot().and_then(|slot| slot.owner.clone());
        let mut again: Option<Record> = None;
        let mut pause = self.settings.pause;
        loop {
            let before = again.as_ref().unwrap_or(read);
            let mut batch = self.batch(before, &edit).await?;
            if let [Write::Site(_) | Write::Colour(_) | Write::Fleet(_)] = &batch.writes[..]
                && let Some(after) = batch.writes.first().cloned().and_then(Record::written)
                && edit.end.is_none()
                && after.slot().is_some_and(|slot| self.says_the_same(before, slot, &edit.changes))
            {
                return Ok(Committed::Unchanged);
            }
            let mut call = self.lease.call(self.ports, edit.slot.fence())?;
            loop {
                match self.ports.store.write(&call, &batch).await {
                    Outcome::Applied(()) if edit.end.is_some() => return Ok(Committed::Ended),
                    Outcome::Applied(()) => {
                        let written = Record::written(batch.writes.swap_remove(0));
                        return Ok(written.map_or(Committed::Ended, Committed::Written));
                    }
                    Outcome::NotApplied(Refused::Store(StoreError::Denied(_))) => return Err(Broken::Lost),
                    Outcome::NotApplied(Refused::Store(_)) | Outcome::Unknown(_) => {
                        // The same write under the same id: what was applied before is not applied again.
                        self.sleep(&mut pause).await?;
                        let write = call.write;
                        call = self.lease.call(self.ports, edit.slot.fence())?;
                        call.write = write;
                    }
                    Outcome::NotApplied(_) => break,
                }
            }
            let fresh = self.read_again(read, &mut pause).await?;
            if crate::bug!(ConflictOverwritten) {
                let mut overwritten = read.clone();
                overwritten.set_version(fresh.version());
                again = Some(overwritten);
                continue;
            }
            let still_ours = fresh.slot().is_some_and(|slot| slot.fence() == held && slot.owner == owner);
            if !still_ours {
                return Err(Broken::Lost);
            }
            again = Some(fresh);
        }
    }

    async fn read_again(&self, record: &Record, pause: &mut Duration) -> Result<Record, Lost> {
        loop {
            match Record::read(self.ports, &record.subject()).await {
                Ok(Some(record)) => return Ok(record),
                Ok(None) | Err(StoreError::Denied(_)) => return Err(Lost),
                Err(_) => {
                    self.sleep(pause).await?;
                    self.lease.call(self.ports, crate::domain::Fence::default())?;
                }
            }
        }
    }

    /// The pause before the store is asked again. A process that wants to end does not wait for it: what it could not
    /// store is found out again by the next owner.
    async fn sleep(&self, pause: &mut Duration) -> Result<(), Lost> {
        if (self.stopping)() {
            return Err(Lost);
        }
        self.ports.clock.sleep_until(self.ports.clock.monotonic().after(*pause)).await;
        *pause = (*pause * 2).min(self.settings.longest_pause);
        Ok(())
    }

    /// The batch that makes the edit to `fresh`; its first write is the record as it is afterwards.
    async fn batch(&self, fresh: &Record, edit: &Edit) -> Result<Batch, Broken> {
        let now = self.now();
        let mut next = fresh.clone();
        for change in &edit.changes {
            next.apply(change, now);
        }
        let mut slot = edit.slot.clone();
        slot.cancel |= fresh.slot().is_some_and(|slot| slot.cancel);
        let mut writes = Vec::new();
        let wanted = match edit.end {
            Some(_) => None,
            None => self.registry.of(&slot).and_then(|pipeline| pipeline.hold(&slot)),
        };
        if slot.holds != wanted.map(|(selector, _)| selector) {
            writes = self.change_hold(&mut next, &mut slot, wanted, edit.end.is_some()).await?;
        }
        let events = self.events(fresh, &slot, edit.end, now);
        next.set_slot(Some(slot));
        match edit.end {
            Some(end) => {
                writes.splice(0..0, next.rest(end, now)?);
            }
            None => writes.insert(0, next.write()),
        }
        Ok(Batch { writes, events, ..Batch::default() })
    }

    /// Lets go of the hold that the slot has and takes the wanted one, in the slot's own record or in a colour's that
    /// is written with it. A hold that is not to be had makes the operation wait.
    async fn change_hold(
        &self,
        record: &mut Record,
        slot: &mut Slot,
        wanted: Option<(Selector, HoldMode)>,
        ends: bool,
    ) -> Result<Vec<Write>, Broken> {
        let now = self.now();
        let mut writes = Vec::new();
        let mut pause = self.settings.pause;
        let held = slot.holds;
        for selector in Selector::ALL {
            let takes = wanted.filter(|(wanted, _)| *wanted == selector);
            if held != Some(selector) && takes.is_none() {
                continue;
            }
            let mut other = None;
            let colour = match record {
                Record::Colour(colour) if colour.selector == selector => &mut **colour,
                Record::Site(_) | Record::Colour(_) | Record::Fleet(_) => {
                    let read = loop {
                        match self.ports.store.colour(selector).await {
                            Ok(colour) => break Some(colour),
                            Err(StoreError::Denied(_)) => break None,
                            Err(_) => {
                                self.sleep(&mut pause).await?;
                                self.lease.call(self.ports, slot.fence())?;
                            }
                        }
                    };
                    let Some(read) = read else {
                        // What is held stays so, and is let go of later; but not left behind.
                        if ends {
                            return Err(Broken::Lost);
                        }
                        if takes.is_some() {
                            let message = format!("the record of `{selector}` is refused");
                            let stop = Stop::Again(PortError::new("store", ErrorKind::Denied, message));
                            plan::stopped(slot, &stop, &self.waits(slot), now)?;
                        }
                        continue;
                    };
                    other.insert(read)
                }
            };
            match takes {
                None => colour.hold.release(slot.number),
                Some((_, mode)) if colour.hold.take(slot.number, mode) => {}
                Some(_) => {
                    let stop = Stop::Wait {
                        code: crate::domain::Code::ColourHeld,
                        message: format!("`{selector}` is held by another operation"),
                        patience: Duration::from_secs(3_600),
                        again: self.settings.scan,
                        changes: Vec::new(),
                    };
                    plan::stopped(slot, &stop, &self.waits(slot), now)?;
                    continue;
                }
            }
            match takes {
                Some((selector, _)) => slot.holds = Some(selector),
                None => slot.holds = slot.holds.filter(|held| *held != selector),
            }
            if let Some(colour) = other {
                writes.push(Write::Colour(Box::new(colour)));
            }
        }
        Ok(writes)
    }

    fn look_again(&self) -> Later {
        Later { at: self.ports.clock.monotonic().after(self.settings.scan), tries: 0, news: true }
    }

    fn waits(&self, slot: &Slot) -> Waits {
        let patience = self.registry.of(slot).map(|pipeline| self.registry.patience(pipeline, slot));
        let (away, denied) = patience.unwrap_or_default();
        Waits { pause: self.settings.longest_pause, away, denied }
    }

    /// What the feed is told of an edit: a change of status, or of the step.
    fn events(&self, before: &Record, slot: &Slot, end: Option<End>, now: Timestamp) -> Vec<FeedEvent> {
        let Some(old) = before.slot() else { return Vec::new() };
        let status = end.map_or(slot.status, Status::Ended);
        // That it is looked at again is no news.
        let woken = (old.status, status) == (Status::Waiting, Status::Running);
        let same = old.status == status || woken;
        if same && old.position == slot.position {
            return Vec::new();
        }
        let subject = before.subject();
        let id = OperationId::on(slot.number, subject.clone());
        let event = |what: String| FeedEvent {
            at: now,
            subject: Some(subject.clone()),
            operation: Some(OperationId::clone(&id)),
            rollout: None,
            what,
        };
        let mut events = Vec::new();
        if let (Position::Forward(step), true) = (old.position, old.position != slot.position)
            && let Some(step) = slot.steps.get(step)
        {
            events.push(event(format!("step {} {}", step.name, step.status.as_str())));
        }
        if !same {
            events.push(event(status.as_str().to_owned()));
        }
        events
    }
}
