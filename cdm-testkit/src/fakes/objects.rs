//! An in-memory bucket whose deletions can fail for single keys.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cdm_core::domain::{Fence, ObjectPrefix, Uid};
use cdm_core::ports::{CallContext, Clock, ErrorKind, ObjectPage, ObjectStore, Outcome, PortError};

use crate::clock::SimClock;
use crate::log::{Effect, EffectKind, EffectLog};

const PORT: &str = "objects";
/// Maximum keys of one request, as in S3.
const LIMIT: usize = 1_000;

/// The keys of objects, in memory. Clones share one bucket.
///
/// Like a bucket, the fake matches prefixes as text. Logged effects are attributed by the key itself, so a
/// prefix that matches too much shows in the log. A key outside `sites/<uid>/…` belongs to no site and is not
/// logged.
#[derive(Clone)]
pub struct FakeObjects {
    state: Arc<Mutex<State>>,
    log: EffectLog,
    clock: SimClock,
}

#[derive(Debug)]
struct State {
    keys: BTreeSet<String>,
    page_size: usize,
    failing: usize,
}

impl FakeObjects {
    /// Creates an empty bucket with pages of 1,000 keys.
    pub fn new(log: EffectLog, clock: SimClock) -> Self {
        let state = State { keys: BTreeSet::new(), page_size: LIMIT, failing: 0 };
        Self { state: Arc::new(Mutex::new(state)), log, clock }
    }

    /// Sets the size of a page: at least 1, at most 1,000 keys.
    pub fn page_size(&self, size: usize) {
        self.lock().page_size = size.clamp(1, LIMIT);
    }

    /// Makes the next `n` keys of deletions fail.
    pub fn fail_keys(&self, n: usize) {
        self.lock().failing = n;
    }

    /// Adds an object, or a version of one such as `sites/<uid>/a.jpg?version=1`, as visitors of a site would.
    pub fn seed(&self, key: impl Into<String>) {
        self.lock().keys.insert(key.into());
    }

    /// Returns all keys, in order.
    pub fn keys(&self) -> Vec<String> {
        self.lock().keys.iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self, by: Fence, kind: impl FnOnce() -> EffectKind) {
        self.log.push(|| Effect { at: self.clock.monotonic(), by, kind: kind() });
    }
}

#[async_trait]
impl ObjectStore for FakeObjects {
    async fn put_marker(&self, call: &CallContext, prefix: &ObjectPrefix) -> Outcome<()> {
        let mut state = self.lock();
        if self.clock.monotonic() > call.deadline {
            self.log(call.fence, || EffectKind::Rejected("objects.put_marker"));
            return Outcome::NotApplied(error(
                ErrorKind::Unavailable,
                "the deadline of the request has passed",
            ));
        }
        let key = prefix.marker();
        let owner = owner(&key);
        if state.keys.insert(key)
            && let Some(uid) = owner
        {
            self.log(call.fence, || EffectKind::MarkerPut(uid));
        }
        Outcome::Applied(())
    }

    async fn page(&self, prefix: &ObjectPrefix, after: Option<&str>) -> Result<ObjectPage, PortError> {
        let state = self.lock();
        let prefix = prefix.to_string();
        let from = match after {
            Some(after) if after >= prefix.as_str() => Bound::Excluded(after),
            Some(_) | None => Bound::Included(prefix.as_str()),
        };
        let range = state.keys.range::<str, _>((from, Bound::Unbounded));
        let mut rest = range.take_while(|key| key.starts_with(&prefix));
        let keys = rest.by_ref().take(state.page_size).cloned().collect();
        let more = rest.next().is_some();
        Ok(ObjectPage { keys, more })
    }

    async fn delete(
        &self,
        call: &CallContext,
        prefix: &ObjectPrefix,
        keys: &[String],
    ) -> Outcome<Vec<(String, String)>> {
        if keys.len() > LIMIT {
            return Outcome::NotApplied(error(ErrorKind::Invalid, "a request has at most 1,000 keys"));
        }
        let prefix = prefix.to_string();
        if keys.iter().any(|key| !key.starts_with(&prefix)) {
            return Outcome::NotApplied(error(ErrorKind::Invalid, "a key is outside the prefix"));
        }
        let mut state = self.lock();
        let mut failed = Vec::new();
        for key in keys {
            if state.failing > 0 {
                state.failing -= 1;
                failed.push((key.clone(), "InternalError: please try again".to_owned()));
            } else if state.keys.remove(key)
                && let Some(uid) = owner(key)
            {
                self.log(call.fence, || EffectKind::ObjectDeleted(uid, key.clone()));
            }
        }
        Outcome::Applied(failed)
    }
}

impl fmt::Debug for FakeObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeObjects").finish_non_exhaustive()
    }
}

/// Returns the uid of the site that a key belongs to, from the key alone.
fn owner(key: &str) -> Option<Uid> {
    let (uid, _) = key.strip_prefix("sites/")?.split_once('/')?;
    Uid::parse(uid).ok()
}

fn error(kind: ErrorKind, message: &str) -> PortError {
    PortError::new(PORT, kind, message)
}
