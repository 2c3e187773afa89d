//! Items: the key of each kind of item, and reading and writing their attributes.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::adapters::records::{self, Record};
use crate::domain::operation::OperationParent;
use crate::domain::{
    Color, Hostname, OperationId, OperationState, SiteId, Status, Subject, Timestamp, TokenHash,
};
use crate::ports::{StoreError, WriteId};

pub(super) type Item = HashMap<String, AttributeValue>;
type Result<T> = std::result::Result<T, StoreError>;

/// The number of shards of an index key that many items share, so that no partition of the index exceeds its
/// throughput.
pub(super) const SHARDS: u64 = 4;

/// The key of an item: partition key and sort key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) pk: String,
    pub(super) sk: String,
}

impl Key {
    fn new(pk: impl Into<String>, sk: impl Into<String>) -> Self {
        Self { pk: pk.into(), sk: sk.into() }
    }

    pub(super) fn site(id: &SiteId) -> Self {
        Self::new(format!("S#{id}"), "SITE")
    }

    /// Returns the marker that stores which write removed the last site with this ID.
    pub(super) fn removal(id: &SiteId) -> Self {
        Self::new(format!("S#{id}"), "GONE")
    }

    pub(super) fn host(host: &Hostname) -> Self {
        Self::new(format!("H#{host}"), "HOST")
    }

    pub(super) fn service(color: Color) -> Self {
        Self::new(format!("C#{color}"), "SVC")
    }

    pub(super) fn fleet() -> Self {
        Self::new("F", "FLEET")
    }

    pub(super) fn webhooks() -> Self {
        Self::new("F", "WEBHOOKS")
    }

    pub(super) fn users() -> Self {
        Self::new("F", "USERS")
    }

    pub(super) fn subject(subject: &Subject) -> Self {
        match subject {
            Subject::Site(id) => Self::site(id),
            Subject::Service(color) => Self::service(*color),
            Subject::Fleet => Self::fleet(),
        }
    }

    /// Returns the counter of the numbers that the platform allocates.
    pub(super) fn numbers() -> Self {
        Self::new("F", "SEQ")
    }

    /// Returns the counters of audit entries and of the event feed.
    pub(super) fn trail() -> Self {
        Self::new("F", "TRAIL")
    }

    pub(super) fn rollout(number: u64) -> Self {
        Self::new("R", padded(number))
    }

    pub(super) fn page(rollout: u64, page: u32) -> Self {
        Self::new(format!("R#{rollout}"), format!("P#{page:010}"))
    }

    pub(super) fn history(id: &OperationId) -> Self {
        let pk = match &id.parent {
            OperationParent::Subject(subject) => Self::subject(subject).pk,
            OperationParent::Rollout(rollout, _) => format!("R#{rollout}"),
        };
        Self::new(pk, history_sk(id.number))
    }

    pub(super) fn worker(worker: &str) -> Self {
        Self::new("W", worker)
    }

    /// Returns the response to a request with this idempotency key. Actor and key come from clients; as two attributes,
    /// neither can be mistaken for a part of the other.
    pub(super) fn idempotency(actor: &str, key: &str) -> Self {
        Self::new(format!("I#{actor}"), key)
    }

    pub(super) fn audit(number: u64) -> Self {
        Self::new("A", padded(number))
    }

    pub(super) fn event(position: u64) -> Self {
        Self::new("E", padded(position))
    }

    pub(super) fn token(hash: &TokenHash) -> Self {
        Self::new(format!("T#{}", hex::encode(hash.0)), "TOKEN")
    }

    /// Returns the item that maps a token's ID to its record.
    pub(super) fn token_id(id: &str) -> Self {
        Self::new("T", id)
    }

    /// Returns the item that reserves a token's name forever.
    pub(super) fn token_name(name: &str) -> Self {
        Self::new(format!("N#{name}"), "TOKEN")
    }

    /// Returns a new item with this key and no other attributes.
    pub(super) fn item(&self) -> Item {
        Item::from([("pk".to_owned(), text(&*self.pk)), ("sk".to_owned(), text(&*self.sk))])
    }

    pub(super) fn of(item: &Item) -> Result<Self> {
        let read = ItemReader(item);
        Ok(Self::new(read.text("pk")?, read.text("sk")?))
    }
}

/// Returns a number as a sort key in numeric order.
pub(super) fn padded(number: u64) -> String {
    format!("{number:020}")
}

