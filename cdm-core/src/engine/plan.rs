//! The engine's decisions. Pure: a slot, what happened, and now; never a call, a clock or chance.

use std::time::Duration;

use super::pipeline::{Change, Done, Pipeline, Stop};
use crate::domain::operation::{Event, IllegalEvent, Position, Slot, Status, StepStatus, Task};
use crate::domain::{Code, End, Reason, Timestamp, WorkerId};
use crate::ports::{ErrorKind, PortError};

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

/// How long a step that is not done waits for a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// Until its next attempt.
    pub pause: Duration,
    /// In all, while a backend is away or asks for fewer calls.
    pub away: Duration,
    /// In all, while a backend refuses for lack of permission.
    pub denied: Duration,
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
///
/// # Errors
/// [`IllegalEvent`] when its status does not take it; nothing is changed then.
pub fn claim(slot: &mut Slot, worker: &WorkerId, now: Timestamp) -> Result<(), IllegalEvent> {
    let status = slot.status.next(Event::Claim)?;
    if counted_an_outage(slot) {
        slot.attempts = slot.attempts.min(1);
    }
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
    Ok(())
}

/// Whether the slot was stored by a version that counted an attempt whenever a backend did not answer.
fn counted_an_outage(slot: &Slot) -> bool {
    let code = slot.reason.as_ref().map(|reason| reason.code);
    slot.status == Status::Waiting
        && slot.trouble_since.is_none()
        && slot.waiting_since.is_none()
        && matches!(code, Some(Code::Retrying | Code::Throttled | Code::AttemptsExhausted))
}

