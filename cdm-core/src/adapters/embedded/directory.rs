//! The data directory: made for its owner alone, or made so where it exists.

use std::fs::{self, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::geteuid;

use super::disk::private_dir;

/// Everything that stands in a data directory, but for `key`, whose mode is judged where it is read.
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
/// What else may stand there without being anybody's data.
const KNOWN: [&str; 2] = ["key", "lost+found"];
/// The permissions of everyone but the owner.
const OTHERS: u32 = 0o077;

/// Why a directory is not used for data.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The directory, or something in it, is another user's, who could read or replace what CDM keeps.
    #[error(
        "`{}` belongs to another user (uid {owner}, this process has uid {own}); give it to this one (`chown -R {own}`), \
         or name another directory (CDM_DATA_DIR)",
        path.display()
    )]
    Foreign {
        /// What.
        path: PathBuf,
        /// Whose.
        owner: u32,
        /// Who this process is.
        own: u32,
    },
    /// It can be neither made nor entered.
    #[error("`{}` can be neither made nor entered", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Makes the directory where it is missing, and sees that only its owner gets at what CDM keeps in it.
///
/// A directory of this user that others may enter is closed to them, with a warning, unless it holds other things than
/// CDM's; then its own files alone are closed. A directory of `root` is used as it is, with a warning: that is how a
/// volume of Kubernetes is mounted, whose mode only root may change.
///
/// # Errors
/// [`DirectoryError::Foreign`] for what belongs to a third user.
pub fn own_directory(path: &Path) -> Result<(), DirectoryError> {
    let failed = |source| DirectoryError::Io { path: path.to_owned(), source };
    private_dir(path).map_err(failed)?;
    let dir = OpenOptions::new().read(true).open(path).map_err(failed)?;
    let about = dir.metadata().map_err(failed)?;
    let own = geteuid().as_raw();
    let shown = path.display();
    check_owner(path, &about, own)?;
    for entry in ENTRIES.map(|name| path.join(name)) {
        match fs::symlink_metadata(&entry) {
            Ok(about) => {
                check_owner(&entry, &about, own)?;
                close_entry(&entry, &about, own).map_err(failed)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let mode = about.mode() & 0o7777;
    if mode & OTHERS == 0 {
        return Ok(());
    }
    if about.uid() != own {
        tracing::warn!(
            "`{shown}` belongs to root and others may enter it (mode {mode:04o}); what is kept in it is closed to them"
        );
    } else if let Some(other) = foreign_entry(path).map_err(failed)? {
        tracing::warn!(
            "others may enter `{shown}` (mode {mode:04o}), and it is left so, since it also holds `{other}`; what CDM \
             keeps in it is closed to them; better name a directory of its own (CDM_DATA_DIR)"
        );
    } else {
        match dir.set_permissions(Permissions::from_mode(0o700)) {
            Ok(()) => tracing::warn!(
                "`{shown}` could be entered by others (mode {mode:04o}); it is closed to them now"
            ),
            Err(error) => tracing::warn!(
                %error,
                "`{shown}` may be entered by others (mode {mode:04o}) and cannot be closed; what is kept in it is"
            ),
        }
    }
    Ok(())
}

/// Refuses what belongs neither to this user nor to root.
fn check_owner(path: &Path, about: &Metadata, own: u32) -> Result<(), DirectoryError> {
    let owner = about.uid();
    if owner == own || owner == 0 {
        return Ok(());
    }
    Err(DirectoryError::Foreign { path: path.to_owned(), owner, own })
}

/// Closes a file or directory that an earlier version made for more than its owner. A link is not followed.
fn close_entry(path: &Path, about: &Metadata, own: u32) -> io::Result<()> {
    let kept = about.is_file() || about.is_dir();
    if !kept || about.uid() != own || about.mode() & OTHERS == 0 {
        return Ok(());
    }
    let no_link = i32::from_ne_bytes(OFlags::NOFOLLOW.bits().to_ne_bytes());
    let entry = OpenOptions::new().read(true).custom_flags(no_link).open(path)?;
    entry.set_permissions(Permissions::from_mode(about.mode() & 0o7700))
}

/// Something in the directory that is not CDM's.
fn foreign_entry(path: &Path) -> io::Result<Option<String>> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !ENTRIES.contains(&&*name) && !KNOWN.contains(&&*name) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}
