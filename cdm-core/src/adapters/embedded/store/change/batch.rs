//! A batch: all records are checked, then all are written.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use sqlx::{Row, SqliteConnection};

use super::super::KEY_RETENTION;
use super::super::error::Failure;
use super::super::read::integer;
use super::{Change, FLEET, USERS, WEBHOOKS, bits, put, service_name};
use crate::adapters::records;
use crate::domain::{Hostname, SiteId, Subject, Timestamp};
use crate::ports::{CallContext, Mutation, StoreError, WriteBatch, WriteError};

/// The maximum number of records in a batch.
const MAX_RECORDS: usize = 90;

/// How many of the newest events are kept; older ones are deleted in blocks.
const MAX_EVENTS: i64 = 100_000;

pub(in super::super) struct BatchWrite(pub(in super::super) WriteBatch);

#[async_trait]
impl Change<()> for BatchWrite {
    async fn run(
        &self,
        conn: &mut SqliteConnection,
        call: &CallContext,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let batch = &self.0;
        if let Some(first) = batch.writes.first()
            && last_writer(conn, first).await? == Some(bits(call.write))
        {
            return Ok(());
        }
        if let Some(record) = &batch.idempotency {
            let long_ago = integer(now.millis().saturating_sub(KEY_RETENTION.as_millis() as u64));
            sqlx::query("DELETE FROM keys WHERE at <= ?").bind(long_ago).execute(&mut *conn).await?;
            let query = sqlx::query("SELECT 1 FROM keys WHERE actor = ? AND key = ?");
            let query = query.bind(record.actor.as_str()).bind(record.key.as_str());
            if query.fetch_optional(&mut *conn).await?.is_some() {
                return Err(WriteError::KeyUsed.into());
            }
        }
        check(conn, &batch.writes).await?;
        for write in &batch.writes {
            put::put(conn, call, write).await?;
        }
        if let Some(entry) = &batch.audit {
            let query = sqlx::query("INSERT INTO audit (body) VALUES (?)");
            query.bind(records::encode(entry)?).execute(&mut *conn).await?;
        }
        for event in &batch.events {
            let query = sqlx::query("INSERT INTO events (body) VALUES (?)").bind(records::encode(event)?);
            let seq = query.execute(&mut *conn).await?.last_insert_rowid();
            if seq % 1_000 == 0 {
                sqlx::query("DELETE FROM events WHERE seq <= ?")
                    .bind(seq - MAX_EVENTS)
                    .execute(&mut *conn)
                    .await?;
            }
        }
        if let Some(record) = &batch.idempotency {
            sqlx::query("INSERT INTO keys VALUES (?, ?, ?, ?)")
                .bind(record.actor.as_str())
                .bind(record.key.as_str())
                .bind(integer(record.at.millis()))
                .bind(records::encode(record)?)
                .execute(&mut *conn)
                .await?;
        }
        Ok(())
    }
}

/// Returns the ID of the last write of a record.
async fn last_writer(conn: &mut SqliteConnection, write: &Mutation) -> Result<Option<i64>, Failure> {
    let query = match write {
        Mutation::CreateSite(site) | Mutation::Site(site) => {
            sqlx::query("SELECT write FROM sites WHERE id = ?").bind(site.id.to_string())
        }
        Mutation::RemoveSite(id, ..) => {
            sqlx::query("SELECT write FROM removed WHERE id = ?").bind(id.to_string())
        }
        Mutation::Service(service) => {
            sqlx::query("SELECT write FROM shared WHERE name = ?").bind(service_name(service.color))
        }
        Mutation::Fleet(_) => sqlx::query("SELECT write FROM shared WHERE name = ?").bind(FLEET),
        Mutation::Webhooks(_) => sqlx::query("SELECT write FROM shared WHERE name = ?").bind(WEBHOOKS),
        Mutation::Users(_) => sqlx::query("SELECT write FROM shared WHERE name = ?").bind(USERS),
        Mutation::CreateRollout(rollout) | Mutation::Rollout(rollout) => {
            sqlx::query("SELECT write FROM rollouts WHERE number = ?").bind(integer(rollout.number))
        }
        Mutation::RolloutPage(page) => sqlx::query("SELECT write FROM pages WHERE rollout = ? AND page = ?")
            .bind(integer(page.rollout))
            .bind(i64::from(page.page)),
        Mutation::History(operation) => {
            sqlx::query("SELECT write FROM history WHERE id = ?").bind(operation.id.to_string())
        }
    };
    let row = query.fetch_optional(conn).await?;
    Ok(row.map(|row| row.try_get::<Option<i64>, _>(0)).transpose()?.flatten())
}

