//! The walls of the house: which room of the core may use which, what the pure rooms do without, and how long a file
//! may get. Whoever changes a table here changes `ARCHITECTURE.md` in the same commit.
//!
//! It reads source text, so a macro could fool it; it is a guard against habit, not against intent.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each room and the rooms it may use, from the pure centre outwards. A room may always use itself.
const ROOMS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("ports", &["domain"]),
    ("engine", &["domain", "ports"]),
    ("pipelines", &["domain", "ports", "engine"]),
    ("manager", &["domain", "ports", "engine", "pipelines"]),
    ("adapters", &["domain", "ports"]),
    ("wiring", &["domain", "ports", "engine", "pipelines", "manager", "adapters"]),
];

/// What every room may use: the switch of the planted bugs, which is constant in every build without the test feature.
const EVERYWHERE: &[&str] = &["bug", "bugs"];

/// Words that have no place where decisions are made.
const IMPURE: &[&str] =
    &["Instant", "SystemTime", "async", "await", "eprintln", "println", "rand", "serde", "tokio", "tracing"];

/// Where decisions are made, below `cdm-core/src`.
const PURE: &[&str] = &["domain/", "engine/plan.rs"];

/// Where a panic would take other operations with it, below `cdm-core/src`.
const NO_PANIC: &[&str] = &["domain/", "engine/"];

/// Beginnings of the names of crates that speak to a cloud, to a network or to a database, or bring a runtime.
const OUTSIDE: &[&str] = &[
    "actix",
    "aws",
    "axum",
    "google-cloud",
    "http",
    "hyper",
    "k8s-openapi",
    "kube",
    "libsqlite",
    "mysql",
    "openssl",
    "reqwest",
    "rusqlite",
    "rustls",
    "sqlx",
    "tokio",
    "tonic",
    "tower",
    "ureq",
];

fn core() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every Rust file below `folder`, in order.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry of a folder").path()).collect();
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Every Rust file of the core: its path below `src`, with `/` between the parts, and its text.
fn core_files() -> Vec<(String, String)> {
    let src = core().join("src");
    let named = |path: PathBuf| {
        let below = path.strip_prefix(&src).expect("a path below src");
        let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
        (parts.join("/"), read(&path))
    };
    rust_files(&src).into_iter().map(named).collect()
}

/// Every Rust file below the `src` of every crate of the workspace: its path below the workspace, and its text.
fn workspace_files() -> Vec<(String, String)> {
    let top = core().parent().expect("a crate lies in its workspace");
    let entries = fs::read_dir(top).expect("the workspace's folder");
    let mut crates: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry of a folder").path()).collect();
    crates.retain(|path| path.join("Cargo.toml").is_file() && path.join("src").is_dir());
    crates.sort();
    let files = crates.iter().flat_map(|path| rust_files(&path.join("src")));
    files
        .map(|path| (path.strip_prefix(top).expect("a path below").display().to_string(), read(&path)))
        .collect()
}

/// The lines of a text with their numbers, without comments and without what stands in quotes.
fn code(text: &str) -> impl Iterator<Item = (usize, String)> {
    let mut quoted = false;
    let stripped: Vec<(usize, String)> = (1..)
        .zip(text.lines())
        .map(|(number, line)| {
            let mut kept = String::new();
            let mut rest = line.chars().peekable();
            while let Some(character) = rest.next() {
                match character {
                    '\\' if quoted => drop(rest.next()),
                    '"' => quoted = !quoted,
                    _ if quoted => {}
                    '/' if rest.peek() == Some(&'/') => break,
                    '\'' if rest.peek() == Some(&'"') => drop(rest.next()),
                    _ => kept.push(character),
                }
            }
            (number, kept)
        })
        .collect();
    assert!(!quoted, "a quotation without an end");
    stripped.into_iter()
}

/// The part of a text that is built outside tests: test modules stand at the end of their file.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap_or(text)
}

/// The words of a line, with what stands before and after each.
fn words(line: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    let part = |character: char| character.is_alphanumeric() || character == '_';
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = from + line[from..].find(part)?;
        let end =
            line[start..].find(|character| !part(character)).map_or(line.len(), |length| start + length);
        from = end;
        Some((&line[..start], &line[start..end], &line[end..]))
    })
}

