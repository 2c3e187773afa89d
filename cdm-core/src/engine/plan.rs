//! The decisions of the engine, as functions of the state of an operation, an event and the present time. They make no
//! calls, read no clock and use no randomness.

use std::time::Duration;

use super::pipeline::{Change, Pipeline, StepError, StepOutput};
use crate::domain::operation::{
    Event, IllegalEvent, OperationInput, OperationState, Position, Status, StepStatus,
};
use crate::domain::{Reason, ReasonCode, TerminalStatus, Timestamp, WorkerId};
use crate::ports::{ErrorKind, PortError};

/// The next action on an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// No action: the operation is parked or has ended.
    Ignore,
    /// Make the next attempt.
    Attempt,
    /// Start the undo steps: a requested cancel takes effect.
    BeginUndo,
    /// Park the operation: no attempt remains.
    GiveUp,
    /// End the operation with this status.
    Finish(TerminalStatus),
    /// Wait until the next poll.
    Sleep,
}

/// How long a step that has not finished waits for a backend. The values are those of the settings and of the step;
/// there are no defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitLimits {
    /// The pause before the next attempt.
    pub pause: Duration,
    /// The timeout while a backend is unavailable or throttles.
    pub unavailable: Duration,
    /// The timeout while a backend denies permission.
    pub denied: Duration,
}

