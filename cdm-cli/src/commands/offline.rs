//! Completions and manual pages: what needs no server.

use std::path::Path;

use clap::CommandFactory;

use crate::args::{Cli, Shell};
use crate::error::CliError;
use crate::exit::Exit;
use crate::printer::Printer;

pub(crate) fn completion(shell: Shell, printer: &mut Printer) -> Result<Exit, CliError> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
        Shell::PowerShell => clap_complete::Shell::PowerShell,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "cdm", &mut script);
    printer.bytes(&script)?;
    Ok(Exit::Done)
}

pub(crate) fn manual(directory: &Path, printer: &mut Printer) -> Result<Exit, CliError> {
    let failed = |source| CliError::Io {
        what: format!("writing manual pages into `{}`", directory.display()),
        source,
    };
    std::fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), directory).map_err(failed)?;
    printer.note(&format!("manual pages are in `{}`", directory.display()));
    Ok(Exit::Done)
}
