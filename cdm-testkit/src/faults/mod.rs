//! Fault injection between the core and its ports: a [`FaultInjector`] that every call passes through, and a
//! decorator for each port.
//!
//! A [`Plan`] names calls by their ordinal, so a plan that fails is a bug report. [`Fault`] lists the faults.
//! The injector can trace the calls of a run, from which a campaign enumerates its plans.

mod fair_lock;
mod fault;
mod injector;
mod outage;
mod ports;

pub use fault::Fault;
pub use injector::{CallSite, FaultInjector, Halt, Plan};
pub use outage::{Outage, OutageKind};
pub use ports::faulty;
