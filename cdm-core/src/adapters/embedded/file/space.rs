//! Whether the disk has space for writes, as the writes themselves show it.

use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::SqliteConnection;

/// The row that a probe writes. It has the size of a common record, so that it does not fit where those do not.
pub(super) const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS disk_probe (
    one INTEGER PRIMARY KEY CHECK (one = 1), writes INTEGER NOT NULL, filler BLOB NOT NULL
) STRICT";

const PROBE: &str = "INSERT INTO disk_probe (one, writes, filler) VALUES (1, 1, zeroblob(8192))
    ON CONFLICT (one) DO UPDATE SET writes = writes + 1, filler = zeroblob(8192)";

/// Writes the probe's row, within a transaction that is committed next.
pub(super) async fn write_probe(on: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query(PROBE).execute(on).await.map(drop)
}

/// Whether SQLite could not write for lack of space: the disk is full, a quota is used up, or the file has reached the
/// size that the process may write (`RLIMIT_FSIZE`). Only for `ENOSPC` SQLite says `SQLITE_FULL`; the others are failed
/// writes to it.
pub(in super::super) fn is_full(error: &sqlx::Error) -> bool {
    /// `SQLITE_FULL`, `SQLITE_IOERR_WRITE`, `SQLITE_IOERR_SHMSIZE`.
    const CODES: [&str; 3] = ["13", "778", "4874"];
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| CODES.contains(&&*code))
}

/// What the last writes showed; shared by everything that writes to one file.
#[derive(Debug, Default)]
pub(super) struct Space {
    full: AtomicBool,
}

impl Space {
    /// Whether the last write found no space.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Takes note of an error. The first one of a full disk is logged, the following ones are not.
    pub(super) fn failed(&self, error: &sqlx::Error) {
        if is_full(error) && !self.full.swap(true, Ordering::Relaxed) {
            tracing::error!(
                %error,
                "the disk of the data directory takes no writes: it is full, or the database has reached a limit of \
                 its size; writes are refused as `storage_full` until there is space, reads go on"
            );
        }
    }

    /// Takes note of a write that was committed.
    pub(super) fn written(&self) {
        if self.full.swap(false, Ordering::Relaxed) {
            tracing::info!("the disk of the data directory takes writes again");
        }
    }
}
