//! The table: requests to it, each with a deadline.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};

use super::change::{Change, names};
use super::failure::{Failure, failed};
use super::item::{Item, Key};
use crate::adapters::aws::{Aws, before_deadline};
use crate::domain::MonotonicTime;
use crate::ports::{CallContext, Clock, StoreError};

/// Default retention period of events.
const DEFAULT_EVENT_RETENTION: Duration = Duration::from_hours(7 * 24);
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum number of items that one request reads by key.
const MAX_KEYS: usize = 100;
/// The maximum number of changes in a transaction.
const MAX_CHANGES: usize = 100;
/// How often a write is attempted while concurrent writes change the same item.
const MAX_ATTEMPTS: u32 = 5;

/// A table in an AWS account. Clones share the client.
#[derive(Clone)]
pub struct DynamoTable {
    pub(super) client: Client,
    pub(super) name: Arc<str>,
    pub(super) clock: Arc<dyn Clock>,
    /// Retention period of events; `None` stores events forever.
    pub(super) event_retention: Option<Duration>,
}

impl fmt::Debug for DynamoTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoTable").field("name", &self.name).finish_non_exhaustive()
    }
}

impl DynamoTable {
    /// Creates a handle to the table with this name. Does not connect.
    pub fn new(aws: &Aws, name: &str, clock: Arc<dyn Clock>) -> Self {
        let event_retention = Some(DEFAULT_EVENT_RETENTION);
        Self { client: Client::new(aws.config()), name: name.into(), clock, event_retention }
    }

    /// Sets the retention period of events that are written from now on (default: 7 days); `None` stores events
    /// forever.
    #[must_use]
    pub fn keeping_events(self, retention: Option<Duration>) -> Self {
        Self { event_retention: retention, ..self }
    }

    /// Returns the deadline of a read that starts now.
    pub(super) fn read_deadline(&self) -> MonotonicTime {
        self.clock.monotonic().after(READ_TIMEOUT)
    }

    /// Returns the result of `work`, or a failure if the deadline passes first.
    pub(super) async fn within<T>(
        &self,
        deadline: MonotonicTime,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        if self.clock.monotonic() >= deadline {
            return Err(Failure::late(false));
        }
        before_deadline(&*self.clock, deadline, work).await.unwrap_or_else(|| Err(Failure::late(true)))
    }

    /// Reads an item by key with strong consistency.
    pub(super) async fn get(&self, key: &Key, deadline: MonotonicTime) -> Result<Option<Item>, StoreError> {
        let request =
            self.client.get_item().table_name(&*self.name).set_key(Some(key.item())).consistent_read(true);
        let work = async { request.send().await.map_err(failed) };
        Ok(self.within(deadline, work).await.map_err(Failure::into_error)?.item)
    }

    /// Reads the items with these keys that exist, with strong consistency.
    pub(super) async fn get_many(&self, keys: &[Key]) -> Result<HashMap<Key, Item>, StoreError> {
        let mut found = HashMap::new();
        for chunk in keys.chunks(MAX_KEYS) {
            let mut remaining: Vec<Item> = chunk.iter().map(Key::item).collect();
            while !remaining.is_empty() {
                let wanted =
                    KeysAndAttributes::builder().set_keys(Some(remaining)).consistent_read(true).build();
                let wanted = wanted.map_err(|error| StoreError::Denied(error.to_string()))?;
                let request = self.client.batch_get_item().request_items(&*self.name, wanted);
                let work = async { request.send().await.map_err(failed) };
                let output = self.within(self.read_deadline(), work).await.map_err(Failure::into_error)?;
                let items = output.responses.unwrap_or_default().into_values().flatten();
                let before = found.len();
                for item in items {
                    found.insert(Key::of(&item)?, item);
                }
                remaining = output
                    .unprocessed_keys
                    .unwrap_or_default()
                    .into_values()
                    .flat_map(|chunk| chunk.keys)
                    .collect();
                if !remaining.is_empty() && found.len() == before {
                    return Err(StoreError::Throttled);
                }
            }
        }
        Ok(found)
    }

    /// Applies all changes or none. Returns the new item if the only change is an update.
    pub(super) async fn write(
        &self,
        call: &CallContext,
        changes: &[Change],
    ) -> Result<Option<Item>, Failure> {
        if changes.len() > MAX_CHANGES {
            let message =
                "a batch changes more than 100 items; use fewer hostnames or records in one request";
            return Err(StoreError::Denied(message.to_owned()).into());
        }
        let mut attempts = 1;
        loop {
            let sent = self.within(call.deadline, self.send(changes)).await;
            if !matches!(sent, Err(Failure::Conflict)) || attempts == MAX_ATTEMPTS {
                return sent;
            }
            // The pauses of writes that conflicted differ.
            let spread = call.write.0 % 16;
            let pause = Duration::from_millis((10 << attempts) + spread);
            self.clock.sleep_until(self.clock.monotonic().after(pause)).await;
            attempts += 1;
        }
    }

    async fn send(&self, changes: &[Change]) -> Result<Option<Item>, Failure> {
        if let [change] = changes {
            return change.clone().send(&self.client, &self.name).await;
        }
        let parts = changes.iter().map(|change| change.clone().part(&self.name));
        let parts =
            parts.collect::<Result<Vec<_>, _>>().map_err(|error| StoreError::Denied(error.to_string()))?;
        self.client.transact_write_items().set_transact_items(Some(parts)).send().await.map_err(failed)?;
        Ok(None)
    }

    /// Queries a range of the table or of an index, page by page.
    pub(super) const fn pages(&self, range: KeyRange) -> Pages<'_> {
        Pages { table: self, range, start: None, done: false }
    }
}

/// A range of items with the same partition key.
#[derive(Clone, Debug)]
pub(super) struct KeyRange {
    /// The index to query; `None` for the table. An index may lag behind the table.
    pub(super) index: Option<&'static str>,
    /// The key condition: the partition key and the range of sort keys.
    pub(super) keys: &'static str,
    pub(super) values: Vec<(&'static str, AttributeValue)>,
    pub(super) backwards: bool,
    /// Maximum number of items per page.
    pub(super) limit: usize,
}

/// The pages of a range.
pub(super) struct Pages<'a> {
    table: &'a DynamoTable,
    range: KeyRange,
    start: Option<Item>,
    done: bool,
}

impl Pages<'_> {
    pub(super) const fn is_done(&self) -> bool {
        self.done
    }

    /// Reads the next page. A page may be empty without being the last.
    pub(super) async fn next(&mut self) -> Result<Vec<Item>, StoreError> {
        let (table, range) = (self.table, &self.range);
        let values = range.values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let request =
            table.client.query().table_name(&*table.name).set_index_name(range.index.map(ToOwned::to_owned));
        let request =
            request.key_condition_expression(range.keys).set_expression_attribute_names(names([range.keys]));
        let request =
            request.set_expression_attribute_values(Some(values)).scan_index_forward(!range.backwards);
        let request = request
            .limit(i32::try_from(range.limit).unwrap_or(i32::MAX))
            .consistent_read(range.index.is_none());
        let request = request.set_exclusive_start_key(self.start.take());
        let work = async { request.send().await.map_err(failed) };
        let output = table.within(table.read_deadline(), work).await.map_err(Failure::into_error)?;
        self.done = output.last_evaluated_key.is_none();
        self.start = output.last_evaluated_key;
        Ok(output.items.unwrap_or_default())
    }

    /// Reads the pages one after the other, and returns their items together.
    pub(super) async fn all(mut self) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::new();
        while !self.done {
            items.extend(self.next().await?);
        }
        Ok(items)
    }
}
