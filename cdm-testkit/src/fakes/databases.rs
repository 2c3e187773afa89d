//! A database server in memory: which databases there are, and with which passwords.

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
use crate::installation::{Installation, Installing};
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
    /// Database and user.
    Made(Made),
    /// Neither, and never again.
    Dropped,
}

#[derive(Debug)]
struct Made {
    /// The user's.
    password: SecretString,
    /// The fence of the last renewal.
    renewed: Fence,
    contents: Installation,
}

impl FakeDatabases {
    /// A server without a database.
    pub fn new(log: EffectLog, clock: SimClock) -> Self {
        Self { state: Arc::default(), log, clock }
    }

    /// Whether the uid's database is there and its user has this password.
    pub fn password_is(&self, uid: Uid, password: &SecretString) -> bool {
        match self.lock().get(&uid) {
            Some(Held::Made(held)) => held.password.expose_secret() == password.expose_secret(),
            Some(Held::Dropped) | None => false,
        }
    }

    /// The uids whose databases are there.
    pub fn uids(&self) -> Vec<Uid> {
        let held = self.lock();
        held.iter().filter(|(_, held)| matches!(held, Held::Made(_))).map(|(uid, _)| *uid).collect()
    }

    /// What WordPress has written into the uid's database.
    pub fn contents(&self, uid: Uid) -> Option<Installation> {
        match self.lock().get(&uid) {
            Some(Held::Made(held)) => Some(held.contents.clone()),
            Some(Held::Dropped) | None => None,
        }
    }

    /// Runs `wp core install` on the uid's database, ended after so many writes or not at all; `None` where there is no
    /// such database.
    pub fn install(&self, uid: Uid, cut: Option<usize>) -> Option<(Installing, Installation)> {
        match self.lock().get_mut(&uid) {
            Some(Held::Made(held)) => Some((held.contents.install(cut), held.contents.clone())),
            Some(Held::Dropped) | None => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uid, Held>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses a call for a database that was dropped.
    fn gone(&self, call: &CallContext, uid: Uid, method: &'static str) -> Outcome<()> {
        self.log(call.fence, What::Refused(method));
        let message = format!("the database of {uid} was dropped");
        Outcome::NotApplied(PortError::new(PORT, ErrorKind::Gone, message))
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

    async fn ensure(&self, call: &CallContext, uid: Uid, credentials: &Database) -> Outcome<()> {
        let mut held = self.lock();
        let password = credentials.password.clone();
        let created = match held.get_mut(&uid) {
            None => {
                let made = Made { password, renewed: Fence::default(), contents: Installation::default() };
                held.insert(uid, Held::Made(made));
                true
            }
            Some(Held::Made(made)) => {
                made.password = password;
                false
            }
            Some(Held::Dropped) => return self.gone(call, uid, "databases.ensure"),
        };
        self.log(call.fence, What::DatabaseEnsured { uid, created });
        Outcome::Applied(())
    }

    async fn renew(&self, call: &CallContext, uid: Uid, credentials: &Database) -> Outcome<()> {
        let mut held = self.lock();
        match held.get(&uid) {
            Some(Held::Dropped) => return self.gone(call, uid, "databases.renew"),
            Some(Held::Made(made)) if made.renewed > call.fence => {
                self.log(call.fence, What::Refused("databases.renew"));
                let message = format!("a later call has renewed the database of {uid}");
                return Outcome::NotApplied(PortError::new(PORT, ErrorKind::Conflict, message));
            }
            Some(Held::Made(_)) | None => {}
        }
        let password = credentials.password.clone();
        let made = Made { password, renewed: call.fence, contents: Installation::default() };
        held.insert(uid, Held::Made(made));
        self.log(call.fence, What::DatabaseRenewed(uid));
        Outcome::Applied(())
    }

    async fn remove(&self, call: &CallContext, uid: Uid) -> Outcome<()> {
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
