//! Liveness of the workers on this machine: each process locks a file named after its worker. The operating system
//! releases the lock when the process ends, for any reason.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::fs::private_dir;
use crate::domain::WorkerId;

/// The directory of locks, and the lock of this process. Clones share the lock.
#[derive(Clone, Debug)]
pub struct LivenessLock {
    dir: Arc<Path>,
    own: Arc<Mutex<Option<File>>>,
}

impl LivenessLock {
    /// Creates and locks the file of `worker` in `dir`.
    ///
    /// # Errors
    /// When the file cannot be created or locked.
    pub fn open(dir: &Path, worker: &WorkerId) -> std::io::Result<Self> {
        private_dir(dir)?;
        let own = OpenOptions::new().create(true).append(true).mode(0o600).open(file(dir, worker))?;
        // A process that tests whether this worker has ended holds the lock only for a moment.
        own.lock()?;
        Ok(Self { dir: dir.into(), own: Arc::new(Mutex::new(Some(own))) })
    }

    /// Returns whether any process on this machine has a live worker in `dir`.
    pub fn any(dir: &Path) -> bool {
        let Ok(entries) = std::fs::read_dir(dir) else { return false };
        let files = entries.flatten().map(|entry| entry.path());
        files.filter(|path| path.to_string_lossy().ends_with(SUFFIX)).any(|path| !is_unlocked(&path))
    }

    /// Returns whether a worker's process has certainly ended. Without a file, the state of a worker is unknown, and
    /// the result is `false`.
    pub(super) fn has_ended(&self, worker: &WorkerId) -> bool {
        is_unlocked(&file(&self.dir, worker))
    }

    /// Returns the workers whose processes have ended.
    pub(super) fn ended(&self) -> Vec<WorkerId> {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let workers = names.filter_map(|name| name.strip_suffix(SUFFIX).map(WorkerId::new));
        workers.filter(|worker| self.has_ended(worker)).collect()
    }

    /// Removes the files of ended workers, once they are not needed any more.
    pub(super) fn remove_files(&self, ended: &[WorkerId]) {
        for worker in ended {
            // A file that could not be removed is found again the next time.
            let _ = std::fs::remove_file(file(&self.dir, worker));
        }
    }

    /// Releases the lock of this process, and removes its file.
    pub(super) fn release(&self, worker: &WorkerId) {
        let _ = std::fs::remove_file(file(&self.dir, worker));
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

const SUFFIX: &str = ".lock";

fn file(dir: &Path, worker: &WorkerId) -> PathBuf {
    dir.join(format!("{worker}{SUFFIX}"))
}

fn is_unlocked(path: &Path) -> bool {
    let Ok(file) = OpenOptions::new().append(true).open(path) else { return false };
    match file.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
    }
}
