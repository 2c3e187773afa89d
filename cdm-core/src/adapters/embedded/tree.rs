//! A directory tree as an ordered list of keys. Links are keys like files, and are never followed.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::fs::sync;

/// Returns the first `limit` keys below `prefix` after `after`, in byte order. `prefix` ends with a slash.
///
/// # Errors
/// `InvalidData` when a name is not valid UTF-8; otherwise the error of the system.
pub(super) fn keys(root: &Path, prefix: &str, after: Option<&str>, limit: usize) -> io::Result<Vec<String>> {
    let mut listing = Listing { root, after: after.unwrap_or_default(), limit, found: Vec::new() };
    if is_directory(root, prefix)? {
        listing.directory(prefix)?;
    }
    Ok(listing.found)
}

struct Listing<'a> {
    root: &'a Path,
    after: &'a str,
    limit: usize,
    found: Vec<String>,
}

impl Listing<'_> {
    /// Adds the keys in a directory. Each directory is read once per page; directories before the page are not read.
    fn directory(&mut self, key: &str) -> io::Result<()> {
        let entries = match fs::read_dir(self.root.join(key)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut empty = true;
        // A heap sorts only as many names as the page needs.
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

/// Returns whether `key` is a valid key inside `prefix`, which no part of the key can leave.
pub(super) fn is_inside(prefix: &str, key: &str) -> bool {
    let Some(rest) = key.strip_prefix(prefix) else { return false };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let part = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    // The prefix itself is the key of its directory while the directory is empty.
    (rest.is_empty() && key == prefix) || rest.split('/').all(part)
}

/// Removes keys inside the prefix, and every directory below the prefix that becomes empty. Returns the keys
/// that could not be removed, with the kind of the system's error; the removal of the others is flushed to disk.
pub(super) fn remove(root: &Path, prefix: &str, keys: Vec<String>) -> Vec<(String, String)> {
    let mut directories = RealDirectories { root, known: BTreeSet::new() };
    let mut failed = Vec::new();
    let mut touched = BTreeSet::new();
    for key in keys {
        match directories.remove(&key) {
            Ok(()) => drop(touched.insert(parent(&key))),
            Err(error) => failed.push((key, error.kind().to_string())),
        }
    }
    // The deepest first: a directory sorts after its parents.
    while let Some(directory) = touched.pop_last() {
        let result = match directory.starts_with(prefix) {
            true => directories.remove_if_empty(&directory),
            false => directories.sync(&directory).map(|()| false),
        };
        match result {
            Ok(true) => drop(touched.insert(parent(&directory))),
            Ok(false) => {}
            Err(error) => failed.push((directory, error.kind().to_string())),
        }
    }
    failed
}

fn parent(key: &str) -> String {
    key.trim_end_matches('/').rsplit_once('/').map_or_else(String::new, |(parent, _)| format!("{parent}/"))
}

/// Cache of the directories whose path contains no link.
struct RealDirectories<'a> {
    root: &'a Path,
    known: BTreeSet<String>,
}

impl RealDirectories<'_> {
    fn remove(&mut self, key: &str) -> io::Result<()> {
        if !self.is_real(&parent(key))? {
            return Ok(());
        }
        let path = self.root.join(key.trim_end_matches('/'));
        let directory = is_directory(self.root, key)?;
        let removed = match (key.ends_with('/'), directory) {
            (true, true) => fs::remove_dir(path),
            (false, false) => fs::remove_file(path),
            // The key of a directory never refers to a file, nor the key of a file to a directory.
            (true, false) | (false, true) => Ok(()),
        };
        match removed {
            // A directory that is not empty has no key.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                Ok(())
            }
            removed => removed,
        }
    }

    /// Removes a directory if it is empty, and returns whether it is gone. Otherwise flushes the directory to disk.
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

    /// Returns whether every part of `key` is a directory and not a link. Returns `false` if a part is missing.
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

/// Returns whether the key is a directory and not a link.
fn is_directory(root: &Path, key: &str) -> io::Result<bool> {
    match fs::symlink_metadata(root.join(key.trim_end_matches('/'))) {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}
