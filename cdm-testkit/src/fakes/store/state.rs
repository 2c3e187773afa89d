//! The state of the in-memory store. A batch is written completely or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::rollout::RolloutPage;
use cdm_core::domain::site::{Claim, ClaimRefused, Claimed, ReleaseClaim};
use cdm_core::domain::user::Users;
use cdm_core::domain::webhook::Webhooks;
use cdm_core::domain::{
    Actor, AuditEntry, Color, Fence, Fleet, Hostname, IdempotencyKey, Operation, OperationId, OperationState,
    Rollout, Service, Site, SiteId, Subject, WorkerId,
};
use cdm_core::ports::{
    CallContext, Clock, FeedEvent, IdempotencyRecord, Mutation, StoreError, WriteBatch, WriteError, WriteId,
};

use crate::clock::SimClock;
use crate::log::{Effect, EffectKind, EffectLog};

/// How long the response to a request with an idempotency key is kept.
const KEY_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Maximum records of a batch.
const MAX_RECORDS: usize = 90;

pub(super) struct State {
    pub(super) log: EffectLog,
    clock: SimClock,
    pub(super) sites: BTreeMap<SiteId, SiteRecord>,
    /// The write that removed the last site with this id.
    removed: BTreeMap<SiteId, WriteId>,
    pub(super) hostnames: BTreeMap<Hostname, SiteId>,
    pub(super) services: BTreeMap<Color, Record<Service>>,
    pub(super) fleet: Record<Fleet>,
    pub(super) webhooks: Record<Webhooks>,
    pub(super) users: Record<Users>,
    pub(super) rollouts: BTreeMap<u64, Record<Rollout>>,
    pub(super) pages: BTreeMap<(u64, u32), Record<RolloutPage>>,
    pub(super) history: BTreeMap<OperationId, Record<Operation>>,
    /// Unfinished operations without those of rollout members, so that a query need not read every site.
    pub(super) working: BTreeSet<(u64, Subject)>,
    /// Rollouts that a worker may have to advance.
    pub(super) active: BTreeSet<u64>,
    pub(super) last_number: u64,
    pub(super) heartbeats: BTreeMap<WorkerId, u64>,
    keys: BTreeMap<(Actor, IdempotencyKey), IdempotencyRecord>,
    pub(super) audit: BTreeMap<u64, AuditEntry>,
    pub(super) events: BTreeMap<u64, FeedEvent>,
    pub(super) counts: BTreeMap<&'static str, u64>,
}

#[derive(Default)]
pub(super) struct Record<T> {
    pub(super) value: Arc<T>,
    pub(super) write: Option<WriteId>,
}

/// Shared only with the log: if the log is off, a claim changes the site in place.
pub(super) struct SiteRecord {
    pub(super) site: Arc<Site>,
    pub(super) write: Option<WriteId>,
    /// Result of the claim that wrote the record.
    pub(super) result: Option<Result<Claimed, ClaimRefused>>,
}

impl State {
    /// Creates an empty state.
    pub(super) fn new(log: EffectLog, clock: SimClock) -> Self {
        Self {
            log,
            clock,
            sites: BTreeMap::new(),
            removed: BTreeMap::new(),
            hostnames: BTreeMap::new(),
            services: BTreeMap::new(),
            fleet: Record::default(),
            webhooks: Record::default(),
            users: Record::default(),
            rollouts: BTreeMap::new(),
            pages: BTreeMap::new(),
            history: BTreeMap::new(),
            working: BTreeSet::new(),
            active: BTreeSet::new(),
            last_number: 0,
            heartbeats: BTreeMap::new(),
            keys: BTreeMap::new(),
            audit: BTreeMap::new(),
            events: BTreeMap::new(),
            counts: BTreeMap::new(),
        }
    }

    pub(super) fn write(&mut self, call: &CallContext, batch: &WriteBatch) -> Result<(), WriteError> {
        if batch.writes.first().is_some_and(|first| self.last_writer(first) == Some(call.write)) {
            return Ok(());
        }
        if batch.idempotency.as_ref().is_some_and(|idempotency| {
            self.idempotency_record(&idempotency.actor, &idempotency.key).is_some()
        }) {
            return Err(WriteError::KeyUsed);
        }
        self.check(&batch.writes)?;
        for write in &batch.writes {
            self.put(call, write);
        }
        if let Some(entry) = &batch.audit {
            append(&mut self.audit, entry.clone());
        }
        for event in &batch.events {
            append(&mut self.events, event.clone());
        }
        if let Some(record) = &batch.idempotency {
            self.keys.insert((record.actor.clone(), record.key.clone()), record.clone());
        }
        Ok(())
    }

