//! In-memory records and journal with every guarantee of the ports. A test may rely on any behavior of this
//! fake.

mod state;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cdm_core::domain::rollout::RolloutPage;
use cdm_core::domain::site::{Claim, Claimed, ReleaseClaim};
use cdm_core::domain::user::Users;
use cdm_core::domain::webhook::Webhooks;
use cdm_core::domain::{
    Actor, AuditEntry, Color, Fence, Fleet, Hostname, IdempotencyKey, Operation, OperationId, Rollout,
    RolloutStatus, Service, Site, SiteId, Status, WorkerId,
};
use cdm_core::ports::{
    CallContext, FeedEvent, Heartbeat, IdempotencyRecord, Journal, Old, OperationQuery, Outcome, Page,
    PendingWork, SiteQuery, SiteRepository, StoreError, WorkItem, WriteBatch, WriteError,
};

use crate::clock::SimClock;
use crate::log::{EffectKind, EffectLog};
use state::State;

/// An in-memory store. Clones share one store.
///
/// Where adapters may differ, the fake is strict: a batch that names one record twice, has more than 90 records
/// or changes a site's hostnames fails with [`StoreError::Denied`].
#[derive(Clone)]
pub struct FakeStore(Arc<Mutex<State>>);

impl fmt::Debug for FakeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeStore")
    }
}

impl FakeStore {
    /// Creates an empty store that logs each record to `log` when the record is written.
    pub fn new(log: EffectLog, clock: SimClock) -> Self {
        Self(Arc::new(Mutex::new(State::new(log, clock))))
    }

    /// Returns all sites, in the order of their ids.
    pub fn all_sites(&self) -> Vec<Site> {
        self.state().sites.values().map(|record| Site::clone(&record.site)).collect()
    }

    /// Returns all rollouts, oldest first.
    pub fn all_rollouts(&self) -> Vec<Rollout> {
        self.state().rollouts.values().map(|record| Rollout::clone(&record.value)).collect()
    }

    /// Returns the frozen member list of a rollout, page by page.
    pub fn pages(&self, rollout: u64) -> Vec<RolloutPage> {
        let state = self.state();
        let pages = state.pages.range((rollout, 0)..=(rollout, u32::MAX));
        pages.map(|(_, record)| RolloutPage::clone(&record.value)).collect()
    }

    /// Returns all claimed hostnames with the sites that own them.
    pub fn hostnames(&self) -> Vec<(Hostname, SiteId)> {
        self.state().hostnames.iter().map(|(host, site)| (host.clone(), site.clone())).collect()
    }

    /// Returns the number of calls to the store.
    pub fn requests(&self) -> u64 {
        self.state().counts.values().sum()
    }

