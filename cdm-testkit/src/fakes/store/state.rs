//! What the store in memory keeps, and how a write changes it: all of a batch or nothing.

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
use crate::log::{Effect, EffectLog, What};

/// How long the answer to a request with a key is kept.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// How many records a batch may have.
const MOST: usize = 90;

pub(super) struct State {
    pub(super) log: EffectLog,
    clock: SimClock,
    pub(super) sites: BTreeMap<SiteId, SiteRecord>,
    /// The write that removed the last site of that id.
    removed: BTreeMap<SiteId, WriteId>,
    pub(super) hostnames: BTreeMap<Hostname, SiteId>,
    pub(super) services: BTreeMap<Color, Record<Service>>,
    pub(super) fleet: Record<Fleet>,
    pub(super) webhooks: Record<Webhooks>,
    pub(super) users: Record<Users>,
    pub(super) rollouts: BTreeMap<u64, Record<Rollout>>,
    pub(super) pages: BTreeMap<(u64, u32), Record<RolloutPage>>,
    pub(super) history: BTreeMap<OperationId, Record<Operation>>,
    /// Where operations are at work or parked, but for rollouts' members: found without a look at every site.
    pub(super) working: BTreeSet<(u64, Subject)>,
    /// The rollouts that a worker may have to do something for.
    pub(super) active: BTreeSet<u64>,
    pub(super) drawn: u64,
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

/// Shared with the log alone: without one, a claim changes the site in place.
pub(super) struct SiteRecord {
    pub(super) site: Arc<Site>,
    pub(super) write: Option<WriteId>,
    /// What the claim that wrote it was answered.
    pub(super) answer: Option<Result<Claimed, ClaimRefused>>,
}

impl State {
    /// Nothing yet.
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
            drawn: 0,
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
        if batch.idempotency.as_ref().is_some_and(|asked| self.kept(&asked.actor, &asked.key).is_some()) {
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

    /// Who wrote the record that `write` is about last.
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
        if writes.len() > MOST || writes.len() > 1 && !writes.iter().all(|write| names.insert(name(write))) {
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
            // A site of another uid is another site, though it may have come to the same version.
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
                let before = before.and_then(|record| single(record.value.operation.as_ref()));
                self.reindex(before, single(value.operation.as_ref()), || Subject::Service(service.color));
                self.tell(call.fence, || What::Colour(value));
            }
            Mutation::Fleet(fleet) => {
                let before = single(self.fleet.value.operation.as_ref());
                let (value, record) =
                    written(call, Fleet { version: fleet.version + 1, ..Fleet::clone(fleet) });
                self.fleet = record;
                self.reindex(before, single(value.operation.as_ref()), || Subject::Fleet);
                self.tell(call.fence, || What::Fleet(value));
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
                self.tell(call.fence, || What::Ended(value));
            }
        }
    }

    fn put_site(&mut self, call: &CallContext, site: &Site, version: u64) {
        let hosts = site.hostnames.all().iter();
        self.hostnames.extend(hosts.map(|host| (host.clone(), site.id.clone())));
        let (after, Record { value, write }) = written(call, Site { version, ..site.clone() });
        let record = SiteRecord { site: value, write, answer: None };
        let before = self.sites.insert(site.id.clone(), record).map(|record| record.site);
        let then = before.as_ref().and_then(|before| single(before.operation.as_ref()));
        self.reindex(then, single(site.operation.as_ref()), || Subject::Site(site.id.clone()));
        self.tell(call.fence, || What::Site(before, Some(after)));
    }

    fn remove_site(&mut self, call: &CallContext, id: &SiteId) {
        let Some(SiteRecord { site, .. }) = self.sites.remove(id) else { return };
        if !hostnames_kept() {
            for host in site.hostnames.all() {
                self.hostnames.remove(host);
            }
        }
        self.removed.insert(id.clone(), call.write);
        self.reindex(single(site.operation.as_ref()), None, || Subject::Site(id.clone()));
        self.tell(call.fence, || What::Site(Some(site), None));
    }

    fn put_rollout(&mut self, call: &CallContext, rollout: &Rollout, version: u64) {
        if rollout.status.runnable() || rollout.control.is_some() {
            self.active.insert(rollout.number);
        } else {
            self.active.remove(&rollout.number);
        }
        let (value, record) = written(call, Rollout { version, ..rollout.clone() });
        self.rollouts.insert(rollout.number, record);
        self.tell(call.fence, || What::Rollout(value));
    }

