//! A directory tree as keys in order. Links are keys like files, and are never followed.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::disk::sync;

/// The first `limit` keys below `prefix` after `after`, in the order of their bytes. `prefix` ends with a slash.
///
/// # Errors
/// `InvalidData` for a name that is no text; otherwise what the system says.
pub(super) fn keys(root: &Path, prefix: &str, after: Option<&str>, limit: usize) -> io::Result<Vec<String>> {
    let mut walk = Walk { root, after: after.unwrap_or_default(), limit, found: Vec::new() };
    if is_directory(root, prefix)? {
        walk.directory(prefix)?;
    }
    Ok(walk.found)
}

struct Walk<'a> {
    root: &'a Path,
    after: &'a str,
    limit: usize,
    found: Vec<String>,
}

impl Walk<'_> {
    /// Adds what is in the directory of that key. It is read once a page, whole; directories that lie before the page
    /// are not read at all.
    fn directory(&mut self, key: &str) -> io::Result<()> {
        let entries = match fs::read_dir(self.root.join(key)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut empty = true;
        // A heap sorts only as many of them as the page has room for.
        let mut names = BinaryHeap::new();
        for entry in entries {
            let entry = entry?;
            empty = false;
            let name = entry.file_name().into_string().map_err(|_| ErrorKind::InvalidData)?;
            let slash = if entry.file_type()?.is_dir() { "/" } else { "" };
            let name = format!("{key}{name}{slash}");
            if name.as_str() > self.after || (!slash.is_empty() && self.after.starts_with(&name)) {
                names.push(Reverse(name));
            }
        }
        if empty && key > self.after {
            self.found.push(key.to_owned());
        }
        while self.found.len() < self.limit {
            match names.pop() {
                Some(Reverse(name)) if name.ends_with('/') => self.directory(&name)?,
                Some(Reverse(name)) => self.found.push(name),
                None => break,
            }
        }
        Ok(())
    }
}

/// Whether `key` is a key that lies in `prefix`, also for whoever follows its parts from directory to directory.
pub(super) fn inside(prefix: &str, key: &str) -> bool {
    let Some(rest) = key.strip_prefix(prefix) else { return false };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let part = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    // The prefix itself stands for its directory while that is empty.
    (rest.is_empty() && key == prefix) || rest.split('/').all(part)
}

/// Removes keys that lie `inside` the prefix, and every directory below it that has become empty. What could not be
/// removed, with the system's words; the rest is gone from the disk.
pub(super) fn remove(root: &Path, prefix: &str, keys: Vec<String>) -> Vec<(String, String)> {
    let mut real = Real { root, known: BTreeSet::new() };
    let mut kept = Vec::new();
    let mut touched = BTreeSet::new();
    for key in keys {
        match real.remove(&key) {
            Ok(()) => drop(touched.insert(above(&key))),
            Err(error) => kept.push((key, error.kind().to_string())),
        }
    }
    // The deepest first: what stands below another directory sorts after it.
    while let Some(directory) = touched.pop_last() {
        let settled = match directory.starts_with(prefix) {
            true => real.remove_if_empty(&directory),
            false => real.sync(&directory).map(|()| false),
        };
        match settled {
            Ok(true) => drop(touched.insert(above(&directory))),
            Ok(false) => {}
            Err(error) => kept.push((directory, error.kind().to_string())),
        }
    }
    kept
}

/// The key of the directory that the key lies in.
fn above(key: &str) -> String {
    key.trim_end_matches('/').rsplit_once('/').map_or_else(String::new, |(above, _)| format!("{above}/"))
}

/// Which directories are directories all the way, and no links to elsewhere.
struct Real<'a> {
    root: &'a Path,
    known: BTreeSet<String>,
}

impl Real<'_> {
    fn remove(&mut self, key: &str) -> io::Result<()> {
        if !self.is_real(&above(key))? {
            return Ok(());
        }
        let path = self.root.join(key.trim_end_matches('/'));
        let directory = is_directory(self.root, key)?;
        let removed = match (key.ends_with('/'), directory) {
            (true, true) => fs::remove_dir(path),
            (false, false) => fs::remove_file(path),
            // The key of a directory names no file, nor a file's a directory.
            (true, false) | (false, true) => Ok(()),
        };
        match removed {
            // A directory that is not empty is no key.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                Ok(())
            }
            removed => removed,
        }
    }

    /// Whether the directory was empty, and is gone; one that is not is brought to the disk as it is.
    fn remove_if_empty(&mut self, key: &str) -> io::Result<bool> {
        if !self.is_real(key)? {
            return Ok(false);
        }
        match fs::remove_dir(self.root.join(key)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => self.sync(key).map(|()| false),
            Err(error) => Err(error),
        }
    }

    fn sync(&mut self, key: &str) -> io::Result<()> {
        if self.is_real(key)? { sync(&self.root.join(key)) } else { Ok(()) }
    }

    /// Whether every part of `key` is a directory and not a link. False where one is missing.
    fn is_real(&mut self, key: &str) -> io::Result<bool> {
        let key = key.trim_end_matches('/');
        let ends = key.match_indices('/').map(|(end, _)| end).chain([key.len()]);
        for part in ends.filter_map(|end| key.get(..end)).filter(|part| !part.is_empty()) {
            if !self.known.contains(part) {
                if !is_directory(self.root, part)? {
                    return Ok(false);
                }
                self.known.insert(part.to_owned());
            }
        }
        Ok(true)
    }
}

/// Whether there is a directory, other than by a link.
fn is_directory(root: &Path, key: &str) -> io::Result<bool> {
    match fs::symlink_metadata(root.join(key.trim_end_matches('/'))) {
        Ok(about) => Ok(about.is_dir()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}
