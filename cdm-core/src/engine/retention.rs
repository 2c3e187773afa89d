//! Deletes audit entries and events after their retention period: a limited number per call, by one process.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select;

use super::Worker;
use super::wake_signal::WakeSignal;
use crate::domain::{Fence, Timestamp};
use crate::ports::{CallContext, Old, Outcome};

/// The interval between two passes.
const PERIOD: Duration = Duration::from_hours(1);
/// The pause between two calls of one pass, so that deletions are a small part of the load of the store.
const PAUSE: Duration = Duration::from_secs(1);
/// The limit of entries that one call deletes, so that a call is one transaction in every store.
const BATCH_SIZE: usize = 90;
/// The limit of calls in one pass. The next pass deletes the rest.
const CALLS_PER_PASS: usize = 1_000;

/// The retention periods of audit entries and of events. The type has no default; the defaults of the configuration are
/// 400 days for audit entries and 7 days for events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionPeriods {
    /// The retention period of audit entries. `None`: they are not deleted. A longer period needs more storage.
    pub audit: Option<Duration>,
    /// The retention period of events. `None`: they are not deleted. A longer period needs more storage; a shorter one
    /// loses events for a client that was disconnected. An event that a webhook has not received yet is kept longer.
    pub events: Option<Duration>,
}

/// The deletion of old entries by a process. Of the workers that are not lost, the one whose id sorts first deletes. If
/// two processes delete at the same time, they delete the same entries, without harm.
#[derive(Debug)]
pub struct Retention {
    worker: Arc<Worker>,
    periods: RetentionPeriods,
    wake_signal: WakeSignal,
}

impl Retention {
    /// Creates the deletion for the process of `worker`, which determines which other workers are lost.
    pub fn new(worker: Arc<Worker>, periods: RetentionPeriods) -> Self {
        Self { worker, periods, wake_signal: WakeSignal::default() }
    }

    /// Stops after the call in progress.
    pub fn stop(&self) {
        self.wake_signal.stop();
    }

    /// Makes one pass each hour until [`Retention::stop`] is called. The first pass starts after a minute, when the
    /// worker has sent a heartbeat.
    pub async fn run(&self) {
        self.idle(PERIOD / 60).await;
        while !self.wake_signal.stopping() {
            self.run_once().await;
            self.idle(PERIOD).await;
        }
    }

    /// Makes one pass, which deletes every entry after its retention period. Does nothing if another process deletes, or
    /// if the store does not respond.
    pub async fn run_once(&self) {
        if !self.is_first().await {
            return;
        }
        for _ in 0..CALLS_PER_PASS {
            match self.delete().await {
                Some(deleted) if deleted > 0 && !self.wake_signal.stopping() => self.idle(PAUSE).await,
                Some(_) | None => return,
            }
        }
    }

    /// Returns whether the id of this worker sorts before the ids of all workers that are not lost.
    async fn is_first(&self) -> bool {
        let own = self.worker.lease().worker();
        let Ok(heartbeats) = self.worker.ports().store.heartbeats().await else { return false };
        !heartbeats.iter().any(|beat| beat.worker < *own && !beat.ended && !self.worker.lost(&beat.worker))
    }

    /// Makes one call, and returns the number of deleted entries. Returns `None` if the number is unknown.
    async fn delete(&self) -> Option<u64> {
        let ports = self.worker.ports();
        let now = ports.clock.wall();
        let before =
            |period: Option<Duration>| period.map_or(Timestamp::default(), |period| now.before(period));
        let webhooks = ports.store.webhooks().await.ok()?;
        let min_cursor =
            webhooks.list.iter().filter(|webhook| webhook.is_live()).map(|webhook| webhook.cursor).min();
        let old = Old {
            audit_before: before(self.periods.audit),
            events_before: before(self.periods.events),
            events_to: min_cursor,
            most: BATCH_SIZE,
        };
        let deadline = ports.clock.monotonic().after(self.worker.settings().call);
        let call = CallContext { deadline, write: ports.entropy.write(), fence: Fence::default() };
        match ports.store.delete_old(&call, &old).await {
            Outcome::Applied(deleted) => Some(deleted),
            Outcome::NotApplied(_) | Outcome::Unknown(_) => None,
        }
    }

    async fn idle(&self, pause: Duration) {
        let clock = &self.worker.ports().clock;
        select(Box::pin(self.wake_signal.notified()), clock.sleep_until(clock.monotonic().after(pause)))
            .await;
    }
}
