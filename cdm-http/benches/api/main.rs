//! The cost of the server: compared to a bare handler, compared to a bare disk, at startup, and when idle.
//!
//! Prints tables and asserts no limits: `cargo bench -p cdm-http --bench api`. A word after `--` selects tables:
//! `reads`, `writes` or `program`. `docs/performance.md` explains the columns.
#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program that measures and prints"
)]

mod arms;
mod client;
mod measure;
mod program;
mod reads;
mod writes;

use std::fs::OpenOptions;
use std::sync::Mutex;

use tempfile::TempDir;
use tokio::runtime::Builder;

use measure::must;

/// Measured rounds of each comparison of reads, after one warm-up round; and of slower measurements.
const ROUNDS: usize = 7;
const SLOW_ROUNDS: usize = 3;
/// Concurrent connections.
const CONNECTIONS: usize = 64;
/// Sites of a full directory.
const MANY: usize = 10_000;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |word: &str| words.is_empty() || words.iter().any(|known| known == word);
    log_as_the_server_does();
    let runtime = must("a runtime", Builder::new_multi_thread().enable_all().build());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    println!("Medians [minimum–maximum] of {ROUNDS} rounds unless stated otherwise; {cores} cores.");
    if wanted("reads") {
        reads::measure(&runtime);
    }
    if wanted("writes") {
        writes::measure(&runtime);
    }
    if wanted("program") {
        program::measure(&runtime);
    }
}

/// Formats log lines as the server does, and discards them.
fn log_as_the_server_does() {
    let nowhere = must("/dev/null", OpenOptions::new().write(true).open("/dev/null"));
    tracing_subscriber::fmt().with_env_filter("info").with_writer(Mutex::new(nowhere)).json().init();
}

/// Creates a directory for one measurement, on the disk of temporary files.
fn directory() -> TempDir {
    must("a directory", TempDir::new())
}
