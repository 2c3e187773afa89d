//! Databases of sites as SQLite files, one per site, with users and passwords as on a server.

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
use super::calls::{io_error, unavailable};
use super::fs::{check_writable, private_dir, run_blocking, sync_parent};
use crate::domain::{DatabaseName, Fence, Uid};
use crate::ports::{CallContext, Database, ErrorKind, Outcome, PortError, SiteDatabase, SiteDatabases};

const PORT: &str = "databases";
/// How long a statement waits for the transaction of another connection.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The size of a salt, in bytes. A salt is hashed together with the password.
const SALT_SIZE: usize = 16;

/// Only a digest of a user's password is stored. The passwords are random, so a plain hash is enough.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS database_users (name TEXT PRIMARY KEY, salt BLOB NOT NULL, digest BLOB NOT NULL)
        STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS databases_removed (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS databases_renewed (name TEXT PRIMARY KEY, fence TEXT NOT NULL) STRICT, WITHOUT ROWID;
";

/// Why the databases of sites cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DatabasesError {
    /// The directory cannot be created or written.
    #[error("the directory `{}` cannot be created or written; grant the user of this process access to it", path.display())]
    Directory {
        /// The path of the directory.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// The tables of database users cannot be created or read.
    #[error(
        "the tables of database users cannot be created or read; check that the database file is intact and writable"
    )]
    File(#[from] sqlx::Error),
}

/// Stores the databases of sites in a directory, and their users in the database file. Clones share both.
#[derive(Clone, Debug)]
pub struct EmbeddedDatabases {
    file: File,
    dir: Arc<Path>,
}

impl EmbeddedDatabases {
    /// Opens the directory, creating it if it is missing.
    ///
    /// # Errors
    /// When the directory cannot be created or written, or the tables of users cannot be created in `file`.
    pub async fn open(file: File, dir: &Path) -> Result<Self, DatabasesError> {
        file.ensure(SCHEMA).await?;
        let created = dir.to_owned();
        run_blocking(move || private_dir(&created).and_then(|()| check_writable(&created)))
            .await
            .map_err(|source| DatabasesError::Directory { path: dir.to_owned(), source })?;
        Ok(Self { file, dir: dir.into() })
    }

    /// Checks that users can be read and databases created.
    ///
    /// # Errors
    /// `Unavailable` when one of them fails.
    pub async fn check(&self) -> Result<(), PortError> {
        let read =
            sqlx::query("SELECT 1 FROM database_users LIMIT 1").fetch_optional(self.file.reader()).await;
        read.map_err(|error| unavailable(PORT, &error))?;
        let dir = Arc::clone(&self.dir);
        run_blocking(move || check_writable(&dir)).await.map_err(|error| failed(&error))
    }

    /// Opens the database that the credentials name, as its user. Never creates a database.
    ///
    /// Once a database is removed, connections that were opened before cannot write to it any more.
    ///
    /// # Errors
    /// `Denied` when the user does not exist, the password is wrong, or the database belongs to another user;
    /// `NotFound` when the database does not exist.
    pub async fn connect(&self, credentials: &Database) -> Result<SqliteConnection, PortError> {
        let user = "SELECT salt, digest FROM database_users WHERE name = ?";
        let user = sqlx::query(user).bind(&credentials.username).fetch_optional(self.file.reader()).await;
        let user = user.and_then(|row| row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose());
        let user: Option<(Vec<u8>, Vec<u8>)> = user.map_err(|error| unavailable(PORT, &error))?;
        let user_exists = user.is_some();
        let (salt, digest) = user.unwrap_or_default();
        let password_matches = constant_time_eq(&salted(&salt, &credentials.password), &digest);
        if !(user_exists && password_matches) {
            return Err(error(ErrorKind::Denied, "the user does not exist, or the password is wrong"));
        }
        // The names of users are names of databases that `ensure` created, so the path stays inside the directory.
        if credentials.dbname != credentials.username {
            return Err(error(ErrorKind::Denied, "the database belongs to another user"));
        }
        if !self.exists(&credentials.dbname).await? {
            return Err(error(ErrorKind::NotFound, "the database does not exist"));
        }
        self.options(&credentials.dbname).connect().await.map_err(|error| unavailable(PORT, &error))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.sqlite"))
    }

    async fn exists(&self, name: &str) -> Result<bool, PortError> {
        tokio::fs::try_exists(self.path(name)).await.map_err(|error| failed(&error))
    }

