//! Records and the journal. One adapter implements both, because a site and its operation change in one atomic write.

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

/// Reads sites.
///
/// Reads by id or hostname include every write that was applied before. [`SiteRepository::sites`] and
/// [`SiteRepository::count`] may lag, so no decision that requires current data uses them.
#[async_trait]
pub trait SiteRepository: Send + Sync + fmt::Debug + 'static {
    /// Returns the record of a site; `None` if no site has the id.
    async fn site(&self, id: &SiteId) -> Result<Option<Site>, StoreError>;

    /// Returns the id of the site that has claimed a hostname.
    async fn hostname(&self, host: &Hostname) -> Result<Option<SiteId>, StoreError>;

    /// Returns the sites that match `query`, ordered by id, starting after `after`.
    async fn sites(
        &self,
        query: &SiteQuery,
        after: Option<&SiteId>,
        limit: usize,
    ) -> Result<Page<Site, SiteId>, StoreError>;

    /// Returns the number of sites that match `query`.
    async fn count(&self, query: &SiteQuery) -> Result<u64, StoreError>;
}

/// Stores intents, results, the audit log and the event feed.
#[async_trait]
pub trait Journal: Send + Sync + fmt::Debug + 'static {
    /// Writes a batch atomically: either every record is written, or none. Each record is written only if the stored
    /// record is as the batch expects.
    ///
    /// Every stored record keeps the write id (`call.write`) of its last write. If the first record of a batch was
    /// last written under the same id, the batch was applied before and the call returns `Applied`, so a caller
    /// repeats a write whose response was lost. After another writer has changed that record, a repetition returns a
    /// conflict, and the caller has to read the record. A batch without records, which contains only an audit entry,
    /// can be stored twice. A batch of one record costs one request.
    ///
    /// # Errors
    /// See [`WriteError`].
    async fn write(&self, call: &CallContext, batch: &WriteBatch) -> Outcome<(), WriteError>;

    /// Claims a site for a rollout ([`Site::claim`]) without a preceding read, and in one request if the site is
    /// free. A repetition under the same write id returns the same result.
    async fn claim(&self, call: &CallContext, claim: &Claim) -> Outcome<Claimed, WriteError>;

    /// Releases a site from a rollout's claim ([`Site::release_claim`]), with the same guarantees as
    /// [`Journal::claim`].
    async fn release_claim(&self, call: &CallContext, complete: &ReleaseClaim) -> Outcome<(), WriteError>;

    /// Returns the record of a service, or an empty record if none was written yet.
    async fn service(&self, color: Color) -> Result<Service, StoreError>;

    /// Returns the platform's record, or an empty record if none was written yet.
    async fn fleet(&self) -> Result<Fleet, StoreError>;

    /// Returns the webhooks' record, or an empty record if none was written yet.
    async fn webhooks(&self) -> Result<Webhooks, StoreError>;

    /// Returns the users' record, or an empty record if none was written yet.
    async fn users(&self) -> Result<Users, StoreError>;

    /// Returns the record of a rollout without its member pages; `None` if no rollout has the number.
    async fn rollout(&self, number: u64) -> Result<Option<Rollout>, StoreError>;

    /// Returns a page of a rollout's fixed member list.
    async fn rollout_page(&self, number: u64, page: u32) -> Result<Option<RolloutPage>, StoreError>;

    /// Returns rollouts with numbers below `before`, newest first.
    async fn rollouts(&self, before: Option<u64>, limit: usize) -> Result<Page<Rollout, u64>, StoreError>;

    /// Returns an operation that has ended. An operation that has not ended is in its subject's record.
    async fn history(&self, id: &OperationId) -> Result<Option<Operation>, StoreError>;

    /// Returns operations with numbers below `before`, newest first, without those of rollout members. The result may
    /// lag.
    async fn operations(
        &self,
        query: &OperationQuery,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<Operation, u64>, StoreError>;

    /// Returns every operation (except those of rollout members) and every rollout that is queued, running or
    /// waiting. The result may lag, but every accepted item is listed eventually.
    async fn pending_work(&self) -> Result<Vec<PendingWork>, StoreError>;

    /// Allocates `count` consecutive numbers that were never allocated before, and returns the first.
    async fn allocate_ids(&self, call: &CallContext, count: u32) -> Outcome<u64, WriteError>;

    /// Stores a worker's heartbeat. `count` increases with each call; `None` reports that the worker stops.
    async fn heartbeat(
        &self,
        call: &CallContext,
        worker: &WorkerId,
        count: Option<u64>,
    ) -> Outcome<(), WriteError>;

    /// Returns the heartbeats of all workers that have not reported a stop.
    async fn heartbeats(&self) -> Result<Vec<Heartbeat>, StoreError>;

    /// Returns the stored response to a request with an idempotency key. Responses are kept for 24 hours.
    async fn idempotency(
        &self,
        actor: &Actor,
        key: &IdempotencyKey,
    ) -> Result<Option<IdempotencyRecord>, StoreError>;

    /// Returns the audit entries before the cursor `before`, newest first.
    async fn audit(&self, before: Option<u64>, limit: usize) -> Result<Page<AuditEntry, u64>, StoreError>;

    /// Returns events with numbers above `after`, oldest first, each with its number. Numbers begin at 1 and
    /// increase, with possible gaps; the number of an event never changes.
    async fn events(&self, after: Option<u64>, limit: usize) -> Result<Vec<(u64, FeedEvent)>, StoreError>;

    /// Returns the number of the latest event; `None` if there is no event.
    async fn last_event(&self) -> Result<Option<u64>, StoreError>;

    /// Deletes the oldest audit entries and events that match `old`, and returns the number of deleted items. Numbers
    /// of deleted items are not reused, and the newest item of each kind may be kept regardless of its age. A
    /// repetition deletes further items. A store that expires events itself deletes no events here.
    async fn delete_old(&self, call: &CallContext, old: &Old) -> Outcome<u64, WriteError>;
}

