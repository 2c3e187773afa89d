//! The one SQLite file, shared by everything embedded and by every process on the machine.

mod edition;
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

use space::Space;
pub(super) use space::is_full;
pub(super) use transaction::Transaction;

/// How long a statement waits for another process's transaction.
const PATIENCE: Duration = Duration::from_secs(5);
/// Rows that a statement may be ahead of its reader: a page, so that the two do not wake each other row by row.
const ROWS: usize = 1_024;
/// Connections that only read.
const READERS: u32 = 4;

/// Why the file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is no database, or cannot be read or written.
    #[error("`{}` cannot be opened as a database", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite or the system says.
        #[source]
        source: sqlx::Error,
    },
    /// It is a database of another program.
    #[error(
        "`{}` is a database of another program, and was not changed; name another data directory (CDM_DATA_DIR)",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A newer program has written to it.
    #[error(
        "`{}` was written by a newer version of CDM (schema version {edition}; this program knows versions up to {}), and \
         was not changed; start that version again, or restore the backup that was made before it was installed",
        path.display(),
        edition::EDITION
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its `user_version`.
        edition: i64,
    },
    /// It is missing or empty where a fleet was.
    #[error(
        "`{}` is missing or empty, but `{}` is there: the records of a fleet are gone; restore the data directory from a \
         backup. To begin with an empty fleet, name an empty directory (CDM_DATA_DIR)",
        path.display(),
        poll_while.display()
    )]
    Lost {
        /// The file.
        path: PathBuf,
        /// What shows that it was in use.
        poll_while: PathBuf,
    },
}

/// The open file; clones share it.
///
/// One connection writes, so this process never waits for itself; others only read. What was committed is on the disk
/// (`synchronous=FULL`).
#[derive(Clone, Debug)]
pub struct File {
    write: SqlitePool,
    read: SqlitePool,
    watch: SqlitePool,
    space: Arc<Space>,
}

impl File {
    /// Opens the file, and makes it where it is missing, readable by its owner alone. Makes no table but the one that
    /// `File::probe` writes to: each user of the file brings its own.
    ///
    /// # Errors
    /// When the file is no database, or another program's, or a newer version's; when it is missing or empty beside what
    /// a fleet has left; and when the directory may not be written.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Database { path: path.to_owned(), source };
        // SQLite creates the `-wal` and `-shm` files with the mode of this one.
        let made = create_private(path).map_err(|error| failed(error.into()))?;
        if let Err(refused) = edition::judge(path).await {
            if made {
                // As it was: an empty file would be one more thing to find out about.
                drop(std::fs::remove_file(path));
            }
            return Err(refused);
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(PATIENCE)
            .row_buffer_size(ROWS)
            .foreign_keys(true);
        let pool = |most| {
            SqlitePoolOptions::new()
                .max_connections(most)
                .test_before_acquire(false)
                .idle_timeout(None)
                .max_lifetime(None)
        };
        let write = pool(1).connect_with(options.clone()).await.map_err(failed)?;
        let read = pool(READERS).connect_with(options.clone()).await.map_err(failed)?;
        let watch = pool(1).connect_with(options).await.map_err(failed)?;
        let file = Self { write, read, watch, space: Arc::default() };
        file.prepare().await.map_err(failed)?;
        Ok(file)
    }

    /// Migrates, and makes the probe's table; both under one commit.
    async fn prepare(&self) -> Result<(), sqlx::Error> {
        let mut on = self.begin().await?;
        edition::migrate(&mut on).await?;
        sqlx::raw_sql(space::SCHEMA).execute(&mut *on).await?;
        on.commit().await
    }

    /// A transaction that holds the file's write lock from its beginning. Dropped without a commit, it changes nothing.
    pub(super) async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        Transaction::begin(&self.write, "BEGIN IMMEDIATE", Some(Arc::clone(&self.space))).await
    }

    /// A transaction that reads one state of the file, whatever is written meanwhile.
    pub(super) async fn snapshot(&self) -> Result<Transaction, sqlx::Error> {
        Transaction::begin(&self.read, "BEGIN", None).await
    }

    /// Connections for statements that only read.
    pub(super) const fn reader(&self) -> &SqlitePool {
        &self.read
    }

    /// Writes a small row and commits it: whether the file takes writes is known by a write alone.
    ///
    /// # Errors
    /// What SQLite says, where it does not.
    pub(super) async fn probe(&self) -> Result<(), sqlx::Error> {
        let mut on = self.begin().await?;
        space::write_probe(&mut on).await.inspect_err(|error| on.note(error))?;
        on.commit().await
    }

    /// A number that changes whenever anyone has written to the file, this process included. Costs microseconds.
    pub(super) async fn version(&self) -> Result<i64, sqlx::Error> {
        sqlx::query("PRAGMA data_version").fetch_one(&self.watch).await?.try_get(0)
    }

    /// Makes tables where they are missing: all of them at once, since each commit waits for the disk.
    pub(super) async fn ensure(&self, schema: &'static str) -> Result<(), sqlx::Error> {
        let mut on = self.begin().await?;
        sqlx::raw_sql(schema).execute(&mut *on).await?;
        on.commit().await
    }

    /// Ends every connection; the file is then in one piece, without a log beside it.
    pub async fn close(&self) {
        self.read.close().await;
        self.watch.close().await;
        self.write.close().await;
    }
}

/// Makes an empty file, which is an empty database, for its owner alone, and says so; leaves one that is there as it is.
fn create_private(path: &Path) -> io::Result<bool> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}
