//! The engine's decisions. Pure: a slot, what happened, and now; never a call, a clock or chance.

use std::time::Duration;

use super::pipeline::{Change, Pipeline, StepError, StepOutput};
use crate::domain::operation::{
    Event, IllegalEvent, OperationInput, OperationState, Position, Status, StepStatus,
};
use crate::domain::{Reason, ReasonCode, TerminalStatus, Timestamp, WorkerId};
use crate::ports::{ErrorKind, PortError};

/// What is to be done with an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing, by this worker.
    Leave,
    /// Its next attempt.
    Attempt,
    /// It turns round: a request to cancel takes effect.
    BeginUndo,
    /// Every attempt was used up.
    GiveUp,
    /// It has come to its end.
    Rest(TerminalStatus),
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
pub fn next(operation: &OperationState, pipeline: &Pipeline, attempts: u32, now: Timestamp) -> Next {
    match operation.status {
        Status::Parked | Status::Ended(_) => return Next::Leave,
        Status::Queued | Status::Running | Status::Waiting => {}
    }
    match operation.position {
        Position::Forward(step) if step >= pipeline.steps.len() => {
            return Next::Rest(TerminalStatus::Succeeded);
        }
        Position::Undo(step, end) if step >= pipeline.undo().count() => return Next::Rest(end),
        Position::Forward(0) if operation.cancel && operation.attempts == 0 => {
            return Next::Rest(TerminalStatus::Cancelled);
        }
        Position::Forward(step)
            if operation.cancel && pipeline.is_cancelable(step) && !crate::bug!(CancelIgnored) =>
        {
            return Next::BeginUndo;
        }
        Position::Forward(_) | Position::Undo(..) => {}
    }
    if operation.attempts > attempts && !crate::bug!(AttemptsUncounted) {
        return Next::GiveUp;
    }
    if operation.status == Status::Waiting
        && operation.next_poll_at.is_some_and(|next_poll_at| next_poll_at > now)
    {
        return Next::Sleep;
    }
    Next::Attempt
}

/// A worker takes the operation. The attempt that it makes next is counted here, before it is made.
///
/// # Errors
/// [`IllegalEvent`] when its status does not take it; nothing is changed then.
pub fn claim(operation: &mut OperationState, worker: &WorkerId, now: Timestamp) -> Result<(), IllegalEvent> {
    let status = operation.status.next(Event::Claim)?;
    if counted_an_outage(operation) {
        operation.attempts = operation.attempts.min(1);
    }
    // A cancel that arrives before anything was begun needs no attempt at all.
    let untouched = operation.attempts == 0 && operation.cancel;
    if !untouched && (operation.owner.is_some() || operation.attempts == 0) {
        begin(operation, now);
    }
    operation.status = status;
    operation.owner = Some(worker.clone());
    if !crate::bug!(TakeOverKeepsEpoch) {
        operation.epoch += 1;
    }
    operation.next_poll_at = None;
    operation.started_at = operation.started_at.or(Some(now));
    Ok(())
}

/// Whether the slot was stored by a version that counted an attempt whenever a backend did not answer.
fn counted_an_outage(operation: &OperationState) -> bool {
    let code = operation.reason.as_ref().map(|reason| reason.code);
    operation.status == Status::Waiting
        && operation.trouble_since.is_none()
        && operation.waiting_since.is_none()
        && matches!(code, Some(ReasonCode::Retrying | ReasonCode::Throttled | ReasonCode::AttemptsExhausted))
}

/// What the operation waited for may have come, or it is looked at again.
///
/// # Errors
/// [`IllegalEvent`] when it does not wait.
pub fn wake(operation: &mut OperationState) -> Result<(), IllegalEvent> {
    operation.status = operation.status.next(Event::Wake)?;
    operation.next_poll_at = None;
    Ok(())
}

