//! Drives a rollout: one owner, one window at a time, many sites of it at once.
//!
//! Per site: claim, move the route, complete; two writes of the site's own record and one request to the cluster, and
//! no read where nothing went wrong. A checkpoint writes a window's outcomes and grants the next. Caches are flushed by
//! one job after the other, each for all that were moved during the one before, while further sites are moved. What was
//! begun under a lost owner is finished or fenced before anything new is begun.

mod checkpoint;
mod commit;
mod course;
mod driver;
mod flush;
mod freeze;
mod gate;
mod member;
mod reject;
mod why;

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
    /// With these measures.
    pub const fn new(settings: PipelineSettings) -> Self {
        Self { settings }
    }
}

#[async_trait]
impl RolloutDriver for Rollouts {
    async fn drive(&self, worker: &Worker, number: u64) -> RunOutcome {
        match driver::RolloutRun::take(worker, &self.settings, number).await {
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
    let mut backoff = Backoff::of(worker.settings());
    loop {
        match read().await {
            Ok(found) => return Ok(found),
            Err(StoreError::Denied(_)) => return Err(Lost),
            // Whoever has the rollout next reads it anew.
            Err(_) if worker.stopping() => return Err(Lost),
            Err(StoreError::Unavailable(_) | StoreError::Full(_) | StoreError::Throttled) => {
                backoff.wait(&**clock).await;
                worker.lease().call(worker.ports(), Fence::default())?;
            }
        }
    }
}
