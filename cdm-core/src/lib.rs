#![doc = include_str!("../README.md")]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at the first surprise")
)]

pub mod domain;
pub mod engine;
pub mod manager;
pub mod pipelines;
pub mod ports;

pub mod adapters;
#[cfg(feature = "wiring")]
pub mod wiring;

#[cfg_attr(
    not(feature = "seeded-bugs"),
    allow(unused_imports, reason = "the switch is used in some builds only")
)]
pub mod bugs;
pub(crate) use bugs::bug;
