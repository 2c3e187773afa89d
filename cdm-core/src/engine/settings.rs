//! Durations and limits of the engine, and of the steps that it runs.

use std::collections::BTreeMap;
use std::time::Duration;

/// The settings of the engine. The defaults suit a platform with some thousand sites.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long after its last heartbeat a worker counts as lost, on the monotonic clock of the observer. Default:
    /// 20 s. A shorter lease speeds up takeovers, but a slow store can then cost a running worker its operations.
    pub lease: Duration,
    /// The interval of heartbeats. Default: 5 s. A shorter one makes more writes; with a longer one fewer lost
    /// heartbeats end the lease.
    pub beat: Duration,
    /// The timeout of one call. Default: 8 s. A longer one lets slow calls succeed, but must fit into the lease.
    pub call: Duration,
    /// The part of the lease that must remain at the deadline of a call. Default: 2 s. A larger margin
    /// tolerates calls that end late and clocks that run at different rates, and leaves less of the lease for calls.
    pub margin: Duration,
    /// The number of attempts at a step before its operation is parked. Default: 8. An attempt counts if it may have
    /// ended the worker or failed with a conflict; an attempt that an unavailable backend did not serve does not. A
    /// higher number survives more crashes and conflicts, and reports a persistent error later.
    pub attempts: u32,
    /// The shortest pause before another attempt. Default: 200 ms. A shorter one recovers faster and puts more load on a
    /// backend that fails.
    pub pause: Duration,
    /// The longest pause before another attempt. Default: 15 s. A longer one makes fewer calls and detects the recovery
    /// of a backend later.
    pub longest_pause: Duration,
    /// The interval at which a worker reads the pending work without a notification. Default: 2 s. A shorter one starts
    /// work of other processes earlier and makes more reads.
    pub scan: Duration,
    /// The interval of these reads while another worker owns work. Default: 1 s. A shorter one detects the loss of that
    /// worker earlier and makes more reads.
    pub watch: Duration,
    /// The number of operations and rollouts that a worker runs concurrently, and the limit of sites of a rollout that
    /// it moves concurrently. Default: 64. A higher number needs more connections to the backends.
    pub concurrency: usize,
    /// How long a worker that stops waits for calls in progress, and then for the release of its operations. Default:
    /// 4 s. With a shorter time more operations wait for the end of the lease.
    pub grace: Duration,
}

/// The timeouts of steps: how long a step waits for a backend before its operation is parked with the last error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepTimeouts {
    /// The timeout while a backend is unavailable or throttles. Default: 1 h. A longer one survives longer outages
    /// without a user; a shorter one reports an outage earlier.
    pub backend: Duration,
    /// The timeout while a backend denies permission, at least [`StepTimeouts::MIN_DENIED`]. Default: 5 min. A longer
    /// one tolerates permissions that take effect late, and reports a missing one later.
    pub denied: Duration,
    /// Timeouts that replace `backend`, by the name of the step. Default: none.
    pub steps: BTreeMap<String, Duration>,
}

impl StepTimeouts {
    /// The least value of `denied`, 5 min: after an API server has started or a permission was granted, calls can be
    /// denied for minutes.
    pub const MIN_DENIED: Duration = Duration::from_secs(300);

    /// Returns the timeout of the step of this name while a backend is unavailable or throttles.
    pub fn of(&self, step: &str) -> Duration {
        self.steps.get(step).copied().unwrap_or(self.backend)
    }
}

impl Default for StepTimeouts {
    fn default() -> Self {
        Self { backend: Duration::from_secs(3_600), denied: Self::MIN_DENIED, steps: BTreeMap::new() }
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
    /// How many jobs may fail in one step before its operation is parked. Default: 3. A higher number passes more
    /// transient failures, and reports a persistent one later.
    pub job_tries: u32,
    /// How long an operation waits for a service to be ready before it is parked. Default: 15 min. A longer time passes
    /// longer disruptions without a user.
    pub ready_timeout: Duration,
    /// How long a new image may take to get ready if the cluster reports no progress deadline. Default: 15 min. A longer
    /// time tolerates slow pulls, and keeps the service locked for longer.
    pub image_timeout: Duration,
    /// The interval at which a waiting operation is attempted while the cluster reports no change. Default: 5 s. A
    /// longer one makes fewer calls and detects a lost report later.
    pub poll_interval: Duration,
    /// How long steps wait for a backend that does not serve them. Default: [`StepTimeouts::default`].
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
