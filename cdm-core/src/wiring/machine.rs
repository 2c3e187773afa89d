//! What of a process lies on its machine: the embedded backends, and the local cluster.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::backends::{Care, Opened, StartError, care_for};
use super::config::Config;
use crate::adapters::embedded::{
    EmbeddedDatabases, EmbeddedObjects, EmbeddedSecrets, EmbeddedStore, EmbeddedTokens, File, Host,
    LocalCluster, LocalProbe, LocalSettings, Presence, Tenants,
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
        };
        let (dir, router) = (config.data_dir.clone(), config.router_listen);
        Self { dir, clock, file: None, local, router, cluster: None, host: Mutex::default() }
    }

    /// The one file, in a directory that is made where it is missing.
    async fn file(&mut self) -> Result<File, StartError> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let shown = format!("`{}`", self.dir.display());
        make_private(&self.dir).await.map_err(|error| StartError::of(&shown, error))?;
        let file = File::open(&self.dir.join("cdm.db")).await?;
        self.file = Some(file.clone());
        Ok(file)
    }

    pub(super) async fn store(&mut self, worker: &WorkerId) -> Result<Opened<dyn Store>, StartError> {
        let presence = Presence::open(&self.dir.join("workers"), worker)
            .map_err(|error| StartError::of("`workers/`", error))?;
        let store = EmbeddedStore::open(self.file().await?, Arc::clone(&self.clock), presence);
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

care_for!(EmbeddedStore, EmbeddedSecrets, EmbeddedObjects, EmbeddedDatabases, LocalCluster);

/// Makes a directory that only its owner may enter.
async fn make_private(dir: &Path) -> std::io::Result<()> {
    let mut builder = tokio::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    builder.mode(0o700);
    builder.create(dir).await
}
