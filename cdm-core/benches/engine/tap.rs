//! Decorators over the store and the cluster that hear every call, and the calls as something that can be made again.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cdm_core::domain::rollout::RolloutPage;
use cdm_core::domain::site::{Claim, Claimed, ReleaseClaim};
use cdm_core::domain::user::Users;
use cdm_core::domain::webhook::Webhooks;
use cdm_core::domain::{
    Actor, AuditEntry, Color, Digest, Fence, Fleet, Hostname, IdempotencyKey, JobName, Operation,
    OperationId, Rollout, Service, Site, SiteId, Uid, WorkerId,
};
use cdm_core::ports::{
    CallContext, Canary, CanaryVersion, ChangeCursor, Changed, ClusterOps, FeedEvent, Heartbeat,
    IdempotencyRecord, ImageWant, Job, JobSpec, Journal, Old, OperationQuery, Outcome, Page, PendingWork,
    PortError, Ports, Route, RouteSpec, ServiceView, SiteQuery, SiteRepository, Store, StoreError,
    WriteBatch, WriteError,
};
use cdm_testkit::clock::SimClock;

/// Hears of every call before it is made.
pub(crate) trait Tap: Send + Sync + fmt::Debug + 'static {
    /// A call, with what it brings.
    fn asked(&self, ask: Ask<'_>);
}

