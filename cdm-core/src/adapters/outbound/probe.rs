//! Sites asked over HTTP: at the address of their route, or at a service's own.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hyper::Method;
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue, USER_AGENT};

use super::{Answered, Asked, Outbound, OutboundError};
use crate::domain::Selector;
use crate::domain::rollout::Answer;
use crate::ports::{Check, Clock, HealthProbe, Inconclusive, Via};

/// Most bytes of a body that a text is looked for in.
const MOST_BODY: usize = 256 << 10;

/// Where sites are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSettings {
    /// Whether visitors come over TLS.
    pub https: bool,
    /// Where their requests arrive; `None`: where the hostname itself leads.
    pub route: Option<(String, u16)>,
    /// Host and port of the services, blue and green; they are asked without TLS.
    pub services: [(String, u16); 2],
    /// The header of an answer that names the service which it is from.
    pub header: HeaderName,
}

/// Asks sites as their visitors do, and services by their own addresses.
pub struct HttpProbe {
    outbound: Outbound,
    settings: ProbeSettings,
    clock: Arc<dyn Clock>,
}

impl HttpProbe {
    /// With these addresses.
    pub fn new(settings: ProbeSettings, clock: Arc<dyn Clock>) -> Self {
        Self { outbound: Outbound::new(Arc::clone(&clock)), settings, clock }
    }

    /// The first address that can be connected to is the one that is asked.
    async fn ask(&self, check: &Check) -> Result<Answered, OutboundError> {
        let (https, place) = match check.via {
            Via::Service(selector) => {
                let [blue, green] = &self.settings.services;
                (false, Some(if selector == Selector::Blue { blue } else { green }))
            }
            Via::Route => (self.settings.https, self.settings.route.as_ref()),
        };
        let usual = if https { 443 } else { 80 };
        let (name, port) = place.map_or((check.host.as_str(), usual), |(name, port)| (name, *port));
        let started = self.clock.monotonic();
        let left = || check.patience.saturating_sub(self.clock.monotonic().since(started));
        let mut last = OutboundError::NoAddress;
        for to in self.outbound.resolve(name, port, check.patience).await? {
            let asked = asked(to, https, check, Vec::new());
            match self.outbound.ask(asked, MOST_BODY, left()).await {
                Err(error @ (OutboundError::Unreachable | OutboundError::Slow)) => last = error,
                answered => return answered,
            }
        }
        Err(last)
    }
}

impl fmt::Debug for HttpProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpProbe").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[async_trait]
impl HealthProbe for HttpProbe {
    async fn probe(&self, check: &Check) -> Result<Answer, Inconclusive> {
        let answered = self.ask(check).await.map_err(|error| Inconclusive(error.to_string()))?;
        let by = match check.via {
            // Nothing stands between.
            Via::Service(selector) => Some(selector),
            Via::Route => named(&answered, &self.settings.header),
        };
        Ok(answer(&answered, check, by))
    }
}

/// The request of a check, with further headers.
pub(in crate::adapters) fn asked(
    to: SocketAddr,
    tls: bool,
    check: &Check,
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
pub(in crate::adapters) fn answer(answered: &Answered, check: &Check, by: Option<Selector>) -> Answer {
    let found = |text: &String| answered.body.windows(text.len()).any(|window| window == text.as_bytes());
    Answer {
        status: answered.status,
        contains: check.text.as_ref().is_none_or(found),
        took: answered.took.max(Duration::from_millis(1)),
        by,
    }
}

/// The service that an answer's header names.
pub(in crate::adapters) fn named(answered: &Answered, header: &HeaderName) -> Option<Selector> {
    Selector::parse(answered.headers.get(header)?.to_str().ok()?.trim()).ok()
}
