//! What the core needs of the world, as promises.
//!
//! Reads return `Result`. Whatever changes the world returns an [`Outcome`]: applied, not applied, or *unknown*, since
//! a lost answer says nothing about what happened. No adapter's type crosses a port.

mod call;
mod clock;
mod cluster;
mod databases;
mod job_failure;
mod objects;
mod probe;
mod secrets;
mod store;
mod tokens;
mod webhooks;

pub use call::{CallContext, ErrorKind, Outcome, PortError, WriteId};
pub use clock::{Clock, Entropy};
pub use cluster::{
    Canary, CanaryVersion, ChangeCursor, Changed, ClusterOps, ImageWant, Job, JobKind, JobSpec, JobState,
    PodFailure, Route, RouteSpec, ServiceView,
};
pub use databases::{SiteDatabase, SiteDatabases};
pub use job_failure::JobFailure;
pub use objects::{ObjectPage, ObjectStore};
pub use probe::{HealthProbe, Inconclusive, ProbeRequest, Via};
pub use secrets::{Cms, Credentials, Database, SecretStore, StoredSecret};
pub use store::{
    Expect, FeedEvent, Heartbeat, IdempotencyRecord, Journal, Mutation, Old, OperationQuery, Page,
    PendingWork, SiteQuery, SiteRepository, Store, StoreError, WorkItem, WriteBatch, WriteError,
};
pub use tokens::TokenStore;
pub use webhooks::{DeliveryError, Message, WebhookSender};

use std::sync::Arc;

/// Everything that the core needs, in one hand.
#[derive(Clone, Debug)]
pub struct Ports {
    /// Records and journal.
    pub store: Arc<dyn Store>,
    /// Credentials.
    pub secrets: Arc<dyn SecretStore>,
    /// Site files.
    pub objects: Arc<dyn ObjectStore>,
    /// Site databases.
    pub databases: Arc<dyn SiteDatabases>,
    /// Services, routes, jobs.
    pub cluster: Arc<dyn ClusterOps>,
    /// What sites answer.
    pub probe: Arc<dyn HealthProbe>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub entropy: Arc<dyn Entropy>,
}
