//! What each changing call does inside its transaction.

mod batch;
mod old;
mod put;

use async_trait::async_trait;
use sqlx::{Row, SqliteConnection};

use super::error::Failure;
use super::read::{integer, natural};
use crate::adapters::records::{self, Answer};
use crate::domain::site::{Claim, ClaimRefused, Claimed, ReleaseClaim};
use crate::domain::{Color, Site, SiteId, Subject, Timestamp, WorkerId};
use crate::ports::{CallContext, WriteError, WriteId};

pub(super) use batch::Mutation;
pub(super) use old::DeleteOld;

/// A change: run within a transaction, where what it did is undone when it fails.
#[async_trait]
pub(super) trait Change<T>: Send + Sync {
    async fn run(&self, on: &mut SqliteConnection, call: &CallContext, now: Timestamp) -> Result<T, Failure>;
}

/// The name of the platform's record.
pub(super) const FLEET: &str = "fleet";

/// The name of the webhooks' record.
pub(super) const WEBHOOKS: &str = "webhooks";

/// The name of the users' record.
pub(super) const USERS: &str = "users";

/// The name of a colour's record.
pub(super) fn service_name(color: Color) -> String {
    Subject::Service(color).to_string()
}

/// A write id as SQLite keeps it: the same 64 bits.
fn bits(write: WriteId) -> i64 {
    write.0.cast_signed()
}

/// A site as it lies there, with its last write and what a claim was answered then.
struct Lying {
    site: Site,
    write: Option<i64>,
    answer: Option<Answer>,
}

async fn site(on: &mut SqliteConnection, id: &SiteId) -> Result<Option<Lying>, Failure> {
    let query = sqlx::query("SELECT body, write, answer FROM sites WHERE id = ?").bind(id.as_str());
    let Some(row) = query.fetch_optional(on).await? else { return Ok(None) };
    let answer: Option<String> = row.try_get(2)?;
    Ok(Some(Lying {
        site: records::decode(row.try_get(0)?)?,
        write: row.try_get(1)?,
        answer: answer.as_deref().map(records::decode).transpose()?,
    }))
}

/// Writes a site over what lies there, as the version after `site`'s.
async fn update(
    on: &mut SqliteConnection,
    call: &CallContext,
    mut site: Site,
    answer: Option<Answer>,
) -> Result<(), Failure> {
    site.version += 1;
    let answer = answer.as_ref().map(records::encode).transpose()?;
    sqlx::query(
        "UPDATE sites SET version = ?, service = ?, state = ?, write = ?, answer = ?, body = ? WHERE id = ?",
    )
    .bind(integer(site.version))
    .bind(site.service.as_str())
    .bind(site.state().as_str())
    .bind(bits(call.write))
    .bind(answer)
    .bind(records::encode(&site)?)
    .bind(site.id.as_str())
    .execute(on)
    .await?;
    Ok(())
}

pub(super) struct ClaimSite(pub(super) Claim);

#[async_trait]
impl Change<Result<Claimed, ClaimRefused>> for ClaimSite {
    async fn run(
        &self,
        on: &mut SqliteConnection,
        call: &CallContext,
        _now: Timestamp,
    ) -> Result<Result<Claimed, ClaimRefused>, Failure> {
        let Some(Lying { mut site, write, answer }) = site(on, &self.0.id).await? else {
            return Ok(Err(ClaimRefused::Gone));
        };
        if let Some(Answer(answer)) = answer.filter(|_| write == Some(bits(call.write))) {
            return Ok(answer);
        }
        let seen = site.claim_token;
        let answer = site.claim(&self.0);
        let changed = match answer {
            Ok(Claimed::Taken { .. }) => true,
            Ok(Claimed::FencedOff) | Err(ClaimRefused::AlreadyResolved(..)) => site.claim_token != seen,
            Err(ClaimRefused::Gone | ClaimRefused::NotActive | ClaimRefused::Busy | ClaimRefused::Fenced) => {
                false
            }
        };
        if changed {
            update(on, call, site, Some(Answer(answer))).await?;
        }
        Ok(answer)
    }
}

pub(super) struct CompleteSite(pub(super) ReleaseClaim);

#[async_trait]
impl Change<()> for CompleteSite {
    async fn run(
        &self,
        on: &mut SqliteConnection,
        call: &CallContext,
        _now: Timestamp,
    ) -> Result<(), Failure> {
        let Some(Lying { mut site, write, .. }) = site(on, &self.0.id).await? else {
            return Err(WriteError::Claim(ClaimRefused::Gone).into());
        };
        if write == Some(bits(call.write)) {
            return Ok(());
        }
        site.release_claim(&self.0).map_err(WriteError::Claim)?;
        update(on, call, site, None).await
    }
}

/// Draws numbers.
pub(super) struct Draw(pub(super) u32);

#[async_trait]
impl Change<u64> for Draw {
    async fn run(
        &self,
        on: &mut SqliteConnection,
        _call: &CallContext,
        _now: Timestamp,
    ) -> Result<u64, Failure> {
        let query =
            sqlx::query("UPDATE numbers SET drawn = drawn + ? RETURNING drawn").bind(i64::from(self.0));
        let drawn: i64 = query.fetch_one(on).await?.try_get(0)?;
        Ok(natural(drawn) - u64::from(self.0) + 1)
    }
}

/// A sign of life, or the word that there will be none any more.
pub(super) struct HeartbeatOf {
    pub(super) worker: WorkerId,
    pub(super) count: Option<u64>,
    /// Workers that have ended: the beats of those that own nothing go too.
    pub(super) ended: Vec<WorkerId>,
}

const OWNS: &str = "SELECT 1 FROM working WHERE owner = ?1 AND NOT rests \
                    UNION ALL SELECT 1 FROM rollouts WHERE owner = ?1 AND active LIMIT 1";

#[async_trait]
impl Change<Vec<WorkerId>> for HeartbeatOf {
    /// Answers the workers that nobody has to ask for any more.
    async fn run(
        &self,
        on: &mut SqliteConnection,
        _call: &CallContext,
        _now: Timestamp,
    ) -> Result<Vec<WorkerId>, Failure> {
        let Some(count) = self.count else {
            let mut gone = Vec::new();
            for worker in &self.ended {
                let owns = sqlx::query(OWNS).bind(worker.as_str()).fetch_optional(&mut *on).await?;
                gone.extend(owns.is_none().then(|| worker.clone()));
            }
            for worker in gone.iter().chain([&self.worker]) {
                let query = sqlx::query("DELETE FROM beats WHERE worker = ?");
                query.bind(worker.as_str()).execute(&mut *on).await?;
            }
            return Ok(gone);
        };
        // A late one does not make a worker look older than it is.
        sqlx::query(
            "INSERT INTO beats VALUES (?, ?) ON CONFLICT DO UPDATE SET count = max(count, excluded.count)",
        )
        .bind(self.worker.as_str())
        .bind(integer(count))
        .execute(on)
        .await?;
        Ok(Vec::new())
    }
}
