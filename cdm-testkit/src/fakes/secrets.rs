//! An in-memory secret store with tombstones, a recovery window and secrets of other owners.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cdm_core::domain::{Fence, MonotonicTime, SecretName};
use cdm_core::ports::{
    CallContext, Clock, Credentials, ErrorKind, Outcome, PortError, SecretStore, StoredSecret,
};

use crate::clock::SimClock;
use crate::log::{Effect, EffectKind, EffectLog};

const PORT: &str = "secrets";
const RECOVERY_WINDOW: Duration = Duration::from_hours(7 * 24);

/// Credentials, in memory. Clones share one store.
///
/// A value whose recovery window has ended reads as absent, like a name that was deleted before a value was
/// stored. Both names can never be used again.
#[derive(Clone)]
pub struct FakeSecrets {
    state: Arc<Mutex<BTreeMap<SecretName, SecretEntry>>>,
    log: EffectLog,
    clock: SimClock,
}

#[derive(Debug)]
enum SecretEntry {
    Value(Credentials),
    /// A value that cannot be read any more, and the end of its recovery window.
    Deleting(MonotonicTime),
    /// Deleted before a value was stored.
    Tombstone,
    Foreign,
}

impl FakeSecrets {
    /// Creates an empty store.
    pub fn new(log: EffectLog, clock: SimClock) -> Self {
        Self { state: Arc::default(), log, clock }
    }

    /// Returns all readable values.
    pub fn values(&self) -> Vec<(SecretName, Credentials)> {
        let entries = self.lock();
        entries
            .iter()
            .filter_map(|(name, entry)| match entry {
                SecretEntry::Value(value) => Some((*name, value.clone())),
                SecretEntry::Deleting(_) | SecretEntry::Tombstone | SecretEntry::Foreign => None,
            })
            .collect()
    }

    /// Returns the name of every value in its recovery window.
    pub fn deleting(&self) -> Vec<SecretName> {
        let now = self.clock.monotonic();
        let entries = self.lock();
        let in_window = |entry: &SecretEntry| matches!(entry, SecretEntry::Deleting(until) if *until > now);
        entries.iter().filter(|(_, entry)| in_window(entry)).map(|(name, _)| *name).collect()
    }

    /// Stores a value of another owner under `name`.
    pub fn foreign(&self, name: SecretName) {
        self.lock().insert(name, SecretEntry::Foreign);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SecretName, SecretEntry>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self, by: Fence, kind: EffectKind) {
        self.log.push(|| Effect { at: self.clock.monotonic(), by, kind });
    }
}

#[async_trait]
impl SecretStore for FakeSecrets {
    async fn create(&self, call: &CallContext, name: &SecretName, value: &Credentials) -> Outcome<()> {
        let mut entries = self.lock();
        let (kind, message) = match entries.get(name) {
            None => {
                entries.insert(*name, SecretEntry::Value(value.clone()));
                self.log(call.fence, EffectKind::SecretCreated(*name));
                return Outcome::Applied(());
            }
            Some(SecretEntry::Value(_)) => (ErrorKind::Exists, "already has a value"),
            Some(SecretEntry::Deleting(_) | SecretEntry::Tombstone) => {
                self.log(call.fence, EffectKind::Rejected("secrets.create"));
                (ErrorKind::Gone, "was scheduled for deletion")
            }
            Some(SecretEntry::Foreign) => (ErrorKind::Foreign, "belongs to another owner"),
        };
        Outcome::NotApplied(PortError::new(PORT, kind, format!("the secret {name} {message}")))
    }

    async fn read(&self, name: &SecretName) -> Result<Option<StoredSecret>, PortError> {
        let now = self.clock.monotonic();
        match self.lock().get(name) {
            Some(SecretEntry::Value(value)) => Ok(Some(StoredSecret::Value(value.clone()))),
            Some(SecretEntry::Deleting(until)) => Ok((*until > now).then_some(StoredSecret::Deleting)),
            None | Some(SecretEntry::Tombstone) => Ok(None),
            Some(SecretEntry::Foreign) => Err(foreign(name)),
        }
    }

    async fn schedule_delete(&self, call: &CallContext, name: &SecretName) -> Outcome<()> {
        let mut entries = self.lock();
        match entries.get(name) {
            None => {
                entries.insert(*name, SecretEntry::Tombstone);
            }
            Some(SecretEntry::Value(_)) => {
                entries.insert(*name, SecretEntry::Deleting(self.clock.monotonic().after(RECOVERY_WINDOW)));
                self.log(call.fence, EffectKind::SecretDeleted(*name));
            }
            Some(SecretEntry::Deleting(_) | SecretEntry::Tombstone) => {}
            Some(SecretEntry::Foreign) => return Outcome::NotApplied(foreign(name)),
        }
        Outcome::Applied(())
    }
}

impl fmt::Debug for FakeSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeSecrets").finish_non_exhaustive()
    }
}

fn foreign(name: &SecretName) -> PortError {
    let message = format!("the secret {name} belongs to another owner");
    PortError::new(PORT, ErrorKind::Foreign, message)
}
