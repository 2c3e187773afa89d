//! Drives a rollout: one owner, one window at a time, many sites of it at once.
//!
//! Per site: claim, move the route, complete; two writes of the site's own record and one request to the cluster, and
//! no read where nothing went wrong. A checkpoint writes a window's outcomes and grants the next. Caches are flushed by
//! one job after the other, each for all that were moved during the one before, while further sites are moved. What was
//! begun under a lost owner is finished or fenced before anything new is begun.

mod checkpoint;
mod commit;
mod course;
mod flush;
mod frozen;
mod gated;
mod member;
mod owner;
mod verdict;
mod why;

pub(crate) use flush::NOT_FLUSHED;

use async_trait::async_trait;

use super::PipelineSettings;
use crate::domain::Fence;
use crate::engine::{Lost, RolloutDriver, RunOutcome, Worker};
use crate::ports::StoreError;

/// Drives rollouts for a [`Worker`].
#[derive(Debug)]
pub struct Rollouts {
    platform: PipelineSettings,
}

impl Rollouts {
    /// With these measures.
    pub const fn new(platform: PipelineSettings) -> Self {
        Self { platform }
    }
}

#[async_trait]
impl RolloutDriver for Rollouts {
    async fn drive(&self, worker: &Worker, number: u64) -> RunOutcome {
        match owner::Owner::take(worker, &self.platform, number).await {
            Ok(Some(mut owner)) => owner.run().await.unwrap_or(RunOutcome::Lost),
            Ok(None) => RunOutcome::Resting,
            Err(left) => left,
        }
    }
}

/// Reads until the store answers, as long as the worker has its lease.
async fn answered<T, F>(worker: &Worker, read: impl Fn() -> F) -> Result<T, Lost>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let clock = &worker.ports().clock;
    let mut pause = worker.settings().pause;
    loop {
        match read().await {
            Ok(found) => return Ok(found),
            Err(StoreError::Denied(_)) => return Err(Lost),
            // Whoever has the rollout next reads it anew.
            Err(_) if worker.stopping() => return Err(Lost),
            Err(StoreError::Unavailable(_) | StoreError::Full(_) | StoreError::Throttled) => {
                clock.sleep_until(clock.monotonic().after(pause)).await;
                pause = (pause * 2).min(worker.settings().longest_pause);
                worker.lease().call(worker.ports(), Fence::default())?;
            }
        }
    }
}
