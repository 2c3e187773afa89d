//! Example programs built on the library, to be read and copied from.
//!
//! [`own_cluster`] implements the cluster port, [`lifecycle`] runs the whole lifecycle of a site on it, and [`crash`]
//! shows how an operation is resumed after its worker has died. [`driver`] and [`process`] are used by both programs.
//!
//! The crate also compiles the code in the project's `README.md`, so that it stays up to date.

pub mod driver;
pub mod process;

pub mod own_cluster;

pub mod crash;
pub mod lifecycle;

/// Result of an example; the error names the first claim that does not hold.
pub type ExampleResult<T> = Result<T, Box<dyn std::error::Error>>;

#[cfg(doctest)]
#[doc = include_str!("../../cdm-testkit/README.md")]
mod testkit_readme {}

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
