//! Runs a rollout: one owner moves many granted sites concurrently.
//!
//! Each site is claimed, moved and released. Without faults that is two writes of the record of the site, one request to
//! the cluster, and no read. A write of the rollout's record stores the outcomes of sites, and grants the next ones before
//! the last granted one has moved. One job at a time flushes caches, each for all sites that moved during the one before,
//! while further sites move. The claims of a lost owner are resolved or fenced off before further sites move.

mod check;
mod driver;
mod flush;
mod gate;
mod member;
mod recheck;
mod records;
mod sites;

pub(crate) use flush::NOT_FLUSHED;

use async_trait::async_trait;

use super::{PipelineSettings, deploy, moves};
use crate::domain::{Fence, RolloutKind};
use crate::engine::{Backoff, Lost, RolloutDriver, RunOutcome, Worker};
use crate::ports::StoreError;

/// Returns the names of the steps of a rollout, in order: those of its deploy, if it deploys first, and those of each
/// site. A health gate adds a probe before and after the move of the route.
pub(crate) fn member_steps(kind: RolloutKind, gated: bool, deploys: bool) -> Vec<&'static str> {
    let mut steps = Vec::new();
    if deploys {
        steps.extend(deploy::DEPLOY.step_names().filter(|name| *name != deploy::HOOKS));
    }
    match kind {
        RolloutKind::Promote => {
            for name in moves::PROMOTE.step_names() {
                match name {
                    "PatchIngress" if gated => steps.extend(["AskTarget", name, "AskRoute"]),
                    _ => steps.push(name),
                }
            }
        }
        RolloutKind::Upgrade => steps.extend(moves::UPGRADE.step_names()),
        RolloutKind::Flush => steps.push("FlushCaches"),
    }
    steps
}

/// Drives rollouts for a [`Worker`].
#[derive(Debug)]
pub struct Rollouts {
    settings: PipelineSettings,
}

impl Rollouts {
    /// Creates a driver with the settings of pipelines.
    pub const fn new(settings: PipelineSettings) -> Self {
        Self { settings }
    }
}

#[async_trait]
impl RolloutDriver for Rollouts {
    async fn drive(&self, worker: &Worker, number: u64) -> RunOutcome {
        match driver::Driver::claim(worker, &self.settings, number).await {
            Ok(Some(driver)) => driver.run().await.unwrap_or(RunOutcome::Lost),
            Ok(None) => RunOutcome::Settled,
            Err(outcome) => outcome,
        }
    }
}

/// Repeats a read until the store responds, while the worker has its lease.
async fn read_with_retry<T, F>(worker: &Worker, read: impl Fn() -> F) -> Result<T, Lost>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let clock = &worker.ports().clock;
    let mut backoff = Backoff::of(worker.settings());
    loop {
        match read().await {
            Ok(value) => return Ok(value),
            Err(StoreError::Denied(_)) => return Err(Lost),
            // The next owner of the rollout reads again.
            Err(_) if worker.stopping() => return Err(Lost),
            Err(StoreError::Unavailable(_) | StoreError::Full(_) | StoreError::Throttled) => {
                backoff.wait(&**clock).await;
                worker.lease().call(worker.ports(), Fence::default())?;
            }
        }
    }
}
