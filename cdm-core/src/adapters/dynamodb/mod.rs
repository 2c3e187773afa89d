//! Records, the journal and tokens in one DynamoDB table; `docs/dynamodb.md` has the keys and the cost of each request.
//!
//! Records are read by key with strong consistency; an index only determines which keys to read. A record stores the ID
//! of its last write, which identifies a write whose response was lost; the client tokens of DynamoDB's transactions
//! are not used.

mod batch;
mod bootstrap;
mod change;
mod claims;
mod failure;
mod feed;
mod item;
mod lists;
mod site;
mod table;
mod tokens;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::change::Change;
use self::failure::Failure;
use self::feed::Feed;
use self::item::{ItemReader, Key, number, seconds, text};
use self::table::KeyRange;
use crate::adapters::records::Record;
use crate::domain::rollout::RolloutPage;
use crate::domain::site::{Claim, Claimed, ReleaseClaim};
use crate::domain::user::Users;
use crate::domain::webhook::Webhooks;
use crate::domain::{
    Actor, AuditEntry, Color, Fleet, Hostname, IdempotencyKey, Operation, OperationId, Rollout, Service,
    Site, SiteId, WorkerId,
};
use crate::ports::{
    CallContext, FeedEvent, Heartbeat, IdempotencyRecord, Journal, Old, OperationQuery, Outcome, Page,
    PendingWork, SiteQuery, SiteRepository, StoreError, WriteBatch, WriteError,
};

pub use table::DynamoTable;
pub use tokens::DynamoTokens;

/// Retention period of idempotency keys.
const KEY_RETENTION: Duration = Duration::from_hours(24);
/// How long a worker without heartbeats stays listed if it did not report its end.
const WORKER_RETENTION: Duration = Duration::from_hours(7 * 24);

/// Records and the journal in a table. Clones share the table.
#[derive(Clone)]
pub struct DynamoStore {
    table: DynamoTable,
    feed: Arc<Feed>,
}

impl fmt::Debug for DynamoStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoStore").field("table", &self.table).finish_non_exhaustive()
    }
}

impl DynamoStore {
    /// Creates the store without a request to AWS.
    pub fn new(table: DynamoTable) -> Self {
        Self { table, feed: Arc::default() }
    }

    /// Reads the document in the item with this key.
    async fn document<T: Record>(&self, key: &Key) -> Result<Option<T>, StoreError> {
        let item = self.table.get(key, self.table.read_deadline()).await?;
        item.map(|item| ItemReader(&item).document("document")).transpose()
    }
}

#[async_trait]
impl SiteRepository for DynamoStore {
    async fn site(&self, id: &SiteId) -> Result<Option<Site>, StoreError> {
        let item = self.table.get(&Key::site(id), self.table.read_deadline()).await?;
        item.as_ref().map(site::from_item).transpose()
    }

    async fn hostname(&self, host: &Hostname) -> Result<Option<SiteId>, StoreError> {
        let item = self.table.get(&Key::host(host), self.table.read_deadline()).await?;
        item.map(|item| ItemReader(&item).parsed("site", |text| SiteId::parse(text).ok())).transpose()
    }

    async fn sites(
        &self,
        query: &SiteQuery,
        after: Option<&SiteId>,
        limit: usize,
    ) -> Result<Page<Site, SiteId>, StoreError> {
        lists::sites(&self.table, query, after, limit).await
    }

    async fn count(&self, query: &SiteQuery) -> Result<u64, StoreError> {
        lists::count(&self.table, query).await
    }
}

#[async_trait]
impl Journal for DynamoStore {
    async fn write(&self, call: &CallContext, batch: &WriteBatch) -> Outcome<(), WriteError> {
        batch::write(&self.table, call, batch).await
    }

    async fn claim(&self, call: &CallContext, claim: &Claim) -> Outcome<Claimed, WriteError> {
        claims::claim(&self.table, call, claim).await
    }

    async fn release_claim(&self, call: &CallContext, release: &ReleaseClaim) -> Outcome<(), WriteError> {
        claims::release_claim(&self.table, call, release).await
    }

    async fn service(&self, color: Color) -> Result<Service, StoreError> {
        let found = self.document(&Key::service(color)).await?;
        Ok(found.unwrap_or_else(|| Service::new(color)))
    }