    /// Returns the last write of the record that `write` changes.
    fn last_writer(&self, write: &Mutation) -> Option<WriteId> {
        match write {
            Mutation::CreateSite(site) | Mutation::Site(site) => self.sites.get(&site.id)?.write,
            Mutation::RemoveSite(id, ..) => self.removed.get(id).copied(),
            Mutation::Service(service) => self.services.get(&service.color)?.write,
            Mutation::Fleet(_) => self.fleet.write,
            Mutation::Webhooks(_) => self.webhooks.write,
            Mutation::Users(_) => self.users.write,
            Mutation::CreateRollout(rollout) | Mutation::Rollout(rollout) => {
                self.rollouts.get(&rollout.number)?.write
            }
            Mutation::RolloutPage(page) => self.pages.get(&(page.rollout, page.page))?.write,
            Mutation::History(operation) => self.history.get(&operation.id)?.write,
        }
    }

    fn check(&self, writes: &[Mutation]) -> Result<(), WriteError> {
        let deny = |why: &str| Err(WriteError::Store(StoreError::Denied(why.to_owned())));
        let mut names = BTreeSet::new();
        if writes.len() > MAX_RECORDS
            || writes.len() > 1 && !writes.iter().all(|write| names.insert(name(write)))
        {
            return deny("a batch has at most 90 records, and each of them once");
        }
        let mut claimed: BTreeMap<&Hostname, &SiteId> = BTreeMap::new();
        for write in writes {
            let alone = |page: &RolloutPage| {
                !writes.iter().any(
                    |write| matches!(write, Mutation::Rollout(rollout) if rollout.number == page.rollout),
                )
            };
            let late = matches!(write, Mutation::RolloutPage(page)
                if alone(page) && self.rollouts.contains_key(&page.rollout));
            if late || !self.as_expected(write) {
                return Err(WriteError::Conflict(name(write)));
            }
            if let Mutation::Site(site) = write
                && self.sites.get(&site.id).is_some_and(|record| record.site.hostnames != site.hostnames)
            {
                return deny("a site keeps the hostnames that it was created with");
            }
            let Mutation::CreateSite(site) = write else { continue };
            for host in site.hostnames.all() {
                if let Some(owner) = self.hostnames.get(host).or(claimed.get(host).copied()) {
                    return Err(WriteError::HostnameTaken { host: host.clone(), site: owner.clone() });
                }
                claimed.insert(host, &site.id);
            }
        }
        Ok(())
    }

    fn as_expected(&self, write: &Mutation) -> bool {
        let site = |id: &SiteId| self.sites.get(id).map(|record| &record.site);
        match write {
            Mutation::CreateSite(site) => !self.sites.contains_key(&site.id),
            // A site with another uid is another site, even if the versions are equal.
            Mutation::Site(new) => {
                site(&new.id).is_some_and(|old| (old.version, old.uid) == (new.version, new.uid))
            }
            Mutation::RemoveSite(id, uid, version) => {
                site(id).is_some_and(|site| site.version == *version && site.uid == *uid)
            }
            Mutation::Service(service) => {
                let record = self.services.get(&service.color);
                record.map_or(0, |record| record.value.version) == service.version
            }
            Mutation::Fleet(fleet) => self.fleet.value.version == fleet.version,
            Mutation::Webhooks(webhooks) => self.webhooks.value.version == webhooks.version,
            Mutation::Users(users) => self.users.value.version == users.version,
            Mutation::CreateRollout(rollout) => !self.rollouts.contains_key(&rollout.number),
            Mutation::Rollout(rollout) => {
                let record = self.rollouts.get(&rollout.number);
                record.is_some_and(|record| record.value.version == rollout.version)
            }
            Mutation::RolloutPage(_) | Mutation::History(_) => true,
        }
    }

