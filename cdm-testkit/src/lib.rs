//! What tests of the core, of its adapters and of programs built on it need: fakes that keep state and promises, a
//! simulated clock, fault injection, one contract suite per port, and a world in which all of it plays together.

pub mod build;
pub mod check;
pub mod clock;
pub mod contract;
pub mod fakes;
pub mod faults;
pub mod ids;
pub mod installation;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod log;
mod progress;
#[cfg(feature = "proxy")]
pub mod proxy;
pub mod world;
