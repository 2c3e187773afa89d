//! Addresses of the real backends that `tests/parts` starts, from environment variables, and the context of a contract
//! suite on the system clock.

use std::time::Duration;

use async_trait::async_trait;
use cdm_core::adapters::{OsIds, SystemClock};
use cdm_core::ports::Clock;
use cdm_testkit::contract::{Settle, SuiteContext};

/// Returns the address of a backend. Prints a message and returns `None` if the backend was not started and is not
/// required.
///
/// # Panics
/// If backends are required, and this one is missing.
#[allow(dead_code, reason = "each test crate compiles this file")]
#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "the environment names the backends, and skipped tests are printed"
)]
pub(crate) fn address(variable: &str) -> Option<String> {
    let address = std::env::var(variable).ok().filter(|address| !address.is_empty());
    if address.is_none() {
        let required = std::env::var("CDM_PARTS").is_ok_and(|wanted| wanted == "required");
        assert!(!required, "{variable} names no backend; ./tests/run starts it");
        println!("skipped: {variable} names no backend; ./tests/run starts it");
    }
    address
}

/// Returns the value of an optional variable. Prints a message and returns `None` if the variable is not set.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "the environment names optional backends, and skipped tests are printed"
)]
#[allow(dead_code, reason = "each test crate compiles this file")]
pub(crate) fn optional(variable: &str) -> Option<String> {
    let value = std::env::var(variable).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        println!("skipped: {variable} is not set");
    }
    value
}

/// The system clock and random ids.
#[derive(Debug)]
pub(crate) struct SystemEnv {
    pub(crate) clock: SystemClock,
    pub(crate) ids: OsIds,
}

impl SystemEnv {
    #[allow(dead_code, reason = "each test crate compiles this file")]
    pub(crate) fn new() -> Self {
        Self { clock: SystemClock::new(), ids: OsIds::new().expect("random bytes") }
    }

    #[allow(dead_code, reason = "each test crate compiles this file")]
    pub(crate) fn cx(&self) -> SuiteContext<'_> {
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
