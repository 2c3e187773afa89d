//! The one error that frontends see.

use crate::domain::lifecycle::Illegal;
use crate::domain::operation::IllegalEvent;
use crate::domain::rollout::IllegalRollout;
use crate::domain::{Actor, Color, Digest, Freeze, Hostname, NameError, OperationId, Role, SiteId, UserName};
use crate::ports::{ErrorKind, PortError, StoreError};

/// Why a request was not accepted. Nothing was changed, unless it says that the outcome is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManagerError {
    /// The caller's role does not suffice.
    #[error("this takes the role `{needed}`; yours is `{has}`")]
    Forbidden {
        /// The least role that suffices.
        needed: Role,
        /// The caller's.
        has: Role,
    },
    /// There is no such thing.
    #[error("{what} does not exist")]
    NotFound {
        /// What, with its name.
        what: String,
    },
    /// A site of that id exists.
    #[error("the site `{0}` exists already")]
    SiteExists(SiteId),
    /// A hostname is claimed by another site.
    #[error("the hostname `{host}` belongs to the site `{site}`")]
    HostnameTaken {
        /// Which.
        host: Hostname,
        /// Whose.
        site: SiteId,
    },
    /// The state does not take it.
    #[error("{0}")]
    IllegalTransition(String),
    /// Another operation is at work.
    #[error("the operation `{0}` is at work; wait for it, or cancel it")]
    OperationInFlight(OperationId),
    /// Another operation is in the way, and waits for a person.
    #[error("the operation `{0}` is parked and goes on by no means of its own; retry it, or cancel it")]
    OperationParked(OperationId),
    /// A rollout is in the way.
    #[error("rollout {0} is unfinished; wait for it, or abort it")]
    RolloutInFlight(u64),
    /// A freeze stops moves.
    #[error("{}; wait for its end, or remove it", .0.describe())]
    Frozen(Box<Freeze>),
    /// The fleet is not as it was when the plan was made.
    #[error("the fleet or the request has changed since the plan was made; make another plan and look at it")]
    PlanChanged,
    /// Tokens keep their names for ever.
    #[error("a token has, or had, the name `{0}`; choose another")]
    TokenExists(Actor),
    /// People keep theirs, too.
    #[error("a user has, or had, the name `{0}`; choose another")]
    UserExists(UserName),
    /// A rollout's target runs another digest than sites may move on.
    #[error(
        "`{target}` runs {}, the rollout is for {}; resume it with `acceptDigest` to go on with what runs, deploy the \
         rollout's digest again, or abort it", named(.running), named(.wanted)
    )]
    DigestChanged {
        /// Where the sites go.
        target: Color,
        /// The digest that they may move on.
        wanted: Option<Digest>,
        /// The digest that the target runs.
        running: Option<Digest>,
    },
    /// What would be deployed, or moved to, is bad.
    #[error("the digest `{digest}` is bad: {reason}; deploy another one, or ask again with `force`")]
    BadDigest {
        /// Which.
        digest: Digest,
        /// Why it is bad.
        reason: String,
    },
    /// A rollout names sites that are not there.
    #[error("{}; correct the list", unknown(.0))]
    UnknownSites(Vec<SiteId>),
    /// A rollout has no site.
    #[error(
        "no site is in the rollout's scope: there is nothing to start; see the plan, and choose another scope"
    )]
    EmptyPlan,
    /// There is no digest to roll back to.
    #[error("no earlier digest is known to be healthy; mark one, or deploy another")]
    NoHealthyDigest,
    /// The idempotency key came with another request before.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The request is wrong as it stands.
    #[error("{0}")]
    Invalid(String),
    /// Someone else was faster, again and again.
    #[error("the record keeps changing; try again")]
    Contended,
    /// A backend refuses for lack of permission or set-up; nothing was changed.
    #[error("a backend refuses: {0}")]
    Denied(String),
    /// A backend does not answer; nothing was changed.
    #[error("a backend does not answer: {0}")]
    Unavailable(String),
    /// The store's disk has no space left; nothing was changed, and reads go on.
    #[error("the store has no space left: {0}; free space on its disk, then repeat the request")]
    StorageFull(String),
    /// A backend's answer was lost; the request may have been accepted.
    #[error("the outcome is unknown; repeat the request with the same idempotency key, or look")]
    Unknown,
}

impl ManagerError {
    /// The stable code.
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

    /// Whether the same request may be accepted later without anyone doing anything.
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

fn named(digest: &Option<Digest>) -> String {
    digest.map_or_else(|| "no image by digest".to_owned(), |digest| format!("`{digest}`"))
}

/// How many sites that are not there a message names.
const NAMED: usize = 10;

fn unknown(sites: &[SiteId]) -> String {
    let names: Vec<_> = sites.iter().take(NAMED).map(|site| format!("`{site}`")).collect();
    let more = sites.len().saturating_sub(NAMED);
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
