//! From configuration to a running platform. The only room that names an adapter.

mod config;
mod process;
mod raw;

pub use config::{Backend, Config, ConfigError, Environment, LogFormat};
pub use process::{BackendState, Process, StartError};
