//! Records and the journal in SQLite: each change is atomic, and several changes share one commit.

mod change;
mod error;
mod read;
mod writer;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::Row;

use super::coalesce::Coalescer;
use super::file::File;
use super::liveness_lock::LivenessLock;
use crate::domain::rollout::RolloutPage;
use crate::domain::site::{Claim, Claimed, ReleaseClaim};
use crate::domain::user::Users;
use crate::domain::webhook::Webhooks;
use crate::domain::{
    Actor, AuditEntry, Color, Fleet, Hostname, IdempotencyKey, Operation, OperationId, Rollout, Service,
    Site, SiteId, WorkerId,
};
use crate::ports::{
    CallContext, Clock, FeedEvent, Heartbeat, IdempotencyRecord, Journal, Old, OperationQuery, Outcome, Page,
    PendingWork, SiteQuery, SiteRepository, StoreError, WriteBatch, WriteError,
};
use error::unavailable;
use writer::Writer;

/// Retention period of idempotency keys.
const KEY_RETENTION: Duration = Duration::from_hours(24);

/// The store of records and the journal. Clones share it.
#[derive(Clone)]
pub struct EmbeddedStore {
    file: File,
    clock: Arc<dyn Clock>,
    liveness_lock: LivenessLock,
    writer: Writer,
    by_id: Arc<Coalescer<SiteId, Site, StoreError>>,
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmbeddedStore")
    }
}

impl EmbeddedStore {
    /// Opens the store in `file`, creating its tables if they are missing. `liveness_lock` determines which workers of
    /// this machine have ended.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn open(
        file: File,
        clock: Arc<dyn Clock>,
        liveness_lock: LivenessLock,
    ) -> Result<Self, StoreError> {
        file.ensure(include_str!("schema.sql")).await.map_err(|error| unavailable(&error))?;
        let writer = Writer::start(file.clone(), Arc::clone(&clock));
        Ok(Self { file, clock, liveness_lock, writer, by_id: Arc::default() })
    }

    /// Checks that the store can be written, by writing a small row.
    ///
    /// # Errors
    /// The error of the write.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.file.probe().await.map_err(|error| unavailable(&error))
    }
}

#[async_trait]
impl SiteRepository for EmbeddedStore {
    async fn site(&self, id: &SiteId) -> Result<Option<Site>, StoreError> {
        self.by_id.get(id, &|ids| read::sites_of(self.file.clone(), ids)).await
    }

    async fn hostname(&self, host: &Hostname) -> Result<Option<SiteId>, StoreError> {
        let query = sqlx::query("SELECT site FROM hostnames WHERE host = ?").bind(host.as_str());
        let row = query.fetch_optional(self.file.reader()).await.map_err(|error| unavailable(&error))?;
        row.map(|row| read::parsed(&row, 0, |text| SiteId::parse(text).ok())).transpose()
    }

    async fn sites(
        &self,
        query: &SiteQuery,
        after: Option<&SiteId>,
        limit: usize,
    ) -> Result<Page<Site, SiteId>, StoreError> {
        read::sites(self.file.reader(), query, after, limit).await
    }

    async fn count(&self, query: &SiteQuery) -> Result<u64, StoreError> {
        read::count(self.file.reader(), query).await
    }
}

#[async_trait]
impl Journal for EmbeddedStore {
    async fn write(&self, call: &CallContext, batch: &WriteBatch) -> Outcome<(), WriteError> {
        self.writer.change(call, change::BatchWrite(batch.clone())).await
    }

    async fn claim(&self, call: &CallContext, claim: &Claim) -> Outcome<Claimed, WriteError> {
        match self.writer.change(call, change::ClaimSite(claim.clone())).await {
            Outcome::Applied(response) => match response {
                Ok(claimed) => Outcome::Applied(claimed),
                Err(refused) => Outcome::NotApplied(WriteError::Claim(refused)),
            },
            Outcome::NotApplied(refused) => Outcome::NotApplied(refused),
            Outcome::Unknown(refused) => Outcome::Unknown(refused),
        }
    }

    async fn release_claim(&self, call: &CallContext, release: &ReleaseClaim) -> Outcome<(), WriteError> {
        self.writer.change(call, change::ReleaseSite(release.clone())).await
    }

    async fn service(&self, color: Color) -> Result<Service, StoreError> {
        let name = change::service_name(color);
        let found =
            read::document("SELECT body FROM shared WHERE name = ?", &name, self.file.reader()).await?;
        Ok(found.unwrap_or_else(|| Service::new(color)))
    }

