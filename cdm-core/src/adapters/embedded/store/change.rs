//! The changes that run inside the writer's transactions.

mod batch;
mod delete_old;
mod put;

use async_trait::async_trait;
use sqlx::{Row, SqliteConnection};

use super::error::Failure;
use super::read::{integer, natural};
use crate::adapters::records::{self, ClaimResponse};
use crate::domain::site::{Claim, ClaimRefused, Claimed, ReleaseClaim};
use crate::domain::{Color, Site, SiteId, Subject, Timestamp, WorkerId};
use crate::ports::{CallContext, WriteError, WriteId};

pub(super) use batch::BatchWrite;
pub(super) use delete_old::DeleteOld;

/// A change. It runs in a transaction; if it fails, its writes are rolled back.
#[async_trait]
pub(super) trait Change<T>: Send + Sync {
    async fn run(
        &self,
        conn: &mut SqliteConnection,
        call: &CallContext,
        now: Timestamp,
    ) -> Result<T, Failure>;
}

/// The name of the fleet's record.
pub(super) const FLEET: &str = "fleet";

/// The name of the webhooks' record.
pub(super) const WEBHOOKS: &str = "webhooks";

/// The name of the users' record.
pub(super) const USERS: &str = "users";

pub(super) fn service_name(color: Color) -> String {
    Subject::Service(color).to_string()
}

/// Returns a write ID in SQLite's integer type: the same 64 bits.
fn bits(write: WriteId) -> i64 {
    write.0.cast_signed()
}

/// A stored site, with the ID of its last write and, if that write was a claim, the claim's response.
struct StoredSite {
    site: Site,
    write: Option<i64>,
    response: Option<ClaimResponse>,
}

async fn site(conn: &mut SqliteConnection, id: &SiteId) -> Result<Option<StoredSite>, Failure> {
    let query = sqlx::query("SELECT body, write, answer FROM sites WHERE id = ?").bind(id.as_str());
    let Some(row) = query.fetch_optional(conn).await? else { return Ok(None) };
    let response: Option<String> = row.try_get(2)?;
    Ok(Some(StoredSite {
        site: records::decode(row.try_get(0)?)?,
        write: row.try_get(1)?,
        response: response.as_deref().map(records::decode).transpose()?,
    }))
}

/// Replaces a stored site by `site` with the next version.
async fn update(
    conn: &mut SqliteConnection,
    call: &CallContext,
    mut site: Site,
    response: Option<ClaimResponse>,
) -> Result<(), Failure> {
    site.version += 1;
    let response = response.as_ref().map(records::encode).transpose()?;
    sqlx::query(
        "UPDATE sites SET version = ?, service = ?, state = ?, write = ?, answer = ?, body = ? WHERE id = ?",
    )
    .bind(integer(site.version))
    .bind(site.service.as_str())
    .bind(site.state().as_str())
    .bind(bits(call.write))
    .bind(response)
    .bind(records::encode(&site)?)
    .bind(site.id.as_str())
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) struct ClaimSite(pub(super) Claim);

#[async_trait]
impl Change<Result<Claimed, ClaimRefused>> for ClaimSite {
    async fn run(
        &self,
        conn: &mut SqliteConnection,
        call: &CallContext,
        _now: Timestamp,
    ) -> Result<Result<Claimed, ClaimRefused>, Failure> {
        let Some(StoredSite { mut site, write, response }) = site(conn, &self.0.id).await? else {
            return Ok(Err(ClaimRefused::Gone));
        };
        if let Some(ClaimResponse(response)) = response.filter(|_| write == Some(bits(call.write))) {
            return Ok(response);
        }
        let token_before = site.claim_token;
        let response = site.claim(&self.0);
        let changed = match response {
            Ok(Claimed::Taken { .. }) => true,
            Ok(Claimed::FencedOff) | Err(ClaimRefused::AlreadyResolved(..)) => {
                site.claim_token != token_before
            }
            Err(ClaimRefused::Gone | ClaimRefused::NotActive | ClaimRefused::Busy | ClaimRefused::Fenced) => {
                false
            }
        };
        if changed {
            update(conn, call, site, Some(ClaimResponse(response))).await?;
        }
        Ok(response)
    }
}

pub(super) struct ReleaseSite(pub(super) ReleaseClaim);

#[async_trait]
impl Change<()> for ReleaseSite {
    async fn run(
        &self,
        conn: &mut SqliteConnection,
        call: &CallContext,
        _now: Timestamp,
    ) -> Result<(), Failure> {
        let Some(StoredSite { mut site, write, .. }) = site(conn, &self.0.id).await? else {
            return Err(WriteError::Claim(ClaimRefused::Gone).into());
        };
        if write == Some(bits(call.write)) {
            return Ok(());
        }
        site.release_claim(&self.0).map_err(WriteError::Claim)?;
        update(conn, call, site, None).await
    }
}

/// Allocates consecutive numbers, and returns the first. The field is how many.
pub(super) struct AllocateIds(pub(super) u32);

#[async_trait]
impl Change<u64> for AllocateIds {
    async fn run(
        &self,
        conn: &mut SqliteConnection,
        _call: &CallContext,
        _now: Timestamp,
    ) -> Result<u64, Failure> {
        let query =
            sqlx::query("UPDATE numbers SET drawn = drawn + ? RETURNING drawn").bind(i64::from(self.0));
        let drawn: i64 = query.fetch_one(conn).await?.try_get(0)?;
        Ok(natural(drawn) - u64::from(self.0) + 1)
    }
}

/// Records a heartbeat, or removes a worker that has stopped.
pub(super) struct RecordHeartbeat {
    pub(super) worker: WorkerId,
    pub(super) count: Option<u64>,
    /// Workers whose processes have ended. The heartbeats of those that own nothing are removed too.
    pub(super) ended: Vec<WorkerId>,
}

const OWNS: &str = "SELECT 1 FROM working WHERE owner = ?1 AND NOT rests \
                    UNION ALL SELECT 1 FROM rollouts WHERE owner = ?1 AND active LIMIT 1";

#[async_trait]
impl Change<Vec<WorkerId>> for RecordHeartbeat {
    /// Returns the workers that own nothing any more, so that their locks can be removed.
    async fn run(
        &self,
        conn: &mut SqliteConnection,
        _call: &CallContext,
        _now: Timestamp,
    ) -> Result<Vec<WorkerId>, Failure> {
        let Some(count) = self.count else {
            let mut removed = Vec::new();
            for worker in &self.ended {
                let owns = sqlx::query(OWNS).bind(worker.as_str()).fetch_optional(&mut *conn).await?;
                removed.extend(owns.is_none().then(|| worker.clone()));
            }
            for worker in removed.iter().chain([&self.worker]) {
                let query = sqlx::query("DELETE FROM beats WHERE worker = ?");
                query.bind(worker.as_str()).execute(&mut *conn).await?;
            }
            return Ok(removed);
        };
        // A delayed heartbeat does not lower the count.
        sqlx::query(
            "INSERT INTO beats VALUES (?, ?) ON CONFLICT DO UPDATE SET count = max(count, excluded.count)",
        )
        .bind(self.worker.as_str())
        .bind(integer(count))
        .execute(conn)
        .await?;
        Ok(Vec::new())
    }
}
