//! Health checks of sites over HTTP: at the address of their route, or at the address of a service.
//!
//! Operators choose the hostnames of sites, and the owners of the hostnames control their DNS. If no address for routes
//! is configured, the addresses that a hostname resolves to are checked like the addresses of a webhook: resolved once,
//! all of them checked, and the connection goes to a checked address.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use reqwest::header::{HeaderName, HeaderValue, USER_AGENT};

use super::webhook::Resolver;
use super::{Outbound, OutboundError, OutboundRequest, OutboundResponse};
use crate::domain::Color;
use crate::domain::rollout::ProbeResponse;
use crate::domain::webhook::{is_private, is_public};
use crate::ports::{Clock, HealthProbe, Inconclusive, ProbeRequest, Via};

/// Maximum size of the part of a body that is searched for a text, in bytes.
const MAX_BODY: usize = 256 << 10;

/// The addresses for health checks. There are no defaults: the values depend on the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSettings {
    /// Whether sites are reached over TLS. Wrong values make every check fail.
    pub https: bool,
    /// Host and port at which requests for sites arrive; `None` resolves the hostname of the site, which requires TLS
    /// and a public address.
    pub route: Option<(String, u16)>,
    /// Whether a hostname may also resolve to a private address. Loopback, link-local and metadata addresses are never
    /// allowed. `true` is needed for sites that are only reachable inside a network, and lets the owner of a hostname
    /// direct checks to private addresses.
    pub private: bool,
    /// Host and port of the blue and the green service, which are reached without TLS.
    pub services: [(String, u16); 2],
    /// The response header with the name of the service that responded. A check of a service is inconclusive without
    /// it.
    pub header: HeaderName,
}

/// Checks sites as visitors reach them, and services at their addresses.
pub struct HttpProbe {
    outbound: Outbound,
    resolver: Arc<dyn Resolver>,
    settings: ProbeSettings,
    clock: Arc<dyn Clock>,
}

impl HttpProbe {
    /// Creates a probe with these settings.
    pub fn new(settings: ProbeSettings, clock: Arc<dyn Clock>) -> Self {
        let outbound = Outbound::new(Arc::clone(&clock));
        Self::with(settings, outbound.clone(), Arc::new(outbound), clock)
    }

    /// Creates a probe that resolves host names with `resolver`. Outside tests, `resolver` is `outbound`.
    pub fn with(
        settings: ProbeSettings,
        outbound: Outbound,
        resolver: Arc<dyn Resolver>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { outbound, resolver, settings, clock }
    }

    /// Sends the request to the first address that accepts a connection.
    async fn send(&self, check: &ProbeRequest) -> Result<OutboundResponse, Inconclusive> {
        let (https, configured) = match check.via {
            Via::Service(color) => {
                let [blue, green] = &self.settings.services;
                (false, Some(if color == Color::Blue { blue } else { green }))
            }
            Via::Route => (self.settings.https, self.settings.route.as_ref()),
        };
        // Without TLS nothing proves that the response is the site's, so any server could satisfy or fail the check.
        if configured.is_none() && !https {
            return Err(Inconclusive(NEEDS_TLS.to_owned()));
        }
        let default_port = if https { 443 } else { 80 };
        let (name, port) =
            configured.map_or((check.host.as_str(), default_port), |(name, port)| (name, *port));
        let started = self.clock.monotonic();
        let remaining = || check.timeout.saturating_sub(self.clock.monotonic().since(started));
        let found = self.resolver.resolve(name, port, check.timeout).await.map_err(unanswered)?;
        // An address in the configuration was chosen by the administrator.
        if configured.is_none() && !self.is_allowed(&found) {
            return Err(Inconclusive(NOT_PUBLIC.to_owned()));
        }
        let mut last = OutboundError::NoAddress;
        for to in found {
            let request = request(to, https, check, Vec::new());
            match self.outbound.send(request, MAX_BODY, remaining()).await {
                Err(error @ (OutboundError::Unreachable | OutboundError::ConnectTimeout)) => last = error,
                result => return result.map_err(unanswered),
            }
        }
        Err(unanswered(last))
    }

    /// Returns whether a host name with these addresses may be used: a single address that is not allowed rejects all.
    fn is_allowed(&self, found: &[SocketAddr]) -> bool {
        let may = |ip| is_public(ip) || (self.settings.private && is_private(ip));
        found.iter().all(|address| may(address.ip()))
    }
}

/// Why a site is not checked at its hostname without TLS.
const NEEDS_TLS: &str = "sites without TLS are checked only at a configured address; set `gate.address` \
                     (`CDM_GATE_ADDRESS`) to where their requests arrive";
/// Why a site is not checked at the address of its hostname.
const NOT_PUBLIC: &str = "the hostname resolves to an address that is not public; set `gate.address` \
                      (`CDM_GATE_ADDRESS`) to where requests of sites arrive, or set `gate.private = true`";

fn unanswered(error: OutboundError) -> Inconclusive {
    Inconclusive(error.to_string())
}

impl fmt::Debug for HttpProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpProbe").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[async_trait]
impl HealthProbe for HttpProbe {
    async fn probe(&self, check: &ProbeRequest) -> Result<ProbeResponse, Inconclusive> {
        let received = self.send(check).await?;
        let by = match check.via {
            // The service is connected directly.
            Via::Service(color) => Some(color),
            Via::Route => service_in_header(&received, &self.settings.header),
        };
        Ok(response(&received, check, by))
    }
}

/// Returns the request of a check, with additional headers.
pub(in crate::adapters) fn request(
    to: SocketAddr,
    tls: bool,
    check: &ProbeRequest,
    headers: Vec<(HeaderName, HeaderValue)>,
) -> OutboundRequest {
    let mut all = vec![(USER_AGENT, HeaderValue::from_static("cdm-gate"))];
    all.extend(headers);
    OutboundRequest {
        to,
        tls,
        name: check.host.as_str().to_owned(),
        port: None,
        method: Method::GET,
        target: check.path.clone(),
        headers: all,
        body: Vec::new(),
    }
}

/// Converts a response from the service `by` for the gate; `by` is `None` if the service is unknown.
pub(in crate::adapters) fn response(
    received: &OutboundResponse,
    check: &ProbeRequest,
    by: Option<Color>,
) -> ProbeResponse {
    let found = |text: &String| received.body.windows(text.len()).any(|window| window == text.as_bytes());
    ProbeResponse {
        status: received.status,
        contains: check.text.as_ref().is_none_or(found),
        took: received.took.max(Duration::from_millis(1)),
        by,
    }
}

/// Returns the service in a header of the response.
pub(in crate::adapters) fn service_in_header(
    received: &OutboundResponse,
    header: &HeaderName,
) -> Option<Color> {
    Color::parse(received.headers.get(header)?.to_str().ok()?.trim()).ok()
}
