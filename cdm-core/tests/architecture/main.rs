//! The layering rules of the workspace: which modules of the core may use which, and what the pure modules must not
//! contain. A change to a table here is also made in `ARCHITECTURE.md`, in the same commit.
//!
//! The tests read source text, so a macro could bypass them. They guard against accidents, not against intent.

mod cycles;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each module and the modules that it may use, from the pure center outwards. A module may always use itself.
const MODULES: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("ports", &["domain"]),
    ("engine", &["domain", "ports"]),
    ("pipelines", &["domain", "ports", "engine"]),
    ("manager", &["domain", "ports", "engine", "pipelines"]),
    ("adapters", &["domain", "ports"]),
    ("wiring", &["domain", "ports", "engine", "pipelines", "manager", "adapters"]),
];

/// Modules that every module may use: the switch of the planted bugs, which is constant in every build without the
/// test feature.
const ALWAYS_ALLOWED: &[&str] = &["bug", "bugs"];

/// Words that must not occur in decision code.
const IMPURE: &[&str] =
    &["Instant", "SystemTime", "async", "await", "eprintln", "println", "rand", "serde", "tokio", "tracing"];

/// Decision code, below `cdm-core/src`.
const PURE: &[&str] = &["domain/", "engine/plan.rs"];

/// Code in which a panic would abort other operations, below `cdm-core/src`.
const NO_PANIC: &[&str] = &["domain/", "engine/"];

/// Name prefixes of crates that access a cloud, a network or a database, or contain a runtime.
const EXTERNAL: &[&str] = &[
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

/// Returns every Rust file below `folder`, sorted.
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

/// Returns every Rust file of the core: the path below `src`, separated by `/`, and the text.
fn core_files() -> Vec<(String, String)> {
    let src = core().join("src");
    let named = |path: PathBuf| {
        let below = path.strip_prefix(&src).expect("a path below src");
        let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
        (parts.join("/"), read(&path))
    };
    rust_files(&src).into_iter().map(named).collect()
}

/// Returns every Rust file below the `src` of every crate of the workspace: the path below the workspace, and the
/// text.
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

/// Returns the lines of a text with their numbers, without comments and string literals.
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

/// Returns the part of a text that is compiled outside tests; test modules are at the end of their file.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap_or(text)
}

/// Returns the words of a line, each with the text before and after it.
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

/// Returns the first name of a path that continues in `rest`, such as `domain` in `::domain::Site`; `{` for a group.
fn next_name(rest: &str) -> Option<String> {
    let rest = rest.strip_prefix("::")?.trim_start();
    if rest.starts_with('{') || rest.starts_with('*') {
        return Some("{".to_owned());
    }
    Some(rest.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect())
}

/// Returns the names directly below the crate root that a line of `file` uses, through `crate::…` or through the
/// number of `super::` that leads to the root.
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

/// Returns the forbidden uses in `file`, a path below `cdm-core/src`.
fn wrong_uses(file: &str, text: &str) -> Vec<String> {
    let module = file.split('/').next().unwrap_or_default().trim_end_matches(".rs");
    let Some((_, allowed)) = MODULES.iter().find(|(known, _)| *known == module) else {
        let known = file == "lib.rs" || file == "bugs.rs";
        return if known {
            Vec::new()
        } else {
            vec![format!("{file}: `{module}` is not in the table of modules")]
        };
    };
    let mut wrong = Vec::new();
    for (number, line) in code(text) {
        for name in names_at_the_root(file, &line) {
            let fine =
                name == module || allowed.contains(&name.as_str()) || ALWAYS_ALLOWED.contains(&name.as_str());
            if name == "{" {
                wrong.push(format!(
                    "{file}:{number}: a group at the crate root hides its modules; name the module"
                ));
            } else if !fine {
                wrong.push(format!("{file}:{number}: `{module}` must not use `{name}`"));
            }
        }
    }
    wrong
}

/// Returns the words in `file` that must not occur in decision code.
fn impure(file: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, line) in code(without_tests(text)) {
        let found = words(&line).filter(|(_, word, _)| IMPURE.contains(word));
        wrong.extend(
            found.map(|(_, word, _)| format!("{file}:{number}: `{word}` must not occur in decision code")),
        );
    }
    wrong
}

/// Returns the places where `file` panics instead of returning an error.
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

/// Returns whether a file begins with a non-empty `//!` line.
fn states_its_subject(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default();
    let words = first.strip_prefix("//!").is_some_and(|words| words.chars().any(char::is_alphabetic));
    words || first.starts_with("#![doc")
}