/// Decides the next action. `attempts` is the limit of attempts at a step.
pub fn next(operation: &OperationState, pipeline: &Pipeline, attempts: u32, now: Timestamp) -> Next {
    match operation.status {
        Status::Parked | Status::Ended(_) => return Next::Ignore,
        Status::Queued | Status::Running | Status::Waiting => {}
    }
    match operation.position {
        Position::Forward(step) if step >= pipeline.steps.len() => {
            return Next::Finish(TerminalStatus::Succeeded);
        }
        Position::Undo(step, end) if step >= pipeline.undo().count() => return Next::Finish(end),
        Position::Forward(0) if operation.cancel && operation.attempts == 0 => {
            return Next::Finish(TerminalStatus::Cancelled);
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

/// Claims the operation for a worker, and counts the next attempt before it is made.
///
/// # Errors
/// [`IllegalEvent`] if an operation in this status cannot be claimed. It is then unchanged.
pub fn claim(operation: &mut OperationState, worker: &WorkerId, now: Timestamp) -> Result<(), IllegalEvent> {
    let status = operation.status.next(Event::Claim)?;
    if counted_outages(operation) {
        operation.attempts = operation.attempts.min(1);
    }
    // A cancel before the first attempt needs no attempt.
    let untouched = operation.attempts == 0 && operation.cancel;
    if !untouched && (operation.owner.is_some() || operation.attempts == 0) {
        begin_attempt(operation, now);
    }
    operation.status = status;
    operation.owner = Some(worker.clone());
    if !crate::bug!(TakeOverKeepsEpoch) {
        operation.epoch = operation.epoch.next();
    }
    operation.next_poll_at = None;
    operation.started_at = operation.started_at.or(Some(now));
    Ok(())
}

/// Returns whether the state was stored by a version that counted attempts which a backend did not serve.
fn counted_outages(operation: &OperationState) -> bool {
    let code = operation.reason.as_ref().map(|reason| reason.code);
    operation.status == Status::Waiting
        && operation.trouble_since.is_none()
        && operation.waiting_since.is_none()
        && matches!(code, Some(ReasonCode::Retrying | ReasonCode::Throttled | ReasonCode::AttemptsExhausted))
}

/// Ends the wait of an operation for another attempt.
///
/// # Errors
/// [`IllegalEvent`] if the operation does not wait.
pub fn wake(operation: &mut OperationState) -> Result<(), IllegalEvent> {
    operation.status = operation.status.next(Event::Wake)?;
    operation.next_poll_at = None;
    Ok(())
}

/// Counts the next attempt.
fn begin_attempt(operation: &mut OperationState, now: Timestamp) {
    operation.attempts += 1;
    if let Some(step) = operation.forward().and_then(|index| operation.steps.get_mut(index)) {
        step.status = StepStatus::Running;
        step.attempts += 1;
        step.started_at = step.started_at.or(Some(now));
    }
}

/// Starts the undo steps, after which the operation ends with `end`. A new epoch fences off the calls of the steps.
///
/// # Errors
/// [`IllegalEvent`] if the operation neither runs nor waits. It is then unchanged.
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
    operation.epoch = operation.epoch.next();
    reset_step(operation);
    begin_attempt(operation, now);
    Ok(())
}

fn reset_step(operation: &mut OperationState) {
    operation.attempts = 0;
    operation.job = 1;
    operation.next_poll_at = None;
    operation.waiting_since = None;
    operation.trouble_since = None;
}

/// Parks an operation with a reason, until a user acts.
///
/// # Errors
/// [`IllegalEvent`] if an operation in this status cannot be parked. It is then unchanged.
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

/// Parks an operation after its last attempt; `attempts` were made. The reason includes the last error, if it is known.
///
/// # Errors
/// As [`park`].
pub fn give_up(operation: &mut OperationState, attempts: u32, now: Timestamp) -> Result<(), IllegalEvent> {
    let last = match &operation.reason {
        Some(reason) if reason.code == ReasonCode::Retrying => format!("the last error: {}", reason.message),
        Some(_) | None => "the result of the last one was not stored".to_owned(),
    };
    park(operation, ReasonCode::AttemptsExhausted, format!("gave up after {attempts} attempts; {last}"), now)
}

/// Releases the operation of a worker that stops.
///
/// # Errors
/// [`IllegalEvent`] if an operation in this status has no owner. It is then unchanged.
pub fn hand_over(operation: &mut OperationState) -> Result<(), IllegalEvent> {
    operation.status = operation.status.next(Event::HandOver)?;
    operation.owner = None;
    operation.next_poll_at = None;
    Ok(())
}

/// Records that the current step has finished.
///
/// # Errors
/// [`IllegalEvent`] if the operation does not run. It is then unchanged.
pub fn complete_step(
    operation: &mut OperationState,
    pipeline: &Pipeline,
    output: &StepOutput,
    now: Timestamp,
) -> Result<(), IllegalEvent> {
    if operation.status != Status::Running {
        return Err(IllegalEvent { status: operation.status.as_str(), event: "finish a step" });
    }
    // A failed operation ends with the reason of its failure.
    if !matches!(operation.position, Position::Undo(_, TerminalStatus::Failed)) {
        operation.reason = None;
    }
    match operation.position {
        Position::Forward(index) => {
            if let Some(step) = operation.steps.get_mut(index) {
                step.status = StepStatus::Succeeded;
                step.finished_at = Some(now);
                step.message.clone_from(&output.message);
            }
            operation.position = Position::Forward(index + 1);
            reset_step(operation);
            if index + 1 < pipeline.steps.len() {
                begin_attempt(operation, now);
            }
        }
        Position::Undo(index, end) => {
            operation.position = Position::Undo(index + 1, end);
            reset_step(operation);
            if index + 1 < pipeline.undo().count() {
                begin_attempt(operation, now);
            }
        }
    }
    Ok(())
}

/// Records that the current step has not finished.
///
/// # Errors
/// [`IllegalEvent`] if the result is not possible in the present status.
pub fn record_error(
    operation: &mut OperationState,
    error: &StepError,
    limits: &WaitLimits,
    now: Timestamp,
) -> Result<(), IllegalEvent> {
    match error {
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
                return park(operation, timeout_code(*code), message, now);
            }
            operation.status = operation.status.next(Event::Wait)?;
            operation.next_poll_at = Some(now.after(*again).min(until));
            operation.reason =
                Some(Reason { code: *code, message: message.clone(), since, until: Some(until) });
        }
        StepError::Retry(error) => return retry_later(operation, error, limits, now),
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

/// Records a failed attempt that is repeated later.
///
/// While a backend is unavailable, throttles or denies, no attempt is counted, since the failure is not one of the step.
/// If an attempt in such a wait ends the worker, the next claim counts it.
fn retry_later(
    operation: &mut OperationState,
    error: &PortError,
    limits: &WaitLimits,
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
            begin_attempt(operation, now);
            operation.waiting_since = None;
            operation.trouble_since = None;
            operation.next_poll_at = Some(now.after(limits.pause));
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
    let (until, final_code, message) = if code == ReasonCode::Denied {
        let minutes = limits.denied.as_secs().div_ceil(60);
        let message = format!("{error}; retried for {minutes} min before the operation is parked");
        (since.after(limits.denied), ReasonCode::Denied, message)
    } else {
        (trouble_since.after(limits.unavailable), ReasonCode::DeadlineExceeded, error.to_string())
    };
    if now >= until {
        let spent = now.since(if code == ReasonCode::Denied { since } else { trouble_since }).as_secs();
        return park(operation, final_code, format!("{error}; gave up after {spent} s"), now);
    }
    if crate::bug!(WaitCountsAttempts) {
        begin_attempt(operation, now);
    }
    operation.status = operation.status.next(Event::Wait)?;
    operation.waiting_since = Some(since);
    operation.trouble_since = Some(trouble_since);
    operation.next_poll_at = Some(now.after(limits.pause).min(until));
    operation.reason = Some(Reason { code, message, since, until: Some(until) });
    Ok(())
}

/// Returns the code of a wait after its timeout. The code of the wait states the condition; the returned code states
/// what a user can do.
const fn timeout_code(code: ReasonCode) -> ReasonCode {
    match code {
        ReasonCode::RollingOut => ReasonCode::ImageNotReady,
        ReasonCode::ServiceNotReady => ReasonCode::ServiceNotReady,
        _ => ReasonCode::DeadlineExceeded,
    }
}

/// Queues a parked operation again, on the request of a user.
///
/// # Errors
/// [`IllegalEvent`] if the operation is not parked. It is then unchanged.
pub fn retry(operation: &mut OperationState) -> Result<(), IllegalEvent> {
    operation.status = operation.status.next(Event::Retry)?;
    // A failed job is replaced by another one. A job that may still run is polled again.
    let job_failed = operation.reason.take().is_some_and(|reason| reason.code.is_of_job());
    operation.job += u32::from(job_failed);
    // One attempt stays counted, so that the step does not count as not started.
    operation.attempts = operation.attempts.min(1);
    operation.waiting_since = None;
    operation.trouble_since = None;
    Ok(())
}

/// Applies a change of the operation itself.
pub fn apply_change(operation: &mut OperationState, change: &Change) {
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
