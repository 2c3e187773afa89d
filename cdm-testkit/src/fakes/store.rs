//! Records and the journal in memory, with every promise of the ports: what a test does here, it may rely on anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cdm_core::domain::rollout::RolloutPage;
use cdm_core::domain::site::{Claim, ClaimRefused, Claimed, Complete};
use cdm_core::domain::{
    Actor, AuditEntry, Colour, Fence, Fleet, Hostname, IdempotencyKey, Operation, OperationId, Rollout,
    RolloutStatus, Selector, Site, SiteId, Slot, Status, Subject, WorkerId,
};
use cdm_core::ports::{
    Batch, Beat, Call, Clock, FeedEvent, IdempotencyRecord, Journal, Live, LiveSubject, OperationQuery,
    Outcome, Page, Refused, SiteQuery, SiteRepository, StoreError, Write, WriteId,
};

use crate::clock::SimClock;
use crate::log::{Effect, EffectLog, What};

/// How long the answer to a request with a key is kept.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// How many records a batch may have.
const MOST: usize = 90;

/// A store in memory; clones are the same one.
///
/// It is strict where adapters would differ: a batch that names one record twice, has too many records or changes a
/// site's hostnames is [`StoreError::Denied`].
#[derive(Clone)]
pub struct FakeStore(Arc<Mutex<State>>);

impl fmt::Debug for FakeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeStore")
    }
}

impl FakeStore {
    /// An empty store that tells `log` of each record at the moment it is written.
    pub fn new(log: EffectLog, clock: SimClock) -> Self {
        Self(Arc::new(Mutex::new(State {
            log,
            clock,
            sites: BTreeMap::new(),
            removed: BTreeMap::new(),
            hostnames: BTreeMap::new(),
            colours: BTreeMap::new(),
            fleet: Record::default(),
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
        })))
    }

    /// Every site, in order of ids.
    pub fn all_sites(&self) -> Vec<Site> {
        self.state().sites.values().map(|record| Site::clone(&record.site)).collect()
    }

    /// Every rollout, oldest first.
    pub fn all_rollouts(&self) -> Vec<Rollout> {
        self.state().rollouts.values().map(|record| Rollout::clone(&record.value)).collect()
    }

    /// The frozen list of a rollout, page by page.
    pub fn pages(&self, rollout: u64) -> Vec<RolloutPage> {
        let state = self.state();
        let pages = state.pages.range((rollout, 0)..=(rollout, u32::MAX));
        pages.map(|(_, record)| RolloutPage::clone(&record.value)).collect()
    }

    /// Every claimed hostname and whose it is.
    pub fn hostnames(&self) -> Vec<(Hostname, SiteId)> {
        self.state().hostnames.iter().map(|(host, site)| (host.clone(), site.clone())).collect()
    }

    /// How many audit entries there are.
    pub fn audit_len(&self) -> usize {
        self.state().audit.len()
    }

    /// How many requests were made of the ports.
    pub fn requests(&self) -> u64 {
        self.state().counts.values().sum()
    }

    /// The same, by method.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.state().counts.clone()
    }

    /// Writes a site as it is, as an unrelated writer would: whoever read it before is refused. `false` without one.
    pub fn bump(&self, id: &SiteId) -> bool {
        let state = &mut *self.state();
        let Some(record) = state.sites.get_mut(id) else { return false };
        let before = state.log.is_on().then(|| record.site.clone());
        Arc::make_mut(&mut record.site).version += 1;
        (record.write, record.answer) = (None, None);
        let after = state.log.is_on().then(|| record.site.clone());
        state.tell(Fence::default(), || What::Site(before, after));
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self, method: &'static str) -> MutexGuard<'_, State> {
        let mut state = self.state();
        *state.counts.entry(method).or_default() += 1;
        state
    }
}

#[async_trait]
impl SiteRepository for FakeStore {
    async fn site(&self, id: &SiteId) -> Result<Option<Site>, StoreError> {
        Ok(self.asked("site").sites.get(id).map(|record| Site::clone(&record.site)))
    }

    async fn hostname(&self, host: &Hostname) -> Result<Option<SiteId>, StoreError> {
        Ok(self.asked("hostname").hostnames.get(host).cloned())
    }

    async fn sites(
        &self,
        query: &SiteQuery,
        after: Option<&SiteId>,
        limit: usize,
    ) -> Result<Page<Site, SiteId>, StoreError> {
        let state = self.asked("sites");
        let rest = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let found = state.sites.range::<SiteId, _>(rest).filter(|(_, record)| query.has(&record.site));
        Ok(page(found.map(|(id, record)| (id.clone(), Site::clone(&record.site))), limit))
    }

    async fn count(&self, query: &SiteQuery) -> Result<u64, StoreError> {
        let state = self.asked("count");
        Ok(state.sites.values().map(|record| u64::from(query.has(&record.site))).sum())
    }
}

#[async_trait]
impl Journal for FakeStore {
    async fn write(&self, call: &Call, batch: &Batch) -> Outcome<(), Refused> {
        outcome(self.asked("write").write(call, batch))
    }

