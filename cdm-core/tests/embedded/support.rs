//! A directory of its own for every test, and what a contract suite runs with on a real clock.

use std::time::Duration;

use async_trait::async_trait;
use cdm_core::adapters::embedded::File;
use cdm_core::adapters::{OsIds, SystemClock};
use cdm_core::ports::Clock;
use cdm_testkit::contract::{Cx, Settle};
use tempfile::TempDir;

/// A directory, its database file, the machine's clock and its chance.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    pub(crate) file: File,
    pub(crate) clock: SystemClock,
    pub(crate) ids: OsIds,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let dir = TempDir::new().expect("a directory for the test");
        let file = File::open(&dir.path().join("cdm.db")).await.expect("a database file");
        Self { dir, file, clock: SystemClock::new(), ids: OsIds::new().expect("chance") }
    }

    pub(crate) fn cx(&self) -> Cx<'_> {
        Cx::new(&self.clock, &self.ids, self)
    }
}

#[async_trait]
impl Settle for Bench {
    /// What runs on its own here takes milliseconds; a suite looks again after a few of them.
    async fn settle(&self) {
        self.clock.sleep_until(self.clock.monotonic().after(Duration::from_millis(25))).await;
    }
}
