//! What SQLite's errors mean to a caller.

use crate::adapters::embedded::file::is_full;
use crate::ports::{StoreError, WriteError};

/// Why a change was not made.
#[derive(Debug)]
pub(super) enum Failure {
    /// It is refused.
    Refused(WriteError),
    /// The file did not do it.
    Sql(sqlx::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<WriteError> for Failure {
    fn from(refused: WriteError) -> Self {
        Self::Refused(refused)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Refused(WriteError::Store(error))
    }
}

/// A statement that failed: the file may be busy, the disk full. Its text is SQLite's own and holds no value.
pub(super) fn unavailable(error: &sqlx::Error) -> StoreError {
    if is_full(error) {
        StoreError::Full(error.to_string())
    } else {
        StoreError::Unavailable(error.to_string())
    }
}
