//! How this command line reached the platform, so that suggested commands can be pasted as printed.

use std::ffi::OsStr;
use std::path::Path;

use clap::ArgMatches;
use clap::parser::ValueSource;

/// The prefix of every suggested command: the program as it was called, and the options that selected the platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    program: String,
    target: Target,
    /// Whether the requests carried a token.
    pub token: Sent,
}

/// Where the routes of the API run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// On a server, which the command reaches over HTTP.
    Server,
    /// In this process, directly on the store (`--local`).
    InProcess,
}

/// Whether a token was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The requests carried a token.
    Yes,
    /// No token was configured.
    No,
}

impl Default for Invocation {
    fn default() -> Self {
        Self { program: "cdm".into(), target: Target::Server, token: Sent::Yes }
    }
}

impl Invocation {
    /// Rebuilds the prefix from the command line: `program` as it was called, and the options in `matches` that
    /// select the platform.
    pub fn from_args(program: &OsStr, matches: &ArgMatches) -> Self {
        let program = quoted(&program.to_string_lossy());
        let local = matches.get_flag("local");
        let names: &[(&str, &str)] = match local {
            true => &[("data_dir", "--data-dir"), ("config", "--config")],
            false => &[("server", "--server"), ("token_file", "--token-file"), ("cacert", "--cacert")],
        };
        let mut prefix = if local { format!("{program} --local") } else { program };
        for (id, flag) in names {
            if matches.value_source(id) == Some(ValueSource::CommandLine)
                && let Some(value) = matches.get_raw(id).and_then(|mut values| values.next())
            {
                prefix += &format!(" {flag} {}", quoted(&value.to_string_lossy()));
            }
        }
        if !local && matches.value_source("allow_plaintext") == Some(ValueSource::CommandLine) {
            prefix += " --allow-plaintext";
        }
        let target = if local { Target::InProcess } else { Target::Server };
        Self { program: prefix, target, token: Sent::Yes }
    }

    /// Returns a complete command; `words` follow the program and its options.
    pub fn command(&self, words: &str) -> String {
        format!("{} {words}", self.program)
    }

    /// Returns where operations run.
    pub const fn target(&self) -> Target {
        self.target
    }
}

/// Returns the directory that `PATH` lacks for a shell to find this program as `cdm`; `None` if `PATH` finds it
/// already.
pub(crate) fn directory(program: Option<&Path>, search: Option<&OsStr>) -> Option<String> {
    let program = program?;
    let mut searched = std::env::split_paths(search.unwrap_or_default()).map(|dir| dir.join("cdm"));
    if searched.any(|path| path == program) {
        return None;
    }
    program.parent().map(|directory| quoted(&directory.display().to_string()))
}

/// Quotes a word for a POSIX shell, if it needs quotes.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::Cli;

    fn invocation(words: &[&str]) -> String {
        let matches = Cli::command().try_get_matches_from(words).unwrap();
        Invocation::from_args(OsStr::new(words[0]), &matches).command("op list")
    }

    #[test]
    fn suggested_commands_repeat_the_options_that_select_the_platform() {
        assert_eq!(invocation(&["cdm", "op", "list"]), "cdm op list");
        assert_eq!(
            invocation(&["target/debug/cdm", "site", "list", "--server", "http://h:1", "-o", "json"]),
            "target/debug/cdm --server http://h:1 op list"
        );
        assert_eq!(
            invocation(&[
                "cdm",
                "op",
                "list",
                "--server",
                "http://h:1",
                "--allow-plaintext",
                "--cacert",
                "ca.pem"
            ]),
            "cdm --server http://h:1 --cacert ca.pem --allow-plaintext op list"
        );
        assert_eq!(
            invocation(&["cdm", "--local", "site", "list", "--data-dir", "my dir", "--server", "http://h:1"]),
            "cdm --local --data-dir 'my dir' op list"
        );
    }

    #[test]
    fn a_program_on_the_path_needs_no_directory() {
        let program = Some(Path::new("/opt/cdm/bin/cdm"));
        assert_eq!(directory(program, Some(OsStr::new("/bin:/opt/cdm/bin"))), None);
        assert_eq!(directory(program, Some(OsStr::new("/bin"))), Some("/opt/cdm/bin".into()));
        assert_eq!(directory(program, None), Some("/opt/cdm/bin".into()));
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
