//! The append-only log of all effects on the simulated platform.
//!
//! Each fake appends an effect under its own lock when the effect takes place. Invariants are checked over this
//! log, and runs are compared by it, so a test does not have to state what it expects of a fake.

use std::sync::{Arc, Mutex, PoisonError};

use cdm_core::domain::{
    Color, Digest, Fence, Fleet, JobName, MonotonicTime, Operation, Rollout, SecretName, Service, Site, Uid,
};

/// An effect on the simulated platform.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    /// Time of the effect on the simulated clock.
    pub at: MonotonicTime,
    /// Fence of the operation and epoch that caused the effect; zero if no operation did.
    pub by: Fence,
    /// What the effect changed.
    pub kind: EffectKind,
}

/// The kind of an effect, with its data.
#[derive(Clone, Debug, PartialEq)]
pub enum EffectKind {
    /// A site's record was written: the record before and after.
    Site(Option<Arc<Site>>, Option<Arc<Site>>),
    /// A service's record was written.
    Service(Arc<Service>),
    /// The fleet's record was written.
    Fleet(Arc<Fleet>),
    /// A rollout's record was written.
    Rollout(Arc<Rollout>),
    /// An operation reached a final status, in this record.
    Ended(Arc<Operation>),
    /// A secret was created.
    SecretCreated(SecretName),
    /// A secret was scheduled for deletion.
    SecretDeleted(SecretName),
    /// The marker object of a prefix was created.
    MarkerPut(Uid),
    /// The object with this key, under this uid's prefix, was deleted.
    ObjectDeleted(Uid, String),
    /// A database was created, or an existing one was set to the requested state.
    DatabaseEnsured {
        /// Uid of the database's site.
        uid: Uid,
        /// Whether the call created the database.
        created: bool,
    },
    /// A database was emptied or recreated.
    DatabaseRenewed(Uid),
    /// A database was dropped.
    DatabaseDropped(Uid),
    /// The canary was set.
    CanarySet(Color, Option<Digest>),
    /// A Deployment received an image or a template: digest before and after. Both are equal if only the fence
    /// changed.
    ImageSet(Color, Option<Digest>, Option<Digest>),
    /// A service was read, and was ready or not.
    ServiceRead(Color, bool),
    /// A route was created.
    RouteCreated(Uid, Color),
    /// A route was written: service before and after. Both are equal if only the fence changed.
    RouteMoved(Uid, Color, Color),
    /// Everything with this uid was removed from the cluster; the flag states whether it had a route.
    Released(Uid, bool),
    /// A job was started: its name, its uid if it has one, and the word for its work, such as `install`.
    JobStarted(JobName, Option<Uid>, &'static str),
    /// A target rejected a call because its fence, uid or deadline had passed. The text names the method.
    Rejected(&'static str),
}

/// The effect log. Clones append to the same log.
#[derive(Clone, Debug, Default)]
pub struct EffectLog(Option<Arc<Mutex<Vec<Effect>>>>);

impl EffectLog {
    /// Creates an empty log.
    pub fn new() -> Self {
        Self(Some(Arc::default()))
    }

    /// Returns a log that discards every effect, for benchmarks.
    pub const fn off() -> Self {
        Self(None)
    }

    /// Appends the effect that `effect` returns; does not call `effect` if the log is off.
    pub fn push(&self, effect: impl FnOnce() -> Effect) {
        if let Some(log) = &self.0 {
            log.lock().unwrap_or_else(PoisonError::into_inner).push(effect());
        }
    }

    /// Returns whether the log keeps effects. Skip costly preparation for [`EffectLog::push`] if it does not.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Returns the number of effects.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |log| log.lock().unwrap_or_else(PoisonError::into_inner).len())
    }

    /// Returns whether the log has no effects.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the effects from index `from` on.
    pub fn since(&self, from: usize) -> Vec<Effect> {
        self.0.as_ref().map_or_else(Vec::new, |log| {
            let log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.get(from..).unwrap_or_default().to_vec()
        })
    }
}
