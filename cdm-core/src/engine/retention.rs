//! Deletes audit entries and events that are older than they are kept: a bounded number at a time, by one process.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select;

use super::Worker;
use super::wake_signal::WakeSignal;
use crate::domain::{Fence, Timestamp};
use crate::ports::{CallContext, Old, Outcome};

/// Between two passes.
const PERIOD: Duration = Duration::from_hours(1);
/// Between two calls of one pass, so that deletes stay a small part of what the store does.
const PAUSE: Duration = Duration::from_secs(1);
/// What one call deletes at most: one transaction of the smallest store.
const MOST: usize = 90;
/// Calls of one pass: what is left is deleted by the next one.
const CALLS: usize = 1_000;

/// How long the things are kept that people read; `None`: for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Audit entries.
    pub audit: Option<Duration>,
    /// Events. One that a webhook still has to be told of is kept longer.
    pub events: Option<Duration>,
}

/// A process's share in deleting: of the workers that are alive the one whose name comes first does it. Should two
/// believe it of themselves, they delete the same.
#[derive(Debug)]
pub struct Retention {
    worker: Arc<Worker>,
    kept: Kept,
    wake_signal: WakeSignal,
}

impl Retention {
    /// Deletes for the process of `worker`, which knows who of the others is lost.
    pub fn new(worker: Arc<Worker>, kept: Kept) -> Self {
        Self { worker, kept, wake_signal: WakeSignal::default() }
    }

    /// Asks it to stop: the call under way is the last one.
    pub fn stop(&self) {
        self.wake_signal.stop();
    }

    /// Makes one pass each hour until [`Retention::stop`]. The first one begins after the worker has said that it lives.
    pub async fn run(&self) {
        self.idle(PERIOD / 60).await;
        while !self.wake_signal.stopping() {
            self.run_once().await;
            self.idle(PERIOD).await;
        }
    }

    /// Makes one pass: whatever is too old goes, unless another process is to do it or the store does not answer.
    pub async fn run_once(&self) {
        if !self.is_first().await {
            return;
        }
        for _ in 0..CALLS {
            match self.delete().await {
                Some(deleted) if deleted > 0 && !self.wake_signal.stopping() => self.idle(PAUSE).await,
                Some(_) | None => return,
            }
        }
    }

    /// Whether no living worker's name comes before this one's.
    async fn is_first(&self) -> bool {
        let own = self.worker.lease().worker();
        let Ok(heartbeats) = self.worker.ports().store.heartbeats().await else { return false };
        !heartbeats.iter().any(|beat| beat.worker < *own && !beat.ended && !self.worker.lost(&beat.worker))
    }

    /// How many were deleted by one call; `None` where it is not known.
    async fn delete(&self) -> Option<u64> {
        let ports = self.worker.ports();
        let now = ports.clock.wall();
        let before = |kept: Option<Duration>| kept.map_or(Timestamp::default(), |kept| now.before(kept));
        let webhooks = ports.store.webhooks().await.ok()?;
        let behind =
            webhooks.list.iter().filter(|webhook| webhook.is_live()).map(|webhook| webhook.cursor).min();
        let old = Old {
            audit_before: before(self.kept.audit),
            events_before: before(self.kept.events),
            events_to: behind,
            most: MOST,
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
        select(Box::pin(self.wake_signal.heard()), clock.sleep_until(clock.monotonic().after(pause))).await;
    }
}
