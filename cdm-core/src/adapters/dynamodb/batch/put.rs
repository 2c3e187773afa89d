//! The changes that write one record of a batch, each on the condition that the stored record is the expected one.

use aws_sdk_dynamodb::types::AttributeValue;

use super::{Planned, Purpose};
use crate::adapters::dynamodb::change::{ABSENT, Change};
use crate::adapters::dynamodb::item::{
    Item, Key, SHARDS, document, list_work, number, pending_shard, put, text, written_by,
};
use crate::adapters::dynamodb::site;
use crate::domain::operation::OperationParent;
use crate::domain::rollout::RolloutPage;
use crate::domain::user::Users;
use crate::domain::webhook::Webhooks;
use crate::domain::{
    Fleet, Hostnames, Operation, OperationState, Rollout, RolloutStatus, Service, Site, SiteId, Uid,
};
use crate::ports::{StoreError, WriteId};

type Result<T> = std::result::Result<T, StoreError>;

/// The condition that this write has not changed the item before. Records without a version use it.
const NOT_WRITTEN: &str = "(attribute_not_exists(#write) OR #write <> :write)";

pub(super) fn create_site(index: usize, site: &Site, write: WriteId) -> Result<Vec<Planned>> {
    let item = site::to_item(&Site { version: 1, ..site.clone() }, write)?;
    let mut planned = vec![record(index, Key::site(&site.id), Change::put(item).when(ABSENT))];
    for host in site.hostnames.all() {
        planned.push(Planned {
            what: Purpose::Host(index, host.clone()),
            key: Key::host(host),
            change: Change::put(site::host_item(host, &site.id)).when(ABSENT),
        });
    }
    Ok(planned)
}

pub(super) fn site(index: usize, site: &Site, write: WriteId) -> Result<Planned> {
    let item = site::to_item(&Site { version: site.version + 1, ..site.clone() }, write)?;
    let change = Change::put(item)
        .when("#version = :version AND #uid = :uid AND #hostnames = :hostnames AND #canonicalHostname = :canonical")
        .with(":version", number(site.version))
        .with(":uid", text(site.uid.to_string()))
        .with(":hostnames", site::hostnames(&site.hostnames))
        .with(":canonical", text(site.hostnames.canonical().as_str()));
    Ok(record(index, Key::site(&site.id), change))
}

/// Returns the changes that remove a site: of its item, of its hostnames, and a marker of the write that removed it.
pub(super) fn remove_site(
    index: usize,
    (id, uid, version): (&SiteId, Uid, u64),
    hostnames: Option<&Hostnames>,
    write: WriteId,
    expires: AttributeValue,
) -> Vec<Planned> {
    let key = Key::site(id);
    let change = Change::delete(key.clone())
        .when("#version = :version AND #uid = :uid")
        .with(":version", number(version))
        .with(":uid", text(uid.to_string()));
    let mut planned = vec![record(index, key, change)];
    for host in hostnames.into_iter().flat_map(Hostnames::all) {
        let key = Key::host(host);
        let change = Change::delete(key.clone())
            .when(format!("{ABSENT} OR #site = :site"))
            .with(":site", text(id.as_str()));
        planned.push(record(index, key, change));
    }
    let key = Key::removal(id);
    let mut item = key.item();
    put(&mut item, "write", written_by(write));
    put(&mut item, "expires", expires);
    planned.push(record(index, key, Change::put(item)));
    planned
}

pub(super) fn service(index: usize, service: &Service, write: WriteId) -> Result<Planned> {
    let after = Service { version: service.version + 1, ..service.clone() };
    shared_record(
        index,
        Key::service(service.color),
        (service.version, document(&after)?),
        service.operation.as_ref(),
        write,
    )
}

pub(super) fn fleet(index: usize, fleet: &Fleet, write: WriteId) -> Result<Planned> {
    let after = Fleet { version: fleet.version + 1, ..fleet.clone() };
    shared_record(index, Key::fleet(), (fleet.version, document(&after)?), fleet.operation.as_ref(), write)
}

pub(super) fn webhooks(index: usize, webhooks: &Webhooks, write: WriteId) -> Result<Planned> {
    let after = Webhooks { version: webhooks.version + 1, ..webhooks.clone() };
    shared_record(index, Key::webhooks(), (webhooks.version, document(&after)?), None, write)
}

pub(super) fn users(index: usize, users: &Users, write: WriteId) -> Result<Planned> {
    let after = Users { version: users.version + 1, ..users.clone() };
    shared_record(index, Key::users(), (users.version, document(&after)?), None, write)
}

