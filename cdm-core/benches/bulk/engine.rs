//! CDM: the manager and a worker on the DynamoDB and Kubernetes adapters.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use cdm_core::adapters::aws::{Aws, AwsSettings};
use cdm_core::adapters::dynamodb::{DynamoStore, DynamoTable};
use cdm_core::adapters::kubernetes::{Access, KubernetesCluster, KubernetesSettings};
use cdm_core::adapters::{OsIds, SystemClock};
use cdm_core::domain::rollout::{RolloutKind, RolloutSpec};
use cdm_core::domain::{Color, Digest, Fence, JobName, Role, RolloutStatus, Routed, Site, WorkerId};
use cdm_core::engine::{Settings, Worker};
use cdm_core::manager::{Accepted, Manager, Request, RolloutScope};
use cdm_core::pipelines::{PipelineSettings, Rollouts, registry};
use cdm_core::ports::{
    CallContext, ChangeCursor, Clock, ClusterOps, Entropy, JobKind, JobSpec, JobState, Journal, Mutation,
    Outcome, Ports, RouteSpec, SiteQuery, SiteRepository, WriteBatch,
};
use cdm_testkit::clock::SimClock;
use cdm_testkit::fakes::{FakeCluster, FakeDatabases, FakeObjects, FakeProbe, FakeSecrets};
use cdm_testkit::fixtures;
use cdm_testkit::log::EffectLog;
use futures_util::{StreamExt, stream};
use tempfile::NamedTempFile;

use crate::servers::{NAMESPACE, REPOSITORY, Servers};

/// Number of sites created concurrently.
const CONCURRENCY: usize = 32;

/// What is created for each site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SiteSetup {
    /// The site's record and its route.
    WithRoute,
    /// The record only: no test reads the route of an idle site.
    RecordOnly,
}

/// A platform whose sites are all active and idle.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) table: String,
    pub(crate) sites: Vec<Site>,
    clock: SystemClock,
    ids: Arc<OsIds>,
    store: Arc<DynamoStore>,
    cluster: Arc<KubernetesCluster>,
    manager: Manager,
    worker: Worker,
    kubeconfig: NamedTempFile,
}

impl Engine {
    /// Creates a platform with `sites` sites on blue.
    pub(crate) async fn new(servers: &Servers, sites: u32, setup: SiteSetup) -> Self {
        let (clock, ids) = (SystemClock::new(), Arc::new(OsIds::new().expect("chance")));
        let account = AwsSettings { endpoint: Some(servers.dynamodb.clone()), ..AwsSettings::default() };
        let name = format!("cdm-bulk-{:016x}", ids.write().0);
        let table = DynamoTable::new(&Aws::load(&account).await, &name, Arc::new(clock));
        table.bootstrap().await.expect("a table");
        let store = Arc::new(DynamoStore::new(table));
        let mut kubeconfig = NamedTempFile::new().expect("a file");
        kubeconfig.write_all(servers.kubeconfig.as_bytes()).expect("a kubeconfig");
        let cluster = Arc::new(cluster(&kubeconfig, KubernetesSettings::new(NAMESPACE, REPOSITORY)).await);
        // Backends that a promote does not use.
        let (log, sim_clock) = (EffectLog::off, SimClock::new());
        let other = Arc::new(FakeCluster::new(log(), sim_clock.clone()));
        let ports = Ports {
            store: store.clone(),
            secrets: Arc::new(FakeSecrets::new(log(), sim_clock.clone())),
            objects: Arc::new(FakeObjects::new(log(), sim_clock.clone())),
            databases: Arc::new(FakeDatabases::new(log(), sim_clock.clone())),
            cluster: cluster.clone(),
            probe: Arc::new(FakeProbe::new(other, sim_clock)),
            clock: Arc::new(clock),
            entropy: ids.clone(),
        };
        let (settings, measures) = (Settings::default(), PipelineSettings::default());
        let pipelines = Arc::new(registry(&measures));
        let id = WorkerId::new("worker-1");
        let rollouts = Arc::new(Rollouts::new(measures));
        let worker = Worker::new(id, ports.clone(), Arc::clone(&pipelines), rollouts, settings.clone());
        let manager = Manager::new(ports, pipelines, settings);
        let mut platform =
            Self { table: name, sites: Vec::new(), clock, ids, store, cluster, manager, worker, kubeconfig };
        let setup =
            stream::iter(0..sites).map(|n| platform.site(n, setup)).buffered(CONCURRENCY).collect().await;
        platform.sites = setup;
        platform
    }

    async fn site(&self, n: u32, setup: SiteSetup) -> Site {
        let id = format!("site-{n:06}");
        let route = Routed { service: Color::Blue, fence: Fence::default() };
        let site = Site { route: Some(route), uid: self.ids.uid(self.clock.wall()), ..fixtures::site(&id) };
        let spec = RouteSpec {
            uid: site.uid,
            site: site.id.clone(),
            hostnames: site.hostnames.clone(),
            service: route.service,
        };
        if setup == SiteSetup::WithRoute {
            assert_applied(self.cluster.put_route(&self.call(), &spec).await);
        }
        let batch = WriteBatch::of(vec![Mutation::CreateSite(Box::new(site.clone()))]);
        assert_applied(self.store.write(&self.call(), &batch).await);
        site
    }

