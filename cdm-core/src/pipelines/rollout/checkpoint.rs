//! The end of a window: what became of it is written, and what comes next is granted, in one write.

use std::time::Duration;

use super::course::Flushes;
use super::frozen;
use super::owner::{Early, Owner, shortened};
use super::why::{Why, growing, is_of_backend};
use crate::domain::rollout::{IllegalRollout, RolloutEvent, Trailing, Window};
use crate::domain::{Code, Leg, Reason, Rollout, RolloutStatus, Timestamp};
use crate::engine::{Left, Lost};

impl Owner<'_> {
    /// Ends a window: grants the next, or stops, or waits for what the window could not be finished without.
    pub(super) async fn checkpoint(
        &mut self,
        early: Option<Early>,
        flushes: Flushes,
    ) -> Result<Option<Left>, Lost> {
        let now = self.now();
        let again = self.worker.settings().scan;
        let whole = early.is_none() && self.todo().is_empty();
        let (unsettled, destination) = (self.head.unsettled, self.head.destination());
        let patience = Some(self.platform.ready_patience);
        let slow = growing(self.worker, self.head.waiting_since, now);
        let trouble = self.trouble.take().unwrap_or_else(|| Why::unknown("the cluster does not answer"));
        let backend = Some(self.platform.patience.backend.max(self.platform.patience.denied));
        let (leg, unasked, frozen) = (self.head.leg, self.unasked.take(), self.frozen.take());
        self.commit(Vec::new(), |head| {
            head.unsettled = unsettled;
            // What was flushed has been waited for.
            head.reason =
                head.reason.take().filter(|reason| reason.code != Code::JobRunning || head.leg == Leg::Back);
            head.trailing = head.trailing.filter(|_| !flushes.trailed);
            if flushes.done {
                head.flush_from = if whole { head.window.end } else { head.window.start };
            }
            match early {
                Some(Early::Unreachable) => wait(head, trouble.clone(), now, slow, None)?,
                Some(Early::Backend) if head.control.is_none() => {
                    wait(head, trouble.clone(), now, slow, backend)?;
                }
                Some(Early::Away) if head.control.is_none() => {
                    head.flushing = false;
                    wait(head, trouble.clone(), now, slow, backend)?;
                }
                Some(Early::NotReady) if head.control.is_none() => {
                    head.flushing = false;
                    let message = format!("`{destination}` is not ready");
                    wait(head, Why { code: Code::ServiceNotReady, message }, now, again, patience)?;
                }
                Some(Early::Frozen) if head.control.is_none() && !head.over_budget() => {
                    head.flushing = false;
                    head.job += 1;
                    if let Some(freeze) = &frozen {
                        frozen::wait_for(head, freeze, now)?;
                    }
                }
                Some(Early::Changed) if head.control.is_none() && !head.over_budget() => {
                    head.flushing = false;
                    head.job += 1;
                    wait(head, trouble.clone(), now, again, None)?;
                }
                Some(Early::Stopping)
                    if head.control.is_none() || head.flushing || head.trailing.is_some() =>
                {
                    head.settle(RolloutEvent::Wait, None, now)?;
                    head.owner = None;
                }
                // Somebody has asked meanwhile: what was moved is flushed before it is answered.
                None | Some(Early::NotReady | Early::Away)
                    if flushes.owed && !(flushes.trails && head.may_trail()) =>
                {
                    head.flushing = true;
                }
                None | Some(_) => {
                    if flushes.trails && head.trailing.is_none() {
                        let stretch = Window { start: head.flush_from, end: head.window.end };
                        let trailing = Trailing { window: stretch, job: head.job };
                        head.trailing = Some(trailing).filter(|_| !crate::bug!(TrailingForgotten));
                        head.flush_from = head.window.end;
                    }
                    head.flushing = false;
                    if !whole {
                        head.job += 1;
                    }
                    head.proceed(whole, now)?;
                    let goes_on = head.status == RolloutStatus::Running && head.leg == leg;
                    if let (Some(Early::Inconclusive), Some(message), true) = (early, &unasked, goes_on) {
                        let message = shortened(message);
                        let code = Code::GateInconclusive;
                        let reason = Reason { code, message, since: now, until: None };
                        head.settle(RolloutEvent::Pause, Some(reason), now)?;
                    }
                }
            }
            // What goes on claims again.
            head.unsettled |= head.status == RolloutStatus::Running;
            Ok(true)
        })
        .await?;
        self.head.unsettled = unsettled;
        Ok(match (self.head.status, early) {
            (RolloutStatus::Waiting, Some(Early::Stopping)) => Some(Left::HandedOver),
            (RolloutStatus::Waiting, _) => Some(Left::Waiting(self.head.wake)),
            (RolloutStatus::Running, _) => None,
            _ => Some(Left::Resting),
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
    patience: Option<Duration>,
) -> Result<(), IllegalRollout> {
    let since = *head.waiting_since.get_or_insert(now);
    let Why { mut code, mut message } = why;
    let deadline = patience.map(|patience| since.after(patience));
    let given_up = deadline.is_some_and(|deadline| now >= deadline);
    if given_up && is_of_backend(code) {
        message = format!("{message}; gave up after {} s", now.since(since).as_secs());
        code = if code == Code::Denied { Code::Denied } else { Code::DeadlineExceeded };
    }
    let kept = head.reason.take().filter(|_| head.leg == Leg::Back);
    let reason = kept.unwrap_or(Reason { code, message, since, until: deadline });
    head.settle(if given_up { RolloutEvent::Pause } else { RolloutEvent::Wait }, Some(reason), now)?;
    head.owner = None;
    head.wake = Some(now.after(again)).filter(|_| !given_up);
    Ok(())
}
