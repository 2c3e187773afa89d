//! The readiness of the backends. Checks run at most once per second, for all callers together.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, join_all, select};
use tokio::sync::Mutex;

use super::backends::{Backend, BackendState};
use crate::domain::MonotonicTime;
use crate::ports::Clock;

/// How long the result of a check is returned.
const MAX_AGE: Duration = Duration::from_secs(1);
/// How long the check of a backend may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// The backends, with the result of their last check.
///
/// Readiness is available without a token, and a check writes. So a check runs in a separate task, which continues when its
/// caller disconnects, and concurrent callers get the same result.
#[derive(Debug)]
pub(super) struct Readiness {
    pub(super) backends: Vec<(&'static str, Arc<dyn Backend>)>,
    clock: Arc<dyn Clock>,
    last: Mutex<Option<(MonotonicTime, Vec<BackendState>)>>,
}

impl Readiness {
    pub(super) fn new(backends: Vec<(&'static str, Arc<dyn Backend>)>, clock: Arc<dyn Clock>) -> Self {
        Self { backends, clock, last: Mutex::new(None) }
    }

    /// Returns the state of every backend, at most one second old.
    #[expect(clippy::disallowed_methods, reason = "wiring is where the runtime is named")]
    pub(super) async fn states(self: &Arc<Self>) -> Vec<BackendState> {
        let shared = Arc::clone(self);
        let checked = tokio::spawn(async move { shared.check_all().await }).await;
        // The task fails only if it panics or the runtime shuts down.
        checked.unwrap_or_else(|error| {
            let problem = Some(format!("the check did not complete: {error}"));
            self.backends.iter().map(|(name, _)| BackendState { name, problem: problem.clone() }).collect()
        })
    }

    async fn check_all(&self) -> Vec<BackendState> {
        let mut last = self.last.lock().await;
        if let Some((at, states)) = &*last
            && self.clock.monotonic().since(*at) < MAX_AGE
        {
            return states.clone();
        }
        let states = join_all(self.backends.iter().map(|(name, backend)| self.check(name, &**backend))).await;
        *last = Some((self.clock.monotonic(), states.clone()));
        states
    }

    async fn check(&self, name: &'static str, backend: &dyn Backend) -> BackendState {
        let timeout = self.clock.sleep_until(self.clock.monotonic().after(CHECK_TIMEOUT));
        let problem = match select(backend.check(), timeout).await {
            Either::Left((result, _)) => result.err(),
            Either::Right(((), _)) => Some(format!("no response within {} s", CHECK_TIMEOUT.as_secs())),
        };
        BackendState { name, problem }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use tokio::sync::Notify;

    use super::*;
    use crate::domain::Timestamp;

    /// Counts checks; each waits for `release`.
    #[derive(Debug, Default)]
    struct CountingBackend {
        checks: AtomicUsize,
        release: Notify,
    }

    #[async_trait]
    impl Backend for CountingBackend {
        async fn check(&self) -> Result<(), String> {
            self.checks.fetch_add(1, Ordering::SeqCst);
            self.release.notified().await;
            Err("unavailable".to_owned())
        }
    }

    /// A clock that a test moves; its value is in seconds.
    #[derive(Debug, Default)]
    struct ManualClock(AtomicUsize);

    #[async_trait]
    impl Clock for ManualClock {
        fn wall(&self) -> Timestamp {
            Timestamp::from_millis(0)
        }

        fn monotonic(&self) -> MonotonicTime {
            MonotonicTime::default().after(Duration::from_secs(self.0.load(Ordering::SeqCst) as u64))
        }

        async fn sleep_until(&self, _tick: MonotonicTime) {
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn callers_share_a_check_that_outlives_them() {
        let (backend, clock) = (Arc::new(CountingBackend::default()), Arc::new(ManualClock::default()));
        let backends = vec![("store", Arc::clone(&backend) as Arc<dyn Backend>)];
        let readiness = Arc::new(Readiness::new(backends, Arc::clone(&clock) as _));
        let unavailable = vec![BackendState { name: "store", problem: Some("unavailable".to_owned()) }];
        // A hundred callers that disconnect at once start one check, not a hundred.
        for _ in 0..100 {
            assert!(futures_util::poll!(Box::pin(readiness.states())).is_pending());
            tokio::task::yield_now().await;
        }
        backend.release.notify_one();
        assert_eq!(join_all((0..100).map(|_| readiness.states())).await, vec![unavailable.clone(); 100]);
        assert_eq!(backend.checks.load(Ordering::SeqCst), 1);
        // One second later, the backend is checked again.
        clock.0.store(1, Ordering::SeqCst);
        backend.release.notify_one();
        assert_eq!(readiness.states().await, unavailable);
        assert_eq!(backend.checks.load(Ordering::SeqCst), 2);
    }
}
