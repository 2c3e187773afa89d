//! One process of the platform: its backends, its services and its worker.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::config::Config;
use crate::adapters::embedded::{
    EmbeddedDatabases, EmbeddedObjects, EmbeddedSecrets, EmbeddedStore, EmbeddedTokens, File, Host,
    LocalCluster, LocalSettings, OpenError, Presence, Tenants,
};
use crate::adapters::{OsIds, SystemClock};
use crate::domain::WorkerId;
use crate::engine::{RolloutDriver, Settings, Worker};
use crate::pipelines::{Platform, Rollouts, registry};
use crate::ports::{Clock, IdSource, PortError, Ports};
use crate::services::{Access, Services};

/// How often a process on one machine looks for work that nobody told it of: the store is a file, a look is cheap.
const SCAN: Duration = Duration::from_millis(500);

/// Why a process cannot start: what could not be opened, and the reason below it.
#[derive(Debug, thiserror::Error)]
#[error("{what} cannot be opened")]
pub struct StartError {
    what: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl StartError {
    fn of(what: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { what: what.to_owned(), source: source.into() }
    }
}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> Self {
        Self::of("the data directory", error)
    }
}

/// How a backend stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendState {
    /// Which port it is behind.
    pub name: &'static str,
    /// Why it does not serve; `None` when it does.
    pub problem: Option<String>,
}

/// A process. Several may run on one data directory; one of them hosts the local cluster.
#[derive(Debug)]
pub struct Process {
    services: Arc<Services>,
    access: Arc<Access>,
    ports: Ports,
    worker: Arc<Worker>,
    working: Mutex<Option<JoinHandle<()>>>,
    host: Mutex<Option<Host>>,
    router: Option<SocketAddr>,
    embedded: Embedded,
}

/// The backends, by their own types: for what no port asks.
#[derive(Debug)]
struct Embedded {
    file: File,
    store: Arc<EmbeddedStore>,
    secrets: Arc<EmbeddedSecrets>,
    objects: Arc<EmbeddedObjects>,
    databases: Arc<EmbeddedDatabases>,
    cluster: Arc<LocalCluster>,
}

impl Process {
    /// Opens everything in the data directory, which is made where it is missing, and hosts the local cluster unless
    /// another process does. Does no work before [`Process::work`].
    ///
    /// # Errors
    /// What cannot be opened, with the reason below it.
    pub async fn open(config: &Config) -> Result<Self, StartError> {
        let dir = &config.data_dir;
        make_private(dir).await.map_err(|error| StartError::of(&format!("`{}`", dir.display()), error))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let ids = OsIds::new().map_err(|error| StartError::of("the machine's source of chance", error))?;
        let ids: Arc<dyn IdSource> = Arc::new(ids);
        let worker_id = worker_id(&ids);
        let file = File::open(&dir.join("cdm.db")).await?;
        let presence = Presence::open(&dir.join("workers"), &worker_id)
            .map_err(|error| StartError::of("`workers/`", error))?;
        let store = EmbeddedStore::open(file.clone(), Arc::clone(&clock), presence)
            .await
            .map_err(|error| StartError::of("the store", error))?;
        let tokens =
            EmbeddedTokens::open(file.clone()).await.map_err(|error| StartError::of("the tokens", error))?;
        let secrets = EmbeddedSecrets::open(file.clone(), &dir.join("key"), Arc::clone(&clock))
            .await
            .map_err(|error| StartError::of("the sealed secrets", error))?;
        let objects = EmbeddedObjects::open(&dir.join("objects"), Arc::clone(&clock))
            .await
            .map_err(|error| StartError::of("the site files", error))?;
        let databases = EmbeddedDatabases::open(file.clone(), &dir.join("databases"))
            .await
            .map_err(|error| StartError::of("the site databases", error))?;
        let local = LocalSettings {
            pod_start: config.pod_start,
            progress_deadline: config.progress_deadline,
            job: config.job,
            site_scheme: config.site_scheme.clone(),
        };
        let cluster = LocalCluster::open(file.clone(), local, Arc::clone(&clock))
            .await
            .map_err(|error| StartError::of("the local cluster", error))?;
        let embedded = Embedded {
            file,
            store: Arc::new(store),
            secrets: Arc::new(secrets),
            objects: Arc::new(objects),
            databases: Arc::new(databases),
            cluster: Arc::new(cluster),
        };
        let tenants = Tenants {
            repository: Arc::clone(&embedded.store) as _,
            secrets: Arc::clone(&embedded.secrets) as _,
            databases: Arc::clone(&embedded.databases) as _,
        };
        let host = embedded
            .cluster
            .host(&dir.join("cluster.lock"), config.router_listen, tenants)
            .await
            .map_err(|error| StartError::of("the local cluster's router", error))?;
        let ports = Ports {
            store: Arc::clone(&embedded.store) as _,
            secrets: Arc::clone(&embedded.secrets) as _,
            objects: Arc::clone(&embedded.objects) as _,
            databases: Arc::clone(&embedded.databases) as _,
            cluster: Arc::clone(&embedded.cluster) as _,
            clock,
            ids,
        };
        let settings = Settings { scan: SCAN, concurrency: config.workers, ..Settings::default() };
        let platform = Platform {
            admin_user: config.site_admin_user.clone(),
            admin_email: config.site_admin_email.clone(),
            ..Platform::default()
        };
        let pipelines = Arc::new(registry(&platform));
        let rollouts: Arc<dyn RolloutDriver> = Arc::new(Rollouts::new(platform));
        let worker =
            Worker::new(worker_id, ports.clone(), Arc::clone(&pipelines), rollouts, settings.clone());
        let worker = Arc::new(worker);
        let call = settings.call;
        let services = Services::new(ports.clone(), pipelines, settings).with_worker(Arc::clone(&worker));
        Ok(Self {
            services: Arc::new(services),
            access: Arc::new(Access::new(Arc::new(tokens), ports.clone(), call)),
            ports,
            worker,
            working: Mutex::default(),
            router: host.router_address(),
            host: Mutex::new(Some(host)),
            embedded,
        })
    }

