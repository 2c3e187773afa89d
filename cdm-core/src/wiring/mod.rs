//! From configuration to a running platform. The only room that names an adapter.

mod config;
mod raw;

pub use config::{Backend, Config, ConfigError, Environment, LogFormat};
