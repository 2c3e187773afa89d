//! Manual pages: the text of `--help`, with sections for examples, exit codes and the environment.

use std::fmt::Write as _;

use clap::Command;
use clap_mangen::Man;

use crate::exit::Exit;

/// Returns all pages with their file names, for the command and each of its subcommands.
pub fn pages(command: Command) -> Vec<(String, Vec<u8>)> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    collect(&command, &mut pages);
    pages
}

fn collect(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    // A page that cannot be rendered is left out.
    if let Ok(page) = page(command) {
        pages.push((format!("{name}.1"), page));
    }
    for part in command.get_subcommands().filter(|part| !part.is_hide_set()) {
        collect(part, pages);
    }
}

fn page(command: &Command) -> std::io::Result<Vec<u8>> {
    let examples = examples(command);
    // The text after the options is rendered in separate sections below.
    let man = Man::new(command.clone().after_help("").after_long_help(""));
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut text = String::new();
    if !examples.is_empty() {
        text += ".SH EXAMPLES\n.nf\n";
        for line in examples {
            text += &literal(&line);
        }
        text += ".fi\n";
    }
    text += ".SH \"EXIT STATUS\"\n";
    for exit in Exit::ALL {
        // Writing into a string does not fail.
        let _ = write!(text, ".TP\n\\fB{}\\fR\n{}", exit.code(), literal(exit.meaning()));
    }
    text += ".SH ENVIRONMENT\n";
    for (variable, meaning) in ENVIRONMENT {
        let _ = write!(text, ".TP\n\\fB{variable}\\fR\n{}", literal(meaning));
    }
    page.extend_from_slice(text.as_bytes());
    man.render_version_section(&mut page)?;
    Ok(page)
}

const ENVIRONMENT: [(&str, &str); 6] = [
    ("CDM_SERVER", "Address of the server; --server takes precedence."),
    ("CDM_TOKEN", "Token that authenticates the requests."),
    ("CDM_TOKEN_FILE", "File that contains the token."),
    ("CDM_DATA_DIR", "Directory of the embedded store, with --local."),
    ("CDM_CONFIG", "Configuration file, with --local."),
    ("NO_COLOR", "If set, the output is not colored."),
];

/// Returns the examples of a command's help.
pub fn examples(command: &Command) -> Vec<String> {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let lines = help.lines().skip_while(|line| !line.starts_with("Example"));
    let lines = lines.skip(1).take_while(|line| line.starts_with(' '));
    lines.map(|line| line.trim_start_matches("  ").to_owned()).collect()
}

/// Escapes a line for troff.
fn literal(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    if line.starts_with('.') { format!("\\&{line}\n") } else { format!("{line}\n") }
}
