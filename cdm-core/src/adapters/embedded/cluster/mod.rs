//! The local cluster: two services whose pods serve HTTP, a router for hostnames, and jobs, all on one machine.
//!
//! Tables of the database file hold the desired and the last observed state. [`LocalCluster`] reads and writes only the
//! tables, in any process. One process at a time, the one that holds the lock, runs controllers that compare desired
//! and actual state and act on the difference; see [`LocalCluster::host`]. A killed process leaves nothing to clean up:
//! the next host starts pods from the tables under a new boot ID, and ignores what was observed under another boot ID.

mod cache;
mod changes;
mod commands;
mod encoding;
mod host;
mod http;
mod images;
mod install;
mod jobs;
mod ops;
mod pages;
mod pod;
mod probe;
mod router;
mod routes;
mod runner;
mod service;
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

/// How often the file is polled for the writes of other processes.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Timing and limits of the local cluster. The defaults suit a demonstration on one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalSettings {
    /// How long a pod takes to start, unless its image declares another time. Default: 400 ms. A longer time shows
    /// rollouts as slow as on a real cluster; a shorter one makes tests faster.
    pub pod_start: Duration,
    /// How long a service may make no progress before it reports a failure. Default: 5 s. A short time fails slow
    /// images, a long time delays the failure of broken ones.
    pub progress_deadline: Duration,
    /// How long a job takes before it does its work. Default: 150 ms. A longer time makes jobs visible while they run;
    /// a shorter one makes tests faster.
    pub job: Duration,
    /// The scheme of the sites' URLs, `http` or `https`. Default: `http`. Use `https` if a proxy in front of the router
    /// terminates TLS.
    pub site_scheme: String,
    /// Maximum number of connections that the router serves at a time. Default: 1,024. Above it, a new connection
    /// replaces the one that is idle the longest. More connections need more file descriptors.
    pub router_connections: usize,
}

impl Default for LocalSettings {
    fn default() -> Self {
        Self {
            pod_start: Duration::from_millis(400),
            progress_deadline: Duration::from_secs(5),
            job: Duration::from_millis(150),
            site_scheme: "http".to_owned(),
            router_connections: http::MAX_CONNECTIONS,
        }
    }
}

