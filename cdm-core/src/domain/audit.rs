//! The audit log: which actor requested which change, and the outcome.

use std::borrow::Cow;
use std::net::IpAddr;

use super::{Actor, OperationId, Timestamp};

/// One request for a change, or one rejected request. A rollout is one request, regardless of the number of its
/// sites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// When the request was decided.
    pub at: Timestamp,
    /// The actor of the request.
    pub actor: Actor,
    /// The requested action, such as `site.promote`.
    pub action: Cow<'static, str>,
    /// The target: a site id, a color, a rollout or an operation.
    pub target: String,
    /// The request's id, as the frontend set it.
    pub request_id: Option<String>,
    /// `accepted`, or the stable code of the error.
    pub outcome: Cow<'static, str>,
    /// The operation that the request started or changed.
    pub operation: Option<OperationId>,
    /// The rollout that the request started or changed.
    pub rollout: Option<u64>,
    /// The client's address, if the request came over a network.
    pub address: Option<IpAddr>,
    /// The number of requests that the entry represents. It is greater than 1 if rejected requests were counted
    /// instead of written one by one.
    pub count: u64,
}
