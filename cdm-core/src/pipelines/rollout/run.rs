//! The loop of a rollout under one owner: one window after another, and in parallel the flush of earlier windows.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{Either, select};

use super::driver::{Interruption, RolloutRun, flushable};
use super::flush::FlushResult;
use super::read_with_retry;
use crate::domain::rollout::{PendingFlush, RolloutPage, Window};
use crate::domain::{Direction, Reason, ReasonCode, Rollout, RolloutStatus, Timestamp};
use crate::engine::{Lost, RunOutcome};

/// The flush of earlier windows, in progress.
type RunningFlush<'a> = Pin<Box<dyn Future<Output = Result<FlushResult, Lost>> + Send + 'a>>;

/// The result of the flush of earlier windows, until the end of a window processes it.
#[derive(Debug, Default)]
struct FinishedFlush(Mutex<Option<FlushResult>>);

impl FinishedFlush {
    fn put(&self, result: FlushResult) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    }

    fn take(&self) -> Option<FlushResult> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Returns the result once there is one. No waker is registered: the task that polls the flush also polls this
    /// future.
    async fn wait(&self) -> FlushResult {
        std::future::poll_fn(|_| self.take().map_or(Poll::Pending, Poll::Ready)).await
    }
}

/// The state of the flushes at the end of a window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FlushProgress {
    /// Whether the caches of the window are flushed while the next windows are processed.
    pub(super) deferred: bool,
    /// Whether the deferred flush of earlier windows has finished.
    pub(super) deferred_finished: bool,
    /// Whether every cache that had to be flushed before the checkpoint is flushed.
    pub(super) complete: bool,
    /// Whether sites were moved whose caches must still be flushed.
    pub(super) pending: bool,
}

impl<'a> RolloutRun<'a> {
    /// Runs the rollout until it ends, stops, waits or is released.
    pub(super) async fn run(&mut self) -> Result<RunOutcome, Lost> {
        if let Some(outcome) = self.await_deploy().await? {
            return Ok(outcome);
        }
        let finished = FinishedFlush::default();
        let mut running: Option<RunningFlush<'a>> = None;
        while self.rollout.status == RolloutStatus::Running {
            if let (None, true, Some(range)) = (&running, finished.is_empty(), self.rollout.pending_flush) {
                self.load().await?;
                running = Some(Box::pin(self.flush_of(range.window, range.job).run()));
            }
            let step = Box::pin(self.run_window(&finished));
            let outcome = match running.take() {
                None => step.await?,
                Some(flush) => match select(step, flush).await {
                    Either::Left((outcome, flush)) => {
                        running = Some(flush);
                        outcome?
                    }
                    Either::Right((result, step)) => {
                        finished.put(result?);
                        step.await?
                    }
                },
            };
            if let Some(outcome) = outcome {
                return Ok(outcome);
            }
        }
        Ok(match self.rollout.status {
            RolloutStatus::Waiting => RunOutcome::Waiting(self.rollout.next_poll_at),
            _ => RunOutcome::Settled,
        })
    }

