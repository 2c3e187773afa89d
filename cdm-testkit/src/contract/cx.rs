//! What every contract suite needs besides the port: fresh names, calls, and a bounded patience.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use cdm_core::domain::{Fence, JobName, SiteId, Uid};
use cdm_core::ports::{CallContext, Clock, Entropy, ErrorKind, Outcome, PortError};

/// Lets a moment pass for what follows in its own time.
#[async_trait]
pub trait Settle: Send + Sync + fmt::Debug {
    /// Lets about a second pass: a simulated world moves its clock, a real one sleeps.
    async fn settle(&self);

    /// Whether the backend holds credentials that were put there for a job; `None` where a test cannot see that.
    fn holds_credentials(&self, _job: &JobName) -> Option<bool> {
        None
    }
}

/// What a suite runs with.
#[derive(Clone, Copy, Debug)]
pub struct Cx<'a> {
    clock: &'a dyn Clock,
    ids: &'a dyn Entropy,
    settle: &'a dyn Settle,
}

impl<'a> Cx<'a> {
    /// How many times a suite lets a moment pass for one thing before the promise counts as broken.
    pub const PATIENCE: usize = 240;

    /// How long a call may take.
    const DEADLINE: Duration = Duration::from_secs(30);

    /// A suite's context: deadlines by `clock`, names by `ids`, waiting by `settle`.
    pub const fn new(clock: &'a dyn Clock, ids: &'a dyn Entropy, settle: &'a dyn Settle) -> Self {
        Self { clock, ids, settle }
    }

    /// The source of names.
    pub const fn ids(&self) -> &'a dyn Entropy {
        self.ids
    }

    /// Whether the backend holds credentials of a job; see [`Settle::holds_credentials`].
    pub fn holds_credentials(&self, job: &JobName) -> Option<bool> {
        self.settle.holds_credentials(job)
    }

    /// A fresh uid.
    pub fn uid(&self) -> Uid {
        self.ids.uid(self.clock.wall())
    }

    /// Two fresh uids whose texts differ in the last character only.
    pub fn neighbours(&self) -> (Uid, Uid) {
        let text = self.uid().to_string();
        let stem = text.get(..text.len() - 1).unwrap_or_default();
        let with = |last| match Uid::parse(&format!("{stem}{last}")) {
            Ok(uid) => uid,
            Err(error) => panic!("a uid is a uid with any last digit: {error}"),
        };
        (with('0'), with('1'))
    }

    /// The id of a site of that uid, for people.
    pub fn site(&self, uid: Uid) -> SiteId {
        match SiteId::parse(&format!("c{uid}")) {
            Ok(site) => site,
            Err(error) => panic!("a letter and a uid are a site id: {error}"),
        }
    }

    /// A number that no operation has had.
    pub fn number(&self) -> u64 {
        self.ids.write().0
    }

    /// A call of an operation of its own.
    pub fn call(&self) -> CallContext {
        self.call_under(Fence::new(self.number(), 1))
    }

    /// A call under a fence, with time enough.
    pub fn call_under(&self, fence: Fence) -> CallContext {
        let deadline = self.clock.monotonic().after(Self::DEADLINE);
        CallContext { deadline, write: self.ids.write(), fence }
    }

    /// A call that has waited somewhere until its deadline had passed.
    pub async fn late_call(&self) -> CallContext {
        let call = CallContext { deadline: self.clock.monotonic(), ..self.call() };
        for _ in 0..Self::PATIENCE {
            if self.clock.monotonic() > call.deadline {
                return call;
            }
            self.settle().await;
        }
        panic!("a clock goes on while moments pass");
    }

    /// Lets a moment pass.
    pub async fn settle(&self) {
        self.settle.settle().await;
    }

    /// Looks until there is something to see, and panics with the promise when patience is at its end.
    pub async fn until<T>(&self, promise: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        for _ in 0..Self::PATIENCE {
            if let Some(seen) = look().await {
                return seen;
            }
            self.settle().await;
        }
        panic!("broken promise: {promise}");
    }
}

/// The value of an applied call; panics with the promise otherwise.
#[track_caller]
pub(super) fn applied<T>(promise: &str, outcome: Outcome<T>) -> T {
    match outcome {
        Outcome::Applied(value) => value,
        Outcome::NotApplied(error) => {
            panic!("broken promise: {promise}; refused as {:?}: {error}", error.kind)
        }
        Outcome::Unknown(error) => panic!("broken promise: {promise}; unknown: {error}"),
    }
}

/// Panics with the promise unless the call was refused as `kind`.
#[track_caller]
pub(super) fn refused<T>(promise: &str, kind: ErrorKind, outcome: Outcome<T>) {
    match outcome {
        Outcome::Applied(_) => panic!("broken promise: {promise}; it was applied"),
        Outcome::NotApplied(error) => {
            assert_eq!(error.kind, kind, "broken promise: {promise}; refused with: {error}");
        }
        Outcome::Unknown(error) => panic!("broken promise: {promise}; unknown: {error}"),
    }
}

/// The answer to a read; panics with the promise when there is none.
#[track_caller]
pub(super) fn answered<T>(promise: &str, answer: Result<T, PortError>) -> T {
    match answer {
        Ok(value) => value,
        Err(error) => panic!("broken promise: {promise}; not answered, {:?}: {error}", error.kind),
    }
}
