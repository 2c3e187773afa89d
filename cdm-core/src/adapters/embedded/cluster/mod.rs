//! The local cluster: two services whose pods really answer HTTP, a router that serves hostnames, and jobs, all of it
//! on one machine.
//!
//! What shall be stands in tables of the shared file, and so does what was seen last. [`LocalCluster`] works on the
//! tables alone, in any process. One process at a time, the one that holds the lock, has controllers that compare what
//! shall be with what is and act on the difference; see [`LocalCluster::host`]. A process that is killed leaves nothing
//! to be cleaned up: the next one starts pods from the tables under a boot of its own, and what was seen under another
//! boot counts for nothing.

mod cache;
mod commands;
mod host;
mod http;
mod images;
mod install;
mod jobs;
mod news;
mod ops;
mod pages;
mod pod;
mod probe;
mod router;
mod routes;
mod runner;
mod service;
mod shapes;
mod tables;
mod tenants;

pub use host::{Host, HostError};
pub use images::{ImageSpec, Readiness};
pub use probe::LocalProbe;
pub use tenants::{TenantDatabases, Tenants};

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::File;
use super::file::is_full;
use crate::domain::{Color, Digest, Hostname};
use crate::ports::{Clock, ErrorKind, PortError};
use images::Images;
use routes::RouteTable;

const PORT: &str = "cluster";

/// How often the file is looked at for what other processes have written.
const GLANCE: Duration = Duration::from_millis(20);

/// How the local cluster behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalSettings {
    /// How long a pod takes to get ready, where its image says nothing else.
    pub pod_start: Duration,
    /// How long pods may make no progress before the service says that it has failed.
    pub progress_deadline: Duration,
    /// How long a job runs before it does what it does.
    pub job: Duration,
    /// `http` or `https`: how sites' own addresses begin.
    pub site_scheme: String,
    /// Connections that the router serves at a time.
    pub router_connections: usize,
}

impl Default for LocalSettings {
    fn default() -> Self {
        Self {
            pod_start: Duration::from_millis(400),
            progress_deadline: Duration::from_secs(5),
            job: Duration::from_millis(150),
            site_scheme: "http".to_owned(),
            router_connections: http::MOST_CONNECTIONS,
        }
    }
}

