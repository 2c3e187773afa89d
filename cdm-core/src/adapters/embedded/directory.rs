//! The data directory: created with access for its owner only, or restricted to its owner if it exists.

use std::fs::{self, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::geteuid;

use super::fs::private_dir;

/// All entries of a data directory except `key`, whose mode is checked when it is read.
const ENTRIES: [&str; 8] = [
    "cdm.db",
    "cdm.db-wal",
    "cdm.db-shm",
    "cdm.db-journal",
    "cluster.lock",
    "workers",
    "objects",
    "databases",
];
/// Other entries that may exist in a data directory and are not foreign data.
const OTHER_ENTRIES: [&str; 2] = ["key", "lost+found"];
/// The permission bits of group and others.
const OTHERS: u32 = 0o077;

/// Why a directory cannot be used as the data directory.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The directory or one of its entries belongs to another user, who could read or replace CDM's data.
    #[error(
        "`{}` belongs to another user (uid {owner}, this process has uid {own}); change its owner (`chown -R {own}`), \
         or configure another directory (CDM_DATA_DIR)",
        path.display()
    )]
    Foreign {
        /// The path of the directory or entry.
        path: PathBuf,
        /// The uid of its owner.
        owner: u32,
        /// The uid of this process.
        own: u32,
    },
    /// The directory cannot be created or opened.
    #[error("`{}` cannot be created or opened", path.display())]
    Io {
        /// The data directory, or a file in it.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
}

/// Creates the directory if it is missing, and ensures that only its owner can access CDM's data in it.
///
/// If other users may access a directory of this user, their access is removed, with a warning. If the directory also
/// has entries that are not CDM's, the access to CDM's entries only is removed. A directory of `root` is used
/// unchanged, with a warning: Kubernetes mounts volumes this way, and only root may change their mode.
///
/// # Errors
/// [`DirectoryError::Foreign`] when the directory or an entry belongs to a user other than this one and root.
pub fn own_directory(path: &Path) -> Result<(), DirectoryError> {
    let failed = |source| DirectoryError::Io { path: path.to_owned(), source };
    private_dir(path).map_err(failed)?;
    let dir = OpenOptions::new().read(true).open(path).map_err(failed)?;
    let metadata = dir.metadata().map_err(failed)?;
    let own = geteuid().as_raw();
    let shown = path.display();
    check_owner(path, &metadata, own)?;
    for entry in ENTRIES.map(|name| path.join(name)) {
        match fs::symlink_metadata(&entry) {
            Ok(metadata) => {
                check_owner(&entry, &metadata, own)?;
                close_entry(&entry, &metadata, own).map_err(failed)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS == 0 {
        return Ok(());
    }
    if metadata.uid() != own {
        tracing::warn!(
            "`{shown}` belongs to root, and other users may access it (mode {mode:04o}); CDM's data in it is \
             accessible only to this user"
        );
    } else if let Some(other) = foreign_entry(path).map_err(failed)? {
        tracing::warn!(
            "other users may access `{shown}` (mode {mode:04o}); the mode was not changed, because the directory \
             also has `{other}`; CDM's data in it is accessible only to this user; configure a directory that only \
             CDM uses (CDM_DATA_DIR)"
        );
    } else {
        match dir.set_permissions(Permissions::from_mode(0o700)) {
            Ok(()) => tracing::warn!(
                "other users could access `{shown}` (mode {mode:04o}); their access was removed"
            ),
            Err(error) => tracing::warn!(
                %error,
                "other users may access `{shown}` (mode {mode:04o}), and the mode cannot be changed; \
                 CDM's data in it is accessible only to this user"
            ),
        }
    }
    Ok(())
}

/// Rejects a file or directory that belongs neither to this user nor to root.
fn check_owner(path: &Path, metadata: &Metadata, own: u32) -> Result<(), DirectoryError> {
    let owner = metadata.uid();
    if owner == own || owner == 0 {
        return Ok(());
    }
    Err(DirectoryError::Foreign { path: path.to_owned(), owner, own })
}

/// Restricts a file or directory that an earlier version created with access for other users. Does not follow links.
fn close_entry(path: &Path, metadata: &Metadata, own: u32) -> io::Result<()> {
    let is_file_or_dir = metadata.is_file() || metadata.is_dir();
    if !is_file_or_dir || metadata.uid() != own || metadata.mode() & OTHERS == 0 {
        return Ok(());
    }
    let no_follow = i32::from_ne_bytes(OFlags::NOFOLLOW.bits().to_ne_bytes());
    let entry = OpenOptions::new().read(true).custom_flags(no_follow).open(path)?;
    entry.set_permissions(Permissions::from_mode(metadata.mode() & 0o7700))
}

/// Returns an entry of the directory that is not CDM's; `None` if all its entries are.
fn foreign_entry(path: &Path) -> io::Result<Option<String>> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !ENTRIES.contains(&&*name) && !OTHER_ENTRIES.contains(&&*name) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}