    /// Processes one window, and ends it with a checkpoint.
    async fn run_window(&mut self, finished: &FinishedFlush) -> Result<Option<RunOutcome>, Lost> {
        self.load().await?;
        let mut interruption = None;
        if !self.rollout.flushing {
            self.frozen = self.read_freezes().await?;
            interruption = self.move_window().await?;
        }
        let mut progress = FlushProgress {
            deferred: interruption.is_none() && self.remaining().is_empty() && self.rollout.can_defer_flush(),
            ..FlushProgress::default()
        };
        if self.rollout.pending_flush.is_some() {
            let stops =
                Interruption::allows_flush(interruption) || interruption == Some(Interruption::NotReady);
            let full = self.rollout.window.end - self.rollout.flush_from >= PendingFlush::MAX;
            let waits = if progress.deferred { full } else { stops };
            let result = if waits { Some(finished.wait().await) } else { finished.take() };
            if let Some(result) = result {
                progress.deferred_finished = matches!(result, FlushResult::Finished(_));
                interruption = self.record_flush(result, interruption).await?;
            }
        }
        progress.deferred &= interruption.is_none();
        // Moved sites are flushed before the rollout stops. If the destination is not ready, only earlier windows are
        // flushed, since this window is repeated.
        let until = match interruption {
            _ if progress.deferred => None,
            Some(Interruption::NotReady) => Some(self.rollout.window.start),
            _ => Interruption::allows_flush(interruption).then_some(self.rollout.window.end),
        };
        if let Some(end) = until {
            let range = Window { start: self.rollout.flush_from.min(end), end };
            progress.complete = true;
            if self.has_flushable(range) {
                self.announce_flush().await?;
                let result = self.flush_of(range, self.rollout.job).run().await?;
                progress.complete = matches!(result, FlushResult::Finished(_));
                interruption = self.record_flush(result, interruption).await?;
            }
        }
        let start = until.filter(|_| progress.complete).unwrap_or(self.rollout.flush_from);
        progress.pending = self.has_flushable(Window { start, end: self.rollout.window.end });
        self.checkpoint(interruption, progress).await
    }

    /// Records the sites whose caches could not be flushed. Returns the interruption of the window, which can be the one
    /// of the flush.
    async fn record_flush(
        &mut self,
        result: FlushResult,
        interruption: Option<Interruption>,
    ) -> Result<Option<Interruption>, Lost> {
        Ok(match result {
            FlushResult::Finished(parked) if parked.is_empty() => interruption,
            FlushResult::Finished(parked) => {
                self.write_outcomes(&parked, interruption).await?;
                interruption
            }
            FlushResult::Blocked(why) if Interruption::allows_flush(interruption) => {
                self.wait_reason = Some(why);
                Some(Interruption::FlushBlocked)
            }
            FlushResult::Stopping if Interruption::allows_flush(interruption) => Some(Interruption::Stopping),
            FlushResult::Blocked(_) | FlushResult::Stopping => interruption,
        })
    }

    /// Returns whether a range has sites whose caches must be flushed.
    fn has_flushable(&self, range: Window) -> bool {
        self.members_of(range).any(|(_, member)| flushable(member.outcome))
    }

    /// Stores that the rollout waits for a flush, unless the write of the outcomes has stored it.
    async fn announce_flush(&mut self) -> Result<(), Lost> {
        if self.rollout.flushing && self.rollout.reason.is_some() {
            return Ok(());
        }
        let (now, timeout) = (self.now(), self.settings.job_timeout);
        self.commit(Vec::new(), |rollout| {
            rollout.flushing = true;
            set_flush_reason(rollout, now, timeout);
            Ok(true)
        })
        .await
    }

    /// Reads the pages of the window, and of earlier sites whose caches must still be flushed.
    async fn load(&mut self) -> Result<(), Lost> {
        let window = self.rollout.window;
        let start = self.rollout.flush_from.min(window.start);
        let start = self.rollout.pending_flush.map_or(start, |pending| pending.window.start.min(start));
        let first = start / RolloutPage::SIZE;
        let last = window.end.saturating_sub(1) / RolloutPage::SIZE;
        self.pages.retain(|page, _| (first..=last).contains(page));
        for page in first..=last {
            if !self.pages.contains_key(&page) {
                let store = &self.worker.ports().store;
                let read =
                    read_with_retry(self.worker, || store.rollout_page(self.rollout.number, page)).await?;
                self.pages.insert(page, read.ok_or(Lost)?);
            }
        }
        Ok(())
    }
}

/// Sets the reason of a wait for jobs that flush caches. A rollback keeps its own reason.
pub(super) fn set_flush_reason(rollout: &mut Rollout, now: Timestamp, timeout: Duration) {
    if rollout.direction == Direction::Rollback && rollout.reason.is_some() {
        return;
    }
    let message = "jobs flush the caches of the sites that were moved".to_owned();
    let until = Some(now.after(timeout));
    rollout.reason = Some(Reason { code: ReasonCode::JobRunning, message, since: now, until });
}
