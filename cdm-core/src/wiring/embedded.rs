//! Opens the embedded backends and the local cluster, which store their data in one directory.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::backends::{Backend, Opened, StartError, impl_backend};
use super::config::Config;
use super::descriptors::Descriptors;
use crate::adapters::SystemClock;
use crate::adapters::embedded::{
    EmbeddedDatabases, EmbeddedObjects, EmbeddedSecrets, EmbeddedStore, EmbeddedTokens, File, Host,
    LivenessLock, LocalCluster, LocalProbe, LocalSettings, Tenants, own_directory,
};
use crate::adapters::outbound::Outbound;
use crate::domain::WorkerId;
use crate::ports::{
    Clock, ClusterOps, HealthProbe, ObjectStore, SecretStore, SiteDatabases, Store, TokenStore,
};

/// The data directory, its database file, and the local cluster. Nothing is created before a backend is opened.
#[derive(Debug)]
pub(super) struct EmbeddedBackends {
    dir: PathBuf,
    clock: Arc<dyn Clock>,
    file: Option<File>,
    local: LocalSettings,
    router_listen: SocketAddr,
    cluster: Option<Arc<LocalCluster>>,
    host: Mutex<Option<Host>>,
}

impl EmbeddedBackends {
    pub(super) fn new(config: &Config, clock: Arc<dyn Clock>) -> Self {
        let local = LocalSettings {
            pod_start: config.pod_start,
            progress_deadline: config.progress_deadline,
            job: config.job,
            site_scheme: config.site_scheme.clone(),
            router_connections: Descriptors::current().router,
        };
        Self {
            dir: config.data_dir.clone(),
            clock,
            file: None,
            local,
            router_listen: config.router_listen,
            cluster: None,
            host: Mutex::default(),
        }
    }

    /// Returns the database file. The first call creates the data directory if it is missing, and opens the file in it.
    async fn file(&mut self) -> Result<File, StartError> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let dir = self.dir.clone();
        let owned = tokio::task::spawn_blocking(move || own_directory(&dir)).await;
        let action = format!("open the data directory `{}`", self.dir.display());
        owned
            .map_err(|error| StartError::new(action.as_str(), error))?
            .map_err(|error| StartError::new(action.as_str(), error))?;
        let file = File::open(&self.dir.join("cdm.db")).await?;
        self.file = Some(file.clone());
        Ok(file)
    }

    /// Opens the store, and records this process as the live process of `worker`.
    pub(super) async fn store(&mut self, worker: &WorkerId) -> Result<Opened<dyn Store>, StartError> {
        // Check the directory first: nothing is created in it before it is private to its owner.
        let file = self.file().await?;
        let workers = self.dir.join("workers");
        let presence = LivenessLock::open(&workers, worker)
            .map_err(|error| StartError::new(format!("open `{}`", workers.display()), error))?;
        let store = EmbeddedStore::open(file, Arc::clone(&self.clock), presence);
        let store = Arc::new(store.await.map_err(|error| StartError::new("open the store", error))?);
        Ok(Opened { port: Arc::clone(&store) as _, backend: store })
    }

    pub(super) async fn tokens(&mut self) -> Result<Arc<dyn TokenStore>, StartError> {
        let tokens = EmbeddedTokens::open(self.file().await?).await;
        Ok(Arc::new(tokens.map_err(|error| StartError::new("open the tokens", error))?))
    }

    pub(super) async fn secrets(&mut self) -> Result<Opened<dyn SecretStore>, StartError> {
        let key = self.dir.join("key");
        let secrets = EmbeddedSecrets::open(self.file().await?, &key, Arc::clone(&self.clock)).await;
        let secrets = Arc::new(secrets.map_err(|error| StartError::new("open the sealed secrets", error))?);
        Ok(Opened { port: Arc::clone(&secrets) as _, backend: secrets })
    }

    pub(super) async fn objects(&mut self) -> Result<Opened<dyn ObjectStore>, StartError> {
        self.file().await?;
        let objects = EmbeddedObjects::open(&self.dir.join("objects"), Arc::clone(&self.clock)).await;
        let objects = Arc::new(objects.map_err(|error| StartError::new("open the site files", error))?);
        Ok(Opened { port: Arc::clone(&objects) as _, backend: objects })
    }

    /// Opens the site databases, and the local cluster whose pods and jobs use them. This process hosts the cluster unless
    /// another process does.
    pub(super) async fn databases_and_cluster(
        &mut self,
        store: &Arc<dyn Store>,
        secrets: &Arc<dyn SecretStore>,
    ) -> Result<(Opened<dyn SiteDatabases>, Opened<dyn ClusterOps>, Arc<dyn HealthProbe>), StartError> {
        let databases = EmbeddedDatabases::open(self.file().await?, &self.dir.join("databases")).await;
        let databases =
            Arc::new(databases.map_err(|error| StartError::new("open the site databases", error))?);
        let cluster =
            LocalCluster::open(self.file().await?, self.local.clone(), Arc::clone(&self.clock)).await;
        let cluster = Arc::new(cluster.map_err(|error| StartError::new("open the local cluster", error))?);
        let tenants = Tenants {
            repository: Arc::clone(store) as _,
            secrets: Arc::clone(secrets),
            databases: Arc::clone(&databases) as _,
        };
        let host = cluster
            .host(&self.dir.join("cluster.lock"), self.router_listen, tenants)
            .await
            .map_err(|error| StartError::new("open the router of the local cluster", error))?;
        self.host = Mutex::new(Some(host));
        self.cluster = Some(Arc::clone(&cluster));
        let databases = Opened { port: Arc::clone(&databases) as _, backend: databases };
        let probe = LocalProbe::new(Arc::clone(&cluster), Outbound::new(Arc::clone(&self.clock)));
        Ok((databases, Opened { port: Arc::clone(&cluster) as _, backend: cluster }, Arc::new(probe)))
    }

    /// Returns the local cluster; `None` if it is not open.
    pub(super) const fn cluster(&self) -> Option<&Arc<LocalCluster>> {
        self.cluster.as_ref()
    }

    /// Returns the address at which this process serves sites; `None` if it does not host the local cluster.
    pub(super) fn router_address(&self) -> Option<SocketAddr> {
        let host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        host.as_ref().and_then(Host::router_address)
    }

    /// Stops hosting the local cluster, and closes the database file.
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

/// Seals the embedded secrets with a new key, and returns their number. Every process on the data directory must be
/// stopped first.
///
/// # Errors
/// The secrets are in the cloud, another process uses the data directory, or the directory cannot be used. A repeated call
/// resumes an interrupted rotation.
pub async fn rotate_key(config: &Config) -> Result<u64, StartError> {
    const ACTION: &str = "rotate the key of the sealed secrets";
    if config.backends.secrets.is_cloud() {
        return Err(StartError::new(ACTION, "the secrets and their key are in the cloud"));
    }
    let mut embedded = EmbeddedBackends::new(config, Arc::new(SystemClock::new()));
    let file = embedded.file().await?;
    let (workers, key) = (embedded.dir.join("workers"), embedded.dir.join("key"));
    let rotated = EmbeddedSecrets::rotate_key(&file, &key, || !LivenessLock::any(&workers)).await;
    embedded.close().await;
    rotated.map_err(|error| StartError::new(ACTION, error))
}

impl_backend!(EmbeddedStore, EmbeddedSecrets, EmbeddedObjects, EmbeddedDatabases, LocalCluster);