/// The limits for deleting audit entries and events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Old {
    /// Delete audit entries from before this time.
    pub audit_before: Timestamp,
    /// Delete events from before this time.
    pub events_before: Timestamp,
    /// Delete only events up to this number; `None` deletes without this limit.
    pub events_to: Option<u64>,
    /// The maximum number of audit entries, and of events, to delete in one call; at most 90.
    pub most: usize,
}

/// An adapter that stores sites and the journal.
pub trait Store: SiteRepository + Journal {}

impl<T: SiteRepository + Journal> Store for T {}

/// A change to one record in a batch. The stored record gets the version after the expected one, regardless of the
/// version in the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Creates a site and claims its hostnames.
    CreateSite(Box<Site>),
    /// Replaces a site's record, if the stored record has the same uid and the version in the value. The hostnames of
    /// a site never change.
    Site(Box<Site>),
    /// Removes a site's record and releases its hostnames, if the stored record has this uid and version.
    RemoveSite(SiteId, Uid, u64),
    /// Replaces a service's record, if the stored record has the version in the value.
    Service(Box<Service>),
    /// Replaces the platform's record, if the stored record has the version in the value.
    Fleet(Box<Fleet>),
    /// Replaces the webhooks' record, if the stored record has the version in the value.
    Webhooks(Box<Webhooks>),
    /// Replaces the users' record, if the stored record has the version in the value.
    Users(Box<Users>),
    /// Creates the record of a rollout.
    CreateRollout(Box<Rollout>),
    /// Replaces a rollout's record, if the stored record has the version in the value.
    Rollout(Box<Rollout>),
    /// Stores a page of a rollout's member list, regardless of the stored page. The pages of a new rollout are
    /// written in the batch of the rollout. If the list is too long for one batch, the first pages are written in
    /// batches before it; such a batch is a conflict once a rollout with that number exists. Later, a page is written
    /// only in a batch with its rollout. For this reason, pages can exist whose rollout was never created.
    RolloutPage(RolloutPage),
    /// Adds an ended operation to the history of its subject.
    History(Box<Operation>),
}

/// The records and entries that one atomic write stores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBatch {
    /// The changes to records, at most 90. The first one identifies a repetition of the batch.
    pub writes: Vec<Mutation>,
    /// The audit entry of the request that caused the write.
    pub audit: Option<AuditEntry>,
    /// The idempotency record of that request.
    pub idempotency: Option<IdempotencyRecord>,
    /// The events to append to the feed.
    pub events: Vec<FeedEvent>,
}

impl WriteBatch {
    /// Creates a batch of changes without an audit entry, key or events.
    pub fn of(writes: Vec<Mutation>) -> Self {
        Self { writes, ..Self::default() }
    }
}

