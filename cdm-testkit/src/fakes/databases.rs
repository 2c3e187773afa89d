//! A database server in memory: which databases there are, and with which passwords.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cdm_core::domain::{Fence, Uid};
use cdm_core::ports::{Call, Clock, Database, ErrorKind, Outcome, PortError, SiteDatabase, SiteDatabases};
use secrecy::{ExposeSecret, SecretString};

use crate::clock::SimClock;
use crate::log::{Effect, EffectLog, What};

const PORT: &str = "databases";

/// Keeps databases in memory; clones are the same server.
#[derive(Clone)]
pub struct FakeDatabases {
    state: Arc<Mutex<BTreeMap<Uid, Held>>>,
    log: EffectLog,
    clock: SimClock,
}

#[derive(Debug)]
enum Held {
    /// Database and user, with the user's password.
    Made(SecretString),
    /// Neither, and never again.
    Dropped,
}

impl FakeDatabases {
    /// A server without a database.
    pub fn new(log: EffectLog, clock: SimClock) -> Self {
        Self { state: Arc::default(), log, clock }
    }

    /// Whether the uid's database is there and its user has this password.
    pub fn password_is(&self, uid: Uid, password: &SecretString) -> bool {
        match self.lock().get(&uid) {
            Some(Held::Made(held)) => held.expose_secret() == password.expose_secret(),
            Some(Held::Dropped) | None => false,
        }
    }

    /// The uids whose databases are there.
    pub fn uids(&self) -> Vec<Uid> {
        let held = self.lock();
        held.iter().filter(|(_, held)| matches!(held, Held::Made(_))).map(|(uid, _)| *uid).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uid, Held>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self, by: Fence, what: What) {
        self.log.push(|| Effect { at: self.clock.monotonic(), by, what });
    }
}

#[async_trait]
impl SiteDatabases for FakeDatabases {
    fn address(&self) -> (String, u16) {
        ("db.internal".to_owned(), 3306)
    }

    async fn ensure(&self, call: &Call, uid: Uid, credentials: &Database) -> Outcome<()> {
        let mut held = self.lock();
        let created = match held.get(&uid) {
            None => true,
            Some(Held::Made(_)) => false,
            Some(Held::Dropped) => {
                self.log(call.fence, What::Refused("databases.ensure"));
                let message = format!("the database of {uid} was dropped");
                return Outcome::NotApplied(PortError::new(PORT, ErrorKind::Gone, message));
            }
        };
        held.insert(uid, Held::Made(credentials.password.clone()));
        self.log(call.fence, What::DatabaseEnsured { uid, created });
        Outcome::Applied(())
    }

    async fn remove(&self, call: &Call, uid: Uid) -> Outcome<()> {
        if let Some(Held::Made(_)) = self.lock().insert(uid, Held::Dropped) {
            self.log(call.fence, What::DatabaseDropped(uid));
        }
        Outcome::Applied(())
    }

    async fn seen(&self, uid: Uid) -> Result<SiteDatabase, PortError> {
        let there = matches!(self.lock().get(&uid), Some(Held::Made(_)));
        Ok(SiteDatabase { database: there, user: there })
    }
}

impl fmt::Debug for FakeDatabases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeDatabases").finish_non_exhaustive()
    }
}
