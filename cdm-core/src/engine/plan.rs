//! The engine's decisions. Pure: a slot, what happened, and now; never a call, a clock or chance.

use std::time::Duration;

use super::pipeline::{Change, Done, Pipeline, Stop};
use crate::domain::operation::{Event, Position, Slot, Status, StepStatus, Task};
use crate::domain::{Code, End, Reason, Timestamp, WorkerId};

/// What is to be done with an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing, by this worker.
    Leave,
    /// Its next attempt.
    Attempt,
    /// It turns round: a request to cancel takes effect.
    Turn,
    /// Every attempt was used up.
    GiveUp,
    /// It has come to its end.
    Rest(End),
    /// It waits.
    Sleep,
}

/// Decides what is to be done.
pub fn next(slot: &Slot, pipeline: &dyn Pipeline, attempts: u32, now: Timestamp) -> Next {
    match slot.status {
        Status::Parked | Status::Ended(_) => return Next::Leave,
        Status::Queued | Status::Running | Status::Waiting => {}
    }
    match slot.position {
        Position::Forward(step) if step >= pipeline.steps().len() => return Next::Rest(End::Succeeded),
        Position::Undo(step, end) if step >= pipeline.undo().len() => return Next::Rest(end),
        Position::Forward(0) if slot.cancel && slot.attempts == 0 => return Next::Rest(End::Cancelled),
        Position::Forward(step)
            if slot.cancel && pipeline.cancellable(step) && !crate::bug!(CancelIgnored) =>
        {
            return Next::Turn;
        }
        Position::Forward(_) | Position::Undo(..) => {}
    }
    if slot.attempts > attempts && !crate::bug!(AttemptsUncounted) {
        return Next::GiveUp;
    }
    if slot.status == Status::Waiting && slot.wake.is_some_and(|wake| wake > now) {
        return Next::Sleep;
    }
    Next::Attempt
}

/// A worker takes the operation. The attempt that it makes next is counted here, before it is made.
pub fn claim(slot: &mut Slot, worker: &WorkerId, now: Timestamp) {
    let Ok(status) = slot.status.next(Event::Claim) else { return };
    // A cancel that arrives before anything was begun needs no attempt at all.
    let untouched = slot.attempts == 0 && slot.cancel;
    if !untouched && (slot.owner.is_some() || slot.attempts == 0) {
        begin(slot, now);
    }
    slot.status = status;
    slot.owner = Some(worker.clone());
    if !crate::bug!(TakeOverKeepsEpoch) {
        slot.epoch += 1;
    }
    slot.wake = None;
    slot.started_at = slot.started_at.or(Some(now));
}

/// The next attempt's intent.
fn begin(slot: &mut Slot, now: Timestamp) {
    slot.attempts += 1;
    if let Some(step) = slot.forward().and_then(|index| slot.steps.get_mut(index)) {
        step.status = StepStatus::Running;
        step.attempts += 1;
        step.started_at = step.started_at.or(Some(now));
    }
}

/// Turns an operation round: it goes through the undo steps to `end`, under a new epoch, so that what was sent on the
/// way out cannot arrive on the way back.
pub fn turn(slot: &mut Slot, end: End, now: Timestamp) {
    if let Some(step) = slot.forward().and_then(|index| slot.steps.get_mut(index)) {
        let failed = end == End::Failed;
        step.status = if failed { StepStatus::Failed } else { StepStatus::Skipped };
        step.finished_at = Some(now);
    }
    slot.position = Position::Undo(0, end);
    slot.epoch += 1;
    slot.status = Status::Running;
    fresh_step(slot);
    begin(slot, now);
}

fn fresh_step(slot: &mut Slot) {
    slot.attempts = 0;
    slot.job = 1;
    slot.wake = None;
    slot.waiting_since = None;
}

/// Parks an operation.
pub fn park(slot: &mut Slot, code: Code, message: String, now: Timestamp) {
    slot.status = slot.status.next(Event::Park).unwrap_or(slot.status);
    slot.owner = None;
    slot.wake = None;
    slot.reason = Some(Reason { code, message, since: now, until: None });
}

/// A worker that stops gives the operation back.
pub fn hand_over(slot: &mut Slot) {
    slot.status = slot.status.next(Event::HandOver).unwrap_or(slot.status);
    slot.owner = None;
    slot.wake = None;
}

