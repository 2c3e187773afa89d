//! Kills a worker at every point of a provision, and shows how another worker resumes the operation.
//!
//! `cargo run -p cdm-examples --bin crash-and-resume`; it exits with 1 if a claim does not hold.

use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    match cdm_examples::crash::run(&mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If stderr is closed, the exit code still reports the failure.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}
