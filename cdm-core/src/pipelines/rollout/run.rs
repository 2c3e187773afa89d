//! The course of a rollout under one owner: window after window, and beside them the flushes of those before.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{Either, select};

use super::answered;
use super::driver::{Interruption, RolloutRun, flushable};
use super::flush::Flushed;
use crate::domain::rollout::{PendingFlush, RolloutPage, Window};
use crate::domain::{Direction, Reason, ReasonCode, Rollout, RolloutStatus, Timestamp};
use crate::engine::{Lost, RunOutcome};

/// The flush of the windows before, under way.
type Behind<'a> = Pin<Box<dyn Future<Output = Result<Flushed, Lost>> + Send + 'a>>;

/// What came of the flush that goes on beside the windows, until a window's end takes notice.
#[derive(Debug, Default)]
struct Come(Mutex<Option<Flushed>>);

impl Come {
    fn put(&self, flushed: Flushed) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(flushed);
    }

    fn take(&self) -> Option<Flushed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Returns once it has come. Whoever polls the flush polls this, too.
    async fn wait(&self) -> Flushed {
        std::future::poll_fn(|_| self.take().map_or(Poll::Pending, Poll::Ready)).await
    }
}

/// What is flushed at the end of a window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flushes {
    /// The window's caches are flushed beside what comes next.
    pub(super) trails: bool,
    /// Those of the windows that trailed are.
    pub(super) trailed: bool,
    /// All that were to be are.
    pub(super) done: bool,
    /// Some sites were moved whose caches are still to be flushed.
    pub(super) owed: bool,
}

impl<'a> RolloutRun<'a> {
    /// Drives it until it ends, waits or is given back.
    pub(super) async fn run(&mut self) -> Result<RunOutcome, Lost> {
        if let Some(left) = self.await_deploy().await? {
            return Ok(left);
        }
        let come = Come::default();
        let mut behind: Option<Behind<'a>> = None;
        while self.head.status == RolloutStatus::Running {
            if let (None, true, Some(stretch)) = (&behind, come.is_empty(), self.head.pending_flush) {
                self.load().await?;
                behind = Some(Box::pin(self.flush_of(stretch.window, stretch.job).run()));
            }
            let step = Box::pin(self.step(&come));
            let left = match behind.take() {
                None => step.await?,
                Some(flush) => match select(step, flush).await {
                    Either::Left((left, flush)) => {
                        behind = Some(flush);
                        left?
                    }
                    Either::Right((flushed, step)) => {
                        come.put(flushed?);
                        step.await?
                    }
                },
            };
            if let Some(left) = left {
                return Ok(left);
            }
        }
        Ok(match self.head.status {
            RolloutStatus::Waiting => RunOutcome::Waiting(self.head.next_poll_at),
            _ => RunOutcome::Resting,
        })
    }

    /// One window, and its end.
    async fn step(&mut self, come: &Come) -> Result<Option<RunOutcome>, Lost> {
        self.load().await?;
        let mut early = None;
        if !self.head.flushing {
            self.frozen = self.look_for_freezes().await?;
            early = self.window().await?;
        }
        let mut flushes = Flushes {
            trails: early.is_none() && self.todo().is_empty() && self.head.may_flush_later(),
            ..Flushes::default()
        };
        if self.head.pending_flush.is_some() {
            let stands = Interruption::moves(early) || early == Some(Interruption::NotReady);
            let full = self.head.window.end - self.head.flush_from >= PendingFlush::MOST;
            let waits = if flushes.trails { full } else { stands };
            let flushed = if waits { Some(come.wait().await) } else { come.take() };
            if let Some(flushed) = flushed {
                flushes.trailed = matches!(flushed, Flushed::But(_));
                early = self.flushed(flushed, early).await?;
            }
        }
        flushes.trails &= early.is_none();
        // What was moved before the rollout stands still is flushed first; where the destination is not ready, the
        // window comes back.
        let until = match early {
            _ if flushes.trails => None,
            Some(Interruption::NotReady) => Some(self.head.window.start),
            _ => Interruption::moves(early).then_some(self.head.window.end),
        };
        if let Some(end) = until {
            let stretch = Window { start: self.head.flush_from.min(end), end };
            flushes.done = true;
            if self.owes(stretch) {
                self.intend_flush().await?;
                let flushed = self.flush_of(stretch, self.head.job).run().await?;
                flushes.done = matches!(flushed, Flushed::But(_));
                early = self.flushed(flushed, early).await?;
            }
        }
        let start = until.filter(|_| flushes.done).unwrap_or(self.head.flush_from);
        flushes.owed = self.owes(Window { start, end: self.head.window.end });
        self.checkpoint(early, flushes).await
    }

    /// Counts the sites whose caches could not be flushed, and answers why the window is left early, be it that.
    async fn flushed(
        &mut self,
        flushed: Flushed,
        early: Option<Interruption>,
    ) -> Result<Option<Interruption>, Lost> {
        Ok(match flushed {
            Flushed::But(parked) if parked.is_empty() => early,
            Flushed::But(parked) => {
                self.write_outcomes(&parked, early).await?;
                early
            }
            Flushed::Blocked(why) if Interruption::moves(early) => {
                self.trouble = Some(why);
                Some(Interruption::Backend)
            }
            Flushed::Stopping if Interruption::moves(early) => Some(Interruption::Stopping),
            Flushed::Blocked(_) | Flushed::Stopping => early,
        })
    }

    /// Whether a stretch has sites whose caches are to be flushed.
    fn owes(&self, stretch: Window) -> bool {
        self.members_of(stretch).any(|(_, member)| flushable(member.outcome))
    }

    /// Says that a flush is next and waited for, where the outcomes of the window have not said so.
    async fn intend_flush(&mut self) -> Result<(), Lost> {
        if self.head.flushing && self.head.reason.is_some() {
            return Ok(());
        }
        let (now, timeout) = (self.now(), self.settings.job_timeout);
        self.commit(Vec::new(), |head| {
            head.flushing = true;
            flushes(head, now, timeout);
            Ok(true)
        })
        .await
    }

    /// Reads the pages that the window lies in, and those before it whose caches are still to be flushed.
    async fn load(&mut self) -> Result<(), Lost> {
        let window = self.head.window;
        let start = self.head.flush_from.min(window.start);
        let start = self.head.pending_flush.map_or(start, |behind| behind.window.start.min(start));
        let first = start / RolloutPage::SIZE;
        let last = window.end.saturating_sub(1) / RolloutPage::SIZE;
        self.pages.retain(|page, _| (first..=last).contains(page));
        for page in first..=last {
            if !self.pages.contains_key(&page) {
                let store = &self.worker.ports().store;
                let read = answered(self.worker, || store.rollout_page(self.head.number, page)).await?;
                self.pages.insert(page, read.ok_or(Lost)?);
            }
        }
        Ok(())
    }
}

/// Says that the rollout waits for the jobs that flush caches. Why it goes back is what a return ends with.
pub(super) fn flushes(head: &mut Rollout, now: Timestamp, timeout: Duration) {
    if head.direction == Direction::Rollback && head.reason.is_some() {
        return;
    }
    let message = "jobs flush the caches of the sites that were moved".to_owned();
    let until = Some(now.after(timeout));
    head.reason = Some(Reason { code: ReasonCode::JobRunning, message, since: now, until });
}
