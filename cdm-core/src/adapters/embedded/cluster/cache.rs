//! A service's object cache: what its pods have read of sites' databases, until a job flushes it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::tenants::Options;
use crate::domain::Uid;

/// Most sites in a cache; a full one is emptied.
const MOST: usize = 10_000;

/// The cache that all pods of a service share.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    options: HashMap<Uid, Arc<Options>>,
    /// How often something was flushed.
    flushes: u64,
}

/// From before a read of a database, to tell whether the cache was flushed during it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading(u64);

impl Cache {
    /// What is kept of a site, or leave to keep what is about to be read.
    pub(super) fn get(&self, uid: Uid) -> Result<Arc<Options>, Reading> {
        let kept = self.lock();
        kept.options.get(&uid).cloned().ok_or(Reading(kept.flushes))
    }

    /// Keeps what was read, unless a flush came between: then it may be old.
    pub(super) fn keep(&self, uid: Uid, reading: Reading, options: &Arc<Options>) {
        let mut kept = self.lock();
        if reading != Reading(kept.flushes) {
            return;
        }
        if kept.options.len() >= MOST {
            kept.options.clear();
        }
        kept.options.insert(uid, Arc::clone(options));
    }

    pub(super) fn flush(&self, uid: Uid) {
        let mut kept = self.lock();
        kept.flushes += 1;
        kept.options.remove(&uid);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
