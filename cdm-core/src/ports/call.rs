//! What every call brings, and what comes of it.

use std::fmt;
use std::time::Duration;

use crate::domain::{Fence, MonotonicTime};

/// Tells one write from every other, so that its writer recognises it after a lost answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// The context of a call that changes something.
#[derive(Clone, Copy, Debug)]
pub struct CallContext {
    /// When the caller stops waiting, on its own monotonic clock; never later than its lease.
    ///
    /// An adapter ends the call by then and answers *unknown*. Where the target can refuse a request by its age (a
    /// signed request's expiry, a statement time-out), the adapter makes it do so.
    pub deadline: MonotonicTime,
    /// Names this write; a repetition of the same write carries the same id.
    pub write: WriteId,
    /// Who acts: the operation's number and epoch.
    pub fence: Fence,
}

/// What came of a call that changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome<T, E = PortError> {
    /// It took effect.
    Applied(T),
    /// It did not, and will not.
    NotApplied(E),
    /// Nobody knows: the answer was lost, or was a time-out, a reset, a 500 or a 504. It may still take effect.
    Unknown(E),
}

/// What a caller can make of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// There is no such thing.
    NotFound,
    /// It exists, and is the caller's own.
    Exists,
    /// It exists, and is someone else's.
    Foreign,
    /// It is not as the caller expected it.
    Conflict,
    /// It was there and is gone for good; it cannot come back under this name.
    Gone,
    /// The caller may not.
    Denied,
    /// The request is wrong as it stands.
    Invalid,
    /// Too many calls.
    Throttled(Option<Duration>),
    /// No answer, or none that says anything.
    Unavailable,
    /// The storage behind the port has no space left for a write; reads go on. Clears once space is free.
    Full,
}

/// An error of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortError {
    /// What the caller can make of it.
    pub kind: ErrorKind,
    /// Which port.
    pub port: &'static str,
    /// The particulars; never a secret, a statement or a host name.
    pub message: String,
}

impl PortError {
    /// An error of `port`.
    pub fn new(port: &'static str, kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, port, message: message.into() }
    }

    /// Whether the same call may succeed later without anyone doing anything.
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
