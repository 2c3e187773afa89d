//! The real parts that `tests/parts` starts, by the names it gives their addresses; and what a suite runs with on a real
//! clock.

use std::time::Duration;

use async_trait::async_trait;
use cdm_core::adapters::{OsIds, SystemClock};
use cdm_core::ports::Clock;
use cdm_testkit::contract::{Cx, Settle};

/// Where a part is; `None`, said aloud, where it was not started and is not required.
///
/// # Panics
/// When parts are required, and this one is not there.
#[allow(dead_code, reason = "each test of an adapter compiles this file anew")]
#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests are told by their surroundings where the real parts are, and say what they skip"
)]
pub(crate) fn address(variable: &str) -> Option<String> {
    let address = std::env::var(variable).ok().filter(|address| !address.is_empty());
    if address.is_none() {
        let required = std::env::var("CDM_PARTS").is_ok_and(|wanted| wanted == "required");
        assert!(!required, "{variable} names no part; ./tests/run starts it");
        println!("skipped: {variable} names no part; ./tests/run starts it");
    }
    address
}

/// What the surroundings say of a part that only some have; `None`, said aloud, where they say nothing.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests are told by their surroundings what there is besides, and say what they skip"
)]
#[allow(dead_code, reason = "each test of an adapter compiles this file anew")]
pub(crate) fn optional(variable: &str) -> Option<String> {
    let value = std::env::var(variable).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        println!("skipped: {variable} is not set");
    }
    value
}

/// The machine's clock and chance.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) clock: SystemClock,
    pub(crate) ids: OsIds,
}

impl Bench {
    #[allow(dead_code, reason = "each test of an adapter compiles this file anew")]
    pub(crate) fn new() -> Self {
        Self { clock: SystemClock::new(), ids: OsIds::new().expect("chance") }
    }

    #[allow(dead_code, reason = "each test of an adapter compiles this file anew")]
    pub(crate) fn cx(&self) -> Cx<'_> {
        Cx::new(&self.clock, &self.ids, self)
    }
}

#[async_trait]
impl Settle for Bench {
    /// What runs on its own in a part takes milliseconds; a suite looks again after a few of them.
    async fn settle(&self) {
        self.clock.sleep_until(self.clock.monotonic().after(Duration::from_millis(25))).await;
    }
}
