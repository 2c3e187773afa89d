//! Error responses of the API: problem documents (RFC 9457).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::operation::OperationStatus;
use super::{Digest, OperationId, RolloutId};

/// An error response of the API (RFC 9457).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
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
    pub operation: Option<OperationId>,
    /// The status of that operation if it is `parked`, since it then needs a retry or a cancel.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    pub operation_status: Option<OperationStatus>,
    /// The rollout that conflicts with the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub rollout: Option<RolloutId>,
    /// The digest that the rollout's service runs, if it is not the digest of the rollout.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub running: Option<Digest>,
}

/// The error of one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// The path of the field, such as `scope.sites`; or the name of a parameter or header.
    pub field: String,
    /// The rule that the value breaks.
    pub message: String,
}
