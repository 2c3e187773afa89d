//! Import cycles between the files of each crate.
//!
//! A file imports another one if a path in it, in a `use` or in code, leads to an item of the other file; re-exports are
//! followed. A module and its submodules are one unit, so paths from a file to its submodules are not counted, while paths
//! from a submodule to its parent are.

use std::collections::{BTreeMap, BTreeSet};

use super::{code, without_tests};

/// The path of a module in its crate; empty for the root.
type Module = Vec<String>;

/// The known cycles: the crate, and the files below its `src`. `ARCHITECTURE.md` has the reason for each.
const KNOWN: &[(&str, &[&str])] = &[
    ("cdm-cli", &["args/platform.rs", "args/rollout.rs"]),
    (
        "cdm-core",
        &[
            "adapters/embedded/cluster/host.rs",
            "adapters/embedded/cluster/jobs.rs",
            "adapters/embedded/cluster/pages.rs",
            "adapters/embedded/cluster/pod.rs",
            "adapters/embedded/cluster/router.rs",
            "adapters/embedded/cluster/runner.rs",
            "adapters/embedded/cluster/service.rs",
        ],
    ),
    ("cdm-core", &["adapters/mysql/privileges.rs", "adapters/mysql/site.rs"]),
    ("cdm-core", &["adapters/records/operations.rs", "adapters/records/rollouts.rs"]),
    ("cdm-core", &["domain/freeze.rs", "domain/service.rs"]),
    ("cdm-core", &["engine/pipeline.rs", "engine/record.rs"]),
    ("cdm-core", &["wiring/backends.rs", "wiring/cloud.rs", "wiring/embedded.rs", "wiring/readiness.rs"]),
    ("cdm-testkit", &["kubernetes/controllers/mod.rs", "kubernetes/state.rs", "kubernetes/watches.rs"]),
];

/// A file of a crate.
struct Source {
    path: String,
    /// The text without comments, string literals and tests.
    code: String,
    /// Re-exported names, with the paths that they stand for.
    exports: BTreeMap<String, Vec<String>>,
    /// The paths of re-exported modules, all of whose names are re-exported.
    globs: Vec<Vec<String>>,
}

/// The files of a crate, by module.
struct Sources(BTreeMap<Module, Source>);

fn segments(path: &str) -> Vec<String> {
    path.split("::").map(|segment| segment.trim().to_owned()).filter(|segment| !segment.is_empty()).collect()
}

/// Expands the groups of a `use` declaration.
fn expand(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((prefix, group)) = tree.split_once('{') else { return vec![tree.to_owned()] };
    let group = group.trim_end().strip_suffix('}').unwrap_or(group);
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for character in group.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().expect("a part").push(character);
    }
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| expand(&format!("{prefix}{}", part.trim()))).collect()
}

/// Returns the declarations that begin with `use`, each with the text before it on its line, and the remaining text.
fn split_uses(code: &str) -> (Vec<(String, String)>, String) {
    let (mut uses, mut remaining, mut declaration) = (Vec::new(), String::new(), None::<(String, String)>);
    for line in code.lines() {
        if let Some((_, tree)) = &mut declaration {
            tree.push_str(line);
        } else {
            let (before, tree) = match line.trim_start().strip_prefix("use ") {
                Some(tree) => ("", tree),
                None => match line.split_once(" use ") {
                    Some((before, tree)) if before.trim_start().starts_with("pub") => (before, tree),
                    _ => {
                        remaining.push_str(line);
                        remaining.push('\n');
                        continue;
                    }
                },
            };
            declaration = Some((before.to_owned(), tree.to_owned()));
        }
        if let Some((before, tree)) = declaration.take_if(|(_, tree)| tree.contains(';')) {
            uses.push((before, tree.split(';').next().unwrap_or_default().to_owned()));
        }
    }
    (uses, remaining)
}

