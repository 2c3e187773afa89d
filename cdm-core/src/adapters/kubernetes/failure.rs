//! What went wrong between us and the API server, and what that is to the port's caller.

use std::time::Duration;

use serde_json::Value;

use crate::ports::{ErrorKind, Outcome, PortError};

pub(super) const PORT: &str = "cluster";

/// How much of the server's own words is kept.
const WORDS: usize = 300;

/// Why a call ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    pub(super) message: String,
    /// Whether a change was sent that may still take effect.
    pub(super) open: bool,
}

impl Failure {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), open: false }
    }

    /// The call's deadline has come.
    pub(super) fn late() -> Self {
        Self::new(ErrorKind::Unavailable, "the call's deadline passed before it was done")
    }

    /// What was sent may still take effect.
    pub(super) fn opened(mut self) -> Self {
        self.open = true;
        self
    }

    /// What an answer with an error status says. `secret` answers keep none of the server's words.
    pub(super) fn answered(
        status: u16,
        status_object: &Value,
        retry_after: Option<u64>,
        words: Words,
    ) -> Self {
        let text = |name: &str| status_object.get(name).and_then(Value::as_str).unwrap_or_default();
        let kind = of_status(status, text("reason"), retry_after);
        let said = match words {
            Words::Kept => text("message"),
            Words::Dropped => "",
        };
        let said: String = said.chars().filter(|character| !character.is_control()).take(WORDS).collect();
        let message = match (said.is_empty(), kind) {
            (true, _) => format!("the API server answered {status}"),
            (false, _) => said,
        };
        Self::new(kind, message)
    }

    /// What this is to a caller that only reads.
    pub(super) fn into_error(self) -> PortError {
        PortError::new(PORT, self.kind, self.message)
    }

    /// What this is to a caller that changes something.
    pub(super) fn into_outcome<T>(self) -> Outcome<T> {
        let open = self.open;
        let error = self.into_error();
        if open { Outcome::Unknown(error) } else { Outcome::NotApplied(error) }
    }
}

/// Whether the server's own words may be told: those about a Secret may repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Words {
    Kept,
    Dropped,
}

fn of_status(status: u16, reason: &str, retry_after: Option<u64>) -> ErrorKind {
    match status {
        401 | 403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        409 if reason == "AlreadyExists" => ErrorKind::Exists,
        409 => ErrorKind::Conflict,
        429 => ErrorKind::Throttled(retry_after.map(Duration::from_secs)),
        // A version or a token that is too old: a new look has another.
        408 | 410 => ErrorKind::Unavailable,
        400..=499 => ErrorKind::Invalid,
        _ => ErrorKind::Unavailable,
    }
}

/// Whether an answer leaves open what became of a change: an API server may answer so after the change was stored.
pub(super) const fn leaves_open(status: u16) -> bool {
    status == 408 || status >= 500
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_of_the_server_leaves_it_open_and_a_refusal_does_not() {
        for status in [408, 500, 502, 503, 504] {
            assert!(leaves_open(status), "{status}");
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
            assert!(!leaves_open(status), "{status}");
            assert_eq!(of_status(status, "", Some(3)), kind, "{status}");
        }
        assert_eq!(of_status(409, "AlreadyExists", None), ErrorKind::Exists);
    }

    #[test]
    fn the_servers_words_are_cut_and_not_told_of_secrets() {
        let status = json!({ "reason": "Forbidden", "message": "no\n".repeat(500) });
        let told = Failure::answered(403, &status, None, Words::Kept);
        assert_eq!((told.kind, told.message.len()), (ErrorKind::Denied, WORDS));
        let untold = Failure::answered(422, &json!({ "message": "hush" }), None, Words::Dropped);
        assert_eq!(untold.message, "the API server answered 422");
    }
}