/// The first name of a path that goes on in `rest`, such as `domain` in `::domain::Site`; `{` for a group.
fn next_name(rest: &str) -> Option<String> {
    let rest = rest.strip_prefix("::")?.trim_start();
    if rest.starts_with('{') || rest.starts_with('*') {
        return Some("{".to_owned());
    }
    Some(rest.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect())
}

/// The names directly below the crate that a line of `file` uses, by `crate::…` or by as many `super::` as lead there.
fn names_at_the_root(file: &str, line: &str) -> Vec<String> {
    let mut depth = file.split('/').count();
    if file.ends_with("/mod.rs") {
        depth -= 1;
    }
    let mut names = Vec::new();
    for (before, word, rest) in words(line) {
        match word {
            "crate" => names.extend(next_name(rest)),
            "super" if !before.ends_with("super::") => {
                let mut rest = rest;
                let mut up = 1;
                while let Some(further) = rest.strip_prefix("::super") {
                    rest = further;
                    up += 1;
                }
                if up >= depth {
                    names.extend(next_name(rest));
                }
            }
            _ => {}
        }
    }
    names
}

/// What is wrong with the uses in `file`, a path below `cdm-core/src`.
fn wrong_uses(file: &str, text: &str) -> Vec<String> {
    let room = file.split('/').next().unwrap_or_default().trim_end_matches(".rs");
    let Some((_, allowed)) = ROOMS.iter().find(|(known, _)| *known == room) else {
        let known = file == "lib.rs" || file == "bugs.rs";
        return if known { Vec::new() } else { vec![format!("{file}: `{room}` is no room of this house")] };
    };
    let mut wrong = Vec::new();
    for (number, line) in code(text) {
        for name in names_at_the_root(file, &line) {
            let fine =
                name == room || allowed.contains(&name.as_str()) || EVERYWHERE.contains(&name.as_str());
            if name == "{" {
                wrong.push(format!(
                    "{file}:{number}: a group at the crate's root hides its rooms; name the room"
                ));
            } else if !fine {
                wrong.push(format!("{file}:{number}: `{room}` must not use `{name}`"));
            }
        }
    }
    wrong
}

/// What stands in `file` that is no part of a decision.
fn impure(file: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, line) in code(without_tests(text)) {
        let found = words(&line).filter(|(_, word, _)| IMPURE.contains(word));
        wrong.extend(
            found.map(|(_, word, _)| format!("{file}:{number}: `{word}` has no place in a decision")),
        );
    }
    wrong
}

/// Where `file` would rather panic than return.
fn panics(file: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, line) in code(without_tests(text)) {
        let found = words(&line).filter(|(before, word, rest)| {
            let called = before.ends_with('.') || before.ends_with("::");
            called && (*word == "unwrap" || *word == "expect") && rest.starts_with('(')
        });
        wrong.extend(found.map(|(_, word, _)| format!("{file}:{number}: `{word}(` outside a test")));
    }
    wrong
}

/// Whether a file begins by saying what it is for, in at least one word.
fn says_what_it_is_for(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default();
    let words = first.strip_prefix("//!").is_some_and(|words| words.chars().any(char::is_alphabetic));
    words || first.starts_with("#![doc")
}

/// The crates of the outside world that are compiled with the core and these features, other than for its tests.
fn outside_crates(features: &str) -> Vec<String> {
    let asked = ["tree", "--package=cdm-core", "--edges=normal,build", "--prefix=none", "--offline"];
    let mut cargo = Command::new(env!("CARGO"));
    let told = cargo.args(asked).args(["--no-default-features", "--features", features]).current_dir(core());
    let told = told.output().expect("cargo");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let tree = String::from_utf8(told.stdout).expect("text");
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    let outside = names.filter(|name| OUTSIDE.iter().any(|beginning| name.starts_with(beginning)));
    outside.map(str::to_owned).collect()
}

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn rooms_look_inwards_only() {
    let files = core_files();
    for (room, _) in ROOMS {
        let there = files.iter().any(|(file, _)| file.starts_with(&format!("{room}/")));
        assert!(there, "the table has a room `{room}` that the house has not");
    }
    assert_none(&files.iter().flat_map(|(file, text)| wrong_uses(file, text)).collect::<Vec<_>>());
}