    pub(super) fn claim(&mut self, call: &CallContext, claim: &Claim) -> Result<Claimed, ClaimRefused> {
        let answer = self.change(call, &claim.id, |record| {
            if record.write == Some(call.write)
                && let Some(answer) = record.answer
            {
                return (answer, false);
            }
            let site = Arc::make_mut(&mut record.site);
            let seen = site.claim_token;
            let answer = site.claim(claim);
            let written = match answer {
                Ok(Claimed::Taken { .. }) => true,
                Ok(Claimed::FencedOff) | Err(ClaimRefused::AlreadyResolved(..)) => site.claim_token != seen,
                Err(
                    ClaimRefused::Gone | ClaimRefused::NotActive | ClaimRefused::Busy | ClaimRefused::Fenced,
                ) => false,
            };
            if written {
                record.answer = Some(answer);
            }
            (answer, written)
        });
        answer.unwrap_or(Err(ClaimRefused::Gone))
    }

    pub(super) fn release_claim(
        &mut self,
        call: &CallContext,
        complete: &ReleaseClaim,
    ) -> Result<(), ClaimRefused> {
        let answer = self.change(call, &complete.id, |record| {
            if record.write == Some(call.write) {
                return (Ok(()), false);
            }
            let answer = Arc::make_mut(&mut record.site).release_claim(complete);
            if answer.is_ok() {
                record.answer = None;
            }
            (answer, answer.is_ok())
        });
        answer.unwrap_or(Err(ClaimRefused::Gone))
    }

    /// Lets `decide` change a site in place and say whether it did; `None` where there is no site.
    fn change<T>(
        &mut self,
        call: &CallContext,
        id: &SiteId,
        decide: impl FnOnce(&mut SiteRecord) -> (T, bool),
    ) -> Option<T> {
        let record = self.sites.get_mut(id)?;
        // A second hand on the site makes every change copy it, so there is one only where the log wants it.
        let before = self.log.is_on().then(|| Arc::clone(&record.site));
        let then = single(record.site.operation.as_ref());
        let (answer, written) = decide(record);
        if written {
            Arc::make_mut(&mut record.site).version += 1;
            record.write = Some(call.write);
            let now = single(record.site.operation.as_ref());
            let after = before.is_some().then(|| Arc::clone(&record.site));
            self.reindex(then, now, || Subject::Site(id.clone()));
            self.tell(call.fence, || What::Site(before, after));
        }
        Some(answer)
    }

    /// Keeps [`State::working`] true after a subject's single operation changed from one number to another.
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

    pub(super) fn tell(&self, by: Fence, what: impl FnOnce() -> What) {
        self.log.push(|| Effect { at: self.clock.monotonic(), by, what: what() });
    }

    pub(super) fn operation(&self, subject: &Subject) -> Option<&OperationState> {
        match subject {
            Subject::Site(id) => self.sites.get(id)?.site.operation.as_ref(),
            Subject::Service(color) => self.services.get(color)?.value.operation.as_ref(),
            Subject::Fleet => self.fleet.value.operation.as_ref(),
        }
    }

    /// Every operation that has not ended, but for those of rollouts' members.
    pub(super) fn operations(&self) -> impl Iterator<Item = Operation> {
        self.working.iter().filter_map(|(_, subject)| {
            self.operation(subject).map(|operation| Operation::live(subject.clone(), operation.clone()))
        })
    }

    pub(super) fn kept(&self, actor: &Actor, key: &IdempotencyKey) -> Option<&IdempotencyRecord> {
        let record = self.keys.get(&(actor.clone(), key.clone()))?;
        Some(record).filter(|record| self.clock.wall().since(record.at) < KEPT)
    }
}

/// A value as it is kept, and the same for the log.
fn written<T>(call: &CallContext, value: T) -> (Arc<T>, Record<T>) {
    let value = Arc::new(value);
    (Arc::clone(&value), Record { value, write: Some(call.write) })
}

/// The number of an operation that is nobody's member.
fn single(operation: Option<&OperationState>) -> Option<u64> {
    operation.filter(|operation| operation.member.is_none()).map(|operation| operation.number)
}

/// What a written record is called, as no other is.
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
