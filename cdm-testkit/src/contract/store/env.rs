//! The environment of a store test: unique names, reads and writes, and assertions that name the guarantee.

use std::fmt::Debug;
use std::time::Duration;

use cdm_core::domain::rollout::MemberOutcome;
use cdm_core::domain::site::{Claim, ClaimIntent, ReleaseClaim};
use cdm_core::domain::{
    AuditEntry, Canonical, ClaimToken, Color, Direction, Epoch, Fence, Fingerprint, Hostname, Hostnames,
    IdempotencyKey, Operation, OperationId, OperationInput, OperationState, Routed, Site, SiteId, Status,
    Subject, Term, TerminalStatus, Timestamp, WorkerId,
};
use cdm_core::ports::{
    CallContext, FeedEvent, IdempotencyRecord, Mutation, OperationQuery, Outcome, PendingWork, SiteQuery,
    Store, StoreError, WorkItem, WriteBatch, WriteError,
};

use super::super::SuiteContext;
use crate::fixtures;

/// A store with names that are unique to one test, so that the test finds no records of others.
pub(super) struct TestEnv<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) cx: &'a SuiteContext<'a>,
    pub(super) tag: String,
}

impl<'a> TestEnv<'a> {
    pub(super) fn new(store: &'a dyn Store, cx: &'a SuiteContext<'a>) -> Self {
        Self { store, cx, tag: format!("t{}", &cx.uid().to_string()[10..]) }
    }

    pub(super) fn call(&self) -> CallContext {
        self.cx.call()
    }

    /// Returns the wall-clock time.
    pub(super) fn wall(&self) -> Timestamp {
        Timestamp::from_millis(self.cx.uid().millis())
    }

    pub(super) fn id(&self, suffix: &str) -> SiteId {
        SiteId::parse(&format!("{}{suffix}", self.tag)).expect("a site id")
    }

    /// Returns a site with a new uid that is not written yet.
    pub(super) fn site(&self, suffix: &str) -> Site {
        Site { uid: self.cx.uid(), ..fixtures::site(self.id(suffix).as_str()) }
    }

    pub(super) fn ended(&self, id: &SiteId, number: u64, input: OperationInput) -> Operation {
        let state = OperationState {
            status: Status::Ended(TerminalStatus::Succeeded),
            ..fixtures::operation(number, input)
        };
        let operation = Operation::live(Subject::Site(id.clone()), state);
        Operation { finished_at: Some(self.wall()), ..operation }
    }

    pub(super) fn audit(&self, target: &str) -> AuditEntry {
        AuditEntry {
            at: self.wall(),
            actor: fixtures::actor(),
            action: "site.promote".into(),
            target: format!("{}{target}", self.tag),
            request_id: Some(self.tag.clone()),
            outcome: "accepted".into(),
            operation: Some(OperationId::on(1, Subject::Fleet)),
            rollout: Some(7),
            address: std::net::IpAddr::from([192, 0, 2, 7]).into(),
            count: 3,
        }
    }

    pub(super) fn event(&self, what: &str) -> FeedEvent {
        FeedEvent {
            at: self.wall(),
            subject: Some(Subject::Site(self.id("a"))),
            operation: Some(OperationId::on(1, Subject::Site(self.id("a")))),
            rollout: None,
            what: format!("{}{what}", self.tag),
        }
    }

    pub(super) fn key(&self, name: &str) -> IdempotencyRecord {
        IdempotencyRecord {
            actor: fixtures::actor(),
            key: IdempotencyKey::parse(&format!("{}{name}", self.tag)).expect("a key"),
            fingerprint: Fingerprint::of("test", name, &Canonical::new()),
            answer: format!("{name} was answered"),
            at: self.wall(),
        }
    }

    pub(super) async fn number(&self) -> u64 {
        applied("numbers", self.store.allocate_ids(&self.call(), 1).await)
    }

    pub(super) async fn operation(&self, input: OperationInput) -> OperationState {
        fixtures::operation(self.number().await, input)
    }

    pub(super) async fn run(&self) -> TestRollout {
        let rollout = applied("numbers", self.store.allocate_ids(&self.call(), 2).await);
        TestRollout { rollout, member: rollout + 1 }
    }

    pub(super) async fn try_write(&self, writes: Vec<Mutation>) -> Outcome<(), WriteError> {
        self.store.write(&self.call(), &WriteBatch::of(writes)).await
    }

    pub(super) async fn write(&self, writes: Vec<Mutation>) {
        applied("a write of current records", self.try_write(writes).await);
    }

    pub(super) async fn create(&self, site: Site) -> Site {
        self.write(vec![Mutation::CreateSite(Box::new(site.clone()))]).await;
        Site { version: 1, ..site }
    }

    pub(super) async fn change(&self, site: &Site, change: impl FnOnce(&mut Site)) -> Site {
        let mut site = site.clone();
        change(&mut site);
        self.write(vec![Mutation::Site(Box::new(site.clone()))]).await;
        Site { version: site.version + 1, ..site }
    }

    pub(super) async fn read(&self, id: &SiteId) -> Option<Site> {
        read_value("site", self.store.site(id).await)
    }

    pub(super) async fn version(&self, id: &SiteId) -> u64 {
        self.read(id).await.map_or(0, |site| site.version)
    }

    pub(super) async fn owner(&self, host: &Hostname) -> Option<SiteId> {
        read_value("hostname", self.store.hostname(host).await)
    }

    pub(super) async fn stored_key(&self, name: &str) -> Option<IdempotencyRecord> {
        let key = self.key(name);
        read_value("idempotency", self.store.idempotency(&key.actor, &key.key).await)
    }

