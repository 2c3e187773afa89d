//! An audit entry on the wire.

use serde::Serialize;
use utoipa::ToSchema;

use super::{rollout, time};

/// One mutating request, accepted or refused.
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
        }
    }
}
