//! Clocks, medians and resident memory.

#![expect(clippy::disallowed_methods, reason = "benchmarks measure time")]

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

/// Duration of a measured action: wall-clock time, and CPU time of this thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Elapsed {
    /// The time that passed, including waits.
    pub wall: Duration,
    /// CPU time of the measuring thread.
    pub cpu: Duration,
}

impl std::ops::AddAssign for Elapsed {
    fn add_assign(&mut self, other: Self) {
        self.wall += other.wall;
        self.cpu += other.cpu;
    }
}

/// Runs `act`, and returns its duration and its result.
pub fn time<T>(act: impl FnOnce() -> T) -> (Elapsed, T) {
    let (wall, cpu) = (Instant::now(), cpu());
    let value = act();
    let wall = wall.elapsed();
    let cpu = match (cpu, self::cpu()) {
        (Some(before), Some(after)) => after.saturating_sub(before),
        _ => wall,
    };
    (Elapsed { wall, cpu }, value)
}

/// Returns the CPU time of this thread so far; `None` where the system does not report it, in which case wall-clock
/// time is used.
fn cpu() -> Option<Duration> {
    // The counters are updated when the thread yields the processor.
    std::thread::yield_now();
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(text.split_whitespace().next()?.parse().ok()?))
}

/// Several rounds of one measurement.
#[derive(Clone, Debug, Default)]
pub struct Rounds(Vec<f64>);

impl Rounds {
    /// Adds the measurement of a round.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Combines two measurements round by round.
    #[must_use]
    pub fn with(&self, other: &Self, combine: impl Fn(f64, f64) -> f64) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| combine(*a, *b)).collect())
    }

    /// Changes the measurement of each round.
    #[must_use]
    pub fn each(&self, change: impl Fn(f64) -> f64) -> Self {
        Self(self.0.iter().map(|value| change(*value)).collect())
    }

    /// Returns the median; NaN without rounds.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            n => (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0,
        }
    }
}

/// Formats the median, followed by the minimum and the maximum in brackets.
impl fmt::Display for Rounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let digits = f.precision().unwrap_or(0);
        write!(f, "{:.digits$} [{least:.digits$}–{most:.digits$}]", self.median())
    }
}

/// Returns the resident memory of this process in kilobytes: the current value, and the peak since [`reset_peak`].
pub fn resident_kb() -> Option<(u64, u64)> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Some((field("VmRSS:")?, field("VmHWM:")?))
}

/// Resets the peak; returns `false` where the system does not support it.
pub fn reset_peak() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}
