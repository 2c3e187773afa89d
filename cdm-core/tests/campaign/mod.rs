//! What every campaign does: count its runs, keep the first failures, print one line.

#![allow(dead_code, reason = "each campaign uses its part")]

/// A campaign under way.
pub(crate) struct Campaign {
    name: &'static str,
    runs: u64,
    failed: u64,
    failures: Vec<String>,
}

impl Campaign {
    /// How many failures are shown.
    const SHOWN: usize = 40;

    /// The campaign of that name.
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, runs: 0, failed: 0, failures: Vec::new() }
    }

    /// Counts a run.
    pub(crate) fn run(&mut self, result: Result<(), String>) {
        self.runs += 1;
        if let Err(failure) = result {
            self.failed += 1;
            if self.failures.len() < Self::SHOWN {
                self.failures.push(failure);
            }
        }
    }

    /// Prints the line, and fails if a run did.
    pub(crate) fn end(self, detail: &str) {
        println!("campaign {}: {} runs, {} failed, {detail}", self.name, self.runs, self.failed);
        assert!(self.failed == 0, "campaign {}:\n{}", self.name, self.failures.join("\n"));
    }
}

/// Whether the long campaigns are asked for.
pub(crate) fn full() -> bool {
    std::env::var("CDM_CAMPAIGNS").is_ok_and(|value| value == "full")
}

/// The seed of this run's samples: the one in `CDM_SEED`, or one that is always the same.
pub(crate) fn seed() -> u64 {
    std::env::var("CDM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(2026)
}
