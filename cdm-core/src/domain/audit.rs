//! Who asked for what.

use std::borrow::Cow;
use std::net::IpAddr;

use super::{Actor, OperationId, Timestamp};

/// One request that asked for a change, or that was refused. A rollout is one, whatever the number of its sites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: Actor,
    /// What, such as `site.promote`.
    pub action: Cow<'static, str>,
    /// To what: a site id, a colour, a rollout, an operation.
    pub target: String,
    /// The request's id, as the frontend gave it.
    pub request_id: Option<String>,
    /// `accepted`, or the stable code of the refusal.
    pub outcome: Cow<'static, str>,
    /// The operation that came of it.
    pub operation: Option<OperationId>,
    /// The rollout that came of it, or that was asked.
    pub rollout: Option<u64>,
    /// The client's address, where the request came over a network.
    pub address: Option<IpAddr>,
    /// How many requests the entry stands for: more than one where refusals were counted instead of written.
    pub count: u64,
}