/// The next attempt's intent.
fn begin(operation: &mut OperationState, now: Timestamp) {
    operation.attempts += 1;
    if let Some(step) = operation.forward().and_then(|index| operation.steps.get_mut(index)) {
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
pub fn begin_undo(
    operation: &mut OperationState,
    end: TerminalStatus,
    now: Timestamp,
) -> Result<(), IllegalEvent> {
    if operation.status != Status::Running {
        operation.status = operation.status.next(Event::Wake)?;
    }
    if let Some(step) = operation.forward().and_then(|index| operation.steps.get_mut(index)) {
        let failed = end == TerminalStatus::Failed;
        step.status = if failed { StepStatus::Failed } else { StepStatus::Skipped };
        step.finished_at = Some(now);
    }
    operation.position = Position::Undo(0, end);
    operation.epoch += 1;
    fresh_step(operation);
    begin(operation, now);
    Ok(())
}

fn fresh_step(operation: &mut OperationState) {
    operation.attempts = 0;
    operation.job = 1;
    operation.next_poll_at = None;
    operation.waiting_since = None;
    operation.trouble_since = None;
}

/// Parks an operation.
///
/// # Errors
/// [`IllegalEvent`] when its status does not take it; nothing is changed then.
pub fn park(
    operation: &mut OperationState,
    code: ReasonCode,
    message: String,
    now: Timestamp,
) -> Result<(), IllegalEvent> {
    if crate::bug!(IllegalTransitionSwallowed) && operation.status != Status::Running {
        operation.reason = Some(Reason { code, message, since: now, until: None });
        return Ok(());
    }
    operation.status = operation.status.next(Event::Park)?;
    operation.owner = None;
    operation.next_poll_at = None;
    operation.waiting_since = None;
    operation.trouble_since = None;
    operation.reason = Some(Reason { code, message, since: now, until: None });
    Ok(())
}

/// Parks an operation that has no attempt left; `attempts` were made. The last error, where one is known, stays in the
/// reason.
///
/// # Errors
/// As [`park`].
pub fn give_up(operation: &mut OperationState, attempts: u32, now: Timestamp) -> Result<(), IllegalEvent> {
    let last = match &operation.reason {
        Some(reason) if reason.code == ReasonCode::Retrying => format!("the last error: {}", reason.message),
        Some(_) | None => "no result of the last one was stored".to_owned(),
    };
    park(operation, ReasonCode::AttemptsExhausted, format!("gave up after {attempts} attempts; {last}"), now)
}

/// A worker that stops gives the operation back.
///
/// # Errors
/// [`IllegalEvent`] when its status does not take it; nothing is changed then.
pub fn hand_over(operation: &mut OperationState) -> Result<(), IllegalEvent> {
    operation.status = operation.status.next(Event::HandOver)?;
    operation.owner = None;
    operation.next_poll_at = None;
    Ok(())
}

/// A step is done.
///
/// # Errors
/// [`IllegalEvent`] when the operation does not run; nothing is changed then.
pub fn done(
    operation: &mut OperationState,
    pipeline: &Pipeline,
    done: &StepOutput,
    now: Timestamp,
) -> Result<(), IllegalEvent> {
    if operation.status != Status::Running {
        return Err(IllegalEvent { status: operation.status.as_str(), event: "finish a step" });
    }
    // Why it failed is what it ends with.
    if !matches!(operation.position, Position::Undo(_, TerminalStatus::Failed)) {
        operation.reason = None;
    }
    match operation.position {
        Position::Forward(index) => {
            if let Some(step) = operation.steps.get_mut(index) {
                step.status = StepStatus::Succeeded;
                step.finished_at = Some(now);
                step.message.clone_from(&done.message);
            }
            operation.position = Position::Forward(index + 1);
            fresh_step(operation);
            if index + 1 < pipeline.steps.len() {
                begin(operation, now);
            }
        }
        Position::Undo(index, end) => {
            operation.position = Position::Undo(index + 1, end);
            fresh_step(operation);
            if index + 1 < pipeline.undo().count() {
                begin(operation, now);
            }
        }
    }
    Ok(())
}

/// A step is not done.
///
/// # Errors
/// [`IllegalEvent`] when the operation's status does not take what follows.
pub fn stopped(
    operation: &mut OperationState,
    stop: &StepError,
    waits: &Waits,
    now: Timestamp,
) -> Result<(), IllegalEvent> {
    match stop {
        StepError::Lost | StepError::NeedsLock => {}
        StepError::PersistAndRetry(_) => operation.trouble_since = None,
        StepError::Wait { code, message, timeout, again, .. } => {
            let same = operation.reason.as_ref().is_some_and(|reason| reason.code == *code);
            let since = operation.waiting_since.filter(|_| same).unwrap_or(now);
            operation.waiting_since = Some(since);
            operation.trouble_since = None;
            let until = since.after(*timeout);
            if now >= until {
                let message = format!("{message}; gave up after {} s", timeout.as_secs());
                return park(operation, waited_out(*code), message, now);
            }
            operation.status = operation.status.next(Event::Wait)?;
            operation.next_poll_at = Some(now.after(*again).min(until));
            operation.reason =
                Some(Reason { code: *code, message: message.clone(), since, until: Some(until) });
        }
        StepError::Retry(error) => return again(operation, error, waits, now),
        StepError::Park(code, message) => return park(operation, *code, message.clone(), now),
        StepError::Fail(code, message, _) => {
            if let Some(step) = operation.forward().and_then(|index| operation.steps.get_mut(index)) {
                step.message = Some(message.clone());
            }
            match operation.position {
                Position::Forward(_) => begin_undo(operation, TerminalStatus::Failed, now)?,
                Position::Undo(..) => return park(operation, *code, message.clone(), now),
            }
            operation.reason =
                Some(Reason { code: *code, message: message.clone(), since: now, until: None });
        }
    }
    Ok(())
}

/// An attempt failed, and another may succeed.
///
/// A backend that is away, asks for fewer calls or denies says nothing about the step: it is waited for, and no attempt
/// is counted. Should an attempt made in that wait kill its worker, the next claim counts it.
fn again(
    operation: &mut OperationState,
    error: &PortError,
    waits: &Waits,
    now: Timestamp,
) -> Result<(), IllegalEvent> {
    let code = match error.kind {
        ErrorKind::Denied => ReasonCode::Denied,
        ErrorKind::Throttled(_) => ReasonCode::Throttled,
        ErrorKind::Unavailable | ErrorKind::Full => ReasonCode::Retrying,
        _ => {
            let before = operation.reason.as_ref().filter(|reason| reason.code == ReasonCode::Retrying);
            let since = before.map_or(now, |reason| reason.since);
            operation.status = operation.status.next(Event::Wait)?;
            begin(operation, now);
            operation.waiting_since = None;
            operation.trouble_since = None;
            operation.next_poll_at = Some(now.after(waits.pause));
            let (message, until) = (error.to_string(), operation.next_poll_at);
            operation.reason = Some(Reason { code: ReasonCode::Retrying, message, since, until });
            return Ok(());
        }
    };
    let before =
        operation.reason.as_ref().filter(|_| operation.trouble_since.is_some()).map(|reason| reason.code);
    let same = match before {
        Some(ReasonCode::Denied) => code == ReasonCode::Denied,
        Some(ReasonCode::Retrying | ReasonCode::Throttled) => code != ReasonCode::Denied,
        _ => false,
    };
    let since = operation.waiting_since.filter(|_| same).unwrap_or(now);
    let trouble_since = operation.trouble_since.unwrap_or(now);
    let (until, gives_up, message) = if code == ReasonCode::Denied {
        let minutes = waits.denied.as_secs().div_ceil(60);
        let message = format!("{error}; retried for {minutes} min before the operation is parked");
        (since.after(waits.denied), ReasonCode::Denied, message)
    } else {
        (trouble_since.after(waits.away), ReasonCode::DeadlineExceeded, error.to_string())
    };
    if now >= until {
        let spent = now.since(if code == ReasonCode::Denied { since } else { trouble_since }).as_secs();
        return park(operation, gives_up, format!("{error}; gave up after {spent} s"), now);
    }
    if crate::bug!(WaitCountsAttempts) {
        begin(operation, now);
    }
    operation.status = operation.status.next(Event::Wait)?;
    operation.waiting_since = Some(since);
    operation.trouble_since = Some(trouble_since);
    operation.next_poll_at = Some(now.after(waits.pause).min(until));
    operation.reason = Some(Reason { code, message, since, until: Some(until) });
    Ok(())
}

/// The code of a wait that took too long: it says what to do, where the wait's own said what it was for.
const fn waited_out(code: ReasonCode) -> ReasonCode {
    match code {
        ReasonCode::RollingOut => ReasonCode::ImageNotReady,
        ReasonCode::ServiceNotReady => ReasonCode::ServiceNotReady,
        _ => ReasonCode::DeadlineExceeded,
    }
}

/// A person asks a parked operation to go on.
///
/// # Errors
/// [`IllegalEvent`] when it is not parked; nothing is changed then.
pub fn retry(operation: &mut OperationState) -> Result<(), IllegalEvent> {
    operation.status = operation.status.next(Event::Retry)?;
    // A job that failed is followed by another; one that may still run is looked at again.
    let job_failed = operation.reason.take().is_some_and(|reason| reason.code.is_of_job());
    operation.job += u32::from(job_failed);
    // One stays counted: what was begun once is not taken for untouched.
    operation.attempts = operation.attempts.min(1);
    operation.waiting_since = None;
    operation.trouble_since = None;
    Ok(())
}

/// Writes a change that concerns the operation itself.
pub fn note(operation: &mut OperationState, change: &Change) {
    match change {
        Change::NextJob => operation.job += 1,
        Change::Job(name, log) => {
            if let Some(step) = operation.forward().and_then(|index| operation.steps.get_mut(index)) {
                step.job = Some(name.clone());
                step.log = log.clone().or(step.log.take());
            }
        }
        Change::Previous(previous) => {
            if let OperationInput::Deploy(deploy) = &mut operation.input {
                deploy.previous = Some(previous.clone());
            }
        }
        Change::Rollout(number) => {
            if let OperationInput::Deploy(deploy) = &mut operation.input {
                deploy.rollout = Some(*number);
            }
        }
        Change::Site(_) | Change::Service(_) => {}
    }
}
