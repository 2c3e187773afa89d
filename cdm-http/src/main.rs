//! `cdm-server`: configuration in, a platform behind a socket, gone in good order on SIGTERM.

mod program;

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    match program::run(program::Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => program::tell(&error),
    }
}
