//! Programs built on the library, to be read and copied from.
//!
//! [`own_cluster`] is a cluster of one's own behind the port, [`life`] a whole site's life on it, and [`crash`] shows
//! what becomes of an operation whose worker dies. [`driver`] and [`process`] are what both need.
//!
//! The crate also compiles the sketch in the project's `README.md`, so that it cannot fall behind the code.

pub mod driver;
pub mod process;

pub mod own_cluster;

pub mod crash;
pub mod life;

/// What the programs end with when something is not as they claim.
pub type Told<T> = Result<T, Box<dyn std::error::Error>>;

#[cfg(doctest)]
#[doc = include_str!("../../cdm-testkit/README.md")]
mod testkit_readme {}

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