/// Rejects a batch if any record is not the expected one.
async fn check(conn: &mut SqliteConnection, writes: &[Mutation]) -> Result<(), Failure> {
    let deny = |why: &str| Err(WriteError::Store(StoreError::Denied(why.to_owned())).into());
    let mut names = BTreeSet::new();
    if writes.len() > MAX_RECORDS || !writes.iter().all(|write| names.insert(name(write))) {
        return deny("a batch must have at most 90 records, and each record at most once");
    }
    let mut claimed: BTreeMap<&Hostname, &SiteId> = BTreeMap::new();
    for write in writes {
        if !as_expected(conn, writes, write).await? {
            return Err(WriteError::Conflict(name(write)).into());
        }
        if let Mutation::Site(new) = write
            && let Some(old) = super::site(conn, &new.id).await?
            && old.site.hostnames != new.hostnames
        {
            return deny("the hostnames of a site cannot be changed after its creation");
        }
        let Mutation::CreateSite(site) = write else { continue };
        for host in site.hostnames.all() {
            let taken = match claimed.insert(host, &site.id) {
                Some(owner) => Some(owner.clone()),
                None => owner(conn, host).await?,
            };
            if let Some(owner) = taken {
                return Err(WriteError::HostnameTaken { host: host.clone(), site: owner }.into());
            }
        }
    }
    Ok(())
}

async fn owner(conn: &mut SqliteConnection, host: &Hostname) -> Result<Option<SiteId>, Failure> {
    let query = sqlx::query("SELECT site FROM hostnames WHERE host = ?").bind(host.as_str());
    let Some(row) = query.fetch_optional(conn).await? else { return Ok(None) };
    let unreadable = |_| StoreError::Denied("the owner of a hostname cannot be read".to_owned());
    Ok(Some(SiteId::parse(row.try_get(0)?).map_err(unreadable)?))
}

/// Returns whether the stored record is the one that the batch expects.
async fn as_expected(
    conn: &mut SqliteConnection,
    writes: &[Mutation],
    write: &Mutation,
) -> Result<bool, Failure> {
    Ok(match write {
        Mutation::CreateSite(site) => site_version(conn, &site.id).await?.is_none(),
        // A site with another uid is another site, even if its version is the same.
        Mutation::Site(site) => {
            site_version(conn, &site.id).await? == Some((integer(site.version), site.uid.to_string()))
        }
        Mutation::RemoveSite(id, uid, version) => {
            site_version(conn, id).await? == Some((integer(*version), uid.to_string()))
        }
        Mutation::Service(service) => {
            shared_version(conn, &service_name(service.color)).await? == service.version
        }
        Mutation::Fleet(fleet) => shared_version(conn, FLEET).await? == fleet.version,
        Mutation::Webhooks(webhooks) => shared_version(conn, WEBHOOKS).await? == webhooks.version,
        Mutation::Users(users) => shared_version(conn, USERS).await? == users.version,
        Mutation::CreateRollout(rollout) => rollout_version(conn, rollout.number).await?.is_none(),
        Mutation::Rollout(rollout) => {
            rollout_version(conn, rollout.number).await? == Some(integer(rollout.version))
        }
        Mutation::RolloutPage(page) => {
            let mut others = writes.iter();
            let with = others
                .any(|other| matches!(other, Mutation::Rollout(rollout) if rollout.number == page.rollout));
            with || rollout_version(conn, page.rollout).await?.is_none()
        }
        Mutation::History(_) => true,
    })
}

async fn site_version(conn: &mut SqliteConnection, id: &SiteId) -> Result<Option<(i64, String)>, Failure> {
    let query = sqlx::query("SELECT version, uid FROM sites WHERE id = ?").bind(id.as_str());
    let row = query.fetch_optional(conn).await?;
    Ok(row.map(|row| Ok::<_, sqlx::Error>((row.try_get(0)?, row.try_get(1)?))).transpose()?)
}

async fn shared_version(conn: &mut SqliteConnection, name: &str) -> Result<u64, Failure> {
    let query = sqlx::query("SELECT version FROM shared WHERE name = ?").bind(name.to_owned());
    let row = query.fetch_optional(conn).await?;
    let version: Option<i64> = row.map(|row| row.try_get(0)).transpose()?;
    Ok(version.map_or(0, super::super::read::natural))
}

async fn rollout_version(conn: &mut SqliteConnection, number: u64) -> Result<Option<i64>, Failure> {
    let query = sqlx::query("SELECT version FROM rollouts WHERE number = ?").bind(integer(number));
    let row = query.fetch_optional(conn).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// Returns the name of a record, for messages and to detect duplicates in a batch.
fn name(write: &Mutation) -> String {
    match write {
        Mutation::CreateSite(site) | Mutation::Site(site) => Subject::Site(site.id.clone()).to_string(),
        Mutation::RemoveSite(id, ..) => Subject::Site(id.clone()).to_string(),
        Mutation::Service(service) => service_name(service.color),
        Mutation::Fleet(_) => FLEET.to_owned(),
        Mutation::Webhooks(_) => WEBHOOKS.to_owned(),
        Mutation::Users(_) => USERS.to_owned(),
        Mutation::CreateRollout(rollout) | Mutation::Rollout(rollout) => {
            format!("rollout-{}", rollout.number)
        }
        Mutation::RolloutPage(page) => format!("rollout-{}, page {}", page.rollout, page.page),
        Mutation::History(operation) => operation.id.to_string(),
    }
}
