//! The table: requests to it, each of which ends by its deadline.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};

use super::change::{Change, names};
use super::failure::{Failure, failed};
use super::item::{Item, Key};
use crate::adapters::aws::{Aws, by};
use crate::domain::MonotonicTime;
use crate::ports::{CallContext, Clock, StoreError};

/// How long events are kept where nothing else is said.
const EVENTS_KEPT: Duration = Duration::from_hours(7 * 24);
/// How long a read may take.
const READ: Duration = Duration::from_secs(10);
/// How many items one request reads by their keys.
const MANY: usize = 100;
/// How many changes a transaction has at most.
const MOST: usize = 100;
/// How often a write is tried that meets another one at the same item.
const TRIES: u32 = 5;

/// One table of an account; clones share its client.
#[derive(Clone)]
pub struct DynamoTable {
    pub(super) client: Client,
    pub(super) name: Arc<str>,
    pub(super) clock: Arc<dyn Clock>,
    /// How long events are kept; `None`: for good.
    pub(super) events_kept: Option<Duration>,
}

impl fmt::Debug for DynamoTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoTable").field("name", &self.name).finish_non_exhaustive()
    }
}

impl DynamoTable {
    /// The table of that name. Does not connect.
    pub fn new(aws: &Aws, name: &str, clock: Arc<dyn Clock>) -> Self {
        let events_kept = Some(EVENTS_KEPT);
        Self { client: Client::new(aws.config()), name: name.into(), clock, events_kept }
    }

    /// The same, whose events of now on are kept for that long (7 days without this); `None`: for good.
    #[must_use]
    pub fn keeping_events(self, kept: Option<Duration>) -> Self {
        Self { events_kept: kept, ..self }
    }

    /// Until when a read that begins now may take.
    pub(super) fn soon(&self) -> MonotonicTime {
        self.clock.monotonic().after(READ)
    }

    /// What `work` comes to by the deadline.
    pub(super) async fn within<T>(
        &self,
        deadline: MonotonicTime,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        if self.clock.monotonic() >= deadline {
            return Err(Failure::late(false));
        }
        by(&*self.clock, deadline, work).await.unwrap_or_else(|| Err(Failure::late(true)))
    }

    /// The item of a key, as every write that was applied before has left it.
    pub(super) async fn get(&self, key: &Key, deadline: MonotonicTime) -> Result<Option<Item>, StoreError> {
        let request =
            self.client.get_item().table_name(&*self.name).set_key(Some(key.item())).consistent_read(true);
        let got = async { request.send().await.map_err(failed) };
        Ok(self.within(deadline, got).await.map_err(Failure::into_error)?.item)
    }

    /// The items of these keys as far as there are such, each as every write that was applied before has left it.
    pub(super) async fn get_many(&self, keys: &[Key]) -> Result<HashMap<Key, Item>, StoreError> {
        let mut found = HashMap::new();
        for some in keys.chunks(MANY) {
            let mut asked: Vec<Item> = some.iter().map(Key::item).collect();
            while !asked.is_empty() {
                let wanted = KeysAndAttributes::builder().set_keys(Some(asked)).consistent_read(true).build();
                let wanted = wanted.map_err(|error| StoreError::Denied(error.to_string()))?;
                let request = self.client.batch_get_item().request_items(&*self.name, wanted);
                let got = async { request.send().await.map_err(failed) };
                let answer = self.within(self.soon(), got).await.map_err(Failure::into_error)?;
                let items = answer.responses.unwrap_or_default().into_values().flatten();
                let before = found.len();
                for item in items {
                    found.insert(Key::of(&item)?, item);
                }
                asked = answer
                    .unprocessed_keys
                    .unwrap_or_default()
                    .into_values()
                    .flat_map(|some| some.keys)
                    .collect();
                if !asked.is_empty() && found.len() == before {
                    return Err(StoreError::Throttled);
                }
            }
        }
        Ok(found)
    }

    /// Makes changes, all or none. What was changed, where it is one update.
    pub(super) async fn write(
        &self,
        call: &CallContext,
        changes: &[Change],
    ) -> Result<Option<Item>, Failure> {
        if changes.len() > MOST {
            let message = "a batch comes to more than 100 items; take fewer hostnames or records at once";
            return Err(StoreError::Denied(message.to_owned()).into());
        }
        let mut tries = 1;
        loop {
            let sent = self.within(call.deadline, self.send(changes)).await;
            if !matches!(sent, Err(Failure::Busy)) || tries == TRIES {
                return sent;
            }
            // Whoever met each other are apart the next time.
            let spread = call.write.0 % 16;
            let pause = Duration::from_millis((10 << tries) + spread);
            self.clock.sleep_until(self.clock.monotonic().after(pause)).await;
            tries += 1;
        }
    }

    async fn send(&self, changes: &[Change]) -> Result<Option<Item>, Failure> {
        if let [one] = changes {
            return one.clone().send(&self.client, &self.name).await;
        }
        let parts = changes.iter().map(|change| change.clone().part(&self.name));
        let parts =
            parts.collect::<Result<Vec<_>, _>>().map_err(|error| StoreError::Denied(error.to_string()))?;
        self.client.transact_write_items().set_transact_items(Some(parts)).send().await.map_err(failed)?;
        Ok(None)
    }

    /// Reads a stretch of the table or of an index, page by page.
    pub(super) const fn ask(&self, ask: Ask) -> Pages<'_> {
        Pages { table: self, ask, start: None, over: false }
    }
}

/// A stretch of items that have one partition key.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    /// An index, which may lag; the table itself does not.
    pub(super) index: Option<&'static str>,
    /// Which items: partition key and stretch.
    pub(super) keys: &'static str,
    pub(super) values: Vec<(&'static str, AttributeValue)>,
    pub(super) backwards: bool,
    /// How many a page has at most.
    pub(super) limit: usize,
}

/// The pages of a stretch.
pub(super) struct Pages<'a> {
    table: &'a DynamoTable,
    ask: Ask,
    start: Option<Item>,
    over: bool,
}

impl Pages<'_> {
    /// Whether the last page was read.
    pub(super) const fn over(&self) -> bool {
        self.over
    }

    /// The next page; it may be empty and not the last.
    pub(super) async fn next(&mut self) -> Result<Vec<Item>, StoreError> {
        let (table, ask) = (self.table, &self.ask);
        let values = ask.values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let request =
            table.client.query().table_name(&*table.name).set_index_name(ask.index.map(ToOwned::to_owned));
        let request =
            request.key_condition_expression(ask.keys).set_expression_attribute_names(names([ask.keys]));
        let request =
            request.set_expression_attribute_values(Some(values)).scan_index_forward(!ask.backwards);
        let request =
            request.limit(i32::try_from(ask.limit).unwrap_or(i32::MAX)).consistent_read(ask.index.is_none());
        let request = request.set_exclusive_start_key(self.start.take());
        let asked = async { request.send().await.map_err(failed) };
        let answer = table.within(table.soon(), asked).await.map_err(Failure::into_error)?;
        self.over = answer.last_evaluated_key.is_none();
        self.start = answer.last_evaluated_key;
        Ok(answer.items.unwrap_or_default())
    }

    /// All of it.
    pub(super) async fn all(mut self) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::new();
        while !self.over {
            items.extend(self.next().await?);
        }
        Ok(items)
    }
}