/// What the operation waited for may have come, or it is looked at again.
///
/// # Errors
/// [`IllegalEvent`] when it does not wait.
pub fn wake(slot: &mut Slot) -> Result<(), IllegalEvent> {
    slot.status = slot.status.next(Event::Wake)?;
    slot.wake = None;
    Ok(())
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
///
/// # Errors
/// [`IllegalEvent`] when it neither runs nor waits; nothing is changed then.
pub fn turn(slot: &mut Slot, end: End, now: Timestamp) -> Result<(), IllegalEvent> {
    if slot.status != Status::Running {
        slot.status = slot.status.next(Event::Wake)?;
    }
    if let Some(step) = slot.forward().and_then(|index| slot.steps.get_mut(index)) {
        let failed = end == End::Failed;
        step.status = if failed { StepStatus::Failed } else { StepStatus::Skipped };
        step.finished_at = Some(now);
    }
    slot.position = Position::Undo(0, end);
    slot.epoch += 1;
    fresh_step(slot);
    begin(slot, now);
    Ok(())
}

fn fresh_step(slot: &mut Slot) {
    slot.attempts = 0;
    slot.job = 1;
    slot.wake = None;
    slot.waiting_since = None;
    slot.trouble_since = None;
}

/// Parks an operation.
///
/// # Errors
/// [`IllegalEvent`] when its status does not take it; nothing is changed then.
pub fn park(slot: &mut Slot, code: Code, message: String, now: Timestamp) -> Result<(), IllegalEvent> {
    if crate::bug!(IllegalTransitionSwallowed) && slot.status != Status::Running {
        slot.reason = Some(Reason { code, message, since: now, until: None });
        return Ok(());
    }
    slot.status = slot.status.next(Event::Park)?;
    slot.owner = None;
    slot.wake = None;
    slot.waiting_since = None;
    slot.trouble_since = None;
    slot.reason = Some(Reason { code, message, since: now, until: None });
    Ok(())
}

/// Parks an operation that has no attempt left; `attempts` were made. The last error, where one is known, stays in the
/// reason.
///
/// # Errors
/// As [`park`].
pub fn give_up(slot: &mut Slot, attempts: u32, now: Timestamp) -> Result<(), IllegalEvent> {
    let last = match &slot.reason {
        Some(reason) if reason.code == Code::Retrying => format!("the last error: {}", reason.message),
        Some(_) | None => "no result of the last one was stored".to_owned(),
    };
    park(slot, Code::AttemptsExhausted, format!("gave up after {attempts} attempts; {last}"), now)
}

/// A worker that stops gives the operation back.
///
/// # Errors
/// [`IllegalEvent`] when its status does not take it; nothing is changed then.
pub fn hand_over(slot: &mut Slot) -> Result<(), IllegalEvent> {
    slot.status = slot.status.next(Event::HandOver)?;
    slot.owner = None;
    slot.wake = None;
    Ok(())
}

/// A step is done.
///
/// # Errors
/// [`IllegalEvent`] when the operation does not run; nothing is changed then.
pub fn done(
    slot: &mut Slot,
    pipeline: &dyn Pipeline,
    done: &Done,
    now: Timestamp,
) -> Result<(), IllegalEvent> {
    if slot.status != Status::Running {
        return Err(IllegalEvent { status: slot.status.as_str(), event: "finish a step" });
    }
    // Why it failed is what it ends with.
    if !matches!(slot.position, Position::Undo(_, End::Failed)) {
        slot.reason = None;
    }
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
    Ok(())
}

/// A step is not done.
///
/// # Errors
/// [`IllegalEvent`] when the operation's status does not take what follows.
pub fn stopped(slot: &mut Slot, stop: &Stop, waits: &Waits, now: Timestamp) -> Result<(), IllegalEvent> {
    match stop {
        Stop::Lost | Stop::Hold => {}
        Stop::Note(_) => slot.trouble_since = None,
        Stop::Wait { code, message, patience, again, .. } => {
            let same = slot.reason.as_ref().is_some_and(|reason| reason.code == *code);
            let since = slot.waiting_since.filter(|_| same).unwrap_or(now);
            slot.waiting_since = Some(since);
            slot.trouble_since = None;
            let until = since.after(*patience);
            if now >= until {
                let message = format!("{message}; gave up after {} s", patience.as_secs());
                return park(slot, waited_out(*code), message, now);
            }
            slot.status = slot.status.next(Event::Wait)?;
            slot.wake = Some(now.after(*again).min(until));
            slot.reason = Some(Reason { code: *code, message: message.clone(), since, until: Some(until) });
        }
        Stop::Again(error) => return again(slot, error, waits, now),
        Stop::Park(code, message) => return park(slot, *code, message.clone(), now),
        Stop::Fail(code, message, _) => {
            if let Some(step) = slot.forward().and_then(|index| slot.steps.get_mut(index)) {
                step.message = Some(message.clone());
            }
            match slot.position {
                Position::Forward(_) => turn(slot, End::Failed, now)?,
                Position::Undo(..) => return park(slot, *code, message.clone(), now),
            }
            slot.reason = Some(Reason { code: *code, message: message.clone(), since: now, until: None });
        }
    }
    Ok(())
}

/// An attempt failed, and another may succeed.
///
/// A backend that is away, asks for fewer calls or denies says nothing about the step: it is waited for, and no attempt
/// is counted. Should an attempt made in that wait kill its worker, the next claim counts it.
fn again(slot: &mut Slot, error: &PortError, waits: &Waits, now: Timestamp) -> Result<(), IllegalEvent> {
    let code = match error.kind {
        ErrorKind::Denied => Code::Denied,
        ErrorKind::Throttled(_) => Code::Throttled,
        ErrorKind::Unavailable | ErrorKind::Full => Code::Retrying,
        _ => {
            let before = slot.reason.as_ref().filter(|reason| reason.code == Code::Retrying);
            let since = before.map_or(now, |reason| reason.since);
            slot.status = slot.status.next(Event::Wait)?;
            begin(slot, now);
            slot.waiting_since = None;
            slot.trouble_since = None;
            slot.wake = Some(now.after(waits.pause));
            let (message, until) = (error.to_string(), slot.wake);
            slot.reason = Some(Reason { code: Code::Retrying, message, since, until });
            return Ok(());
        }
    };
    let before = slot.reason.as_ref().filter(|_| slot.trouble_since.is_some()).map(|reason| reason.code);
    let same = match before {
        Some(Code::Denied) => code == Code::Denied,
        Some(Code::Retrying | Code::Throttled) => code != Code::Denied,
        _ => false,
    };
    let since = slot.waiting_since.filter(|_| same).unwrap_or(now);
    let trouble_since = slot.trouble_since.unwrap_or(now);
    let (until, gives_up, message) = if code == Code::Denied {
        let minutes = waits.denied.as_secs().div_ceil(60);
        let message = format!("{error}; retried for {minutes} min before the operation is parked");
        (since.after(waits.denied), Code::Denied, message)
    } else {
        (trouble_since.after(waits.away), Code::DeadlineExceeded, error.to_string())
    };
    if now >= until {
        let spent = now.since(if code == Code::Denied { since } else { trouble_since }).as_secs();
        return park(slot, gives_up, format!("{error}; gave up after {spent} s"), now);
    }
    if crate::bug!(WaitCountsAttempts) {
        begin(slot, now);
    }
    slot.status = slot.status.next(Event::Wait)?;
    slot.waiting_since = Some(since);
    slot.trouble_since = Some(trouble_since);
    slot.wake = Some(now.after(waits.pause).min(until));
    slot.reason = Some(Reason { code, message, since, until: Some(until) });
    Ok(())
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
///
/// # Errors
/// [`IllegalEvent`] when it is not parked; nothing is changed then.
pub fn retry(slot: &mut Slot) -> Result<(), IllegalEvent> {
    slot.status = slot.status.next(Event::Retry)?;
    // A job that failed is followed by another; one that may still run is looked at again.
    let job_failed = slot.reason.take().is_some_and(|reason| reason.code.is_of_job());
    slot.job += u32::from(job_failed);
    // One stays counted: what was begun once is not taken for untouched.
    slot.attempts = slot.attempts.min(1);
    slot.waiting_since = None;
    slot.trouble_since = None;
    Ok(())
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
