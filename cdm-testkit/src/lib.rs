//! Test support for `cdm-core`, its adapters and programs built on it: stateful fakes of each port, a simulated
//! clock, fault injection, one contract suite per port, and a simulated platform that combines them.

pub mod backends;
pub mod campaign;
pub mod check;
pub mod clock;
pub mod contract;
pub mod fakes;
pub mod faults;
pub mod fixtures;
pub mod ids;
pub mod installation;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod log;
pub mod measure;
#[cfg(feature = "oidc-provider")]
pub mod oidc_provider;
mod progress;
#[cfg(feature = "proxy")]
pub mod proxy;
#[cfg(feature = "server")]
pub mod server;
pub mod world;
