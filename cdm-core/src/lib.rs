#![doc = include_str!("../README.md")]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics at the first failure")
)]

pub mod domain;
pub mod engine;
pub mod manager;
pub mod pipelines;
pub mod ports;

pub mod adapters;
#[cfg(feature = "wiring")]
pub mod wiring;

#[cfg_attr(not(feature = "seeded-bugs"), allow(unused_imports, reason = "only some builds use the macro"))]
pub mod bugs;
pub(crate) use bugs::bug;
