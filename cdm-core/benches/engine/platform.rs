//! A platform of fakes with many sites, and the two drivers of its work: the engine and a bare loop.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use cdm_core::domain::rollout::{RolloutKind, RolloutSpec};
use cdm_core::domain::{
    Color, Fence, MonotonicTime, Role, RolloutStatus, Routed, Site, SiteId, Timestamp, Uid, WorkerId,
};
use cdm_core::engine::{Settings, Worker};
use cdm_core::manager::{Accepted, Manager, Request, RolloutScope};
use cdm_core::pipelines::{PipelineSettings, Rollouts, registry};
use cdm_core::ports::{
    CallContext, Clock, ClusterOps, Entropy, Journal, Mutation, Outcome, Ports, RouteSpec, WriteBatch,
    WriteId,
};
use cdm_testkit::clock::SimClock;
use cdm_testkit::fakes::{FakeCluster, FakeDatabases, FakeObjects, FakeProbe, FakeSecrets, FakeStore};
use cdm_testkit::fixtures;
use cdm_testkit::ids::SeededIds;
use cdm_testkit::log::EffectLog;
use cdm_testkit::world::{digest, now};
use secrecy::SecretString;

use crate::codec::Codec;
use crate::tap::{RecordedCall, Recorder, Tap, Trace, replay, tapped};

/// The cost of the fakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fakes {
    /// Only the cost of a map in memory.
    InMemory,
    /// Each call additionally encodes a request and decodes a response.
    Encoding,
}

/// Operations that are requested for single sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Single {
    Upgrade,
    Promote,
}

/// A platform on fakes.
#[derive(Debug)]
pub(crate) struct Platform {
    clock: SimClock,
    store: FakeStore,
    cluster: FakeCluster,
    ports: Ports,
    recorder: Option<Recorder>,
    manager: Manager,
    worker: Worker,
}

/// Write ids for the setup, distinct from those that are recorded and reused.
#[derive(Debug)]
struct OtherIds(SeededIds);

impl Entropy for OtherIds {
    fn uid(&self, now: Timestamp) -> Uid {
        self.0.uid(now)
    }

    fn password(&self) -> SecretString {
        self.0.password()
    }

    fn write(&self) -> WriteId {
        WriteId(self.0.write().0 | 1 << 48)
    }

    fn jitter(&self) -> f64 {
        self.0.jitter()
    }
}

impl Platform {
    /// Creates a platform with `sites` active sites, all on blue; with a `recorder`, the engine's calls are recorded.
    pub(crate) fn new(sites: u32, fakes: Fakes, recorder: Option<Recorder>) -> Self {
        let clock = SimClock::new();
        let log = EffectLog::off;
        let store = FakeStore::new(log(), clock.clone());
        let cluster = FakeCluster::new(log(), clock.clone());
        let raw = Ports {
            store: Arc::new(store.clone()),
            secrets: Arc::new(FakeSecrets::new(log(), clock.clone())),
            objects: Arc::new(FakeObjects::new(log(), clock.clone())),
            databases: Arc::new(FakeDatabases::new(log(), clock.clone())),
            cluster: Arc::new(cluster.clone()),
            probe: Arc::new(FakeProbe::new(Arc::new(cluster.clone()), clock.clone())),
            clock: Arc::new(clock.clone()),
            entropy: Arc::new(OtherIds(SeededIds::new(2))),
        };
        let mut ports = Ports { entropy: Arc::new(SeededIds::new(1)), ..raw.clone() };
        if fakes == Fakes::Encoding {
            let codec: Arc<dyn Tap> = Arc::new(Codec::new());
            ports = tapped(&ports, &codec);
        }
        if let Some(recorder) = &recorder {
            let recorder: Arc<dyn Tap> = Arc::new(recorder.clone());
            ports = tapped(&ports, &recorder);
        }
        let settings = Settings::default();
        let measures = PipelineSettings::default();
        let pipelines = Arc::new(registry(&measures));
        let worker = Worker::new(
            WorkerId::new("worker-1"),
            ports.clone(),
            Arc::clone(&pipelines),
            Arc::new(Rollouts::new(measures)),
            settings.clone(),
        );
        let manager = Manager::new(raw, pipelines, settings);
        let platform = Self { clock, store, cluster, ports, recorder, manager, worker };
        platform.populate(sites);
        platform
    }

    fn populate(&self, sites: u32) {
        for color in Color::ALL {
            self.cluster.install(color, digest(0));
        }
        for n in 0..sites {
            let route = Routed { service: Color::Blue, fence: Fence::default() };
            let site = Site { route: Some(route), ..fixtures::site(site_id(n).as_str()) };
            let spec = RouteSpec {
                uid: site.uid,
                site: site.id.clone(),
                hostnames: site.hostnames.clone(),
                service: route.service,
            };
            assert_applied(now(self
                .cluster
                .put_route(&self.call(u64::from(n) + 1, Fence::default()), &spec)));
            let batch = WriteBatch::of(vec![Mutation::CreateSite(Box::new(site))]);
            assert_applied(now(self.store.write(&self.call(u64::from(n) + 1, Fence::default()), &batch)));
        }
    }

