//! Sites whose responses depend on their route, the service behind it, and a script.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cdm_core::domain::rollout::ProbeResponse;
use cdm_core::domain::{Color, Digest, MonotonicTime, Uid};
use cdm_core::ports::{Clock, ClusterOps, HealthProbe, Inconclusive, ProbeRequest, Route, Via};

use crate::clock::SimClock;

/// Response time without a script.
const USUAL_LATENCY: Duration = Duration::from_millis(80);

/// Probes the sites of a cluster. Clones share one state.
///
/// A site responds with 200 and its uid as the body, from the service that its route points to, or with 503
/// from no service if that service is not ready. The probe reads the cluster without fault injection and
/// changes nothing there.
#[derive(Clone)]
pub struct FakeProbe {
    state: Arc<Mutex<ProbeScript>>,
    cluster: Arc<dyn ClusterOps>,
    clock: SimClock,
}

#[derive(Debug, Default)]
struct ProbeScript {
    broken: BTreeSet<Digest>,
    broken_sites: BTreeSet<(Uid, Digest)>,
    slow: BTreeMap<Digest, Duration>,
    unreachable: BTreeSet<Uid>,
    omits_service: bool,
    route_lag: Duration,
    visible: BTreeMap<Uid, (Color, Option<MonotonicTime>)>,
    probes: u64,
}

impl FakeProbe {
    /// Creates a probe to which every site responds normally.
    pub fn new(cluster: Arc<dyn ClusterOps>, clock: SimClock) -> Self {
        Self { state: Arc::default(), cluster, clock }
    }

    /// Makes sites on a service that runs this digest respond with 500.
    pub fn break_digest(&self, digest: Digest) {
        self.lock().broken.insert(digest);
    }

    /// Makes one site respond with 500 on a service that runs this digest.
    pub fn break_site(&self, uid: Uid, digest: Digest) {
        self.lock().broken_sites.insert((uid, digest));
    }

    /// Sets the response time of this digest.
    pub fn slow_down(&self, digest: Digest, takes: Duration) {
        self.lock().slow.insert(digest, takes);
    }

    /// Makes a site unreachable through its route, or reachable again.
    pub fn set_unreachable(&self, uid: Uid, unreachable: Unreachable) {
        match unreachable {
            Unreachable::Yes => self.lock().unreachable.insert(uid),
            Unreachable::No => self.lock().unreachable.remove(&uid),
        };
    }

    /// Makes responses through a route not identify their service.
    pub fn omit_service(&self) {
        self.lock().omits_service = true;
    }

    /// Makes each of these routes lag: it leads to its previous service until `route_lag` after its change was first
    /// observed.
    pub fn delay_routes(&self, route_lag: Duration, routes: &[Route]) {
        let mut state = self.lock();
        state.route_lag = route_lag;
        state.visible = routes.iter().map(|route| (route.uid, (route.service, None))).collect();
    }

    /// Returns the number of probes.
    pub fn probe_count(&self) -> u64 {
        self.lock().probes
    }

    fn lock(&self) -> MutexGuard<'_, ProbeScript> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the service that visitors of a route reach.
    fn visible_service(&self, uid: Uid, routed: Color) -> Color {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        let route_lag = state.route_lag;
        let Some((visible, since)) = state.visible.get_mut(&uid).filter(|_| !route_lag.is_zero()) else {
            return routed;
        };
        if *visible == routed {
            *since = None;
        } else if now.since(*since.get_or_insert(now)) >= route_lag {
            (*visible, *since) = (routed, None);
        }
        *visible
    }
}

/// Whether a site is unreachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// The site is unreachable.
    Yes,
    /// The site is reachable.
    No,
}

impl fmt::Debug for FakeProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeProbe")
    }
}

#[async_trait]
impl HealthProbe for FakeProbe {
    async fn probe(&self, check: &ProbeRequest) -> Result<ProbeResponse, Inconclusive> {
        self.lock().probes += 1;
        let service = match check.via {
            Via::Service(color) => color,
            Via::Route => {
                if self.lock().unreachable.contains(&check.uid) {
                    return Err(Inconclusive("the connection cannot be established".to_owned()));
                }
                let route = self.cluster.route(check.uid).await;
                match route.map_err(|error| Inconclusive(error.message))? {
                    Some(route) if route.hostnames.all().contains(&check.host) => {
                        self.visible_service(check.uid, route.service)
                    }
                    Some(_) | None => {
                        return Ok(ProbeResponse {
                            status: 404,
                            contains: false,
                            took: USUAL_LATENCY,
                            by: None,
                        });
                    }
                }
            }
        };
        let view = self.cluster.service(service).await.map_err(|error| Inconclusive(error.message))?;
        let state = self.lock();
        let by = Some(service).filter(|_| !state.omits_service || check.via != Via::Route);
        let Some(digest) = view.digest.filter(|_| view.is_ready()) else {
            return Ok(ProbeResponse { status: 503, contains: false, took: USUAL_LATENCY, by: None });
        };
        let broken = state.broken.contains(&digest) || state.broken_sites.contains(&(check.uid, digest));
        let body = check.uid.to_string();
        Ok(ProbeResponse {
            status: if broken { 500 } else { 200 },
            contains: check.text.as_ref().is_none_or(|text| !broken && body.contains(text.as_str())),
            took: state.slow.get(&digest).copied().unwrap_or(USUAL_LATENCY),
            by,
        })
    }
}
