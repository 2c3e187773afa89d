//! The backends of one process behind their ports, each by the configuration's choice, and what no port asks of them.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::choice::BackendKind;
#[cfg(feature = "cloud")]
use super::cloud::Cloud;
use super::config::Config;
use super::machine::Machine;
use super::readiness::Readiness;
use crate::adapters::embedded::OpenError;
use crate::domain::WorkerId;
use crate::ports::{Clock, Entropy, Ports, TokenStore};

/// Why a process cannot start: what could not be opened, and the reason below it.
#[derive(Debug, thiserror::Error)]
#[error("{what} cannot be opened")]
pub struct StartError {
    what: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl StartError {
    pub(super) fn of(what: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
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

/// What a process asks of a backend besides its port.
#[async_trait]
pub(super) trait Backend: Send + Sync + fmt::Debug {
    /// Why it does not serve.
    async fn look(&self) -> Result<(), String>;

    /// Makes what is missing and touches nothing that exists; then it serves. What was made when it was opened, or is set
    /// up where CDM may not, is only looked at.
    async fn make(&self) -> Result<(), String> {
        self.look().await
    }
}

/// Cares for adapters by their own `check`, and those behind the word `bootstrap` by that too.
macro_rules! care_for {
    ($($backend:ty),+ $(; bootstrap $($made:ty),+)?) => {
        $(
            #[async_trait]
            impl Backend for $backend {
                async fn look(&self) -> Result<(), String> {
                    <$backend>::check(self).await.map_err(|error| error.to_string())
                }
            }
        )+
        $($(
            #[async_trait]
            impl Backend for $made {
                async fn look(&self) -> Result<(), String> {
                    <$made>::check(self).await.map_err(|error| error.to_string())
                }

                async fn make(&self) -> Result<(), String> {
                    <$made>::bootstrap(self).await.map_err(|error| error.to_string())
                }
            }
        )+)?
    };
}
pub(super) use care_for;

/// A backend: behind its port, and to be cared for.
#[derive(Debug)]
pub(super) struct Opened<P: ?Sized> {
    pub(super) port: Arc<P>,
    pub(super) care: Arc<dyn Backend>,
}

/// Everything opened.
#[derive(Debug)]
pub(super) struct Backends {
    pub(super) ports: Ports,
    pub(super) tokens: Arc<dyn TokenStore>,
    pub(super) machine: Machine,
    readiness: Arc<Readiness>,
}

impl Backends {
    /// Opens what the configuration names.
    pub(super) async fn open(
        config: &Config,
        worker: &WorkerId,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, StartError> {
        let mut machine = Machine::new(config, Arc::clone(&clock));
        #[cfg(feature = "cloud")]
        let cloud = Cloud::new(config, Arc::clone(&clock));
        let choice = &config.backends;
        let (store, tokens) = match choice.store {
            BackendKind::Embedded => (machine.store(worker).await?, machine.tokens().await?),
            #[cfg(feature = "cloud")]
            BackendKind::Cloud => cloud.store().await,
        };
        let secrets = match choice.secrets {
            BackendKind::Embedded => machine.secrets().await?,
            #[cfg(feature = "cloud")]
            BackendKind::Cloud => cloud.secrets().await?,
        };
        let objects = match choice.objects {
            BackendKind::Embedded => machine.objects().await?,
            #[cfg(feature = "cloud")]
            BackendKind::Cloud => cloud.objects().await,
        };
        let (databases, cluster, probe) = match choice.cluster {
            BackendKind::Embedded => machine.platform(&store.port, &secrets.port).await?,
            #[cfg(feature = "cloud")]
            BackendKind::Cloud => cloud.platform(&secrets.port).await?,
        };
        let cared = vec![
            ("store", store.care),
            ("secrets", secrets.care),
            ("objects", objects.care),
            ("databases", databases.care),
            ("cluster", cluster.care),
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
        let readiness = Arc::new(Readiness::new(cared, Arc::clone(&ports.clock)));
        Ok(Self { ports, tokens, machine, readiness })
    }

    /// How every backend stands.
    pub(super) async fn states(&self) -> Vec<BackendState> {
        self.readiness.states().await
    }

    /// Makes what is missing, one backend after the other.
    pub(super) async fn bootstrap(&self) -> Result<(), StartError> {
        for (name, care) in &self.readiness.cared {
            care.make().await.map_err(|problem| StartError::of(&format!("the backend `{name}`"), problem))?;
        }
        Ok(())
    }
}
