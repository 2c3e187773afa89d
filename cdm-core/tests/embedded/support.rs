//! The environment of each test: its own directory, the system clock and random ids.

use std::time::Duration;

use async_trait::async_trait;
use cdm_core::adapters::embedded::File;
use cdm_core::adapters::{OsIds, SystemClock};
use cdm_core::ports::Clock;
use cdm_testkit::contract::{Settle, SuiteContext};
use tempfile::TempDir;

/// A directory with its database file, the system clock and random ids.
#[derive(Debug)]
pub(crate) struct TestEnv {
    pub(crate) dir: TempDir,
    pub(crate) file: File,
    pub(crate) clock: SystemClock,
    pub(crate) ids: OsIds,
}

impl TestEnv {
    pub(crate) async fn new() -> Self {
        let dir = TempDir::new().expect("a directory for the test");
        let file = File::open(&dir.path().join("cdm.db")).await.expect("a database file");
        Self { dir, file, clock: SystemClock::new(), ids: OsIds::new().expect("chance") }
    }

    pub(crate) fn cx(&self) -> SuiteContext<'_> {
        SuiteContext::new(&self.clock, &self.ids, self)
    }
}

#[async_trait]
impl Settle for TestEnv {
    /// Background work of the adapters takes milliseconds; the suite polls again after a few of them.
    async fn settle(&self) {
        self.clock.sleep_until(self.clock.monotonic().after(Duration::from_millis(25))).await;
    }
}