impl Source {
    fn parse(path: &str, text: &str) -> Self {
        let code: String = code(without_tests(text)).map(|(_, line)| line + "\n").collect();
        let (mut exports, mut globs) = (BTreeMap::new(), Vec::new());
        let public = split_uses(&code).0.into_iter().filter(|(before, _)| !before.is_empty());
        for path in public.flat_map(|(_, tree)| expand(&tree)) {
            let (path, name) = path.split_once(" as ").map_or((path.as_str(), None), |(p, n)| (p, Some(n)));
            let mut path = segments(path);
            match path.last().map(String::as_str) {
                Some("*") => {
                    path.pop();
                    globs.push(path);
                }
                Some("self") => drop(path.pop()),
                Some(last) => drop(exports.insert(name.unwrap_or(last).trim().to_owned(), path)),
                None => {}
            }
        }
        Self { path: path.to_owned(), code, exports, globs }
    }

    /// Returns every path that could lead to another file.
    fn paths(&self) -> Vec<Vec<String>> {
        let (uses, remaining) = split_uses(&self.code);
        let declared = uses.into_iter().flat_map(|(_, tree)| expand(&tree));
        let declared = declared.map(|path| path.split(" as ").next().unwrap_or_default().to_owned());
        let part = |character: char| character.is_alphanumeric() || character == '_' || character == ':';
        let words = remaining.split(|character| !part(character)).filter(|word| word.contains("::"));
        let all = declared.chain(words.map(str::to_owned)).map(|path| segments(&path));
        let without_end = all.map(|mut path| {
            path.pop_if(|last| last == "*" || last == "self");
            path
        });
        without_end.filter(|path| !path.is_empty()).collect()
    }

    fn defines(&self, name: &str) -> bool {
        const KEYWORDS: [&str; 8] =
            ["const", "enum", "fn", "macro_rules", "static", "struct", "trait", "type"];
        let words: Vec<&str> =
            self.code.split(|character: char| !character.is_alphanumeric() && character != '_').collect();
        words.windows(2).any(|pair| KEYWORDS.contains(&pair[0]) && pair[1] == name)
    }
}

impl Sources {
    fn new(files: &[(String, String)]) -> Self {
        let module_of = |path: &str| {
            let path = path.trim_end_matches(".rs");
            let path = path.strip_suffix("/mod").unwrap_or(path);
            let path = if path == "lib" { "" } else { path };
            path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Module>()
        };
        // A program imports its library only.
        let files = files.iter().filter(|(path, _)| path != "main.rs");
        Self(files.map(|(path, text)| (module_of(path), Source::parse(path, text))).collect())
    }

    /// Returns the module at which a path begins, and the number of segments that lead to it; `None` for other crates.
    fn start(&self, module: &Module, path: &[String]) -> Option<(Module, usize)> {
        match path.first()?.as_str() {
            "crate" => Some((Module::new(), 1)),
            "self" => Some((module.clone(), 1)),
            "super" => {
                let up = path.iter().take_while(|segment| *segment == "super").count();
                Some((module.get(..module.len().checked_sub(up)?)?.to_vec(), up))
            }
            first => {
                let child = [module.as_slice(), &[first.to_owned()]].concat();
                self.0.contains_key(&child).then(|| (module.clone(), 0))
            }
        }
    }

    /// Returns the module that defines the item at a path.
    fn resolve(&self, from: &Module, path: &[String], depth: usize) -> Option<Module> {
        let (mut module, mut at) = self.start(from, path)?;
        if depth > 12 {
            return None;
        }
        while let Some(segment) = path.get(at) {
            let child = [module.as_slice(), std::slice::from_ref(segment)].concat();
            if self.0.contains_key(&child) {
                module = child;
                at += 1;
                continue;
            }
            let source = self.0.get(&module)?;
            if let Some(export) = source.exports.get(segment) {
                let path = [export.as_slice(), &path[at + 1..]].concat();
                return Some(self.resolve(&module, &path, depth + 1).unwrap_or(module));
            }
            let of_glob = source.globs.iter().find_map(|glob| {
                let target = self.resolve(&module, glob, depth + 1)?;
                let has_name = self
                    .0
                    .get(&target)
                    .is_some_and(|source| source.defines(segment) || source.exports.contains_key(segment));
                let path = [&["self".to_owned()], &path[at..]].concat();
                (has_name && target != module).then(|| self.resolve(&target, &path, depth + 1))?
            });
            return Some(of_glob.unwrap_or(module));
        }
        Some(module)
    }

