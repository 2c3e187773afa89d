//! Errors of the API as problem documents (RFC 9457). Only this module maps errors to HTTP statuses.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cdm_core::domain::Status;
use cdm_core::manager::ManagerError;
use serde::Serialize;
use utoipa::ToSchema;

/// The media type of error responses.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// An error response of the API (RFC 9457).
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// `/errors/` followed by the code.
    #[serde(rename = "type")]
    #[schema(pattern = "^/errors/[a-z_]+$")]
    pub kind: String,
    /// The reason phrase of the HTTP status.
    pub title: String,
    /// The HTTP status code of the response.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What happened, for people. The text may change.
    pub detail: String,
    /// A stable code, for programs.
    #[schema(pattern = "^[a-z_]+$")]
    pub code: String,
    /// The id of the request, which the audit log and the server log contain too.
    pub request_id: String,
    /// The invalid fields and their errors; empty if no single field is at fault.
    pub errors: Vec<FieldError>,
    /// The operation that conflicts with the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub operation: Option<String>,
    /// The status of that operation if it is `parked`, since it then needs a retry or a cancel.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub operation_status: Option<String>,
    /// The rollout that conflicts with the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub rollout: Option<String>,
    /// The digest that the rollout's service runs, if it is not the digest of the rollout.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub running: Option<String>,
}

/// The error of one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The path of the field, such as `scope.sites`; or the name of a parameter or header.
    pub field: String,
    /// The rule that the value breaks.
    pub message: String,
}

/// An error response without its body; [`crate::middleware`] adds the request id and writes the body.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) problem: Box<Problem>,
    retry_after: Option<Duration>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        let problem = Problem {
            kind: format!("/errors/{code}"),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            code: code.to_owned(),
            request_id: String::new(),
            errors: Vec::new(),
            operation: None,
            operation_status: None,
            rollout: None,
            running: None,
        };
        Self { status, problem: Box::new(problem), retry_after: None }
    }

    /// Returns a 422 for invalid fields, of which there is at least one.
    pub(crate) fn fields(errors: Vec<FieldError>) -> Self {
        let detail = errors.first().map_or_else(String::new, |first| first.message.clone());
        let mut error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail);
        error.problem.errors = errors;
        error
    }

    /// Returns a 422 for one invalid field.
    pub(crate) fn field(field: &str, message: impl Into<String>) -> Self {
        Self::fields(vec![FieldError { field: field.to_owned(), message: message.into() }])
    }

    /// Returns a 422 for one invalid field, with a specific code.
    pub(crate) fn coded(code: &str, field: &str, message: impl Into<String>) -> Self {
        let mut error = Self::field(field, message);
        error.problem.kind = format!("/errors/{code}");
        code.clone_into(&mut error.problem.code);
        error
    }

    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed_json", detail)
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let detail = format!("the request body is larger than the limit of {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    pub(crate) fn media_type() -> Self {
        let detail = "the request body must be JSON; set `Content-Type: application/json`";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }

    pub(crate) fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("{what} does not exist"))
    }

    pub(crate) fn unauthorized() -> Self {
        let detail = "the token is missing, invalid, revoked, expired or not valid for this address; send `Authorization: \
             Bearer TOKEN`";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    pub(crate) fn too_many(after: Duration) -> Self {
        let detail = "too many requests; try again after the seconds in `Retry-After`";
        Self { retry_after: Some(after), ..Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail) }
    }

    /// Returns a 503 because the queue of password checks is full.
    pub(crate) fn busy() -> Self {
        let detail =
            "too many passwords are waiting to be checked; try again after the seconds in `Retry-After`";
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail);
        Self { retry_after: Some(Duration::ZERO), ..error }
    }

    pub(crate) fn internal() -> Self {
        Self::of_status(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(crate) fn timed_out() -> Self {
        let detail = "the request timed out, and its change may still be accepted; check the result, or repeat the \
                      request with the same `Idempotency-Key`";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "timed_out", detail)
    }

    /// Returns the error for a response of a library that has a status but no problem document.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        let (code, detail) = match status {
            StatusCode::NOT_FOUND => ("not_found", "the route does not exist"),
            StatusCode::METHOD_NOT_ALLOWED => {
                ("method_not_allowed", "the route does not support this method; see the `Allow` header")
            }
            StatusCode::INTERNAL_SERVER_ERROR => {
                ("internal", "an internal error occurred; the server log has the details")
            }
            _ => ("refused", "the request was rejected"),
        };
        Self::new(status, code, detail)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"cdm\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().saturating_add(1)));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Returns the HTTP status of an error of the manager.
