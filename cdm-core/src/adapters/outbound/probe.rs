//! Sites asked over HTTP: at the address of their route, or at a service's own.
//!
//! Hostnames of sites are chosen by operators, and their DNS by whoever owns them. Where the configuration does not say
//! at which address routes are reached, what a hostname resolves to is judged as the address of a webhook is: once, all
//! of it, and the connection goes to what was judged.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hyper::Method;
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue, USER_AGENT};

use super::webhook::Lookup;
use super::{Answered, Asked, Outbound, OutboundError};
use crate::domain::Color;
use crate::domain::rollout::ProbeResponse;
use crate::domain::webhook::{is_private, is_public};
use crate::ports::{Clock, HealthProbe, Inconclusive, ProbeRequest, Via};

/// Most bytes of a body that a text is looked for in.
const MOST_BODY: usize = 256 << 10;

/// Where sites are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSettings {
    /// Whether visitors come over TLS.
    pub https: bool,
    /// Where their requests arrive; `None`: where the hostname itself leads, which takes TLS and a public address.
    pub route: Option<(String, u16)>,
    /// Whether a hostname may also lead to a private address. Loopback, link-local and metadata addresses never count.
    pub private: bool,
    /// Host and port of the services, blue and green; they are asked without TLS.
    pub services: [(String, u16); 2],
    /// The header of an answer that names the service which it is from.
    pub header: HeaderName,
}

/// Asks sites as their visitors do, and services by their own addresses.
pub struct HttpProbe {
    outbound: Outbound,
    lookup: Arc<dyn Lookup>,
    settings: ProbeSettings,
    clock: Arc<dyn Clock>,
}

impl HttpProbe {
    /// With these addresses.
    pub fn new(settings: ProbeSettings, clock: Arc<dyn Clock>) -> Self {
        let outbound = Outbound::new(Arc::clone(&clock));
        Self::with(settings, outbound.clone(), Arc::new(outbound), clock)
    }

    /// Asks `lookup` for addresses, which is `outbound` itself but for tests.
    pub fn with(
        settings: ProbeSettings,
        outbound: Outbound,
        lookup: Arc<dyn Lookup>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { outbound, lookup, settings, clock }
    }

    /// The first address that can be connected to is the one that is asked.
    async fn ask(&self, check: &ProbeRequest) -> Result<Answered, Inconclusive> {
        let (https, place) = match check.via {
            Via::Service(color) => {
                let [blue, green] = &self.settings.services;
                (false, Some(if color == Color::Blue { blue } else { green }))
            }
            Via::Route => (self.settings.https, self.settings.route.as_ref()),
        };
        // Without TLS nothing proves that the answer is the site's, and the gate's text would be looked for anywhere.
        if place.is_none() && !https {
            return Err(Inconclusive(PLAIN.to_owned()));
        }
        let usual = if https { 443 } else { 80 };
        let (name, port) = place.map_or((check.host.as_str(), usual), |(name, port)| (name, *port));
        let started = self.clock.monotonic();
        let left = || check.timeout.saturating_sub(self.clock.monotonic().since(started));
        let found = self.lookup.look_up(name, port, check.timeout).await.map_err(unanswered)?;
        // What the configuration names is the administrator's choice.
        if place.is_none() && !self.may_ask(&found) {
            return Err(Inconclusive(INSIDE.to_owned()));
        }
        let mut last = OutboundError::NoAddress;
        for to in found {
            let asked = asked(to, https, check, Vec::new());
            match self.outbound.ask(asked, MOST_BODY, left()).await {
                Err(error @ (OutboundError::Unreachable | OutboundError::Slow)) => last = error,
                answered => return answered.map_err(unanswered),
            }
        }
        Err(unanswered(last))
    }

    /// Whether a hostname that resolves to these may be asked: one address inside refuses them all.
    fn may_ask(&self, found: &[SocketAddr]) -> bool {
        let may = |ip| is_public(ip) || (self.settings.private && is_private(ip));
        found.iter().all(|address| may(address.ip()))
    }
}

/// Why a site's hostname is not asked without TLS.
const PLAIN: &str = "sites without TLS are asked only at a configured address; set `gate.address` \
                     (`CDM_GATE_ADDRESS`) to where their requests arrive";
/// Why a site's hostname is not asked where it leads.
const INSIDE: &str = "the hostname leads to an address that is not public; set `gate.address` \
                      (`CDM_GATE_ADDRESS`) to where requests of sites arrive, or `gate.private = true`";

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
        let answered = self.ask(check).await?;
        let by = match check.via {
            // Nothing stands between.
            Via::Service(color) => Some(color),
            Via::Route => named(&answered, &self.settings.header),
        };
        Ok(answer(&answered, check, by))
    }
}

/// The request of a check, with further headers.
pub(in crate::adapters) fn asked(
    to: SocketAddr,
    tls: bool,
    check: &ProbeRequest,
    headers: Vec<(HeaderName, HeaderValue)>,
) -> Asked {
    let mut all = vec![(USER_AGENT, HeaderValue::from_static("cdm-gate"))];
    all.extend(headers);
    Asked {
        to,
        tls,
        name: check.host.as_str().to_owned(),
        port: None,
        method: Method::GET,
        target: check.path.clone(),
        headers: all,
        body: Bytes::new(),
    }
}

/// What an answer that is known to come from `by` is to a gate.
pub(in crate::adapters) fn answer(
    answered: &Answered,
    check: &ProbeRequest,
    by: Option<Color>,
) -> ProbeResponse {
    let found = |text: &String| answered.body.windows(text.len()).any(|window| window == text.as_bytes());
    ProbeResponse {
        status: answered.status,
        contains: check.text.as_ref().is_none_or(found),
        took: answered.took.max(Duration::from_millis(1)),
        by,
    }
}

/// The service that an answer's header names.
pub(in crate::adapters) fn named(answered: &Answered, header: &HeaderName) -> Option<Color> {
    Color::parse(answered.headers.get(header)?.to_str().ok()?.trim()).ok()
}
