//! The interfaces through which the core uses its environment, and the guarantees that each implementation has to
//! give.
//!
//! A read returns a `Result`. A call that changes something returns an [`Outcome`]: applied, not applied or
//! *unknown*, because a lost response does not show whether the change happened. No type of an adapter's SDK crosses
//! a port.

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
    FeedEvent, Heartbeat, IdempotencyRecord, Journal, Mutation, Old, OperationQuery, Page, PendingWork,
    SiteQuery, SiteRepository, Store, StoreError, WorkItem, WriteBatch, WriteError,
};
pub use tokens::TokenStore;
pub use webhooks::{DeliveryError, Message, WebhookSender};

use std::sync::Arc;

/// Every port that the core needs.
#[derive(Clone, Debug)]
pub struct Ports {
    /// The records and the journal.
    pub store: Arc<dyn Store>,
    /// The credentials and keys.
    pub secrets: Arc<dyn SecretStore>,
    /// The files of sites.
    pub objects: Arc<dyn ObjectStore>,
    /// The databases of sites.
    pub databases: Arc<dyn SiteDatabases>,
    /// The services, routes, jobs and the canary.
    pub cluster: Arc<dyn ClusterOps>,
    /// HTTP health checks of sites.
    pub probe: Arc<dyn HealthProbe>,
    /// Wall-clock and monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Random ids, passwords and jitter.
    pub entropy: Arc<dyn Entropy>,
}
