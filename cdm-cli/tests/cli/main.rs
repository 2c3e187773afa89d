//! The command line against a scripted server: what it asks, prints, and ends with.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at the first surprise")]

mod endings;
mod fake;
mod offline;
mod requests;
mod tables;
mod tls;
mod waiting;
