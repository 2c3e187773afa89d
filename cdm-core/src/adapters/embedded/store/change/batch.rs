//! A batch: looked at as a whole, then written as a whole.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use sqlx::{Row, SqliteConnection};

use super::super::KEPT;
use super::super::error::Failure;
use super::super::read::integer;
use super::{Change, FLEET, USERS, WEBHOOKS, bits, put, service_name};
use crate::adapters::records;
use crate::domain::{Hostname, SiteId, Subject, Timestamp};
use crate::ports::{self, CallContext, StoreError, WriteBatch, WriteError};

/// How many records a batch has at most.
const MOST: usize = 90;

/// Events that are kept, the newest; older ones go, a block at a time.
const FEED: i64 = 100_000;

pub(in super::super) struct Mutation(pub(in super::super) WriteBatch);

#[async_trait]
impl Change<()> for Mutation {
    async fn run(
        &self,
        on: &mut SqliteConnection,
        call: &CallContext,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let batch = &self.0;
        if let Some(first) = batch.writes.first()
            && last_writer(on, first).await? == Some(bits(call.write))
        {
            return Ok(());
        }
        if let Some(asked) = &batch.idempotency {
            let long_ago = integer(now.millis().saturating_sub(KEPT.as_millis() as u64));
            sqlx::query("DELETE FROM keys WHERE at <= ?").bind(long_ago).execute(&mut *on).await?;
            let query = sqlx::query("SELECT 1 FROM keys WHERE actor = ? AND key = ?");
            let query = query.bind(asked.actor.as_str()).bind(asked.key.as_str());
            if query.fetch_optional(&mut *on).await?.is_some() {
                return Err(WriteError::KeyUsed.into());
            }
        }
        check(on, &batch.writes).await?;
        for write in &batch.writes {
            put::put(on, call, write).await?;
        }
        if let Some(entry) = &batch.audit {
            let query = sqlx::query("INSERT INTO audit (body) VALUES (?)");
            query.bind(records::encode(entry)?).execute(&mut *on).await?;
        }
        for event in &batch.events {
            let query = sqlx::query("INSERT INTO events (body) VALUES (?)").bind(records::encode(event)?);
            let seq = query.execute(&mut *on).await?.last_insert_rowid();
            if seq % 1_000 == 0 {
                sqlx::query("DELETE FROM events WHERE seq <= ?").bind(seq - FEED).execute(&mut *on).await?;
            }
        }
        if let Some(record) = &batch.idempotency {
            sqlx::query("INSERT INTO keys VALUES (?, ?, ?, ?)")
                .bind(record.actor.as_str())
                .bind(record.key.as_str())
                .bind(integer(record.at.millis()))
                .bind(records::encode(record)?)
                .execute(&mut *on)
                .await?;
        }
        Ok(())
    }
}

/// Which write a record was last written by.
async fn last_writer(on: &mut SqliteConnection, write: &ports::Mutation) -> Result<Option<i64>, Failure> {
    use ports::Mutation as W;
    let query = match write {
        W::CreateSite(site) | W::Site(site) => {
            sqlx::query("SELECT write FROM sites WHERE id = ?").bind(site.id.to_string())
        }
        W::RemoveSite(id, ..) => sqlx::query("SELECT write FROM removed WHERE id = ?").bind(id.to_string()),
        W::Service(service) => {
            sqlx::query("SELECT write FROM shared WHERE name = ?").bind(service_name(service.color))
        }
        W::Fleet(_) => sqlx::query("SELECT write FROM shared WHERE name = ?").bind(FLEET),
        W::Webhooks(_) => sqlx::query("SELECT write FROM shared WHERE name = ?").bind(WEBHOOKS),
        W::Users(_) => sqlx::query("SELECT write FROM shared WHERE name = ?").bind(USERS),
        W::CreateRollout(rollout) | W::Rollout(rollout) => {
            sqlx::query("SELECT write FROM rollouts WHERE number = ?").bind(integer(rollout.number))
        }
        W::RolloutPage(page) => sqlx::query("SELECT write FROM pages WHERE rollout = ? AND page = ?")
            .bind(integer(page.rollout))
            .bind(i64::from(page.page)),
        W::History(operation) => {
            sqlx::query("SELECT write FROM history WHERE id = ?").bind(operation.id.to_string())
        }
    };
    let row = query.fetch_optional(on).await?;
    Ok(row.map(|row| row.try_get::<Option<i64>, _>(0)).transpose()?.flatten())
}

