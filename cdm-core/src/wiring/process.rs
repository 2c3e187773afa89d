//! A process of the platform: its backends, its manager, and its background tasks: worker, webhook dispatcher and
//! retention.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;

use super::backend_selection::BackendKind;
use super::backends::{BackendState, Backends, StartError};
use super::config::Config;
use crate::adapters::embedded::LocalCluster;
use crate::adapters::outbound::Outbound;
use crate::adapters::outbound::webhook::HttpWebhookSender;
use crate::adapters::{OsIds, SystemClock};
use crate::domain::WorkerId;
use crate::engine::{Retention, RolloutDriver, Settings, WebhookDispatcher, Worker};
use crate::manager::{Access, Manager};
use crate::pipelines::{PipelineSettings, Rollouts, registry};
use crate::ports::{Clock, Entropy, Ports};

/// How often a worker looks for new work in an embedded store. The store is a local file, so a read is cheap.
const EMBEDDED_SCAN: Duration = Duration::from_millis(500);

/// A process of the platform. Several processes may use the same backends; of those on one data directory, one hosts the
/// local cluster.
#[derive(Debug)]
pub struct Process {
    manager: Arc<Manager>,
    access: Arc<Access>,
    worker: Arc<Worker>,
    dispatcher: Arc<WebhookDispatcher>,
    retention: Arc<Retention>,
    tasks: Mutex<Option<JoinHandle<()>>>,
    backends: Backends,
}

impl Process {
    /// Opens every backend. For embedded backends, creates the data directory if it is missing, and hosts the local cluster
    /// unless another process does. Starts no background task: see [`Process::work`].
    ///
    /// # Errors
    /// The first backend that cannot be opened, with the cause as source.
    pub fn open(config: &Config) -> BoxFuture<'_, Result<Self, StartError>> {
        // Boxed: compiled once, in this crate, and not again in each program and test that opens a process.
        Box::pin(Self::open_backends(config))
    }

    async fn open_backends(config: &Config) -> Result<Self, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let entropy = OsIds::new()
            .map_err(|error| StartError::new("read the random number generator of the system", error))?;
        let entropy: Arc<dyn Entropy> = Arc::new(entropy);
        let worker_id = worker_id(&entropy);
        let backends = Backends::open(config, &worker_id, clock, entropy).await?;
        let ports = backends.ports.clone();
        let scan = match config.backends.store {
            BackendKind::Embedded => EMBEDDED_SCAN,
            #[cfg(feature = "cloud")]
            BackendKind::Cloud => Settings::default().scan,
        };
        let retry = config.retry.clone();
        let settings = Settings {
            scan,
            concurrency: config.concurrency,
            pause: retry.pause,
            longest_pause: retry.longest_pause,
            ..Settings::default()
        };
        let platform = PipelineSettings {
            admin_user: config.site_admin_user.clone(),
            admin_email: config.site_admin_email.clone(),
            timeouts: retry.timeout,
            ..PipelineSettings::default()
        };
        let pipelines = Arc::new(registry(&platform));
        let rollouts: Arc<dyn RolloutDriver> = Arc::new(Rollouts::new(platform));
        let worker =
            Worker::new(worker_id, ports.clone(), Arc::clone(&pipelines), rollouts, settings.clone());
        let worker = Arc::new(worker);
        let call = settings.call;
        let outbound = Outbound::new(Arc::clone(&ports.clock));
        let allowed = config.allowed_receivers.clone();
        let resolver = Arc::new(outbound.clone());
        let sender = HttpWebhookSender::new(outbound, resolver, allowed.clone(), Arc::clone(&ports.clock));
        let dispatcher = Arc::new(WebhookDispatcher::new(Arc::clone(&worker), Arc::new(sender)));
        let retention = Arc::new(Retention::new(Arc::clone(&worker), config.retention));
        let manager = Manager::new(ports.clone(), pipelines, settings)
            .with_worker(Arc::clone(&worker))
            .with_dispatcher(Arc::clone(&dispatcher), allowed);
        Ok(Self {
            manager: Arc::new(manager),
            access: Arc::new(Access::new(Arc::clone(&backends.tokens), ports, call)),
            worker,
            dispatcher,
            retention,
            tasks: Mutex::default(),
            backends,
        })
    }

    /// Creates the missing resources of the backends, and does not change existing ones.
    ///
    /// # Errors
    /// The first backend whose resources cannot be created, with the cause as source.
    pub async fn bootstrap(&self) -> Result<(), StartError> {
        self.backends.bootstrap().await
    }

    /// Returns the manager, which frontends call.
    pub const fn manager(&self) -> &Arc<Manager> {
        &self.manager
    }

    /// Returns the access control: tokens, users and sessions.
    pub const fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// Returns the ports of the backends.
    pub const fn ports(&self) -> &Ports {
        &self.backends.ports
    }

    /// Returns the local cluster, for the declaration of images, which is not part of a port; `None` if the cluster is in
    /// the cloud.
    pub const fn local_cluster(&self) -> Option<&Arc<LocalCluster>> {
        self.backends.embedded.cluster()
    }

    /// Returns the address at which this process serves the sites of the local cluster; `None` if it does not host the
    /// cluster.
    pub fn router_address(&self) -> Option<SocketAddr> {
        self.backends.embedded.router_address()
    }

    /// Starts the background tasks, which run until [`Process::stop`]. A repeated call has no effect.
    #[expect(clippy::disallowed_methods, reason = "wiring is where the runtime is named")]
    pub fn work(&self) {
        let (worker, dispatcher) = (Arc::clone(&self.worker), Arc::clone(&self.dispatcher));
        let retention = Arc::clone(&self.retention);
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.get_or_insert_with(|| {
            tokio::spawn(async move {
                let sending = tokio::spawn(async move { dispatcher.run().await });
                let deleting = tokio::spawn(async move { retention.run().await });
                worker.run().await;
                // The next pass, of this or another process, deletes what remains.
                let _ = deleting.await;
                // Another process, or the next start, sends pending messages again.
                let _ = sending.await;
            })
        });
    }

    /// Returns the state of every backend.
    pub async fn backends(&self) -> Vec<BackendState> {
        self.backends.states().await
    }

    /// Stops: claims no new work, releases each running operation at its next step boundary, and records in the store that
    /// the worker has stopped. Waits for this for at most `grace`, and then closes the embedded backends. Returns whether
    /// the tasks ended in time; another process takes over the work that was not released.
    pub async fn stop(&self, grace: Duration) -> bool {
        self.worker.stop();
        self.dispatcher.stop();
        self.retention.stop();
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
        let in_time = match tasks {
            None => true,
            Some(tasks) => tokio::time::timeout(grace, tasks).await.is_ok(),
        };
        self.backends.embedded.close().await;
        in_time
    }
}

/// Returns an id that no other process has. The system reuses process ids, so the id has a random part.
fn worker_id(entropy: &Arc<dyn Entropy>) -> WorkerId {
    WorkerId::new(&format!("{}-{:016x}", std::process::id(), entropy.write().0))
}
