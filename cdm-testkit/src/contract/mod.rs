//! One suite for each port, which an implementation must pass before it is used for sites.
//!
//! A suite is a function of the port and panics with the broken promise. It leaves behind what it created under
//! its own uids. It may run against a shared backend, but a dedicated backend is better.

mod context;
#[cfg(feature = "machine")]
mod system_env;

pub mod cluster;
pub mod databases;
pub mod objects;
pub mod secrets;
pub mod store;
pub mod tokens;

pub use context::{Settle, SuiteContext};
#[cfg(feature = "machine")]
pub use system_env::SystemEnv;
