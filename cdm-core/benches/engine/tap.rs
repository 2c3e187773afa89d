//! Decorators over the store and the cluster that observe every call, and recorded calls that can be replayed.

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

/// Observes every call before it is made.
pub(crate) trait Tap: Send + Sync + fmt::Debug + 'static {
    /// Called before a port call, with its arguments.
    fn on_call(&self, port_call: PortCall<'_>);
}

/// A port call with borrowed arguments.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PortCall<'a> {
    Write(&'a CallContext, &'a WriteBatch),
    Claim(&'a CallContext, &'a Claim),
    ReleaseClaim(&'a CallContext, &'a ReleaseClaim),
    Heartbeat(&'a CallContext, &'a WorkerId, Option<u64>),
    MoveRoute(&'a CallContext, Uid, Fence, Color),
    RunJob(&'a CallContext, &'a JobSpec),
    Site(&'a SiteId),
    ServiceRecord(Color),
    Fleet,
    Rollout(u64),
    RolloutPage(u64, u32),
    PendingWork,
    Heartbeats,
    Service(Color),
    Route(Uid),
    Job(&'a JobName),
    Changes(ChangeCursor),
    /// A method that the measured runs do not use.
    Other(&'static str),
}

/// A port call with owned arguments, which can be replayed; or time that passes between calls.
#[derive(Debug)]
pub(crate) enum RecordedCall {
    Write(CallContext, Box<WriteBatch>),
    Claim(CallContext, Claim),
    ReleaseClaim(CallContext, ReleaseClaim),
    Heartbeat(CallContext, WorkerId, Option<u64>),
    MoveRoute(CallContext, Uid, Fence, Color),
    RunJob(CallContext, JobSpec),
    Site(SiteId),
    ServiceRecord(Color),
    Fleet,
    Rollout(u64),
    RolloutPage(u64, u32),
    PendingWork,
    Heartbeats,
    Service(Color),
    Route(Uid),
    Job(JobName),
    Changes(ChangeCursor),
    Advance(Duration),
}

impl RecordedCall {
    fn of(port_call: PortCall<'_>) -> Self {
        match port_call {
            PortCall::Write(call, batch) => Self::Write(*call, Box::new(batch.clone())),
            PortCall::Claim(call, claim) => Self::Claim(*call, claim.clone()),
            PortCall::ReleaseClaim(call, complete) => Self::ReleaseClaim(*call, complete.clone()),
            PortCall::Heartbeat(call, worker, count) => Self::Heartbeat(*call, worker.clone(), count),
            PortCall::MoveRoute(call, uid, expect, to) => Self::MoveRoute(*call, uid, expect, to),
            PortCall::RunJob(call, spec) => Self::RunJob(*call, spec.clone()),
            PortCall::Site(id) => Self::Site(id.clone()),
            PortCall::ServiceRecord(color) => Self::ServiceRecord(color),
            PortCall::Fleet => Self::Fleet,
            PortCall::Rollout(number) => Self::Rollout(number),
            PortCall::RolloutPage(number, page) => Self::RolloutPage(number, page),
            PortCall::PendingWork => Self::PendingWork,
            PortCall::Heartbeats => Self::Heartbeats,
            PortCall::Service(color) => Self::Service(color),
            PortCall::Route(uid) => Self::Route(uid),
            PortCall::Job(name) => Self::Job(name.clone()),
            PortCall::Changes(cursor) => Self::Changes(cursor),
            PortCall::Other(method) => panic!("`{method}` was called in a measured run and is not replayed"),
        }
    }

    /// Returns the kind of request, or `None` if the call is not counted.
    pub(crate) const fn kind(&self) -> Option<Request> {
        match self {
            Self::Claim(..) => Some(Request::Claim),
            Self::ReleaseClaim(..) => Some(Request::ReleaseClaim),
            Self::Write(..) => Some(Request::Write),
            Self::Heartbeat(..) => Some(Request::Heartbeat),
            Self::MoveRoute(..) => Some(Request::Route),
            Self::RunJob(..) => Some(Request::Job),
            Self::Site(_)
            | Self::ServiceRecord(_)
            | Self::Fleet
            | Self::Rollout(_)
            | Self::RolloutPage(..)
            | Self::PendingWork
            | Self::Heartbeats => Some(Request::StoreRead),
            Self::Service(_) => Some(Request::ServiceRead),
            Self::Route(_) => Some(Request::RouteRead),
            Self::Job(_) => Some(Request::JobRead),
            Self::Changes(_) => Some(Request::Changes),
            Self::Advance(_) => None,
        }
    }
}

/// The kinds of requests that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Request {
    Claim,
    ReleaseClaim,
    Write,
    Heartbeat,
    StoreRead,
    Route,
    Job,
    ServiceRead,
    RouteRead,
    JobRead,
    Changes,
}

impl Request {
    /// Returns whether the request is a step: a write to the store or an effect in the cluster. Heartbeats are not
    /// steps.
    pub(crate) const fn is_step(self) -> bool {
        match self {
            Self::Claim | Self::ReleaseClaim | Self::Write | Self::Route | Self::Job => true,
            Self::Heartbeat
            | Self::StoreRead
            | Self::ServiceRead
            | Self::RouteRead
            | Self::JobRead
            | Self::Changes => false,
        }
    }
}

/// Number of requests of each kind.
pub(crate) type Counts = BTreeMap<Request, u64>;

/// All calls, in order.
pub(crate) type Trace = Vec<RecordedCall>;

/// Counts the requests of a trace.
pub(crate) fn counts(trace: &[RecordedCall]) -> Counts {
    let mut counts = Counts::new();
    for request in trace.iter().filter_map(RecordedCall::kind) {
        *counts.entry(request).or_default() += 1;
    }
    counts
}

/// Records every call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder(Arc<Mutex<Trace>>);

impl Recorder {
    pub(crate) fn push(&self, recorded: RecordedCall) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(recorded);
    }

    /// Returns the calls recorded since the last call of this function.
    pub(crate) fn take(&self) -> Trace {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Tap for Recorder {
    fn on_call(&self, port_call: PortCall<'_>) {
        self.push(RecordedCall::of(port_call));
    }
}

/// The bare loop: makes exactly these calls, one after another, and makes no decisions.
pub(crate) async fn replay(ports: &Ports, clock: &SimClock, trace: &[RecordedCall]) {
    let (store, cluster) = (&ports.store, &ports.cluster);
    for recorded in trace {
        let applied_all = match recorded {
            RecordedCall::Write(call, batch) => applied(store.write(call, batch).await),
            RecordedCall::Claim(call, claim) => applied(store.claim(call, claim).await),
            RecordedCall::ReleaseClaim(call, complete) => applied(store.release_claim(call, complete).await),
            RecordedCall::Heartbeat(call, worker, count) => {
                applied(store.heartbeat(call, worker, *count).await)
            }
            RecordedCall::MoveRoute(call, uid, expect, to) => {
                applied(cluster.move_route(call, *uid, *expect, *to).await)
            }
            RecordedCall::RunJob(call, spec) => applied(cluster.run_job(call, spec).await),
            RecordedCall::Site(id) => store.site(id).await.is_ok(),
            RecordedCall::ServiceRecord(color) => store.service(*color).await.is_ok(),
            RecordedCall::Fleet => store.fleet().await.is_ok(),
            RecordedCall::Rollout(number) => store.rollout(*number).await.is_ok(),
            RecordedCall::RolloutPage(number, page) => store.rollout_page(*number, *page).await.is_ok(),
            RecordedCall::PendingWork => store.pending_work().await.is_ok(),
            RecordedCall::Heartbeats => store.heartbeats().await.is_ok(),
            RecordedCall::Service(color) => cluster.service(*color).await.is_ok(),
            RecordedCall::Route(uid) => cluster.route(*uid).await.is_ok(),
            RecordedCall::Job(name) => cluster.job(name).await.is_ok(),
            RecordedCall::Changes(cursor) => cluster.changes(*cursor, Duration::ZERO).await.is_ok(),
            RecordedCall::Advance(span) => {
                clock.advance(*span);
                true
            }
        };
        assert!(applied_all, "a call of the bare loop failed: {recorded:?}");
    }
}

fn applied<T, E>(outcome: Outcome<T, E>) -> bool {
    matches!(outcome, Outcome::Applied(_))
}

/// Wraps store and cluster of these ports with a tap.
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
        self.tap.on_call(PortCall::Site(id));
        self.inner.site(id).await
    }

    async fn hostname(&self, host: &Hostname) -> Result<Option<SiteId>, StoreError> {
        self.tap.on_call(PortCall::Other("hostname"));
        self.inner.hostname(host).await
    }

    async fn sites(
        &self,
        query: &SiteQuery,
        after: Option<&SiteId>,
        limit: usize,
    ) -> Result<Page<Site, SiteId>, StoreError> {
        self.tap.on_call(PortCall::Other("sites"));
        self.inner.sites(query, after, limit).await
    }

    async fn count(&self, query: &SiteQuery) -> Result<u64, StoreError> {
        self.tap.on_call(PortCall::Other("count"));
        self.inner.count(query).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Journal for TappedStore {
    async fn write(&self, call: &CallContext, batch: &WriteBatch) -> Outcome<(), WriteError> {
        self.tap.on_call(PortCall::Write(call, batch));
        self.inner.write(call, batch).await
    }

    async fn claim(&self, call: &CallContext, claim: &Claim) -> Outcome<Claimed, WriteError> {
        self.tap.on_call(PortCall::Claim(call, claim));
        self.inner.claim(call, claim).await
    }

    async fn release_claim(&self, call: &CallContext, complete: &ReleaseClaim) -> Outcome<(), WriteError> {
        self.tap.on_call(PortCall::ReleaseClaim(call, complete));
        self.inner.release_claim(call, complete).await
    }

    async fn service(&self, color: Color) -> Result<Service, StoreError> {
        self.tap.on_call(PortCall::ServiceRecord(color));
        self.inner.service(color).await
    }

    async fn fleet(&self) -> Result<Fleet, StoreError> {
        self.tap.on_call(PortCall::Fleet);
        self.inner.fleet().await
    }

    async fn webhooks(&self) -> Result<Webhooks, StoreError> {
        // The measured runs do not read webhooks.
        self.inner.webhooks().await
    }

    async fn users(&self) -> Result<Users, StoreError> {
        // The measured runs do not read users.
        self.inner.users().await
    }

    async fn rollout(&self, number: u64) -> Result<Option<Rollout>, StoreError> {
        self.tap.on_call(PortCall::Rollout(number));
        self.inner.rollout(number).await
    }

    async fn rollout_page(&self, number: u64, page: u32) -> Result<Option<RolloutPage>, StoreError> {
        self.tap.on_call(PortCall::RolloutPage(number, page));
        self.inner.rollout_page(number, page).await
    }

    async fn rollouts(&self, before: Option<u64>, limit: usize) -> Result<Page<Rollout, u64>, StoreError> {
        self.tap.on_call(PortCall::Other("rollouts"));
        self.inner.rollouts(before, limit).await
    }

    async fn history(&self, id: &OperationId) -> Result<Option<Operation>, StoreError> {
        self.tap.on_call(PortCall::Other("history"));
        self.inner.history(id).await
    }

    async fn operations(
        &self,
        query: &OperationQuery,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<Operation, u64>, StoreError> {
        self.tap.on_call(PortCall::Other("operations"));
        self.inner.operations(query, before, limit).await
    }

    async fn pending_work(&self) -> Result<Vec<PendingWork>, StoreError> {
        self.tap.on_call(PortCall::PendingWork);
        self.inner.pending_work().await
    }

    async fn allocate_ids(&self, call: &CallContext, count: u32) -> Outcome<u64, WriteError> {
        self.tap.on_call(PortCall::Other("numbers"));
        self.inner.allocate_ids(call, count).await
    }

    async fn heartbeat(
        &self,
        call: &CallContext,
        worker: &WorkerId,
        count: Option<u64>,
    ) -> Outcome<(), WriteError> {
        self.tap.on_call(PortCall::Heartbeat(call, worker, count));
        self.inner.heartbeat(call, worker, count).await
    }

    async fn heartbeats(&self) -> Result<Vec<Heartbeat>, StoreError> {
        self.tap.on_call(PortCall::Heartbeats);
        self.inner.heartbeats().await
    }

    async fn idempotency(
        &self,
        actor: &Actor,
        key: &IdempotencyKey,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        self.tap.on_call(PortCall::Other("idempotency"));
        self.inner.idempotency(actor, key).await
    }

    async fn audit(&self, before: Option<u64>, limit: usize) -> Result<Page<AuditEntry, u64>, StoreError> {
        self.tap.on_call(PortCall::Other("audit"));
        self.inner.audit(before, limit).await
    }

    async fn events(&self, after: Option<u64>, limit: usize) -> Result<Vec<(u64, FeedEvent)>, StoreError> {
        self.tap.on_call(PortCall::Other("events"));
        self.inner.events(after, limit).await
    }

    async fn last_event(&self) -> Result<Option<u64>, StoreError> {
        self.tap.on_call(PortCall::Other("last_event"));
        self.inner.last_event().await
    }

    async fn delete_old(&self, call: &CallContext, old: &Old) -> Outcome<u64, WriteError> {
        self.tap.on_call(PortCall::Other("delete_old"));
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
        self.tap.on_call(PortCall::Other("canary"));
        self.inner.canary().await
    }

    async fn set_canary(
        &self,
        call: &CallContext,
        expect: Option<&CanaryVersion>,
        color: Color,
        digest: Option<Digest>,
    ) -> Outcome<()> {
        self.tap.on_call(PortCall::Other("set_canary"));
        self.inner.set_canary(call, expect, color, digest).await
    }

    async fn service(&self, color: Color) -> Result<ServiceView, PortError> {
        self.tap.on_call(PortCall::Service(color));
        self.inner.service(color).await
    }

    async fn set_image(
        &self,
        call: &CallContext,
        color: Color,
        expect: Fence,
        desired: &ImageWant,
    ) -> Outcome<()> {
        self.tap.on_call(PortCall::Other("set_image"));
        self.inner.set_image(call, color, expect, desired).await
    }

    async fn route(&self, uid: Uid) -> Result<Option<Route>, PortError> {
        self.tap.on_call(PortCall::Route(uid));
        self.inner.route(uid).await
    }

    async fn put_route(&self, call: &CallContext, spec: &RouteSpec) -> Outcome<()> {
        self.tap.on_call(PortCall::Other("put_route"));
        self.inner.put_route(call, spec).await
    }

    async fn move_route(&self, call: &CallContext, uid: Uid, expect: Fence, to: Color) -> Outcome<()> {
        self.tap.on_call(PortCall::MoveRoute(call, uid, expect, to));
        self.inner.move_route(call, uid, expect, to).await
    }

    async fn release(&self, call: &CallContext, uid: Uid) -> Outcome<()> {
        self.tap.on_call(PortCall::Other("release"));
        self.inner.release(call, uid).await
    }

    async fn run_job(&self, call: &CallContext, spec: &JobSpec) -> Outcome<()> {
        self.tap.on_call(PortCall::RunJob(call, spec));
        self.inner.run_job(call, spec).await
    }

    async fn job(&self, name: &JobName) -> Result<Option<Job>, PortError> {
        self.tap.on_call(PortCall::Job(name));
        self.inner.job(name).await
    }

    async fn changes(
        &self,
        cursor: ChangeCursor,
        wait: Duration,
    ) -> Result<(Vec<Changed>, ChangeCursor), PortError> {
        self.tap.on_call(PortCall::Changes(cursor));
        self.inner.changes(cursor, wait).await
    }
}
