//! The `cdm` command.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    ExitCode::from(cdm_cli::main(std::env::args_os()).await)
}