    pub(super) async fn sites(&self, query: &SiteQuery) -> Vec<SiteId> {
        let (mut ids, mut after) = (Vec::new(), None);
        loop {
            let page = read_value("sites", self.store.sites(query, after.as_ref(), 2).await);
            assert!(page.items.len() <= 2, "a page has at most the requested number of items");
            ids.extend(page.items.into_iter().map(|site| site.id));
            assert!(page.next.is_none() || page.next > after, "a page begins after the previous page");
            after = page.next;
            if after.is_none() {
                return ids;
            }
        }
    }

    pub(super) async fn operations(&self, query: &OperationQuery) -> Vec<u64> {
        let (mut numbers, mut before) = (Vec::new(), None);
        loop {
            let page = read_value("operations", self.store.operations(query, before, 2).await);
            assert!(page.items.len() <= 2, "a page has at most the requested number of items");
            numbers.extend(page.items.into_iter().map(|operation| operation.id.number));
            before = page.next;
            if before.is_none() {
                return numbers;
            }
        }
    }

    pub(super) async fn audits(&self) -> Vec<AuditEntry> {
        let (mut entries, mut before) = (Vec::new(), None);
        loop {
            let page = read_value("audit", self.store.audit(before, 3).await);
            assert!(page.items.len() <= 3, "a page has at most the requested number of items");
            entries.extend(page.items.into_iter().filter(|entry| entry.target.starts_with(&self.tag)));
            before = page.next;
            if before.is_none() {
                return entries;
            }
        }
    }

    pub(super) async fn events(&self) -> Vec<FeedEvent> {
        let (mut events, mut after) = (Vec::new(), Some(0));
        loop {
            let some = read_value("events", self.store.events(after, 3).await);
            assert!(some.len() <= 3, "at most the requested number is read");
            let before = after;
            for (number, event) in some {
                assert!(after < Some(number), "event numbers increase");
                after = Some(number);
                events.extend(Some(event).filter(|event| event.what.starts_with(&self.tag)));
            }
            if after == before {
                return events;
            }
        }
    }

    /// Asserts what `pending_work` lists for one subject.
    pub(super) async fn assert_pending_work(
        &self,
        subject: &WorkItem,
        expected: Option<PendingWork>,
        what: &str,
    ) {
        let promise = format!("for {what}, pending_work lists {expected:?}");
        let agrees = async || {
            let mut work = read_value("live", self.store.pending_work().await);
            work.retain(|work| work.subject == *subject);
            work == expected.as_slice()
        };
        self.eventually(&promise, agrees).await;
    }

    /// Asserts a condition that may lag: checks it repeatedly for a while.
    pub(super) async fn eventually(&self, promise: &str, condition: impl AsyncFn() -> bool) {
        self.cx.until(promise, async || condition().await.then_some(())).await;
    }
}

/// A rollout with one member.
pub(super) struct TestRollout {
    pub(super) rollout: u64,
    pub(super) member: u64,
}

impl TestRollout {
    pub(super) const fn claim_token(&self, term: u64) -> ClaimToken {
        ClaimToken { rollout: self.rollout, direction: Direction::Forward, term: Term(term) }
    }

    pub(super) fn claim(&self, site: &Site, term: u64, intent: ClaimIntent) -> Claim {
        Claim {
            id: site.id.clone(),
            uid: site.uid,
            claim_token: self.claim_token(term),
            intent,
            ordinal: 0,
            number: self.member,
            owner: WorkerId::new(&format!("worker-{term}")),
            requested_by: fixtures::actor(),
            at: site.updated_at.after(Duration::from_secs(term)),
        }
    }

    pub(super) fn release_claim(&self, site: &Site, term: u64, epoch: u64) -> ReleaseClaim {
        let fence = Fence::new(self.member, Epoch(epoch));
        ReleaseClaim {
            id: site.id.clone(),
            claim_token: self.claim_token(term),
            fence,
            outcome: Some(MemberOutcome::Moved),
            digest: Some(crate::world::digest(13)),
            service: Some(Color::Green),
            route: Some(Routed { service: Color::Green, fence }),
            at: site.updated_at.after(Duration::from_secs(100)),
        }
    }
}

pub(super) const fn provision() -> OperationInput {
    OperationInput::Provision(Color::Blue)
}

pub(super) fn host(name: &str) -> Hostname {
    Hostname::parse(name).expect("a hostname")
}

pub(super) fn hostnames(names: &[&str]) -> Hostnames {
    Hostnames::parse(names, names[0]).expect("hostnames")
}

#[track_caller]
pub(super) fn read_value<T>(read: &str, answer: Result<T, StoreError>) -> T {
    answer.unwrap_or_else(|error| panic!("the read `{read}` failed: {error:?}"))
}

#[track_caller]
pub(super) fn applied<T: Debug>(what: &str, outcome: Outcome<T, WriteError>) -> T {
    match outcome {
        Outcome::Applied(value) => value,
        Outcome::NotApplied(_) | Outcome::Unknown(_) => panic!("{what} must be applied: {outcome:?}"),
    }
}

#[track_caller]
pub(super) fn rejected<T: Debug>(what: &str, outcome: Outcome<T, WriteError>) -> WriteError {
    match outcome {
        Outcome::NotApplied(rejected) => rejected,
        Outcome::Applied(_) | Outcome::Unknown(_) => panic!("{what} must be rejected: {outcome:?}"),
    }
}

#[track_caller]
pub(super) fn conflict(what: &str, outcome: Outcome<(), WriteError>) {
    let error = rejected(what, outcome);
    assert!(matches!(error, WriteError::Conflict(_)), "{what} must be a conflict: {error:?}");
}
