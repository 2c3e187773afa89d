//! Small things about directories that more than one embedded adapter does.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Brings what was made or removed in a directory to the disk. One that is gone meanwhile has nothing to bring.
pub(super) fn sync(dir: &Path) -> io::Result<()> {
    match OpenOptions::new().read(true).open(dir) {
        Ok(dir) => dir.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Brings what was made or removed beside the path to the disk.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync(Path::new(".")),
        Some(parent) => sync(parent),
        None => Ok(()),
    }
}

/// Makes a directory for its owner alone, where it is missing.
pub(super) fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Sees whether a file can be written in the directory. The file is always a new one: nothing that stands there is
/// written to, and no link is followed.
pub(super) fn try_write(dir: &Path) -> io::Result<()> {
    /// Another process may make or remove its own in between.
    const TRIES: usize = 8;
    let path = dir.join(".ready");
    let mut made = create_new(&path);
    for _ in 0..TRIES {
        match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                remove(&path)?;
                made = create_new(&path);
            }
            Ok(_) | Err(_) => break,
        }
    }
    let written = made?.write_all(b"ready\n");
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

/// Does what waits for the disk where nobody else waits.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "what stands in the files is what this is about")]
    fn a_planted_link_is_replaced_and_not_followed() {
        let dir = tempfile::TempDir::new().unwrap();
        let dir = dir.path();
        let (target, planted) = (dir.join("target"), dir.join(".ready"));
        fs::write(&target, "precious").unwrap();
        for path in [&target, &dir.join("nowhere")] {
            symlink(path, &planted).unwrap();
            try_write(dir).unwrap();
            assert!(fs::symlink_metadata(&planted).is_err(), "nothing is left behind");
        }
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
        assert!(!dir.join("nowhere").exists());
    }
}
