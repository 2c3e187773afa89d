//! Help, manual pages and completions.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use cdm_cli::{Cli, manual};
use cdm_testkit::backends;
use clap::CommandFactory;

use crate::test_env::{cdm, execute};

/// Collects every command and group, with its words.
fn all(command: &clap::Command, before: &[String], into: &mut Vec<(Vec<String>, clap::Command)>) {
    into.push((before.to_vec(), command.clone()));
    for part in command.get_subcommands() {
        let words = [before, &[part.get_name().to_owned()]].concat();
        all(part, &words, into);
    }
}

#[test]
fn every_help_has_examples_that_parse() {
    let home = tempfile::tempdir().expect("a directory");
    let mut commands = Vec::new();
    all(&Cli::command(), &[], &mut commands);
    for (words, command) in commands {
        let mut line: Vec<&str> = words.iter().map(String::as_str).collect();
        line.push("--help");
        let help = execute(&mut cdm(home.path(), &line)).ends(0);
        assert!(help.err.is_empty() && !help.out.contains('\u{1b}'), "{words:?}");
        assert!(help.out.lines().all(|line| line.chars().count() <= 110), "{words:?}: {}", help.out);
        let examples = manual::examples(&command);
        assert!(!examples.is_empty(), "{words:?} has no example");
        // Continued lines are joined; text after a pipe or a redirection belongs to the shell.
        let examples = examples.join("\n").replace("\\\n", " ");
        for example in examples.lines().map(str::trim) {
            assert!(example.starts_with("cdm "), "{words:?}: {example}");
            let whole = example.replace("<64 hex digits>", &"a".repeat(64));
            let own = whole.split(['|', '>', '&']).next().expect("a command");
            let typed = words_of(own);
            let parsed = Cli::command().try_get_matches_from(&typed);
            assert!(parsed.is_ok(), "{words:?}: {example}: {}", parsed.expect_err("an error"));
        }
    }
    assert!(std::fs::read_dir(home.path()).expect("home").next().is_none(), "help creates no file");
}

/// Splits a command into words and removes the quotes.
fn words_of(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for letter in line.trim().chars() {
        match letter {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            letter => words.last_mut().expect("one").push(letter),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn every_command_has_a_manual_page_that_renders() {
    let home = tempfile::tempdir().expect("a directory");
    let directory = home.path().join("man");
    execute(&mut cdm(home.path(), &["man", "--dir", &directory.display().to_string()])).ends(0);
    let mut commands = Vec::new();
    all(&Cli::command(), &["cdm".into()], &mut commands);
    let wanted: BTreeSet<String> =
        commands.iter().map(|(words, _)| format!("{}.1", words.join("-"))).collect();
    let there = std::fs::read_dir(&directory).expect("pages");
    let there: BTreeSet<String> =
        there.map(|entry| entry.expect("a page").file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(there, wanted);
    for name in &wanted {
        let path = directory.join(name);
        let source = std::fs::read_to_string(&path).expect("a page");
        for section in [".SH NAME", ".SH SYNOPSIS", ".SH EXAMPLES", ".SH \"EXIT STATUS\"", ".SH ENVIRONMENT"]
        {
            assert!(source.contains(section), "{name}: no {section}");
        }
        let Ok(rendered) = Command::new("groff").args(["-man", "-Tutf8", "-ww"]).arg(&path).output() else {
            backends::skip("groff is not installed");
            continue;
        };
        let (text, complaints) =
            (String::from_utf8_lossy(&rendered.stdout), String::from_utf8_lossy(&rendered.stderr));
        assert!(rendered.status.success() && complaints.is_empty(), "{name}: {complaints}");
        assert!(text.contains("cdm") && text.contains("partly done"), "{name}: {text}");
    }
}

#[test]
fn completions_are_valid_scripts_of_their_shells() {
    let home = tempfile::tempdir().expect("a directory");
    let checks: [(&str, &str, &[&str]); 4] = [
        ("bash", "bash", &["-n"]),
        ("zsh", "zsh", &["-n"]),
        ("fish", "fish", &["--no-execute"]),
        ("powershell", "", &[]),
    ];
    for (shell, program, check) in checks {
        let script = execute(&mut cdm(home.path(), &["completion", shell])).ends(0).out;
        assert!(script.contains("rollback") && script.contains("idempotency-key"), "{shell}");
        if program.is_empty() {
            continue;
        }
        let path = home.path().join(shell);
        std::fs::File::create(&path).and_then(|mut file| file.write_all(script.as_bytes())).expect("a file");
        let Ok(read) = Command::new(program).args(check).arg(&path).stdin(Stdio::null()).output() else {
            backends::skip(&format!("{program} is not installed"));
            continue;
        };
        assert!(read.status.success(), "{shell}: {}", String::from_utf8_lossy(&read.stderr));
    }
}

#[test]
fn bash_completes() {
    let home = tempfile::tempdir().expect("a directory");
    let script = execute(&mut cdm(home.path(), &["completion", "bash"])).ends(0).out;
    let ask = "COMP_WORDS=(cdm site pro); COMP_CWORD=2; _cdm cdm pro site; echo \"${COMPREPLY[@]}\"";
    let Ok(output) = Command::new("bash").args(["-c", &format!("{script}\n{ask}")]).output() else {
        return backends::skip("bash is not installed");
    };
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.split_whitespace().collect::<BTreeSet<_>>(), ["promote", "provision"].into());
}