/// Why the local cluster cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("the local cluster's tables cannot be made or read")]
pub struct ClusterOpenError(#[from] sqlx::Error);

/// The local cluster, as its tables have it; clones are the same one.
#[derive(Clone)]
pub struct LocalCluster {
    inner: Arc<Inner>,
}

/// What everything of one handle shares.
struct Inner {
    file: File,
    settings: LocalSettings,
    clock: Arc<dyn Clock>,
    /// Moves whenever something may have been written.
    pulse: watch::Sender<u64>,
    /// The boot under which this very handle hosts.
    boot: Mutex<Option<String>>,
    routes: RouteTable,
    images: RwLock<Arc<Images>>,
}

impl LocalCluster {
    /// Opens the tables, and makes them where they are missing: then blue is the canary, and both services shall run
    /// [`LocalCluster::initial_image`].
    ///
    /// # Errors
    /// When the file does not take the tables.
    pub async fn open(
        file: File,
        settings: LocalSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ClusterOpenError> {
        file.ensure(tables::SCHEMA).await?;
        let mut tx = file.begin().await?;
        tables::first_state(&mut tx, Self::initial_image()).await?;
        tx.commit().await?;
        let inner = Inner {
            file,
            settings,
            clock,
            pulse: watch::Sender::new(0),
            boot: Mutex::new(None),
            routes: RouteTable::default(),
            images: RwLock::default(),
        };
        inner.reload_images().await?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The image that both services run before anything else was set.
    pub fn initial_image() -> Digest {
        let hash = Sha256::digest(b"cdm local cluster, initial image");
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Digest::parse(&hex).unwrap_or_else(|broken| unreachable!("a hash is a digest: {broken}"))
    }

    /// Whether the tables can be read.
    ///
    /// # Errors
    /// `Unavailable` when they cannot.
    pub async fn check(&self) -> Result<(), PortError> {
        self.inner.live_boot().await.map(drop).map_err(unavailable)
    }

    /// Where the router of whichever process hosts now listens; `None` while nobody does.
    ///
    /// # Errors
    /// `Unavailable` when the tables cannot be read.
    pub async fn router_address(&self) -> Result<Option<SocketAddr>, PortError> {
        let hosted = self.inner.hosted().await.map_err(unavailable)?;
        Ok(hosted.and_then(|hosted| hosted.router.parse().ok()))
    }

    /// Says how an image behaves wherever it runs, from now on; running pods of it follow.
    ///
    /// # Errors
    /// `Unavailable` when the tables do not take it.
    pub async fn declare(&self, digest: Digest, spec: ImageSpec) -> Result<(), PortError> {
        images::declare(&self.inner, digest, &spec).await.map_err(unavailable)
    }

    /// Every declared image; others are ready and have every theme.
    ///
    /// # Errors
    /// `Unavailable` when the tables cannot be read.
    pub async fn images(&self) -> Result<Vec<(Digest, ImageSpec)>, PortError> {
        self.inner.reload_images().await.map_err(unavailable)?;
        Ok(self.inner.images().all())
    }

    /// Marks a hostname as led elsewhere by a stranger's route: no site's route can have it.
    ///
    /// # Errors
    /// `Foreign` when a route has it already.
    pub async fn reserve(&self, host: &Hostname) -> Result<(), PortError> {
        let mut tx = self.inner.file.begin().await.map_err(unavailable)?;
        let free = tables::reserve(&mut tx, host).await.map_err(unavailable)?;
        tx.commit().await.map_err(unavailable)?;
        if free { Ok(()) } else { Err(PortError::new(PORT, ErrorKind::Foreign, "a route has the hostname")) }
    }
}

impl Inner {
    /// Wakes whoever waits for news in this process.
    fn tell(&self) {
        self.pulse.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Waits for `span`.
    async fn pause(&self, span: Duration) {
        self.clock.sleep_until(self.clock.monotonic().after(span)).await;
    }

    fn own_boot(&self) -> Option<String> {
        self.boot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_boot(&self, boot: Option<String>) {
        *self.boot.lock().unwrap_or_else(PoisonError::into_inner) = boot;
    }

    /// The process that hosts now: this one, or one that holds the lock which it wrote down.
    async fn hosted(&self) -> Result<Option<tables::Hosted>, sqlx::Error> {
        let mut reader = self.file.reader().acquire().await?;
        let Some(hosted) = tables::hosted(&mut reader).await? else { return Ok(None) };
        let here = self.own_boot().as_ref() == Some(&hosted.boot);
        Ok((here || host::is_locked(&PathBuf::from(&hosted.lock))).then_some(hosted))
    }

    async fn live_boot(&self) -> Result<Option<String>, sqlx::Error> {
        Ok(self.hosted().await?.map(|hosted| hosted.boot))
    }

    /// The image that a service shall run, in which its jobs run.
    async fn running_image(&self, color: Color) -> Result<Digest, sqlx::Error> {
        let mut reader = self.file.reader().acquire().await?;
        Ok(tables::wanted(&mut reader, color).await?.digest)
    }

    fn images(&self) -> Arc<Images> {
        Arc::clone(&self.images.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn reload_images(&self) -> Result<(), sqlx::Error> {
        let mut reader = self.file.reader().acquire().await?;
        let images = Arc::new(Images::load(&mut reader).await?);
        *self.images.write().unwrap_or_else(PoisonError::into_inner) = images;
        Ok(())
    }
}

impl fmt::Debug for LocalCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalCluster").field("settings", &self.inner.settings).finish_non_exhaustive()
    }
}

fn unavailable(error: sqlx::Error) -> PortError {
    if is_full(&error) {
        // The file has said so once; it is no news with every call.
        return PortError::new(
            PORT,
            ErrorKind::Full,
            "the local cluster's tables take no writes: the disk is full",
        );
    }
    tracing::warn!(%error, "the local cluster's tables do not answer");
    PortError::new(PORT, ErrorKind::Unavailable, "the local cluster's tables do not answer")
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalCluster").field("settings", &self.settings).finish_non_exhaustive()
    }
}
