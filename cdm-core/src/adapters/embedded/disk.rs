//! Small things about directories that more than one embedded adapter does.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
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

/// Sees whether a file can be written in the directory.
pub(super) fn try_write(dir: &Path) -> io::Result<()> {
    let path = dir.join(".ready");
    OpenOptions::new().write(true).create(true).truncate(true).open(&path)?.write_all(b"ready\n")?;
    match fs::remove_file(&path) {
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
