//! Records and the journal: two faces of one adapter, because a site and its operation move together or not at all.

use std::fmt;

use async_trait::async_trait;

use super::{CallContext, Outcome};
use crate::domain::operation::OperationParent;
use crate::domain::rollout::RolloutPage;
use crate::domain::search::{SearchTerm, SearchText};
use crate::domain::site::{Claim, ClaimRefused, Claimed, ReleaseClaim};
use crate::domain::user::Users;
use crate::domain::webhook::Webhooks;
use crate::domain::{
    Actor, AuditEntry, Color, Fingerprint, Fleet, Hostname, IdempotencyKey, Operation, OperationId,
    OperationKind, Rollout, Service, Site, SiteId, State, Status, Subject, Timestamp, Uid, WorkerId,
};

/// Finds sites.
///
/// Reads by name see every write that was applied before. [`SiteRepository::sites`] and [`SiteRepository::count`] may
/// lag; no decision that needs the truth rests on them.
#[async_trait]
pub trait SiteRepository: Send + Sync + fmt::Debug + 'static {
    /// The site of that id.
    async fn site(&self, id: &SiteId) -> Result<Option<Site>, StoreError>;

    /// The site that has claimed a hostname.
    async fn hostname(&self, host: &Hostname) -> Result<Option<SiteId>, StoreError>;

    /// Sites in order of their ids, after `after`.
    async fn sites(
        &self,
        query: &SiteQuery,
        after: Option<&SiteId>,
        limit: usize,
    ) -> Result<Page<Site, SiteId>, StoreError>;

    /// How many sites a query has.
    async fn count(&self, query: &SiteQuery) -> Result<u64, StoreError>;
}

/// Keeps what is intended, what was done and who asked for it.
#[async_trait]
pub trait Journal: Send + Sync + fmt::Debug + 'static {
    /// Writes a batch: all of it or nothing, each record only if it is as the batch expects it.
    ///
    /// Every written record keeps `call.write` of its last writer. A batch whose first record was last written under
    /// the same id was applied before, and answers `Applied`: so a write whose answer was lost is simply repeated.
    /// That memory reaches as far as the last writer of the record: once someone else has written it, a repetition is a
    /// conflict, and its caller has to look. A batch without records, which only keeps an audit entry, may be kept twice.
    /// A batch of one record costs one request.
    ///
    /// # Errors
    /// See [`WriteError`].
    async fn write(&self, call: &CallContext, batch: &WriteBatch) -> Outcome<(), WriteError>;

    /// A rollout takes a site: [`Site::claim`], without a read before, and in one request where the site is free. A repetition under the same
    /// write id answers as the first did.
    async fn claim(&self, call: &CallContext, claim: &Claim) -> Outcome<Claimed, WriteError>;

    /// A rollout lets a site go: [`Site::release_claim`], likewise.
    async fn release_claim(&self, call: &CallContext, complete: &ReleaseClaim) -> Outcome<(), WriteError>;

    /// A colour's record; an empty one where nothing was written yet.
    async fn service(&self, color: Color) -> Result<Service, StoreError>;

    /// The platform's record; an empty one where nothing was written yet.
    async fn fleet(&self) -> Result<Fleet, StoreError>;

    /// The webhooks' record; an empty one where nothing was written yet.
    async fn webhooks(&self) -> Result<Webhooks, StoreError>;

    /// The users' record; an empty one where nothing was written yet.
    async fn users(&self) -> Result<Users, StoreError>;

    /// A rollout's record.
    async fn rollout(&self, number: u64) -> Result<Option<Rollout>, StoreError>;

    /// One page of a rollout's frozen list.
    async fn rollout_page(&self, number: u64, page: u32) -> Result<Option<RolloutPage>, StoreError>;

    /// Rollouts, newest first, before `before`.
    async fn rollouts(&self, before: Option<u64>, limit: usize) -> Result<Page<Rollout, u64>, StoreError>;

    /// An operation that has ended. One that has not is in its subject's record.
    async fn history(&self, id: &OperationId) -> Result<Option<Operation>, StoreError>;

    /// Operations, newest first, before `before`; those of rollouts' members are left out. May lag.
    async fn operations(
        &self,
        query: &OperationQuery,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<Operation, u64>, StoreError>;

    /// Every operation (but those of rollouts' members) and every rollout that a worker may have to do something for:
    /// all that are queued, running or waiting. May lag, but not lose: what was admitted is listed in the end.
    async fn pending_work(&self) -> Result<Vec<PendingWork>, StoreError>;

    /// Draws `count` consecutive numbers that were never drawn before and never will be; answers the first.
    async fn allocate_ids(&self, call: &CallContext, count: u32) -> Outcome<u64, WriteError>;

    /// A worker says that it lives, each time with a higher count; `None` says that it stops.
    async fn heartbeat(
        &self,
        call: &CallContext,
        worker: &WorkerId,
        count: Option<u64>,
    ) -> Outcome<(), WriteError>;

    /// Every worker that has not said that it stops.
    async fn heartbeats(&self) -> Result<Vec<Heartbeat>, StoreError>;

    /// The first answer to a request that carried a key, while it is kept (24 hours).
    async fn idempotency(
        &self,
        actor: &Actor,
        key: &IdempotencyKey,
    ) -> Result<Option<IdempotencyRecord>, StoreError>;

    /// Audit entries, newest first.
    async fn audit(&self, before: Option<u64>, limit: usize) -> Result<Page<AuditEntry, u64>, StoreError>;

    /// The event feed, oldest first: those after number `after`, each with its number, which it keeps. Numbers
    /// begin at 1 and grow; some may be left out.
    async fn events(&self, after: Option<u64>, limit: usize) -> Result<Vec<(u64, FeedEvent)>, StoreError>;

    /// The number of the last event so far; `None` where there was none.
    async fn last_event(&self) -> Result<Option<u64>, StoreError>;

    /// Deletes the oldest audit entries and events that are older than `old` says, and returns how many. The number of
    /// a deleted one is not given again, and the newest of each may be kept whatever its age. A repetition deletes
    /// further ones. A store that ends events by a time of its own deletes none here.
    async fn delete_old(&self, call: &CallContext, old: &Old) -> Outcome<u64, WriteError>;
}