/// A step is done.
pub fn done(slot: &mut Slot, pipeline: &dyn Pipeline, done: &Done, now: Timestamp) {
    // Why it failed is what it ends with.
    if !matches!(slot.position, Position::Undo(_, End::Failed)) {
        slot.reason = None;
    }
    slot.status = Status::Running;
    match slot.position {
        Position::Forward(index) => {
            if let Some(step) = slot.steps.get_mut(index) {
                step.status = StepStatus::Succeeded;
                step.finished_at = Some(now);
                step.message.clone_from(&done.message);
            }
            slot.position = Position::Forward(index + 1);
            fresh_step(slot);
            if index + 1 < pipeline.steps().len() {
                begin(slot, now);
            }
        }
        Position::Undo(index, end) => {
            slot.position = Position::Undo(index + 1, end);
            fresh_step(slot);
            if index + 1 < pipeline.undo().len() {
                begin(slot, now);
            }
        }
    }
}

/// A step is not done. `pause` is the one before another attempt, should there be one.
pub fn stopped(slot: &mut Slot, stop: &Stop, pause: Duration, now: Timestamp) {
    match stop {
        Stop::Lost | Stop::Note(_) => {}
        Stop::Wait { code, message, patience, again, .. } => {
            let same = slot.reason.as_ref().is_some_and(|reason| reason.code == *code);
            let since = slot.waiting_since.filter(|_| same).unwrap_or(now);
            slot.waiting_since = Some(since);
            let until = since.after(*patience);
            if now >= until {
                let message = format!("{message}; gave up after {} s", patience.as_secs());
                slot.waiting_since = None;
                return park(slot, waited_out(*code), message, now);
            }
            slot.status = Status::Waiting;
            slot.wake = Some(now.after(*again).min(until));
            slot.reason = Some(Reason { code: *code, message: message.clone(), since, until: Some(until) });
        }
        Stop::Again(error) => {
            begin(slot, now);
            slot.status = Status::Waiting;
            slot.wake = Some(now.after(pause));
            let throttled = matches!(error.kind, crate::ports::ErrorKind::Throttled(_));
            let code = if throttled { Code::Throttled } else { Code::Retrying };
            let since =
                slot.reason.as_ref().filter(|reason| reason.code == code).map_or(now, |reason| reason.since);
            slot.reason = Some(Reason { code, message: error.to_string(), since, until: slot.wake });
        }
        Stop::Park(code, message) => park(slot, *code, message.clone(), now),
        Stop::Fail(code, message, _) => {
            if let Some(step) = slot.forward().and_then(|index| slot.steps.get_mut(index)) {
                step.message = Some(message.clone());
            }
            match slot.position {
                Position::Forward(_) => turn(slot, End::Failed, now),
                Position::Undo(..) => return park(slot, *code, message.clone(), now),
            }
            slot.reason = Some(Reason { code: *code, message: message.clone(), since: now, until: None });
        }
    }
}

/// The code of a wait that took too long: it says what to do, where the wait's own said what it was for.
const fn waited_out(code: Code) -> Code {
    match code {
        Code::RollingOut => Code::ImageNotReady,
        Code::ServiceNotReady => Code::ServiceNotReady,
        _ => Code::DeadlineExceeded,
    }
}

/// A person asks a parked operation to go on.
pub fn retry(slot: &mut Slot) {
    let Ok(status) = slot.status.next(Event::Retry) else { return };
    slot.status = status;
    // A job that failed is followed by another; one that may still run is looked at again.
    let job_failed = slot.reason.take().is_some_and(|reason| {
        matches!(reason.code, Code::JobFailed | Code::CacheFlushFailed | Code::ThemeMissing)
    });
    slot.job += u32::from(job_failed);
    // One stays counted: what was begun once is not taken for untouched.
    slot.attempts = slot.attempts.min(1);
    slot.waiting_since = None;
}

/// Writes a change that concerns the operation itself.
pub fn note(slot: &mut Slot, change: &Change) {
    match change {
        Change::NextJob => slot.job += 1,
        Change::Job(name, log) => {
            if let Some(step) = slot.forward().and_then(|index| slot.steps.get_mut(index)) {
                step.job = Some(name.clone());
                step.log = log.clone().or(step.log.take());
            }
        }
        Change::Previous(previous) => {
            if let Task::Deploy(deploy) = &mut slot.task {
                deploy.previous = Some(previous.clone());
            }
        }
        Change::Rollout(number) => {
            if let Task::Deploy(deploy) = &mut slot.task {
                deploy.rollout = Some(*number);
            }
        }
        Change::Site(_) | Change::Colour(_) => {}
    }
}
