//! The health of the server in API responses.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The response of the liveness check.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Live {
    /// Always `ok`.
    pub status: String,
}

/// The response of the readiness check.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Ready {
    /// `ready`, `not_ready` or `stopping`.
    #[schema(value_type = String)]
    pub status: Readiness,
    /// Every backend, including the healthy ones.
    pub backends: Vec<BackendStatus>,
}

/// Whether the server is ready. The schema is a string, not an enumeration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// All backends respond.
    Ready,
    /// A backend does not respond.
    NotReady,
    /// The server is stopping.
    Stopping,
    /// A value that this version does not define; only a newer server sends it.
    #[serde(untagged)]
    Other(String),
}

/// The state of one backend.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BackendStatus {
    /// The name of the backend, such as `store`.
    pub name: String,
    /// Whether the backend responds.
    pub ready: bool,
    /// The error of the backend; null if it is ready.
    #[schema(required = true)]
    pub problem: Option<String>,
}