    async fn claim(&self, call: &Call, claim: &Claim) -> Outcome<Claimed, Refused> {
        outcome(self.asked("claim").claim(call, claim).map_err(Refused::Claim))
    }

    async fn complete(&self, call: &Call, complete: &Complete) -> Outcome<(), Refused> {
        outcome(self.asked("complete").complete(call, complete).map_err(Refused::Claim))
    }

    async fn colour(&self, selector: Selector) -> Result<Colour, StoreError> {
        let state = self.asked("colour");
        let record = state.colours.get(&selector);
        Ok(record.map_or_else(|| Colour::new(selector), |record| Colour::clone(&record.value)))
    }

    async fn fleet(&self) -> Result<Fleet, StoreError> {
        Ok(Fleet::clone(&self.asked("fleet").fleet.value))
    }

    async fn rollout(&self, number: u64) -> Result<Option<Rollout>, StoreError> {
        Ok(self.asked("rollout").rollouts.get(&number).map(|record| Rollout::clone(&record.value)))
    }

    async fn rollout_page(&self, number: u64, page: u32) -> Result<Option<RolloutPage>, StoreError> {
        let state = self.asked("rollout_page");
        Ok(state.pages.get(&(number, page)).map(|record| RolloutPage::clone(&record.value)))
    }

    async fn rollouts(&self, before: Option<u64>, limit: usize) -> Result<Page<Rollout, u64>, StoreError> {
        let state = self.asked("rollouts");
        let older = (Bound::Unbounded, before.map_or(Bound::Unbounded, Bound::Excluded));
        let found = state.rollouts.range(older).rev();
        Ok(page(found.map(|(number, record)| (*number, Rollout::clone(&record.value))), limit))
    }

    async fn history(&self, id: &OperationId) -> Result<Option<Operation>, StoreError> {
        Ok(self.asked("history").history.get(id).map(|record| Operation::clone(&record.value)))
    }

