//! Failures of requests to the API server, and their meaning for the port's caller.

use std::time::Duration;

use serde::Deserialize;

use crate::ports::{ErrorKind, Outcome, PortError};

pub(super) const PORT: &str = "cluster";

/// Maximum length of the server's message in an error, in characters.
const MAX_MESSAGE: usize = 300;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    pub(super) message: String,
    /// Whether a change was sent that may still take effect.
    pub(super) maybe_applied: bool,
}

/// The fields of a `Status` object that determine a failure. Its other fields may have any format.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ErrorStatus {
    reason: String,
    message: String,
}

impl Failure {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), maybe_applied: false }
    }

    /// Returns the failure of a call whose deadline has passed.
    pub(super) fn late() -> Self {
        Self::new(ErrorKind::Unavailable, "the deadline passed before the call completed")
    }

    /// Marks that a request was sent that may still take effect.
    pub(super) fn into_maybe_applied(mut self) -> Self {
        self.maybe_applied = true;
        self
    }

    /// Returns the failure of a response with an error status. `message_policy` determines whether the server's message
    /// is included.
    pub(super) fn from_response(
        status: u16,
        status_object: &ErrorStatus,
        retry_after: Option<u64>,
        message_policy: MessagePolicy,
    ) -> Self {
        let kind = of_status(status, &status_object.reason, retry_after);
        let server_message = match message_policy {
            MessagePolicy::Include => status_object.message.as_str(),
            MessagePolicy::Omit => "",
        };
        let server_message: String =
            server_message.chars().filter(|character| !character.is_control()).take(MAX_MESSAGE).collect();
        let message = match (server_message.is_empty(), kind) {
            (true, _) => format!("the API server returned status {status}"),
            (false, _) => server_message,
        };
        Self::new(kind, message)
    }

    /// Returns the error for a caller that reads.
    pub(super) fn into_error(self) -> PortError {
        PortError::new(PORT, self.kind, self.message)
    }

    /// Returns the outcome for a caller that changes something.
    pub(super) fn into_outcome<T>(self) -> Outcome<T> {
        let maybe_applied = self.maybe_applied;
        let error = self.into_error();
        if maybe_applied { Outcome::Unknown(error) } else { Outcome::NotApplied(error) }
    }
}

/// Whether the server's message may be included in an error: a message about a Secret may quote the Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessagePolicy {
    Include,
    Omit,
}

fn of_status(status: u16, reason: &str, retry_after: Option<u64>) -> ErrorKind {
    match status {
        401 | 403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        409 if reason == "AlreadyExists" => ErrorKind::Exists,
        409 => ErrorKind::Conflict,
        429 => ErrorKind::Throttled(retry_after.map(Duration::from_secs)),
        // The resource version or the page token is too old; reading again returns a new one.
        408 | 410 => ErrorKind::Unavailable,
        400..=499 => ErrorKind::Invalid,
        _ => ErrorKind::Unavailable,
    }
}

/// Returns whether the outcome of a change is unknown: an API server may respond with this status after it stored the
/// change.
pub(super) const fn is_ambiguous(status: u16) -> bool {
    status == 408 || status >= 500
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_error_leaves_the_outcome_unknown_and_a_rejection_does_not() {
        for status in [408, 500, 502, 503, 504] {
            assert!(is_ambiguous(status), "{status}");
            assert_eq!(of_status(status, "", None), ErrorKind::Unavailable, "{status}");
        }
        for (status, kind) in [
            (400, ErrorKind::Invalid),
            (401, ErrorKind::Denied),
            (403, ErrorKind::Denied),
            (404, ErrorKind::NotFound),
            (410, ErrorKind::Unavailable),
            (409, ErrorKind::Conflict),
            (413, ErrorKind::Invalid),
            (422, ErrorKind::Invalid),
            (429, ErrorKind::Throttled(Some(Duration::from_secs(3)))),
        ] {
            assert!(!is_ambiguous(status), "{status}");
            assert_eq!(of_status(status, "", Some(3)), kind, "{status}");
        }
        assert_eq!(of_status(409, "AlreadyExists", None), ErrorKind::Exists);
    }

    #[test]
    fn messages_are_truncated_and_omitted_for_secrets() {
        let status = ErrorStatus { reason: "Forbidden".to_owned(), message: "no\n".repeat(500) };
        let kept = Failure::from_response(403, &status, None, MessagePolicy::Include);
        assert_eq!((kept.kind, kept.message.len()), (ErrorKind::Denied, MAX_MESSAGE));
        let status = ErrorStatus { message: "hush".to_owned(), ..ErrorStatus::default() };
        let dropped = Failure::from_response(422, &status, None, MessagePolicy::Omit);
        assert_eq!(dropped.message, "the API server returned status 422");
    }
}
