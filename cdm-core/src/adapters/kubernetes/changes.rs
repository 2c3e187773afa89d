//! The log of changes: each object once, with the number of its last change.

use std::collections::{BTreeMap, HashMap};

use crate::ports::{ChangeCursor, Changed};

/// How many objects are kept. Beyond it, the oldest are discarded, and cursors before them become invalid.
const MAX_OBJECTS: usize = 20_000;

/// Numbers increase for the lifetime of this process.
#[derive(Debug, Default)]
pub(super) struct ChangeLog {
    by_number: BTreeMap<u64, Changed>,
    number_of: HashMap<Changed, u64>,
    count: u64,
    /// Cursors below this number are too old.
    oldest: u64,
}

impl ChangeLog {
    pub(super) fn record(&mut self, changed: Changed) {
        self.count += 1;
        if let Some(earlier) = self.number_of.insert(changed.clone(), self.count) {
            self.by_number.remove(&earlier);
        }
        self.by_number.insert(self.count, changed);
        while self.by_number.len() > MAX_OBJECTS
            && let Some((number, changed)) = self.by_number.pop_first()
        {
            self.number_of.remove(&changed);
            self.oldest = number;
        }
    }

    /// Invalidates all cursors: changes may have been missed, so everything may have changed.
    pub(super) fn invalidate(&mut self) {
        self.count += 1;
        self.oldest = self.count;
        self.by_number.clear();
        self.number_of.clear();
    }

    pub(super) fn since(&self, cursor: ChangeCursor) -> (Vec<Changed>, ChangeCursor) {
        let next = ChangeCursor(self.count);
        if cursor.0 < self.oldest || cursor > next {
            return (vec![Changed::Anything], next);
        }
        (self.by_number.range(cursor.0 + 1..).map(|(_, changed)| changed.clone()).collect(), next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Color, JobName};

    fn job(number: u64) -> Changed {
        Changed::Job(JobName::of_window("flush-caches", number, 0, 1))
    }

    #[test]
    fn an_object_is_reported_once_with_its_last_change() {
        let mut changes = ChangeLog::default();
        assert_eq!(changes.since(ChangeCursor(0)), (Vec::new(), ChangeCursor(0)));
        changes.record(job(1));
        changes.record(Changed::Service(Color::Blue));
        changes.record(job(1));
        let (all, cursor) = changes.since(ChangeCursor(0));
        assert_eq!(all, [Changed::Service(Color::Blue), job(1)]);
        assert_eq!(changes.since(cursor), (Vec::new(), cursor));
        assert_eq!(changes.since(ChangeCursor(2)).0, [job(1)]);
    }

    #[test]
    fn an_unknown_cursor_reports_that_anything_may_have_changed() {
        let mut changes = ChangeLog::default();
        changes.record(job(1));
        let (_, cursor) = changes.since(ChangeCursor(0));
        changes.invalidate();
        for unknown in [ChangeCursor(0), cursor, ChangeCursor(77)] {
            assert_eq!(changes.since(unknown).0, [Changed::Anything], "{unknown:?}");
        }
        let (_, cursor) = changes.since(cursor);
        assert_eq!(changes.since(cursor).0, []);
        for number in 0..=MAX_OBJECTS as u64 {
            changes.record(job(number));
        }
        assert_eq!(changes.since(cursor).0, [Changed::Anything]);
        assert_eq!(changes.since(ChangeCursor(cursor.0 + 1)).0.len(), MAX_OBJECTS);
    }
}
