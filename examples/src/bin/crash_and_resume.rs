//! Kills a worker at every point of a provision, and shows how another one goes on.
//!
//! `cargo run -p cdm-examples --bin crash-and-resume`; it exits with 1 when something is not as it claims.

use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    match cdm_examples::crash::play(&mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where stderr is closed, the exit code still says it.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}
