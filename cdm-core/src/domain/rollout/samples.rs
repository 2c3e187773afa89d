//! A rollout's course over time, thinned out so that its record stays small however long it takes.

use super::Rollout;
use crate::domain::Timestamp;

/// How far a rollout was at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgressSample {
    /// When.
    pub at: Timestamp,
    /// Sites where the rollout wants them.
    pub succeeded: u32,
    /// Sites that failed or are parked.
    pub failed: u32,
}

impl ProgressSample {
    /// How many a rollout keeps.
    pub const KEPT: usize = 48;
}

impl Rollout {
    /// Notes how far it is. While nothing changes, the last mark goes along with time; where there are too many, every
    /// second one goes.
    pub(super) fn mark(&mut self, at: Timestamp) {
        let counts = self.counts();
        let next = ProgressSample { at, succeeded: counts.succeeded, failed: counts.failed + counts.parked };
        let same = |mark: &ProgressSample| (mark.succeeded, mark.failed) == (next.succeeded, next.failed);
        if let [.., before, last] = self.samples.as_mut_slice()
            && same(before)
            && same(last)
        {
            last.at = at;
            return;
        }
        if self.samples.len() >= ProgressSample::KEPT {
            let mut index = 0;
            self.samples.retain(|_| {
                index += 1;
                index % 2 == 1
            });
        }
        self.samples.push(next);
    }
}
