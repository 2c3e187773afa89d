//! Site files in a directory: one directory per site, one file per object.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStoreExt, PutPayload};

use super::calls::{io_failed, within};
use super::disk::{blocking, private_dir, try_write};
use super::tree;
use crate::domain::{MonotonicTime, ObjectPrefix};
use crate::ports::{CallContext, Clock, ErrorKind, ObjectPage, ObjectStore, Outcome, PortError};

const PORT: &str = "objects";
/// Most keys in one page and in one delete.
const LIMIT: usize = 1_000;

/// Why the objects cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// The directory can be neither made nor written.
    #[error("`{}` can be neither made nor written; see that it is a directory of the user's own", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The directory cannot be used as a store.
    #[error("`{}` cannot be used as an object store; give the directory another path", path.display())]
    Store {
        /// The directory.
        path: PathBuf,
        /// What the store says.
        #[source]
        source: object_store::Error,
    },
}

/// Keeps site files in a directory; clones share it.
///
/// Writes go through `object_store`, which publishes a file whole and on the disk. Listing and deleting do not: its
/// listing has no order, hides unfinished uploads and follows links out of the directory. An empty directory counts as
/// a key with a closing slash, so that it is found and deleted like everything else of a site.
#[derive(Clone)]
pub struct EmbeddedObjects {
    dir: Arc<Path>,
    store: Arc<LocalFileSystem>,
    clock: Arc<dyn Clock>,
}

impl EmbeddedObjects {
    /// Opens the directory, and makes it where it is missing. Deadlines are measured with `clock`.
    ///
    /// # Errors
    /// When the directory can be neither made nor written.
    pub async fn open(dir: &Path, clock: Arc<dyn Clock>) -> Result<Self, ObjectsError> {
        let made = dir.to_owned();
        blocking(move || private_dir(&made).and_then(|()| try_write(&made)))
            .await
            .map_err(|source| ObjectsError::Directory { path: dir.to_owned(), source })?;
        let store = LocalFileSystem::new_with_prefix(dir)
            .map_err(|source| ObjectsError::Store { path: dir.to_owned(), source })?;
        Ok(Self { dir: dir.into(), store: Arc::new(store.with_fsync(true)), clock })
    }

    /// Whether files can be written.
    ///
    /// # Errors
    /// `Unavailable` when they cannot.
    pub async fn check(&self) -> Result<(), PortError> {
        let dir = Arc::clone(&self.dir);
        blocking(move || try_write(&dir)).await.map_err(|error| failed(&error))
    }

    async fn put(&self, deadline: MonotonicTime, key: &str) -> Outcome<()> {
        let Ok(path) = ObjectPath::parse(key) else {
            return Outcome::NotApplied(error(ErrorKind::Invalid, "the marker's key is no path"));
        };
        if self.clock.monotonic() > deadline {
            return Outcome::NotApplied(error(ErrorKind::Unavailable, "the request's deadline has passed"));
        }
        match self.store.put(&path, PutPayload::default()).await {
            Ok(_) => Outcome::Applied(()),
            Err(cause) => Outcome::Unknown(unwritten(&cause)),
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
        let listed = blocking(move || tree::keys(&dir, &prefix, after.as_deref(), LIMIT + 1)).await;
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
            return Outcome::NotApplied(error(ErrorKind::Invalid, "a request has at most 1,000 keys"));
        }
        let prefix = prefix.to_string();
        if !keys.iter().all(|key| tree::inside(&prefix, key)) {
            return Outcome::NotApplied(error(ErrorKind::Invalid, "a key lies outside the prefix"));
        }
        let (dir, keys) = (Arc::clone(&self.dir), keys.to_vec());
        let work = async {
            match blocking(move || Ok(tree::remove(&dir, &prefix, keys))).await {
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

/// What a marker that was not written is to its caller. `object_store` wraps what the system says.
fn unwritten(cause: &object_store::Error) -> PortError {
    let mut below: Option<&(dyn std::error::Error + 'static)> = Some(cause);
    while let Some(error) = below {
        if let Some(cause) = error.downcast_ref::<io::Error>() {
            return io_failed(PORT, "the marker cannot be written", cause);
        }
        below = error.source();
    }
    error(ErrorKind::Unavailable, "the marker cannot be written")
}

fn failed(cause: &io::Error) -> PortError {
    match cause.kind() {
        io::ErrorKind::InvalidData => error(
            ErrorKind::Foreign,
            "a file's name is no text, so it has no key; whoever put it there has to remove it",
        ),
        _ => io_failed(PORT, "the objects' directory cannot be used", cause),
    }
}

fn error(kind: ErrorKind, message: &str) -> PortError {
    PortError::new(PORT, kind, message)
}
