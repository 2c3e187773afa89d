//! What changed, each thing once, by the number of its last change.

use std::collections::{BTreeMap, HashMap};

use crate::ports::{ChangeCursor, Changed};

/// How many things are remembered; when there are more, the oldest are forgotten, and with them the marks before.
const MEMORY: usize = 20_000;

/// Numbers go on for as long as this process follows the changes.
#[derive(Debug, Default)]
pub(super) struct News {
    by_number: BTreeMap<u64, Changed>,
    number_of: HashMap<Changed, u64>,
    count: u64,
    /// Marks below this one are too old.
    forgotten: u64,
}

impl News {
    pub(super) fn tell(&mut self, changed: Changed) {
        self.count += 1;
        if let Some(earlier) = self.number_of.insert(changed.clone(), self.count) {
            self.by_number.remove(&earlier);
        }
        self.by_number.insert(self.count, changed);
        while self.by_number.len() > MEMORY
            && let Some((number, changed)) = self.by_number.pop_first()
        {
            self.number_of.remove(&changed);
            self.forgotten = number;
        }
    }

    /// Something may have been missed: for every mark given so far, everything has changed.
    pub(super) fn forget(&mut self) {
        self.count += 1;
        self.forgotten = self.count;
        self.by_number.clear();
        self.number_of.clear();
    }

    pub(super) fn since(&self, mark: ChangeCursor) -> (Vec<Changed>, ChangeCursor) {
        let next = ChangeCursor(self.count);
        if mark.0 < self.forgotten || mark > next {
            return (vec![Changed::Anything], next);
        }
        (self.by_number.range(mark.0 + 1..).map(|(_, changed)| changed.clone()).collect(), next)
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
    fn each_thing_is_told_once_with_its_last_change() {
        let mut news = News::default();
        assert_eq!(news.since(ChangeCursor(0)), (Vec::new(), ChangeCursor(0)));
        news.tell(job(1));
        news.tell(Changed::Service(Color::Blue));
        news.tell(job(1));
        let (all, mark) = news.since(ChangeCursor(0));
        assert_eq!(all, [Changed::Service(Color::Blue), job(1)]);
        assert_eq!(news.since(mark), (Vec::new(), mark));
        assert_eq!(news.since(ChangeCursor(2)).0, [job(1)]);
    }

    #[test]
    fn a_mark_that_is_too_old_or_of_another_process_is_told_so() {
        let mut news = News::default();
        news.tell(job(1));
        let (_, mark) = news.since(ChangeCursor(0));
        news.forget();
        for unknown in [ChangeCursor(0), mark, ChangeCursor(77)] {
            assert_eq!(news.since(unknown).0, [Changed::Anything], "{unknown:?}");
        }
        let (_, mark) = news.since(mark);
        assert_eq!(news.since(mark).0, []);
        for number in 0..=MEMORY as u64 {
            news.tell(job(number));
        }
        assert_eq!(news.since(mark).0, [Changed::Anything]);
        assert_eq!(news.since(ChangeCursor(mark.0 + 1)).0.len(), MEMORY);
    }
}
