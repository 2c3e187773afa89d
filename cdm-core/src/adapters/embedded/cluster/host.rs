//! Hosting: the process that holds the lock runs the controllers and the router. Each run has a new boot ID.

use std::fs::{File as LockFile, OpenOptions, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::cache::Cache;
use super::http::{ActiveRequests, HttpClient};
use super::router::Endpoints;
use super::tables::{self, Hosted};
use super::tenants::Tenants;
use super::{Inner, LocalCluster, POLL_INTERVAL, http, router, runner, service};
use crate::adapters::embedded::file::is_full;
use crate::domain::Color;

/// How often a process that waits for the lock tries to acquire it.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// How long open requests may take after hosting was stopped.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Why this process cannot host the cluster.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The lock file cannot be created or opened.
    #[error("the lock `{}` cannot be opened", path.display())]
    Lock {
        /// The path of the lock file.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// The router's address is in use, or not an address of this machine.
    #[error("the router cannot listen on `{address}`; configure another address (CDM_ROUTER_LISTEN)")]
    Router {
        /// The configured address.
        address: SocketAddr,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// The tables cannot be read or written.
    #[error("the tables of the local cluster cannot be read or written")]
    File(#[from] sqlx::Error),
    /// The operating system returns no random numbers.
    #[error("the operating system returns no random numbers")]
    Chance(#[from] getrandom::Error),
}

/// A process that hosts, or waits to. Dropping it stops hosting at once, as if the process were killed.
#[derive(Debug)]
pub struct Host {
    task: JoinSet<()>,
    stop: watch::Sender<bool>,
    router: Arc<RwLock<Option<SocketAddr>>>,
}

impl Host {
    /// Returns whether this process hosts now. If not, the process takes over when the current host ends.
    pub fn is_hosting(&self) -> bool {
        self.router_address().is_some()
    }

    /// Returns the address of this process's router; `None` while another process hosts.
    pub fn router_address(&self) -> Option<SocketAddr> {
        *self.router.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops hosting as soon as no request is open, at the latest after two seconds. On return, router and pods have
    /// ended, and the lock is released.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.task.join_next().await.is_some() {}
    }
}

/// What the controllers of one boot share.
#[derive(Debug)]
pub(super) struct HostContext {
    pub(super) cluster: Arc<Inner>,
    pub(super) boot: String,
    pub(super) tenants: Tenants,
    pub(super) http: HttpClient,
    endpoints: [Endpoints; 2],
    caches: [Cache; 2],
}

impl HostContext {
    pub(super) const fn endpoints(&self, service: Color) -> &Endpoints {
        &self.endpoints[index(service)]
    }

    pub(super) const fn cache(&self, service: Color) -> &Cache {
        &self.caches[index(service)]
    }
}

const fn index(service: Color) -> usize {
    match service {
        Color::Blue => 0,
        Color::Green => 1,
    }
}

/// What only one process can have: the lock and the listener of the router.
struct HostLock {
    /// Locked while the file is open; the operating system releases the lock however the process ends.
    _lock: LockFile,
    listener: TcpListener,
    address: SocketAddr,
}

impl LocalCluster {
    /// Runs the cluster in this process, or waits to do so while another process runs it.
    ///
    /// `lock` is the same file for every process of one data directory. `router` is the address that serves the
    /// hostnames; port 0 selects any free port.
    ///
    /// # Errors
    /// When the router's address is in use, or the lock or the tables cannot be used.
    pub async fn host(&self, lock: &Path, router: SocketAddr, tenants: Tenants) -> Result<Host, HostError> {
        let address = Arc::new(RwLock::new(None));
        let (stop, stopped) = watch::channel(false);
        let host_task = HostTask {
            cluster: Arc::clone(&self.inner),
            lock: std::path::absolute(lock)
                .map_err(|source| HostError::Lock { path: lock.to_owned(), source })?,
            router,
            tenants,
            address: Arc::clone(&address),
            stopped,
        };
        let running = match host_task.try_acquire().await? {
            Some(host_lock) => match host_task.start(host_lock).await {
                Ok(running) => Some(running),
                // A process that starts while the disk is full serves reads, and hosts once there is free space.
                Err(HostError::File(error)) if is_full(&error) => None,
                Err(error) => return Err(error),
            },
            None => None,
        };
        let mut task = JoinSet::new();
        task.spawn(host_task.run(running));
        Ok(Host { task, stop, router: address })
    }
}

/// The task of one process that hosts, or waits to.
struct HostTask {
    cluster: Arc<Inner>,
    lock: PathBuf,
    router: SocketAddr,
    tenants: Tenants,
    address: Arc<RwLock<Option<SocketAddr>>>,
    stopped: watch::Receiver<bool>,
}

/// What runs while this process hosts.
struct Running {
    controllers: JoinSet<()>,
    router: JoinSet<()>,
    active: ActiveRequests,
    _guard: HostingGuard,
    _lock: LockFile,
}

/// Publishes that this process hosts, until it is dropped.
struct HostingGuard {
    cluster: Arc<Inner>,
    address: Arc<RwLock<Option<SocketAddr>>>,
}

impl Drop for HostingGuard {
    fn drop(&mut self) {
        self.cluster.set_boot(None);
        *self.address.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl HostTask {
    /// Acquires the lock and the listener; `None` while another process holds the lock.
    async fn try_acquire(&self) -> Result<Option<HostLock>, HostError> {
        let lock_error = |source| HostError::Lock { path: self.lock.clone(), source };
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let lock = options.open(&self.lock).map_err(lock_error)?;
        let mut tries = 0;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                // A process that tests the lock holds it for an instant.
                Err(TryLockError::WouldBlock) if tries < 3 => tries += 1,
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(source)) => return Err(lock_error(source)),
            }
            self.cluster.pause(Duration::from_millis(3)).await;
        }
        let router_error = |source| HostError::Router { address: self.router, source };
        let listener = TcpListener::bind(self.router).await.map_err(router_error)?;
        let address = listener.local_addr().map_err(router_error)?;
        Ok(Some(HostLock { _lock: lock, listener, address }))
    }

    /// Starts all controllers and the router with a new boot ID.
    async fn start(&self, host_lock: HostLock) -> Result<Running, HostError> {
        let HostLock { _lock: lock, listener, address } = host_lock;
        let cluster = &self.cluster;
        let boot = format!("{:016x}", getrandom::u64()?);
        let hosted =
            Hosted { boot: boot.clone(), lock: self.lock.display().to_string(), router: address.to_string() };
        let mut tx = cluster.file.begin().await?;
        tables::set_hosted(&mut tx, &hosted).await?;
        tx.commit().await?;
        cluster.set_boot(Some(boot.clone()));
        let guard = HostingGuard { cluster: Arc::clone(cluster), address: Arc::clone(&self.address) };
        // From here on, every write of this process updates the routing table; earlier writes are loaded now.
        cluster.routes.reload(&cluster.file).await?;
        cluster.reload_images().await?;
        let context = Arc::new(HostContext {
            cluster: Arc::clone(cluster),
            boot,
            tenants: self.tenants.clone(),
            http: http::client(),
            endpoints: Default::default(),
            caches: Default::default(),
        });
        let mut controllers = JoinSet::new();
        controllers.spawn(watch_file(Arc::clone(&context)));
        for color in Color::ALL {
            controllers.spawn(service::run(Arc::clone(&context), color));
        }
        controllers.spawn(runner::run(Arc::clone(&context)));
        let (active, clock) = (ActiveRequests::default(), Arc::clone(&cluster.clock));
        let handler = move |request| router::route(Arc::clone(&context), request);
        let mut router = JoinSet::new();
        let connections = cluster.settings.router_connections;
        router.spawn(http::serve((listener, connections), clock, active.clone(), handler));
        *self.address.write().unwrap_or_else(PoisonError::into_inner) = Some(address);
        cluster.notify();
        tracing::info!(%address, "this process hosts the local cluster");
        Ok(Running { controllers, router, active, _guard: guard, _lock: lock })
    }

    async fn run(self, mut running: Option<Running>) {
        let mut stopped = self.stopped.clone();
        loop {
            match running.take() {
                Some(mut now) => {
                    tokio::select! {
                        () = stop_requested(&mut stopped) => {
                            self.shut_down(now).await;
                            return;
                        }
                        // No controller ends normally. If one stops, all restart with a new boot ID.
                        ended = now.controllers.join_next() => {
                            tracing::error!(?ended, "a controller stopped unexpectedly; restarting the local cluster");
                        }
                        ended = now.router.join_next() => {
                            tracing::error!(?ended, "the router stopped unexpectedly; restarting the local cluster");
                        }
                    }
                }
                None => {
                    let next = self.cluster.clock.monotonic().after(LOCK_RETRY_INTERVAL);
                    tokio::select! {
                        () = stop_requested(&mut stopped) => return,
                        () = self.cluster.clock.sleep_until(next) => {}
                    }
                    running = match self.try_acquire().await {
                        Ok(Some(host_lock)) => match self.start(host_lock).await {
                            Ok(running) => Some(running),
                            Err(HostError::File(error)) if is_full(&error) => None,
                            Err(error) => {
                                tracing::warn!(%error, "hosting the local cluster could not start; trying again");
                                None
                            }
                        },
                        Ok(None) => None,
                        Err(error) => {
                            tracing::warn!(%error, "hosting the local cluster could not be taken over; trying again");
                            None
                        }
                    };
                }
            }
        }
    }

    /// Waits for open requests, then stops everything.
    async fn shut_down(&self, running: Running) {
        let until = self.cluster.clock.monotonic().after(SHUTDOWN_TIMEOUT);
        while !running.active.is_idle() && self.cluster.clock.monotonic() < until {
            self.cluster.pause(POLL_INTERVAL).await;
        }
        let Running { mut controllers, mut router, _guard: guard, _lock: host_lock, .. } = running;
        router.shutdown().await;
        controllers.shutdown().await;
        // The lock is released last: the next host then finds nothing of this boot running.
        drop(guard);
        drop(host_lock);
    }
}

/// Returns when hosting must stop, also when the sender is dropped.
async fn stop_requested(stopped: &mut watch::Receiver<bool>) {
    drop(stopped.wait_for(|stopped| *stopped).await);
}

/// Watches the file for the writes of other processes, and notifies the controllers.
async fn watch_file(context: Arc<HostContext>) {
    let cluster = &context.cluster;
    let mut loaded = None;
    loop {
        match cluster.file.version().await {
            Ok(version) if loaded == Some(version) => {}
            Ok(version) => match async {
                cluster.routes.reload(&cluster.file).await?;
                cluster.reload_images().await
            }
            .await
            {
                Ok(()) => {
                    loaded = Some(version);
                    cluster.notify();
                }
                Err(error) => {
                    tracing::warn!(%error, "the tables of the local cluster cannot be read at the moment")
                }
            },
            Err(error) => tracing::warn!(%error, "the database file of the local cluster is not available"),
        }
        cluster.pause(POLL_INTERVAL).await;
    }
}

/// Returns whether a process holds the lock. The test acquires a shared lock for an instant, so concurrent tests do not
/// interfere.
pub(super) fn is_locked(path: &Path) -> bool {
    let Ok(lock) = OpenOptions::new().read(true).open(path) else { return false };
    match lock.try_lock_shared() {
        Ok(()) => false,
        Err(TryLockError::WouldBlock) => true,
        Err(TryLockError::Error(error)) => {
            tracing::warn!(%error, "the lock of the local cluster could not be tested");
            false
        }
    }
}
