//! The progress of a rollout over time, in a limited number of samples.

use super::Rollout;
use crate::domain::Timestamp;

/// The progress of a rollout at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgressSample {
    /// The time of the sample.
    pub at: Timestamp,
    /// The number of sites that have succeeded.
    pub succeeded: u32,
    /// The number of sites that failed or are parked.
    pub failed: u32,
}

impl ProgressSample {
    /// The limit of samples in the record of a rollout.
    pub const KEPT: usize = 48;
}

impl Rollout {
    /// Records a sample. While the counts do not change, the last sample gets the new time. When the list is full, every
    /// second sample is removed.
    pub(super) fn record_sample(&mut self, at: Timestamp) {
        let counts = self.counts();
        let next = ProgressSample { at, succeeded: counts.succeeded, failed: counts.failed + counts.parked };
        let same =
            |sample: &ProgressSample| (sample.succeeded, sample.failed) == (next.succeeded, next.failed);
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