const fn status(error: &ManagerError) -> StatusCode {
    match error {
        ManagerError::Forbidden { .. } => StatusCode::FORBIDDEN,
        ManagerError::NotFound { .. } => StatusCode::NOT_FOUND,
        ManagerError::SiteExists(_)
        | ManagerError::HostnameTaken { .. }
        | ManagerError::IllegalTransition(_)
        | ManagerError::OperationInFlight(_)
        | ManagerError::OperationParked(_)
        | ManagerError::DigestChanged { .. }
        | ManagerError::BadDigest { .. }
        | ManagerError::RolloutInFlight(_)
        | ManagerError::Frozen(_)
        | ManagerError::PlanChanged
        | ManagerError::TokenExists(_)
        | ManagerError::UserExists(_)
        | ManagerError::NoHealthyDigest
        | ManagerError::Contended => StatusCode::CONFLICT,
        ManagerError::KeyReused
        | ManagerError::Invalid(_)
        | ManagerError::UnknownSites(_)
        | ManagerError::EmptyPlan => StatusCode::UNPROCESSABLE_ENTITY,
        ManagerError::Denied(_)
        | ManagerError::Unavailable(_)
        | ManagerError::StorageFull(_)
        | ManagerError::Unknown => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl From<ManagerError> for ApiError {
    fn from(cause: ManagerError) -> Self {
        let mut error = Self::new(status(&cause), cause.code(), cause.to_string());
        match &cause {
            ManagerError::OperationInFlight(id) => error.problem.operation = Some(id.to_string()),
            ManagerError::OperationParked(id) => {
                error.problem.operation = Some(id.to_string());
                error.problem.operation_status = Some(Status::Parked.to_string());
            }
            ManagerError::DigestChanged { running, .. } => {
                error.problem.running = running.map(|digest| digest.to_string());
                error.set_field("acceptDigest");
            }
            ManagerError::BadDigest { .. } => error.set_field("force"),
            ManagerError::UnknownSites(_) => error.set_field("scope.sites"),
            ManagerError::EmptyPlan => error.set_field("scope"),
            ManagerError::RolloutInFlight(number) => {
                error.problem.rollout = Some(crate::api::rollout::id(*number));
            }
            ManagerError::SiteExists(_) => error.set_field("id"),
            ManagerError::HostnameTaken { .. } => error.set_field("hostnames"),
            ManagerError::TokenExists(_) | ManagerError::UserExists(_) => error.set_field("name"),
            ManagerError::KeyReused => error.set_field("Idempotency-Key"),
            ManagerError::Unavailable(_) | ManagerError::StorageFull(_) | ManagerError::Unknown => {
                error.retry_after = Some(Duration::ZERO);
            }
            ManagerError::PlanChanged => error.set_field("planHash"),
            ManagerError::Forbidden { .. }
            | ManagerError::NotFound { .. }
            | ManagerError::IllegalTransition(_)
            | ManagerError::Frozen(_)
            | ManagerError::NoHealthyDigest
            | ManagerError::Invalid(_)
            | ManagerError::Contended
            | ManagerError::Denied(_) => {}
        }
        error
    }
}

impl ApiError {
    /// Reports the detail as the error of one field.
    fn set_field(&mut self, field: &str) {
        let message = self.problem.detail.clone();
        self.problem.errors = vec![FieldError { field: field.to_owned(), message }];
    }
}
