//! Medians, percentiles, time on a processor, resident memory.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Several rounds of one measure.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds(Vec<f64>);

impl Rounds {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Round by round.
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

/// The median, and in brackets the least and the most.
impl fmt::Display for Rounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let digits = f.precision().unwrap_or(0);
        write!(f, "{:.digits$} [{least:.digits$}–{most:.digits$}]", self.median())
    }
}

/// The value that this share of `sorted` does not exceed.
pub(crate) fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    let index = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(index.saturating_sub(1).min(last)).copied().unwrap_or_default()
}

/// Time on a processor of the thread that asks; zero where the system does not tell.
pub(crate) fn of_this_thread() -> Duration {
    // The account is brought up to date when the thread gives the processor away.
    std::thread::yield_now();
    scheduled(Path::new("/proc/thread-self/schedstat"))
}

/// Time on a processor of every thread of this process that lives.
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

/// What the system tells of another process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen(pub(crate) u32);

impl Seen {
    /// Megabytes in memory: now, and at most so far.
    pub(crate) fn resident(self) -> Option<(f64, f64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        Some((field("VmRSS:")? / 1024.0, field("VmHWM:")? / 1024.0))
    }

    /// Time on a processor, of all its threads that live.
    pub(crate) fn cpu(self) -> Duration {
        self.tasks().map(|task| scheduled(&task.join("schedstat"))).sum()
    }

    /// How often a thread of it began to run.
    pub(crate) fn wakes(self) -> u64 {
        let switches = |task: std::path::PathBuf| -> u64 {
            let status = fs::read_to_string(task.join("status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
        };
        self.tasks().map(switches).sum()
    }

    /// How often it read and wrote.
    pub(crate) fn calls(self) -> Option<(u64, u64)> {
        let io = fs::read_to_string(format!("/proc/{}/io", self.0)).ok()?;
        let field = |name: &str| {
            let line = io.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse().ok()
        };
        Some((field("syscr:")?, field("syscw:")?))
    }

    /// How many threads it has.
    pub(crate) fn threads(self) -> usize {
        self.tasks().count()
    }

    fn tasks(self) -> impl Iterator<Item = std::path::PathBuf> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0)).into_iter().flatten().flatten();
        tasks.map(|task| task.path())
    }
}

/// The value, or the program's end: a program that measures has nobody to hand an error to.
pub(crate) fn must<T, E: fmt::Display>(what: &str, result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {error}"))
}
