//! The command line against a scripted server: requests, output and exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap fails the test")]

mod fake;
mod offline;
mod rejections;
mod requests;
mod samples;
mod tables;
mod tls;
mod waiting;
