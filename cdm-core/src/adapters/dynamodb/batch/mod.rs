//! A batch: one request where it is one record, else one transaction; and what it means when it is refused.

mod put;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::change::{ABSENT, Change};
use super::failure::{Failure, Unmet};
use super::feed::FeedWriter;
use super::item::{Item, Key, Read, document, number, put as set};
use super::table::DynamoTable;
use super::{KEPT, site};
use crate::domain::{Hostname, Hostnames, SiteId, Subject, Timestamp};
use crate::ports::{CallContext, IdempotencyRecord, Mutation, Outcome, StoreError, WriteBatch, WriteError};

/// How many records a batch has at most.
const MOST: usize = 90;
/// How often a place in the feed is taken anew after a reader has closed it.
const TRIES: usize = 4;
/// How long the table remembers who removed a site.
const REMEMBERED: Duration = Duration::from_hours(7 * 24);

/// What a change is made for, and so what it means when its condition is not met.
#[derive(Clone, Debug)]
enum For {
    /// The batch's record of that place.
    Record(usize),
    /// A hostname of a new site.
    Host(usize, Hostname),
    /// The request's key.
    Key,
    /// An audit entry, or what the feed is told.
    Trail,
}

/// A change of a batch, and where it is made.
#[derive(Clone, Debug)]
struct Planned {
    what: For,
    key: Key,
    change: Change,
}

/// What is to be told of a batch that met something.
enum Met {
    /// It was written before.
    Itself,
    Refusal(WriteError),
    /// A reader of the feed has closed the place that was taken in it.
    ClosedPlace,
}

pub(super) async fn write(
    table: &DynamoTable,
    call: &CallContext,
    batch: &WriteBatch,
) -> Outcome<(), WriteError> {
    if let Err(refused) = sound(&batch.writes) {
        return Outcome::NotApplied(refused);
    }
    let planned = match plan(table, call, batch).await {
        Ok(planned) => planned,
        Err(error) => return Failure::Not(error).refused(),
    };
    let trail = FeedWriter { table, call, audit: batch.audit.as_ref(), events: &batch.events };
    for _ in 0..TRIES {
        let numbers = match trail.draw().await {
            Ok(numbers) => numbers,
            // Of the batch itself nothing was asked for yet.
            Err(failure) => return Outcome::NotApplied(WriteError::Store(failure.into_error())),
        };
        let kept = match trail.changes(numbers) {
            Ok(kept) => kept,
            Err(error) => return Failure::Not(error).refused(),
        };
        let mut all = planned.clone();
        all.extend(kept.into_iter().map(|(key, change)| Planned { what: For::Trail, key, change }));
        if all.is_empty() {
            return Outcome::Applied(());
        }
        let changes: Vec<Change> = all.iter().map(|planned| planned.change.clone()).collect();
        let unmet = match table.write(call, &changes).await {
            Ok(_) => return Outcome::Applied(()),
            Err(Failure::Unmet(item)) => vec![Unmet::Condition(item)],
            Err(Failure::Cancelled(unmet)) => unmet,
            Err(failure @ Failure::Lost(_)) => return failure.refused(),
            Err(failure @ (Failure::Not(_) | Failure::Busy)) => {
                trail.give_up(numbers).await;
                return failure.refused();
            }
        };
        trail.give_up(numbers).await;
        match met(table, call, batch, &all, &unmet).await {
            Ok(Met::Itself) => return Outcome::Applied(()),
            Ok(Met::Refusal(refused)) => return Outcome::NotApplied(refused),
            Ok(Met::ClosedPlace) => {}
            // This request did nothing. Whether one before it did is what could not be read.
            Err(error) => return Outcome::Unknown(WriteError::Store(error)),
        }
    }
    Outcome::NotApplied(WriteError::Store(StoreError::Unavailable(
        "the event feed is read too fast".to_owned(),
    )))
}

/// Refuses what no batch may be, whatever the table holds.
fn sound(writes: &[Mutation]) -> Result<(), WriteError> {
    let mut names = BTreeSet::new();
    if writes.len() > MOST || !writes.iter().all(|write| names.insert(name(write))) {
        let message = "a batch has at most 90 records, and each of them once";
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

/// The changes that a batch comes to, without what is kept of it for people.
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
                let expires = seconds(now.after(REMEMBERED));
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
        planned.push(key_of(record, now)?);
    }
    Ok(planned)
}

/// The hostnames of a site that is to be removed; none where it is not as expected, which its condition will say.
async fn hostnames(
    table: &DynamoTable,
    call: &CallContext,
    id: &SiteId,
    version: u64,
) -> Result<Option<Hostnames>, StoreError> {
    let item = table.get(&Key::site(id), call.deadline).await?;
    let site = item.as_ref().map(site::of_item).transpose()?;
    Ok(site.filter(|site| site.version == version).map(|site| site.hostnames))
}

