//! The system clock and random ids, for a contract suite on a real backend.

use std::time::Duration;

use async_trait::async_trait;
use cdm_core::adapters::{OsIds, SystemClock};
use cdm_core::ports::Clock;

use super::{Settle, SuiteContext};

/// The system clock and random ids.
#[derive(Debug)]
pub struct SystemEnv {
    /// The clock of the machine: suites that use it take real time.
    pub clock: SystemClock,
    /// Ids from the random number generator of the system.
    pub ids: OsIds,
}

impl SystemEnv {
    /// Creates an environment.
    ///
    /// # Panics
    /// If the operating system has no random bytes.
    #[expect(clippy::new_without_default, reason = "random bytes are required")]
    pub fn new() -> Self {
        Self { clock: SystemClock::new(), ids: OsIds::new().expect("random bytes") }
    }

    /// Returns a context that borrows this environment, for one suite.
    pub fn cx(&self) -> SuiteContext<'_> {
        SuiteContext::new(&self.clock, &self.ids, self)
    }
}

#[async_trait]
impl Settle for SystemEnv {
    /// Background work of a backend takes milliseconds; the suite polls again after a few of them.
    async fn settle(&self) {
        self.clock.sleep_until(self.clock.monotonic().after(Duration::from_millis(25))).await;
    }
}
