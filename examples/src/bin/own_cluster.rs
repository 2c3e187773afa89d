//! Holds a cluster of one's own against the port's contract, then plays a site's whole life on it.
//!
//! `cargo run -p cdm-examples --bin own-cluster`; it exits with 1 when something is not as it claims.

use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    match cdm_examples::life::play(&mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where stderr is closed, the exit code still says it.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}
