//! What a frontend may ask: one method, one intention, one error type. Nothing here knows HTTP or a terminal.
//!
//! A method that starts work returns once the intent is stored; the work itself is a [`crate::engine::Worker`]'s.

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
pub use history::HistoryPlace;
pub use permissions::{Action, Work};
pub use refusals::Span;
pub use rollouts::{Resume, RolloutRequest};
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

/// Everything that may be asked.
#[derive(Debug)]
pub struct Manager {
    ports: Ports,
    registry: Arc<Registry>,
    settings: Settings,
    numbers: Mutex<Range<u64>>,
    /// Told of what was accepted, so that it begins at once.
    worker: Option<Arc<Worker>>,
    /// Told of new webhooks.
    dispatcher: Option<Arc<WebhookDispatcher>>,
    /// The receivers inside that webhooks may have.
    receivers: Vec<Allowed>,
    /// What second factors are sealed with, once it was read.
    sealing: OnceLock<SecretString>,
    refusals: Refusals,
}

/// Who asks, in which role, and how the request is told from others. The services believe what it says: a program that
/// builds one has found out who the caller is, and decides on the role.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who.
    pub actor: Actor,
    /// What the caller may do; see [`Action::role`].
    pub role: Role,
    /// The frontend's name for the request, for the audit.
    pub id: Option<String>,
    /// Makes a repetition of the request answer as the first did, for 24 hours.
    pub key: Option<IdempotencyKey>,
    /// The client's address, for the audit, where the request came over a network.
    pub address: Option<IpAddr>,
    /// What tells a repetition under the same key whose secret is another one: a hash of the secret that is as slow as
    /// the one that is stored, under a salt that follows from actor and key, so that every replica makes the same.
    pub secret: Option<PasswordHash>,
}

impl Request {
    /// A request of `actor`, who has that role, without a key.
    pub const fn by(actor: Actor, role: Role) -> Self {
        Self { actor, role, id: None, key: None, address: None, secret: None }
    }
}

/// What came of a request that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// An operation.
    Operation(OperationId),
    /// A rollout.
    Rollout(u64),
    /// A freeze.
    Freeze(u64),
    /// A webhook.
    Webhook(u64),
    /// It was done at once, or there was nothing to do.
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
    /// Over this world, for operations of these pipelines.
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

    /// Tells `worker`, of the same process, of all that is accepted. Without one the work begins when some worker looks.
    #[must_use]
    pub fn with_worker(self, worker: Arc<Worker>) -> Self {
        Self { worker: Some(worker), ..self }
    }

    /// Tells `courier`, of the same process, of new webhooks, which may also have these receivers inside.
    #[must_use]
    pub fn with_courier(self, dispatcher: Arc<WebhookDispatcher>, receivers: Vec<Allowed>) -> Self {
        Self { dispatcher: Some(dispatcher), receivers, ..self }
    }
}
