//! The error type of the application layer.

use crate::domain::lifecycle::Illegal;
use crate::domain::operation::IllegalEvent;
use crate::domain::rollout::IllegalRollout;
use crate::domain::{Actor, Color, Digest, Freeze, Hostname, NameError, OperationId, Role, SiteId, UserName};
use crate::ports::{ErrorKind, PortError, StoreError};

/// Why a request was not accepted. Nothing was changed, except possibly after [`ManagerError::Unknown`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManagerError {
    /// The caller's role does not permit the request.
    #[error("this action requires the role `{needed}`; your role is `{has}`")]
    Forbidden {
        /// The least role that permits the request.
        needed: Role,
        /// The role of the caller.
        has: Role,
    },
    /// The requested object does not exist.
    #[error("{what} does not exist")]
    NotFound {
        /// The kind and name of the object.
        what: String,
    },
    /// A site with this id exists.
    #[error("the site `{0}` already exists")]
    SiteExists(SiteId),
    /// A hostname is claimed by another site.
    #[error("the hostname `{host}` belongs to the site `{site}`")]
    HostnameTaken {
        /// The hostname that is already claimed.
        host: Hostname,
        /// The id of the site that has claimed the hostname.
        site: SiteId,
    },
    /// The current state does not allow the request.
    #[error("{0}")]
    IllegalTransition(String),
    /// Another operation is in progress.
    #[error("the operation `{0}` is in progress; wait for it or cancel it")]
    OperationInFlight(OperationId),
    /// Another operation is parked and waits for a user.
    #[error("the operation `{0}` is parked and does not continue by itself; retry it or cancel it")]
    OperationParked(OperationId),
    /// An unfinished rollout prevents the request.
    #[error("rollout {0} is not finished; wait for it or abort it")]
    RolloutInFlight(u64),
    /// A freeze prevents the move.
    #[error("{}; wait until the freeze ends or remove it", .0.describe())]
    Frozen(Box<Freeze>),
    /// The fleet or the request differs from the plan.
    #[error("the fleet or the request has changed since the plan was made; make a new plan and review it")]
    PlanChanged,
    /// The name is or was used by a token. Token names are never reused.
    #[error("the name `{0}` is or was used by a token; choose another name")]
    TokenExists(Actor),
    /// The name is or was used by a user. User names are never reused.
    #[error("the name `{0}` is or was used by a user; choose another name")]
    UserExists(UserName),
    /// The rollout's target runs another digest than the rollout's.
    #[error(
        "`{target}` runs {}, but the rollout is for {}; resume it with `acceptDigest` to continue with the running digest, \
        deploy the rollout's digest again, or abort the rollout", digest_text(.running), digest_text(.wanted)
    )]
    DigestChanged {
        /// The color of the target service.
        target: Color,
        /// The digest that the rollout moves sites to.
        wanted: Option<Digest>,
        /// The digest that the target runs.
        running: Option<Digest>,
    },
    /// The digest to deploy or to move sites to is bad.
    #[error(
        "the digest `{digest}` is bad: {reason}; deploy another digest, or repeat the request with `force`"
    )]
    BadDigest {
        /// The digest with the bad verdict.
        digest: Digest,
        /// Why the digest is bad.
        reason: String,
    },
    /// The rollout names sites that do not exist.
    #[error("{}; correct the list", unknown_sites_text(.0))]
    UnknownSites(Vec<SiteId>),
    /// The rollout's scope contains no site.
    #[error(
        "the rollout's scope contains no site, so there is nothing to start; check the plan and choose another scope"
    )]
    EmptyPlan,
    /// No digest can be rolled back to.
    #[error("no earlier digest is known to be healthy; mark a digest as healthy or deploy another one")]
    NoHealthyDigest,
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The request is invalid.
    #[error("{0}")]
    Invalid(String),
    /// Other requests changed the record at every attempt.
    #[error("the record changed during every attempt; try again")]
    Contended,
    /// A backend denied the request because of permissions or setup. Nothing was changed.
    #[error("a backend denied the request: {0}")]
    Denied(String),
    /// A backend is unavailable. Nothing was changed.
    #[error("a backend is unavailable: {0}")]
    Unavailable(String),
    /// The store's disk has no space left. Nothing was changed, and reads still work.
    #[error("the store has no space left: {0}; free space on its disk, then repeat the request")]
    StorageFull(String),
    /// A backend's response was lost. The request may have been accepted.
    #[error(
        "the outcome is unknown; repeat the request with the same idempotency key, or check the current state"
    )]
    Unknown,
}

