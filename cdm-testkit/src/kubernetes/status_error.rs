//! Errors of the server: `Status` objects with the code, the reason and the message of a real server.

use serde_json::{Value, json};

use super::kinds::Kind;

/// An error response, a `Status` with `status: Failure`.
#[derive(Clone, Debug)]
pub(super) struct StatusError {
    pub(super) code: u16,
    reason: &'static str,
    pub(super) message: String,
    details: Value,
    /// Value of `Retry-After`, in seconds.
    pub(super) retry_after: Option<u64>,
}

/// One invalid field of an object.
#[derive(Clone, Debug)]
pub(super) struct Cause {
    pub(super) reason: &'static str,
    pub(super) field: String,
    pub(super) message: String,
}

impl Cause {
    pub(super) fn invalid(field: impl Into<String>, value: &Value, why: &str) -> Self {
        Self::new("FieldValueInvalid", field, format!("Invalid value: {value}: {why}"))
    }

    pub(super) fn required(field: impl Into<String>, why: &str) -> Self {
        Self::new(
            "FieldValueRequired",
            field,
            format!("Required value: {why}").trim_end_matches(": ").to_owned(),
        )
    }

    pub(super) fn forbidden(field: impl Into<String>, why: &str) -> Self {
        Self::new("FieldValueForbidden", field, format!("Forbidden: {why}"))
    }

    pub(super) fn not_found(field: impl Into<String>, name: &str) -> Self {
        Self::new("FieldValueNotFound", field, format!("Not found: {name:?}"))
    }

    pub(super) fn unsupported(field: impl Into<String>, value: &str, supported: &[&str]) -> Self {
        let known: Vec<String> = supported.iter().map(|one| format!("{one:?}")).collect();
        let message = format!("Unsupported value: {value:?}: supported values: {}", known.join(", "));
        Self::new("FieldValueNotSupported", field, message)
    }

    pub(super) fn too_long(field: impl Into<String>, most: usize) -> Self {
        Self::new("FieldValueTooLong", field, format!("Too long: may not be more than {most} bytes"))
    }

    pub(super) fn too_many(field: impl Into<String>, many: usize, most: usize) -> Self {
        Self::new("FieldValueTooMany", field, format!("Too many: {many}: must have at most {most} items"))
    }

    fn new(reason: &'static str, field: impl Into<String>, message: String) -> Self {
        Self { reason, field: field.into(), message }
    }
}

impl StatusError {
    pub(super) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Value::Null, retry_after: None }
    }

    fn about(mut self, kind: &Kind, name: &str) -> Self {
        self.details = json!({"name": name, "group": kind.group, "kind": kind.plural});
        self
    }

    /// Returns an error of which only the code is given.
    pub(super) fn of_code(code: u16, retry_after: Option<u64>) -> Self {
        let (reason, message) = match code {
            429 => (
                "TooManyRequests",
                "the server has received too many requests and has asked us to try again later",
            ),
            500 => ("InternalError", "Internal error occurred: etcdserver: request timed out"),
            503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
            504 => ("Timeout", "Timeout: request did not complete within the requested timeout"),
            _ => ("", "an injected fault"),
        };
        let details = retry_after.map_or(Value::Null, |seconds| json!({"retryAfterSeconds": seconds}));
        Self { details, retry_after, ..Self::new(code, reason, message) }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub(super) fn forbidden(kind: &Kind, name: &str, why: &str) -> Self {
        let named = if name.is_empty() { String::new() } else { format!(" {name:?}") };
        let message = format!("{}{named} is forbidden: {why}", kind.qualified());
        Self::new(403, "Forbidden", message).about(kind, name)
    }

    pub(super) fn not_found(kind: &Kind, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} {name:?} not found", kind.qualified())).about(kind, name)
    }

    pub(super) fn method() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message)
    }

    pub(super) fn exists(kind: &Kind, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} {name:?} already exists", kind.qualified()))
            .about(kind, name)
    }

    pub(super) fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.qualified());
        Self::new(409, "Conflict", message).about(kind, name)
    }

    /// Returns the conflict of an apply with fields of other owners: each owner with its field.
    pub(super) fn owned(conflicts: &[(String, String)]) -> Self {
        let plural = if conflicts.len() == 1 { "" } else { "s" };
        let conflict = |(owner, field): &(String, String)| format!("conflict with {owner:?}: {field}");
        let conflict: Vec<_> = conflicts.iter().map(conflict).collect();
        let many = conflicts.len();
        let message = format!("Apply failed with {many} conflict{plural}: {}", conflict.join(", "));
        let cause = |(owner, field): &(String, String)| {
            let message = format!("conflict with {owner:?}");
            json!({"reason": "FieldManagerConflict", "message": message, "field": field})
        };
        let causes: Vec<Value> = conflicts.iter().map(cause).collect();
        Self { details: json!({"causes": causes}), ..Self::new(409, "Conflict", message) }
    }

    pub(super) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    pub(super) fn media_type(accepted: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub(super) fn invalid(kind: &Kind, name: &str, causes: &[Cause]) -> Self {
        let text: Vec<_> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let text = if let [one] = text.as_slice() { one.clone() } else { format!("[{}]", text.join(", ")) };
        let message = format!("{} {name:?} is invalid: {text}", kind.qualified_kind());
        let mut error = Self::new(422, "Invalid", message);
        let causes: Vec<Value> = causes
            .iter()
            .map(|cause| json!({"reason": cause.reason, "message": cause.message, "field": cause.field}))
            .collect();
        error.details = json!({"name": name, "group": kind.group, "kind": kind.kind, "causes": causes});
        error
    }

    /// Returns the error of a JSON patch that does not apply, including a failed `test`. A real server gives no
    /// more details.
    pub(super) fn patch_does_not_fit() -> Self {
        let message = "the server rejected our request due to an error in our request";
        Self { details: json!({}), ..Self::new(422, "Invalid", message) }
    }

    pub(super) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }
}