/// A request's key, if it was not used within the time that keys are kept.
fn key_of(record: &IdempotencyRecord, now: Timestamp) -> Result<Planned, StoreError> {
    let key = Key::idempotency(record.actor.as_str(), record.key.as_str());
    let mut item = key.item();
    set(&mut item, "document", document(record)?);
    set(&mut item, "at", number(record.at.millis()));
    set(&mut item, "expires", seconds(record.at.after(KEPT)));
    let long_ago = now.millis().saturating_sub(u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX));
    let change =
        Change::put(item).when(format!("{ABSENT} OR #at <= :longAgo")).with(":longAgo", number(long_ago));
    Ok(Planned { what: For::Key, key, change })
}

/// A moment as the table's clean-up wants it.
pub(super) fn seconds(at: Timestamp) -> aws_sdk_dynamodb::types::AttributeValue {
    number(at.millis() / 1_000)
}

/// Finds out what a batch met, in the order in which a caller is told of it.
async fn met(
    table: &DynamoTable,
    call: &CallContext,
    batch: &WriteBatch,
    planned: &[Planned],
    unmet: &[Unmet],
) -> Result<Met, StoreError> {
    let unmet: Vec<(&Planned, Option<&Item>)> = planned
        .iter()
        .zip(unmet)
        .filter_map(|(planned, unmet)| match unmet {
            Unmet::Nothing => None,
            Unmet::Condition(item) => Some((planned, item.as_ref())),
        })
        .collect();
    if let Some(first) = batch.writes.first()
        && is_written(table, call, &told_by(first), &unmet).await?
    {
        return Ok(Met::Itself);
    }
    if unmet.iter().any(|(planned, _)| matches!(planned.what, For::Key)) {
        return Ok(Met::Refusal(WriteError::KeyUsed));
    }
    for (planned, item) in unmet {
        let refused = match &planned.what {
            For::Record(at) => match batch.writes.get(*at) {
                Some(write) => of_record(write, item),
                None => continue,
            },
            For::Host(at, host) => match owner(table, call, planned, item).await? {
                Some(site) => WriteError::HostnameTaken { host: host.clone(), site },
                // It was freed since; the next try will tell.
                None => WriteError::Conflict(batch.writes.get(*at).map(name).unwrap_or_default()),
            },
            For::Key | For::Trail => continue,
        };
        return Ok(Met::Refusal(refused));
    }
    Ok(Met::ClosedPlace)
}

/// Whether a batch's first record was last written by this very write.
async fn is_written(
    table: &DynamoTable,
    call: &CallContext,
    first: &Key,
    unmet: &[(&Planned, Option<&Item>)],
) -> Result<bool, StoreError> {
    let told = unmet.iter().find(|(planned, item)| planned.key == *first && item.is_some());
    if let Some((_, Some(item))) = told {
        return Ok(Read(item).is_of(call.write));
    }
    let item = table.get(first, call.deadline).await?;
    Ok(item.is_some_and(|item| Read(&item).is_of(call.write)))
}

/// Where it is kept whose write a record was.
fn told_by(write: &Mutation) -> Key {
    match write {
        Mutation::CreateSite(site) | Mutation::Site(site) => Key::site(&site.id),
        Mutation::RemoveSite(id, ..) => Key::gone(id),
        Mutation::Service(service) => Key::service(service.color),
        Mutation::Fleet(_) => Key::fleet(),
        Mutation::Webhooks(_) => Key::webhooks(),
        Mutation::Users(_) => Key::users(),
        Mutation::CreateRollout(rollout) | Mutation::Rollout(rollout) => Key::rollout(rollout.number),
        Mutation::RolloutPage(page) => Key::page(page.rollout, page.page),
        Mutation::History(operation) => Key::history(&operation.id),
    }
}

fn of_record(write: &Mutation, item: Option<&Item>) -> WriteError {
    if let (Mutation::Site(new), Some(item)) = (write, item)
        && let Ok(old) = site::of_item(item)
        && (old.version, old.uid) == (new.version, new.uid)
    {
        let message = "a site keeps the hostnames that it was created with";
        return WriteError::Store(StoreError::Denied(message.to_owned()));
    }
    WriteError::Conflict(name(write))
}

/// Who has a hostname.
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
    item.map(|item| Read(item).parsed("site", |text| SiteId::parse(text).ok())).transpose()
}

/// The name of a record, for people and for telling it from the others of its batch.
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
