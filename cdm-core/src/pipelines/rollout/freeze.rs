//! Freezes, as a rollout's owner meets them.

use std::time::Duration;

use super::answered;
use super::driver::RolloutRun;
use crate::domain::rollout::{IllegalRollout, RolloutEvent};
use crate::domain::{Direction, Freeze, Reason, ReasonCode, Rollout, SiteId, Timestamp};
use crate::engine::Lost;

/// How long a rollout waits at most before it looks whether a freeze is still there; whoever removes one wakes it.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

impl RolloutRun<'_> {
    /// Looks at the freezes, where the rollout is on its way out; the one that stops everyone is answered.
    pub(super) async fn look_for_freezes(&mut self) -> Result<Option<Freeze>, Lost> {
        if !self.head.kind.moves() || self.head.direction == Direction::Rollback {
            self.freezes.clear();
            return Ok(None);
        }
        let fleet = answered(self.worker, || self.worker.ports().store.fleet()).await?;
        let frozen = fleet.frozen(self.now()).cloned();
        self.freezes = fleet.freezes;
        Ok(frozen)
    }

    /// The freeze that stops this site's move.
    pub(super) fn freeze_of(&self, site: &SiteId) -> Option<&Freeze> {
        self.freezes.iter().find(|freeze| freeze.names(site) && freeze.holds(self.now()))
    }
}

/// The rollout waits until the freeze ends, or is removed.
pub(super) fn wait_for(head: &mut Rollout, freeze: &Freeze, now: Timestamp) -> Result<(), IllegalRollout> {
    let reason =
        Reason { code: ReasonCode::Frozen, message: freeze.describe(), since: now, until: freeze.until };
    head.settle(RolloutEvent::Wait, Some(reason), now)?;
    head.owner = None;
    let look = now.after(LOOK_AGAIN);
    head.next_poll_at = Some(freeze.until.map_or(look, |until| until.min(look)));
    Ok(())
}
