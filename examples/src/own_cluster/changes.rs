//! Changes, numbered in their order.

use std::collections::{BTreeSet, VecDeque};

use cdm_core::domain::MonotonicTime;
use cdm_core::ports::{ChangeCursor, Changed};

/// Number of changes that are kept; a reader that is further behind gets `Changed::Anything`.
const KEPT: usize = 1_000;

/// The change log. A cursor is the number of changes that its reader has received.
#[derive(Debug, Default)]
pub(super) struct ChangeLog {
    /// Changes that will happen without a call, and when.
    scheduled: BTreeSet<(MonotonicTime, Changed)>,
    emitted: VecDeque<Changed>,
    /// Number of changes that are no longer kept.
    dropped: u64,
}

impl ChangeLog {
    /// Reports `changed` at the time `at`.
    pub(super) fn schedule(&mut self, at: MonotonicTime, changed: Changed) {
        self.scheduled.insert((at, changed));
    }

    /// Returns the time of the next scheduled change.
    pub(super) fn next(&self) -> Option<MonotonicTime> {
        self.scheduled.first().map(|(at, _)| *at)
    }

    /// Returns the changes after a cursor, and the cursor for the next call.
    pub(super) fn since(&mut self, cursor: ChangeCursor, now: MonotonicTime) -> (Vec<Changed>, ChangeCursor) {
        while let Some((at, _)) = self.scheduled.first()
            && *at <= now
        {
            self.emitted.extend(self.scheduled.pop_first().map(|(_, changed)| changed));
        }
        while self.emitted.len() > KEPT {
            self.emitted.pop_front();
            self.dropped += 1;
        }
        let newest = ChangeCursor(self.dropped + self.emitted.len() as u64);
        let received = cursor.0.checked_sub(self.dropped).filter(|_| cursor <= newest);
        // The cursor is older than the changes that are kept, or from an earlier instance of this cluster.
        let Some(received) = received else { return (vec![Changed::Anything], newest) };
        (self.emitted.iter().skip(usize::try_from(received).unwrap_or(usize::MAX)).cloned().collect(), newest)
    }
}
