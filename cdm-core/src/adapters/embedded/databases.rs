//! Site databases as SQLite files, one per site, with users and passwords like those of a server.

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, SqliteConnection};

use super::File;
use super::calls::{io_failed, unavailable};
use super::disk::{blocking, private_dir, sync_parent, try_write};
use crate::domain::{DatabaseName, Fence, Uid};
use crate::ports::{CallContext, Database, ErrorKind, Outcome, PortError, SiteDatabase, SiteDatabases};

const PORT: &str = "databases";
/// How long a statement waits for another connection's transaction.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of the random number that stands before a password when its digest is taken.
const SALT: usize = 16;

/// A user's password is not kept. Passwords here are of random letters, so a plain digest gives nothing to guess.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS database_users (name TEXT PRIMARY KEY, salt BLOB NOT NULL, digest BLOB NOT NULL)
        STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS databases_removed (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS databases_renewed (name TEXT PRIMARY KEY, fence TEXT NOT NULL) STRICT, WITHOUT ROWID;
";

/// Why the site databases cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DatabasesError {
    /// The directory can be neither made nor written.
    #[error("`{}` can be neither made nor written; see that it is a directory of the user's own", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file does not take the users.
    #[error(
        "the database file does not take the users of site databases; see that it is whole and may be written"
    )]
    File(#[from] sqlx::Error),
}

/// Keeps site databases in a directory, and their users in the shared file; clones share both.
#[derive(Clone, Debug)]
pub struct EmbeddedDatabases {
    file: File,
    dir: Arc<Path>,
}

impl EmbeddedDatabases {
    /// Opens the directory, and makes it where it is missing.
    ///
    /// # Errors
    /// When the directory can be neither made nor written, or `file` does not take the users.
    pub async fn open(file: File, dir: &Path) -> Result<Self, DatabasesError> {
        file.ensure(SCHEMA).await?;
        let made = dir.to_owned();
        blocking(move || private_dir(&made).and_then(|()| try_write(&made)))
            .await
            .map_err(|source| DatabasesError::Directory { path: dir.to_owned(), source })?;
        Ok(Self { file, dir: dir.into() })
    }

    /// Whether users can be read and databases made.
    ///
    /// # Errors
    /// `Unavailable` when one of them cannot.
    pub async fn check(&self) -> Result<(), PortError> {
        let read =
            sqlx::query("SELECT 1 FROM database_users LIMIT 1").fetch_optional(self.file.reader()).await;
        read.map_err(|error| unavailable(PORT, &error))?;
        let dir = Arc::clone(&self.dir);
        blocking(move || try_write(&dir)).await.map_err(|error| failed(&error))
    }

    /// Opens the database that the credentials name, as its user. Never makes one.
    ///
    /// A database that is removed takes no more writes from connections that were opened before.
    ///
    /// # Errors
    /// `Denied` when there is no such user, its password is another, or the database is not its own; `NotFound` when
    /// the database is not there.
    pub async fn connect(&self, credentials: &Database) -> Result<SqliteConnection, PortError> {
        let user = "SELECT salt, digest FROM database_users WHERE name = ?";
        let user = sqlx::query(user).bind(&credentials.username).fetch_optional(self.file.reader()).await;
        let user = user.and_then(|row| row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose());
        let user: Option<(Vec<u8>, Vec<u8>)> = user.map_err(|error| unavailable(PORT, &error))?;
        let known = user.is_some();
        let (salt, digest) = user.unwrap_or_default();
        let right = same(&salted(&salt, &credentials.password), &digest);
        if !(known && right) {
            return Err(error(ErrorKind::Denied, "there is no such user, or its password is another"));
        }
        // Users have the names of databases that `ensure` made; none leads out of the directory.
        if credentials.dbname != credentials.username {
            return Err(error(ErrorKind::Denied, "the database is not the user's own"));
        }
        if !self.exists(&credentials.dbname).await? {
            return Err(error(ErrorKind::NotFound, "there is no such database"));
        }
        self.options(&credentials.dbname).connect().await.map_err(|error| unavailable(PORT, &error))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.sqlite"))
    }

