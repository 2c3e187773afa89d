//! The SQLite database file that all embedded adapters and all processes on the machine share.

mod schema_version;
mod space;
mod transaction;

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, SqlitePool};

use space::DiskSpace;
pub(super) use space::is_full;
pub(super) use transaction::Transaction;

/// How long a statement waits for the transaction of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How many rows a statement may be ahead of its reader: a page, so that the two do not wake each other row by row.
const ROW_BUFFER: usize = 1_024;
/// The number of connections that only read.
const MAX_READERS: u32 = 4;

/// Why the database file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file is not a database, or cannot be read or written.
    #[error("`{}` cannot be opened as a database", path.display())]
    Database {
        /// The path of the file.
        path: PathBuf,
        /// The error of SQLite or of the system.
        #[source]
        source: sqlx::Error,
    },
    /// The file is a database of another program.
    #[error(
        "`{}` is a database of another program, and was not changed; configure another data directory (CDM_DATA_DIR)",
        path.display()
    )]
    Foreign {
        /// The path of the file.
        path: PathBuf,
    },
    /// A newer version of CDM has written to the file.
    #[error(
        "`{}` was written by a newer version of CDM (schema version {schema_version}; this version supports schema \
         versions up to {}), and was not changed; start the newer version again, or restore the backup \
         that was made before it was installed",
        path.display(),
        schema_version::SCHEMA_VERSION
    )]
    Newer {
        /// The path of the file.
        path: PathBuf,
        /// The schema version of the file (`user_version`).
        schema_version: i64,
    },
    /// The file is missing or empty, although the data directory was in use.
    #[error(
        "`{}` is missing or empty, but `{}` exists: the records of the sites are lost; restore the data directory \
         from a backup. To start without sites, configure an empty directory (CDM_DATA_DIR)",
        path.display(),
        evidence.display()
    )]
    Lost {
        /// The path of the file.
        path: PathBuf,
        /// The entry that shows that the data directory was in use.
        evidence: PathBuf,
    },
}

/// The open database file. Clones share it.
///
/// A single connection writes, so the writes of this process never conflict with each other; the other connections only
/// read. A committed transaction is on disk (`synchronous=FULL`).
#[derive(Clone, Debug)]
pub struct File {
    write: SqlitePool,
    read: SqlitePool,
    watch: SqlitePool,
    space: Arc<DiskSpace>,
}

impl File {
    /// Opens the file, creating it with access for its owner only if it is missing. Creates no tables except the one of
    /// `File::probe`: each adapter creates its own.
    ///
    /// # Errors
    /// When the file is not a database, or belongs to another program or a newer version; when it is missing or empty
    /// although other entries show that the data directory was in use; and when the directory is not writable.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Database { path: path.to_owned(), source };
        // SQLite creates the `-wal` and `-shm` files with the mode of this one.
        let created = create_private(path).map_err(|error| failed(error.into()))?;
        if let Err(refused) = schema_version::check(path).await {
            if created {
                // An empty file must not remain: the next start would report it as another problem.
                drop(std::fs::remove_file(path));
            }
            return Err(refused);
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .row_buffer_size(ROW_BUFFER)
            .foreign_keys(true);
        let pool = |max| {
            SqlitePoolOptions::new()
                .max_connections(max)
                .test_before_acquire(false)
                .idle_timeout(None)
                .max_lifetime(None)
        };
        let write = pool(1).connect_with(options.clone()).await.map_err(failed)?;
        let read = pool(MAX_READERS).connect_with(options.clone()).await.map_err(failed)?;
        let watch = pool(1).connect_with(options).await.map_err(failed)?;
        let file = Self { write, read, watch, space: Arc::default() };
        file.prepare().await.map_err(failed)?;
        Ok(file)
    }

    /// Migrates the file and creates the table of the probe, in one commit.
    async fn prepare(&self) -> Result<(), sqlx::Error> {
        let mut tx = self.begin().await?;
        schema_version::migrate(&mut tx).await?;
        sqlx::raw_sql(space::SCHEMA).execute(&mut *tx).await?;
        tx.commit().await
    }

    /// Starts a transaction that holds the write lock of the file from its start. Dropping it without a commit rolls it
    /// back.
    pub(super) async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        Transaction::begin(&self.write, "BEGIN IMMEDIATE", Some(Arc::clone(&self.space))).await
    }

    /// Starts a transaction that reads one consistent state of the file, regardless of concurrent writes.
    pub(super) async fn snapshot(&self) -> Result<Transaction, sqlx::Error> {
        Transaction::begin(&self.read, "BEGIN", None).await
    }

    /// Returns the connections for statements that only read.
    pub(super) const fn reader(&self) -> &SqlitePool {
        &self.read
    }

    /// Writes and commits a small row, because only a write shows whether the file can be written.
    ///
    /// # Errors
    /// The error of SQLite if the write fails.
    pub(super) async fn probe(&self) -> Result<(), sqlx::Error> {
        let mut tx = self.begin().await?;
        space::write_probe(&mut tx).await.inspect_err(|error| tx.record_error(error))?;
        tx.commit().await
    }

    /// Returns a number that changes with every write to the file by any process, including this one. Costs
    /// microseconds.
    pub(super) async fn version(&self) -> Result<i64, sqlx::Error> {
        sqlx::query("PRAGMA data_version").fetch_one(&self.watch).await?.try_get(0)
    }

    /// Creates missing tables. A schema has all tables of its adapter, because every commit waits for the disk.
    pub(super) async fn ensure(&self, schema: &'static str) -> Result<(), sqlx::Error> {
        let mut tx = self.begin().await?;
        sqlx::raw_sql(schema).execute(&mut *tx).await?;
        tx.commit().await
    }

    /// Closes every connection. SQLite then has merged its log into the file and removed it.
    pub async fn close(&self) {
        self.read.close().await;
        self.watch.close().await;
        self.write.close().await;
    }
}

/// Creates an empty file, which is an empty database, with access for its owner only. Returns `false` if the file
/// exists, which is left unchanged.
fn create_private(path: &Path) -> io::Result<bool> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}
