//! Faults, injected between the core and a port: a [`FaultInjector`] that every call goes through, and a decorator per port.
//!
//! A plan names calls by their ordinal since the gate was armed, so a failing plan is a bug report. What a fault is:
//! see [`Fault`]. A gate keeps a trace of the calls it saw, from which every plan worth running is enumerated.

mod gate;
mod line;
mod outage;
mod ports;

pub use gate::{CallSite, Fault, FaultInjector, Halt, Plan};
pub use outage::{Outage, OutageKind};
pub use ports::faulty;
