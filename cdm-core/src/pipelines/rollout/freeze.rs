//! The freezes that apply to a rollout.

use std::time::Duration;

use super::driver::RolloutRun;
use super::read_with_retry;
use crate::domain::rollout::{IllegalRollout, RolloutEvent};
use crate::domain::{Direction, Freeze, Reason, ReasonCode, Rollout, SiteId, Timestamp};
use crate::engine::Lost;

/// The longest interval between two checks of a freeze. The removal of a freeze wakes the rollout earlier.
const MAX_WAIT: Duration = Duration::from_secs(60);

impl RolloutRun<'_> {
    /// Reads the freezes, if the rollout moves sites forward, and returns a freeze of all sites.
    pub(super) async fn read_freezes(&mut self) -> Result<Option<Freeze>, Lost> {
        if !self.rollout.kind.moves() || self.rollout.direction == Direction::Rollback {
            self.freezes.clear();
            return Ok(None);
        }
        let fleet = read_with_retry(self.worker, || self.worker.ports().store.fleet()).await?;
        let frozen = fleet.frozen(self.now()).cloned();
        self.freezes = fleet.freezes;
        Ok(frozen)
    }

    /// Returns the freeze that stops moves of this site.
    pub(super) fn freeze_of(&self, site: &SiteId) -> Option<&Freeze> {
        self.freezes.iter().find(|freeze| freeze.names(site) && freeze.holds(self.now()))
    }
}

/// Makes the rollout wait until the freeze ends or is removed.
pub(super) fn wait_for(rollout: &mut Rollout, freeze: &Freeze, now: Timestamp) -> Result<(), IllegalRollout> {
    let reason =
        Reason { code: ReasonCode::Frozen, message: freeze.describe(), since: now, until: freeze.until };
    rollout.settle(RolloutEvent::Wait, Some(reason), now)?;
    rollout.owner = None;
    let poll = now.after(MAX_WAIT);
    rollout.next_poll_at = Some(freeze.until.map_or(poll, |until| until.min(poll)));
    Ok(())
}
