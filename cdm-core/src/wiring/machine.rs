//! What of a process lies on its machine: the embedded backends, and the local cluster.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::backends::{Backend, Opened, StartError, care_for};
use super::config::Config;
use super::descriptors::Descriptors;
use crate::adapters::SystemClock;
use crate::adapters::embedded::{
    EmbeddedDatabases, EmbeddedObjects, EmbeddedSecrets, EmbeddedStore, EmbeddedTokens, File, Host,
    LocalCluster, LocalProbe, LocalSettings, Presence, Tenants, own_directory,
};
use crate::adapters::outbound::Outbound;
use crate::domain::WorkerId;
use crate::ports::{
    Clock, ClusterOps, HealthProbe, ObjectStore, SecretStore, SiteDatabases, Store, TokenStore,
};

/// The data directory, its one file, and the local cluster; nothing of it is made before something is opened.
#[derive(Debug)]
pub(super) struct Machine {
    dir: PathBuf,
    clock: Arc<dyn Clock>,
    file: Option<File>,
    local: LocalSettings,
    router: SocketAddr,
    cluster: Option<Arc<LocalCluster>>,
    host: Mutex<Option<Host>>,
}

impl Machine {
    pub(super) fn new(config: &Config, clock: Arc<dyn Clock>) -> Self {
        let local = LocalSettings {
            pod_start: config.pod_start,
            progress_deadline: config.progress_deadline,
            job: config.job,
            site_scheme: config.site_scheme.clone(),
            router_connections: Descriptors::present().router,
        };
        let (dir, router) = (config.data_dir.clone(), config.router_listen);
        Self { dir, clock, file: None, local, router, cluster: None, host: Mutex::default() }
    }

    /// The one file, in a directory that is made where it is missing.
    async fn file(&mut self) -> Result<File, StartError> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let dir = self.dir.clone();
        let owned = tokio::task::spawn_blocking(move || own_directory(&dir)).await;
        let shown = format!("the data directory `{}`", self.dir.display());
        owned
            .map_err(|error| StartError::of(&shown, error))?
            .map_err(|error| StartError::of(&shown, error))?;
        let file = File::open(&self.dir.join("cdm.db")).await?;
        self.file = Some(file.clone());
        Ok(file)
    }

    pub(super) async fn store(&mut self, worker: &WorkerId) -> Result<Opened<dyn Store>, StartError> {
        // The directory first: nothing is made in it before it is known to be private.
        let file = self.file().await?;
        let workers = self.dir.join("workers");
        let presence = Presence::open(&workers, worker)
            .map_err(|error| StartError::of(&format!("`{}`", workers.display()), error))?;
        let store = EmbeddedStore::open(file, Arc::clone(&self.clock), presence);
        let store = Arc::new(store.await.map_err(|error| StartError::of("the store", error))?);
        Ok(Opened { port: Arc::clone(&store) as _, care: store })
    }

    pub(super) async fn tokens(&mut self) -> Result<Arc<dyn TokenStore>, StartError> {
        let tokens = EmbeddedTokens::open(self.file().await?).await;
        Ok(Arc::new(tokens.map_err(|error| StartError::of("the tokens", error))?))
    }

    pub(super) async fn secrets(&mut self) -> Result<Opened<dyn SecretStore>, StartError> {
        let key = self.dir.join("key");
        let secrets = EmbeddedSecrets::open(self.file().await?, &key, Arc::clone(&self.clock)).await;
        let secrets = Arc::new(secrets.map_err(|error| StartError::of("the sealed secrets", error))?);
        Ok(Opened { port: Arc::clone(&secrets) as _, care: secrets })
    }

    pub(super) async fn objects(&mut self) -> Result<Opened<dyn ObjectStore>, StartError> {
        self.file().await?;
        let objects = EmbeddedObjects::open(&self.dir.join("objects"), Arc::clone(&self.clock)).await;
        let objects = Arc::new(objects.map_err(|error| StartError::of("the site files", error))?);
        Ok(Opened { port: Arc::clone(&objects) as _, care: objects })
    }

    /// The databases, and the local cluster whose pods and jobs work on them; it is hosted here unless another process
    /// does.
    pub(super) async fn platform(
        &mut self,
        store: &Arc<dyn Store>,
        secrets: &Arc<dyn SecretStore>,
    ) -> Result<(Opened<dyn SiteDatabases>, Opened<dyn ClusterOps>, Arc<dyn HealthProbe>), StartError> {
        let databases = EmbeddedDatabases::open(self.file().await?, &self.dir.join("databases")).await;
        let databases = Arc::new(databases.map_err(|error| StartError::of("the site databases", error))?);
        let cluster =
            LocalCluster::open(self.file().await?, self.local.clone(), Arc::clone(&self.clock)).await;
        let cluster = Arc::new(cluster.map_err(|error| StartError::of("the local cluster", error))?);
        let tenants = Tenants {
            repository: Arc::clone(store) as _,
            secrets: Arc::clone(secrets),
            databases: Arc::clone(&databases) as _,
        };
        let host = cluster
            .host(&self.dir.join("cluster.lock"), self.router, tenants)
            .await
            .map_err(|error| StartError::of("the local cluster's router", error))?;
        self.host = Mutex::new(Some(host));
        self.cluster = Some(Arc::clone(&cluster));
        let databases = Opened { port: Arc::clone(&databases) as _, care: databases };
        let probe = LocalProbe::new(Arc::clone(&cluster), Outbound::new(Arc::clone(&self.clock)));
        Ok((databases, Opened { port: Arc::clone(&cluster) as _, care: cluster }, Arc::new(probe)))
    }

    pub(super) const fn cluster(&self) -> Option<&Arc<LocalCluster>> {
        self.cluster.as_ref()
    }

    pub(super) fn router_address(&self) -> Option<SocketAddr> {
        let host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        host.as_ref().and_then(Host::router_address)
    }

    pub(super) async fn close(&self) {
        let host = self.host.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(host) = host {
            host.stop().await;
        }
        if let Some(file) = &self.file {
            file.close().await;
        }
    }
}

/// Seals the embedded secrets with a fresh key, and returns how many there are. Every process on the data directory has to
/// be stopped.
///
/// # Errors
/// Where the secrets are kept elsewhere, another process is at work, or the directory cannot be used. Called again, it
/// goes on where it stopped.
pub async fn rotate_key(config: &Config) -> Result<u64, StartError> {
    const WHAT: &str = "the sealed secrets";
    if config.backends.secrets.is_cloud() {
        return Err(StartError::of(WHAT, "they are kept in the cloud, and so is their key"));
    }
    let mut machine = Machine::new(config, Arc::new(SystemClock::new()));
    let file = machine.file().await?;
    let (workers, key) = (machine.dir.join("workers"), machine.dir.join("key"));
    let rotated = EmbeddedSecrets::rotate_key(&file, &key, || !Presence::any(&workers)).await;
    machine.close().await;
    rotated.map_err(|error| StartError::of(WHAT, error))
}

care_for!(EmbeddedStore, EmbeddedSecrets, EmbeddedObjects, EmbeddedDatabases, LocalCluster);
