//! Campaigns: tests of many generated runs. A campaign counts its runs, keeps the first failures, and prints one line.

#![expect(clippy::print_stdout, reason = "the printed line is the result of a campaign")]
#![expect(
    clippy::disallowed_methods,
    reason = "the environment selects the length and the seed of a campaign"
)]

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs a closure that may panic. The first line of a panic becomes the failure, and is printed only with the result
/// of the campaign.
///
/// # Errors
/// Returns the first line of the panic.
pub fn catch_panic<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    QUIET.set(false);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        text.as_deref().and_then(|text| text.lines().next()).unwrap_or("panicked").to_owned()
    })
}

/// The counts and the failures of a campaign so far.
#[derive(Debug)]
pub struct Campaign {
    name: &'static str,
    runs: u64,
    failed: u64,
    failures: Vec<String>,
}

impl Campaign {
    /// Maximum number of failures that are printed.
    const SHOWN: usize = 40;

    /// Starts a campaign of that name.
    pub fn new(name: &'static str) -> Self {
        Self { name, runs: 0, failed: 0, failures: Vec::new() }
    }

    /// Counts one run, and records its failure if `result` is an error.
    pub fn run(&mut self, result: Result<(), String>) {
        self.runs += 1;
        if let Err(failure) = result {
            self.failed += 1;
            if self.failures.len() < Self::SHOWN {
                self.failures.push(failure);
            }
        }
    }

    /// Runs `run` for each of `items`, on two threads.
    pub fn over<T: Sync>(mut self, items: &[T], run: impl Fn(&T) -> Result<(), String> + Sync) -> Self {
        let half = items.len().div_ceil(2);
        let run = &run;
        std::thread::scope(|scope| {
            let halves: Vec<_> = items
                .chunks(half.max(1))
                .map(|half| scope.spawn(move || half.iter().map(run).collect::<Vec<_>>()))
                .collect();
            for results in halves {
                let failed = |_| vec![Err("a campaign's thread panicked".to_owned())];
                results.join().unwrap_or_else(failed).into_iter().for_each(|result| self.run(result));
            }
        });
        self
    }

    /// Prints the result, and panics if a run failed.
    ///
    /// # Panics
    /// If a run failed, or if there was no run.
    pub fn end(self, detail: &str) {
        println!("campaign {}: {} runs, {} failed, {detail}", self.name, self.runs, self.failed);
        assert!(self.runs > 0, "campaign {}: nothing was run", self.name);
        assert!(self.failed == 0, "campaign {}:\n{}", self.name, self.failures.join("\n"));
    }
}

/// Returns whether the full campaigns are requested.
pub fn full() -> bool {
    std::env::var("CDM_CAMPAIGNS").is_ok_and(|value| value == "full")
}

/// Returns the seed of the samples: `CDM_SEED`, or a constant.
pub fn seed() -> u64 {
    std::env::var("CDM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(2026)
}
