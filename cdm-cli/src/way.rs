//! How this command line reached the platform, so that the commands it suggests work when they are pasted.

use std::ffi::OsStr;
use std::path::Path;

use clap::ArgMatches;
use clap::parser::ValueSource;

/// The beginning of every suggested command: the program as it was called, and the options that led to the platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    program: String,
    place: Place,
    /// Whether a token went with the requests.
    pub token: Sent,
}

/// Where the work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a server.
    Server,
    /// In this process, on the store itself.
    Here,
}

/// Whether something was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It was.
    Yes,
    /// It was not.
    No,
}

impl Default for Way {
    fn default() -> Self {
        Self { program: "cdm".into(), place: Place::Server, token: Sent::Yes }
    }
}

impl Way {
    /// What was typed: `program` as it was called, and of `matches` what names the platform.
    pub fn typed(program: &OsStr, matches: &ArgMatches) -> Self {
        let program = quoted(&program.to_string_lossy());
        let here = matches.get_flag("local");
        let names: &[(&str, &str)] = match here {
            true => &[("data_dir", "--data-dir"), ("config", "--config")],
            false => &[("server", "--server"), ("token_file", "--token-file"), ("cacert", "--cacert")],
        };
        let mut typed = if here { format!("{program} --local") } else { program };
        for (id, flag) in names {
            if matches.value_source(id) == Some(ValueSource::CommandLine)
                && let Some(value) = matches.get_raw(id).and_then(|mut values| values.next())
            {
                typed += &format!(" {flag} {}", quoted(&value.to_string_lossy()));
            }
        }
        if !here && matches.value_source("allow_plaintext") == Some(ValueSource::CommandLine) {
            typed += " --allow-plaintext";
        }
        let place = if here { Place::Here } else { Place::Server };
        Self { program: typed, place, token: Sent::Yes }
    }

    /// A whole command, from its words after `cdm`.
    pub fn command(&self, words: &str) -> String {
        format!("{} {words}", self.program)
    }

    /// Where the work is done.
    pub const fn place(&self) -> Place {
        self.place
    }
}

/// The directory that a shell has to search to find this program as `cdm`; none where it does already.
pub(crate) fn directory(program: Option<&Path>, search: Option<&OsStr>) -> Option<String> {
    let program = program?;
    let mut searched = std::env::split_paths(search.unwrap_or_default()).map(|dir| dir.join("cdm"));
    if searched.any(|path| path == program) {
        return None;
    }
    program.parent().map(|directory| quoted(&directory.display().to_string()))
}

/// A word as a shell takes it for one.
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

    fn way(words: &[&str]) -> String {
        let matches = Cli::command().try_get_matches_from(words).unwrap();
        Way::typed(OsStr::new(words[0]), &matches).command("op list")
    }

    #[test]
    fn what_leads_to_the_platform_is_said_again() {
        assert_eq!(way(&["cdm", "op", "list"]), "cdm op list");
        assert_eq!(
            way(&["target/debug/cdm", "site", "list", "--server", "http://h:1", "-o", "json"]),
            "target/debug/cdm --server http://h:1 op list"
        );
        assert_eq!(
            way(&["cdm", "op", "list", "--server", "http://h:1", "--allow-plaintext", "--cacert", "ca.pem"]),
            "cdm --server http://h:1 --cacert ca.pem --allow-plaintext op list"
        );
        assert_eq!(
            way(&["cdm", "--local", "site", "list", "--data-dir", "my dir", "--server", "http://h:1"]),
            "cdm --local --data-dir 'my dir' op list"
        );
    }

    #[test]
    fn a_program_that_the_shell_finds_needs_no_path() {
        let program = Some(Path::new("/opt/cdm/bin/cdm"));
        assert_eq!(directory(program, Some(OsStr::new("/bin:/opt/cdm/bin"))), None);
        assert_eq!(directory(program, Some(OsStr::new("/bin"))), Some("/opt/cdm/bin".into()));
        assert_eq!(directory(program, None), Some("/opt/cdm/bin".into()));
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