/// What is old enough to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Old {
    /// Audit entries of before.
    pub audit_before: Timestamp,
    /// Events of before.
    pub events_before: Timestamp,
    /// Of those, events up to this number; `None`: all.
    pub events_to: Option<u64>,
    /// How many are deleted of each at most; 90 at most.
    pub most: usize,
}

/// One adapter with both faces.
pub trait Store: SiteRepository + Journal {}

impl<T: SiteRepository + Journal> Store for T {}

/// What a written record must be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Not there.
    Absent,
    /// Of this version.
    Version(u64),
}

/// One record of a batch. What is written carries the version after the expected one, whatever its field says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A new site, with its hostnames claimed.
    CreateSite(Box<Site>),
    /// A site as it shall be, if what is there is of its uid and of the version that the field says. Its hostnames are
    /// those that it was created with.
    Site(Box<Site>),
    /// No site any more, its hostnames free, if it is of that uid and version.
    RemoveSite(SiteId, Uid, u64),
    /// A colour, if it is of the version that the field says.
    Service(Box<Service>),
    /// The platform's record, likewise.
    Fleet(Box<Fleet>),
    /// The webhooks' record, likewise.
    Webhooks(Box<Webhooks>),
    /// The users' record, likewise.
    Users(Box<Users>),
    /// A new rollout.
    CreateRollout(Box<Rollout>),
    /// A rollout, if it is of the version that the field says.
    Rollout(Box<Rollout>),
    /// A page of a rollout, whatever was there. A new rollout's pages are written with it; those of a list too long for
    /// one batch are written before it, and refused as a conflict once a rollout of that number is there: afterwards a
    /// page is only written in a batch with its rollout. So there may be pages of a rollout that never comes.
    RolloutPage(RolloutPage),
    /// An ended operation, into its subject's history.
    History(Box<Operation>),
}

/// What is written in one go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBatch {
    /// The records, at most 90; the first one tells a repetition.
    pub writes: Vec<Mutation>,
    /// The request that led to it.
    pub audit: Option<AuditEntry>,
    /// The key of that request.
    pub idempotency: Option<IdempotencyRecord>,
    /// What the feed is told.
    pub events: Vec<FeedEvent>,
}