/// Why the local cluster cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("the tables of the local cluster cannot be created or read")]
pub struct ClusterOpenError(#[from] sqlx::Error);

/// The local cluster, accessed through its tables. Clones refer to the same cluster.
#[derive(Clone)]
pub struct LocalCluster {
    inner: Arc<Inner>,
}

/// What all clones of a handle share.
struct Inner {
    file: File,
    settings: LocalSettings,
    clock: Arc<dyn Clock>,
    /// Changes whenever something may have been written.
    change_signal: watch::Sender<u64>,
    /// The boot ID under which this handle hosts; `None` while it does not host.
    boot: Mutex<Option<String>>,
    routes: RouteTable,
    images: RwLock<Arc<Images>>,
}

impl LocalCluster {
    /// Opens the tables, creating them if they are missing. After their creation, blue is the canary, and both services
    /// run [`LocalCluster::initial_image`].
    ///
    /// # Errors
    /// When the tables cannot be created or read.
    pub async fn open(
        file: File,
        settings: LocalSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ClusterOpenError> {
        file.ensure(tables::SCHEMA).await?;
        let mut tx = file.begin().await?;
        tables::initialize(&mut tx, Self::initial_image()).await?;
        tx.commit().await?;
        let inner = Inner {
            file,
            settings,
            clock,
            change_signal: watch::Sender::new(0),
            boot: Mutex::new(None),
            routes: RouteTable::default(),
            images: RwLock::default(),
        };
        inner.reload_images().await?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns the image that both services run until another one is set.
    pub fn initial_image() -> Digest {
        let hash = hex::encode(Sha256::digest(b"cdm local cluster, initial image"));
        Digest::parse(&hash).unwrap_or_else(|error| unreachable!("a hash is a digest: {error}"))
    }

    /// Checks that the tables can be read.
    ///
    /// # Errors
    /// `Unavailable` when the tables cannot be read.
    pub async fn check(&self) -> Result<(), PortError> {
        self.inner.live_boot().await.map(drop).map_err(unavailable)
    }

    /// Returns the address of the current host's router; `None` while no process hosts the cluster.
    ///
    /// # Errors
    /// `Unavailable` when the tables cannot be read.
    pub async fn router_address(&self) -> Result<Option<SocketAddr>, PortError> {
        let hosted = self.inner.hosted().await.map_err(unavailable)?;
        Ok(hosted.and_then(|hosted| hosted.router.parse().ok()))
    }

    /// Declares the properties of an image. Pods that already run the image follow.
    ///
    /// # Errors
    /// `Unavailable` when the tables cannot be written.
    pub async fn declare(&self, digest: Digest, spec: ImageSpec) -> Result<(), PortError> {
        images::declare(&self.inner, digest, &spec).await.map_err(unavailable)
    }

    /// Returns every declared image. Other images become ready and have every theme.
    ///
    /// # Errors
    /// `Unavailable` when the tables cannot be read.
    pub async fn images(&self) -> Result<Vec<(Digest, ImageSpec)>, PortError> {
        self.inner.reload_images().await.map_err(unavailable)?;
        Ok(self.inner.images().all())
    }

    /// Reserves a hostname as if a route of another owner had it, so that no site can have it.
    ///
    /// # Errors
    /// `Foreign` when the route of a site has the hostname.
    pub async fn reserve(&self, host: &Hostname) -> Result<(), PortError> {
        let mut tx = self.inner.file.begin().await.map_err(unavailable)?;
        let free = tables::reserve(&mut tx, host).await.map_err(unavailable)?;
        tx.commit().await.map_err(unavailable)?;
        if free {
            Ok(())
        } else {
            Err(PortError::new(PORT, ErrorKind::Foreign, "the route of a site has the hostname"))
        }
    }
}

impl Inner {
    /// Wakes all tasks of this process that wait for a change.
    fn notify(&self) {
        self.change_signal.send_modify(|count| *count = count.wrapping_add(1));
    }

    async fn pause(&self, span: Duration) {
        self.clock.sleep_until(self.clock.monotonic().after(span)).await;
    }

    fn own_boot(&self) -> Option<String> {
        self.boot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_boot(&self, boot: Option<String>) {
        *self.boot.lock().unwrap_or_else(PoisonError::into_inner) = boot;
    }

    /// Returns the current host: this process, or a process that holds the lock stored in the tables.
    async fn hosted(&self) -> Result<Option<tables::Hosted>, sqlx::Error> {
        let mut reader = self.file.reader().acquire().await?;
        let Some(hosted) = tables::hosted(&mut reader).await? else { return Ok(None) };
        let here = self.own_boot().as_ref() == Some(&hosted.boot);
        Ok((here || host::is_locked(&PathBuf::from(&hosted.lock))).then_some(hosted))
    }

    async fn live_boot(&self) -> Result<Option<String>, sqlx::Error> {
        Ok(self.hosted().await?.map(|hosted| hosted.boot))
    }

    /// Returns the image that a service is to run. Its jobs use this image.
    async fn running_image(&self, color: Color) -> Result<Digest, sqlx::Error> {
        let mut reader = self.file.reader().acquire().await?;
        Ok(tables::spec(&mut reader, color).await?.digest)
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
        // The file has logged the full disk once; the calls do not repeat it.
        return PortError::new(
            PORT,
            ErrorKind::Full,
            "the tables of the local cluster cannot be written: the disk is full",
        );
    }
    tracing::warn!(%error, "the tables of the local cluster are not available");
    PortError::new(PORT, ErrorKind::Unavailable, "the tables of the local cluster are not available")
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalCluster").field("settings", &self.settings).finish_non_exhaustive()
    }
}
