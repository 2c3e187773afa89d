//! Implementations of the ports: one folder per backend, each behind its feature. Only `wiring` names an adapter.

#[cfg(feature = "aws")]
pub mod aws;
#[cfg(any(feature = "embedded", feature = "secrets-manager"))]
mod credentials;
#[cfg(feature = "dynamodb")]
pub mod dynamodb;
#[cfg(feature = "embedded")]
pub mod embedded;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "outbound")]
pub mod outbound;
#[cfg(any(feature = "embedded", feature = "dynamodb"))]
mod records;
#[cfg(feature = "s3")]
pub mod s3;
#[cfg(feature = "secrets-manager")]
pub mod secrets_manager;
#[cfg(feature = "machine")]
mod system;

#[cfg(feature = "machine")]
pub use system::{OsIds, SystemClock};
