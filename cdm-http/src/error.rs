//! The one place that knows HTTP statuses: what a refusal looks like on the wire (RFC 9457).

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cdm_core::domain::Status;
use cdm_core::manager::ManagerError;
use serde::Serialize;
use utoipa::ToSchema;

/// The media type of every refusal.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// Why a request was refused.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// `/errors/` and the code.
    #[serde(rename = "type")]
    #[schema(pattern = "^/errors/[a-z_]+$")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// The particulars, for people.
    pub detail: String,
    /// The stable code, for programs.
    #[schema(pattern = "^[a-z_]+$")]
    pub code: String,
    /// The request's id, as in the audit and the log.
    pub request_id: String,
    /// What is wrong with which field.
    pub errors: Vec<FieldError>,
    /// The operation that is in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub operation: Option<String>,
    /// How that operation stands, where it does not go on by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub operation_status: Option<String>,
    /// The rollout that is in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub rollout: Option<String>,
    /// The digest that a rollout's service runs, where that is in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub running: Option<String>,
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Which: a path such as `scope.sites`.
    pub field: String,
    /// What.
    pub message: String,
}

/// A refusal on its way out; [`crate::request`] gives it the request's id and its body.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) problem: Box<Problem>,
    retry_after: Option<Duration>,
}

impl Refusal {
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

    /// Input that breaks rules; at least one.
    pub(crate) fn fields(errors: Vec<FieldError>) -> Self {
        let detail = errors.first().map_or_else(String::new, |first| first.message.clone());
        let mut refusal = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail);
        refusal.problem.errors = errors;
        refusal
    }

    /// Input of which one field breaks a rule.
    pub(crate) fn field(field: &str, message: impl Into<String>) -> Self {
        Self::fields(vec![FieldError { field: field.to_owned(), message: message.into() }])
    }

    /// The same, under a code of its own.
    pub(crate) fn coded(code: &str, field: &str, message: impl Into<String>) -> Self {
        let mut refusal = Self::field(field, message);
        refusal.problem.kind = format!("/errors/{code}");
        code.clone_into(&mut refusal.problem.code);
        refusal
    }

    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed_json", detail)
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let detail = format!("a body has at most {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    pub(crate) fn media_type() -> Self {
        let detail = "the body is to be application/json, and to say so";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }

    pub(crate) fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("{what} does not exist"))
    }

    pub(crate) fn unauthorized() -> Self {
        let detail =
            "a token is needed that is known, not revoked, not expired, and serves from this address";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    pub(crate) fn too_many(after: Duration) -> Self {
        let detail = "too many requests; see Retry-After";
        Self { retry_after: Some(after), ..Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail) }
    }

    /// More passwords wait to be checked than the server takes at once.
    pub(crate) fn busy() -> Self {
        let detail = "too many passwords are waiting to be checked; try again after `Retry-After`";
        let refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail);
        Self { retry_after: Some(Duration::ZERO), ..refusal }
    }

    pub(crate) fn internal() -> Self {
        Self::of_status(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(crate) fn timed_out() -> Self {
        let detail =
            "the request took too long; what it began may still be accepted: look, or repeat it with its key";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "timed_out", detail)
    }

    /// What a bare status means, where a library answered with nothing else.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        let (code, detail) = match status {
            StatusCode::NOT_FOUND => ("not_found", "there is no such route"),
            StatusCode::METHOD_NOT_ALLOWED => {
                ("method_not_allowed", "the route has other methods; see Allow")
            }
            StatusCode::INTERNAL_SERVER_ERROR => ("internal", "something went wrong here; it is in the log"),
            _ => ("refused", "the request was refused"),
        };
        Self::new(status, code, detail)
    }
}

impl IntoResponse for Refusal {
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

/// The status of a service's refusal.
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

impl From<ManagerError> for Refusal {
    fn from(error: ManagerError) -> Self {
        let mut refusal = Self::new(status(&error), error.code(), error.to_string());
        match &error {
            ManagerError::OperationInFlight(id) => refusal.problem.operation = Some(id.to_string()),
            ManagerError::OperationParked(id) => {
                refusal.problem.operation = Some(id.to_string());
                refusal.problem.operation_status = Some(Status::Parked.to_string());
            }
            ManagerError::DigestChanged { running, .. } => {
                refusal.problem.running = running.map(|digest| digest.to_string());
                refusal.blame("acceptDigest");
            }
            ManagerError::BadDigest { .. } => refusal.blame("force"),
            ManagerError::UnknownSites(_) => refusal.blame("scope.sites"),
            ManagerError::EmptyPlan => refusal.blame("scope"),
            ManagerError::RolloutInFlight(number) => {
                refusal.problem.rollout = Some(crate::api::rollout::id(*number));
            }
            ManagerError::SiteExists(_) => refusal.blame("id"),
            ManagerError::HostnameTaken { .. } => refusal.blame("hostnames"),
            ManagerError::TokenExists(_) | ManagerError::UserExists(_) => refusal.blame("name"),
            ManagerError::KeyReused => refusal.blame("Idempotency-Key"),
            ManagerError::Unavailable(_) | ManagerError::StorageFull(_) | ManagerError::Unknown => {
                refusal.retry_after = Some(Duration::ZERO);
            }
            ManagerError::PlanChanged => refusal.blame("planHash"),
            ManagerError::Forbidden { .. }
            | ManagerError::NotFound { .. }
            | ManagerError::IllegalTransition(_)
            | ManagerError::Frozen(_)
            | ManagerError::NoHealthyDigest
            | ManagerError::Invalid(_)
            | ManagerError::Contended
            | ManagerError::Denied(_) => {}
        }
        refusal
    }
}

impl Refusal {
    fn blame(&mut self, field: &str) {
        let message = self.problem.detail.clone();
        self.problem.errors = vec![FieldError { field: field.to_owned(), message }];
    }
}