/// Returns the external crates that are compiled with the core and these features, without its test dependencies.
fn external_crates(features: &str) -> Vec<String> {
    let arguments = ["tree", "--package=cdm-core", "--edges=normal,build", "--prefix=none", "--offline"];
    let mut cargo = Command::new(env!("CARGO"));
    let output =
        cargo.args(arguments).args(["--no-default-features", "--features", features]).current_dir(core());
    let output = output.output().expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).expect("text");
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    let outside = names.filter(|name| EXTERNAL.iter().any(|beginning| name.starts_with(beginning)));
    outside.map(str::to_owned).collect()
}

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn modules_use_only_the_modules_listed_for_them() {
    let files = core_files();
    for (module, _) in MODULES {
        let there = files.iter().any(|(file, _)| file.starts_with(&format!("{module}/")));
        assert!(there, "the table has a module `{module}` that does not exist");
    }
    assert_none(&files.iter().flat_map(|(file, text)| wrong_uses(file, text)).collect::<Vec<_>>());
}

#[test]
fn decision_code_is_pure() {
    let files = core_files();
    let pure = files.iter().filter(|(file, _)| PURE.iter().any(|place| file.starts_with(place)));
    assert_none(&pure.flat_map(|(file, text)| impure(file, text)).collect::<Vec<_>>());
}

#[test]
fn domain_and_engine_do_not_panic() {
    let files = core_files();
    let guarded = files.iter().filter(|(file, _)| NO_PANIC.iter().any(|place| file.starts_with(place)));
    assert_none(&guarded.flat_map(|(file, text)| panics(file, text)).collect::<Vec<_>>());
}

#[test]
fn every_file_states_its_subject() {
    let files = workspace_files();
    let silent = files.iter().filter(|(_, text)| !states_its_subject(text));
    assert_none(
        &silent.map(|(file, _)| format!("{file}:1: no `//!` line states the subject")).collect::<Vec<_>>(),
    );
}

#[test]
fn the_core_without_features_compiles_no_cloud_crate() {
    assert_eq!(external_crates(""), Vec::<String>::new());
    let all = external_crates("cloud");
    for name in ["aws-sdk-dynamodb", "aws-sdk-s3", "aws-sdk-secretsmanager", "kube", "sqlx"] {
        assert!(all.iter().any(|known| known == name), "{name} is not among {all:?}");
    }
}

#[test]
fn layering_violations_are_found() {
    let count_wrong_uses = |file, text| wrong_uses(file, text).len();
    assert_eq!(count_wrong_uses("domain/site.rs", "use crate::ports::CallContext;"), 1);
    assert_eq!(count_wrong_uses("domain/site.rs", "use super::super::ports::CallContext;"), 1);
    assert_eq!(count_wrong_uses("domain/mod.rs", "use super::engine::Lease;"), 1);
    assert_eq!(count_wrong_uses("ports/store.rs", "fn f(x: crate::manager::Request) {}"), 1);
    assert_eq!(count_wrong_uses("engine/plan.rs", "use crate::{domain::Site, manager::Manager};"), 1);
    assert_eq!(
        count_wrong_uses("pipelines/rollout/owner.rs", "use super::super::super::manager::Manager;"),
        1
    );
    assert_eq!(count_wrong_uses("cellar/mod.rs", ""), 1);
    assert_eq!(
        wrong_uses("engine/plan.rs", "\nuse crate::pipelines::NewRollout;")[0],
        "engine/plan.rs:2: `engine` must not use `pipelines`"
    );

    assert_eq!(count_wrong_uses("domain/site.rs", "use super::fence::Fence;"), 0);
    assert_eq!(count_wrong_uses("domain/site.rs", "// use crate::ports::CallContext;"), 0);
    assert_eq!(count_wrong_uses("domain/site.rs", "let text = \"crate::ports::CallContext\";"), 0);
    assert_eq!(count_wrong_uses("domain/site.rs", "if crate::bug!(NameNotUid) {}"), 0);
    assert_eq!(count_wrong_uses("pipelines/rollout/owner.rs", "use super::super::route::point;"), 0);
    assert_eq!(count_wrong_uses("manager/sites.rs", "use crate::pipelines::NewRollout;"), 0);
}

#[test]
fn impure_code_and_panics_are_found() {
    assert_eq!(impure("domain/x.rs", "async fn f() {}\nlet now = SystemTime::now();").len(), 2);
    assert_eq!(impure("domain/x.rs", "//! async\nlet strand = operand(\"tracing\");").len(), 0);

    assert_eq!(panics("engine/x.rs", "let a = b.unwrap();\nlet c = d.expect(\"e\");").len(), 2);
    assert_eq!(panics("engine/x.rs", "let a = b.unwrap_or_default();\n#[expect(dead_code)]").len(), 0);
    assert_eq!(
        panics("engine/x.rs", "fn f() {}\n#[cfg(test)]\nmod tests { fn g() { h().unwrap(); } }").len(),
        0
    );

    assert!(!states_its_subject("use std::fs;"));
    assert!(!states_its_subject("//! ."));
    assert!(states_its_subject("//! What this is."));
}
