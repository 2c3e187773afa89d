//! Sites that answer as their route, the service behind it, and a script say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cdm_core::domain::rollout::ProbeResponse;
use cdm_core::domain::{Color, Digest, MonotonicTime, Uid};
use cdm_core::ports::{Clock, ClusterOps, HealthProbe, Inconclusive, ProbeRequest, Route, Via};

use crate::clock::SimClock;

/// How long an answer takes where no script says otherwise.
const USUAL: Duration = Duration::from_millis(80);

/// Asks the sites of a cluster; clones ask the same.
///
/// A site answers 200 with its uid as its text, from the service that its route leads to, and, from nobody,
/// 503 where that is not ready. It asks the cluster itself and changes nothing there.
#[derive(Clone)]
pub struct FakeProbe {
    state: Arc<Mutex<Script>>,
    cluster: Arc<dyn ClusterOps>,
    clock: SimClock,
}

#[derive(Debug, Default)]
struct Script {
    broken: BTreeSet<Digest>,
    broken_sites: BTreeSet<(Uid, Digest)>,
    slow: BTreeMap<Digest, Duration>,
    away: BTreeSet<Uid>,
    nameless: bool,
    lag: Duration,
    shown: BTreeMap<Uid, (Color, Option<MonotonicTime>)>,
    asked: u64,
}

impl FakeProbe {
    /// Every site works.
    pub fn new(cluster: Arc<dyn ClusterOps>, clock: SimClock) -> Self {
        Self { state: Arc::default(), cluster, clock }
    }

    /// Sites on a service that runs this digest answer 500.
    pub fn break_digest(&self, digest: Digest) {
        self.lock().broken.insert(digest);
    }

    /// They do not any more.
    pub fn mend_digest(&self, digest: Digest) {
        self.lock().broken.remove(&digest);
    }

    /// That site answers 500 on a service that runs this digest.
    pub fn break_site(&self, uid: Uid, digest: Digest) {
        self.lock().broken_sites.insert((uid, digest));
    }

    /// Answers of this digest take so long.
    pub fn slow_down(&self, digest: Digest, takes: Duration) {
        self.lock().slow.insert(digest, takes);
    }

    /// That site cannot be asked through its route, or can again.
    pub fn away(&self, uid: Uid, away: Away) {
        match away {
            Away::Yes => self.lock().away.insert(uid),
            Away::No => self.lock().away.remove(&uid),
        };
    }

    /// No answer through a route says which service it is from.
    pub fn nameless(&self) {
        self.lock().nameless = true;
    }

    /// From now on each of these routes leads where it led before for so long after it was seen to have changed.
    pub fn lag(&self, lag: Duration, routes: &[Route]) {
        let mut state = self.lock();
        state.lag = lag;
        state.shown = routes.iter().map(|route| (route.uid, (route.service, None))).collect();
    }

    /// How often it was asked.
    pub fn asked(&self) -> u64 {
        self.lock().asked
    }

    fn lock(&self) -> MutexGuard<'_, Script> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The service that a route leads to for visitors.
    fn leads(&self, uid: Uid, routed: Color) -> Color {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        let lag = state.lag;
        let Some((shown, since)) = state.shown.get_mut(&uid).filter(|_| !lag.is_zero()) else {
            return routed;
        };
        if *shown == routed {
            *since = None;
        } else if now.since(*since.get_or_insert(now)) >= lag {
            (*shown, *since) = (routed, None);
        }
        *shown
    }
}

/// Whether a site is out of reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Away {
    /// It is.
    Yes,
    /// It is not.
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
        self.lock().asked += 1;
        let service = match check.via {
            Via::Service(color) => color,
            Via::Route => {
                if self.lock().away.contains(&check.uid) {
                    return Err(Inconclusive("no connection comes about".to_owned()));
                }
                let route = self.cluster.route(check.uid).await;
                match route.map_err(|error| Inconclusive(error.message))? {
                    Some(route) if route.hostnames.all().contains(&check.host) => {
                        self.leads(check.uid, route.service)
                    }
                    Some(_) | None => {
                        return Ok(ProbeResponse { status: 404, contains: false, took: USUAL, by: None });
                    }
                }
            }
        };
        let view = self.cluster.service(service).await.map_err(|error| Inconclusive(error.message))?;
        let state = self.lock();
        let by = Some(service).filter(|_| !state.nameless || check.via != Via::Route);
        let Some(digest) = view.digest.filter(|_| view.is_ready()) else {
            return Ok(ProbeResponse { status: 503, contains: false, took: USUAL, by: None });
        };
        let broken = state.broken.contains(&digest) || state.broken_sites.contains(&(check.uid, digest));
        let body = check.uid.to_string();
        Ok(ProbeResponse {
            status: if broken { 500 } else { 200 },
            contains: check.text.as_ref().is_none_or(|text| !broken && body.contains(text.as_str())),
            took: state.slow.get(&digest).copied().unwrap_or(USUAL),
            by,
        })
    }
}
