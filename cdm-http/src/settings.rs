//! The parts that a program passes to the server, its settings and their limits.

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

use crate::serve::connection_limits::ConnectionLimits;
use crate::serve::tls::Tls;

/// The parts that the routes use.
#[derive(Clone, Debug)]
pub struct App {
    /// The application layer, which handles every request.
    pub manager: Arc<Manager>,
    /// Identifies callers by their tokens, and manages tokens.
    pub access: Arc<Access>,
    /// The source of time for timeouts, limits and expiry.
    pub clock: Arc<dyn Clock>,
    /// The state of the backends, which `/readyz` returns.
    pub health: Arc<dyn Health>,
    /// Limits and options of the server.
    pub settings: HttpSettings,
}

impl App {
    /// Returns the app that serves the manager of `process`.
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

/// Reports the state of the backends.
#[async_trait]
pub trait Health: Send + Sync + fmt::Debug + 'static {
    /// Returns every backend, including the healthy ones.
    async fn backends(&self) -> Vec<Backend>;
}

/// The state of one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The name, such as `store`.
    pub name: String,
    /// The error of the last check; `None` if the backend is healthy. Never contains a secret.
    pub problem: Option<String>,
}

/// Limits and options of the server, as plain values.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// The maximum size of a request body, in bytes. Default: 64 KiB. A larger value costs memory per request.
    pub body: usize,
    /// The maximum time until a response starts; event streams may last longer. Default: 90 s. A value below 60 s cuts off
    /// the longest `wait`.
    pub timeout: Duration,
    /// Requests per second of one token or user. Default: 200. Above the rate, requests are rejected with 429. A lower
    /// value rejects busy clients earlier; a higher one lets one client use more of the server.
    pub rate: NonZeroU32,
    /// Requests that one token or user may send at once, before `rate` applies. Default: 400. A higher value accepts
    /// larger bursts, which the backends then have to serve.
    pub burst: NonZeroU32,
    /// Failed authentications per minute from one address. Default: 30. A lower value slows down guessing, and blocks users
    /// behind one address earlier.
    pub failures: NonZeroU32,
    /// Event streams that may be open at once. Default: 256. One token or user gets an eighth of them and one address
    /// half; the last eighth is reserved for tokens and users without an open stream. Each stream needs a connection
    /// and reads its events from the store.
    pub streams: usize,
    /// Limits and timeouts of the listener's connections. Default: [`ConnectionLimits::default`].
    pub connections: ConnectionLimits,
    /// The certificate of the listener. Default: `None`, which means plaintext.
    pub tls: Option<Tls>,
    /// Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` headers are trusted. Default: none. A client inside these
    /// networks can forge its address.
    pub trusted_proxies: Vec<IpNet>,
    /// The image repository, without a tag, which precedes digests in responses. Default: `None`, which shows bare digests.
    pub repository: Option<String>,
    /// The link that creates the console's first user; it is valid only while there is no user. Default: `None`.
    pub setup: Option<SetupLink>,
    /// Whether users may sign in with a password. Default: `true`. `false` leaves only the provider in `oidc`.
    pub passwords: bool,
    /// Whether users who sign in with a password need a second factor. Default: only users who have set one up.
    pub second_factor: SecondFactorRule,
    /// The OpenID Connect provider for sign-in; only with the feature `oidc`. Default: `None`.
    pub oidc: Option<OidcConfig>,
    /// The path of the public URL, such as `/cdm`. Default: empty, if the URL has no path.
    pub root: String,
}

/// The link that creates the console's first user.
#[derive(Clone, Debug)]
pub struct SetupLink {
    /// The last segment of the link's path: a random secret.
    pub code: SecretString,
    /// The time at which the link expires.
    pub until: MonotonicTime,
}

impl SetupLink {
    /// The time from the creation of a link to its expiry.
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
