//! Every command in every format: what is on standard output, all of it, and under the right names.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use cdm_cli::{Cli, Shape};
use clap::CommandFactory;
use serde_json::Value;

use crate::place::{Place, Running, Stream, cdm, ran};
use crate::story::{self, Like};

/// Commands that have tests of their own below.
const ALONE: [&str; 2] = ["events", "demo"];

#[test]
fn every_command_has_its_turn() {
    let place = Place::new();
    let mut seen: BTreeSet<String> = ALONE.map(str::to_owned).into();
    story::tell(&place, &mut |name, words, like| {
        seen.insert(name.to_owned());
        let mut words = words.to_vec();
        words.extend(["-o", "json"]);
        let ran = place.run(&words).ends(0);
        match like {
            Like::Script => assert!(ran.out.contains("cdm"), "{name}"),
            Like::One(shape) => whole(shape, &with_jq(&ran.out), name),
            Like::Many(shape) => {
                let value = with_jq(&ran.out);
                let items = value["items"].as_array().unwrap_or_else(|| panic!("{name}: {value}"));
                assert!(!items.is_empty(), "{name}");
                items.iter().for_each(|item| whole(shape, item, name));
            }
        }
    });
    let mut commands = BTreeSet::new();
    leaves(&Cli::command(), "", &mut commands);
    assert_eq!(seen, commands, "a command without its turn, or a turn without its command");
}

/// The names of the commands that do something.
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

/// Whether the API's answer has every field that a table would show.
fn whole(shape: Shape, value: &Value, name: &str) {
    assert!(value.is_object(), "{name}: {value}");
    let items: Vec<&Value> = match shape {
        Shape::Services => value["services"].as_object().expect("services").values().collect(),
        Shape::Plan => value["sites"].as_array().expect("sites").iter().collect(),
        _ => vec![value],
    };
    for item in items {
        for field in shape.fields() {
            assert!(item.pointer(field).is_some(), "{name}: no {field} in {item}");
        }
    }
    if let Some((key, fields)) = shape.parts() {
        let parts = value[key].as_array().unwrap_or_else(|| panic!("{name}: no {key} in {value}"));
        assert!(!parts.is_empty(), "{name}: {value}");
        for (part, field) in parts.iter().flat_map(|part| fields.iter().map(move |field| (part, field))) {
            assert!(part.pointer(field).is_some(), "{name}: no {field} in {part}");
        }
    }
}

/// What standard output says as JSON, all of it; read by `jq` too where there is one.
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
fn every_command_speaks_yaml() {
    let place = Place::new();
    story::tell(&place, &mut |name, words, like| {
        let mut words = words.to_vec();
        words.extend(["-o", "yaml"]);
        let ran = place.run(&words).ends(0);
        if let Like::One(_) | Like::Many(_) = like {
            let value: Value =
                serde_norway::from_str(&ran.out).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(value.is_object(), "{name}: {}", ran.out);
        }
    });
}

#[test]
fn tables_have_their_columns_and_no_colour_on_a_pipe() {
    let place = Place::new();
    story::tell(&place, &mut |name, words, like| {
        let ran = place.run(words).ends(0);
        assert!(!ran.out.contains('\u{1b}') && !ran.err.contains('\u{1b}'), "{name}: {ran:?}");
        let lists = match like {
            Like::Many(shape) => Some(shape),
            Like::One(Shape::Services) => Some(Shape::Services),
            Like::One(_) | Like::Script => None,
        };
        if let Some(shape) = lists {
            let mut lines = ran.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            assert_eq!(lines.next().expect("headings"), shape.headings(), "{name}");
            for line in lines {
                assert!(line.len() >= shape.headings().len(), "{name}: {}", ran.out);
            }
        }
    });
}

#[test]
fn events_come_as_lines_until_ctrl_c() {
    for (format, read) in [("json", true), ("table", false)] {
        let place = Place::new();
        let mut events = Running::start(&mut place.command(&["events", "-o", format, "-q"]), Stream::Out);
        // They begin with the present, and nobody says when that is: things are done until one is told.
        let heard = AtomicBool::new(false);
        let line = std::thread::scope(|scope| {
            let doer = scope.spawn(|| {
                for number in 0..200 {
                    if heard.load(Ordering::SeqCst) {
                        break;
                    }
                    place.created(&format!("site-{number}"));
                }
            });
            let line = events.until("succeeded");
            heard.store(true, Ordering::SeqCst);
            doer.join().expect("it ends");
            line
        });
        if read {
            let event: Value = serde_json::from_str(&line).expect("one object a line");
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
fn the_demo_tells_people_and_programs() {
    let home = tempfile::tempdir().expect("a directory");
    let told = ran(&mut cdm(home.path(), &["demo", "-o", "json"])).ends(0);
    let value = with_jq(&told.out);
    let claims = value["claims"].as_array().expect("claims");
    assert!(claims.len() > 30 && claims.iter().all(|claim| claim["held"] == true), "{value}");
    assert!(told.err.contains("1. "), "the story is told beside it: {}", told.err);
    assert!(std::fs::read_dir(home.path()).expect("home").next().is_none(), "it leaves nothing at home");
}