    async fn fleet(&self) -> Result<Fleet, StoreError> {
        Ok(self.document(&Key::fleet()).await?.unwrap_or_default())
    }

    async fn webhooks(&self) -> Result<Webhooks, StoreError> {
        Ok(self.document(&Key::webhooks()).await?.unwrap_or_default())
    }

    async fn users(&self) -> Result<Users, StoreError> {
        Ok(self.document(&Key::users()).await?.unwrap_or_default())
    }

    async fn rollout(&self, number: u64) -> Result<Option<Rollout>, StoreError> {
        self.document(&Key::rollout(number)).await
    }

    async fn rollout_page(&self, number: u64, page: u32) -> Result<Option<RolloutPage>, StoreError> {
        self.document(&Key::page(number, page)).await
    }

    async fn rollouts(&self, before: Option<u64>, limit: usize) -> Result<Page<Rollout, u64>, StoreError> {
        lists::rollouts(&self.table, before, limit).await
    }

    async fn history(&self, id: &OperationId) -> Result<Option<Operation>, StoreError> {
        self.document(&Key::history(id)).await
    }

    async fn operations(
        &self,
        query: &OperationQuery,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<Operation, u64>, StoreError> {
        lists::operations(&self.table, query, before, limit).await
    }

    async fn pending_work(&self) -> Result<Vec<PendingWork>, StoreError> {
        lists::pending_work(&self.table).await
    }

    async fn allocate_ids(&self, call: &CallContext, count: u32) -> Outcome<u64, WriteError> {
        let change = Change::update(Key::numbers(), "ADD #drawn :count").with(":count", number(count.into()));
        match self.table.write(call, &[change]).await {
            Ok(item) => match ItemReader(&item.unwrap_or_default()).number("drawn") {
                Ok(drawn) => Outcome::Applied(drawn.saturating_sub(u64::from(count)) + 1),
                Err(error) => Failure::Unknown(error).into_outcome(),
            },
            Err(failure) => failure.into_outcome(),
        }
    }

    async fn heartbeat(
        &self,
        call: &CallContext,
        worker: &WorkerId,
        count: Option<u64>,
    ) -> Outcome<(), WriteError> {
        let key = Key::worker(worker.as_str());
        let change = match count {
            None => Change::delete(key),
            // A delayed heartbeat does not lower the count.
            Some(count) => Change::update(key, "SET #count = :count, #expires = :expires")
                .when("attribute_not_exists(#count) OR #count <= :count")
                .with(":count", number(count))
                .with(":expires", seconds(self.table.clock.wall().after(WORKER_RETENTION))),
        };
        match self.table.write(call, &[change]).await {
            Ok(_) | Err(Failure::ConditionFailed(_)) => Outcome::Applied(()),
            Err(failure) => failure.into_outcome(),
        }
    }

    async fn heartbeats(&self) -> Result<Vec<Heartbeat>, StoreError> {
        let values = vec![(":workers", text("W"))];
        let range = KeyRange { index: None, keys: "#pk = :workers", values, backwards: false, limit: 1_000 };
        let items = self.table.pages(range).all().await?;
        let beat = |item: &item::Item| {
            let read = ItemReader(item);
            Ok(Heartbeat {
                worker: WorkerId::new(read.text("sk")?),
                count: read.number("count")?,
                ended: false,
            })
        };
        items.iter().map(beat).collect()
    }

    async fn idempotency(
        &self,
        actor: &Actor,
        key: &IdempotencyKey,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        let found: Option<IdempotencyRecord> =
            self.document(&Key::idempotency(actor.as_str(), key.as_str())).await?;
        Ok(found.filter(|record| self.table.clock.wall().since(record.at) < KEY_RETENTION))
    }

    async fn audit(&self, before: Option<u64>, limit: usize) -> Result<Page<AuditEntry, u64>, StoreError> {
        feed::audit(&self.table, before, limit).await
    }

    async fn delete_old(&self, call: &CallContext, old: &Old) -> Outcome<u64, WriteError> {
        feed::delete_old_audit(&self.table, call, old).await
    }

    async fn events(&self, after: Option<u64>, limit: usize) -> Result<Vec<(u64, FeedEvent)>, StoreError> {
        self.feed.events(&self.table, after.unwrap_or(0), limit).await
    }

    async fn last_event(&self) -> Result<Option<u64>, StoreError> {
        self.feed.last(&self.table).await
    }
}