    async fn fleet(&self) -> Result<Fleet, StoreError> {
        let sql = "SELECT body FROM shared WHERE name = ?";
        Ok(read::document(sql, change::FLEET, self.file.reader()).await?.unwrap_or_default())
    }

    async fn webhooks(&self) -> Result<Webhooks, StoreError> {
        let sql = "SELECT body FROM shared WHERE name = ?";
        Ok(read::document(sql, change::WEBHOOKS, self.file.reader()).await?.unwrap_or_default())
    }

    async fn users(&self) -> Result<Users, StoreError> {
        let sql = "SELECT body FROM shared WHERE name = ?";
        Ok(read::document(sql, change::USERS, self.file.reader()).await?.unwrap_or_default())
    }

    async fn rollout(&self, number: u64) -> Result<Option<Rollout>, StoreError> {
        let sql = "SELECT body FROM rollouts WHERE number = ?";
        read::document(sql, read::integer(number), self.file.reader()).await
    }

    async fn rollout_page(&self, number: u64, page: u32) -> Result<Option<RolloutPage>, StoreError> {
        read::rollout_page(self.file.reader(), number, page).await
    }

    async fn rollouts(&self, before: Option<u64>, limit: usize) -> Result<Page<Rollout, u64>, StoreError> {
        let sql = "SELECT number, body FROM rollouts WHERE number < ? ORDER BY number DESC LIMIT ?";
        read::page(sql, before, limit, self.file.reader()).await
    }

    async fn history(&self, id: &OperationId) -> Result<Option<Operation>, StoreError> {
        let sql = "SELECT body FROM history WHERE id = ?";
        read::document(sql, &id.to_string(), self.file.reader()).await
    }

    async fn operations(
        &self,
        query: &OperationQuery,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<Operation, u64>, StoreError> {
        read::operations(self, query, before, limit).await
    }

    async fn pending_work(&self) -> Result<Vec<PendingWork>, StoreError> {
        read::pending_work(self.file.reader()).await
    }

    async fn allocate_ids(&self, call: &CallContext, count: u32) -> Outcome<u64, WriteError> {
        self.writer.change(call, change::AllocateIds(count)).await
    }

    async fn heartbeat(
        &self,
        call: &CallContext,
        worker: &WorkerId,
        count: Option<u64>,
    ) -> Outcome<(), WriteError> {
        let ended = if count.is_some() { Vec::new() } else { self.liveness_lock.ended() };
        match self.writer.change(call, change::RecordHeartbeat { worker: worker.clone(), count, ended }).await
        {
            Outcome::Applied(removed) => {
                if count.is_none() {
                    self.liveness_lock.remove_files(&removed);
                    self.liveness_lock.release(worker);
                }
                Outcome::Applied(())
            }
            Outcome::NotApplied(refused) => Outcome::NotApplied(refused),
            Outcome::Unknown(refused) => Outcome::Unknown(refused),
        }
    }

    async fn heartbeats(&self) -> Result<Vec<Heartbeat>, StoreError> {
        let query = sqlx::query("SELECT worker, count FROM beats ORDER BY worker");
        let rows = query.fetch_all(self.file.reader()).await.map_err(|error| unavailable(&error))?;
        let beat = |row: &sqlx::sqlite::SqliteRow| -> Result<Heartbeat, StoreError> {
            let worker = read::parsed(row, 0, |text| Some(WorkerId::new(text)))?;
            let count: i64 = row.try_get(1).map_err(|error| unavailable(&error))?;
            Ok(Heartbeat {
                ended: self.liveness_lock.has_ended(&worker),
                worker,
                count: read::natural(count),
            })
        };
        rows.iter().map(beat).collect()
    }

    async fn idempotency(
        &self,
        actor: &Actor,
        key: &IdempotencyKey,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        let found = read::idempotency(self.file.reader(), actor, key).await?;
        Ok(found.filter(|record| self.clock.wall().since(record.at) < KEY_RETENTION))
    }

    async fn audit(&self, before: Option<u64>, limit: usize) -> Result<Page<AuditEntry, u64>, StoreError> {
        let sql = "SELECT seq, body FROM audit WHERE seq < ? ORDER BY seq DESC LIMIT ?";
        read::page(sql, before, limit, self.file.reader()).await
    }

    async fn events(&self, after: Option<u64>, limit: usize) -> Result<Vec<(u64, FeedEvent)>, StoreError> {
        read::events(self.file.reader(), after, limit).await
    }

    async fn last_event(&self) -> Result<Option<u64>, StoreError> {
        read::last_event(self.file.reader()).await
    }

    async fn delete_old(&self, call: &CallContext, old: &Old) -> Outcome<u64, WriteError> {
        self.writer.change(call, change::DeleteOld(*old)).await
    }
}
