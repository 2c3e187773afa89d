//! How the backends stand: judged at most once a second, however often and by however many it is asked.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, join_all, select};
use tokio::sync::Mutex;

use super::backends::{Backend, BackendState};
use crate::domain::MonotonicTime;
use crate::ports::Clock;

/// How long a judgment is given as the answer.
const FRESH: Duration = Duration::from_secs(1);
/// How long a backend may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The backends with their last judgment.
///
/// Anyone may ask for it without a token, and a judgment writes. So it is made by a task of its own, which goes on when
/// the caller is gone, and whoever asks meanwhile gets the same one.
#[derive(Debug)]
pub(super) struct Readiness {
    pub(super) cared: Vec<(&'static str, Arc<dyn Backend>)>,
    clock: Arc<dyn Clock>,
    last: Mutex<Option<(MonotonicTime, Vec<BackendState>)>>,
}

impl Readiness {
    pub(super) fn new(cared: Vec<(&'static str, Arc<dyn Backend>)>, clock: Arc<dyn Clock>) -> Self {
        Self { cared, clock, last: Mutex::new(None) }
    }

    /// How every backend stands, or stood within the last second.
    #[expect(clippy::disallowed_methods, reason = "wiring is where the runtime is named")]
    pub(super) async fn states(self: &Arc<Self>) -> Vec<BackendState> {
        let here = Arc::clone(self);
        let judged = tokio::spawn(async move { here.judge().await }).await;
        // Only a runtime that ends, or a panic, leaves no answer.
        judged.unwrap_or_else(|error| {
            let problem = Some(format!("the judgment broke off: {error}"));
            self.cared.iter().map(|(name, _)| BackendState { name, problem: problem.clone() }).collect()
        })
    }

    async fn judge(&self) -> Vec<BackendState> {
        let mut last = self.last.lock().await;
        if let Some((at, states)) = &*last
            && self.clock.monotonic().since(*at) < FRESH
        {
            return states.clone();
        }
        let states = join_all(self.cared.iter().map(|(name, care)| self.look(name, &**care))).await;
        *last = Some((self.clock.monotonic(), states.clone()));
        states
    }

    async fn look(&self, name: &'static str, care: &dyn Backend) -> BackendState {
        let late = self.clock.sleep_until(self.clock.monotonic().after(PATIENCE));
        let problem = match select(care.look(), late).await {
            Either::Left((looked, _)) => looked.err(),
            Either::Right(((), _)) => Some(format!("it does not answer within {} s", PATIENCE.as_secs())),
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

    /// Counts looks; each waits until it is let go.
    #[derive(Debug, Default)]
    struct Counted {
        looks: AtomicUsize,
        go: Notify,
    }

    #[async_trait]
    impl Backend for Counted {
        async fn look(&self) -> Result<(), String> {
            self.looks.fetch_add(1, Ordering::SeqCst);
            self.go.notified().await;
            Err("it is away".to_owned())
        }
    }

    /// Stands still until it is moved.
    #[derive(Debug, Default)]
    struct Still(AtomicUsize);

    #[async_trait]
    impl Clock for Still {
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
    async fn callers_share_a_judgment_that_outlives_them() {
        let (backend, clock) = (Arc::new(Counted::default()), Arc::new(Still::default()));
        let cared = vec![("store", Arc::clone(&backend) as Arc<dyn Backend>)];
        let readiness = Arc::new(Readiness::new(cared, Arc::clone(&clock) as _));
        let away = vec![BackendState { name: "store", problem: Some("it is away".to_owned()) }];
        // Callers that go away at once leave one look behind, not a hundred.
        for _ in 0..100 {
            assert!(futures_util::poll!(Box::pin(readiness.states())).is_pending());
            tokio::task::yield_now().await;
        }
        backend.go.notify_one();
        assert_eq!(join_all((0..100).map(|_| readiness.states())).await, vec![away.clone(); 100]);
        assert_eq!(backend.looks.load(Ordering::SeqCst), 1);
        // A second later it is judged anew.
        clock.0.store(1, Ordering::SeqCst);
        backend.go.notify_one();
        assert_eq!(readiness.states().await, away);
        assert_eq!(backend.looks.load(Ordering::SeqCst), 2);
    }
}