    fn call(&self, write: u64, fence: Fence) -> CallContext {
        CallContext { deadline: MonotonicTime::from_millis(u64::MAX), write: WriteId(write | 1 << 49), fence }
    }

    /// Makes a color the canary, so that the next accepted rollout targets it.
    pub(crate) fn set_canary(&self, to: Color) {
        let canary = now(self.cluster.canary()).unwrap_or_else(|error| panic!("{error}"));
        let version = canary.map(|canary| canary.version);
        assert_applied(now(self.cluster.set_canary(
            &self.call(0, Fence::default()),
            version.as_ref(),
            to,
            Some(digest(0)),
        )));
    }

    /// Accepts a rollout that moves every site to the canary.
    pub(crate) fn accept_rollout(&self) -> u64 {
        let wanted = RolloutSpec {
            kind: RolloutKind::Promote,
            scope: RolloutScope::Inactive,
            ..RolloutSpec::default()
        };
        match now(self.manager.rollout(&Request::by(fixtures::actor(), Role::Admin), &wanted, None)) {
            Ok(Accepted::Rollout(number)) => number,
            other => panic!("the rollout is not accepted: {other:?}"),
        }
    }

    /// Accepts one operation for each of these sites.
    pub(crate) fn accept_singles(&self, single: Single, sites: std::ops::Range<u32>) {
        let request = Request::by(fixtures::actor(), Role::Admin);
        for n in sites {
            let id = site_id(n);
            let accepted = match single {
                Single::Upgrade => now(self.manager.upgrade(&request, &id)),
                Single::Promote => now(self.manager.promote(&request, &id)),
            };
            assert!(matches!(accepted, Ok(Accepted::Operation(_))), "{id} is not accepted: {accepted:?}");
        }
    }

    /// Runs the engine until no work remains.
    pub(crate) fn work(&self) {
        while let Some(next_poll_at) = self.simulate(self.worker.run_once()).next_poll_at {
            self.advance(next_poll_at.since(self.clock.wall()));
        }
    }

    /// Makes the calls of a trace in a bare loop.
    pub(crate) fn replay(&self, trace: &Trace) {
        self.simulate(replay(&self.ports, &self.clock, trace));
    }

    /// Returns the engine's calls since the last call of this function.
    pub(crate) fn recorded(&self) -> Trace {
        self.recorder.as_ref().map(Recorder::take).unwrap_or_default()
    }

    /// Polls a future to completion; advances the simulated clock where the future waits.
    fn simulate<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return value;
            }
            let Some(next) = self.clock.next_sleeper() else {
                panic!("no timer is pending, and the future makes no progress")
            };
            self.advance(next.since(self.clock.monotonic()));
        }
    }

    fn advance(&self, span: std::time::Duration) {
        if let Some(recorder) = &self.recorder {
            recorder.push(RecordedCall::Advance(span));
        }
        self.clock.advance(span);
    }

    /// Asserts that every site is on `to`, every route points to `routed`, and no work remains.
    pub(crate) fn assert_moved(&self, to: Color, routed: Color) {
        assert!(now(self.store.pending_work()).is_ok_and(|live| live.is_empty()), "work remains");
        for rollout in self.store.all_rollouts() {
            assert_eq!(rollout.status, RolloutStatus::Succeeded, "a rollout did not succeed");
            assert_eq!(rollout.counts().succeeded, rollout.total, "not all sites were moved");
        }
        let routes = self.cluster.routes();
        assert!(routes.iter().all(|route| route.service == routed), "a route does not point to {routed}");
        let wrong =
            self.store.all_sites().into_iter().find(|site| site.service != to || site.operation.is_some());
        assert!(wrong.is_none(), "a site is not at rest on {to}: {wrong:?}");
    }

    /// Asserts that both platforms have the same sites and routes.
    pub(crate) fn assert_same(&self, other: &Self) {
        assert_eq!(self.store.all_sites(), other.store.all_sites(), "the bare loop produced different sites");
        assert_eq!(self.cluster.routes(), other.cluster.routes(), "the bare loop produced different routes");
    }
}

fn assert_applied<E: std::fmt::Debug>(outcome: Outcome<(), E>) {
    assert!(matches!(outcome, Outcome::Applied(())), "the setup was rejected: {outcome:?}");
}

fn site_id(n: u32) -> SiteId {
    SiteId::parse(&format!("site-{n:06}")).unwrap_or_else(|error| panic!("{error}"))
}
