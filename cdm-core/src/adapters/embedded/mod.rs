//! All adapters for one machine, with one data directory: durable, and safe to kill at any instant.
//!
//! ```text
//! cdm.db           records, journal, audit log, events, tokens, sealed secrets, desired state of the local cluster
//! key              the key that seals the secrets (0600)
//! objects/         site files, one directory per site
//! databases/       site databases, one SQLite file per site
//! workers/         one locked file per running process
//! cluster.lock     locked by the process that hosts the local cluster
//! ```

mod calls;
mod cluster;
mod coalesce;
mod databases;
mod directory;
mod file;
mod fs;
mod liveness_lock;
mod objects;
mod seal;
mod secrets;
mod store;
mod tokens;
mod tree;

pub use cluster::{
    ClusterOpenError, Host, HostError, ImageSpec, LocalCluster, LocalProbe, LocalSettings, Readiness,
    TenantDatabases, Tenants,
};
pub use databases::{DatabasesError, EmbeddedDatabases};
pub use directory::{DirectoryError, own_directory};
pub use file::{File, OpenError};
pub use liveness_lock::LivenessLock;
pub use objects::{EmbeddedObjects, ObjectsError};
pub use seal::KeyError;
pub use secrets::{EmbeddedSecrets, SecretsError};
pub use store::EmbeddedStore;
pub use tokens::EmbeddedTokens;