    fn put(&mut self, call: &CallContext, write: &Mutation) {
        match write {
            Mutation::CreateSite(site) => self.put_site(call, site, 1),
            Mutation::Site(site) => self.put_site(call, site, site.version + 1),
            Mutation::RemoveSite(id, ..) => self.remove_site(call, id),
            Mutation::Service(service) => {
                let (value, record) =
                    written(call, Service { version: service.version + 1, ..Service::clone(service) });
                let before = self.services.insert(service.color, record);
                let before = before.and_then(|record| own_number(record.value.operation.as_ref()));
                self.reindex(before, own_number(value.operation.as_ref()), || {
                    Subject::Service(service.color)
                });
                self.log_effect(call.fence, || EffectKind::Service(value));
            }
            Mutation::Fleet(fleet) => {
                let before = own_number(self.fleet.value.operation.as_ref());
                let (value, record) =
                    written(call, Fleet { version: fleet.version + 1, ..Fleet::clone(fleet) });
                self.fleet = record;
                self.reindex(before, own_number(value.operation.as_ref()), || Subject::Fleet);
                self.log_effect(call.fence, || EffectKind::Fleet(value));
            }
            Mutation::Webhooks(webhooks) => {
                let after = Webhooks { version: webhooks.version + 1, ..Webhooks::clone(webhooks) };
                self.webhooks = written(call, after).1;
            }
            Mutation::Users(users) => {
                let after = Users { version: users.version + 1, ..Users::clone(users) };
                self.users = written(call, after).1;
            }
            Mutation::CreateRollout(rollout) => self.put_rollout(call, rollout, 1),
            Mutation::Rollout(rollout) => self.put_rollout(call, rollout, rollout.version + 1),
            Mutation::RolloutPage(page) => {
                self.pages.insert((page.rollout, page.page), written(call, page.clone()).1);
            }
            Mutation::History(operation) => {
                if self.history.contains_key(&operation.id) {
                    return;
                }
                let (value, record) = written(call, Operation::clone(operation));
                self.history.insert(operation.id.clone(), record);
                self.log_effect(call.fence, || EffectKind::Ended(value));
            }
        }
    }

    fn put_site(&mut self, call: &CallContext, site: &Site, version: u64) {
        let hosts = site.hostnames.all().iter();
        self.hostnames.extend(hosts.map(|host| (host.clone(), site.id.clone())));
        let (after, Record { value, write }) = written(call, Site { version, ..site.clone() });
        let record = SiteRecord { site: value, write, result: None };
        let before = self.sites.insert(site.id.clone(), record).map(|record| record.site);
        let then = before.as_ref().and_then(|before| own_number(before.operation.as_ref()));
        self.reindex(then, own_number(site.operation.as_ref()), || Subject::Site(site.id.clone()));
        self.log_effect(call.fence, || EffectKind::Site(before, Some(after)));
    }

    fn remove_site(&mut self, call: &CallContext, id: &SiteId) {
        let Some(SiteRecord { site, .. }) = self.sites.remove(id) else { return };
        if !hostnames_kept() {
            for host in site.hostnames.all() {
                self.hostnames.remove(host);
            }
        }
        self.removed.insert(id.clone(), call.write);
        self.reindex(own_number(site.operation.as_ref()), None, || Subject::Site(id.clone()));
        self.log_effect(call.fence, || EffectKind::Site(Some(site), None));
    }

    fn put_rollout(&mut self, call: &CallContext, rollout: &Rollout, version: u64) {
        if rollout.status.runnable() || rollout.control.is_some() {
            self.active.insert(rollout.number);
        } else {
            self.active.remove(&rollout.number);
        }
        let (value, record) = written(call, Rollout { version, ..rollout.clone() });
        self.rollouts.insert(rollout.number, record);
        self.log_effect(call.fence, || EffectKind::Rollout(value));
    }

    pub(super) fn claim(&mut self, call: &CallContext, claim: &Claim) -> Result<Claimed, ClaimRefused> {
        let result = self.change(call, &claim.id, |record| {
            if record.write == Some(call.write)
                && let Some(result) = record.result
            {
                return (result, false);
            }
            let site = Arc::make_mut(&mut record.site);
            let token_before = site.claim_token;
            let result = site.claim(claim);
            let written = match result {
                Ok(Claimed::Taken { .. }) => true,
                Ok(Claimed::FencedOff) | Err(ClaimRefused::AlreadyResolved(..)) => {
                    site.claim_token != token_before
                }
                Err(
                    ClaimRefused::Gone | ClaimRefused::NotActive | ClaimRefused::Busy | ClaimRefused::Fenced,
                ) => false,
            };
            if written {
                record.result = Some(result);
            }
            (result, written)
        });
        result.unwrap_or(Err(ClaimRefused::Gone))
    }

    pub(super) fn release_claim(
        &mut self,
        call: &CallContext,
        complete: &ReleaseClaim,
    ) -> Result<(), ClaimRefused> {
        let result = self.change(call, &complete.id, |record| {
            if record.write == Some(call.write) {
                return (Ok(()), false);
            }
            let result = Arc::make_mut(&mut record.site).release_claim(complete);
            if result.is_ok() {
                record.result = None;
            }
            (result, result.is_ok())
        });
        result.unwrap_or(Err(ClaimRefused::Gone))
    }