    /// What frontends ask.
    pub const fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// Tokens.
    pub const fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// The backends behind their ports.
    pub const fn ports(&self) -> &Ports {
        &self.ports
    }

    /// The local cluster, for what no port asks: declaring images.
    pub const fn cluster(&self) -> &Arc<LocalCluster> {
        &self.embedded.cluster
    }

    /// Where sites are served by this process; `None` while another one hosts the local cluster.
    pub const fn router_address(&self) -> Option<SocketAddr> {
        self.router
    }

    /// Begins to work, until [`Process::stop`].
    #[expect(clippy::disallowed_methods, reason = "wiring is where the runtime is named")]
    pub fn work(&self) {
        let worker = Arc::clone(&self.worker);
        let mut working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        working.get_or_insert_with(|| tokio::spawn(async move { worker.run().await }));
    }

    /// How every backend stands.
    pub async fn backends(&self) -> Vec<BackendState> {
        let Embedded { store, secrets, objects, databases, cluster, .. } = &self.embedded;
        let store = async { store.check().await.map_err(|error| error.to_string()) };
        let told = |result: Result<(), PortError>| result.map_err(|error| error.to_string());
        let (store, secrets, objects, databases, cluster) =
            tokio::join!(store, secrets.check(), objects.check(), databases.check(), cluster.check());
        let states = [
            ("store", store),
            ("secrets", told(secrets)),
            ("objects", told(objects)),
            ("databases", told(databases)),
            ("cluster", told(cluster)),
        ];
        let state = |(name, result): (_, Result<(), String>)| BackendState { name, problem: result.err() };
        states.into_iter().map(state).collect()
    }

    /// Takes nothing new, gives running operations back at their next step boundary, and says that it stops; at most
    /// for `grace`. Answers whether all was given back in time; what was not is found by the next process.
    pub async fn stop(&self, grace: Duration) -> bool {
        self.worker.stop();
        let working = self.working.lock().unwrap_or_else(PoisonError::into_inner).take();
        let in_time = match working {
            None => true,
            Some(working) => tokio::time::timeout(grace, working).await.is_ok(),
        };
        let host = self.host.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(host) = host {
            host.stop().await;
        }
        self.embedded.file.close().await;
        in_time
    }
}

/// A name that no other process has: a process id comes again, so some chance is added.
fn worker_id(ids: &Arc<dyn IdSource>) -> WorkerId {
    WorkerId::new(&format!("{}-{:016x}", std::process::id(), ids.write().0))
}

/// Makes a directory that only its owner may enter.
async fn make_private(dir: &PathBuf) -> std::io::Result<()> {
    let mut builder = tokio::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    builder.mode(0o700);
    builder.create(dir).await
}