impl WriteBatch {
    /// A batch of these records.
    pub fn of(writes: Vec<Mutation>) -> Self {
        Self { writes, ..Self::default() }
    }
}

/// Why a store refuses a write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A record is not of the expected version.
    #[error("{0} has changed meanwhile")]
    Conflict(String),
    /// A hostname is claimed by another site.
    #[error("the hostname `{host}` belongs to the site `{site}`")]
    HostnameTaken {
        /// Which.
        host: Hostname,
        /// Whose.
        site: SiteId,
    },
    /// The request's key was used before.
    #[error("the idempotency key was used before")]
    KeyUsed,
    /// A site refuses a rollout.
    #[error("the site refuses the rollout")]
    Claim(#[source] ClaimRefused),
    /// The store cannot, for the moment or for good.
    #[error("the store does not take the write")]
    Store(#[source] StoreError),
}

/// Why a store does not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Not now.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// The storage has no space left for a write; reads go on. Clears once space is free.
    #[error("the store has no space left: {0}")]
    Full(String),
    /// Fewer calls, please.
    #[error("the store asks for fewer calls")]
    Throttled,
    /// Never, without a change of permissions or set-up.
    #[error("the store refuses: {0}")]
    Denied(String),
}

/// The answer that a request with a key was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyRecord {
    /// Whose key.
    pub actor: Actor,
    /// The key.
    pub key: IdempotencyKey,
    /// Identifies the request that was answered.
    pub fingerprint: Fingerprint,
    /// What came of it, in the services' own words.
    pub answer: String,
    /// When.
    pub at: Timestamp,
}

/// What the event feed is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedEvent {
    /// When.
    pub at: Timestamp,
    /// Whom it is about.
    pub subject: Option<Subject>,
    /// The operation, where it is about one.
    pub operation: Option<OperationId>,
    /// The rollout, where it is about one.
    pub rollout: Option<u64>,
    /// What happened: a status's word, or `step` with the step's name.
    pub what: String,
}

/// Which sites.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteQuery {
    /// Of this service.
    pub service: Option<Color>,
    /// In this state.
    pub state: Option<State>,
    /// With this text in id, name or a hostname, in any case and in any spelling of a hostname (see [`SearchTerm`]).
    pub text: Option<String>,
    /// Only those whose route points to another service than their record says.
    pub drifted: bool,
}

impl SiteQuery {
    /// Whether it has `site`.
    pub fn has(&self, site: &Site) -> bool {
        let text =
            self.text.as_deref().is_none_or(|text| SearchTerm::of(text).matches(&SearchText::of(site)));
        text && (!self.drifted || site.has_drifted())
            && self.service.is_none_or(|service| service == site.service)
            && self.state.is_none_or(|state| state == site.state())
    }
}

/// Which operations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperationQuery {
    /// On this site.
    pub site: Option<SiteId>,
    /// Of this kind.
    pub kind: Option<OperationKind>,
    /// That stand so.
    pub status: Option<Status>,
}

impl OperationQuery {
    /// Whether it has `operation`.
    pub fn has(&self, operation: &Operation) -> bool {
        let site = self.site.as_ref();
        site.is_none_or(|site| operation.subject == Subject::Site(site.clone()))
            && self.kind.is_none_or(|kind| kind == operation.state.input.kind())
            && self.status.is_none_or(|status| status == operation.state.status)
            && matches!(operation.id.parent, OperationParent::Subject(_))
    }
}

/// Part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T, C> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<C>,
}

/// Something a worker may have to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingWork {
    /// What.
    pub subject: WorkItem,
    /// The operation's or rollout's number.
    pub number: u64,
    /// Who has it.
    pub owner: Option<WorkerId>,
    /// Whether it only waits, and until when at most; `None` when it is to be run.
    pub next_poll_at: Option<Timestamp>,
    /// Whether someone asked something of it.
    pub control_requested: bool,
}

/// What a worker may have to work on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkItem {
    /// The operation in a record.
    Operation(Subject),
    /// A rollout.
    Rollout(u64),
}

/// A worker's sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Whose.
    pub worker: WorkerId,
    /// How often it has beaten.
    pub count: u64,
    /// Whether the store knows for certain that its process has ended. Most stores cannot know, and say `false`; where
    /// it is known, others need not wait for the lease.
    pub ended: bool,
}
