//! Test support for `cdm-core`, its adapters and programs built on it: stateful fakes of each port, a simulated
//! clock, fault injection, one contract suite per port, and a simulated platform that combines them.

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
mod progress;
#[cfg(feature = "proxy")]
pub mod proxy;
pub mod world;
