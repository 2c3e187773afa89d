//! File system operations that several embedded adapters use.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Flushes the entries of a directory to disk. A directory that no longer exists needs no flush.
pub(super) fn sync(dir: &Path) -> io::Result<()> {
    match OpenOptions::new().read(true).open(dir) {
        Ok(dir) => dir.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Flushes the entries of the path's parent directory to disk.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync(Path::new(".")),
        Some(parent) => sync(parent),
        None => Ok(()),
    }
}

/// Creates a directory with access for its owner only, if it is missing.
pub(super) fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Checks that a file can be written in the directory. The file is always a new one: no existing file is written, and
/// no link is followed.
pub(super) fn check_writable(dir: &Path) -> io::Result<()> {
    /// Other processes may create and remove the same file concurrently.
    const MAX_ATTEMPTS: usize = 8;
    let path = dir.join(".ready");
    let mut created = create_new(&path);
    for _ in 0..MAX_ATTEMPTS {
        match created {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                remove(&path)?;
                created = create_new(&path);
            }
            Ok(_) | Err(_) => break,
        }
    }
    let written = created?.write_all(b"ready\n");
    remove(&path).and(written)
}

fn create_new(path: &Path) -> io::Result<fs::File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Runs blocking file operations on the thread pool for blocking work.
pub(super) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test is about the content of files")]
    fn a_planted_link_is_replaced_and_not_followed() {
        let dir = tempfile::TempDir::new().unwrap();
        let dir = dir.path();
        let (target, planted) = (dir.join("target"), dir.join(".ready"));
        fs::write(&target, "precious").unwrap();
        for path in [&target, &dir.join("nowhere")] {
            symlink(path, &planted).unwrap();
            check_writable(dir).unwrap();
            assert!(fs::symlink_metadata(&planted).is_err(), "the file is removed");
        }
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
        assert!(!dir.join("nowhere").exists());
    }
}
