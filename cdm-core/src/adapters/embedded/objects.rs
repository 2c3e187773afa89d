//! Files of sites in a directory: one directory per site, one file per object.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStoreExt, PutPayload};

use super::calls::{io_error, within};
use super::fs::{check_writable, private_dir, run_blocking};
use super::tree;
use crate::domain::{MonotonicTime, ObjectPrefix};
use crate::ports::{CallContext, Clock, ErrorKind, ObjectPage, ObjectStore, Outcome, PortError};

const PORT: &str = "objects";
/// Maximum number of keys in a page and in a delete.
const LIMIT: usize = 1_000;

/// Why the object store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// The directory cannot be created or written.
    #[error("the directory `{}` cannot be created or written; grant the user of this process access to it", path.display())]
    Directory {
        /// The path of the directory.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// The directory cannot be used as an object store.
    #[error("`{}` cannot be used as an object store; configure a directory with another path", path.display())]
    Store {
        /// The path of the directory.
        path: PathBuf,
        /// The error of the object store.
        #[source]
        source: object_store::Error,
    },
}

/// Stores the files of sites in a directory. Clones share it.
///
/// Writes use `object_store`, which makes a file visible only when it is complete and on disk. Listing and deleting do
/// not use it: its listing has no order, hides unfinished uploads, and follows links out of the directory. An empty
/// directory is listed as a key with a trailing slash, so that it is found and deleted like the files of a site.
#[derive(Clone)]
pub struct EmbeddedObjects {
    dir: Arc<Path>,
    store: Arc<LocalFileSystem>,
    clock: Arc<dyn Clock>,
}

impl EmbeddedObjects {
    /// Opens the directory, creating it if it is missing. Deadlines are measured with `clock`.
    ///
    /// # Errors
    /// When the directory cannot be created or written.
    pub async fn open(dir: &Path, clock: Arc<dyn Clock>) -> Result<Self, ObjectsError> {
        let created = dir.to_owned();
        run_blocking(move || private_dir(&created).and_then(|()| check_writable(&created)))
            .await
            .map_err(|source| ObjectsError::Directory { path: dir.to_owned(), source })?;
        let store = LocalFileSystem::new_with_prefix(dir)
            .map_err(|source| ObjectsError::Store { path: dir.to_owned(), source })?;
        Ok(Self { dir: dir.into(), store: Arc::new(store.with_fsync(true)), clock })
    }

    /// Checks that files can be written.
    ///
    /// # Errors
    /// `Unavailable` when files cannot be written.
    pub async fn check(&self) -> Result<(), PortError> {
        let dir = Arc::clone(&self.dir);
        run_blocking(move || check_writable(&dir)).await.map_err(|error| failed(&error))
    }

    async fn put(&self, deadline: MonotonicTime, key: &str) -> Outcome<()> {
        let Ok(path) = ObjectPath::parse(key) else {
            return Outcome::NotApplied(error(
                ErrorKind::Invalid,
                "the key of the marker is not a valid path",
            ));
        };
        if self.clock.monotonic() > deadline {
            return Outcome::NotApplied(error(
                ErrorKind::Unavailable,
                "the deadline passed before the request was sent",
            ));
        }
        match self.store.put(&path, PutPayload::default()).await {
            Ok(_) => Outcome::Applied(()),
            Err(cause) => Outcome::Unknown(marker_error(&cause)),
        }
    }
}

#[async_trait]
impl ObjectStore for EmbeddedObjects {
    async fn put_marker(&self, call: &CallContext, prefix: &ObjectPrefix) -> Outcome<()> {
        within(&*self.clock, call.deadline, PORT, self.put(call.deadline, &prefix.marker())).await
    }

    async fn page(&self, prefix: &ObjectPrefix, after: Option<&str>) -> Result<ObjectPage, PortError> {
        let (dir, prefix, after) = (Arc::clone(&self.dir), prefix.to_string(), after.map(str::to_owned));
        let listed = run_blocking(move || tree::keys(&dir, &prefix, after.as_deref(), LIMIT + 1)).await;
        let mut keys = listed.map_err(|error| failed(&error))?;
        let more = keys.len() > LIMIT;
        keys.truncate(LIMIT);
        Ok(ObjectPage { keys, more })
    }

    async fn delete(
        &self,
        call: &CallContext,
        prefix: &ObjectPrefix,
        keys: &[String],
    ) -> Outcome<Vec<(String, String)>> {
        if keys.len() > LIMIT {
            return Outcome::NotApplied(error(ErrorKind::Invalid, "a request must have at most 1,000 keys"));
        }
        let prefix = prefix.to_string();
        if !keys.iter().all(|key| tree::is_inside(&prefix, key)) {
            return Outcome::NotApplied(error(ErrorKind::Invalid, "a key is outside the prefix"));
        }
        let (dir, keys) = (Arc::clone(&self.dir), keys.to_vec());
        let work = async {
            match run_blocking(move || Ok(tree::remove(&dir, &prefix, keys))).await {
                Ok(kept) => Outcome::Applied(kept),
                Err(error) => Outcome::Unknown(failed(&error)),
            }
        };
        within(&*self.clock, call.deadline, PORT, work).await
    }
}

impl fmt::Debug for EmbeddedObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedObjects").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// Returns the error of a failed write of a marker. `object_store` wraps the error of the system.
fn marker_error(cause: &object_store::Error) -> PortError {
    let mut below: Option<&(dyn std::error::Error + 'static)> = Some(cause);
    while let Some(error) = below {
        if let Some(cause) = error.downcast_ref::<io::Error>() {
            return io_error(PORT, "the marker cannot be written", cause);
        }
        below = error.source();
    }
    error(ErrorKind::Unavailable, "the marker cannot be written")
}

fn failed(cause: &io::Error) -> PortError {
    match cause.kind() {
        io::ErrorKind::InvalidData => error(
            ErrorKind::Foreign,
            "a file has a name that is not valid UTF-8, so it has no key; remove or rename the file",
        ),
        _ => io_error(PORT, "the directory of the objects cannot be used", cause),
    }
}

fn error(kind: ErrorKind, message: &str) -> PortError {
    PortError::new(PORT, kind, message)
}
