//! Audit entries in API responses.

use serde::Serialize;
use utoipa::ToSchema;

use super::{rollout, time};

/// An entry of the audit log: a request for a change, or a rejected request.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// When the request was received.
    #[schema(format = DateTime)]
    pub at: String,
    /// The caller: the name of a token, `user:` with the name of a user, or a reserved name such as `anonymous`.
    pub actor: String,
    /// The requested action, such as `site.promote`.
    pub action: String,
    /// The id of the object of the action, or the path of the request.
    pub target: String,
    /// The id of the request.
    #[schema(required = true)]
    pub request_id: Option<String>,
    /// `accepted`, or the code of the error.
    pub outcome: String,
    /// The operation that the request started.
    #[schema(required = true)]
    pub operation: Option<String>,
    /// The rollout that the request started or changed.
    #[schema(required = true)]
    pub rollout: Option<String>,
    /// The address of the client; absent for actions of a local command or of the server itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub address: Option<String>,
    /// The number of requests, if the entry summarizes the rejected requests of one minute; otherwise absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1)]
    pub count: Option<u64>,
}

impl From<&cdm_core::domain::AuditEntry> for AuditEntry {
    fn from(entry: &cdm_core::domain::AuditEntry) -> Self {
        Self {
            at: time(entry.at),
            actor: entry.actor.to_string(),
            action: entry.action.to_string(),
            target: entry.target.clone(),
            request_id: entry.request_id.clone(),
            outcome: entry.outcome.to_string(),
            operation: entry.operation.as_ref().map(ToString::to_string),
            rollout: entry.rollout.map(rollout::id),
            address: entry.address.map(|address| address.to_string()),
            count: Some(entry.count).filter(|count| *count > 1),
        }
    }
}
