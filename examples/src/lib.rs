//! Small programs that show how `cdm-core` is embedded. There are none yet; for now this crate compiles the sketch in
//! the project's `README.md`, so that it cannot fall behind the code.

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