/// Why a store rejects a write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A record does not have the expected version.
    #[error("{0} has changed in the meantime")]
    Conflict(String),
    /// A hostname is claimed by another site.
    #[error("the hostname `{host}` belongs to the site `{site}`")]
    HostnameTaken {
        /// The hostname that is already claimed.
        host: Hostname,
        /// The id of the site that has claimed the hostname.
        site: SiteId,
    },
    /// The idempotency key was used before.
    #[error("the idempotency key was used before")]
    KeyUsed,
    /// The site rejects the rollout's claim.
    #[error("the site rejects the rollout's claim")]
    Claim(#[source] ClaimRefused),
    /// The store failed, temporarily or permanently.
    #[error("the store did not accept the write")]
    Store(#[source] StoreError),
}

/// Why a store call fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store is temporarily unavailable.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The storage has no space left for a write. Reads still work. The error clears when space is free.
    #[error("the store has no space left: {0}")]
    Full(String),
    /// The store throttles requests.
    #[error("the store throttles requests")]
    Throttled,
    /// The store denies the call until permissions or setup change.
    #[error("the store denied the request: {0}")]
    Denied(String),
}

/// The stored response to a request with an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyRecord {
    /// The actor of the request. Keys of different actors are independent.
    pub actor: Actor,
    /// The key that the client sent.
    pub key: IdempotencyKey,
    /// The fingerprint of the request that received the response.
    pub fingerprint: Fingerprint,
    /// The result of the request, as the manager encodes it.
    pub answer: String,
    /// When the request was accepted.
    pub at: Timestamp,
}

/// An entry of the event feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedEvent {
    /// When the event happened.
    pub at: Timestamp,
    /// The site, service or fleet that the event is about, if any.
    pub subject: Option<Subject>,
    /// The operation that the event is about, if any.
    pub operation: Option<OperationId>,
    /// The rollout that the event is about, if any.
    pub rollout: Option<u64>,
    /// The event: the name of a status, or `step` followed by the step's name.
    pub what: String,
}

/// A filter for sites. A site has to match every condition that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteQuery {
    /// Sites that are assigned to this service.
    pub service: Option<Color>,
    /// Sites in this state.
    pub state: Option<State>,
    /// Sites with this text in id, name or a hostname, in any case and any spelling of the hostname; see
    /// [`SearchTerm`].
    pub text: Option<String>,
    /// Only sites whose route points to another service than their record assigns.
    pub drifted: bool,
}

impl SiteQuery {
    /// Returns whether `site` matches the filter.
    pub fn has(&self, site: &Site) -> bool {
        let text =
            self.text.as_deref().is_none_or(|text| SearchTerm::of(text).matches(&SearchText::of(site)));
        text && (!self.drifted || site.has_drifted())
            && self.service.is_none_or(|service| service == site.service)
            && self.state.is_none_or(|state| state == site.state())
    }
}

/// A filter for operations. An operation has to match every condition that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperationQuery {
    /// Operations on this site.
    pub site: Option<SiteId>,
    /// Operations of this kind.
    pub kind: Option<OperationKind>,
    /// Operations with this status.
    pub status: Option<Status>,
}

impl OperationQuery {
    /// Returns whether `operation` matches the filter. Operations of rollout members never match.
    pub fn has(&self, operation: &Operation) -> bool {
        let site = self.site.as_ref();
        site.is_none_or(|site| operation.subject == Subject::Site(site.clone()))
            && self.kind.is_none_or(|kind| kind == operation.state.input.kind())
            && self.status.is_none_or(|status| status == operation.state.status)
            && matches!(operation.id.parent, OperationParent::Subject(_))
    }
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T, C> {
    /// The items of the page.
    pub items: Vec<T>,
    /// The cursor of the next page; `None` after the last page.
    pub next: Option<C>,
}

/// An operation or rollout that a worker may have to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingWork {
    /// The operation's subject, or the rollout.
    pub subject: WorkItem,
    /// The number of the operation or rollout.
    pub number: u64,
    /// The worker that owns the operation or rollout; `None` if no worker owns it.
    pub owner: Option<WorkerId>,
    /// The latest time of the next poll if the item is waiting; `None` if the item can run now.
    pub next_poll_at: Option<Timestamp>,
    /// Whether a user has requested a change, such as a cancel or a pause.
    pub control_requested: bool,
}

/// The kind of a work item.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkItem {
    /// The operation in the record of this subject.
    Operation(Subject),
    /// The rollout with this number.
    Rollout(u64),
}

/// The heartbeat of a worker, which shows that the worker runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The worker that sent the heartbeat.
    pub worker: WorkerId,
    /// The number of heartbeats so far.
    pub count: u64,
    /// Whether the store has detected that the worker's process has ended; other workers then do not wait for the
    /// lease. Most stores cannot detect it, and return `false`.
    pub ended: bool,
}
