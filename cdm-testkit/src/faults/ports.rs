//! A decorator for each port: every method passes through the injector, and does nothing else.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cdm_core::domain::rollout::{ProbeResponse, RolloutPage};
use cdm_core::domain::site::{Claim, Claimed, ReleaseClaim};
use cdm_core::domain::user::Users;
use cdm_core::domain::webhook::Webhooks;
use cdm_core::domain::{
    Actor, AuditEntry, Color, Digest, Fence, Fleet, Hostname, IdempotencyKey, JobName, ObjectPrefix,
    Operation, OperationId, Rollout, SecretName, Service, Site, SiteId, Uid, WorkerId,
};
use cdm_core::ports::{
    CallContext, Canary, CanaryVersion, ChangeCursor, Changed, ClusterOps, Credentials, Database, FeedEvent,
    HealthProbe, Heartbeat, IdempotencyRecord, ImageWant, Inconclusive, Job, JobSpec, Journal, ObjectPage,
    ObjectStore, Old, OperationQuery, Outcome, Page, PendingWork, PortError, Ports, ProbeRequest, Route,
    RouteSpec, SecretStore, ServiceView, SiteDatabase, SiteDatabases, SiteQuery, SiteRepository, Store,
    StoreError, StoredSecret, WriteBatch, WriteError,
};

use super::FaultInjector;

/// Puts an injector before every port except the clock and the entropy source.
pub fn faulty(ports: &Ports, injector: &FaultInjector) -> Ports {
    Ports {
        store: Arc::new(Faulty { inner: ports.store.clone(), injector: injector.clone() }),
        secrets: Arc::new(Faulty { inner: ports.secrets.clone(), injector: injector.clone() }),
        objects: Arc::new(Faulty { inner: ports.objects.clone(), injector: injector.clone() }),
        databases: Arc::new(Faulty { inner: ports.databases.clone(), injector: injector.clone() }),
        cluster: Arc::new(Faulty { inner: ports.cluster.clone(), injector: injector.clone() }),
        probe: Arc::new(Faulty { inner: ports.probe.clone(), injector: injector.clone() }),
        clock: ports.clock.clone(),
        entropy: ports.entropy.clone(),
    }
}

/// A port behind a fault injector.
#[derive(Debug)]
struct Faulty<P: ?Sized> {
    inner: Arc<P>,
    injector: FaultInjector,
}

/// `change!(self, "name", call, (args), method)`: the call passes through the injector with owned arguments, so
/// that it can be repeated or delayed.
macro_rules! change {
    ($self:ident, $name:literal, $call:ident, ($($arg:ident),*), $method:ident) => {{
        let (inner, call) = (Arc::clone(&$self.inner), *$call);
        $(let $arg = $arg.to_owned();)*
        $self.injector.change($name, move || {
            let inner = Arc::clone(&inner);
            $(let $arg = $arg.clone();)*
            Box::pin(async move { inner.$method(&call, $(&$arg),*).await })
        }).await
    }};
}

/// The same for a read. With `stale`, the value may be stale; `initial` returns the oldest value.
macro_rules! read {
    ($self:ident, $name:literal, ($($arg:ident),*), $method:ident) => {{
        let inner = Arc::clone(&$self.inner);
        $(let $arg = $arg.to_owned();)*
        $self.injector.read($name, None, |_| None, move || {
            let inner = Arc::clone(&inner);
            $(let $arg = $arg.clone();)*
            Box::pin(async move { inner.$method($(&$arg),*).await })
        }).await
    }};
    ($self:ident, $name:literal, ($($arg:ident),*), $method:ident, stale $initial:expr) => {{
        let inner = Arc::clone(&$self.inner);
        $(let $arg = $arg.to_owned();)*
        let key = format!(concat!($name, " {:?}"), ($(&$arg,)*));
        $self.injector.read($name, Some(key), $initial, move || {
            let inner = Arc::clone(&inner);
            $(let $arg = $arg.clone();)*
            Box::pin(async move { inner.$method($(&$arg),*).await })
        }).await
    }};
}

