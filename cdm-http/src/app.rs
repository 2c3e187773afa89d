//! What the server is made of, and how much it bears.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cdm_core::domain::MonotonicTime;
use cdm_core::manager::{Access, Manager};
use cdm_core::ports::Clock;
use cdm_core::wiring::{OidcConfig, Process, SecondFactorRule};
use ipnet::IpNet;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::events::Hub;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::password::Passwords;
use crate::request::Ids;
use crate::seats::Seats;
use crate::serve::{ConnectionLimits, Tls};

/// Everything that the routes need, in one hand.
#[derive(Clone, Debug)]
pub struct App {
    /// What may be asked.
    pub manager: Arc<Manager>,
    /// Who may ask.
    pub access: Arc<Access>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What `/readyz` tells.
    pub health: Arc<dyn Health>,
    /// The measures.
    pub settings: HttpSettings,
}

impl App {
    /// Serves a process of the platform.
    pub fn of(process: &Arc<Process>, settings: HttpSettings) -> Self {
        Self {
            manager: Arc::clone(process.manager()),
            access: Arc::clone(process.access()),
            clock: Arc::clone(&process.ports().clock),
            health: Arc::clone(process) as _,
            settings,
        }
    }
}

#[async_trait]
impl Health for Process {
    async fn backends(&self) -> Vec<Backend> {
        let states = Self::backends(self).await.into_iter();
        states.map(|state| Backend { name: state.name.to_owned(), problem: state.problem }).collect()
    }
}

/// Tells how the backends are.
#[async_trait]
pub trait Health: Send + Sync + fmt::Debug + 'static {
    /// Every backend, the healthy ones too.
    async fn backends(&self) -> Vec<Backend>;
}

/// How one backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its name, such as `store`.
    pub name: String,
    /// What is wrong with it; `None` when nothing is. Never a secret.
    pub problem: Option<String>,
}

/// The server's measures. Plain values.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// The longest body, in bytes.
    pub body: usize,
    /// How long a request may take; streams may take longer.
    pub timeout: Duration,
    /// Requests a second of one token.
    pub rate: NonZeroU32,
    /// How many of them may come at once.
    pub burst: NonZeroU32,
    /// Failed authentications a minute of one address.
    pub failures: NonZeroU32,
    /// How many event streams may be open: an eighth of them for one token or person, half for one address, and the
    /// last eighth for those who have none yet.
    pub streams: usize,
    /// What the listener bears.
    pub connections: ConnectionLimits,
    /// What the listener speaks TLS with; `None`: plaintext.
    pub tls: Option<Tls>,
    /// Proxies whose word for a client's address and scheme is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The image repository, without tag; shown before digests.
    pub repository: Option<String>,
    /// What the link has that makes the console's first user; it serves only while there is none.
    pub setup: Option<SetupLink>,
    /// Whether people may sign in by passwords.
    pub passwords: bool,
    /// Whether those who do prove more than that.
    pub second_factor: SecondFactorRule,
    /// Who proves people's names besides their passwords; only with the feature `oidc`.
    pub oidc: Option<OidcConfig>,
    /// The path of the public address, such as `/cdm`; empty where there is none.
    pub root: String,
}

/// The link that makes the console's first user.
#[derive(Clone, Debug)]
pub struct SetupLink {
    /// The last part of its address, which nobody can guess.
    pub code: SecretString,
    /// Until when it serves.
    pub until: MonotonicTime,
}

impl SetupLink {
    /// How long one serves.
    pub const LASTS: Duration = Duration::from_hours(1);
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            body: 64 * 1024,
            timeout: Duration::from_secs(90),
            rate: NonZeroU32::MIN.saturating_add(199),
            burst: NonZeroU32::MIN.saturating_add(399),
            failures: NonZeroU32::MIN.saturating_add(29),
            streams: 256,
            connections: ConnectionLimits::default(),
            tls: None,
            trusted_proxies: Vec::new(),
            repository: None,
            setup: None,
            passwords: true,
            second_factor: SecondFactorRule::default(),
            oidc: None,
            root: String::new(),
        }
    }
}

/// What all requests of one router share.
pub(crate) type Shared = Arc<Server>;

/// An [`App`] with what is counted and kept beside it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) app: App,
    pub(crate) limits: Limits,
    pub(crate) passwords: Passwords,
    #[cfg(feature = "oidc")]
    pub(crate) provider: crate::console::Provider,
    pub(crate) metrics: Metrics,
    pub(crate) hub: Arc<Hub>,
    pub(crate) ids: Ids,
    pub(crate) seats: Seats,
    pub(crate) stopping: CancellationToken,
}

impl Server {
    pub(crate) fn new(app: App, stopping: CancellationToken) -> Shared {
        let hub = Hub::new(Arc::clone(&app.manager), Arc::clone(&app.clock));
        Arc::new(Self {
            limits: Limits::new(&app.settings, &app.clock),
            passwords: Passwords::default(),
            #[cfg(feature = "oidc")]
            provider: crate::console::Provider::default(),
            metrics: Metrics::new(),
            hub,
            ids: Ids::new(),
            seats: Seats::new(app.settings.streams),
            stopping,
            app,
        })
    }

    /// The image repository that is configured.
    pub(crate) fn repository(&self) -> Option<&str> {
        self.app.settings.repository.as_deref()
    }

    /// An image as users see it.
    pub(crate) fn image(&self, digest: Option<cdm_core::domain::Digest>) -> Option<String> {
        digest.map(|digest| match &self.app.settings.repository {
            Some(repository) => format!("{repository}@{digest}"),
            None => digest.to_string(),
        })
    }
}