/// Refuses a batch in which anything is not as expected.
async fn check(on: &mut SqliteConnection, writes: &[ports::Mutation]) -> Result<(), Failure> {
    use ports::Mutation as W;
    let deny = |why: &str| Err(WriteError::Store(StoreError::Denied(why.to_owned())).into());
    let mut names = BTreeSet::new();
    if writes.len() > MOST || !writes.iter().all(|write| names.insert(name(write))) {
        return deny("a batch has at most 90 records, and each of them once");
    }
    let mut claimed: BTreeMap<&Hostname, &SiteId> = BTreeMap::new();
    for write in writes {
        if !as_expected(on, writes, write).await? {
            return Err(WriteError::Conflict(name(write)).into());
        }
        if let W::Site(new) = write
            && let Some(old) = super::site(on, &new.id).await?
            && old.site.hostnames != new.hostnames
        {
            return deny("a site keeps the hostnames that it was created with");
        }
        let W::CreateSite(site) = write else { continue };
        for host in site.hostnames.all() {
            let taken = match claimed.insert(host, &site.id) {
                Some(owner) => Some(owner.clone()),
                None => owner(on, host).await?,
            };
            if let Some(owner) = taken {
                return Err(WriteError::HostnameTaken { host: host.clone(), site: owner }.into());
            }
        }
    }
    Ok(())
}

/// Who has claimed a hostname.
async fn owner(on: &mut SqliteConnection, host: &Hostname) -> Result<Option<SiteId>, Failure> {
    let query = sqlx::query("SELECT site FROM hostnames WHERE host = ?").bind(host.as_str());
    let Some(row) = query.fetch_optional(on).await? else { return Ok(None) };
    let broken = |_| StoreError::Denied("a hostname's owner cannot be read".to_owned());
    Ok(Some(SiteId::parse(row.try_get(0)?).map_err(broken)?))
}

/// Whether a record is as the batch expects it.
async fn as_expected(
    on: &mut SqliteConnection,
    writes: &[ports::Mutation],
    write: &ports::Mutation,
) -> Result<bool, Failure> {
    use ports::Mutation as W;
    Ok(match write {
        W::CreateSite(site) => site_version(on, &site.id).await?.is_none(),
        // A site of another uid is another site, though it may have come to the same version.
        W::Site(site) => {
            site_version(on, &site.id).await? == Some((integer(site.version), site.uid.to_string()))
        }
        W::RemoveSite(id, uid, version) => {
            site_version(on, id).await? == Some((integer(*version), uid.to_string()))
        }
        W::Service(service) => shared_version(on, &service_name(service.color)).await? == service.version,
        W::Fleet(fleet) => shared_version(on, FLEET).await? == fleet.version,
        W::Webhooks(webhooks) => shared_version(on, WEBHOOKS).await? == webhooks.version,
        W::Users(users) => shared_version(on, USERS).await? == users.version,
        W::CreateRollout(rollout) => rollout_version(on, rollout.number).await?.is_none(),
        W::Rollout(rollout) => rollout_version(on, rollout.number).await? == Some(integer(rollout.version)),
        W::RolloutPage(page) => {
            let mut others = writes.iter();
            let with =
                others.any(|other| matches!(other, W::Rollout(rollout) if rollout.number == page.rollout));
            with || rollout_version(on, page.rollout).await?.is_none()
        }
        W::History(_) => true,
    })
}

async fn site_version(on: &mut SqliteConnection, id: &SiteId) -> Result<Option<(i64, String)>, Failure> {
    let query = sqlx::query("SELECT version, uid FROM sites WHERE id = ?").bind(id.as_str());
    let row = query.fetch_optional(on).await?;
    Ok(row.map(|row| Ok::<_, sqlx::Error>((row.try_get(0)?, row.try_get(1)?))).transpose()?)
}

async fn shared_version(on: &mut SqliteConnection, name: &str) -> Result<u64, Failure> {
    let query = sqlx::query("SELECT version FROM shared WHERE name = ?").bind(name.to_owned());
    let row = query.fetch_optional(on).await?;
    let version: Option<i64> = row.map(|row| row.try_get(0)).transpose()?;
    Ok(version.map_or(0, super::super::read::natural))
}

async fn rollout_version(on: &mut SqliteConnection, number: u64) -> Result<Option<i64>, Failure> {
    let query = sqlx::query("SELECT version FROM rollouts WHERE number = ?").bind(integer(number));
    let row = query.fetch_optional(on).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// The name of a record, for people and for telling it from the others of its batch.
fn name(write: &ports::Mutation) -> String {
    use ports::Mutation as W;
    match write {
        W::CreateSite(site) | W::Site(site) => Subject::Site(site.id.clone()).to_string(),
        W::RemoveSite(id, ..) => Subject::Site(id.clone()).to_string(),
        W::Service(service) => service_name(service.color),
        W::Fleet(_) => FLEET.to_owned(),
        W::Webhooks(_) => WEBHOOKS.to_owned(),
        W::Users(_) => USERS.to_owned(),
        W::CreateRollout(rollout) | W::Rollout(rollout) => format!("rollout-{}", rollout.number),
        W::RolloutPage(page) => format!("rollout-{}, page {}", page.rollout, page.page),
        W::History(operation) => operation.id.to_string(),
    }
}
