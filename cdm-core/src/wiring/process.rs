//! One process of the platform: its backends, its services, its worker and its courier.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::backends::{BackendState, Backends, StartError};
use super::choice::BackendKind;
use super::config::Config;
use crate::adapters::embedded::LocalCluster;
use crate::adapters::outbound::Outbound;
use crate::adapters::outbound::webhook::HttpPostman;
use crate::adapters::{OsIds, SystemClock};
use crate::domain::WorkerId;
use crate::engine::{Retention, RolloutDriver, Settings, WebhookDispatcher, Worker};
use crate::manager::{Access, Manager};
use crate::pipelines::{PipelineSettings, Rollouts, registry};
use crate::ports::{Clock, Entropy, Ports};

/// How often a process on one machine looks for work that nobody told it of: the store is a file, a look is cheap.
const SCAN: Duration = Duration::from_millis(500);

/// A process. Several may run on the same backends; on one data directory, one of them hosts the local cluster.
#[derive(Debug)]
pub struct Process {
    manager: Arc<Manager>,
    access: Arc<Access>,
    worker: Arc<Worker>,
    dispatcher: Arc<WebhookDispatcher>,
    retention: Arc<Retention>,
    working: Mutex<Option<JoinHandle<()>>>,
    backends: Backends,
}

impl Process {
    /// Opens every backend. Of the embedded ones the data directory is made where it is missing, and the local cluster
    /// hosted unless another process does. Does no work before [`Process::work`].
    ///
    /// # Errors
    /// What cannot be opened, with the reason below it.
    pub async fn open(config: &Config) -> Result<Self, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let ids = OsIds::new().map_err(|error| StartError::of("the machine's source of chance", error))?;
        let ids: Arc<dyn Entropy> = Arc::new(ids);
        let worker_id = worker_id(&ids);
        let backends = Backends::open(config, &worker_id, clock, ids).await?;
        let ports = backends.ports.clone();
        let scan = match config.backends.store {
            BackendKind::Embedded => SCAN,
            #[cfg(feature = "cloud")]
            BackendKind::Cloud => Settings::default().scan,
        };
        let retry = config.retry.clone();
        let settings = Settings {
            scan,
            concurrency: config.workers,
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
        let (for_worker, same) = (ports.clone(), settings.clone());
        let worker = Arc::new(Worker::new(worker_id, for_worker, Arc::clone(&pipelines), rollouts, same));
        let call = settings.call;
        let outbound = Outbound::new(Arc::clone(&ports.clock));
        let allowed = config.webhooks_allow.clone();
        let lookup = Arc::new(outbound.clone());
        let postman = HttpPostman::new(outbound, lookup, allowed.clone(), Arc::clone(&ports.clock));
        let dispatcher = Arc::new(WebhookDispatcher::new(Arc::clone(&worker), Arc::new(postman)));
        let retention = Arc::new(Retention::new(Arc::clone(&worker), config.retention));
        let manager = Manager::new(ports.clone(), pipelines, settings)
            .with_worker(Arc::clone(&worker))
            .with_courier(Arc::clone(&dispatcher), allowed);
        Ok(Self {
            manager: Arc::new(manager),
            access: Arc::new(Access::new(Arc::clone(&backends.tokens), ports, call)),
            worker,
            dispatcher,
            retention,
            working: Mutex::default(),
            backends,
        })
    }

    /// Makes what the backends lack, and touches nothing that exists.
    ///
    /// # Errors
    /// What cannot be made, with the reason below it.
    pub async fn bootstrap(&self) -> Result<(), StartError> {
        self.backends.bootstrap().await
    }

    /// What frontends ask.
    pub const fn manager(&self) -> &Arc<Manager> {
        &self.manager
    }

    /// Tokens.
    pub const fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// The backends behind their ports.
    pub const fn ports(&self) -> &Ports {
        &self.backends.ports
    }

    /// The local cluster, for what no port asks: declaring images. `None` where the cluster is another.
    pub const fn local_cluster(&self) -> Option<&Arc<LocalCluster>> {
        self.backends.machine.cluster()
    }

    /// Where sites are served by this process; `None` while another one does.
    pub fn router_address(&self) -> Option<SocketAddr> {
        self.backends.machine.router_address()
    }

    /// Begins to work, until [`Process::stop`].
    #[expect(clippy::disallowed_methods, reason = "wiring is where the runtime is named")]
    pub fn work(&self) {
        let (worker, dispatcher) = (Arc::clone(&self.worker), Arc::clone(&self.dispatcher));
        let retention = Arc::clone(&self.retention);
        let mut working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        working.get_or_insert_with(|| {
            tokio::spawn(async move {
                let sending = tokio::spawn(async move { dispatcher.run().await });
                let deleting = tokio::spawn(async move { retention.run().await });
                worker.run().await;
                // What is left is deleted another time.
                let _ = deleting.await;
                // What it was about to send is sent again by another process, or after a start.
                let _ = sending.await;
            })
        });
    }

    /// How every backend stands.
    pub async fn backends(&self) -> Vec<BackendState> {
        self.backends.states().await
    }

    /// Takes nothing new, gives running operations back at their next step boundary, and says that it stops; at most
    /// for `grace`. Answers whether all was given back in time; what was not is found by the next process.
    pub async fn stop(&self, grace: Duration) -> bool {
        self.worker.stop();
        self.dispatcher.stop();
        self.retention.stop();
        let working = self.working.lock().unwrap_or_else(PoisonError::into_inner).take();
        let in_time = match working {
            None => true,
            Some(working) => tokio::time::timeout(grace, working).await.is_ok(),
        };
        self.backends.machine.close().await;
        in_time
    }
}

/// A name that no other process has: a process id comes again, so some chance is added.
fn worker_id(ids: &Arc<dyn Entropy>) -> WorkerId {
    WorkerId::new(&format!("{}-{:016x}", std::process::id(), ids.write().0))
}
