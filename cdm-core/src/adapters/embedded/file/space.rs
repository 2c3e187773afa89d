//! Whether the disk has space for writes, as observed from the writes.

use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::SqliteConnection;

/// The row that a probe writes. Its size is that of a common record, so that the probe fails if records fail.
pub(super) const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS disk_probe (
    one INTEGER PRIMARY KEY CHECK (one = 1), writes INTEGER NOT NULL, filler BLOB NOT NULL
) STRICT";

const PROBE: &str = "INSERT INTO disk_probe (one, writes, filler) VALUES (1, 1, zeroblob(8192))
    ON CONFLICT (one) DO UPDATE SET writes = writes + 1, filler = zeroblob(8192)";

/// Writes the row of the probe, in a transaction that the caller commits.
pub(super) async fn write_probe(tx: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query(PROBE).execute(tx).await.map(drop)
}

/// Returns whether SQLite failed to write for lack of space: the disk is full, a quota is exceeded, or the file has
/// reached the process's file size limit (`RLIMIT_FSIZE`). SQLite reports `SQLITE_FULL` only for `ENOSPC`; the other
/// cases are failed writes.
pub(in super::super) fn is_full(error: &sqlx::Error) -> bool {
    /// `SQLITE_FULL`, `SQLITE_IOERR_WRITE`, `SQLITE_IOERR_SHMSIZE`.
    const CODES: [&str; 3] = ["13", "778", "4874"];
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| CODES.contains(&&*code))
}

/// The result of the last writes, shared by all writers of one file.
#[derive(Debug, Default)]
pub(super) struct DiskSpace {
    full: AtomicBool,
}

impl DiskSpace {
    /// Returns whether the last write failed for lack of space.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Records an error. Logs only the first error of a full disk.
    pub(super) fn record_failure(&self, error: &sqlx::Error) {
        if is_full(error) && !self.full.swap(true, Ordering::Relaxed) {
            tracing::error!(
                %error,
                "the disk of the data directory is full, or the database has reached a size limit; writes are \
                 rejected as `storage_full` until there is free space, reads continue"
            );
        }
    }

    /// Records a committed write.
    pub(super) fn record_success(&self) {
        if self.full.swap(false, Ordering::Relaxed) {
            tracing::info!("writes to the disk of the data directory succeed again");
        }
    }
}
