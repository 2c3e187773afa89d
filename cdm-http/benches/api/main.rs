//! What the server costs: beside a bare handler, beside a bare disk, at its start, and at rest.
//!
//! Prints tables and demands nothing: `cargo bench -p cdm-http --bench api`. A word behind `--` picks tables: `reads`,
//! `writes` or `program`. What the columns mean is written in `docs/performance.md`.
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

/// Rounds of each comparison of reads, besides the first, which only warms up; and of what takes longer.
const ROUNDS: usize = 7;
const FEW: usize = 3;
/// Connections that ask at once.
const CONNECTIONS: usize = 64;
/// Sites of a full directory.
const MANY: usize = 10_000;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |word: &str| words.is_empty() || words.iter().any(|known| known == word);
    log_as_the_server_does();
    let runtime = must("a runtime", Builder::new_multi_thread().enable_all().build());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    println!("Medians [least–most] of {ROUNDS} rounds, where nothing else is said; {cores} cores.");
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

/// Log lines are made and written as the server does, but to nowhere.
fn log_as_the_server_does() {
    let nowhere = must("/dev/null", OpenOptions::new().write(true).open("/dev/null"));
    tracing_subscriber::fmt().with_env_filter("info").with_writer(Mutex::new(nowhere)).json().init();
}

/// A directory for one measure, on the disk that temporary files are on.
fn directory() -> TempDir {
    must("a directory", TempDir::new())
}
