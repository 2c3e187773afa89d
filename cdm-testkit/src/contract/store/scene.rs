//! What the tests of a store write with and ask by: names of their own, and assertions that name the promise.

use std::fmt::Debug;
use std::time::Duration;

use cdm_core::domain::rollout::MemberOutcome;
use cdm_core::domain::site::{Claim, ClaimIntent, ReleaseClaim};
use cdm_core::domain::{
    AuditEntry, Canonical, ClaimToken, Color, Direction, Fence, Fingerprint, Hostname, Hostnames,
    IdempotencyKey, Operation, OperationId, OperationInput, OperationState, Routed, Site, SiteId, Status,
    Subject, TerminalStatus, Timestamp, WorkerId,
};
use cdm_core::ports::{
    CallContext, FeedEvent, IdempotencyRecord, Mutation, OperationQuery, Outcome, PendingWork, SiteQuery,
    Store, StoreError, WorkItem, WriteBatch, WriteError,
};

use super::super::Cx;
use crate::build;

/// Names of one test's own, so that it finds nothing of others.
pub(super) struct Scene<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) cx: &'a Cx<'a>,
    pub(super) tag: String,
}

impl<'a> Scene<'a> {
    pub(super) fn new(store: &'a dyn Store, cx: &'a Cx<'a>) -> Self {
        Self { store, cx, tag: format!("t{}", &cx.uid().to_string()[10..]) }
    }

    pub(super) fn call(&self) -> CallContext {
        self.cx.call()
    }

    /// What people's clocks show.
    pub(super) fn wall(&self) -> Timestamp {
        Timestamp::from_millis(self.cx.uid().millis())
    }

    pub(super) fn id(&self, suffix: &str) -> SiteId {
        SiteId::parse(&format!("{}{suffix}", self.tag)).expect("a site id")
    }

    /// A site of a fresh uid that is not written yet.
    pub(super) fn site(&self, suffix: &str) -> Site {
        Site { uid: self.cx.uid(), ..build::site(self.id(suffix).as_str()) }
    }

    pub(super) fn ended(&self, id: &SiteId, number: u64, input: OperationInput) -> Operation {
        let state = OperationState {
            status: Status::Ended(TerminalStatus::Succeeded),
            ..build::operation(number, input)
        };
        let operation = Operation::live(Subject::Site(id.clone()), state);
        Operation { finished_at: Some(self.wall()), ..operation }
    }

    pub(super) fn audit(&self, target: &str) -> AuditEntry {
        AuditEntry {
            at: self.wall(),
            actor: build::actor(),
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
            actor: build::actor(),
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
        build::operation(self.number().await, input)
    }

    pub(super) async fn run(&self) -> Run {
        let rollout = applied("numbers", self.store.allocate_ids(&self.call(), 2).await);
        Run { rollout, member: rollout + 1 }
    }

    pub(super) async fn try_write(&self, writes: Vec<Mutation>) -> Outcome<(), WriteError> {
        self.store.write(&self.call(), &WriteBatch::of(writes)).await
    }

    pub(super) async fn write(&self, writes: Vec<Mutation>) {
        applied("a write of what is as expected", self.try_write(writes).await);
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
        answered("site", self.store.site(id).await)
    }

    pub(super) async fn version(&self, id: &SiteId) -> u64 {
        self.read(id).await.map_or(0, |site| site.version)
    }

    pub(super) async fn owner(&self, host: &Hostname) -> Option<SiteId> {
        answered("hostname", self.store.hostname(host).await)
    }

    pub(super) async fn kept(&self, name: &str) -> Option<IdempotencyRecord> {
        let key = self.key(name);
        answered("idempotency", self.store.idempotency(&key.actor, &key.key).await)
    }

    pub(super) async fn sites(&self, query: &SiteQuery) -> Vec<SiteId> {
        let (mut ids, mut after) = (Vec::new(), None);
        loop {
            let page = answered("sites", self.store.sites(query, after.as_ref(), 2).await);
            assert!(page.items.len() <= 2, "a page has no more items than were asked for");
            ids.extend(page.items.into_iter().map(|site| site.id));
            assert!(page.next.is_none() || page.next > after, "a page begins after the one before");
            after = page.next;
            if after.is_none() {
                return ids;
            }
        }
    }

    pub(super) async fn operations(&self, query: &OperationQuery) -> Vec<u64> {
        let (mut numbers, mut before) = (Vec::new(), None);
        loop {
            let page = answered("operations", self.store.operations(query, before, 2).await);
            assert!(page.items.len() <= 2, "a page has no more items than were asked for");
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
            let page = answered("audit", self.store.audit(before, 3).await);
            assert!(page.items.len() <= 3, "a page has no more items than were asked for");
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
            let some = answered("events", self.store.events(after, 3).await);
            assert!(some.len() <= 3, "no more are read than were asked for");
            let before = after;
            for (number, event) in some {
                assert!(after < Some(number), "numbers grow");
                after = Some(number);
                events.extend(Some(event).filter(|event| event.what.starts_with(&self.tag)));
            }
            if after == before {
                return events;
            }
        }
    }

    /// Asserts what `live` says of one subject.
    pub(super) async fn lists(&self, subject: &WorkItem, expected: Option<PendingWork>, what: &str) {
        let promise = format!("live has of {what} {expected:?}");
        let agrees = async || {
            let mut live = answered("live", self.store.pending_work().await);
            live.retain(|live| live.subject == *subject);
            live == expected.as_slice()
        };
        self.eventually(&promise, agrees).await;
    }

    /// Asserts what may lag: asks again for a while.
    pub(super) async fn eventually(&self, promise: &str, locked_color: impl AsyncFn() -> bool) {
        self.cx.until(promise, async || locked_color().await.then_some(())).await;
    }
}

/// A rollout with one member.
pub(super) struct Run {
    pub(super) rollout: u64,
    pub(super) member: u64,
}

impl Run {
    pub(super) const fn claim_token(&self, term: u64) -> ClaimToken {
        ClaimToken { rollout: self.rollout, direction: Direction::Forward, term }
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
            requested_by: build::actor(),
            at: site.updated_at.after(Duration::from_secs(term)),
        }
    }

    pub(super) fn release_claim(&self, site: &Site, term: u64, epoch: u64) -> ReleaseClaim {
        let fence = Fence::new(self.member, epoch);
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
pub(super) fn answered<T>(read: &str, answer: Result<T, StoreError>) -> T {
    answer.unwrap_or_else(|error| panic!("`{read}` is answered: {error:?}"))
}

#[track_caller]
pub(super) fn applied<T: Debug>(what: &str, outcome: Outcome<T, WriteError>) -> T {
    match outcome {
        Outcome::Applied(value) => value,
        Outcome::NotApplied(_) | Outcome::Unknown(_) => panic!("{what} is applied: {outcome:?}"),
    }
}

#[track_caller]
pub(super) fn refused<T: Debug>(what: &str, outcome: Outcome<T, WriteError>) -> WriteError {
    match outcome {
        Outcome::NotApplied(refused) => refused,
        Outcome::Applied(_) | Outcome::Unknown(_) => panic!("{what} is refused: {outcome:?}"),
    }
}

#[track_caller]
pub(super) fn conflict(what: &str, outcome: Outcome<(), WriteError>) {
    let answer = refused(what, outcome);
    assert!(matches!(answer, WriteError::Conflict(_)), "{what} is a conflict: {answer:?}");
}
