//! Medians, percentiles, CPU time, resident memory.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Several rounds of one measurement.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds(Vec<f64>);

impl Rounds {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Combines two measurements round by round.
    pub(crate) fn with(&self, other: &Self, combine: impl Fn(f64, f64) -> f64) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| combine(*a, *b)).collect())
    }

    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            n => f64::midpoint(sorted[(n - 1) / 2], sorted[n / 2]),
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

/// Returns the value that this share of `sorted` does not exceed.
pub(crate) fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    let index = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(index.saturating_sub(1).min(last)).copied().unwrap_or_default()
}

/// Returns the CPU time of the calling thread; zero where the system does not report it.
pub(crate) fn of_this_thread() -> Duration {
    // The counters are updated when the thread yields the processor.
    std::thread::yield_now();
    scheduled(Path::new("/proc/thread-self/schedstat"))
}

/// Returns the CPU time of every live thread of this process.
pub(crate) fn of_all_threads() -> Duration {
    std::thread::yield_now();
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks.map(|task| scheduled(&task.path().join("schedstat"))).sum()
}

fn scheduled(path: &Path) -> Duration {
    let text = fs::read_to_string(path).unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// Statistics of another process, as reported by the system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessStats(pub(crate) u32);

impl ProcessStats {
    /// Returns the resident memory in megabytes: the current value, and the peak.
    pub(crate) fn resident(self) -> Option<(f64, f64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        Some((field("VmRSS:")? / 1024.0, field("VmHWM:")? / 1024.0))
    }

    /// Returns the CPU time of all live threads.
    pub(crate) fn cpu(self) -> Duration {
        self.tasks().map(|task| scheduled(&task.join("schedstat"))).sum()
    }

    /// Returns how often a thread of the process was scheduled.
    pub(crate) fn wakeups(self) -> u64 {
        let switches = |task: std::path::PathBuf| -> u64 {
            let status = fs::read_to_string(task.join("status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
        };
        self.tasks().map(switches).sum()
    }

    /// Returns the numbers of reads and writes.
    pub(crate) fn calls(self) -> Option<(u64, u64)> {
        let io = fs::read_to_string(format!("/proc/{}/io", self.0)).ok()?;
        let field = |name: &str| {
            let line = io.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse().ok()
        };
        Some((field("syscr:")?, field("syscw:")?))
    }

    /// Returns the number of threads.
    pub(crate) fn threads(self) -> usize {
        self.tasks().count()
    }

    fn tasks(self) -> impl Iterator<Item = std::path::PathBuf> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0)).into_iter().flatten().flatten();
        tasks.map(|task| task.path())
    }
}

/// Returns the value, or panics: a benchmark has no caller that could handle an error.
pub(crate) fn must<T, E: fmt::Display>(what: &str, result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {error}"))
}