    async fn exists(&self, name: &str) -> Result<bool, PortError> {
        tokio::fs::try_exists(self.path(name)).await.map_err(|error| failed(&error))
    }

    /// Makes user and file under the shared file's write lock, so that no removal comes between them.
    async fn make(&self, name: &str, password: &SecretString) -> Result<Outcome<()>, sqlx::Error> {
        let mut salt = [0; SALT];
        if getrandom::fill(&mut salt).is_err() {
            let message = "the machine gives no random numbers";
            return Ok(Outcome::NotApplied(error(ErrorKind::Unavailable, message)));
        }
        let mut tx = self.file.begin().await?;
        let removed = sqlx::query("SELECT 1 FROM databases_removed WHERE name = ?").bind(name);
        if removed.fetch_optional(&mut *tx).await?.is_some() {
            let message = format!("the database {name} was dropped");
            return Ok(Outcome::NotApplied(error(ErrorKind::Gone, &message)));
        }
        let user = "INSERT OR REPLACE INTO database_users (name, salt, digest) VALUES (?, ?, ?)";
        let user = sqlx::query(user).bind(name).bind(salt.to_vec()).bind(salted(&salt, password));
        user.execute(&mut *tx).await?;
        let path = self.path(name);
        if let Err(error) = blocking(move || create(&path)).await {
            return Ok(Outcome::Unknown(failed(&error)));
        }
        Ok(match tx.commit().await {
            Ok(()) => Outcome::Applied(()),
            Err(error) => Outcome::Unknown(unavailable(PORT, &error)),
        })
    }

    /// Notes the fence first, so that no late call removes what comes into the database from then on; empties it under
    /// the shared file's write lock.
    async fn empty(&self, call: &CallContext, name: &str) -> Result<Outcome<()>, sqlx::Error> {
        let mut tx = self.file.begin().await?;
        let held = sqlx::query("SELECT fence FROM databases_renewed WHERE name = ?").bind(name);
        let held: Option<String> =
            held.fetch_optional(&mut *tx).await?.map(|row| row.try_get(0)).transpose()?;
        if held.as_deref().and_then(Fence::parse).is_some_and(|held| held > call.fence) {
            let message = format!("a later call has renewed the database {name}");
            return Ok(Outcome::NotApplied(error(ErrorKind::Conflict, &message)));
        }
        let note = "INSERT OR REPLACE INTO databases_renewed (name, fence) VALUES (?, ?)";
        sqlx::query(note).bind(name).bind(call.fence.to_string()).execute(&mut *tx).await?;
        if let Err(error) = drop_contents(self.options(name)).await {
            return Ok(Outcome::Unknown(unavailable(PORT, &error)));
        }
        Ok(match tx.commit().await {
            Ok(()) => Outcome::Applied(()),
            Err(error) => Outcome::Unknown(unavailable(PORT, &error)),
        })
    }

    fn options(&self, name: &str) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(self.path(name))
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Delete)
            .busy_timeout(PATIENCE)
            .disable_statement_logging()
    }

    /// Closes the name first: from then on nothing makes the file that is deleted next.
    async fn drop_both(&self, name: &str) -> Result<Outcome<()>, sqlx::Error> {
        let mut tx = self.file.begin().await?;
        let close = sqlx::query("INSERT OR IGNORE INTO databases_removed (name) VALUES (?)").bind(name);
        close.execute(&mut *tx).await?;
        let user = sqlx::query("DELETE FROM database_users WHERE name = ?").bind(name);
        user.execute(&mut *tx).await?;
        if let Err(error) = tx.commit().await {
            return Ok(Outcome::Unknown(unavailable(PORT, &error)));
        }
        let path = self.path(name);
        Ok(match blocking(move || delete(&path)).await {
            Ok(()) => Outcome::Applied(()),
            Err(error) => Outcome::Unknown(failed(&error)),
        })
    }
}

