//! Everything on one machine, in one directory: durable, and safe to kill at any instant.
//!
//! ```text
//! cdm.db           records, journal, audit, events, tokens, sealed secrets, what the local cluster shall be
//! key              the key that seals the secrets (0600)
//! objects/         site files, one directory per site
//! databases/       site databases, one SQLite file per site
//! workers/         one locked file per process at work
//! cluster.lock     held by the process that runs the local cluster
//! ```

mod calls;
mod cluster;
mod databases;
mod directory;
mod disk;
mod file;
mod objects;
mod presence;
mod seal;
mod secrets;
mod store;
mod together;
mod tokens;
mod tree;

pub use cluster::{
    ClusterOpenError, Host, HostError, ImageSpec, LocalCluster, LocalProbe, LocalSettings, Readiness,
    TenantDatabases, Tenants,
};
pub use databases::{DatabasesError, EmbeddedDatabases};
pub use directory::{DirectoryError, own_directory};
pub use file::{File, OpenError};
pub use objects::{EmbeddedObjects, ObjectsError};
pub use presence::Presence;
pub use seal::KeyError;
pub use secrets::{EmbeddedSecrets, SecretsError};
pub use store::EmbeddedStore;
pub use tokens::EmbeddedTokens;
