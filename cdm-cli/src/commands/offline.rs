//! Commands that use no server: completions, manual pages, and images of the local cluster.

use std::io::Write;
use std::path::Path;

use clap::CommandFactory;
use serde_json::json;

use crate::args::{Cli, Format, ImageBehavior, Shell};
use crate::client::Received;
use crate::error::CliError;
use crate::exit::Exit;
use crate::local::{self, LocalOptions};
use crate::manual;
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
    let mut names = Vec::new();
    for (name, page) in manual::pages(Cli::command()) {
        std::fs::File::create(directory.join(&name))
            .and_then(|mut file| file.write_all(&page))
            .map_err(failed)?;
        names.push(name);
    }
    match printer.format {
        Format::Table => {
            printer.note(&format!("{} manual pages were written to `{}`", names.len(), directory.display()));
        }
        Format::Json | Format::Yaml => {
            let report = json!({ "directory": directory.display().to_string(), "pages": names });
            printer.value(&Received::local(report)?)?;
        }
    }
    Ok(Exit::Done)
}

pub(crate) async fn declare_image(
    options: &LocalOptions,
    digest: &str,
    behavior: ImageBehavior,
    printer: &mut Printer,
) -> Result<Exit, CliError> {
    let (digest, directory) = local::declare_image(options, digest, behavior).await?;
    let report = json!({
        "digest": digest.to_string(),
        "behaviour": behavior.as_str(),
        "dataDir": directory.display().to_string(),
    });
    match printer.format {
        Format::Table => {
            let what = behavior.describe();
            printer.note(&format!("in the local cluster of `{}`, {what}: {digest}", directory.display()));
        }
        Format::Json | Format::Yaml => printer.value(&Received::local(report)?)?,
    }
    Ok(Exit::Done)
}
