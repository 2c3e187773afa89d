//! What stands behind the ports: one folder per backend, each behind its feature. Nothing but `wiring` names an adapter.

#[cfg(feature = "embedded")]
pub mod embedded;
#[cfg(feature = "embedded")]
mod records;
#[cfg(feature = "embedded")]
mod system;

#[cfg(feature = "embedded")]
pub use system::{OsIds, SystemClock};
