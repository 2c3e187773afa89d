//! What the embedded adapters share of a call: its deadline, and what an error of the file is to its caller.

use std::io;

use super::file::is_full;
use crate::domain::MonotonicTime;
use crate::ports::{Clock, ErrorKind, Outcome, PortError};

use futures_util::future::{Either, select};
use futures_util::pin_mut;

/// What `work` answers, or *unknown* once the deadline has passed. Work that answers at once is never cut off.
pub(super) async fn within<T>(
    clock: &dyn Clock,
    deadline: MonotonicTime,
    port: &'static str,
    work: impl Future<Output = Outcome<T>>,
) -> Outcome<T> {
    let late = clock.sleep_until(deadline);
    pin_mut!(work);
    match select(work, late).await {
        Either::Left((outcome, _)) => outcome,
        Either::Right(((), _)) => {
            let message = "the call's deadline passed before it was done";
            Outcome::Unknown(PortError::new(port, ErrorKind::Unavailable, message))
        }
    }
}

/// What a failed use of a directory is to its caller: `words`, and what the system says.
pub(super) fn io_failed(port: &'static str, words: &str, cause: &io::Error) -> PortError {
    let kind = match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            ErrorKind::Full
        }
        _ => ErrorKind::Unavailable,
    };
    PortError::new(port, kind, format!("{words}: {}", cause.kind()))
}

/// An error of the SQLite file, in SQLite's own words where it has any; they quote no statement and no value.
pub(super) fn unavailable(port: &'static str, error: &sqlx::Error) -> PortError {
    let words = match error.as_database_error() {
        Some(error) => error.message(),
        None => "no connection to it",
    };
    if is_full(error) {
        return PortError::new(port, ErrorKind::Full, format!("the database file takes no writes: {words}"));
    }
    PortError::new(port, ErrorKind::Unavailable, format!("the database file does not answer: {words}"))
}
