//! How long things may take and how often they are tried.

use std::collections::BTreeMap;
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
    /// How often a step is begun before its operation is parked. Counted is what may have ended a worker, or was refused
    /// for a conflict; not that a backend was away.
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
    /// How long a worker that was told to stop lets calls under way come to their end.
    pub grace: Duration,
}

/// How long a step waits for a backend before its operation is parked with the backend's last error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepTimeouts {
    /// While the backend is away, or asks for fewer calls.
    pub backend: Duration,
    /// While it refuses for lack of permission; at least [`StepTimeouts::LEAST_DENIED`].
    pub denied: Duration,
    /// Other patience with a backend that is away, by the step's name.
    pub steps: BTreeMap<String, Duration>,
}

impl StepTimeouts {
    /// Servers that have just started, and permissions that were just granted, are refused for minutes.
    pub const LEAST_DENIED: Duration = Duration::from_secs(300);

    /// That of the step of this name with a backend that is away.
    pub fn of(&self, step: &str) -> Duration {
        self.steps.get(step).copied().unwrap_or(self.backend)
    }
}

impl Default for StepTimeouts {
    fn default() -> Self {
        Self { backend: Duration::from_secs(3_600), denied: Self::LEAST_DENIED, steps: BTreeMap::new() }
    }
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
            longest_pause: Duration::from_secs(15),
            scan: Duration::from_secs(2),
            watch: Duration::from_secs(1),
            concurrency: 64,
            grace: Duration::from_secs(4),
        }
    }
}

/// Settings that the steps of pipelines and rollouts read.
#[derive(Clone, Debug)]
pub struct PipelineSettings {
    /// The name of the WordPress administrator on new sites. Default: `admin`.
    pub admin_user: String,
    /// The email address of the WordPress administrator on new sites. Default: `admin@example.com`.
    pub admin_email: String,
    /// How long one job may run before its operation is parked. Default: 15 min. A job that is parked too early is found
    /// again by the retry.
    pub job_timeout: Duration,
    /// How many jobs may fail in one step before its operation is parked. Default: 3.
    pub job_tries: u32,
    /// How long an operation waits for a service to be ready before it is parked. Default: 15 min.
    pub ready_timeout: Duration,
    /// How long a new image may take to get ready where the cluster reports no progress deadline. Default: 15 min.
    pub image_timeout: Duration,
    /// The interval at which a waiting operation is attempted while the cluster reports no change. Default: 5 s. A longer
    /// one makes fewer calls and notices a lost report later.
    pub poll_interval: Duration,
    /// How long steps wait for a backend that does not serve them.
    pub timeouts: StepTimeouts,
}

impl Default for PipelineSettings {
    fn default() -> Self {
        Self {
            admin_user: "admin".to_owned(),
            admin_email: "admin@example.com".to_owned(),
            job_timeout: Duration::from_secs(900),
            job_tries: 3,
            ready_timeout: Duration::from_secs(900),
            image_timeout: Duration::from_secs(900),
            poll_interval: Duration::from_secs(5),
            timeouts: StepTimeouts::default(),
        }
    }
}
