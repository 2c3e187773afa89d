//! The one append-only log of everything that happened to the simulated world.
//!
//! Every fake writes to it at the moment an effect takes hold, under its own lock. Invariants are checked over this
//! log, and two runs are compared by it, so that no test has to say what it expects of a fake.

use std::sync::{Arc, Mutex, PoisonError};

use cdm_core::domain::{
    Color, Digest, Fence, Fleet, JobName, MonotonicTime, Operation, Rollout, SecretName, Service, Site, Uid,
};

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    /// When, on the simulated clock.
    pub at: MonotonicTime,
    /// By which operation, in which of its epochs; zero for what is nobody's.
    pub by: Fence,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A site's record was written: as it was, as it is.
    Site(Option<Arc<Site>>, Option<Arc<Site>>),
    /// A colour's record was written.
    Colour(Arc<Service>),
    /// The platform's record was written.
    Fleet(Arc<Fleet>),
    /// A rollout's record was written.
    Rollout(Arc<Rollout>),
    /// An operation ended.
    Ended(Arc<Operation>),
    /// A secret was created.
    SecretCreated(SecretName),
    /// A secret was scheduled for deletion.
    SecretDeleted(SecretName),
    /// The marker of a prefix was written where none was.
    MarkerPut(Uid),
    /// An object was deleted on behalf of this uid's prefix.
    ObjectDeleted(Uid, String),
    /// A database was made, or brought to its state again.
    DatabaseEnsured {
        /// Whose.
        uid: Uid,
        /// Whether it was not there before.
        created: bool,
    },
    /// A database was emptied, or made anew.
    DatabaseRenewed(Uid),
    /// A database was dropped.
    DatabaseDropped(Uid),
    /// The canary was set.
    CanarySet(Color, Option<Digest>),
    /// A workload was given an image or a template: what it ran, what it runs; the same for a fence alone.
    ImageSet(Color, Option<Digest>, Option<Digest>),
    /// Someone looked at a service, and saw it ready or not.
    Looked(Color, bool),
    /// A route was created.
    RouteCreated(Uid, Color),
    /// A route was written: from where, to where; the same for a fence alone.
    RouteMoved(Uid, Color, Color),
    /// Everything of a uid was removed from the cluster; whether it had a route.
    Released(Uid, bool),
    /// A job was started; the uid where it has one, and the word for what it does.
    JobStarted(JobName, Option<Uid>, &'static str),
    /// A target refused an effect because its fence, uid or deadline had passed.
    Refused(&'static str),
}

/// The log; clones write to the same one.
#[derive(Clone, Debug, Default)]
pub struct EffectLog(Option<Arc<Mutex<Vec<Effect>>>>);

impl EffectLog {
    /// An empty log.
    pub fn new() -> Self {
        Self(Some(Arc::default()))
    }

    /// A log that keeps nothing, for benchmarks.
    pub const fn off() -> Self {
        Self(None)
    }

    /// Appends what `effect` makes; does not even make it when the log is off.
    pub fn push(&self, effect: impl FnOnce() -> Effect) {
        if let Some(log) = &self.0 {
            log.lock().unwrap_or_else(PoisonError::into_inner).push(effect());
        }
    }

    /// Whether effects are kept; what is costly to prepare for [`EffectLog::push`] is left out when they are not.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// How many effects there are.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |log| log.lock().unwrap_or_else(PoisonError::into_inner).len())
    }

    /// Whether nothing happened yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The effects from the `from`th on.
    pub fn since(&self, from: usize) -> Vec<Effect> {
        self.0.as_ref().map_or_else(Vec::new, |log| {
            let log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.get(from..).unwrap_or_default().to_vec()
        })
    }
}
