//! Runs the contract suite of the cluster port on a custom cluster, then the lifecycle of a site on it.
//!
//! `cargo run -p cdm-examples --bin own-cluster`; it exits with 1 if a claim does not hold.

use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    match cdm_examples::lifecycle::run(&mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If stderr is closed, the exit code still reports the failure.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}
