//! The context and the outcome of a call to a port.

use std::fmt;
use std::time::Duration;

use crate::domain::{Fence, MonotonicTime};

/// The id of one write, by which the writer recognizes its own write after a lost response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// The context of a call that changes something.
#[derive(Clone, Copy, Debug)]
pub struct CallContext {
    /// When the caller stops waiting, on the caller's monotonic clock; never later than the end of the caller's
    /// lease.
    ///
    /// An adapter ends the call by the deadline and returns [`Outcome::Unknown`]. If the target can reject a request
    /// by its age (the expiry of a signed request, a statement timeout), the adapter uses that feature.
    pub deadline: MonotonicTime,
    /// The id of the write. A repetition of the same write carries the same id.
    pub write: WriteId,
    /// The fence of the writing operation: its number and epoch.
    pub fence: Fence,
}

/// The outcome of a call that changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome<T, E = PortError> {
    /// The change took effect.
    Applied(T),
    /// The change did not take effect and will not take effect later.
    NotApplied(E),
    /// It is unknown whether the change took effect, for example after a lost response, a timeout, a connection
    /// reset, a 500 or a 504. It may still take effect later.
    Unknown(E),
}

/// A classification of errors by what a caller can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// The object does not exist.
    NotFound,
    /// The object exists and belongs to the caller.
    Exists,
    /// The object exists and belongs to another owner.
    Foreign,
    /// The object is not in the state that the caller expected.
    Conflict,
    /// The object was removed for good and cannot be created again under this name.
    Gone,
    /// The caller lacks permission.
    Denied,
    /// The request is invalid and cannot succeed unchanged.
    Invalid,
    /// The backend throttles requests; the value is the pause that the backend requests, if it does.
    Throttled(Option<Duration>),
    /// The backend did not respond, or its response does not show the result.
    Unavailable,
    /// The storage behind the port has no space left for a write. Reads still work. The error clears when space is
    /// free.
    Full,
}

/// The error of a call through a port other than the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortError {
    /// What a caller can do about the error.
    pub kind: ErrorKind,
    /// The name of the port, such as `cluster`.
    pub port: &'static str,
    /// The particulars for users. The message never contains a secret, a statement or a host name.
    pub message: String,
}

impl PortError {
    /// Creates an error of `port`.
    pub fn new(port: &'static str, kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, port, message: message.into() }
    }

    /// Returns whether the same call can succeed later without any change by a user.
    pub const fn is_retryable(&self) -> bool {
        match self.kind {
            ErrorKind::Conflict | ErrorKind::Throttled(_) | ErrorKind::Unavailable | ErrorKind::Full => true,
            ErrorKind::NotFound
            | ErrorKind::Exists
            | ErrorKind::Foreign
            | ErrorKind::Gone
            | ErrorKind::Denied
            | ErrorKind::Invalid => false,
        }
    }
}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.port, self.message)
    }
}

impl std::error::Error for PortError {}