    /// Lets `decide` change a site in place and return whether it did. Returns `None` if the site does not
    /// exist.
    fn change<T>(
        &mut self,
        call: &CallContext,
        id: &SiteId,
        decide: impl FnOnce(&mut SiteRecord) -> (T, bool),
    ) -> Option<T> {
        let record = self.sites.get_mut(id)?;
        // A second reference to the site would force each change to copy it. The log alone needs one.
        let before = self.log.is_on().then(|| Arc::clone(&record.site));
        let then = own_number(record.site.operation.as_ref());
        let (result, written) = decide(record);
        if written {
            Arc::make_mut(&mut record.site).version += 1;
            record.write = Some(call.write);
            let now = own_number(record.site.operation.as_ref());
            let after = before.is_some().then(|| Arc::clone(&record.site));
            self.reindex(then, now, || Subject::Site(id.clone()));
            self.log_effect(call.fence, || EffectKind::Site(before, after));
        }
        Some(result)
    }

    /// Updates [`State::working`] after the operation of a subject changed from one number to another.
    fn reindex(&mut self, then: Option<u64>, now: Option<u64>, subject: impl FnOnce() -> Subject) {
        if then == now {
            return;
        }
        let subject = subject();
        if let Some(number) = then {
            self.working.remove(&(number, subject.clone()));
        }
        self.working.extend(now.map(|number| (number, subject)));
    }

    pub(super) fn log_effect(&self, by: Fence, kind: impl FnOnce() -> EffectKind) {
        self.log.push(|| Effect { at: self.clock.monotonic(), by, kind: kind() });
    }

    pub(super) fn operation(&self, subject: &Subject) -> Option<&OperationState> {
        match subject {
            Subject::Site(id) => self.sites.get(id)?.site.operation.as_ref(),
            Subject::Service(color) => self.services.get(color)?.value.operation.as_ref(),
            Subject::Fleet => self.fleet.value.operation.as_ref(),
        }
    }

    /// Returns every unfinished operation, without those of rollout members.
    pub(super) fn operations(&self) -> impl Iterator<Item = Operation> {
        self.working.iter().filter_map(|(_, subject)| {
            self.operation(subject).map(|operation| Operation::live(subject.clone(), operation.clone()))
        })
    }

    pub(super) fn idempotency_record(
        &self,
        actor: &Actor,
        key: &IdempotencyKey,
    ) -> Option<&IdempotencyRecord> {
        let record = self.keys.get(&(actor.clone(), key.clone()))?;
        Some(record).filter(|record| self.clock.wall().since(record.at) < KEY_LIFETIME)
    }
}

/// Returns a value as a record, and a second reference to it for the log.
fn written<T>(call: &CallContext, value: T) -> (Arc<T>, Record<T>) {
    let value = Arc::new(value);
    (Arc::clone(&value), Record { value, write: Some(call.write) })
}

/// Returns the number of an operation that is not a rollout member's.
fn own_number(operation: Option<&OperationState>) -> Option<u64> {
    operation.filter(|operation| operation.member.is_none()).map(|operation| operation.number)
}

/// Returns the unique name of a written record.
fn name(write: &Mutation) -> String {
    match write {
        Mutation::CreateSite(site) | Mutation::Site(site) => Subject::Site(site.id.clone()).to_string(),
        Mutation::RemoveSite(id, ..) => Subject::Site(id.clone()).to_string(),
        Mutation::Service(service) => Subject::Service(service.color).to_string(),
        Mutation::Fleet(_) => Subject::Fleet.to_string(),
        Mutation::Webhooks(_) => "webhooks".to_owned(),
        Mutation::Users(_) => "users".to_owned(),
        Mutation::CreateRollout(rollout) | Mutation::Rollout(rollout) => {
            format!("rollout-{}", rollout.number)
        }
        Mutation::RolloutPage(page) => format!("rollout-{}, page {}", page.rollout, page.page),
        Mutation::History(operation) => operation.id.to_string(),
    }
}

fn append<T>(list: &mut BTreeMap<u64, T>, item: T) {
    let next = list.last_key_value().map_or(1, |(last, _)| last + 1);
    list.insert(next, item);
}

fn hostnames_kept() -> bool {
    #[cfg(feature = "seeded-bugs")]
    return cdm_core::bugs::planted(cdm_core::bugs::Bug::HostnamesKept);
    #[cfg(not(feature = "seeded-bugs"))]
    false
}