    async fn operations(
        &self,
        query: &OperationQuery,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<Operation, u64>, StoreError> {
        let state = self.asked("operations");
        let older = |number: u64| before.is_none_or(|before| number < before);
        let ended = state.history.values().rev().filter(|record| older(record.value.id.number));
        let ended = ended.filter(|record| query.has(&record.value)).take(limit.max(1) + 1);
        let mut found: Vec<Operation> = state.operations().filter(|live| older(live.id.number)).collect();
        found.retain(|live| query.has(live));
        found.extend(ended.map(|record| Operation::clone(&record.value)));
        found.sort_by_key(|operation| std::cmp::Reverse(operation.id.number));
        Ok(page(found.into_iter().map(|operation| (operation.id.number, operation)), limit))
    }

    async fn live(&self) -> Result<Vec<Live>, StoreError> {
        let state = self.asked("live");
        let operations = state.working.iter().filter_map(|(number, subject)| {
            let slot = state.slot(subject).filter(|slot| !slot.status.rests())?;
            Some(Live {
                subject: LiveSubject::Operation(subject.clone()),
                number: *number,
                owner: slot.owner.clone(),
                wake: slot.wake.filter(|_| slot.status == Status::Waiting),
                asked: slot.cancel,
            })
        });
        let rollouts = state.active.iter().filter_map(|number| {
            let rollout = &state.rollouts.get(number)?.value;
            Some(Live {
                subject: LiveSubject::Rollout(*number),
                number: *number,
                owner: rollout.owner.clone(),
                wake: rollout.wake.filter(|_| rollout.status == RolloutStatus::Waiting),
                asked: rollout.control.is_some(),
            })
        });
        Ok(operations.chain(rollouts).collect())
    }

    async fn numbers(&self, _call: &Call, count: u32) -> Outcome<u64, Refused> {
        let mut state = self.asked("numbers");
        let first = state.drawn + 1;
        state.drawn += u64::from(count);
        Outcome::Applied(first)
    }

    async fn beat(&self, _call: &Call, worker: &WorkerId, count: Option<u64>) -> Outcome<(), Refused> {
        let mut state = self.asked("beat");
        match count {
            None => {
                state.beats.remove(worker);
            }
            // A late one does not make a worker look older than it is.
            Some(count) => {
                let known = state.beats.entry(worker.clone()).or_default();
                *known = count.max(*known);
            }
        }
        Outcome::Applied(())
    }

    async fn beats(&self) -> Result<Vec<Beat>, StoreError> {
        let state = self.asked("beats");
        let beats = state.beats.iter();
        Ok(beats.map(|(worker, count)| Beat { worker: worker.clone(), count: *count }).collect())
    }

    async fn idempotency(
        &self,
        actor: &Actor,
        key: &IdempotencyKey,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        Ok(self.asked("idempotency").kept(actor, key).cloned())
    }

    async fn audit(&self, before: Option<u64>, limit: usize) -> Result<Page<AuditEntry, u64>, StoreError> {
        let state = self.asked("audit");
        let older = (Bound::Unbounded, before.map_or(Bound::Unbounded, Bound::Excluded));
        Ok(page(state.audit.range(older).rev().map(|(at, entry)| (*at, entry.clone())), limit))
    }

    async fn events(&self, after: Option<u64>, limit: usize) -> Result<Page<FeedEvent, u64>, StoreError> {
        let state = self.asked("events");
        let newer = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let mut seen = None;
        let events = state.events.range(newer).take(limit.max(1)).map(|(at, event)| {
            seen = Some(*at);
            event.clone()
        });
        Ok(Page { items: events.collect(), next: seen })
    }
}

struct State {
    log: EffectLog,
    clock: SimClock,
    sites: BTreeMap<SiteId, SiteRecord>,
    /// The write that removed the last site of that id.
    removed: BTreeMap<SiteId, WriteId>,
    hostnames: BTreeMap<Hostname, SiteId>,
    colours: BTreeMap<Selector, Record<Colour>>,
    fleet: Record<Fleet>,
    rollouts: BTreeMap<u64, Record<Rollout>>,
    pages: BTreeMap<(u64, u32), Record<RolloutPage>>,
    history: BTreeMap<OperationId, Record<Operation>>,
    /// Where operations are at work or parked, but for rollouts' members: found without a look at every site.
    working: BTreeSet<(u64, Subject)>,
    /// The rollouts that a worker may have to do something for.
    active: BTreeSet<u64>,
    drawn: u64,
    beats: BTreeMap<WorkerId, u64>,
    keys: BTreeMap<(Actor, IdempotencyKey), IdempotencyRecord>,
    audit: BTreeMap<u64, AuditEntry>,
    events: BTreeMap<u64, FeedEvent>,
    counts: BTreeMap<&'static str, u64>,
}

#[derive(Default)]
struct Record<T> {
    value: Arc<T>,
    write: Option<WriteId>,
}

/// Shared with the log alone: without one, a claim changes the site in place.
struct SiteRecord {
    site: Arc<Site>,
    write: Option<WriteId>,
    /// What the claim that wrote it was answered.
    answer: Option<Result<Claimed, ClaimRefused>>,
}

impl State {
    fn write(&mut self, call: &Call, batch: &Batch) -> Result<(), Refused> {
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
            if !self.as_expected(write) {
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
                let (value, record) = written(call, Fleet { version: fleet.version + 1, ..fleet.clone() });
                self.fleet = record;
                self.reindex(before, single(value.slot.as_ref()), || Subject::Fleet);
                self.tell(call.fence, || What::Fleet(Fleet::clone(&value)));
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

    fn claim(&mut self, call: &Call, claim: &Claim) -> Result<Claimed, ClaimRefused> {
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
                Ok(Claimed::Barred) | Err(ClaimRefused::Settled(_)) => site.grant != seen,
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

    fn complete(&mut self, call: &Call, complete: &Complete) -> Result<(), ClaimRefused> {
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

    fn tell(&self, by: Fence, what: impl FnOnce() -> What) {
        self.log.push(|| Effect { at: self.clock.monotonic(), by, what: what() });
    }

    fn slot(&self, subject: &Subject) -> Option<&Slot> {
        match subject {
            Subject::Site(id) => self.sites.get(id)?.site.slot.as_ref(),
            Subject::Colour(selector) => self.colours.get(selector)?.value.slot.as_ref(),
            Subject::Fleet => self.fleet.value.slot.as_ref(),
        }
    }

    /// Every operation that has not ended, but for those of rollouts' members.
    fn operations(&self) -> impl Iterator<Item = Operation> {
        self.working.iter().filter_map(|(_, subject)| {
            self.slot(subject).map(|slot| Operation::live(subject.clone(), slot.clone()))
        })
    }

    fn kept(&self, actor: &Actor, key: &IdempotencyKey) -> Option<&IdempotencyRecord> {
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
        Write::CreateRollout(rollout) | Write::Rollout(rollout) => format!("rollout-{}", rollout.number),
        Write::RolloutPage(page) => format!("rollout-{}, page {}", page.rollout, page.page),
        Write::History(operation) => operation.id.to_string(),
    }
}

/// The first items, at most `limit`, and where the next ones begin.
fn page<T, C>(mut items: impl Iterator<Item = (C, T)>, limit: usize) -> Page<T, C> {
    let (mut cursors, items_of_page): (Vec<C>, Vec<T>) = items.by_ref().take(limit.max(1)).unzip();
    Page { items: items_of_page, next: cursors.pop().filter(|_| items.next().is_some()) }
}

fn append<T>(list: &mut BTreeMap<u64, T>, item: T) {
    let next = list.last_key_value().map_or(1, |(last, _)| last + 1);
    list.insert(next, item);
}

fn outcome<T>(result: Result<T, Refused>) -> Outcome<T, Refused> {
    match result {
        Ok(value) => Outcome::Applied(value),
        Err(refused) => Outcome::NotApplied(refused),
    }
}

fn hostnames_kept() -> bool {
    #[cfg(feature = "seeded-bugs")]
    return cdm_core::bugs::planted(cdm_core::bugs::Bug::HostnamesKept);
    #[cfg(not(feature = "seeded-bugs"))]
    false
}
