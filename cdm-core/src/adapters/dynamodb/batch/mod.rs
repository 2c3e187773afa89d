//! A batch: one request for a single record, otherwise one transaction; and what a rejected batch means.

mod put;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::change::{ABSENT, Change};
use super::failure::{ChangeOutcome, Failure};
use super::feed::FeedWriter;
use super::item::{Item, ItemReader, Key, document, number, put as set, seconds};
use super::table::DynamoTable;
use super::{KEY_RETENTION, site};
use crate::domain::{Hostname, Hostnames, SiteId, Subject, Timestamp};
use crate::ports::{CallContext, IdempotencyRecord, Mutation, Outcome, StoreError, WriteBatch, WriteError};

/// The maximum number of records in a batch.
const MAX_RECORDS: usize = 90;
/// How many positions in the feed a batch tries, each after a reader has closed the previous one.
const MAX_ATTEMPTS: usize = 4;
/// How long the table stores which write removed a site.
const REMOVAL_RETENTION: Duration = Duration::from_hours(7 * 24);

/// What a change is for, which decides what a failed condition means.
#[derive(Clone, Debug)]
enum Purpose {
    /// The record at this index of the batch.
    Record(usize),
    /// A hostname of a new site.
    Host(usize, Hostname),
    /// The idempotency key of the request.
    Key,
    /// An audit entry, or events of the feed.
    Feed,
}

/// A change of a batch, with the key of its item.
#[derive(Clone, Debug)]
struct Planned {
    what: Purpose,
    key: Key,
    change: Change,
}

/// Why a batch was not written.
enum Rejection {
    /// This very batch was written by an earlier request.
    AlreadyWritten,
    Rejected(WriteError),
    /// A reader of the feed has closed the position that the batch had allocated.
    PositionClosed,
}

pub(super) async fn write(
    table: &DynamoTable,
    call: &CallContext,
    batch: &WriteBatch,
) -> Outcome<(), WriteError> {
    if let Err(refused) = validate(&batch.writes) {
        return Outcome::NotApplied(refused);
    }
    let planned = match plan(table, call, batch).await {
        Ok(planned) => planned,
        Err(error) => return Failure::NotApplied(error).into_outcome(),
    };
    let feed_writer = FeedWriter { table, call, audit: batch.audit.as_ref(), events: &batch.events };
    for _ in 0..MAX_ATTEMPTS {
        let allocation = match feed_writer.allocate().await {
            Ok(allocation) => allocation,
            // No change of the batch has been requested yet.
            Err(failure) => return Outcome::NotApplied(WriteError::Store(failure.into_error())),
        };
        let feed_changes = match feed_writer.changes(allocation) {
            Ok(feed_changes) => feed_changes,
            Err(error) => return Failure::NotApplied(error).into_outcome(),
        };
        let mut all = planned.clone();
        all.extend(feed_changes.into_iter().map(|(key, change)| Planned {
            what: Purpose::Feed,
            key,
            change,
        }));
        if all.is_empty() {
            return Outcome::Applied(());
        }
        let changes: Vec<Change> = all.iter().map(|planned| planned.change.clone()).collect();
        let unmet = match table.write(call, &changes).await {
            Ok(_) => return Outcome::Applied(()),
            Err(Failure::ConditionFailed(item)) => vec![ChangeOutcome::ConditionFailed(item)],
            Err(Failure::Canceled(unmet)) => unmet,
            Err(failure @ Failure::Unknown(_)) => return failure.into_outcome(),
            Err(failure @ (Failure::NotApplied(_) | Failure::Conflict)) => {
                feed_writer.abandon(allocation).await;
                return failure.into_outcome();
            }
        };
        feed_writer.abandon(allocation).await;
        match rejection_cause(table, call, batch, &all, &unmet).await {
            Ok(Rejection::AlreadyWritten) => return Outcome::Applied(()),
            Ok(Rejection::Rejected(refused)) => return Outcome::NotApplied(refused),
            Ok(Rejection::PositionClosed) => {}
            // This request changed nothing. Whether an earlier request of the same write did could not be read.
            Err(error) => return Outcome::Unknown(WriteError::Store(error)),
        }
    }
    Outcome::NotApplied(WriteError::Store(StoreError::Unavailable(
        "the event feed advanced past this write too often; retry the request".to_owned(),
    )))
}

