//! `cdm-server`: reads the configuration, serves the API and the console, and shuts down in order on SIGTERM.

mod program;

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    match program::run(program::Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => program::report(&error),
    }
}