    /// Returns the modules that each module imports.
    fn imports(&self) -> BTreeMap<&Module, BTreeSet<Module>> {
        let imported = |(module, source): (&Module, &Source)| {
            let paths = source.paths();
            let all = paths.iter().filter_map(|path| self.resolve(module, path, 0));
            all.filter(|target| !target.starts_with(module)).collect()
        };
        self.0.iter().map(|entry| (entry.0, imported(entry))).collect()
    }

    /// Returns the files of each cycle.
    fn cycles(&self) -> BTreeSet<Vec<String>> {
        let imports = self.imports();
        let reached: BTreeMap<&Module, BTreeSet<&Module>> = imports
            .keys()
            .map(|module| {
                let (mut seen, mut open) = (BTreeSet::new(), vec![*module]);
                while let Some(next) = open.pop() {
                    open.extend(imports[next].iter().filter(|target| seen.insert(*target)));
                }
                (*module, seen)
            })
            .collect();
        let cycle_of = |module: &Module| -> Vec<String> {
            let both = reached[module].iter().filter(|other| reached[**other].contains(module));
            both.map(|other| self.0[*other].path.clone()).collect()
        };
        reached.keys().map(|module| cycle_of(module)).filter(|files| files.len() > 1).collect()
    }
}

#[test]
fn only_the_known_files_import_each_other_in_a_cycle() {
    let mut found = BTreeSet::new();
    let mut crates: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for (path, text) in super::workspace_files() {
        let (name, path) = path.split_once("/src/").expect("a file below `src`");
        crates.entry(name.to_owned()).or_default().push((path.to_owned(), text));
    }
    assert_eq!(crates.len(), 5, "the crates of the workspace");
    for (name, files) in &crates {
        let cycles = Sources::new(files).cycles().into_iter();
        found.extend(cycles.map(|files| format!("{name}: {}", files.join(" "))));
    }
    let known = KNOWN.iter().map(|(name, files)| format!("{name}: {}", files.join(" ")));
    let known: BTreeSet<String> = known.collect();
    let new: Vec<&String> = found.difference(&known).collect();
    let gone: Vec<&String> = known.difference(&found).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "new cycles: {new:#?}\ncycles that no longer exist: {gone:#?}"
    );
}

#[test]
fn cycles_are_found() {
    let cycles = |files: &[(&str, &str)]| {
        let files: Vec<_> =
            files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        Sources::new(&files).cycles().into_iter().collect::<Vec<_>>()
    };
    let two =
        [("lib.rs", "mod a;\nmod b;"), ("a.rs", "use crate::b::B;"), ("b.rs", "fn f() { super::a::g() }")];
    assert_eq!(cycles(&two), [["a.rs", "b.rs"]]);
    // Through re-exports, in groups, of a submodule.
    let through = [
        ("lib.rs", "mod a;\nmod b;"),
        ("a/mod.rs", "mod c;\npub(crate) use c::{C, D as E};"),
        ("a/c.rs", "use crate::b;\npub struct C;\npub struct D;"),
        ("b.rs", "use crate::{a::{E},\n};"),
    ];
    assert_eq!(cycles(&through), [["a/c.rs", "b.rs"]]);
    let none = [
        ("lib.rs", "mod a;\nmod b;\nuse a::A;"),
        ("a/mod.rs", "mod c;\nuse c::C;\npub struct A;"),
        ("a/c.rs", "use super::A;\npub struct C;"),
        ("b.rs", "// use crate::a::A;\n#[cfg(test)]\nmod tests { use crate::a::A; }"),
    ];
    assert_eq!(cycles(&none), Vec::<Vec<String>>::new());
}