    fn call(&self) -> CallContext {
        let deadline = self.clock.monotonic().after(Duration::from_secs(30));
        CallContext { deadline, write: self.ids.write(), fence: Fence::default() }
    }

    /// Makes a color the canary, so that the next accepted promote targets it.
    pub(crate) async fn set_canary(&self, to: Color) {
        let canary = self.cluster.canary().await.expect("the canary");
        let version = canary.map(|canary| canary.version);
        let digest = Digest::parse(&"0".repeat(64)).expect("a digest");
        assert_applied(self.cluster.set_canary(&self.call(), version.as_ref(), to, Some(digest)).await);
    }

    /// Moves every site to the canary in one rollout, and returns when the rollout has ended.
    pub(crate) async fn promote(&self) {
        let wanted = RolloutSpec {
            kind: RolloutKind::Promote,
            scope: RolloutScope::Inactive,
            ..RolloutSpec::default()
        };
        let accepted =
            self.manager.rollout(&Request::by(fixtures::actor(), Role::Admin), &wanted, None).await;
        let Ok(Accepted::Rollout(number)) = accepted else {
            panic!("the rollout is not accepted: {accepted:?}")
        };
        loop {
            let next_poll_at = self.worker.run_once().await.next_poll_at;
            let rollout = self.store.rollout(number).await.expect("a response").expect("a rollout");
            if rollout.status.ended() {
                assert_eq!(rollout.status, RolloutStatus::Succeeded, "{rollout:?}");
                return;
            }
            let wait =
                next_poll_at.map_or(Duration::ZERO, |next_poll_at| next_poll_at.since(self.clock.wall()));
            self.clock.sleep_until(self.clock.monotonic().after(wait)).await;
        }
    }

    /// Asserts that every site is on `to`, by its record and by the route of the first one.
    pub(crate) async fn assert_moved(&self, to: Color) {
        let query = SiteQuery { service: Some(to.other()), ..SiteQuery::default() };
        assert_eq!(self.store.count(&query).await.expect("a count"), 0, "a site was not moved");
        let first = self.sites.first().expect("a site");
        let route = self.cluster.route(first.uid).await.expect("a response").expect("a route");
        assert_eq!(route.service, to);
    }

    /// Flushes the caches of these sites, `sites` sites in each job and `slots` in each of its pods.
    pub(crate) async fn flush(&self, sites_to_flush: &[Site], sites: usize, slots_per_pod: u32) {
        let settings = KubernetesSettings::new(NAMESPACE, REPOSITORY);
        let settings = KubernetesSettings { batch_slots: slots_per_pod, ..settings };
        let cluster = &cluster(&self.kubeconfig, settings).await;
        let jobs = sites_to_flush.chunks(sites).enumerate().map(|(at, some)| async move {
            let kind = JobKind::FlushCaches { uids: some.iter().map(|site| site.uid).collect() };
            let at = u32::try_from(at).expect("a small number");
            // A number that no other job uses.
            let name = JobName::of_window(kind.word(), self.ids.write().0, at, 1);
            let spec = JobSpec { name: name.clone(), service: Color::Blue, kind };
            assert_applied(cluster.run_job(&self.call(), &spec).await);
            let mut mark = ChangeCursor::default();
            loop {
                let job = cluster.job(&name).await.expect("a response").expect("a job");
                if job.state != JobState::Running {
                    assert_eq!(job.state, JobState::Succeeded { failed: Vec::new() });
                    return;
                }
                (_, mark) = cluster.changes(mark, Duration::from_millis(200)).await.expect("news");
            }
        });
        stream::iter(jobs).buffer_unordered(64).collect::<Vec<()>>().await;
    }

    /// Runs the worker for `span` while there is no work.
    pub(crate) async fn idle(&self, span: Duration) {
        let until = self.clock.sleep_until(self.clock.monotonic().after(span));
        tokio::select! {
            () = self.worker.run() => panic!("the worker returned"),
            () = until => {}
        }
    }
}

fn assert_applied<E: std::fmt::Debug>(outcome: Outcome<(), E>) {
    assert!(matches!(outcome, Outcome::Applied(())), "the setup was rejected: {outcome:?}");
}

async fn cluster(kubeconfig: &NamedTempFile, settings: KubernetesSettings) -> KubernetesCluster {
    let access = Access::Kubeconfig { path: kubeconfig.path().to_owned(), context: None };
    let secrets = FakeSecrets::new(EffectLog::off(), SimClock::new());
    let cluster = KubernetesCluster::new(settings, &access, Arc::new(secrets), Arc::new(SystemClock::new()));
    cluster.await.expect("a cluster")
}
