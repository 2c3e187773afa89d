//! An audit entry on the wire.

use serde::Serialize;
use utoipa::ToSchema;

use super::{rollout, time};

/// One request that asked for a change, or that was refused.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// When.
    #[schema(format = DateTime)]
    pub at: String,
    /// Who.
    pub actor: String,
    /// What, such as `site.promote`.
    pub action: String,
    /// To what.
    pub target: String,
    /// The request's id.
    #[schema(required = true)]
    pub request_id: Option<String>,
    /// `accepted`, or the code of the refusal.
    pub outcome: String,
    /// The operation that came of it.
    #[schema(required = true)]
    pub operation: Option<String>,
    /// The rollout that came of it, or that was asked.
    #[schema(required = true)]
    pub rollout: Option<String>,
    /// The client's address; not of what a command or a server did by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub address: Option<String>,
    /// How many requests the entry stands for, where refusals of one minute were counted instead of written one by one.
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