    /// Creates user and file under the write lock of the database file, so that no removal happens in between.
    async fn create_user_and_file(
        &self,
        name: &str,
        password: &SecretString,
    ) -> Result<Outcome<()>, sqlx::Error> {
        let mut salt = [0; SALT_SIZE];
        if getrandom::fill(&mut salt).is_err() {
            let message = "the operating system returns no random numbers";
            return Ok(Outcome::NotApplied(error(ErrorKind::Unavailable, message)));
        }
        let mut tx = self.file.begin().await?;
        let removed = sqlx::query("SELECT 1 FROM databases_removed WHERE name = ?").bind(name);
        if removed.fetch_optional(&mut *tx).await?.is_some() {
            let message = format!("the database `{name}` was dropped");
            return Ok(Outcome::NotApplied(error(ErrorKind::Gone, &message)));
        }
        let user = "INSERT OR REPLACE INTO database_users (name, salt, digest) VALUES (?, ?, ?)";
        let user = sqlx::query(user).bind(name).bind(salt.to_vec()).bind(salted(&salt, password));
        user.execute(&mut *tx).await?;
        let path = self.path(name);
        if let Err(error) = run_blocking(move || create(&path)).await {
            return Ok(Outcome::Unknown(failed(&error)));
        }
        Ok(match tx.commit().await {
            Ok(()) => Outcome::Applied(()),
            Err(error) => Outcome::Unknown(unavailable(PORT, &error)),
        })
    }

    /// Stores the fence first, so that a delayed older call cannot remove later content; then empties the database.
    /// Both under the write lock of the database file.
    async fn drop_all_objects(&self, call: &CallContext, name: &str) -> Result<Outcome<()>, sqlx::Error> {
        let mut tx = self.file.begin().await?;
        let stored = sqlx::query("SELECT fence FROM databases_renewed WHERE name = ?").bind(name);
        let stored: Option<String> =
            stored.fetch_optional(&mut *tx).await?.map(|row| row.try_get(0)).transpose()?;
        if stored.as_deref().and_then(Fence::parse).is_some_and(|stored| stored > call.fence) {
            let message = format!("a later call has renewed the database `{name}`");
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
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging()
    }

    /// Marks the name as removed first; from then on no call creates the file, which is deleted next.
    async fn drop_user_and_file(&self, name: &str) -> Result<Outcome<()>, sqlx::Error> {
        let mut tx = self.file.begin().await?;
        let close = sqlx::query("INSERT OR IGNORE INTO databases_removed (name) VALUES (?)").bind(name);
        close.execute(&mut *tx).await?;
        let user = sqlx::query("DELETE FROM database_users WHERE name = ?").bind(name);
        user.execute(&mut *tx).await?;
        if let Err(error) = tx.commit().await {
            return Ok(Outcome::Unknown(unavailable(PORT, &error)));
        }
        let path = self.path(name);
        Ok(match run_blocking(move || delete(&path)).await {
            Ok(()) => Outcome::Applied(()),
            Err(error) => Outcome::Unknown(failed(&error)),
        })
    }
}

#[async_trait]
impl SiteDatabases for EmbeddedDatabases {
    /// Returns the address in the credentials: this machine, and the default port of a server. The file has no address.
    fn address(&self) -> (String, u16) {
        ("localhost".to_owned(), 3306)
    }

    async fn ensure(&self, _call: &CallContext, uid: Uid, credentials: &Database) -> Outcome<()> {
        let name = DatabaseName::of(uid).to_string();
        if credentials.dbname != name || credentials.username != name {
            let message = format!("the credentials do not belong to the database `{name}` and its user");
            return Outcome::NotApplied(error(ErrorKind::Invalid, &message));
        }
        let created = self.create_user_and_file(&name, &credentials.password).await;
        created.unwrap_or_else(|error| Outcome::NotApplied(unavailable(PORT, &error)))
    }

    async fn renew(&self, call: &CallContext, uid: Uid, credentials: &Database) -> Outcome<()> {
        match self.ensure(call, uid, credentials).await {
            Outcome::Applied(()) => {}
            other => return other,
        }
        let emptied = self.drop_all_objects(call, &DatabaseName::of(uid).to_string()).await;
        emptied.unwrap_or_else(|error| Outcome::NotApplied(unavailable(PORT, &error)))
    }

    async fn remove(&self, _call: &CallContext, uid: Uid) -> Outcome<()> {
        let dropped = self.drop_user_and_file(&DatabaseName::of(uid).to_string()).await;
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

/// Drops every table with its indexes and triggers, and every view, in one transaction. The file itself stays, so the
/// journal of a connection that is still open belongs to it.
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

/// Creates an empty file, which is an empty database. Leaves an existing file unchanged.
fn create(path: &Path) -> io::Result<()> {
    let file = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    file.sync_all()?;
    sync_parent(path)
}

/// Deletes the file, and the journal files that SQLite may have created for it.
fn delete(path: &Path) -> io::Result<()> {
    for suffix in ["", "-journal", "-wal", "-shm"] {
        let mut path = path.as_os_str().to_owned();
        path.push(suffix);
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

/// Compares two digests in constant time.
fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    let differ = a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differ) == 0
}

fn failed(cause: &io::Error) -> PortError {
    io_error(PORT, "the directory of the databases cannot be used", cause)
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
