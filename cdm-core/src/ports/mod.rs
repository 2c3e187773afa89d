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

pub use call::{Call, ErrorKind, Outcome, PortError, WriteId};
pub use clock::{Clock, IdSource};
pub use cluster::{
    Canary, CanaryVersion, Changed, ClusterOps, ImageWant, Job, JobKind, JobSpec, JobState, Mark, PodFailure,
    Route, RouteSpec, ServiceView,
};
pub use databases::{SiteDatabase, SiteDatabases};
pub use job_failure::JobFailure;
pub use objects::{ObjectPage, ObjectStore};
pub use probe::{Check, HealthProbe, Inconclusive, Via};
pub use secrets::{Cms, Credentials, Database, SecretStore, StoredSecret};
pub use store::{
    Batch, Beat, Expect, FeedEvent, IdempotencyRecord, Journal, Live, LiveSubject, Old, OperationQuery, Page,
    Refused, SiteQuery, SiteRepository, Store, StoreError, Write,
};
pub use tokens::TokenStore;
pub use webhooks::{Message, Postman, Undelivered};

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
    pub ids: Arc<dyn IdSource>,
}
