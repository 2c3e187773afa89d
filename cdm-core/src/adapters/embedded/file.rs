//! The one SQLite file, shared by everything embedded and by every process on the machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, Sqlite, SqlitePool, Transaction};

/// How long a statement waits for another process's transaction.
const PATIENCE: Duration = Duration::from_secs(5);
/// Rows that a statement may be ahead of its reader: a page, so that the two do not wake each other row by row.
const ROWS: usize = 1_024;
/// Connections that only read.
const READERS: u32 = 4;

/// Why the file cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("`{}` cannot be opened as a database", path.display())]
pub struct OpenError {
    path: PathBuf,
    #[source]
    source: sqlx::Error,
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
}

impl File {
    /// Opens the file, and makes it where it is missing. Does not make any table: each user of the file brings its own.
    ///
    /// # Errors
    /// When the file is no database, or the directory may not be written.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
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
        let failed = |source| OpenError { path: path.to_owned(), source };
        let write = pool(1).connect_with(options.clone()).await.map_err(failed)?;
        let read = pool(READERS).connect_with(options.clone()).await.map_err(failed)?;
        let watch = pool(1).connect_with(options).await.map_err(failed)?;
        Ok(Self { write, read, watch })
    }

    /// A transaction that holds the file's write lock from its beginning. Dropped without a commit, it changes nothing.
    pub(super) async fn begin(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        self.write.begin_with("BEGIN IMMEDIATE").await
    }

    /// Connections for statements that only read.
    pub(super) const fn reader(&self) -> &SqlitePool {
        &self.read
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
