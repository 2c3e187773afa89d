//! A secret store in memory, with tombstones, a recovery window and strangers.

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
use crate::log::{Effect, EffectLog, What};

const PORT: &str = "secrets";
const RECOVERY_WINDOW: Duration = Duration::from_hours(7 * 24);

/// Keeps credentials in memory; clones are the same store.
///
/// The name of a value whose recovery window has ended reads as empty, like one that was deleted before anything was
/// stored; either is closed for good.
#[derive(Clone)]
pub struct FakeSecrets {
    state: Arc<Mutex<BTreeMap<SecretName, Held>>>,
    log: EffectLog,
    clock: SimClock,
}

#[derive(Debug)]
enum Held {
    Value(Credentials),
    /// A value that can be read no more, until when it could be recovered.
    Deleting(MonotonicTime),
    /// Deleted before anything was stored.
    Tombstone,
    Stranger,
}

impl FakeSecrets {
    /// An empty store.
    pub fn new(log: EffectLog, clock: SimClock) -> Self {
        Self { state: Arc::default(), log, clock }
    }

    /// Every value that can be read now.
    pub fn values(&self) -> Vec<(SecretName, Credentials)> {
        let held = self.lock();
        held.iter()
            .filter_map(|(name, held)| match held {
                Held::Value(value) => Some((*name, value.clone())),
                Held::Deleting(_) | Held::Tombstone | Held::Stranger => None,
            })
            .collect()
    }

    /// The name of every value in its recovery window.
    pub fn deleting(&self) -> Vec<SecretName> {
        let now = self.clock.monotonic();
        let held = self.lock();
        let in_window = |held: &Held| matches!(held, Held::Deleting(until) if *until > now);
        held.iter().filter(|(_, held)| in_window(held)).map(|(name, _)| *name).collect()
    }

    /// Puts something under `name` that CDM did not put there.
    pub fn foreign(&self, name: SecretName) {
        self.lock().insert(name, Held::Stranger);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SecretName, Held>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self, by: Fence, what: What) {
        self.log.push(|| Effect { at: self.clock.monotonic(), by, what });
    }
}

#[async_trait]
impl SecretStore for FakeSecrets {
    async fn create(&self, call: &CallContext, name: &SecretName, value: &Credentials) -> Outcome<()> {
        let mut held = self.lock();
        let (kind, message) = match held.get(name) {
            None => {
                held.insert(*name, Held::Value(value.clone()));
                self.log(call.fence, What::SecretCreated(*name));
                return Outcome::Applied(());
            }
            Some(Held::Value(_)) => (ErrorKind::Exists, "holds a value"),
            Some(Held::Deleting(_) | Held::Tombstone) => {
                self.log(call.fence, What::Refused("secrets.create"));
                (ErrorKind::Gone, "was scheduled for deletion")
            }
            Some(Held::Stranger) => (ErrorKind::Foreign, "holds something of another owner"),
        };
        Outcome::NotApplied(PortError::new(PORT, kind, format!("the secret {name} {message}")))
    }

    async fn read(&self, name: &SecretName) -> Result<Option<StoredSecret>, PortError> {
        let now = self.clock.monotonic();
        match self.lock().get(name) {
            Some(Held::Value(value)) => Ok(Some(StoredSecret::Value(value.clone()))),
            Some(Held::Deleting(until)) => Ok((*until > now).then_some(StoredSecret::Deleting)),
            None | Some(Held::Tombstone) => Ok(None),
            Some(Held::Stranger) => Err(foreign(name)),
        }
    }

    async fn schedule_delete(&self, call: &CallContext, name: &SecretName) -> Outcome<()> {
        let mut held = self.lock();
        match held.get(name) {
            None => {
                held.insert(*name, Held::Tombstone);
            }
            Some(Held::Value(_)) => {
                held.insert(*name, Held::Deleting(self.clock.monotonic().after(RECOVERY_WINDOW)));
                self.log(call.fence, What::SecretDeleted(*name));
            }
            Some(Held::Deleting(_) | Held::Tombstone) => {}
            Some(Held::Stranger) => return Outcome::NotApplied(foreign(name)),
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
    let message = format!("the secret {name} holds something of another owner");
    PortError::new(PORT, ErrorKind::Foreign, message)
}
