//! The application layer: one method per request of a frontend, with one error type. The module depends on neither HTTP
//! nor a terminal.
//!
//! A method that starts work returns as soon as the intent is stored. A [`crate::engine::Worker`] does the work.

mod access;
mod blue_green;
mod error;
mod freezes;
mod history;
mod operations;
mod permissions;
mod plans;
mod refusals;
mod rollouts;
mod sealing;
mod sites;
mod submit;
mod users;
mod webhooks;

pub use access::{Access, Admitted, Expiry, NewToken};
pub use blue_green::{DeployRequest, FleetView, Force, Selected, ServiceStatus};
pub use error::ManagerError;
pub use freezes::NewFreeze;
pub use history::HistoryCursor;
pub use permissions::{Action, Work};
pub use refusals::Span;
pub use rollouts::Resume;
pub use sites::NewSite;
pub use users::{NewUser, Proven, SignIn, UserChange};
pub use webhooks::NewWebhook;

pub use crate::domain::RolloutScope;

use std::net::IpAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};

use secrecy::SecretString;

use crate::domain::webhook::Allowed;
use crate::domain::{Actor, IdempotencyKey, OperationId, PasswordHash, Role};
use crate::engine::{Registry, Settings, WebhookDispatcher, Worker};
use crate::ports::Ports;
use refusals::Refusals;

/// Accepts the requests of frontends: validates and authorizes them, and stores the result.
#[derive(Debug)]
pub struct Manager {
    ports: Ports,
    registry: Arc<Registry>,
    settings: Settings,
    numbers: Mutex<Range<u64>>,
    /// Woken after each accepted request, so that the work starts immediately.
    worker: Option<Arc<Worker>>,
    /// Woken after a webhook was created.
    dispatcher: Option<Arc<WebhookDispatcher>>,
    /// The non-public receivers that the configuration allows.
    receivers: Vec<Allowed>,
    /// The key that encrypts second factors, after its first use.
    sealing: OnceLock<SecretString>,
    refusals: Refusals,
}

/// The caller of a method, the caller's role, and the identity of the request. The manager trusts these values: the
/// frontend authenticates the caller and determines the role.
///
/// ```
/// use cdm_core::domain::{Actor, Role};
/// use cdm_core::manager::{Action, Request};
///
/// let request = Request::by(Actor::parse("ci")?, Role::Operator);
/// assert!(request.may(Action::CreateSite).is_ok());
/// assert_eq!(request.may(Action::Deploy).unwrap_err().code(), "forbidden");
/// # Ok::<(), cdm_core::domain::NameError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Request {
    /// The caller, as the frontend has authenticated it.
    pub actor: Actor,
    /// The caller's role; see [`Action::role`].
    pub role: Role,
    /// The frontend's id of the request, for the audit log.
    pub id: Option<String>,
    /// The idempotency key. For 24 hours, a repetition with the same key returns the response to the first request.
    pub key: Option<IdempotencyKey>,
    /// The client's address, for the audit log, if the request came over a network.
    pub address: Option<IpAddr>,
    /// Detects a repetition that uses the same key with another password: a hash that is as slow as the stored one,
    /// with a salt derived from actor and key, so that every replica computes the same hash.
    pub secret: Option<PasswordHash>,
}

impl Request {
    /// Creates a request of `actor` with a role and without an idempotency key.
    pub const fn by(actor: Actor, role: Role) -> Self {
        Self { actor, role, id: None, key: None, address: None, secret: None }
    }
}

/// The result of an accepted request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// The request started or changed this operation.
    Operation(OperationId),
    /// The request started or changed this rollout.
    Rollout(u64),
    /// The request created this freeze.
    Freeze(u64),
    /// The request created this webhook.
    Webhook(u64),
    /// The request was completed immediately, or there was nothing to do.
    Done,
}

impl Accepted {
    fn encode(&self) -> String {
        match self {
            Self::Operation(id) => id.to_string(),
            Self::Rollout(number) => format!("rollout-{number}"),
            Self::Freeze(number) => format!("freeze-{number}"),
            Self::Webhook(number) => format!("webhook-{number}"),
            Self::Done => "done".to_owned(),
        }
    }

    fn decode(text: &str) -> Self {
        let numbered = |prefix| text.strip_prefix(prefix).and_then(|number| number.parse().ok());
        let operation = OperationId::parse(text).map(Self::Operation);
        operation
            .or_else(|| numbered("rollout-").map(Self::Rollout))
            .or_else(|| numbered("freeze-").map(Self::Freeze))
            .or_else(|| numbered("webhook-").map(Self::Webhook))
            .unwrap_or(Self::Done)
    }
}

impl Manager {
    /// Creates a manager for a platform. The registry has the pipelines that the manager can start.
    pub fn new(ports: Ports, registry: Arc<Registry>, settings: Settings) -> Self {
        Self {
            ports,
            registry,
            settings,
            numbers: Mutex::new(0..0),
            worker: None,
            dispatcher: None,
            receivers: Vec::new(),
            sealing: OnceLock::new(),
            refusals: Refusals::default(),
        }
    }

    /// Wakes `worker`, which runs in the same process, after each accepted request. Without a worker, work starts at
    /// the next poll of a worker.
    #[must_use]
    pub fn with_worker(self, worker: Arc<Worker>) -> Self {
        Self { worker: Some(worker), ..self }
    }

    /// Wakes `dispatcher`, which runs in the same process, after a webhook was created. Webhooks may also use
    /// `receivers`, which need not be public.
    #[must_use]
    pub fn with_dispatcher(self, dispatcher: Arc<WebhookDispatcher>, receivers: Vec<Allowed>) -> Self {
        Self { dispatcher: Some(dispatcher), receivers, ..self }
    }
}