fn absent<T>(now: &Option<T>) -> Option<Option<T>> {
    now.is_some().then_some(None)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SecretStore for Faulty<dyn SecretStore> {
    async fn create(&self, call: &CallContext, name: &SecretName, value: &Credentials) -> Outcome<()> {
        change!(self, "secrets.create", call, (name, value), create)
    }

    async fn read(&self, name: &SecretName) -> Result<Option<StoredSecret>, PortError> {
        let inner = Arc::clone(&self.inner);
        let name = *name;
        // Credentials are not stored, not even for stale reads: absence is the only older value.
        let read = || {
            let inner = Arc::clone(&inner);
            Box::pin(async move { inner.read(&name).await.map(|found| ComparableSecret(Arc::new(found))) })
                as super::injector::PortFuture<_>
        };
        let key = Some(format!("secrets.read {name}"));
        let none = |now: &ComparableSecret| now.0.is_some().then(|| ComparableSecret(Arc::new(None)));
        self.injector.read("secrets.read", key, none, read).await.map(|secret| (*secret.0).clone())
    }

    async fn schedule_delete(&self, call: &CallContext, name: &SecretName) -> Outcome<()> {
        change!(self, "secrets.schedule_delete", call, (name), schedule_delete)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl HealthProbe for Faulty<dyn HealthProbe> {
    async fn probe(&self, check: &ProbeRequest) -> Result<ProbeResponse, Inconclusive> {
        read!(self, "probe.probe", (check), probe)
    }
}

/// A secret that was read. Two are equal if both are absent, both are being deleted, or both have a value.
#[derive(Clone)]
struct ComparableSecret(Arc<Option<StoredSecret>>);

impl PartialEq for ComparableSecret {
    fn eq(&self, other: &Self) -> bool {
        matches!(
            (&*self.0, &*other.0),
            (None, None)
                | (Some(StoredSecret::Deleting), Some(StoredSecret::Deleting))
                | (Some(StoredSecret::Value(_)), Some(StoredSecret::Value(_)))
        )
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Faulty<dyn ObjectStore> {
    async fn put_marker(&self, call: &CallContext, prefix: &ObjectPrefix) -> Outcome<()> {
        change!(self, "objects.put_marker", call, (prefix), put_marker)
    }

    async fn page(&self, prefix: &ObjectPrefix, after: Option<&str>) -> Result<ObjectPage, PortError> {
        let (inner, prefix, after) = (Arc::clone(&self.inner), *prefix, after.map(str::to_owned));
        let read = move || {
            let (inner, after) = (Arc::clone(&inner), after.clone());
            Box::pin(async move { inner.page(&prefix, after.as_deref()).await })
                as super::injector::PortFuture<_>
        };
        self.injector.read("objects.page", None, |_| None, read).await
    }

    async fn delete(
        &self,
        call: &CallContext,
        prefix: &ObjectPrefix,
        keys: &[String],
    ) -> Outcome<Vec<(String, String)>> {
        change!(self, "objects.delete", call, (prefix, keys), delete)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SiteDatabases for Faulty<dyn SiteDatabases> {
    fn address(&self) -> (String, u16) {
        self.inner.address()
    }

    async fn ensure(&self, call: &CallContext, uid: Uid, credentials: &Database) -> Outcome<()> {
        let (inner, call, credentials) = (Arc::clone(&self.inner), *call, credentials.clone());
        let ensure = move || {
            let (inner, credentials) = (Arc::clone(&inner), credentials.clone());
            Box::pin(async move { inner.ensure(&call, uid, &credentials).await })
                as super::injector::PortFuture<_>
        };
        self.injector.change("databases.ensure", ensure).await
    }

    async fn renew(&self, call: &CallContext, uid: Uid, credentials: &Database) -> Outcome<()> {
        let (inner, call, credentials) = (Arc::clone(&self.inner), *call, credentials.clone());
        let renew = move || {
            let (inner, credentials) = (Arc::clone(&inner), credentials.clone());
            Box::pin(async move { inner.renew(&call, uid, &credentials).await })
                as super::injector::PortFuture<_>
        };
        self.injector.change("databases.renew", renew).await
    }

    async fn remove(&self, call: &CallContext, uid: Uid) -> Outcome<()> {
        let (inner, call) = (Arc::clone(&self.inner), *call);
        let remove = move || {
            let inner = Arc::clone(&inner);
            Box::pin(async move { inner.remove(&call, uid).await }) as super::injector::PortFuture<_>
        };
        self.injector.change("databases.remove", remove).await
    }

    async fn seen(&self, uid: Uid) -> Result<SiteDatabase, PortError> {
        self.inner.seen(uid).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ClusterOps for Faulty<dyn ClusterOps> {
    async fn canary(&self) -> Result<Option<Canary>, PortError> {
        read!(self, "cluster.canary", (), canary)
    }

    async fn set_canary(
        &self,
        call: &CallContext,
        expect: Option<&CanaryVersion>,
        color: Color,
        digest: Option<Digest>,
    ) -> Outcome<()> {
        let (inner, call, expect) = (Arc::clone(&self.inner), *call, expect.cloned());
        let set = move || {
            let (inner, expect) = (Arc::clone(&inner), expect.clone());
            Box::pin(async move { inner.set_canary(&call, expect.as_ref(), color, digest).await })
                as super::injector::PortFuture<_>
        };
        self.injector.change("cluster.set_canary", set).await
    }

    async fn service(&self, color: Color) -> Result<ServiceView, PortError> {
        let inner = Arc::clone(&self.inner);
        let read = move || {
            let inner = Arc::clone(&inner);
            Box::pin(async move { inner.service(color).await }) as super::injector::PortFuture<_>
        };
        self.injector.read("cluster.service", None, |_| None, read).await
    }

    async fn set_image(
        &self,
        call: &CallContext,
        color: Color,
        expect: Fence,
        want: &ImageWant,
    ) -> Outcome<()> {
        let (inner, call, want) = (Arc::clone(&self.inner), *call, want.clone());
        let set = move || {
            let (inner, want) = (Arc::clone(&inner), want.clone());
            Box::pin(async move { inner.set_image(&call, color, expect, &want).await })
                as super::injector::PortFuture<_>
        };
        self.injector.change("cluster.set_image", set).await
    }

    async fn route(&self, uid: Uid) -> Result<Option<Route>, PortError> {
        let inner = Arc::clone(&self.inner);
        let read = move || {
            let inner = Arc::clone(&inner);
            Box::pin(async move { inner.route(uid).await }) as super::injector::PortFuture<_>
        };
        self.injector
            .read("cluster.route", Some(format!("route {uid}")), |_: &Option<Route>| None, read)
            .await
    }

    async fn put_route(&self, call: &CallContext, spec: &RouteSpec) -> Outcome<()> {
        change!(self, "cluster.put_route", call, (spec), put_route)
    }

    async fn move_route(&self, call: &CallContext, uid: Uid, expect: Fence, to: Color) -> Outcome<()> {
        let (inner, call) = (Arc::clone(&self.inner), *call);
        let send = move || {
            let inner = Arc::clone(&inner);
            Box::pin(async move { inner.move_route(&call, uid, expect, to).await })
                as super::injector::PortFuture<_>
        };
        self.injector.change("cluster.move_route", send).await
    }

    async fn release(&self, call: &CallContext, uid: Uid) -> Outcome<()> {
        let (inner, call) = (Arc::clone(&self.inner), *call);
        let release = move || {
            let inner = Arc::clone(&inner);
            Box::pin(async move { inner.release(&call, uid).await }) as super::injector::PortFuture<_>
        };
        self.injector.change("cluster.release", release).await
    }

    async fn run_job(&self, call: &CallContext, spec: &JobSpec) -> Outcome<()> {
        change!(self, "cluster.run_job", call, (spec), run_job)
    }

    async fn job(&self, name: &JobName) -> Result<Option<Job>, PortError> {
        read!(self, "cluster.job", (name), job, stale absent)
    }

    async fn changes(
        &self,
        cursor: ChangeCursor,
        wait: Duration,
    ) -> Result<(Vec<Changed>, ChangeCursor), PortError> {
        let inner = Arc::clone(&self.inner);
        let read = move || {
            let inner = Arc::clone(&inner);
            Box::pin(async move { inner.changes(cursor, wait).await }) as super::injector::PortFuture<_>
        };
        self.injector.read("cluster.changes", None, |_| None, read).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SiteRepository for Faulty<dyn Store> {
    async fn site(&self, id: &SiteId) -> Result<Option<Site>, StoreError> {
        read!(self, "store.site", (id), site)
    }

    async fn hostname(&self, host: &Hostname) -> Result<Option<SiteId>, StoreError> {
        read!(self, "store.hostname", (host), hostname)
    }

    async fn sites(
        &self,
        query: &SiteQuery,
        after: Option<&SiteId>,
        limit: usize,
    ) -> Result<Page<Site, SiteId>, StoreError> {
        let (inner, query, after) = (Arc::clone(&self.inner), query.clone(), after.cloned());
        let read = move || {
            let (inner, query, after) = (Arc::clone(&inner), query.clone(), after.clone());
            Box::pin(async move { inner.sites(&query, after.as_ref(), limit).await })
                as super::injector::PortFuture<_>
        };
        self.injector.read("store.sites", None, |_| None, read).await
    }

    async fn count(&self, query: &SiteQuery) -> Result<u64, StoreError> {
        read!(self, "store.count", (query), count)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Journal for Faulty<dyn Store> {
    async fn write(&self, call: &CallContext, batch: &WriteBatch) -> Outcome<(), WriteError> {
        change!(self, "store.write", call, (batch), write)
    }

    async fn claim(&self, call: &CallContext, claim: &Claim) -> Outcome<Claimed, WriteError> {
        change!(self, "store.claim", call, (claim), claim)
    }

    async fn release_claim(&self, call: &CallContext, complete: &ReleaseClaim) -> Outcome<(), WriteError> {
        change!(self, "store.complete", call, (complete), release_claim)
    }

    async fn service(&self, color: Color) -> Result<Service, StoreError> {
        let inner = Arc::clone(&self.inner);
        let read = move || {
            let inner = Arc::clone(&inner);
            Box::pin(async move { inner.service(color).await }) as super::injector::PortFuture<_>
        };
        self.injector.read("store.colour", None, |_| None, read).await
    }

    async fn fleet(&self) -> Result<Fleet, StoreError> {
        read!(self, "store.fleet", (), fleet)
    }

    async fn webhooks(&self) -> Result<Webhooks, StoreError> {
        read!(self, "store.webhooks", (), webhooks)
    }

    async fn users(&self) -> Result<Users, StoreError> {
        read!(self, "store.users", (), users)
    }

    async fn rollout(&self, number: u64) -> Result<Option<Rollout>, StoreError> {
        let inner = Arc::clone(&self.inner);
        let read = move || {
            let inner = Arc::clone(&inner);
            Box::pin(async move { inner.rollout(number).await }) as super::injector::PortFuture<_>
        };
        self.injector.read("store.rollout", None, |_| None, read).await
    }

    async fn rollout_page(&self, number: u64, page: u32) -> Result<Option<RolloutPage>, StoreError> {
        let inner = Arc::clone(&self.inner);
        let read = move || {
            let inner = Arc::clone(&inner);
            Box::pin(async move { inner.rollout_page(number, page).await }) as super::injector::PortFuture<_>
        };
        self.injector.read("store.rollout_page", None, |_| None, read).await
    }

    async fn rollouts(&self, before: Option<u64>, limit: usize) -> Result<Page<Rollout, u64>, StoreError> {
        self.inner.rollouts(before, limit).await
    }

    async fn history(&self, id: &OperationId) -> Result<Option<Operation>, StoreError> {
        read!(self, "store.history", (id), history)
    }

    async fn operations(
        &self,
        query: &OperationQuery,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<Operation, u64>, StoreError> {
        self.inner.operations(query, before, limit).await
    }

    async fn pending_work(&self) -> Result<Vec<PendingWork>, StoreError> {
        read!(self, "store.live", (), pending_work, stale |now: &Vec<PendingWork>| (!now.is_empty()).then(Vec::new))
    }

    async fn allocate_ids(&self, call: &CallContext, count: u32) -> Outcome<u64, WriteError> {
        let (inner, call) = (Arc::clone(&self.inner), *call);
        let draw = move || {
            let inner = Arc::clone(&inner);
            Box::pin(async move { inner.allocate_ids(&call, count).await }) as super::injector::PortFuture<_>
        };
        self.injector.change("store.numbers", draw).await
    }

    async fn heartbeat(
        &self,
        call: &CallContext,
        worker: &WorkerId,
        count: Option<u64>,
    ) -> Outcome<(), WriteError> {
        let (inner, call, worker) = (Arc::clone(&self.inner), *call, worker.clone());
        let send = move || {
            let (inner, worker) = (Arc::clone(&inner), worker.clone());
            Box::pin(async move { inner.heartbeat(&call, &worker, count).await })
                as super::injector::PortFuture<_>
        };
        self.injector.change("store.beat", send).await
    }

    async fn heartbeats(&self) -> Result<Vec<Heartbeat>, StoreError> {
        read!(self, "store.beats", (), heartbeats)
    }

    async fn idempotency(
        &self,
        actor: &Actor,
        key: &IdempotencyKey,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        read!(self, "store.idempotency", (actor, key), idempotency)
    }

    async fn audit(&self, before: Option<u64>, limit: usize) -> Result<Page<AuditEntry, u64>, StoreError> {
        self.inner.audit(before, limit).await
    }

    async fn events(&self, after: Option<u64>, limit: usize) -> Result<Vec<(u64, FeedEvent)>, StoreError> {
        self.inner.events(after, limit).await
    }

    async fn last_event(&self) -> Result<Option<u64>, StoreError> {
        self.inner.last_event().await
    }

    async fn delete_old(&self, call: &CallContext, old: &Old) -> Outcome<u64, WriteError> {
        self.inner.delete_old(call, old).await
    }
}