/// Returns the sort key of a finished operation, in the partition of its parent.
pub(super) fn history_sk(number: u64) -> String {
    format!("OP#{}", padded(number))
}

pub(super) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub(super) fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// Returns a time in seconds, as DynamoDB's time to live expects it.
pub(super) fn seconds(at: Timestamp) -> AttributeValue {
    number(at.millis() / 1_000)
}

pub(super) fn written_by(write: WriteId) -> AttributeValue {
    number(write.0)
}

pub(super) fn document<T: Record>(record: &T) -> Result<AttributeValue> {
    Ok(text(records::encode(record)?))
}

pub(super) fn put(item: &mut Item, name: &str, value: AttributeValue) {
    item.insert(name.to_owned(), value);
}

/// Adds a record's operation to the work index, unless the operation is a member of a rollout.
pub(super) fn list_work(item: &mut Item, operation: Option<&OperationState>) {
    let Some(operation) = operation.filter(|operation| operation.member.is_none()) else { return };
    let work = if operation.status.is_settled() {
        "parked".to_owned()
    } else {
        pending_shard(operation.number % SHARDS)
    };
    put(item, "work", text(work));
    put(item, "number", number(operation.number));
    put(item, "opKind", text(operation.input.kind().as_str()));
    put(item, "opStatus", text(operation.status.as_str()));
    put(item, "opAsked", AttributeValue::Bool(operation.cancel));
    if let Some(owner) = &operation.owner {
        put(item, "opOwner", text(owner.as_str()));
    }
    if let Some(next_poll_at) = operation.next_poll_at.filter(|_| operation.status == Status::Waiting) {
        put(item, "opWake", number(next_poll_at.millis()));
    }
}

/// Returns the work index's key for one shard of pending work.
pub(super) fn pending_shard(shard: u64) -> String {
    format!("live#{shard}")
}

/// Returns the shard of the list of sites that a site belongs to. The shard never changes, because it depends only on
/// the ID.
pub(super) fn site_list(id: &SiteId) -> String {
    let sum =
        id.as_str().bytes().fold(0, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    site_shard(sum % SHARDS)
}

pub(super) fn site_shard(shard: u64) -> String {
    format!("site#{shard}")
}

/// Reads attributes. An attribute that is missing or of another type is an error that names the attribute.
#[derive(Clone, Copy)]
pub(super) struct ItemReader<'a>(pub(super) &'a Item);

impl<'a> ItemReader<'a> {
    pub(super) fn text(self, name: &str) -> Result<&'a str> {
        self.text_if(name).ok_or_else(|| self.invalid_attribute(name))
    }

    pub(super) fn text_if(self, name: &str) -> Option<&'a str> {
        self.0.get(name)?.as_s().ok().map(String::as_str)
    }

    pub(super) fn number(self, name: &str) -> Result<u64> {
        self.number_if(name).ok_or_else(|| self.invalid_attribute(name))
    }

    pub(super) fn number_if(self, name: &str) -> Option<u64> {
        self.0.get(name)?.as_n().ok()?.parse().ok()
    }

    pub(super) fn flag(self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| value.as_bool().is_ok_and(|truth| *truth))
    }

    pub(super) fn list(self, name: &str) -> Result<Vec<&'a str>> {
        let list = self
            .0
            .get(name)
            .and_then(|value| value.as_l().ok())
            .ok_or_else(|| self.invalid_attribute(name))?;
        let text = |value: &'a AttributeValue| {
            value.as_s().map(String::as_str).map_err(|_| self.invalid_attribute(name))
        };
        list.iter().map(text).collect()
    }

    pub(super) fn parsed<T>(self, name: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T> {
        parse(self.text(name)?).ok_or_else(|| self.invalid_attribute(name))
    }

    pub(super) fn document<T: Record>(self, name: &str) -> Result<T> {
        records::decode(self.text(name)?)
    }

    pub(super) fn document_if<T: Record>(self, name: &str) -> Result<Option<T>> {
        self.text_if(name).map(records::decode).transpose()
    }

    /// Returns whether this write was the last to change the item.
    pub(super) fn is_last_written_by(self, write: WriteId) -> bool {
        self.number_if("write") == Some(write.0)
    }

    pub(super) fn invalid_attribute(self, name: &str) -> StoreError {
        StoreError::Denied(format!(
            "an item of the table cannot be read: its attribute `{name}` is missing or invalid"
        ))
    }
}
