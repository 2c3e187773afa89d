//! What each contract suite needs besides the port: unique names, calls, and a limit on waiting.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use cdm_core::domain::{Epoch, Fence, JobName, SiteId, Uid};
use cdm_core::ports::{CallContext, Clock, Entropy, ErrorKind, Outcome, PortError};

/// Lets time pass for effects that are not immediate.
#[async_trait]
pub trait Settle: Send + Sync + fmt::Debug {
    /// Lets about a second pass: a simulated platform advances its clock, a real backend sleeps.
    async fn settle(&self);

    /// Returns whether the backend has credentials for a job; `None` if the test cannot check this.
    fn holds_credentials(&self, _job: &JobName) -> Option<bool> {
        None
    }
}

/// The clock, names and waiting of a suite.
#[derive(Clone, Copy, Debug)]
pub struct SuiteContext<'a> {
    clock: &'a dyn Clock,
    ids: &'a dyn Entropy,
    settle: &'a dyn Settle,
}

impl<'a> SuiteContext<'a> {
    /// Maximum waits of a suite for one condition. The guarantee counts as broken after them.
    pub const MAX_WAITS: usize = 240;

    /// Deadline of each call.
    const DEADLINE: Duration = Duration::from_secs(30);

    /// Creates a context with deadlines by `clock`, names by `ids` and waiting by `settle`.
    pub const fn new(clock: &'a dyn Clock, ids: &'a dyn Entropy, settle: &'a dyn Settle) -> Self {
        Self { clock, ids, settle }
    }

    /// Returns the source of names.
    pub const fn ids(&self) -> &'a dyn Entropy {
        self.ids
    }

    /// Returns whether the backend has credentials of a job; see [`Settle::holds_credentials`].
    pub fn holds_credentials(&self, job: &JobName) -> Option<bool> {
        self.settle.holds_credentials(job)
    }

    /// Returns a uid that no other call returns.
    pub fn uid(&self) -> Uid {
        self.ids.uid(self.clock.wall())
    }

    /// Returns two new uids whose texts differ only in the last character.
    pub fn neighbors(&self) -> (Uid, Uid) {
        let text = self.uid().to_string();
        let stem = text.get(..text.len() - 1).unwrap_or_default();
        let with = |last| match Uid::parse(&format!("{stem}{last}")) {
            Ok(uid) => uid,
            Err(error) => panic!("a uid with another last digit must be a uid: {error}"),
        };
        (with('0'), with('1'))
    }

    /// Returns the site id `c` followed by the uid, so that tests do not share sites.
    pub fn site(&self, uid: Uid) -> SiteId {
        match SiteId::parse(&format!("c{uid}")) {
            Ok(site) => site,
            Err(error) => panic!("a letter and a uid must form a site id: {error}"),
        }
    }

    /// Returns a number that no operation has.
    pub fn number(&self) -> u64 {
        self.ids.write().0
    }

    /// Returns the context of a call by a new operation.
    pub fn call(&self) -> CallContext {
        self.call_under(Fence::new(self.number(), Epoch(1)))
    }

    /// Returns the context of a call with this fence and a deadline 30 seconds from now.
    pub fn call_under(&self, fence: Fence) -> CallContext {
        let deadline = self.clock.monotonic().after(Self::DEADLINE);
        CallContext { deadline, write: self.ids.write(), fence }
    }

    /// Returns the context of a call whose deadline has passed.
    pub async fn late_call(&self) -> CallContext {
        let call = CallContext { deadline: self.clock.monotonic(), ..self.call() };
        for _ in 0..Self::MAX_WAITS {
            if self.clock.monotonic() > call.deadline {
                return call;
            }
            self.settle().await;
        }
        panic!("the clock does not advance");
    }

    /// Lets about a second pass.
    pub async fn settle(&self) {
        self.settle.settle().await;
    }

    /// Calls `look` until it returns a value. Panics with the promise after the maximum number of waits.
    pub async fn until<T>(&self, promise: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        for _ in 0..Self::MAX_WAITS {
            if let Some(seen) = look().await {
                return seen;
            }
            self.settle().await;
        }
        panic!("broken promise: {promise}");
    }
}

/// Returns the value of an applied call; panics with the promise otherwise.
#[track_caller]
pub(super) fn applied<T>(promise: &str, outcome: Outcome<T>) -> T {
    match outcome {
        Outcome::Applied(value) => value,
        Outcome::NotApplied(error) => {
            panic!("broken promise: {promise}; rejected as {:?}: {error}", error.kind)
        }
        Outcome::Unknown(error) => panic!("broken promise: {promise}; unknown: {error}"),
    }
}

/// Panics with the promise unless the call was rejected as `kind`.
#[track_caller]
pub(super) fn rejected<T>(promise: &str, kind: ErrorKind, outcome: Outcome<T>) {
    match outcome {
        Outcome::Applied(_) => panic!("broken promise: {promise}; it was applied"),
        Outcome::NotApplied(error) => {
            assert_eq!(error.kind, kind, "broken promise: {promise}; rejected with: {error}");
        }
        Outcome::Unknown(error) => panic!("broken promise: {promise}; unknown: {error}"),
    }
}

/// Returns the result of a read; panics with the promise if the read failed.
#[track_caller]
pub(super) fn read_value<T>(promise: &str, result: Result<T, PortError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("broken promise: {promise}; the read failed, {:?}: {error}", error.kind),
    }
}
