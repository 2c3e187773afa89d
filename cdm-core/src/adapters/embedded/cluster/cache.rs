//! The object cache of a service: what its pods have read from the databases of sites, until a job flushes it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::tenants::Options;
use crate::domain::Uid;

/// Maximum number of sites in a cache; a full cache is cleared.
const MAX_SITES: usize = 10_000;

/// The cache that all pods of a service share.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<CacheState>);

#[derive(Debug, Default)]
struct CacheState {
    options: HashMap<Uid, Arc<Options>>,
    /// The number of flushes.
    flushes: u64,
}

/// The number of flushes before a read of a database, to detect a flush during the read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlushCount(u64);

impl Cache {
    /// Returns the cached options of a site; on a miss, the ticket to insert what is read now.
    pub(super) fn get(&self, uid: Uid) -> Result<Arc<Options>, FlushCount> {
        let state = self.lock();
        state.options.get(&uid).cloned().ok_or(FlushCount(state.flushes))
    }

    /// Inserts what was read, unless a flush in the meantime may have made it outdated.
    pub(super) fn insert(&self, uid: Uid, flush_count: FlushCount, options: &Arc<Options>) {
        let mut state = self.lock();
        if flush_count != FlushCount(state.flushes) {
            return;
        }
        if state.options.len() >= MAX_SITES {
            state.options.clear();
        }
        state.options.insert(uid, Arc::clone(options));
    }

    pub(super) fn flush(&self, uid: Uid) {
        let mut state = self.lock();
        state.flushes += 1;
        state.options.remove(&uid);
    }

    fn lock(&self) -> MutexGuard<'_, CacheState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
