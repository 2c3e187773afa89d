//! What the store in memory keeps, and how a write changes it: all of a batch or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::rollout::RolloutPage;
use cdm_core::domain::site::{Claim, ClaimRefused, Claimed, Complete};
use cdm_core::domain::user::Users;
use cdm_core::domain::webhook::Webhooks;
use cdm_core::domain::{
    Actor, AuditEntry, Colour, Fence, Fleet, Hostname, IdempotencyKey, Operation, OperationId, Rollout,
    Selector, Site, SiteId, Slot, Subject, WorkerId,
};
use cdm_core::ports::{
    Batch, Call, Clock, FeedEvent, IdempotencyRecord, Refused, StoreError, Write, WriteId,
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
    pub(super) colours: BTreeMap<Selector, Record<Colour>>,
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
    pub(super) beats: BTreeMap<WorkerId, u64>,
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
            colours: BTreeMap::new(),
            fleet: Record::default(),
            webhooks: Record::default(),
            users: Record::default(),
            rollouts: BTreeMap::new(),
            pages: BTreeMap::new(),
            history: BTreeMap::new(),
            working: BTreeSet::new(),
            active: BTreeSet::new(),
            drawn: 0,
            beats: BTreeMap::new(),
            keys: BTreeMap::new(),
            audit: BTreeMap::new(),
            events: BTreeMap::new(),
            counts: BTreeMap::new(),
        }
    }

    pub(super) fn write(&mut self, call: &Call, batch: &Batch) -> Result<(), Refused> {
        if batch.writes.first().is_some_and(|first| self.last_writer(first) == Some(call.write)) {
            return Ok(());
        }
        if batch.idempotency.as_ref().is_some_and(|asked| self.kept(&asked.actor, &asked.key).is_some()) {
            return Err(Refused::KeyUsed);
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
    fn last_writer(&self, write: &Write) -> Option<WriteId> {
        match write {
            Write::CreateSite(site) | Write::Site(site) => self.sites.get(&site.id)?.write,
            Write::RemoveSite(id, ..) => self.removed.get(id).copied(),
            Write::Colour(colour) => self.colours.get(&colour.selector)?.write,
            Write::Fleet(_) => self.fleet.write,
            Write::Webhooks(_) => self.webhooks.write,
            Write::Users(_) => self.users.write,
            Write::CreateRollout(rollout) | Write::Rollout(rollout) => {
                self.rollouts.get(&rollout.number)?.write
            }
            Write::RolloutPage(page) => self.pages.get(&(page.rollout, page.page))?.write,
            Write::History(operation) => self.history.get(&operation.id)?.write,
        }
    }

    fn check(&self, writes: &[Write]) -> Result<(), Refused> {
        let deny = |why: &str| Err(Refused::Store(StoreError::Denied(why.to_owned())));
        let mut names = BTreeSet::new();
        if writes.len() > MOST || writes.len() > 1 && !writes.iter().all(|write| names.insert(name(write))) {
            return deny("a batch has at most 90 records, and each of them once");
        }
        let mut claimed: BTreeMap<&Hostname, &SiteId> = BTreeMap::new();
        for write in writes {
            let alone = |page: &RolloutPage| {
                !writes
                    .iter()
                    .any(|write| matches!(write, Write::Rollout(rollout) if rollout.number == page.rollout))
            };
            let late = matches!(write, Write::RolloutPage(page)
                if alone(page) && self.rollouts.contains_key(&page.rollout));
            if late || !self.as_expected(write) {
                return Err(Refused::Conflict(name(write)));
            }
            if let Write::Site(site) = write
                && self.sites.get(&site.id).is_some_and(|record| record.site.hostnames != site.hostnames)
            {
                return deny("a site keeps the hostnames that it was created with");
            }
            let Write::CreateSite(site) = write else { continue };
            for host in site.hostnames.all() {
                if let Some(owner) = self.hostnames.get(host).or(claimed.get(host).copied()) {
                    return Err(Refused::HostnameTaken { host: host.clone(), site: owner.clone() });
                }
                claimed.insert(host, &site.id);
            }
        }
        Ok(())
    }

    fn as_expected(&self, write: &Write) -> bool {
        let site = |id: &SiteId| self.sites.get(id).map(|record| &record.site);
        match write {
            Write::CreateSite(site) => !self.sites.contains_key(&site.id),
            // A site of another uid is another site, though it may have come to the same version.
            Write::Site(new) => {
                site(&new.id).is_some_and(|old| (old.version, old.uid) == (new.version, new.uid))
            }
            Write::RemoveSite(id, uid, version) => {
                site(id).is_some_and(|site| site.version == *version && site.uid == *uid)
            }
            Write::Colour(colour) => {
                let record = self.colours.get(&colour.selector);
                record.map_or(0, |record| record.value.version) == colour.version
            }
            Write::Fleet(fleet) => self.fleet.value.version == fleet.version,
            Write::Webhooks(webhooks) => self.webhooks.value.version == webhooks.version,
            Write::Users(users) => self.users.value.version == users.version,
            Write::CreateRollout(rollout) => !self.rollouts.contains_key(&rollout.number),
            Write::Rollout(rollout) => {
                let record = self.rollouts.get(&rollout.number);
                record.is_some_and(|record| record.value.version == rollout.version)
            }
            Write::RolloutPage(_) | Write::History(_) => true,
        }
    }

    fn put(&mut self, call: &Call, write: &Write) {
        match write {
            Write::CreateSite(site) => self.put_site(call, site, 1),
            Write::Site(site) => self.put_site(call, site, site.version + 1),
            Write::RemoveSite(id, ..) => self.remove_site(call, id),
            Write::Colour(colour) => {
                let (value, record) =
                    written(call, Colour { version: colour.version + 1, ..Colour::clone(colour) });
                let before = self.colours.insert(colour.selector, record);
                let before = before.and_then(|record| single(record.value.slot.as_ref()));
                self.reindex(before, single(value.slot.as_ref()), || Subject::Colour(colour.selector));
                self.tell(call.fence, || What::Colour(value));
            }
            Write::Fleet(fleet) => {
                let before = single(self.fleet.value.slot.as_ref());
                let (value, record) =
                    written(call, Fleet { version: fleet.version + 1, ..Fleet::clone(fleet) });
                self.fleet = record;
                self.reindex(before, single(value.slot.as_ref()), || Subject::Fleet);
                self.tell(call.fence, || What::Fleet(value));
            }
            Write::Webhooks(webhooks) => {
                let after = Webhooks { version: webhooks.version + 1, ..Webhooks::clone(webhooks) };
                self.webhooks = written(call, after).1;
            }
            Write::Users(users) => {
                let after = Users { version: users.version + 1, ..Users::clone(users) };
                self.users = written(call, after).1;
            }
            Write::CreateRollout(rollout) => self.put_rollout(call, rollout, 1),
            Write::Rollout(rollout) => self.put_rollout(call, rollout, rollout.version + 1),
            Write::RolloutPage(page) => {
                self.pages.insert((page.rollout, page.page), written(call, page.clone()).1);
            }
            Write::History(operation) => {
                if self.history.contains_key(&operation.id) {
                    return;
                }
                let (value, record) = written(call, Operation::clone(operation));
                self.history.insert(operation.id.clone(), record);
                self.tell(call.fence, || What::Ended(value));
            }
        }
    }

    fn put_site(&mut self, call: &Call, site: &Site, version: u64) {
        let hosts = site.hostnames.all().iter();
        self.hostnames.extend(hosts.map(|host| (host.clone(), site.id.clone())));
        let (after, Record { value, write }) = written(call, Site { version, ..site.clone() });
        let record = SiteRecord { site: value, write, answer: None };
        let before = self.sites.insert(site.id.clone(), record).map(|record| record.site);
        let then = before.as_ref().and_then(|before| single(before.slot.as_ref()));
        self.reindex(then, single(site.slot.as_ref()), || Subject::Site(site.id.clone()));
        self.tell(call.fence, || What::Site(before, Some(after)));
    }

    fn remove_site(&mut self, call: &Call, id: &SiteId) {
        let Some(SiteRecord { site, .. }) = self.sites.remove(id) else { return };
        if !hostnames_kept() {
            for host in site.hostnames.all() {
                self.hostnames.remove(host);
            }
        }
        self.removed.insert(id.clone(), call.write);
        self.reindex(single(site.slot.as_ref()), None, || Subject::Site(id.clone()));
        self.tell(call.fence, || What::Site(Some(site), None));
    }

    fn put_rollout(&mut self, call: &Call, rollout: &Rollout, version: u64) {
        if rollout.status.runnable() || rollout.control.is_some() {
            self.active.insert(rollout.number);
        } else {
            self.active.remove(&rollout.number);
        }
        let (value, record) = written(call, Rollout { version, ..rollout.clone() });
        self.rollouts.insert(rollout.number, record);
        self.tell(call.fence, || What::Rollout(value));
    }

    pub(super) fn claim(&mut self, call: &Call, claim: &Claim) -> Result<Claimed, ClaimRefused> {
        let answer = self.change(call, &claim.id, |record| {
            if record.write == Some(call.write)
                && let Some(answer) = record.answer
            {
                return (answer, false);
            }
            let site = Arc::make_mut(&mut record.site);
            let seen = site.grant;
            let answer = site.claim(claim);
            let written = match answer {
                Ok(Claimed::Taken { .. }) => true,
                Ok(Claimed::Barred) | Err(ClaimRefused::Settled(..)) => site.grant != seen,
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

    pub(super) fn complete(&mut self, call: &Call, complete: &Complete) -> Result<(), ClaimRefused> {
        let answer = self.change(call, &complete.id, |record| {
            if record.write == Some(call.write) {
                return (Ok(()), false);
            }
            let answer = Arc::make_mut(&mut record.site).complete(complete);
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
        call: &Call,
        id: &SiteId,
        decide: impl FnOnce(&mut SiteRecord) -> (T, bool),
    ) -> Option<T> {
        let record = self.sites.get_mut(id)?;
        // A second hand on the site makes every change copy it, so there is one only where the log wants it.
        let before = self.log.is_on().then(|| Arc::clone(&record.site));
        let then = single(record.site.slot.as_ref());
        let (answer, written) = decide(record);
        if written {
            Arc::make_mut(&mut record.site).version += 1;
            record.write = Some(call.write);
            let now = single(record.site.slot.as_ref());
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

    pub(super) fn slot(&self, subject: &Subject) -> Option<&Slot> {
        match subject {
            Subject::Site(id) => self.sites.get(id)?.site.slot.as_ref(),
            Subject::Colour(selector) => self.colours.get(selector)?.value.slot.as_ref(),
            Subject::Fleet => self.fleet.value.slot.as_ref(),
        }
    }

    /// Every operation that has not ended, but for those of rollouts' members.
    pub(super) fn operations(&self) -> impl Iterator<Item = Operation> {
        self.working.iter().filter_map(|(_, subject)| {
            self.slot(subject).map(|slot| Operation::live(subject.clone(), slot.clone()))
        })
    }

    pub(super) fn kept(&self, actor: &Actor, key: &IdempotencyKey) -> Option<&IdempotencyRecord> {
        let record = self.keys.get(&(actor.clone(), key.clone()))?;
        Some(record).filter(|record| self.clock.wall().since(record.at) < KEPT)
    }
}

/// A value as it is kept, and the same for the log.
fn written<T>(call: &Call, value: T) -> (Arc<T>, Record<T>) {
    let value = Arc::new(value);
    (Arc::clone(&value), Record { value, write: Some(call.write) })
}

/// The number of an operation that is nobody's member.
fn single(slot: Option<&Slot>) -> Option<u64> {
    slot.filter(|slot| slot.member.is_none()).map(|slot| slot.number)
}

/// What a written record is called, as no other is.
fn name(write: &Write) -> String {
    match write {
        Write::CreateSite(site) | Write::Site(site) => Subject::Site(site.id.clone()).to_string(),
        Write::RemoveSite(id, ..) => Subject::Site(id.clone()).to_string(),
        Write::Colour(colour) => Subject::Colour(colour.selector).to_string(),
        Write::Fleet(_) => Subject::Fleet.to_string(),
        Write::Webhooks(_) => "webhooks".to_owned(),
        Write::Users(_) => "users".to_owned(),
        Write::CreateRollout(rollout) | Write::Rollout(rollout) => format!("rollout-{}", rollout.number),
        Write::RolloutPage(page) => format!("rollout-{}, page {}", page.rollout, page.page),
        Write::History(operation) => operation.id.to_string(),
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
