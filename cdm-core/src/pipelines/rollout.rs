//! Drives a rollout: one owner, one window at a time, many sites of it at once.
//!
//! Per site: claim, move the route, complete; two writes of the site's own record and one request to the cluster, and
//! no read where nothing went wrong. Before a window is left, its caches are flushed by one job, and a checkpoint
//! writes its outcomes and grants the next. What was begun under a lost owner is finished or fenced before anything
//! new is begun.

mod commit;
mod flush;
mod frozen;
mod gated;
mod member;
mod owner;
mod verdict;

use async_trait::async_trait;

use super::Platform;
use crate::engine::{Left, RolloutDriver, Worker};

/// Drives rollouts for a [`Worker`].
#[derive(Debug)]
pub struct Rollouts {
    platform: Platform,
}

impl Rollouts {
    /// With these measures.
    pub const fn new(platform: Platform) -> Self {
        Self { platform }
    }
}

#[async_trait]
impl RolloutDriver for Rollouts {
    async fn drive(&self, worker: &Worker, number: u64) -> Left {
        match owner::Owner::take(worker, &self.platform, number).await {
            Ok(Some(mut owner)) => owner.run().await.unwrap_or(Left::Lost),
            Ok(None) => Left::Resting,
            Err(left) => left,
        }
    }
}
