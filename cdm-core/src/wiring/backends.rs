//! Opens the configured backend of each port, and has the functions of backends outside their ports: readiness, and the
//! creation of missing resources.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::backend_selection::BackendKind;
#[cfg(feature = "cloud")]
use super::cloud::CloudBackends;
use super::config::Config;
use super::embedded::EmbeddedBackends;
use super::readiness::Readiness;
use crate::adapters::embedded::OpenError;
use crate::domain::WorkerId;
use crate::ports::{Clock, Entropy, Ports, TokenStore};

/// An error of the start of a process: the action that failed, and its cause.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}")]
pub struct StartError {
    action: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl StartError {
    /// Creates an error of an action, such as `open the store`.
    pub(super) fn new(
        action: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { action: action.into(), source: source.into() }
    }
}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> Self {
        Self::new("open the data directory", error)
    }
}

/// The state of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendState {
    /// The name of the port: `store`, `secrets`, `objects`, `databases` or `cluster`.
    pub name: &'static str,
    /// Why the backend is not available; `None` if it is.
    pub problem: Option<String>,
}

/// The functions of a backend outside its port.
#[async_trait]
pub(super) trait Backend: Send + Sync + fmt::Debug {
    /// Returns why the backend is not available.
    async fn check(&self) -> Result<(), String>;

    /// Creates the missing resources of the backend, does not change existing ones, and checks the result. By default only
    /// checks: an embedded backend creates its resources when it is opened, and some resources in the cloud are created
    /// by their operators only.
    async fn bootstrap(&self) -> Result<(), String> {
        self.check().await
    }
}

/// Implements [`Backend`] for adapters by their own `check`, and after `bootstrap` by their own `check` and `bootstrap`.
macro_rules! impl_backend {
    ($($backend:ty),+ $(; bootstrap $($with_bootstrap:ty),+)?) => {
        $(
            #[async_trait]
            impl Backend for $backend {
                async fn check(&self) -> Result<(), String> {
                    $crate::wiring::backends::error_text(<$backend>::check(self).await)
                }
            }
        )+
        $($(
            #[async_trait]
            impl Backend for $with_bootstrap {
                async fn check(&self) -> Result<(), String> {
                    $crate::wiring::backends::error_text(<$with_bootstrap>::check(self).await)
                }

                async fn bootstrap(&self) -> Result<(), String> {
                    $crate::wiring::backends::error_text(<$with_bootstrap>::bootstrap(self).await)
                }
            }
        )+)?
    };
}
pub(super) use impl_backend;

/// Converts the error of an adapter's own function to text. The bound keeps an adapter without that function from
/// compiling: the call would resolve to the trait's function, whose error is a `String`, and recurse.
pub(super) fn error_text(result: Result<(), impl std::error::Error>) -> Result<(), String> {
    result.map_err(|error| error.to_string())
}

/// An opened backend: its port, and its functions outside the port.
#[derive(Debug)]
pub(super) struct Opened<P: ?Sized> {
    pub(super) port: Arc<P>,
    pub(super) backend: Arc<dyn Backend>,
}

/// The opened backends of a process.
#[derive(Debug)]
pub(super) struct Backends {
    pub(super) ports: Ports,
    pub(super) tokens: Arc<dyn TokenStore>,
    pub(super) embedded: EmbeddedBackends,
    readiness: Arc<Readiness>,
}

impl Backends {
    /// Opens the configured backends.
    pub(super) async fn open(
        config: &Config,
        worker: &WorkerId,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, StartError> {
        let mut embedded = EmbeddedBackends::new(config, Arc::clone(&clock));
        #[cfg(feature = "cloud")]
        let cloud = CloudBackends::new(config, Arc::clone(&clock));
        let selection = &config.backends;
        let (store, tokens) = match selection.store {
            BackendKind::Embedded => (embedded.store(worker).await?, embedded.tokens().await?),
            #[cfg(feature = "cloud")]
            BackendKind::Cloud => cloud.store().await,
        };
        let secrets = match selection.secrets {
            BackendKind::Embedded => embedded.secrets().await?,
            #[cfg(feature = "cloud")]
            BackendKind::Cloud => cloud.secrets().await?,
        };
        let objects = match selection.objects {
            BackendKind::Embedded => embedded.objects().await?,
            #[cfg(feature = "cloud")]
            BackendKind::Cloud => cloud.objects().await,
        };
        let (databases, cluster, probe) = match selection.cluster {
            BackendKind::Embedded => embedded.databases_and_cluster(&store.port, &secrets.port).await?,
            #[cfg(feature = "cloud")]
            BackendKind::Cloud => cloud.databases_and_cluster(&secrets.port).await?,
        };
        let backends = vec![
            ("store", store.backend),
            ("secrets", secrets.backend),
            ("objects", objects.backend),
            ("databases", databases.backend),
            ("cluster", cluster.backend),
        ];
        let ports = Ports {
            store: store.port,
            secrets: secrets.port,
            objects: objects.port,
            databases: databases.port,
            cluster: cluster.port,
            probe,
            clock,
            entropy,
        };
        let readiness = Arc::new(Readiness::new(backends, Arc::clone(&ports.clock)));
        Ok(Self { ports, tokens, embedded, readiness })
    }

    /// Returns the state of every backend.
    pub(super) async fn states(&self) -> Vec<BackendState> {
        self.readiness.states().await
    }

    /// Creates the missing resources of the backends, one backend after the other.
    pub(super) async fn bootstrap(&self) -> Result<(), StartError> {
        for (name, backend) in &self.readiness.backends {
            let done = backend.bootstrap().await;
            done.map_err(|problem| StartError::new(format!("bootstrap the backend `{name}`"), problem))?;
        }
        Ok(())
    }
}
