//! The errors of changes.

use crate::adapters::embedded::file::is_full;
use crate::ports::{StoreError, WriteError};

/// Why a change was not applied.
#[derive(Debug)]
pub(super) enum Failure {
    /// The change was rejected.
    Refused(WriteError),
    /// SQLite failed to execute a statement.
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

/// Returns the error of a failed statement, for example because the file is locked or the disk is full. The text is
/// SQLite's and contains no value.
pub(super) fn unavailable(error: &sqlx::Error) -> StoreError {
    if is_full(error) {
        StoreError::Full(error.to_string())
    } else {
        StoreError::Unavailable(error.to_string())
    }
}
