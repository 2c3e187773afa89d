//! The end of a window: what became of it is written, and what comes next is granted, in one write.

use std::time::Duration;

use super::course::Flushes;
use super::driver::{Interruption, RolloutRun, shortened};
use super::freeze;
use super::why::{Why, growing, is_of_backend};
use crate::domain::rollout::{IllegalRollout, PendingFlush, RolloutEvent, Window};
use crate::domain::{Direction, Reason, ReasonCode, Rollout, RolloutStatus, Timestamp};
use crate::engine::{Lost, RunOutcome};

impl RolloutRun<'_> {
    /// Ends a window: grants the next, or stops, or waits for what the window could not be finished without.
    pub(super) async fn checkpoint(
        &mut self,
        early: Option<Interruption>,
        flushes: Flushes,
    ) -> Result<Option<RunOutcome>, Lost> {
        let now = self.now();
        let again = self.worker.settings().scan;
        let whole = early.is_none() && self.todo().is_empty();
        let (needs_recovery, destination) = (self.head.needs_recovery, self.head.destination());
        let timeout = Some(self.settings.ready_timeout);
        let slow = growing(self.worker, self.head.waiting_since, now);
        let trouble = self.trouble.take().unwrap_or_else(|| Why::unknown("the cluster does not answer"));
        let backend = Some(self.settings.timeouts.backend.max(self.settings.timeouts.denied));
        let (direction, unasked, frozen) = (self.head.direction, self.unasked.take(), self.frozen.take());
        self.commit(Vec::new(), |head| {
            head.needs_recovery = needs_recovery;
            // What was flushed has been waited for.
            head.reason = head.reason.take().filter(|reason| {
                reason.code != ReasonCode::JobRunning || head.direction == Direction::Rollback
            });
            head.pending_flush = head.pending_flush.filter(|_| !flushes.trailed);
            if flushes.done {
                head.flush_from = if whole { head.window.end } else { head.window.start };
            }
            match early {
                Some(Interruption::Unreachable) => wait(head, trouble.clone(), now, slow, None)?,
                Some(Interruption::Backend) if head.control.is_none() => {
                    wait(head, trouble.clone(), now, slow, backend)?;
                }
                Some(Interruption::Away) if head.control.is_none() => {
                    head.flushing = false;
                    wait(head, trouble.clone(), now, slow, backend)?;
                }
                Some(Interruption::NotReady) if head.control.is_none() => {
                    head.flushing = false;
                    let message = format!("`{destination}` is not ready");
                    wait(head, Why { code: ReasonCode::ServiceNotReady, message }, now, again, timeout)?;
                }
                Some(Interruption::Frozen) if head.control.is_none() && !head.over_budget() => {
                    head.flushing = false;
                    head.job += 1;
                    if let Some(freeze) = &frozen {
                        freeze::wait_for(head, freeze, now)?;
                    }
                }
                Some(Interruption::Changed) if head.control.is_none() && !head.over_budget() => {
                    head.flushing = false;
                    head.job += 1;
                    wait(head, trouble.clone(), now, again, None)?;
                }
                Some(Interruption::Stopping)
                    if head.control.is_none() || head.flushing || head.pending_flush.is_some() =>
                {
                    head.settle(RolloutEvent::Wait, None, now)?;
                    head.owner = None;
                }
                // Somebody has asked meanwhile: what was moved is flushed before it is answered.
                None | Some(Interruption::NotReady | Interruption::Away)
                    if flushes.owed && !(flushes.trails && head.may_flush_later()) =>
                {
                    head.flushing = true;
                }
                None | Some(_) => {
                    if flushes.trails && head.pending_flush.is_none() {
                        let stretch = Window { start: head.flush_from, end: head.window.end };
                        let pending_flush = PendingFlush { window: stretch, job: head.job };
                        head.pending_flush = Some(pending_flush).filter(|_| !crate::bug!(TrailingForgotten));
                        head.flush_from = head.window.end;
                    }
                    head.flushing = false;
                    if !whole {
                        head.job += 1;
                    }
                    head.proceed(whole, now)?;
                    let goes_on = head.status == RolloutStatus::Running && head.direction == direction;
                    if let (Some(Interruption::Inconclusive), Some(message), true) =
                        (early, &unasked, goes_on)
                    {
                        let message = shortened(message);
                        let code = ReasonCode::GateInconclusive;
                        let reason = Reason { code, message, since: now, until: None };
                        head.settle(RolloutEvent::Pause, Some(reason), now)?;
                    }
                }
            }
            // What goes on claims again.
            head.needs_recovery |= head.status == RolloutStatus::Running;
            Ok(true)
        })
        .await?;
        self.head.needs_recovery = needs_recovery;
        Ok(match (self.head.status, early) {
            (RolloutStatus::Waiting, Some(Interruption::Stopping)) => Some(RunOutcome::HandedOver),
            (RolloutStatus::Waiting, _) => Some(RunOutcome::Waiting(self.head.next_poll_at)),
            (RolloutStatus::Running, _) => None,
            _ => Some(RunOutcome::Resting),
        })
    }
}

/// The rollout waits, and is anybody's who comes when it is time. One that has waited for longer than `patience` is
/// paused with its reason, for a person to resume.
pub(super) fn wait(
    head: &mut Rollout,
    why: Why,
    now: Timestamp,
    again: Duration,
    timeout: Option<Duration>,
) -> Result<(), IllegalRollout> {
    let since = *head.waiting_since.get_or_insert(now);
    let Why { mut code, mut message } = why;
    let deadline = timeout.map(|timeout| since.after(timeout));
    let given_up = deadline.is_some_and(|deadline| now >= deadline);
    if given_up && is_of_backend(code) {
        message = format!("{message}; gave up after {} s", now.since(since).as_secs());
        code = if code == ReasonCode::Denied { ReasonCode::Denied } else { ReasonCode::DeadlineExceeded };
    }
    let kept = head.reason.take().filter(|_| head.direction == Direction::Rollback);
    let reason = kept.unwrap_or(Reason { code, message, since, until: deadline });
    head.settle(if given_up { RolloutEvent::Pause } else { RolloutEvent::Wait }, Some(reason), now)?;
    head.owner = None;
    head.next_poll_at = Some(now.after(again)).filter(|_| !given_up);
    Ok(())
}