/// A call, borrowed from whoever makes it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask<'a> {
    Write(&'a CallContext, &'a WriteBatch),
    Claim(&'a CallContext, &'a Claim),
    Complete(&'a CallContext, &'a ReleaseClaim),
    Beat(&'a CallContext, &'a WorkerId, Option<u64>),
    MoveRoute(&'a CallContext, Uid, Fence, Color),
    RunJob(&'a CallContext, &'a JobSpec),
    Site(&'a SiteId),
    Colour(Color),
    Fleet,
    Rollout(u64),
    RolloutPage(u64, u32),
    Live,
    Beats,
    Service(Color),
    Route(Uid),
    Job(&'a JobName),
    Changes(ChangeCursor),
    /// A method that none of the measured runs needs.
    Other(&'static str),
}

/// The same, to be kept and made again; and time that passes in between.
#[derive(Debug)]
pub(crate) enum Recorded {
    Write(CallContext, Box<WriteBatch>),
    Claim(CallContext, Claim),
    Complete(CallContext, ReleaseClaim),
    Beat(CallContext, WorkerId, Option<u64>),
    MoveRoute(CallContext, Uid, Fence, Color),
    RunJob(CallContext, JobSpec),
    Site(SiteId),
    Colour(Color),
    Fleet,
    Rollout(u64),
    RolloutPage(u64, u32),
    Live,
    Beats,
    Service(Color),
    Route(Uid),
    Job(JobName),
    Changes(ChangeCursor),
    Advance(Duration),
}

impl Recorded {
    fn of(ask: Ask<'_>) -> Self {
        match ask {
            Ask::Write(call, batch) => Self::Write(*call, Box::new(batch.clone())),
            Ask::Claim(call, claim) => Self::Claim(*call, claim.clone()),
            Ask::Complete(call, complete) => Self::Complete(*call, complete.clone()),
            Ask::Beat(call, worker, count) => Self::Beat(*call, worker.clone(), count),
            Ask::MoveRoute(call, uid, expect, to) => Self::MoveRoute(*call, uid, expect, to),
            Ask::RunJob(call, spec) => Self::RunJob(*call, spec.clone()),
            Ask::Site(id) => Self::Site(id.clone()),
            Ask::Colour(color) => Self::Colour(color),
            Ask::Fleet => Self::Fleet,
            Ask::Rollout(number) => Self::Rollout(number),
            Ask::RolloutPage(number, page) => Self::RolloutPage(number, page),
            Ask::Live => Self::Live,
            Ask::Beats => Self::Beats,
            Ask::Service(color) => Self::Service(color),
            Ask::Route(uid) => Self::Route(uid),
            Ask::Job(name) => Self::Job(name.clone()),
            Ask::Changes(mark) => Self::Changes(mark),
            Ask::Other(method) => panic!("`{method}` was called in a measured run and is not replayed"),
        }
    }

    /// What kind of request it is.
    pub(crate) const fn kind(&self) -> Option<Request> {
        match self {
            Self::Claim(..) => Some(Request::Claim),
            Self::Complete(..) => Some(Request::Complete),
            Self::Write(..) => Some(Request::Write),
            Self::Beat(..) => Some(Request::Beat),
            Self::MoveRoute(..) => Some(Request::Route),
            Self::RunJob(..) => Some(Request::Job),
            Self::Site(_)
            | Self::Colour(_)
            | Self::Fleet
            | Self::Rollout(_)
            | Self::RolloutPage(..)
            | Self::Live
            | Self::Beats => Some(Request::StoreRead),
            Self::Service(_) => Some(Request::ServiceRead),
            Self::Route(_) => Some(Request::RouteRead),
            Self::Job(_) => Some(Request::JobRead),
            Self::Changes(_) => Some(Request::News),
            Self::Advance(_) => None,
        }
    }
}

/// The kinds of requests that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Request {
    Claim,
    Complete,
    Write,
    Beat,
    StoreRead,
    Route,
    Job,
    ServiceRead,
    RouteRead,
    JobRead,
    News,
}

impl Request {
    /// A step: a write to the store or an effect in the cluster. Signs of life are nobody's step.
    pub(crate) const fn is_step(self) -> bool {
        match self {
            Self::Claim | Self::Complete | Self::Write | Self::Route | Self::Job => true,
            Self::Beat
            | Self::StoreRead
            | Self::ServiceRead
            | Self::RouteRead
            | Self::JobRead
            | Self::News => false,
        }
    }
}

/// How many requests of each kind.
pub(crate) type Counts = BTreeMap<Request, u64>;

/// Every call, in order.
pub(crate) type Trace = Vec<Recorded>;

/// Counts the requests of a trace.
pub(crate) fn counts(trace: &[Recorded]) -> Counts {
    let mut counts = Counts::new();
    for request in trace.iter().filter_map(Recorded::kind) {
        *counts.entry(request).or_default() += 1;
    }
    counts
}

/// Keeps every call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder(Arc<Mutex<Trace>>);

impl Recorder {
    pub(crate) fn push(&self, recorded: Recorded) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(recorded);
    }

    /// What was recorded since the last time.
    pub(crate) fn take(&self) -> Trace {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Tap for Recorder {
    fn asked(&self, ask: Ask<'_>) {
        self.push(Recorded::of(ask));
    }
}

/// The bare loop: makes exactly these calls, one after the other, and decides nothing.
pub(crate) async fn replay(ports: &Ports, clock: &SimClock, trace: &[Recorded]) {
    let (store, cluster) = (&ports.store, &ports.cluster);
    for recorded in trace {
        let well = match recorded {
            Recorded::Write(call, batch) => applied(store.write(call, batch).await),
            Recorded::Claim(call, claim) => applied(store.claim(call, claim).await),
            Recorded::Complete(call, complete) => applied(store.release_claim(call, complete).await),
            Recorded::Beat(call, worker, count) => applied(store.heartbeat(call, worker, *count).await),
            Recorded::MoveRoute(call, uid, expect, to) => {
                applied(cluster.move_route(call, *uid, *expect, *to).await)
            }
            Recorded::RunJob(call, spec) => applied(cluster.run_job(call, spec).await),
            Recorded::Site(id) => store.site(id).await.is_ok(),
            Recorded::Colour(color) => store.service(*color).await.is_ok(),
            Recorded::Fleet => store.fleet().await.is_ok(),
            Recorded::Rollout(number) => store.rollout(*number).await.is_ok(),
            Recorded::RolloutPage(number, page) => store.rollout_page(*number, *page).await.is_ok(),
            Recorded::Live => store.pending_work().await.is_ok(),
            Recorded::Beats => store.heartbeats().await.is_ok(),
            Recorded::Service(color) => cluster.service(*color).await.is_ok(),
            Recorded::Route(uid) => cluster.route(*uid).await.is_ok(),
            Recorded::Job(name) => cluster.job(name).await.is_ok(),
            Recorded::Changes(mark) => cluster.changes(*mark, Duration::ZERO).await.is_ok(),
            Recorded::Advance(span) => {
                clock.advance(*span);
                true
            }
        };
        assert!(well, "the bare loop was refused: {recorded:?}");
    }
}

fn applied<T, E>(outcome: Outcome<T, E>) -> bool {
    matches!(outcome, Outcome::Applied(_))
}

/// These ports, with a tap before store and cluster.
pub(crate) fn tapped(ports: &Ports, tap: &Arc<dyn Tap>) -> Ports {
    Ports {
        store: Arc::new(TappedStore { inner: Arc::clone(&ports.store), tap: Arc::clone(tap) }),
        cluster: Arc::new(TappedCluster { inner: Arc::clone(&ports.cluster), tap: Arc::clone(tap) }),
        ..ports.clone()
    }
}

#[derive(Debug)]
struct TappedStore {
    inner: Arc<dyn Store>,
    tap: Arc<dyn Tap>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SiteRepository for TappedStore {
    async fn site(&self, id: &SiteId) -> Result<Option<Site>, StoreError> {
        self.tap.asked(Ask::Site(id));
        self.inner.site(id).await
    }

    async fn hostname(&self, host: &Hostname) -> Result<Option<SiteId>, StoreError> {
        self.tap.asked(Ask::Other("hostname"));
        self.inner.hostname(host).await
    }

    async fn sites(
        &self,
        query: &SiteQuery,
        after: Option<&SiteId>,
        limit: usize,
    ) -> Result<Page<Site, SiteId>, StoreError> {
        self.tap.asked(Ask::Other("sites"));
        self.inner.sites(query, after, limit).await
    }

    async fn count(&self, query: &SiteQuery) -> Result<u64, StoreError> {
        self.tap.asked(Ask::Other("count"));
        self.inner.count(query).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Journal for TappedStore {
    async fn write(&self, call: &CallContext, batch: &WriteBatch) -> Outcome<(), WriteError> {
        self.tap.asked(Ask::Write(call, batch));
        self.inner.write(call, batch).await
    }

    async fn claim(&self, call: &CallContext, claim: &Claim) -> Outcome<Claimed, WriteError> {
        self.tap.asked(Ask::Claim(call, claim));
        self.inner.claim(call, claim).await
    }

    async fn release_claim(&self, call: &CallContext, complete: &ReleaseClaim) -> Outcome<(), WriteError> {
        self.tap.asked(Ask::Complete(call, complete));
        self.inner.release_claim(call, complete).await
    }

    async fn service(&self, color: Color) -> Result<Service, StoreError> {
        self.tap.asked(Ask::Colour(color));
        self.inner.service(color).await
    }

    async fn fleet(&self) -> Result<Fleet, StoreError> {
        self.tap.asked(Ask::Fleet);
        self.inner.fleet().await
    }

    async fn webhooks(&self) -> Result<Webhooks, StoreError> {
        // Nobody who is measured asks.
        self.inner.webhooks().await
    }

    async fn users(&self) -> Result<Users, StoreError> {
        // Likewise.
        self.inner.users().await
    }

    async fn rollout(&self, number: u64) -> Result<Option<Rollout>, StoreError> {
        self.tap.asked(Ask::Rollout(number));
        self.inner.rollout(number).await
    }

    async fn rollout_page(&self, number: u64, page: u32) -> Result<Option<RolloutPage>, StoreError> {
        self.tap.asked(Ask::RolloutPage(number, page));
        self.inner.rollout_page(number, page).await
    }

    async fn rollouts(&self, before: Option<u64>, limit: usize) -> Result<Page<Rollout, u64>, StoreError> {
        self.tap.asked(Ask::Other("rollouts"));
        self.inner.rollouts(before, limit).await
    }

    async fn history(&self, id: &OperationId) -> Result<Option<Operation>, StoreError> {
        self.tap.asked(Ask::Other("history"));
        self.inner.history(id).await
    }

    async fn operations(
        &self,
        query: &OperationQuery,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<Operation, u64>, StoreError> {
        self.tap.asked(Ask::Other("operations"));
        self.inner.operations(query, before, limit).await
    }

    async fn pending_work(&self) -> Result<Vec<PendingWork>, StoreError> {
        self.tap.asked(Ask::Live);
        self.inner.pending_work().await
    }

    async fn allocate_ids(&self, call: &CallContext, count: u32) -> Outcome<u64, WriteError> {
        self.tap.asked(Ask::Other("numbers"));
        self.inner.allocate_ids(call, count).await
    }

    async fn heartbeat(
        &self,
        call: &CallContext,
        worker: &WorkerId,
        count: Option<u64>,
    ) -> Outcome<(), WriteError> {
        self.tap.asked(Ask::Beat(call, worker, count));
        self.inner.heartbeat(call, worker, count).await
    }

    async fn heartbeats(&self) -> Result<Vec<Heartbeat>, StoreError> {
        self.tap.asked(Ask::Beats);
        self.inner.heartbeats().await
    }

    async fn idempotency(
        &self,
        actor: &Actor,
        key: &IdempotencyKey,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        self.tap.asked(Ask::Other("idempotency"));
        self.inner.idempotency(actor, key).await
    }

    async fn audit(&self, before: Option<u64>, limit: usize) -> Result<Page<AuditEntry, u64>, StoreError> {
        self.tap.asked(Ask::Other("audit"));
        self.inner.audit(before, limit).await
    }

    async fn events(&self, after: Option<u64>, limit: usize) -> Result<Vec<(u64, FeedEvent)>, StoreError> {
        self.tap.asked(Ask::Other("events"));
        self.inner.events(after, limit).await
    }

    async fn last_event(&self) -> Result<Option<u64>, StoreError> {
        self.tap.asked(Ask::Other("last_event"));
        self.inner.last_event().await
    }

    async fn delete_old(&self, call: &CallContext, old: &Old) -> Outcome<u64, WriteError> {
        self.tap.asked(Ask::Other("delete_old"));
        self.inner.delete_old(call, old).await
    }
}

#[derive(Debug)]
struct TappedCluster {
    inner: Arc<dyn ClusterOps>,
    tap: Arc<dyn Tap>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ClusterOps for TappedCluster {
    async fn canary(&self) -> Result<Option<Canary>, PortError> {
        self.tap.asked(Ask::Other("canary"));
        self.inner.canary().await
    }

    async fn set_canary(
        &self,
        call: &CallContext,
        expect: Option<&CanaryVersion>,
        color: Color,
        digest: Option<Digest>,
    ) -> Outcome<()> {
        self.tap.asked(Ask::Other("set_canary"));
        self.inner.set_canary(call, expect, color, digest).await
    }

    async fn service(&self, color: Color) -> Result<ServiceView, PortError> {
        self.tap.asked(Ask::Service(color));
        self.inner.service(color).await
    }

    async fn set_image(
        &self,
        call: &CallContext,
        color: Color,
        expect: Fence,
        want: &ImageWant,
    ) -> Outcome<()> {
        self.tap.asked(Ask::Other("set_image"));
        self.inner.set_image(call, color, expect, want).await
    }

    async fn route(&self, uid: Uid) -> Result<Option<Route>, PortError> {
        self.tap.asked(Ask::Route(uid));
        self.inner.route(uid).await
    }

    async fn put_route(&self, call: &CallContext, spec: &RouteSpec) -> Outcome<()> {
        self.tap.asked(Ask::Other("put_route"));
        self.inner.put_route(call, spec).await
    }

    async fn move_route(&self, call: &CallContext, uid: Uid, expect: Fence, to: Color) -> Outcome<()> {
        self.tap.asked(Ask::MoveRoute(call, uid, expect, to));
        self.inner.move_route(call, uid, expect, to).await
    }

    async fn release(&self, call: &CallContext, uid: Uid) -> Outcome<()> {
        self.tap.asked(Ask::Other("release"));
        self.inner.release(call, uid).await
    }

    async fn run_job(&self, call: &CallContext, spec: &JobSpec) -> Outcome<()> {
        self.tap.asked(Ask::RunJob(call, spec));
        self.inner.run_job(call, spec).await
    }

    async fn job(&self, name: &JobName) -> Result<Option<Job>, PortError> {
        self.tap.asked(Ask::Job(name));
        self.inner.job(name).await
    }

    async fn changes(
        &self,
        mark: ChangeCursor,
        wait: Duration,
    ) -> Result<(Vec<Changed>, ChangeCursor), PortError> {
        self.tap.asked(Ask::Changes(mark));
        self.inner.changes(mark, wait).await
    }
}
