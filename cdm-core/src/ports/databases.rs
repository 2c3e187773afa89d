//! The port for the databases of sites: one database and one user per site.

use std::fmt;

use async_trait::async_trait;

use super::{CallContext, Database, Outcome, PortError};
use crate::domain::Uid;

/// Creates and drops the database of a site and the database user of the same name.
#[async_trait]
pub trait SiteDatabases: Send + Sync + fmt::Debug + 'static {
    /// Returns host and port of the database server, for the stored credentials.
    fn address(&self) -> (String, u16);

    /// Creates the database and its user, grants the user exactly the privileges that a site needs, and sets the
    /// password from `credentials`. The call is idempotent: an existing database or user is adopted and brought to
    /// the same state.
    ///
    /// The call is not atomic. After a lost response, any part may exist, and a repetition completes the rest.
    ///
    /// # Errors
    /// Returns `Gone` after the uid's database was removed, so that a late call cannot create it again.
    async fn ensure(&self, call: &CallContext, uid: Uid, credentials: &Database) -> Outcome<()>;

    /// Empties the database and leaves it with its user, as [`SiteDatabases::ensure`] does. Open connections of the
    /// user are closed, or do not see the earlier content. The call is for the database of a site that was never
    /// used: the remains of an interrupted installation would block the next one.
    ///
    /// The call is idempotent but not atomic. After a lost response, a part may be done, and a repetition completes
    /// the rest.
    ///
    /// # Errors
    /// Returns `Gone` after the uid's database was removed. Returns `Conflict` after a call with a higher fence has
    /// renewed the database, so that a late call cannot delete newer content.
    async fn renew(&self, call: &CallContext, uid: Uid, credentials: &Database) -> Outcome<()>;

    /// Closes the user's connections and drops the database and the user. The call is idempotent and final, even for
    /// a uid without a database.
    async fn remove(&self, call: &CallContext, uid: Uid) -> Outcome<()>;

    /// Returns which parts of the database exist now.
    async fn seen(&self, uid: Uid) -> Result<SiteDatabase, PortError>;
}

/// The observed parts of a site's database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SiteDatabase {
    /// Whether the database exists.
    pub database: bool,
    /// Whether the database user exists.
    pub user: bool,
}
