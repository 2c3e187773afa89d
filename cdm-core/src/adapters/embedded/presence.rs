//! Which workers of this machine are alive: each process holds the lock of a file that is named by its worker, and the
//! system lets go of it when the process ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::disk::private_dir;
use crate::domain::WorkerId;

/// The folder of locks, and the lock of this process; clones share it.
#[derive(Clone, Debug)]
pub struct Presence {
    dir: Arc<Path>,
    own: Arc<Mutex<Option<File>>>,
}

impl Presence {
    /// Makes and locks the file of `worker` in `dir`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn open(dir: &Path, worker: &WorkerId) -> std::io::Result<Self> {
        private_dir(dir)?;
        let own = OpenOptions::new().create(true).append(true).mode(0o600).open(file(dir, worker))?;
        // Someone who looks whether this worker has ended holds it for a moment at most.
        own.lock()?;
        Ok(Self { dir: dir.into(), own: Arc::new(Mutex::new(Some(own))) })
    }

    /// Whether some process of this machine has a worker in `dir`.
    pub fn any(dir: &Path) -> bool {
        let Ok(entries) = std::fs::read_dir(dir) else { return false };
        let files = entries.flatten().map(|entry| entry.path());
        files.filter(|path| path.to_string_lossy().ends_with(SUFFIX)).any(|path| !unlocked(&path))
    }

    /// Whether a worker's process has ended for certain. Of a worker that has no file, nothing is known.
    pub(super) fn has_ended(&self, worker: &WorkerId) -> bool {
        unlocked(&file(&self.dir, worker))
    }

    /// Every worker whose process has ended.
    pub(super) fn ended(&self) -> Vec<WorkerId> {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let workers = names.filter_map(|name| name.strip_suffix(SUFFIX).map(WorkerId::new));
        workers.filter(|worker| self.has_ended(worker)).collect()
    }

    /// Removes the files of workers that have ended, once nobody asks for them any more.
    pub(super) fn forget(&self, ended: &[WorkerId]) {
        for worker in ended {
            // What stays behind is looked at, and removed, the next time.
            let _ = std::fs::remove_file(file(&self.dir, worker));
        }
    }

    /// Lets go of this process's own lock, and removes its file.
    pub(super) fn leave(&self, worker: &WorkerId) {
        let _ = std::fs::remove_file(file(&self.dir, worker));
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

const SUFFIX: &str = ".lock";

fn file(dir: &Path, worker: &WorkerId) -> PathBuf {
    dir.join(format!("{worker}{SUFFIX}"))
}

fn unlocked(path: &Path) -> bool {
    let Ok(file) = OpenOptions::new().append(true).open(path) else { return false };
    match file.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
    }
}