/// Rejects a batch that is invalid regardless of the table's content.
fn validate(writes: &[Mutation]) -> Result<(), WriteError> {
    let mut names = BTreeSet::new();
    if writes.len() > MAX_RECORDS || !writes.iter().all(|write| names.insert(name(write))) {
        let message = "a batch must have at most 90 records, and each record at most once";
        return Err(WriteError::Store(StoreError::Denied(message.to_owned())));
    }
    let mut claimed: BTreeMap<&Hostname, &SiteId> = BTreeMap::new();
    for write in writes {
        let Mutation::CreateSite(site) = write else { continue };
        for host in site.hostnames.all() {
            if let Some(owner) = claimed.insert(host, &site.id) {
                return Err(WriteError::HostnameTaken { host: host.clone(), site: owner.clone() });
            }
        }
    }
    Ok(())
}

/// Returns the changes of a batch, without its audit entry and its events.
async fn plan(
    table: &DynamoTable,
    call: &CallContext,
    batch: &WriteBatch,
) -> Result<Vec<Planned>, StoreError> {
    let now = table.clock.wall();
    let id = call.write;
    let mut planned = Vec::new();
    for (at, write) in batch.writes.iter().enumerate() {
        match write {
            Mutation::CreateSite(site) => planned.extend(put::create_site(at, site, id)?),
            Mutation::Site(site) => planned.push(put::site(at, site, id)?),
            Mutation::RemoveSite(site, uid, version) => {
                let hostnames = hostnames(table, call, site, *version).await?;
                let expires = seconds(now.after(REMOVAL_RETENTION));
                planned.extend(put::remove_site(at, (site, *uid, *version), hostnames.as_ref(), id, expires));
            }
            Mutation::Service(service) => planned.push(put::service(at, service, id)?),
            Mutation::Fleet(fleet) => planned.push(put::fleet(at, fleet, id)?),
            Mutation::Webhooks(webhooks) => planned.push(put::webhooks(at, webhooks, id)?),
            Mutation::Users(users) => planned.push(put::users(at, users, id)?),
            Mutation::CreateRollout(rollout) => planned.push(put::create_rollout(at, rollout, id)?),
            Mutation::Rollout(rollout) => planned.push(put::rollout(at, rollout, id)?),
            Mutation::RolloutPage(page) => {
                let mut before = batch.writes.iter().take(at);
                let first = !before.any(
                    |other| matches!(other, Mutation::RolloutPage(known) if known.rollout == page.rollout),
                );
                let with = batch.writes.iter().any(|other| match other {
                    Mutation::CreateRollout(rollout) | Mutation::Rollout(rollout) => {
                        rollout.number == page.rollout
                    }
                    _ => false,
                });
                planned.extend(put::page(at, page, with || !first, id)?);
            }
            Mutation::History(operation) => planned.push(put::history(at, operation, id)?),
        }
    }
    if let Some(record) = &batch.idempotency {
        planned.push(idempotency_change(record, now)?);
    }
    Ok(planned)
}

/// Returns the hostnames of a site to remove; `None` if the site is not in the expected version, which its condition
/// then reports.
async fn hostnames(
    table: &DynamoTable,
    call: &CallContext,
    id: &SiteId,
    version: u64,
) -> Result<Option<Hostnames>, StoreError> {
    let item = table.get(&Key::site(id), call.deadline).await?;
    let site = item.as_ref().map(site::from_item).transpose()?;
    Ok(site.filter(|site| site.version == version).map(|site| site.hostnames))
}

/// Returns the change that stores a request's idempotency key, unless the key was used within the retention period of
/// keys.
fn idempotency_change(record: &IdempotencyRecord, now: Timestamp) -> Result<Planned, StoreError> {
    let key = Key::idempotency(record.actor.as_str(), record.key.as_str());
    let mut item = key.item();
    set(&mut item, "document", document(record)?);
    set(&mut item, "at", number(record.at.millis()));
    set(&mut item, "expires", seconds(record.at.after(KEY_RETENTION)));
    let long_ago = now.millis().saturating_sub(u64::try_from(KEY_RETENTION.as_millis()).unwrap_or(u64::MAX));
    let change =
        Change::put(item).when(format!("{ABSENT} OR #at <= :longAgo")).with(":longAgo", number(long_ago));
    Ok(Planned { what: Purpose::Key, key, change })
}

