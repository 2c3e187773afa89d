//! An in-memory database server with databases and passwords.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cdm_core::domain::{Fence, Uid};
use cdm_core::ports::{
    CallContext, Clock, Database, ErrorKind, Outcome, PortError, SiteDatabase, SiteDatabases,
};
use secrecy::{ExposeSecret, SecretString};

use crate::clock::SimClock;
use crate::installation::{InstallResult, Installation};
use crate::log::{Effect, EffectKind, EffectLog};

const PORT: &str = "databases";

/// An in-memory database server. Clones share one server.
#[derive(Clone)]
pub struct FakeDatabases {
    state: Arc<Mutex<BTreeMap<Uid, DatabaseEntry>>>,
    log: EffectLog,
    clock: SimClock,
}

#[derive(Debug)]
enum DatabaseEntry {
    /// The database and its user exist.
    Present(PresentDatabase),
    /// Both were dropped, and cannot be created again.
    Dropped,
}

#[derive(Debug)]
struct PresentDatabase {
    /// Password of the database user.
    password: SecretString,
    /// Fence of the last renewal.
    renewed: Fence,
    contents: Installation,
}

impl FakeDatabases {
    /// Creates a server without databases.
    pub fn new(log: EffectLog, clock: SimClock) -> Self {
        Self { state: Arc::default(), log, clock }
    }

    /// Returns whether the database of this uid exists and its user has this password.
    pub fn password_is(&self, uid: Uid, password: &SecretString) -> bool {
        match self.lock().get(&uid) {
            Some(DatabaseEntry::Present(entry)) => entry.password.expose_secret() == password.expose_secret(),
            Some(DatabaseEntry::Dropped) | None => false,
        }
    }

    /// Returns the uids of all existing databases.
    pub fn uids(&self) -> Vec<Uid> {
        let entries = self.lock();
        entries
            .iter()
            .filter(|(_, entry)| matches!(entry, DatabaseEntry::Present(_)))
            .map(|(uid, _)| *uid)
            .collect()
    }

    /// Returns what WordPress has written to the database of this uid.
    pub fn contents(&self, uid: Uid) -> Option<Installation> {
        match self.lock().get(&uid) {
            Some(DatabaseEntry::Present(entry)) => Some(entry.contents.clone()),
            Some(DatabaseEntry::Dropped) | None => None,
        }
    }

    /// Runs `wp core install` on the database of this uid. With `interrupt_after`, the process ends after that many writes.
    /// Returns `None` if the database does not exist.
    pub fn install(&self, uid: Uid, interrupt_after: Option<usize>) -> Option<(InstallResult, Installation)> {
        match self.lock().get_mut(&uid) {
            Some(DatabaseEntry::Present(entry)) => {
                Some((entry.contents.install(interrupt_after), entry.contents.clone()))
            }
            Some(DatabaseEntry::Dropped) | None => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uid, DatabaseEntry>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rejects a call for a dropped database.
    fn gone(&self, call: &CallContext, uid: Uid, method: &'static str) -> Outcome<()> {
        self.log(call.fence, EffectKind::Rejected(method));
        let message = format!("the database of {uid} was dropped");
        Outcome::NotApplied(PortError::new(PORT, ErrorKind::Gone, message))
    }

    fn log(&self, by: Fence, kind: EffectKind) {
        self.log.push(|| Effect { at: self.clock.monotonic(), by, kind });
    }
}

#[async_trait]
impl SiteDatabases for FakeDatabases {
    fn address(&self) -> (String, u16) {
        ("db.internal".to_owned(), 3306)
    }

    async fn ensure(&self, call: &CallContext, uid: Uid, credentials: &Database) -> Outcome<()> {
        let mut entries = self.lock();
        let password = credentials.password.clone();
        let created = match entries.get_mut(&uid) {
            None => {
                let database = PresentDatabase {
                    password,
                    renewed: Fence::default(),
                    contents: Installation::default(),
                };
                entries.insert(uid, DatabaseEntry::Present(database));
                true
            }
            Some(DatabaseEntry::Present(database)) => {
                database.password = password;
                false
            }
            Some(DatabaseEntry::Dropped) => return self.gone(call, uid, "databases.ensure"),
        };
        self.log(call.fence, EffectKind::DatabaseEnsured { uid, created });
        Outcome::Applied(())
    }

    async fn renew(&self, call: &CallContext, uid: Uid, credentials: &Database) -> Outcome<()> {
        let mut entries = self.lock();
        match entries.get(&uid) {
            Some(DatabaseEntry::Dropped) => return self.gone(call, uid, "databases.renew"),
            Some(DatabaseEntry::Present(database)) if database.renewed > call.fence => {
                self.log(call.fence, EffectKind::Rejected("databases.renew"));
                let message = format!("a later call has renewed the database of {uid}");
                return Outcome::NotApplied(PortError::new(PORT, ErrorKind::Conflict, message));
            }
            Some(DatabaseEntry::Present(_)) | None => {}
        }
        let password = credentials.password.clone();
        let database = PresentDatabase { password, renewed: call.fence, contents: Installation::default() };
        entries.insert(uid, DatabaseEntry::Present(database));
        self.log(call.fence, EffectKind::DatabaseRenewed(uid));
        Outcome::Applied(())
    }

    async fn remove(&self, call: &CallContext, uid: Uid) -> Outcome<()> {
        if let Some(DatabaseEntry::Present(_)) = self.lock().insert(uid, DatabaseEntry::Dropped) {
            self.log(call.fence, EffectKind::DatabaseDropped(uid));
        }
        Outcome::Applied(())
    }

    async fn seen(&self, uid: Uid) -> Result<SiteDatabase, PortError> {
        let existing = matches!(self.lock().get(&uid), Some(DatabaseEntry::Present(_)));
        Ok(SiteDatabase { database: existing, user: existing })
    }
}

impl fmt::Debug for FakeDatabases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeDatabases").finish_non_exhaustive()
    }
}
