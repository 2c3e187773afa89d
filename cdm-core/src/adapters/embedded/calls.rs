//! What the embedded adapters share: the deadline of a call, and the errors of the database file and of directories.

use std::io;

use super::file::is_full;
use crate::domain::MonotonicTime;
use crate::ports::{Clock, ErrorKind, Outcome, PortError};

use futures_util::future::{Either, select};
use futures_util::pin_mut;

/// Returns the outcome of `work`, or *unknown* once the deadline has passed. Work that completes on its first poll is
/// never cut off.
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
            let message = "the deadline passed before the call completed";
            Outcome::Unknown(PortError::new(port, ErrorKind::Unavailable, message))
        }
    }
}

/// Returns the error of a failed file operation: `summary`, and the kind of the system's error.
pub(super) fn io_error(port: &'static str, summary: &str, cause: &io::Error) -> PortError {
    let kind = match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            ErrorKind::Full
        }
        _ => ErrorKind::Unavailable,
    };
    PortError::new(port, kind, format!("{summary}: {}", cause.kind()))
}

/// Returns the error of the SQLite file, with SQLite's message if there is one. SQLite's messages quote no statement
/// and no value.
pub(super) fn unavailable(port: &'static str, error: &sqlx::Error) -> PortError {
    let summary = match error.as_database_error() {
        Some(error) => error.message(),
        None => "no connection to the file",
    };
    if is_full(error) {
        return PortError::new(
            port,
            ErrorKind::Full,
            format!("the database file cannot be written: {summary}"),
        );
    }
    PortError::new(port, ErrorKind::Unavailable, format!("the database file is not available: {summary}"))
}