/// Determines why a batch was rejected. Of several failed conditions, the one of the idempotency key comes first, then
/// the first one of a record.
async fn rejection_cause(
    table: &DynamoTable,
    call: &CallContext,
    batch: &WriteBatch,
    planned: &[Planned],
    unmet: &[ChangeOutcome],
) -> Result<Rejection, StoreError> {
    let unmet: Vec<(&Planned, Option<&Item>)> = planned
        .iter()
        .zip(unmet)
        .filter_map(|(planned, unmet)| match unmet {
            ChangeOutcome::Passed => None,
            ChangeOutcome::ConditionFailed(item) => Some((planned, item.as_ref())),
        })
        .collect();
    if let Some(first) = batch.writes.first()
        && is_written(table, call, &key_of_write_id(first), &unmet).await?
    {
        return Ok(Rejection::AlreadyWritten);
    }
    if unmet.iter().any(|(planned, _)| matches!(planned.what, Purpose::Key)) {
        return Ok(Rejection::Rejected(WriteError::KeyUsed));
    }
    for (planned, item) in unmet {
        let refused = match &planned.what {
            Purpose::Record(at) => match batch.writes.get(*at) {
                Some(write) => record_error(write, item),
                None => continue,
            },
            Purpose::Host(at, host) => match owner(table, call, planned, item).await? {
                Some(site) => WriteError::HostnameTaken { host: host.clone(), site },
                // The hostname was released in the meantime; a retry decides.
                None => WriteError::Conflict(batch.writes.get(*at).map(name).unwrap_or_default()),
            },
            Purpose::Key | Purpose::Feed => continue,
        };
        return Ok(Rejection::Rejected(refused));
    }
    Ok(Rejection::PositionClosed)
}

/// Returns whether the batch's first record was last written by this very write.
async fn is_written(
    table: &DynamoTable,
    call: &CallContext,
    first: &Key,
    unmet: &[(&Planned, Option<&Item>)],
) -> Result<bool, StoreError> {
    let failed = unmet.iter().find(|(planned, item)| planned.key == *first && item.is_some());
    if let Some((_, Some(item))) = failed {
        return Ok(ItemReader(item).is_last_written_by(call.write));
    }
    let item = table.get(first, call.deadline).await?;
    Ok(item.is_some_and(|item| ItemReader(&item).is_last_written_by(call.write)))
}

/// Returns the key of the item that stores which write last changed a record.
fn key_of_write_id(write: &Mutation) -> Key {
    match write {
        Mutation::CreateSite(site) | Mutation::Site(site) => Key::site(&site.id),
        Mutation::RemoveSite(id, ..) => Key::removal(id),
        Mutation::Service(service) => Key::service(service.color),
        Mutation::Fleet(_) => Key::fleet(),
        Mutation::Webhooks(_) => Key::webhooks(),
        Mutation::Users(_) => Key::users(),
        Mutation::CreateRollout(rollout) | Mutation::Rollout(rollout) => Key::rollout(rollout.number),
        Mutation::RolloutPage(page) => Key::page(page.rollout, page.page),
        Mutation::History(operation) => Key::history(&operation.id),
    }
}

fn record_error(write: &Mutation, item: Option<&Item>) -> WriteError {
    if let (Mutation::Site(new), Some(item)) = (write, item)
        && let Ok(old) = site::from_item(item)
        && (old.version, old.uid) == (new.version, new.uid)
    {
        let message = "the hostnames of a site cannot be changed after its creation";
        return WriteError::Store(StoreError::Denied(message.to_owned()));
    }
    WriteError::Conflict(name(write))
}

async fn owner(
    table: &DynamoTable,
    call: &CallContext,
    planned: &Planned,
    item: Option<&Item>,
) -> Result<Option<SiteId>, StoreError> {
    let read = match item {
        Some(_) => None,
        None => table.get(&planned.key, call.deadline).await?,
    };
    let item = item.or(read.as_ref());
    item.map(|item| ItemReader(item).parsed("site", |text| SiteId::parse(text).ok())).transpose()
}

/// Returns the name of a record, for messages and to detect duplicates in a batch.
fn name(write: &Mutation) -> String {
    match write {
        Mutation::CreateSite(site) | Mutation::Site(site) => Subject::Site(site.id.clone()).to_string(),
        Mutation::RemoveSite(id, ..) => Subject::Site(id.clone()).to_string(),
        Mutation::Service(service) => Subject::Service(service.color).to_string(),
        Mutation::Fleet(_) => Subject::Fleet.to_string(),
        Mutation::Webhooks(_) => "webhooks".to_owned(),
        Mutation::Users(_) => "users".to_owned(),
        Mutation::CreateRollout(rollout) | Mutation::Rollout(rollout) => {
            format!("rollout-{}", rollout.number)
        }
        Mutation::RolloutPage(page) => format!("rollout-{}, page {}", page.rollout, page.page),
        Mutation::History(operation) => operation.id.to_string(),
    }
}
