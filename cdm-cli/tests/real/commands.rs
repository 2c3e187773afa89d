//! Every command in every format: all of standard output, and the names of its fields.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use cdm_cli::Cli;
use clap::CommandFactory;
use serde_json::Value;

use crate::story::{self, Printed, Shape};
use crate::test_env::{Running, Stream, TestEnv, cdm, execute};

/// Commands with separate tests below.
const TESTED_SEPARATELY: [&str; 2] = ["events", "demo"];

#[test]
fn every_command_has_its_turn() {
    let env = TestEnv::new();
    let mut seen: BTreeSet<String> = TESTED_SEPARATELY.map(str::to_owned).into();
    story::run(&env, &mut |name, words, printed| {
        seen.insert(name.to_owned());
        let mut words = words.to_vec();
        words.extend(["-o", "json"]);
        let result = env.run(&words).ends(0);
        match printed {
            Printed::Script => assert!(result.out.contains("cdm"), "{name}"),
            Printed::One(shape) => shape.assert(&with_jq(&result.out), name),
            Printed::Many(shape) => {
                let value = with_jq(&result.out);
                let items = value["items"].as_array().unwrap_or_else(|| panic!("{name}: {value}"));
                assert!(!items.is_empty(), "{name}");
                items.iter().for_each(|item| shape.assert(item, name));
            }
        }
    });
    let mut commands = BTreeSet::new();
    leaves(&Cli::command(), "", &mut commands);
    assert_eq!(seen, commands, "a command is not in the scenario, or the scenario has an unknown command");
}

/// Collects the names of the commands without subcommands.
fn leaves(command: &clap::Command, before: &str, into: &mut BTreeSet<String>) {
    for part in command.get_subcommands() {
        let name = format!("{before} {}", part.get_name()).trim().to_owned();
        if part.has_subcommands() {
            leaves(part, &name, into);
        } else {
            into.insert(name);
        }
    }
}

/// Parses all of standard output as JSON; compares it with the output of `jq`, if installed.
fn with_jq(out: &str) -> Value {
    let value: Value = serde_json::from_str(out).unwrap_or_else(|error| panic!("{error}: {out}"));
    let jq = Command::new("jq").args(["-c", "."]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    if let Ok(mut jq) = jq {
        jq.stdin.take().expect("a pipe").write_all(out.as_bytes()).expect("written");
        let read = jq.wait_with_output().expect("it ends");
        assert!(read.status.success(), "{out}");
        let read: Value = serde_json::from_slice(&read.stdout).expect("one value");
        assert_eq!(read, value);
    }
    value
}

#[test]
fn every_command_prints_yaml() {
    let env = TestEnv::new();
    story::run(&env, &mut |name, words, printed| {
        let mut words = words.to_vec();
        words.extend(["-o", "yaml"]);
        let result = env.run(&words).ends(0);
        if let Printed::One(_) | Printed::Many(_) = printed {
            let value: Value =
                serde_norway::from_str(&result.out).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(value.is_object(), "{name}: {}", result.out);
        }
    });
}

#[test]
fn tables_have_their_columns_and_no_color_on_a_pipe() {
    let env = TestEnv::new();
    story::run(&env, &mut |name, words, printed| {
        let result = env.run(words).ends(0);
        assert!(!result.out.contains('\u{1b}') && !result.err.contains('\u{1b}'), "{name}: {result:?}");
        let lists = match printed {
            Printed::Many(shape) => Some(shape),
            Printed::One(Shape::Services) => Some(Shape::Services),
            Printed::One(_) | Printed::Script => None,
        };
        if let Some(shape) = lists {
            let mut lines = result.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            assert_eq!(lines.next().expect("headings"), shape.headings(), "{name}");
            for line in lines {
                assert!(line.len() >= shape.headings().len(), "{name}: {}", result.out);
            }
        }
    });
}

#[test]
fn events_are_printed_as_lines_until_ctrl_c() {
    for (format, read) in [("json", true), ("table", false)] {
        let env = TestEnv::new();
        let mut events = Running::start(&mut env.command(&["events", "-o", format, "-q"]), Stream::Out);
        // The stream begins with the present, at an unknown moment: sites are created until an event arrives.
        let received = AtomicBool::new(false);
        let line = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for number in 0..200 {
                    if received.load(Ordering::SeqCst) {
                        break;
                    }
                    env.create(&format!("site-{number}"));
                }
            });
            let line = events.until("succeeded");
            received.store(true, Ordering::SeqCst);
            writer.join().expect("it ends");
            line
        });
        if read {
            let event: Value = serde_json::from_str(&line).expect("one object per line");
            for key in ["at", "subject", "operation", "what"] {
                assert!(event[key].is_string(), "{key} in {event}");
            }
        } else {
            assert_eq!(line.split("  ").count(), 4, "{line}");
        }
        events.interrupt();
        assert_eq!(events.end().0, 130);
    }
}

#[test]
fn the_demo_has_a_text_and_a_report() {
    let home = tempfile::tempdir().expect("a directory");
    let output = execute(&mut cdm(home.path(), &["demo", "-o", "json"])).ends(0);
    let value = with_jq(&output.out);
    let claims = value["claims"].as_array().expect("claims");
    assert!(claims.len() > 30 && claims.iter().all(|claim| claim["held"] == true), "{value}");
    assert!(output.err.contains("1. "), "the text is on standard error: {}", output.err);
    assert!(
        std::fs::read_dir(home.path()).expect("home").next().is_none(),
        "no file is left in the home directory"
    );
}
