//! Items: where each kind lies in the table, and reading and writing their attributes.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::adapters::records::{self, Record};
use crate::domain::operation::OperationParent;
use crate::domain::{Color, Hostname, OperationId, OperationState, SiteId, Status, Subject, TokenHash};
use crate::ports::{StoreError, WriteId};

pub(super) type Item = HashMap<String, AttributeValue>;
type Result<T> = std::result::Result<T, StoreError>;

/// How many parts an index's busy key is cut into, so that no part of an index is asked for more than it gives.
pub(super) const SHARDS: u64 = 4;

/// Where an item lies: partition and sort key.
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

    /// What remembers who removed the last site of that id.
    pub(super) fn gone(id: &SiteId) -> Self {
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

    /// The counter of the platform's numbers.
    pub(super) fn numbers() -> Self {
        Self::new("F", "SEQ")
    }

    /// The counters of audit entries and of the event feed.
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

    /// The answer that a caller's key was given. Both come from outside; apart, neither can pass for part of the other.
    pub(super) fn idempotency(actor: &str, key: &str) -> Self {
        Self::new(format!("I#{actor}"), key)
    }

    pub(super) fn audit(number: u64) -> Self {
        Self::new("A", padded(number))
    }

    pub(super) fn event(place: u64) -> Self {
        Self::new("E", padded(place))
    }

    pub(super) fn token(hash: &TokenHash) -> Self {
        let hex: String = hash.0.iter().map(|byte| format!("{byte:02x}")).collect();
        Self::new(format!("T#{hex}"), "TOKEN")
    }

    /// Where a token's record is found by its id.
    pub(super) fn token_of(id: &str) -> Self {
        Self::new("T", id)
    }

    /// What keeps a token's name from being given again.
    pub(super) fn token_name(name: &str) -> Self {
        Self::new(format!("N#{name}"), "TOKEN")
    }

    /// An item that lies here and has nothing yet.
    pub(super) fn item(&self) -> Item {
        Item::from([("pk".to_owned(), text(&*self.pk)), ("sk".to_owned(), text(&*self.sk))])
    }

    /// Where an item lies.
    pub(super) fn of(item: &Item) -> Result<Self> {
        let read = Read(item);
        Ok(Self::new(read.text("pk")?, read.text("sk")?))
    }
}

/// A number as a sort key that sorts like it.
pub(super) fn padded(number: u64) -> String {
    format!("{number:020}")
}

/// The sort key of an ended operation in its home.
pub(super) fn history_sk(number: u64) -> String {
    format!("OP#{}", padded(number))
}

pub(super) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub(super) fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
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

/// Lists a record's own operation in the index of work, unless it is a rollout's member.
pub(super) fn list_work(item: &mut Item, operation: Option<&OperationState>) {
    let Some(operation) = operation.filter(|operation| operation.member.is_none()) else { return };
    let work = if operation.status.rests() { "parked".to_owned() } else { live(operation.number % SHARDS) };
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

/// A part of what a worker may have to do something for.
pub(super) fn live(shard: u64) -> String {
    format!("live#{shard}")
}

/// Which part of the list of sites one is in; for good, since it depends on nothing but its id.
pub(super) fn site_list(id: &SiteId) -> String {
    let sum =
        id.as_str().bytes().fold(0, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    site_shard(sum % SHARDS)
}

pub(super) fn site_shard(shard: u64) -> String {
    format!("site#{shard}")
}

/// Reads attributes; one that is missing or of another type is an error that names it.
#[derive(Clone, Copy)]
pub(super) struct Read<'a>(pub(super) &'a Item);

impl<'a> Read<'a> {
    pub(super) fn text(self, name: &str) -> Result<&'a str> {
        self.text_if(name).ok_or_else(|| self.broken(name))
    }

    pub(super) fn text_if(self, name: &str) -> Option<&'a str> {
        self.0.get(name)?.as_s().ok().map(String::as_str)
    }

    pub(super) fn number(self, name: &str) -> Result<u64> {
        self.number_if(name).ok_or_else(|| self.broken(name))
    }

    pub(super) fn number_if(self, name: &str) -> Option<u64> {
        self.0.get(name)?.as_n().ok()?.parse().ok()
    }

    pub(super) fn truth(self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| value.as_bool().is_ok_and(|truth| *truth))
    }

    pub(super) fn list(self, name: &str) -> Result<Vec<&'a str>> {
        let list = self.0.get(name).and_then(|value| value.as_l().ok()).ok_or_else(|| self.broken(name))?;
        let text =
            |value: &'a AttributeValue| value.as_s().map(String::as_str).map_err(|_| self.broken(name));
        list.iter().map(text).collect()
    }

    pub(super) fn parsed<T>(self, name: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T> {
        parse(self.text(name)?).ok_or_else(|| self.broken(name))
    }

    pub(super) fn document<T: Record>(self, name: &str) -> Result<T> {
        records::decode(self.text(name)?)
    }

    pub(super) fn document_if<T: Record>(self, name: &str) -> Result<Option<T>> {
        self.text_if(name).map(records::decode).transpose()
    }

    /// Whether its last writer was this one.
    pub(super) fn is_of(self, write: WriteId) -> bool {
        self.number_if("write") == Some(write.0)
    }

    pub(super) fn broken(self, name: &str) -> StoreError {
        StoreError::Denied(format!(
            "an item of the table cannot be read: its attribute `{name}` is not as it shall be"
        ))
    }
}
