//! Site databases.

use std::fmt;

use async_trait::async_trait;

use super::{CallContext, Database, Outcome, PortError};
use crate::domain::Uid;

/// Makes and drops a site's database and the user of the same name.
#[async_trait]
pub trait SiteDatabases: Send + Sync + fmt::Debug + 'static {
    /// Where site databases live: host and port, for the stored credentials.
    fn address(&self) -> (String, u16);

    /// Makes the database and its user, gives that user the rights it needs and no other, and sets its password to the
    /// one in `credentials`. Idempotent: what is there already is adopted and brought to the same state.
    ///
    /// Not atomic: after a lost answer any part may be there, and a repetition completes it.
    ///
    /// # Errors
    /// `Gone` once the uid's database was removed: a late call cannot bring it back.
    async fn ensure(&self, call: &CallContext, uid: Uid, credentials: &Database) -> Outcome<()>;

    /// Removes everything that is in the database, and leaves it empty with its user, as [`SiteDatabases::ensure`] does.
    /// Connections of the user that are still open are ended, or find nothing of before. For the database of a site that nobody has used yet: what an
    /// installation that was cut short has left is in the way of the next one.
    ///
    /// Idempotent. Not atomic: after a lost answer a part of it may be done, and a repetition completes it.
    ///
    /// # Errors
    /// `Gone` once the uid's database was removed. `Conflict` once a call with a higher fence has renewed it: what came
    /// into it since is kept from a late call.
    async fn renew(&self, call: &CallContext, uid: Uid, credentials: &Database) -> Outcome<()>;

    /// Ends the user's own connections and drops database and user. Idempotent and final, also for a uid that had none.
    async fn remove(&self, call: &CallContext, uid: Uid) -> Outcome<()>;

    /// What is there now.
    async fn seen(&self, uid: Uid) -> Result<SiteDatabase, PortError>;
}

/// What there is of a site's database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SiteDatabase {
    /// The database exists.
    pub database: bool,
    /// The user exists.
    pub user: bool,
}