#[async_trait]
impl SiteDatabases for EmbeddedDatabases {
    /// Where a file is: on this machine, at the port that a server would have.
    fn address(&self) -> (String, u16) {
        ("localhost".to_owned(), 3306)
    }

    async fn ensure(&self, _call: &CallContext, uid: Uid, credentials: &Database) -> Outcome<()> {
        let name = DatabaseName::of(uid).to_string();
        if credentials.dbname != name || credentials.username != name {
            let message = format!("the credentials are not of the database {name} and its user");
            return Outcome::NotApplied(error(ErrorKind::Invalid, &message));
        }
        let made = self.make(&name, &credentials.password).await;
        made.unwrap_or_else(|error| Outcome::NotApplied(unavailable(PORT, &error)))
    }

    async fn renew(&self, call: &CallContext, uid: Uid, credentials: &Database) -> Outcome<()> {
        match self.ensure(call, uid, credentials).await {
            Outcome::Applied(()) => {}
            other => return other,
        }
        let emptied = self.empty(call, &DatabaseName::of(uid).to_string()).await;
        emptied.unwrap_or_else(|error| Outcome::NotApplied(unavailable(PORT, &error)))
    }

    async fn remove(&self, _call: &CallContext, uid: Uid) -> Outcome<()> {
        let dropped = self.drop_both(&DatabaseName::of(uid).to_string()).await;
        dropped.unwrap_or_else(|error| Outcome::NotApplied(unavailable(PORT, &error)))
    }

    async fn seen(&self, uid: Uid) -> Result<SiteDatabase, PortError> {
        let name = DatabaseName::of(uid).to_string();
        let user = sqlx::query("SELECT 1 FROM database_users WHERE name = ?").bind(&name);
        let user =
            user.fetch_optional(self.file.reader()).await.map_err(|error| unavailable(PORT, &error))?;
        Ok(SiteDatabase { database: self.exists(&name).await?, user: user.is_some() })
    }
}

/// Drops every table with its indexes and triggers, and every view, in one transaction. The file stays: a connection
/// that is still open keeps no journal beside a file that is another by then.
async fn drop_contents(options: SqliteConnectOptions) -> Result<(), sqlx::Error> {
    let mut database = options.foreign_keys(false).connect().await?;
    let mut tx = database.begin_with("BEGIN IMMEDIATE").await?;
    let objects = "SELECT type, name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' \
                   ESCAPE '\\'";
    for row in sqlx::query(objects).fetch_all(&mut *tx).await? {
        let (kind, name): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let name = name.replace('"', "\"\"");
        sqlx::raw_sql(AssertSqlSafe(format!("DROP {kind} \"{name}\""))).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    database.close().await
}

/// Makes an empty file, which is an empty database; leaves one that is there as it is.
fn create(path: &Path) -> io::Result<()> {
    let file = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    file.sync_all()?;
    sync_parent(path)
}

/// Deletes the file, and what SQLite may have put beside it.
fn delete(path: &Path) -> io::Result<()> {
    for poll_while in ["", "-journal", "-wal", "-shm"] {
        let mut path = path.as_os_str().to_owned();
        path.push(poll_while);
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    sync_parent(path)
}

fn salted(salt: &[u8], password: &SecretString) -> Vec<u8> {
    Sha256::new().chain_update(salt).chain_update(password.expose_secret()).finalize().to_vec()
}

/// Whether two digests are the same, in a time that does not tell where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differ = a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differ) == 0
}

fn failed(cause: &io::Error) -> PortError {
    io_failed(PORT, "the databases' directory cannot be used", cause)
}

fn error(kind: ErrorKind, message: &str) -> PortError {
    PortError::new(PORT, kind, message)
}

#[async_trait]
impl super::TenantDatabases for EmbeddedDatabases {
    async fn connect(&self, credentials: &Database) -> Result<SqliteConnection, PortError> {
        Self::connect(self, credentials).await
    }
}
