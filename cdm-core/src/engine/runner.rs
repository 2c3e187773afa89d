//! The only loop that does: it stores an intent, makes the attempt, stores what came of it.

use std::sync::Mutex;
use std::time::Duration;

use super::pipeline::{Change, Context, Done, Pipeline, Registry, Stop};
use super::plan::{self, Next};
use super::{Lease, Lost, Record, RetryBudget, Settings};
use crate::domain::operation::{Event, Position, Slot, Status};
use crate::domain::{End, HoldMode, OperationId, Selector, Timestamp};
use crate::ports::{Batch, ErrorKind, FeedEvent, Outcome, Ports, Refused, StoreError, Write};

/// How a worker left an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It rests, or a person is needed.
    Resting,
    /// It waits until then.
    Waiting(Option<Timestamp>),
    /// It was given back.
    HandedOver,
    /// Another worker has it, or the lease is gone.
    Lost,
    /// This process does not know its pipeline's version.
    Unknown,
}

/// Runs one operation at a time; many runners' futures may run side by side.
#[derive(Debug)]
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
}

/// What one commit changes.
struct Edit {
    slot: Slot,
    changes: Vec<Change>,
    end: Option<End>,
}

impl Runner<'_> {
    /// Takes the operation in `record` and runs it until it rests, waits or is lost. `stopping` is asked at each step
    /// boundary whether the process wants to end.
    pub async fn run(&self, record: Record, stopping: &(dyn Fn() -> bool + Sync)) -> Left {
        let Some(slot) = record.slot() else { return Left::Lost };
        let Some(pipeline) = self.registry.of(slot) else { return Left::Unknown };
        let mut claimed = slot.clone();
        if claimed.owner.as_ref() == Some(self.lease.worker()) && claimed.status == Status::Waiting {
            claimed.status = claimed.status.next(Event::Wake).unwrap_or(claimed.status);
            claimed.wake = None;
            let mut record = record;
            record.set_slot(Some(claimed));
            return self.go_on(record, pipeline, stopping).await.unwrap_or(Left::Lost);
        }
        plan::claim(&mut claimed, self.lease.worker(), self.now());
        let edit = Edit { slot: claimed, changes: Vec::new(), end: None };
        match self.commit(&record, edit).await {
            Ok(Some(record)) => self.go_on(record, pipeline, stopping).await.unwrap_or(Left::Lost),
            Ok(None) => Left::Resting,
            Err(Lost) => Left::Lost,
        }
    }

    /// Gives back an operation of this worker's that waits.
    ///
    /// # Errors
    /// [`Lost`] when it is not this worker's any more.
    pub async fn hand_over(&self, record: Record) -> Result<(), Lost> {
        let Some(slot) = record.slot() else { return Err(Lost) };
        if slot.owner.as_ref() != Some(self.lease.worker()) || self.registry.of(slot).is_none() {
            return Err(Lost);
        }
        let mut slot = slot.clone();
        plan::hand_over(&mut slot);
        self.commit(&record, Edit { slot, changes: Vec::new(), end: None }).await.map(drop)
    }

    fn now(&self) -> Timestamp {
        self.ports.clock.wall()
    }

    async fn go_on(
        &self,
        mut record: Record,
        pipeline: &dyn Pipeline,
        stopping: &(dyn Fn() -> bool + Sync),
    ) -> Result<Left, Lost> {
        loop {
            let Some(slot) = record.slot() else { return Ok(Left::Resting) };
            let mut slot = slot.clone();
            let now = self.now();
            let mut changes = Vec::new();
            match plan::next(&slot, pipeline, self.settings.attempts, now) {
                Next::Leave => return Ok(Left::Resting),
                Next::Sleep => return Ok(Left::Waiting(slot.wake)),
                Next::Rest(_) => {}
                Next::Turn => plan::turn(&mut slot, End::Cancelled, now),
                Next::GiveUp => {
                    let message = format!("gave up after {} attempts", slot.attempts.saturating_sub(1));
                    plan::park(&mut slot, crate::domain::Code::AttemptsExhausted, message, now);
                }
                Next::Attempt
                    if pipeline.hold(&slot).is_some_and(|(selector, _)| slot.holds != Some(selector)) =>
                {
                    // Only the hold is missing; the commit below takes it, or makes the operation wait for it.
                }
                Next::Attempt if stopping() => plan::hand_over(&mut slot),
                Next::Attempt => {
                    // A wait that was over before it was even stored.
                    slot.status = slot.status.next(Event::Wake).unwrap_or(slot.status);
                    let mut result = self.attempt(&record, &slot, pipeline, now).await;
                    if crate::bug!(JournalAfterEffect) && result.is_ok() {
                        // The next step's effect, whose intent nobody stored.
                        let mut ahead = slot.clone();
                        plan::done(&mut ahead, pipeline, &Done::default(), now);
                        if ahead.forward().is_some_and(|step| step < pipeline.steps().len()) {
                            let _ = self.attempt(&record, &ahead, pipeline, now).await;
                        }
                    }
                    self.absorb(&mut slot, pipeline, &mut result, &mut changes);
                    if matches!(result, Err(Stop::Lost)) {
                        return Err(Lost);
                    }
                }
            }
            let end = match plan::next(&slot, pipeline, self.settings.attempts, now) {
                Next::Rest(end) => Some(end),
                _ => None,
            };
            let handed_over = slot.status == Status::Queued;
            match self.commit(&record, Edit { slot, changes, end }).await? {
                Some(_) if handed_over => return Ok(Left::HandedOver),
                Some(written) => record = written,
                None => return Ok(Left::Resting),
            }
        }
    }

    async fn attempt(
        &self,
        record: &Record,
        slot: &Slot,
        pipeline: &dyn Pipeline,
        now: Timestamp,
    ) -> Result<Done, Stop> {
        let context = Context { ports: self.ports, record, slot, now, lease: self.lease };
        pipeline.attempt(&context, slot.position).await
    }

    /// Puts an attempt's result into the slot, and what it changes besides into `changes`.
    fn absorb(
        &self,
        slot: &mut Slot,
        pipeline: &dyn Pipeline,
        result: &mut Result<Done, Stop>,
        changes: &mut Vec<Change>,
    ) {
        let now = self.now();
        *changes = match result {
            Ok(done) => std::mem::take(&mut done.changes),
            Err(Stop::Note(changes) | Stop::Wait { changes, .. } | Stop::Fail(_, _, changes)) => {
                std::mem::take(changes)
            }
            Err(Stop::Again(_) | Stop::Park(..) | Stop::Lost) => Vec::new(),
        };
        for change in changes.iter() {
            plan::note(slot, change);
        }
        match result {
            Ok(done) => {
                self.with_budget(|budget| budget.succeeded("step"));
                plan::done(slot, pipeline, done, now);
            }
            Err(stop) => {
                let pause = match stop {
                    Stop::Again(error) => {
                        let asked = match error.kind {
                            ErrorKind::Throttled(asked) => asked,
                            _ => None,
                        };
                        let (attempt, jitter) = (slot.attempts + 1, self.ports.ids.jitter());
                        self.with_budget(|budget| {
                            budget.pause(error.port, attempt, asked, jitter, self.settings)
                        })
                    }
                    _ => Duration::ZERO,
                };
                plan::stopped(slot, stop, pause, now);
            }
        }
    }

    fn with_budget<T>(&self, act: impl FnOnce(&mut RetryBudget) -> T) -> T {
        act(&mut self.budget.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Stores an edit over `read`, and answers the record as it then is; `None` when the operation has ended.
    ///
    /// A record that changed meanwhile is read again, and if the operation is still this worker's, the same edit is
    /// made to what is there now: what others may write beside a running operation (a request to cancel, a verdict, a
    /// hold) is kept.
    async fn commit(&self, read: &Record, edit: Edit) -> Result<Option<Record>, Lost> {
        let held = read.slot().map(Slot::fence).ok_or(Lost)?;
        let owner = read.slot().and_then(|slot| slot.owner.clone());
        let mut again: Option<Record> = None;
        let mut pause = self.settings.pause;
        loop {
            let mut batch = self.batch(again.as_ref().unwrap_or(read), &edit).await?;
            let mut call = self.lease.call(self.ports, edit.slot.fence())?;
            loop {
                match self.ports.store.write(&call, &batch).await {
                    Outcome::Applied(()) if edit.end.is_some() => return Ok(None),
                    Outcome::Applied(()) => return Ok(Record::written(batch.writes.swap_remove(0))),
                    Outcome::NotApplied(Refused::Store(StoreError::Denied(_))) => return Err(Lost),
                    Outcome::NotApplied(Refused::Store(_)) | Outcome::Unknown(_) => {
                        // The same write under the same id: what was applied before is not applied again.
                        self.sleep(&mut pause).await;
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
                return Err(Lost);
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
                    self.sleep(pause).await;
                    self.lease.call(self.ports, crate::domain::Fence::default())?;
                }
            }
        }
    }

    async fn sleep(&self, pause: &mut Duration) {
        self.ports.clock.sleep_until(self.ports.clock.monotonic().after(*pause)).await;
        *pause = (*pause * 2).min(self.settings.longest_pause);
    }

    /// The batch that makes the edit to `fresh`; its first write is the record as it is afterwards.
    async fn batch(&self, fresh: &Record, edit: &Edit) -> Result<Batch, Lost> {
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
                let Ok(rest) = next.rest(end, now) else { return Err(Lost) };
                writes.splice(0..0, rest);
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
    ) -> Result<Vec<Write>, Lost> {
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
                                self.sleep(&mut pause).await;
                                self.lease.call(self.ports, slot.fence())?;
                            }
                        }
                    };
                    let Some(read) = read else {
                        // What is held stays so, and is let go of later; but not left behind.
                        if ends {
                            return Err(Lost);
                        }
                        if takes.is_some() {
                            let message = format!("the store refuses the record of `{selector}`");
                            plan::park(slot, crate::domain::Code::Denied, message, now);
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
                    plan::stopped(slot, &stop, Duration::ZERO, now);
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

    /// What the feed is told of an edit: a change of status, or of the step.
    fn events(&self, before: &Record, slot: &Slot, end: Option<End>, now: Timestamp) -> Vec<FeedEvent> {
        let Some(old) = before.slot() else { return Vec::new() };
        let status = end.map_or(slot.status, Status::Ended);
        if old.status == status && old.position == slot.position {
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
        if old.status != status {
            events.push(event(status.as_str().to_owned()));
        }
        events
    }
}