fn shared_record(
    index: usize,
    key: Key,
    (version, document): (u64, AttributeValue),
    operation: Option<&OperationState>,
    write: WriteId,
) -> Result<Planned> {
    let mut item = versioned(&key, version + 1, document, write);
    list_work(&mut item, operation);
    let change = match version {
        0 => Change::put(item).when(ABSENT),
        _ => Change::put(item).when("#version = :version").with(":version", number(version)),
    };
    Ok(record(index, key, change))
}

pub(super) fn create_rollout(index: usize, rollout: &Rollout, write: WriteId) -> Result<Planned> {
    let item = rollout_item(&Rollout { version: 1, ..rollout.clone() }, write)?;
    Ok(record(index, Key::rollout(rollout.number), Change::put(item).when(ABSENT)))
}

pub(super) fn rollout(index: usize, rollout: &Rollout, write: WriteId) -> Result<Planned> {
    let item = rollout_item(&Rollout { version: rollout.version + 1, ..rollout.clone() }, write)?;
    let change = Change::put(item).when("#version = :version").with(":version", number(rollout.version));
    Ok(record(index, Key::rollout(rollout.number), change))
}

fn rollout_item(rollout: &Rollout, write: WriteId) -> Result<Item> {
    let mut item = versioned(&Key::rollout(rollout.number), rollout.version, document(rollout)?, write);
    if rollout.status.runnable() || rollout.control.is_some() {
        put(&mut item, "work", text(pending_shard(rollout.number % SHARDS)));
        put(&mut item, "number", number(rollout.number));
        put(&mut item, "opAsked", AttributeValue::Bool(rollout.control.is_some()));
        if let Some(owner) = &rollout.owner {
            put(&mut item, "opOwner", text(owner.as_str()));
        }
        if let Some(next_poll_at) = rollout.next_poll_at.filter(|_| rollout.status == RolloutStatus::Waiting)
        {
            put(&mut item, "opWake", number(next_poll_at.millis()));
        }
    }
    Ok(item)
}

fn versioned(key: &Key, version: u64, document: AttributeValue, write: WriteId) -> Item {
    let mut item = key.item();
    put(&mut item, "version", number(version));
    put(&mut item, "document", document);
    put(&mut item, "write", written_by(write));
    item
}

/// Returns the change that writes a page of a rollout. A page that is written without its rollout requires that the
/// rollout does not exist yet.
pub(super) fn page(
    index: usize,
    page: &RolloutPage,
    with_rollout: bool,
    write: WriteId,
) -> Result<Vec<Planned>> {
    let key = Key::page(page.rollout, page.page);
    let mut item = key.item();
    put(&mut item, "document", document(page)?);
    put(&mut item, "write", written_by(write));
    let change = unless_repeated(index, Change::put(item), write);
    let mut planned = vec![record(index, key, change)];
    if !with_rollout {
        let key = Key::rollout(page.rollout);
        planned.push(record(index, key.clone(), Change::check(key).when(ABSENT)));
    }
    Ok(planned)
}

/// Returns the change that writes a finished operation. A finished operation is written once and never changes.
pub(super) fn history(index: usize, operation: &Operation, write: WriteId) -> Result<Planned> {
    let key = Key::history(&operation.id);
    let mut values = vec![("document", document(operation)?), ("write", written_by(write))];
    if matches!(operation.id.parent, OperationParent::Subject(_)) {
        values.push(("work", text("ended")));
        values.push(("number", number(operation.id.number)));
        values.push(("opKind", text(operation.state.input.kind().as_str())));
        values.push(("opStatus", text(operation.state.status.as_str())));
    }
    let sets = values.iter().map(|(name, _)| format!("#{name} = if_not_exists(#{name}, :{name})"));
    let change = Change::update(key.clone(), format!("SET {}", sets.collect::<Vec<_>>().join(", ")));
    let change =
        values.into_iter().fold(change, |change, (name, value)| change.with(&format!(":{name}"), value));
    Ok(record(index, key, unless_repeated(index, change, write)))
}

/// The first record of a batch detects a repeated write; a record without a version detects it by the stored write ID.
fn unless_repeated(index: usize, change: Change, write: WriteId) -> Change {
    if index > 0 { change } else { change.when(NOT_WRITTEN).with(":write", written_by(write)) }
}

fn record(index: usize, key: Key, change: Change) -> Planned {
    Planned { what: Purpose::Record(index), key, change }
}
