//! Hosting: whoever holds the lock runs the controllers and the router, under a boot of its own.

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
use super::http::{Busy, Http};
use super::router::Endpoints;
use super::tables::{self, Hosted};
use super::tenants::Tenants;
use super::{GLANCE, Inner, LocalCluster, http, router, runner, service};
use crate::adapters::embedded::file::is_full;
use crate::domain::Color;

/// How often a process that waits for the lock tries it.
const TRY: Duration = Duration::from_millis(500);
/// How long requests on their way may take when hosting stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why this process cannot host.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The lock file cannot be made.
    #[error("the lock `{}` cannot be opened", path.display())]
    Lock {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The router's address is taken, or not this machine's.
    #[error("the router cannot listen on `{address}`; name another address for it (CDM_ROUTER_LISTEN)")]
    Router {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The tables do not answer.
    #[error("the local cluster's tables do not answer")]
    File(#[from] sqlx::Error),
    /// The machine gives no random numbers.
    #[error("the machine gives no random numbers")]
    Chance(#[from] getrandom::Error),
}

/// A process that hosts, or waits to: dropped, it stops at once, as if it were killed.
#[derive(Debug)]
pub struct Host {
    task: JoinSet<()>,
    stop: watch::Sender<bool>,
    router: Arc<RwLock<Option<SocketAddr>>>,
}

impl Host {
    /// Whether this process hosts now; otherwise it takes over when the one that does ends.
    pub fn is_hosting(&self) -> bool {
        self.router_address().is_some()
    }

    /// Where this process's router listens; `None` while another process hosts.
    pub fn router_address(&self) -> Option<SocketAddr> {
        *self.router.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops hosting as soon as no request is on its way, at the latest after two seconds: then router and pods have
    /// ended, and the lock is free.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.task.join_next().await.is_some() {}
    }
}

/// What the controllers of one boot share.
#[derive(Debug)]
pub(super) struct World {
    pub(super) cluster: Arc<Inner>,
    pub(super) boot: String,
    pub(super) tenants: Tenants,
    pub(super) http: Http,
    endpoints: [Endpoints; 2],
    caches: [Cache; 2],
}

impl World {
    pub(super) const fn endpoints(&self, service: Color) -> &Endpoints {
        &self.endpoints[place(service)]
    }

    pub(super) const fn cache(&self, service: Color) -> &Cache {
        &self.caches[place(service)]
    }
}

const fn place(service: Color) -> usize {
    match service {
        Color::Blue => 0,
        Color::Green => 1,
    }
}

/// The lock and the router's listener: what only one process can have.
struct Seat {
    /// Held while it is open; the system frees it however the process ends.
    _lock: LockFile,
    listener: TcpListener,
    address: SocketAddr,
}

impl LocalCluster {
    /// Runs the cluster in this process, or waits to do so while another one does.
    ///
    /// `lock` is the same file for every process of one data directory; `router` is where hostnames are served, on any
    /// free port if its port is 0.
    ///
    /// # Errors
    /// When the router's address is taken, or the lock or the tables cannot be used.
    pub async fn host(&self, lock: &Path, router: SocketAddr, tenants: Tenants) -> Result<Host, HostError> {
        let address = Arc::new(RwLock::new(None));
        let (stop, stopped) = watch::channel(false);
        let turn = Turn {
            cluster: Arc::clone(&self.inner),
            lock: std::path::absolute(lock)
                .map_err(|source| HostError::Lock { path: lock.to_owned(), source })?,
            router,
            tenants,
            address: Arc::clone(&address),
            stopped,
        };
        let running = match turn.take_seat().await? {
            Some(seat) => match turn.begin(seat).await {
                Ok(running) => Some(running),
                // A process that starts while the disk is full serves reads, and hosts once there is space.
                Err(HostError::File(error)) if is_full(&error) => None,
                Err(error) => return Err(error),
            },
            None => None,
        };
        let mut task = JoinSet::new();
        task.spawn(turn.keep(running));
        Ok(Host { task, stop, router: address })
    }
}

/// One process's part in taking turns at hosting.
struct Turn {
    cluster: Arc<Inner>,
    lock: PathBuf,
    router: SocketAddr,
    tenants: Tenants,
    address: Arc<RwLock<Option<SocketAddr>>>,
    stopped: watch::Receiver<bool>,
}

/// Everything that runs while this process hosts.
struct Running {
    controllers: JoinSet<()>,
    router: JoinSet<()>,
    busy: Busy,
    _mark: Mark,
    _seat: LockFile,
}

/// Says that this process hosts, until it is dropped.
struct Mark {
    cluster: Arc<Inner>,
    address: Arc<RwLock<Option<SocketAddr>>>,
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.cluster.set_boot(None);
        *self.address.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Turn {
    /// `None` while another process has the lock.
    async fn take_seat(&self) -> Result<Option<Seat>, HostError> {
        let lock_error = |source| HostError::Lock { path: self.lock.clone(), source };
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let lock = options.open(&self.lock).map_err(lock_error)?;
        let mut tries = 0;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                // Whoever asks whether anyone hosts holds it for an instant.
                Err(TryLockError::WouldBlock) if tries < 3 => tries += 1,
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(source)) => return Err(lock_error(source)),
            }
            self.cluster.pause(Duration::from_millis(3)).await;
        }
        let router_error = |source| HostError::Router { address: self.router, source };
        let listener = TcpListener::bind(self.router).await.map_err(router_error)?;
        let address = listener.local_addr().map_err(router_error)?;
        Ok(Some(Seat { _lock: lock, listener, address }))
    }

    /// Starts everything under a fresh boot.
    async fn begin(&self, seat: Seat) -> Result<Running, HostError> {
        let Seat { _lock: lock, listener, address } = seat;
        let cluster = &self.cluster;
        let boot = format!("{:016x}", getrandom::u64()?);
        let hosted =
            Hosted { boot: boot.clone(), lock: self.lock.display().to_string(), router: address.to_string() };
        let mut tx = cluster.file.begin().await?;
        tables::set_hosted(&mut tx, &hosted).await?;
        tx.commit().await?;
        cluster.set_boot(Some(boot.clone()));
        let mark = Mark { cluster: Arc::clone(cluster), address: Arc::clone(&self.address) };
        // From here on every write of this process has the table follow; what was written before is taken in now.
        cluster.routes.reload(&cluster.file).await?;
        cluster.reload_images().await?;
        let world = Arc::new(World {
            cluster: Arc::clone(cluster),
            boot,
            tenants: self.tenants.clone(),
            http: http::client(),
            endpoints: Default::default(),
            caches: Default::default(),
        });
        let mut controllers = JoinSet::new();
        controllers.spawn(follow(Arc::clone(&world)));
        for color in Color::ALL {
            controllers.spawn(service::keep(Arc::clone(&world), color));
        }
        controllers.spawn(runner::keep(Arc::clone(&world)));
        let (busy, clock) = (Busy::default(), Arc::clone(&cluster.clock));
        let answer = move |request| router::route(Arc::clone(&world), request);
        let mut router = JoinSet::new();
        let connections = cluster.settings.router_connections;
        router.spawn(http::serve((listener, connections), clock, busy.clone(), answer));
        *self.address.write().unwrap_or_else(PoisonError::into_inner) = Some(address);
        cluster.tell();
        tracing::info!(%address, "the local cluster runs in this process");
        Ok(Running { controllers, router, busy, _mark: mark, _seat: lock })
    }

    async fn keep(self, mut running: Option<Running>) {
        let mut stopped = self.stopped.clone();
        loop {
            match running.take() {
                Some(mut now) => {
                    tokio::select! {
                        () = asked_to(&mut stopped) => {
                            self.end(now).await;
                            return;
                        }
                        // None of them ends of itself; if one breaks off, all begin anew under another boot.
                        ended = now.controllers.join_next() => {
                            tracing::error!(?ended, "a controller of the local cluster broke off");
                        }
                        ended = now.router.join_next() => {
                            tracing::error!(?ended, "the router of the local cluster broke off");
                        }
                    }
                }
                None => {
                    let next = self.cluster.clock.monotonic().after(TRY);
                    tokio::select! {
                        () = asked_to(&mut stopped) => return,
                        () = self.cluster.clock.sleep_until(next) => {}
                    }
                    running = match self.take_seat().await {
                        Ok(Some(seat)) => match self.begin(seat).await {
                            Ok(running) => Some(running),
                            Err(HostError::File(error)) if is_full(&error) => None,
                            Err(error) => {
                                tracing::warn!(%error, "hosting cannot begin");
                                None
                            }
                        },
                        Ok(None) => None,
                        Err(error) => {
                            tracing::warn!(%error, "hosting cannot be taken over yet");
                            None
                        }
                    };
                }
            }
        }
    }

    /// Lets requests on their way come to their end.
    async fn end(&self, running: Running) {
        let until = self.cluster.clock.monotonic().after(FAREWELL);
        while !running.busy.is_idle() && self.cluster.clock.monotonic() < until {
            self.cluster.pause(GLANCE).await;
        }
        let Running { mut controllers, mut router, _mark: mark, _seat: seat, .. } = running;
        router.shutdown().await;
        controllers.shutdown().await;
        // The lock last: whoever takes it finds nothing of this boot at work.
        drop(mark);
        drop(seat);
    }
}

/// Returns when hosting is to stop, also when nobody is left to say so.
async fn asked_to(stopped: &mut watch::Receiver<bool>) {
    drop(stopped.wait_for(|stopped| *stopped).await);
}

/// Watches the file for what other processes write, and has everyone look.
async fn follow(world: Arc<World>) {
    let cluster = &world.cluster;
    let mut seen = None;
    loop {
        match cluster.file.version().await {
            Ok(version) if seen == Some(version) => {}
            Ok(version) => match async {
                cluster.routes.reload(&cluster.file).await?;
                cluster.reload_images().await
            }
            .await
            {
                Ok(()) => {
                    seen = Some(version);
                    cluster.tell();
                }
                Err(error) => {
                    tracing::warn!(%error, "the local cluster's tables cannot be read for the moment")
                }
            },
            Err(error) => tracing::warn!(%error, "the local cluster's file does not answer"),
        }
        cluster.pause(GLANCE).await;
    }
}

/// Whether someone holds the lock, which is tried for an instant and shared with whoever else tries.
pub(super) fn is_locked(path: &Path) -> bool {
    let Ok(lock) = OpenOptions::new().read(true).open(path) else { return false };
    match lock.try_lock_shared() {
        Ok(()) => false,
        Err(TryLockError::WouldBlock) => true,
        Err(TryLockError::Error(error)) => {
            tracing::warn!(%error, "the lock of the local cluster cannot be tried");
            false
        }
    }
}
