//! Audit entries in API responses.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use super::{ActorName, OperationId, RolloutId, Time};

/// An entry of the audit log: a request for a change, or a rejected request.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// When the request was received.
    pub at: Time,
    /// The caller: the name of a token, `user:` with the name of a user, or a reserved name such as `anonymous`.
    pub actor: ActorName,
    /// The requested action, such as `site.promote`.
    pub action: String,
    /// The id of the object of the action, or the path of the request.
    pub target: String,
    /// The id of the request.
    #[schema(required = true)]
    pub request_id: Option<String>,
    /// `accepted`, or the code of the error.
    #[schema(value_type = String)]
    pub outcome: AuditOutcome,
    /// The operation that the request started.
    #[schema(required = true)]
    pub operation: Option<OperationId>,
    /// The rollout that the request started or changed.
    #[schema(required = true)]
    pub rollout: Option<RolloutId>,
    /// The address of the client; absent for actions of a local command or of the server itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub address: Option<String>,
    /// The number of requests, if the entry summarizes the rejected requests of one minute; otherwise absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1)]
    pub count: Option<u64>,
}

/// The result of a request: accepted, or rejected with the code of an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditOutcome {
    /// The request was accepted.
    Accepted,
    /// The request was rejected with this code.
    Rejected(String),
}

impl AuditOutcome {
    /// Returns `accepted`, or the code of the error.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected(code) => code,
        }
    }
}

impl From<&str> for AuditOutcome {
    fn from(text: &str) -> Self {
        match text {
            "accepted" => Self::Accepted,
            code => Self::Rejected(code.to_owned()),
        }
    }
}

impl Serialize for AuditOutcome {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for AuditOutcome {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Self::from(String::deserialize(from)?.as_str()))
    }
}

impl From<&cdm_core::domain::AuditEntry> for AuditEntry {
    fn from(entry: &cdm_core::domain::AuditEntry) -> Self {
        Self {
            at: entry.at.into(),
            actor: ActorName::from(&entry.actor),
            action: entry.action.to_string(),
            target: entry.target.clone(),
            request_id: entry.request_id.clone(),
            outcome: AuditOutcome::from(entry.outcome.as_ref()),
            operation: entry.operation.as_ref().map(OperationId::from),
            rollout: entry.rollout.map(RolloutId::from_number),
            address: entry.address.map(|address| address.to_string()),
            count: Some(entry.count).filter(|count| *count > 1),
        }
    }
}
