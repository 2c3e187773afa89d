//! How long things may take and how often they are tried.

use std::time::Duration;

/// The engine's measures. Plain values; the defaults suit a platform of some thousand sites.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long after its last sign of life a worker is taken for lost, on the observer's clock.
    pub lease: Duration,
    /// How often a worker gives a sign of life.
    pub beat: Duration,
    /// How long one call may take at most.
    pub call: Duration,
    /// What must be left of the lease when a call's deadline has come.
    pub margin: Duration,
    /// How often a step is begun before its operation is parked.
    pub attempts: u32,
    /// The shortest pause before another attempt.
    pub pause: Duration,
    /// The longest.
    pub longest_pause: Duration,
    /// How often a worker looks for work that nobody told it of.
    pub scan: Duration,
    /// How often it looks while another worker has something: whose sign of life was seen late is taken for lost late.
    pub watch: Duration,
    /// How many operations a worker runs at once.
    pub concurrency: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(20),
            beat: Duration::from_secs(5),
            call: Duration::from_secs(8),
            margin: Duration::from_secs(2),
            attempts: 8,
            pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(30),
            scan: Duration::from_secs(2),
            watch: Duration::from_secs(1),
            concurrency: 64,
        }
    }
}
