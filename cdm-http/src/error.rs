//! Errors of the API as problem documents (RFC 9457). Only this module maps errors to HTTP statuses.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cdm_core::manager::ManagerError;

use crate::api::operation::OperationStatus;
use crate::api::problem::{FieldError, Problem};
use crate::api::{Digest, InvalidFields, OperationId, RolloutId};

/// The media type of error responses.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

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

impl From<InvalidFields> for ApiError {
    fn from(invalid: InvalidFields) -> Self {
        let mut error = Self::fields(invalid.errors);
        error.problem.kind = format!("/errors/{}", invalid.code);
        invalid.code.clone_into(&mut error.problem.code);
        error
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
            ManagerError::OperationInFlight(id) => error.problem.operation = Some(OperationId::from(id)),
            ManagerError::OperationParked(id) => {
                error.problem.operation = Some(OperationId::from(id));
                error.problem.operation_status = Some(OperationStatus::Parked);
            }
            ManagerError::DigestChanged { running, .. } => {
                error.problem.running = running.as_ref().map(Digest::from);
                error.set_field("acceptDigest");
            }
            ManagerError::BadDigest { .. } => error.set_field("force"),
            ManagerError::UnknownSites(_) => error.set_field("scope.sites"),
            ManagerError::EmptyPlan => error.set_field("scope"),
            ManagerError::RolloutInFlight(number) => {
                error.problem.rollout = Some(RolloutId::from_number(*number));
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
