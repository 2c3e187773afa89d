//! What changed, numbered in the order in which it did.

use std::collections::{BTreeSet, VecDeque};

use cdm_core::domain::MonotonicTime;
use cdm_core::ports::{ChangeCursor, Changed};

/// How many changes are kept; whoever is further behind is told that anything may have changed.
const KEPT: usize = 1_000;

/// The changes. A mark is the number of changes that its holder has heard.
#[derive(Debug, Default)]
pub(super) struct News {
    /// What will change of itself, and when.
    expected: BTreeSet<(MonotonicTime, Changed)>,
    told: VecDeque<Changed>,
    /// How many were told and are not kept any more.
    forgotten: u64,
}

impl News {
    /// Has the change be told from that moment on.
    pub(super) fn expect(&mut self, at: MonotonicTime, changed: Changed) {
        self.expected.insert((at, changed));
    }

    /// The next moment at which there will be news.
    pub(super) fn next(&self) -> Option<MonotonicTime> {
        self.expected.first().map(|(at, _)| *at)
    }

    /// What was told after `mark`, and the mark to ask with next.
    pub(super) fn since(&mut self, mark: ChangeCursor, now: MonotonicTime) -> (Vec<Changed>, ChangeCursor) {
        while let Some((at, _)) = self.expected.first()
            && *at <= now
        {
            self.told.extend(self.expected.pop_first().map(|(_, changed)| changed));
        }
        while self.told.len() > KEPT {
            self.told.pop_front();
            self.forgotten += 1;
        }
        let newest = ChangeCursor(self.forgotten + self.told.len() as u64);
        let heard = mark.0.checked_sub(self.forgotten).filter(|_| mark <= newest);
        // A mark from before what is kept, or of another life of this cluster.
        let Some(heard) = heard else { return (vec![Changed::Anything], newest) };
        (self.told.iter().skip(usize::try_from(heard).unwrap_or(usize::MAX)).cloned().collect(), newest)
    }
}