impl ManagerError {
    /// Returns the stable code of the error.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Forbidden { .. } => "forbidden",
            Self::NotFound { .. } => "not_found",
            Self::SiteExists(_) => "site_exists",
            Self::HostnameTaken { .. } => "hostname_taken",
            Self::IllegalTransition(_) => "illegal_transition",
            Self::OperationInFlight(_) | Self::OperationParked(_) => "operation_in_flight",
            Self::RolloutInFlight(_) => "rollout_in_flight",
            Self::Frozen(_) => "frozen",
            Self::PlanChanged => "plan_changed",
            Self::DigestChanged { .. } => "digest_changed",
            Self::BadDigest { .. } => "bad_digest",
            Self::UnknownSites(_) => "unknown_sites",
            Self::EmptyPlan => "empty_plan",
            Self::TokenExists(_) => "token_exists",
            Self::UserExists(_) => "user_exists",
            Self::NoHealthyDigest => "no_healthy_digest",
            Self::KeyReused => "idempotency_key_reused",
            Self::Invalid(_) => "invalid",
            Self::Contended => "contended",
            Self::Denied(_) => "backend_denied",
            Self::Unavailable(_) => "unavailable",
            Self::StorageFull(_) => "storage_full",
            Self::Unknown => "outcome_unknown",
        }
    }

    /// Returns whether the same request can be accepted later without any change by a user.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::OperationInFlight(_)
            | Self::RolloutInFlight(_)
            | Self::Frozen(_)
            | Self::Contended
            | Self::Unavailable(_)
            | Self::StorageFull(_)
            | Self::Unknown => true,
            Self::Forbidden { .. }
            | Self::NotFound { .. }
            | Self::SiteExists(_)
            | Self::HostnameTaken { .. }
            | Self::IllegalTransition(_)
            | Self::NoHealthyDigest
            | Self::OperationParked(_)
            | Self::DigestChanged { .. }
            | Self::BadDigest { .. }
            | Self::UnknownSites(_)
            | Self::EmptyPlan
            | Self::PlanChanged
            | Self::TokenExists(_)
            | Self::UserExists(_)
            | Self::KeyReused
            | Self::Denied(_)
            | Self::Invalid(_) => false,
        }
    }

    pub(super) fn no_site(id: &SiteId) -> Self {
        Self::NotFound { what: format!("the site `{id}`") }
    }

    pub(super) fn no_operation(id: &OperationId) -> Self {
        Self::NotFound { what: format!("the operation `{id}`") }
    }

    pub(super) fn no_rollout(number: u64) -> Self {
        Self::NotFound { what: format!("the rollout {number}") }
    }
}

fn digest_text(digest: &Option<Digest>) -> String {
    digest.map_or_else(|| "no image by digest".to_owned(), |digest| format!("`{digest}`"))
}

/// The maximum number of unknown sites that a message lists.
const MAX_NAMED: usize = 10;

fn unknown_sites_text(sites: &[SiteId]) -> String {
    let names: Vec<_> = sites.iter().take(MAX_NAMED).map(|site| format!("`{site}`")).collect();
    let more = sites.len().saturating_sub(MAX_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let (noun, verb) = if sites.len() == 1 { ("the site", "does") } else { ("the sites", "do") };
    format!("{noun} {}{more} {verb} not exist", names.join(", "))
}

impl From<StoreError> for ManagerError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Denied(_) => Self::Denied(error.to_string()),
            StoreError::Full(why) => Self::StorageFull(why),
            StoreError::Unavailable(_) | StoreError::Throttled => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<PortError> for ManagerError {
    fn from(error: PortError) -> Self {
        if error.kind == ErrorKind::Full {
            Self::StorageFull(error.message)
        } else if error.is_retryable() {
            Self::Unavailable(error.to_string())
        } else {
            Self::Denied(error.to_string())
        }
    }
}

impl From<Illegal> for ManagerError {
    fn from(illegal: Illegal) -> Self {
        Self::IllegalTransition(illegal.to_string())
    }
}

impl From<IllegalEvent> for ManagerError {
    fn from(illegal: IllegalEvent) -> Self {
        Self::IllegalTransition(illegal.to_string())
    }
}

impl From<IllegalRollout> for ManagerError {
    fn from(illegal: IllegalRollout) -> Self {
        Self::IllegalTransition(illegal.to_string())
    }
}

impl From<NameError> for ManagerError {
    fn from(error: NameError) -> Self {
        Self::Invalid(error.to_string())
    }
}
