//! One suite per port: what an implementation has to show before a site is entrusted to it.
//!
//! A suite is a function of the port; it panics with the broken promise. It leaves behind what it made under uids of
//! its own, so it may run against a shared backend, but a backend of its own is kinder.

mod cx;

pub mod cluster;
pub mod databases;
pub mod objects;
pub mod secrets;
pub mod store;
pub mod tokens;

pub use cx::{Cx, Settle};
