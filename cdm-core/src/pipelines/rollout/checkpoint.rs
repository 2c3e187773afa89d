//! The checkpoint at the end of a window, which grants the next window.

use std::time::Duration;

use super::driver::{Interruption, RolloutRun, truncate};
use super::freeze;
use super::run::FlushProgress;
use super::wait_reason::{WaitReason, growing_pause, is_of_backend};
use crate::domain::rollout::{IllegalRollout, PendingFlush, RolloutEvent, Window};
use crate::domain::{Direction, Reason, ReasonCode, Rollout, RolloutStatus, Timestamp};
use crate::engine::{Lost, RunOutcome};

impl RolloutRun<'_> {
    /// Ends a window: grants the next one, or stops, or waits for the condition that has interrupted the window.
    pub(super) async fn checkpoint(
        &mut self,
        interruption: Option<Interruption>,
        progress: FlushProgress,
    ) -> Result<Option<RunOutcome>, Lost> {
        let now = self.now();
        let again = self.worker.settings().scan;
        let whole = interruption.is_none() && self.remaining().is_empty();
        let (needs_recovery, destination) = (self.rollout.needs_recovery, self.rollout.destination());
        let timeout = Some(self.settings.ready_timeout);
        let slow = growing_pause(self.worker, self.rollout.waiting_since, now);
        let wait_reason =
            self.wait_reason.take().unwrap_or_else(|| WaitReason::unknown("the cluster does not respond"));
        let backend = Some(self.settings.timeouts.backend.max(self.settings.timeouts.denied));
        let (direction, inconclusive, frozen) =
            (self.rollout.direction, self.inconclusive.take(), self.frozen.take());
        self.commit(Vec::new(), |rollout| {
            rollout.needs_recovery = needs_recovery;
            // The wait for the flush has ended.
            rollout.reason = rollout.reason.take().filter(|reason| {
                reason.code != ReasonCode::JobRunning || rollout.direction == Direction::Rollback
            });
            rollout.pending_flush = rollout.pending_flush.filter(|_| !progress.deferred_finished);
            if progress.complete {
                rollout.flush_from = if whole { rollout.window.end } else { rollout.window.start };
            }
            match interruption {
                Some(Interruption::Unreachable) => wait(rollout, wait_reason.clone(), now, slow, None)?,
                Some(Interruption::FlushBlocked) if rollout.control.is_none() => {
                    wait(rollout, wait_reason.clone(), now, slow, backend)?;
                }
                Some(Interruption::ClusterUnavailable) if rollout.control.is_none() => {
                    rollout.flushing = false;
                    wait(rollout, wait_reason.clone(), now, slow, backend)?;
                }
                Some(Interruption::NotReady) if rollout.control.is_none() => {
                    rollout.flushing = false;
                    let message = format!("`{destination}` is not ready");
                    wait(
                        rollout,
                        WaitReason { code: ReasonCode::ServiceNotReady, message },
                        now,
                        again,
                        timeout,
                    )?;
                }
                Some(Interruption::Frozen) if rollout.control.is_none() && !rollout.over_budget() => {
                    rollout.flushing = false;
                    rollout.job += 1;
                    if let Some(freeze) = &frozen {
                        freeze::wait_for(rollout, freeze, now)?;
                    }
                }
                Some(Interruption::DigestChanged) if rollout.control.is_none() && !rollout.over_budget() => {
                    rollout.flushing = false;
                    rollout.job += 1;
                    wait(rollout, wait_reason.clone(), now, again, None)?;
                }
                Some(Interruption::Stopping)
                    if rollout.control.is_none() || rollout.flushing || rollout.pending_flush.is_some() =>
                {
                    rollout.settle(RolloutEvent::Wait, None, now)?;
                    rollout.owner = None;
                }
                // A pause or an abort was requested meanwhile: moved sites are flushed before it takes effect.
                None | Some(Interruption::NotReady | Interruption::ClusterUnavailable)
                    if progress.pending && !(progress.deferred && rollout.can_defer_flush()) =>
                {
                    rollout.flushing = true;
                }
                None | Some(_) => {
                    if progress.deferred && rollout.pending_flush.is_none() {
                        let range = Window { start: rollout.flush_from, end: rollout.window.end };
                        let pending_flush = PendingFlush { window: range, job: rollout.job };
                        rollout.pending_flush =
                            Some(pending_flush).filter(|_| !crate::bug!(TrailingForgotten));
                        rollout.flush_from = rollout.window.end;
                    }
                    rollout.flushing = false;
                    if !whole {
                        rollout.job += 1;
                    }
                    rollout.proceed(whole, now)?;
                    let continues =
                        rollout.status == RolloutStatus::Running && rollout.direction == direction;
                    if let (Some(Interruption::Inconclusive), Some(message), true) =
                        (interruption, &inconclusive, continues)
                    {
                        let message = truncate(message);
                        let code = ReasonCode::GateInconclusive;
                        let reason = Reason { code, message, since: now, until: None };
                        rollout.settle(RolloutEvent::Pause, Some(reason), now)?;
                    }
                }
            }
            // A running rollout claims sites again.
            rollout.needs_recovery |= rollout.status == RolloutStatus::Running;
            Ok(true)
        })
        .await?;
        self.rollout.needs_recovery = needs_recovery;
        Ok(match (self.rollout.status, interruption) {
            (RolloutStatus::Waiting, Some(Interruption::Stopping)) => Some(RunOutcome::HandedOver),
            (RolloutStatus::Waiting, _) => Some(RunOutcome::Waiting(self.rollout.next_poll_at)),
            (RolloutStatus::Running, _) => None,
            _ => Some(RunOutcome::Settled),
        })
    }
}

/// Makes the rollout wait, without an owner, until the next poll after `again`. A rollout that has waited for longer
/// than `timeout` is paused with its reason, until a user resumes it.
pub(super) fn wait(
    rollout: &mut Rollout,
    why: WaitReason,
    now: Timestamp,
    again: Duration,
    timeout: Option<Duration>,
) -> Result<(), IllegalRollout> {
    let since = *rollout.waiting_since.get_or_insert(now);
    let WaitReason { mut code, mut message } = why;
    let deadline = timeout.map(|timeout| since.after(timeout));
    let timed_out = deadline.is_some_and(|deadline| now >= deadline);
    if timed_out && is_of_backend(code) {
        message = format!("{message}; gave up after {} s", now.since(since).as_secs());
        code = if code == ReasonCode::Denied { ReasonCode::Denied } else { ReasonCode::DeadlineExceeded };
    }
    let kept = rollout.reason.take().filter(|_| rollout.direction == Direction::Rollback);
    let reason = kept.unwrap_or(Reason { code, message, since, until: deadline });
    rollout.settle(if timed_out { RolloutEvent::Pause } else { RolloutEvent::Wait }, Some(reason), now)?;
    rollout.owner = None;
    rollout.next_poll_at = Some(now.after(again)).filter(|_| !timed_out);
    Ok(())
}