    /// Returns the number of calls by method.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.state().counts.clone()
    }

    /// Writes a site unchanged, as an unrelated writer would, so that writes with the version before fail.
    /// Returns `false` if the site does not exist.
    pub fn bump(&self, id: &SiteId) -> bool {
        let state = &mut *self.state();
        let Some(record) = state.sites.get_mut(id) else { return false };
        let before = state.log.is_on().then(|| record.site.clone());
        Arc::make_mut(&mut record.site).version += 1;
        (record.write, record.result) = (None, None);
        let after = state.log.is_on().then(|| record.site.clone());
        state.log_effect(Fence::default(), || EffectKind::Site(before, after));
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_call(&self, method: &'static str) -> MutexGuard<'_, State> {
        let mut state = self.state();
        *state.counts.entry(method).or_default() += 1;
        state
    }
}

#[async_trait]
impl SiteRepository for FakeStore {
    async fn site(&self, id: &SiteId) -> Result<Option<Site>, StoreError> {
        Ok(self.count_call("site").sites.get(id).map(|record| Site::clone(&record.site)))
    }

    async fn hostname(&self, host: &Hostname) -> Result<Option<SiteId>, StoreError> {
        Ok(self.count_call("hostname").hostnames.get(host).cloned())
    }

    async fn sites(
        &self,
        query: &SiteQuery,
        after: Option<&SiteId>,
        limit: usize,
    ) -> Result<Page<Site, SiteId>, StoreError> {
        let state = self.count_call("sites");
        let rest = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let found = state.sites.range::<SiteId, _>(rest).filter(|(_, record)| query.has(&record.site));
        Ok(page(found.map(|(id, record)| (id.clone(), Site::clone(&record.site))), limit))
    }

    async fn count(&self, query: &SiteQuery) -> Result<u64, StoreError> {
        let state = self.count_call("count");
        Ok(state.sites.values().map(|record| u64::from(query.has(&record.site))).sum())
    }
}

#[async_trait]
impl Journal for FakeStore {
    async fn write(&self, call: &CallContext, batch: &WriteBatch) -> Outcome<(), WriteError> {
        outcome(self.count_call("write").write(call, batch))
    }

    async fn claim(&self, call: &CallContext, claim: &Claim) -> Outcome<Claimed, WriteError> {
        outcome(self.count_call("claim").claim(call, claim).map_err(WriteError::Claim))
    }

    async fn release_claim(&self, call: &CallContext, complete: &ReleaseClaim) -> Outcome<(), WriteError> {
        outcome(self.count_call("complete").release_claim(call, complete).map_err(WriteError::Claim))
    }

    async fn service(&self, color: Color) -> Result<Service, StoreError> {
        let state = self.count_call("colour");
        let record = state.services.get(&color);
        Ok(record.map_or_else(|| Service::new(color), |record| Service::clone(&record.value)))
    }

    async fn fleet(&self) -> Result<Fleet, StoreError> {
        Ok(Fleet::clone(&self.count_call("fleet").fleet.value))
    }

    async fn webhooks(&self) -> Result<Webhooks, StoreError> {
        Ok(Webhooks::clone(&self.count_call("webhooks").webhooks.value))
    }

    async fn users(&self) -> Result<Users, StoreError> {
        Ok(Users::clone(&self.count_call("users").users.value))
    }

    async fn rollout(&self, number: u64) -> Result<Option<Rollout>, StoreError> {
        Ok(self.count_call("rollout").rollouts.get(&number).map(|record| Rollout::clone(&record.value)))
    }

    async fn rollout_page(&self, number: u64, page: u32) -> Result<Option<RolloutPage>, StoreError> {
        let state = self.count_call("rollout_page");
        Ok(state.pages.get(&(number, page)).map(|record| RolloutPage::clone(&record.value)))
    }

    async fn rollouts(&self, before: Option<u64>, limit: usize) -> Result<Page<Rollout, u64>, StoreError> {
        let state = self.count_call("rollouts");
        let older = (Bound::Unbounded, before.map_or(Bound::Unbounded, Bound::Excluded));
        let found = state.rollouts.range(older).rev();
        Ok(page(found.map(|(number, record)| (*number, Rollout::clone(&record.value))), limit))
    }

    async fn history(&self, id: &OperationId) -> Result<Option<Operation>, StoreError> {
        Ok(self.count_call("history").history.get(id).map(|record| Operation::clone(&record.value)))
    }

    async fn operations(
        &self,
        query: &OperationQuery,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<Operation, u64>, StoreError> {
        let state = self.count_call("operations");
        let older = |number: u64| before.is_none_or(|before| number < before);
        let ended = state.history.values().rev().filter(|record| older(record.value.id.number));
        let ended = ended.filter(|record| query.has(&record.value)).take(limit.max(1) + 1);
        let mut found: Vec<Operation> = state.operations().filter(|live| older(live.id.number)).collect();
        found.retain(|live| query.has(live));
        found.extend(ended.map(|record| Operation::clone(&record.value)));
        found.sort_by_key(|operation| std::cmp::Reverse(operation.id.number));
        Ok(page(found.into_iter().map(|operation| (operation.id.number, operation)), limit))
    }

    async fn pending_work(&self) -> Result<Vec<PendingWork>, StoreError> {
        let state = self.count_call("live");
        let operations = state.working.iter().filter_map(|(number, subject)| {
            let operation = state.operation(subject).filter(|operation| !operation.status.is_settled())?;
            Some(PendingWork {
                subject: WorkItem::Operation(subject.clone()),
                number: *number,
                owner: operation.owner.clone(),
                next_poll_at: operation.next_poll_at.filter(|_| operation.status == Status::Waiting),
                control_requested: operation.cancel,
            })
        });
        let rollouts = state.active.iter().filter_map(|number| {
            let rollout = &state.rollouts.get(number)?.value;
            Some(PendingWork {
                subject: WorkItem::Rollout(*number),
                number: *number,
                owner: rollout.owner.clone(),
                next_poll_at: rollout.next_poll_at.filter(|_| rollout.status == RolloutStatus::Waiting),
                control_requested: rollout.control.is_some(),
            })
        });
        Ok(operations.chain(rollouts).collect())
    }

    async fn allocate_ids(&self, _call: &CallContext, count: u32) -> Outcome<u64, WriteError> {
        let mut state = self.count_call("numbers");
        let first = state.last_number + 1;
        state.last_number += u64::from(count);
        Outcome::Applied(first)
    }

    async fn heartbeat(
        &self,
        _call: &CallContext,
        worker: &WorkerId,
        count: Option<u64>,
    ) -> Outcome<(), WriteError> {
        let mut state = self.count_call("beat");
        match count {
            None => {
                state.heartbeats.remove(worker);
            }
            // A late heartbeat does not lower the count.
            Some(count) => {
                let existing = state.heartbeats.entry(worker.clone()).or_default();
                *existing = count.max(*existing);
            }
        }
        Outcome::Applied(())
    }

    async fn heartbeats(&self) -> Result<Vec<Heartbeat>, StoreError> {
        let state = self.count_call("beats");
        let heartbeats = state.heartbeats.iter();
        Ok(heartbeats
            .map(|(worker, count)| Heartbeat { worker: worker.clone(), count: *count, ended: false })
            .collect())
    }

    async fn idempotency(
        &self,
        actor: &Actor,
        key: &IdempotencyKey,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        Ok(self.count_call("idempotency").idempotency_record(actor, key).cloned())
    }

    async fn audit(&self, before: Option<u64>, limit: usize) -> Result<Page<AuditEntry, u64>, StoreError> {
        let state = self.count_call("audit");
        let older = (Bound::Unbounded, before.map_or(Bound::Unbounded, Bound::Excluded));
        Ok(page(state.audit.range(older).rev().map(|(at, entry)| (*at, entry.clone())), limit))
    }

    async fn events(&self, after: Option<u64>, limit: usize) -> Result<Vec<(u64, FeedEvent)>, StoreError> {
        let state = self.count_call("events");
        let newer = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let events = state.events.range(newer).take(limit.max(1));
        Ok(events.map(|(number, event)| (*number, event.clone())).collect())
    }

    async fn last_event(&self) -> Result<Option<u64>, StoreError> {
        Ok(self.count_call("last_event").events.last_key_value().map(|(number, _)| *number))
    }

    async fn delete_old(&self, _call: &CallContext, old: &Old) -> Outcome<u64, WriteError> {
        let mut state = self.count_call("delete_old");
        let before = state.audit.len() + state.events.len();
        let oldest: Vec<u64> = state.audit.keys().copied().take(old.most).collect();
        for number in oldest {
            if state.audit.get(&number).is_some_and(|entry| entry.at < old.audit_before) {
                state.audit.remove(&number);
            }
        }
        // The last event stays, since event numbers continue from it.
        let events = state.events.len().saturating_sub(1);
        let oldest: Vec<u64> = state.events.keys().copied().take(old.most.min(events)).collect();
        for number in oldest.into_iter().filter(|number| old.events_to.is_none_or(|to| *number <= to)) {
            if state.events.get(&number).is_some_and(|event| event.at < old.events_before) {
                state.events.remove(&number);
            }
        }
        Outcome::Applied((before - state.audit.len() - state.events.len()) as u64)
    }
}

/// Returns the first `limit` items, and the cursor of the next page if there are more.
fn page<T, C>(mut items: impl Iterator<Item = (C, T)>, limit: usize) -> Page<T, C> {
    let (mut cursors, items_of_page): (Vec<C>, Vec<T>) = items.by_ref().take(limit.max(1)).unzip();
    Page { items: items_of_page, next: cursors.pop().filter(|_| items.next().is_some()) }
}

fn outcome<T>(result: Result<T, WriteError>) -> Outcome<T, WriteError> {
    match result {
        Ok(value) => Outcome::Applied(value),
        Err(rejected) => Outcome::NotApplied(rejected),
    }
}