#[test]
fn decisions_are_pure() {
    let files = core_files();
    let pure = files.iter().filter(|(file, _)| PURE.iter().any(|place| file.starts_with(place)));
    assert_none(&pure.flat_map(|(file, text)| impure(file, text)).collect::<Vec<_>>());
}

#[test]
fn domain_and_engine_do_not_panic_at_will() {
    let files = core_files();
    let guarded = files.iter().filter(|(file, _)| NO_PANIC.iter().any(|place| file.starts_with(place)));
    assert_none(&guarded.flat_map(|(file, text)| panics(file, text)).collect::<Vec<_>>());
}

#[test]
fn every_file_says_what_it_is_for() {
    let files = workspace_files();
    let silent = files.iter().filter(|(_, text)| !says_what_it_is_for(text));
    assert_none(
        &silent.map(|(file, _)| format!("{file}:1: no `//!` line says what this is")).collect::<Vec<_>>(),
    );
}

#[test]
fn the_core_without_features_compiles_no_cloud() {
    assert_eq!(outside_crates(""), Vec::<String>::new());
    let all = outside_crates("cloud");
    for name in ["aws-sdk-dynamodb", "aws-sdk-s3", "aws-sdk-secretsmanager", "kube", "sqlx"] {
        assert!(all.iter().any(|known| known == name), "{name} is not among {all:?}");
    }
}

#[test]
fn the_walls_stop_what_they_are_for() {
    let caught = |file, text| wrong_uses(file, text).len();
    assert_eq!(caught("domain/site.rs", "use crate::ports::CallContext;"), 1);
    assert_eq!(caught("domain/site.rs", "use super::super::ports::CallContext;"), 1);
    assert_eq!(caught("domain/mod.rs", "use super::engine::Lease;"), 1);
    assert_eq!(caught("ports/store.rs", "fn f(x: crate::manager::Request) {}"), 1);
    assert_eq!(caught("engine/plan.rs", "use crate::{domain::Site, manager::Manager};"), 1);
    assert_eq!(caught("pipelines/rollout/owner.rs", "use super::super::super::manager::Manager;"), 1);
    assert_eq!(caught("cellar/mod.rs", ""), 1);
    assert_eq!(
        wrong_uses("engine/plan.rs", "\nuse crate::pipelines::NewRollout;")[0],
        "engine/plan.rs:2: `engine` must not use `pipelines`"
    );

    assert_eq!(caught("domain/site.rs", "use super::fence::Fence;"), 0);
    assert_eq!(caught("domain/site.rs", "// use crate::ports::CallContext;"), 0);
    assert_eq!(caught("domain/site.rs", "let text = \"crate::ports::CallContext\";"), 0);
    assert_eq!(caught("domain/site.rs", "if crate::bug!(NameNotUid) {}"), 0);
    assert_eq!(caught("pipelines/rollout/owner.rs", "use super::super::route::point;"), 0);
    assert_eq!(caught("manager/sites.rs", "use crate::pipelines::NewRollout;"), 0);
}

#[test]
fn the_other_guards_bite_too() {
    assert_eq!(impure("domain/x.rs", "async fn f() {}\nlet now = SystemTime::now();").len(), 2);
    assert_eq!(impure("domain/x.rs", "//! async\nlet strand = operand(\"tracing\");").len(), 0);

    assert_eq!(panics("engine/x.rs", "let a = b.unwrap();\nlet c = d.expect(\"e\");").len(), 2);
    assert_eq!(panics("engine/x.rs", "let a = b.unwrap_or_default();\n#[expect(dead_code)]").len(), 0);
    assert_eq!(
        panics("engine/x.rs", "fn f() {}\n#[cfg(test)]\nmod tests { fn g() { h().unwrap(); } }").len(),
        0
    );

    assert!(!says_what_it_is_for("use std::fs;"));
    assert!(!says_what_it_is_for("//! ."));
    assert!(says_what_it_is_for("//! What this is."));
}
