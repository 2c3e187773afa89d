//! What a batch stores for people: its audit entry, and its events, which are read as one feed.
//!
//! A batch with events allocates a *position* in the feed, and writes its events there in the same transaction as its
//! records. Positions are allocated in order but filled in any order, so a reader stops at the first position that is
//! neither filled nor *closed*. An empty position is closed by its writer, when the writer gives it up, or by a reader
//! after a wait; the writer of a closed position then allocates another one. So a reader skips no event, whether the
//! clocks of the processes agree or not.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;

use super::change::{ABSENT, Change};
use super::failure::Failure;
use super::item::{Item, ItemReader, Key, document, number, padded, put, seconds, text};
use super::table::{DynamoTable, KeyRange};
use crate::adapters::records;
use crate::domain::{AuditEntry, Fence, Timestamp};
use crate::ports::{CallContext, FeedEvent, Old, Outcome, Page, StoreError, WriteError, WriteId};

/// How many event numbers belong to a position, which is the maximum number of events in a batch.
const NUMBERS_PER_POSITION: u64 = 1_000;
/// How long a reader waits for a position to be filled before it closes the position.
const FILL_TIMEOUT: Duration = Duration::from_secs(2);
/// The age at which an empty position can no longer be filled: DynamoDB rejects a request whose signature is that old.
const MAX_REQUEST_AGE: Duration = Duration::from_hours(1);
/// The maximum number of positions at the end of a gap that a reader closes: more than concurrent writes allocate.
const MAX_GAP: u64 = 1_000;
/// How many positions a reader that looks for the end of the feed goes back.
const TAIL_LENGTH: usize = 100;

/// Writes the audit entry and the events of one batch.
pub(super) struct FeedWriter<'a> {
    pub(super) table: &'a DynamoTable,
    pub(super) call: &'a CallContext,
    pub(super) audit: Option<&'a AuditEntry>,
    pub(super) events: &'a [FeedEvent],
}

/// The numbers that a batch has allocated.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Allocation {
    audit: u64,
    position: u64,
    /// When the previous position was allocated.
    before: Timestamp,
}

impl FeedWriter<'_> {
    /// Allocates the numbers that the batch needs, in one request; without a request if the batch needs none.
    pub(super) async fn allocate(&self) -> Result<Allocation, Failure> {
        if self.audit.is_none() && self.events.is_empty() {
            return Ok(Allocation::default());
        }
        if self.events.len() as u64 > NUMBERS_PER_POSITION {
            return Err(StoreError::Denied("a batch must have at most 1,000 events".to_owned()).into());
        }
        let change = match self.events {
            [] => Change::update(Key::trail(), "ADD #audit :audit"),
            _ => Change::update(
                Key::trail(),
                "SET #before = if_not_exists(#drawn, :never), #drawn = :now ADD #audit :audit, #place :one",
            )
            .with(":never", number(0))
            .with(":now", number(self.table.clock.wall().millis()))
            .with(":one", number(1)),
        };
        let change = change.with(":audit", number(u64::from(self.audit.is_some())));
        let counted = self.table.write(self.call, &[change]).await?.unwrap_or_default();
        let read = ItemReader(&counted);
        let before = Timestamp::from_millis(read.number_if("before").unwrap_or_default());
        Ok(Allocation {
            audit: read.number("audit")?,
            position: read.number_if("place").unwrap_or_default(),
            before,
        })
    }

    /// Returns the changes that write the audit entry and the events.
    pub(super) fn changes(&self, allocation: Allocation) -> Result<Vec<(Key, Change)>, StoreError> {
        let mut changes = Vec::new();
        if let Some(entry) = self.audit {
            let key = Key::audit(allocation.audit);
            let mut item = key.item();
            put(&mut item, "document", document(entry)?);
            changes.push((key, Change::put(item)));
        }
        if !self.events.is_empty() {
            let documents = self.events.iter().map(document).collect::<Result<_, _>>()?;
            let key = Key::event(allocation.position);
            let item = self.table.position(allocation.position, allocation.before, documents);
            changes.push((key, Change::put(item).when(ABSENT)));
        }
        Ok(changes)
    }

    /// Closes the position of a batch that was not written. If that fails, a reader closes the position later.
    pub(super) async fn abandon(&self, allocation: Allocation) {
        if !self.events.is_empty() {
            let _ = self.table.close(self.call, allocation.position, allocation.before).await;
        }
    }
}

/// How far the feed is known to be filled or closed.
#[derive(Clone, Copy, Debug)]
struct GapFreeEnd {
    position: u64,
    /// The number of the last event up to this position.
    last: Option<u64>,
}

/// The feed for readers; caches the position up to which it has no gaps.
#[derive(Debug, Default)]
pub(super) struct Feed(Mutex<Option<GapFreeEnd>>);

/// The content of a position.
struct Position {
    number: u64,
    /// When the previous position was allocated.
    before: Timestamp,
    events: Vec<FeedEvent>,
}

/// The state of positions that have no item.
enum Gap {
    /// None of these positions can be filled any more.
    Closed,
    /// A position may still be filled.
    Open,
    /// A position was filled in the meantime.
    Filled,
}

impl Feed {
    /// Returns the events after number `after`, each with its number.
    pub(super) async fn events(
        &self,
        table: &DynamoTable,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, FeedEvent)>, StoreError> {
        let limit = limit.max(1);
        // The position of the event `after` may have more events.
        let read = after.div_ceil(NUMBERS_PER_POSITION);
        let mut events = Vec::new();
        table
            .visit_positions(read.saturating_sub(1), limit, |position| {
                let first = (position.number - 1) * NUMBERS_PER_POSITION + 1;
                let numbered = (first..).zip(position.events).filter(|(number, _)| *number > after);
                events.extend(numbered);
                events.len() < limit
            })
            .await?;
        events.truncate(limit);
        Ok(events)
    }

    /// Returns the number of the last event that a reader has received, or could have.
    pub(super) async fn last(&self, table: &DynamoTable) -> Result<Option<u64>, StoreError> {
        let known = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = match known {
            Some(known) => known,
            None => GapFreeEnd { position: table.tail_start().await?, last: None },
        };
        table
            .visit_positions(known.position, TAIL_LENGTH, |position| {
                let first = (position.number - 1) * NUMBERS_PER_POSITION;
                if !position.events.is_empty() {
                    known.last = Some(first + position.events.len() as u64);
                }
                known.position = position.number;
                true
            })
            .await?;
        // If all these positions are closed, the last number of the last position serves as well.
        let last =
            known.last.or_else(|| Some(known.position * NUMBERS_PER_POSITION).filter(|last| *last > 0));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        Ok(last)
    }
}

impl DynamoTable {
    /// Returns the item that fills a position. An item without events closes the position.
    fn position(&self, position: u64, before: Timestamp, events: Vec<AttributeValue>) -> Item {
        let mut item = Key::event(position).item();
        put(&mut item, "before", number(before.millis()));
        if let Some(retention) = self.event_retention {
            put(&mut item, "expires", seconds(self.clock.wall().after(retention)));
        }
        put(&mut item, "events", AttributeValue::L(events));
        item
    }

    /// Closes a position; returns `false` if the position was filled in the meantime.
    async fn close(&self, call: &CallContext, position: u64, before: Timestamp) -> Result<bool, StoreError> {
        let change = Change::put(self.position(position, before, Vec::new())).when(ABSENT);
        match self.write(call, &[change]).await {
            Ok(_) => Ok(true),
            Err(Failure::ConditionFailed(_)) => Ok(false),
            Err(failure) => Err(failure.into_error()),
        }
    }

    /// Returns the position at which a search for the end of the feed starts.
    async fn tail_start(&self) -> Result<u64, StoreError> {
        let range = KeyRange { backwards: true, ..feed(1, TAIL_LENGTH) };
        let newest = self.pages(range).next().await?;
        match newest.last() {
            Some(oldest) if newest.len() >= TAIL_LENGTH => Ok(position_of(oldest)?.number),
            Some(_) | None => Ok(0),
        }
    }

    /// Calls `visit` with each position after `read`, in order and without gaps, until it returns `false` or the feed
    /// ends.
    async fn visit_positions(
        &self,
        mut read: u64,
        limit: usize,
        mut visit: impl FnMut(Position) -> bool + Send,
    ) -> Result<(), StoreError> {
        let mut pages = self.pages(feed(read + 1, limit.max(2)));
        while !pages.is_done() {
            for item in pages.next().await? {
                let position = position_of(&item)?;
                match self.examine_gap(read + 1..position.number, position.before).await? {
                    Gap::Closed => {}
                    Gap::Open => return Ok(()),
                    Gap::Filled => return Box::pin(self.visit_positions(read, limit, visit)).await,
                }
                read = position.number;
                if !visit(position) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Examines positions without an item that precede a filled position; the last of them was allocated at `drawn`.
    /// Closes them once they are old enough.
    async fn examine_gap(&self, positions: Range<u64>, allocated_at: Timestamp) -> Result<Gap, StoreError> {
        let age = self.clock.wall().since(allocated_at);
        // At that age, empty positions are closed, or were filled and have expired.
        if positions.is_empty() || age >= MAX_REQUEST_AGE {
            return Ok(Gap::Closed);
        }
        if age < FILL_TIMEOUT {
            return Ok(Gap::Open);
        }
        let call = CallContext {
            deadline: self.read_deadline(),
            write: WriteId::default(),
            fence: Fence::default(),
        };
        let first = positions.start.max(positions.end.saturating_sub(MAX_GAP));
        for position in first..positions.end {
            // In order, so that all positions before one that a reader has closed are filled or closed.
            if !self.close(&call, position, Timestamp::default()).await? {
                return Ok(Gap::Filled);
            }
        }
        Ok(Gap::Closed)
    }
}

fn feed(first: u64, limit: usize) -> KeyRange {
    let values =
        vec![(":feed", text("E")), (":first", text(padded(first))), (":last", text(padded(u64::MAX)))];
    KeyRange {
        index: None,
        keys: "#pk = :feed AND #sk BETWEEN :first AND :last",
        values,
        backwards: false,
        limit,
    }
}

fn position_of(item: &Item) -> Result<Position, StoreError> {
    let read = ItemReader(item);
    let events = read.list("events")?.into_iter().map(records::decode).collect::<Result<_, _>>()?;
    let number = read.parsed("sk", |text| text.parse().ok())?;
    Ok(Position { number, before: Timestamp::from_millis(read.number("before")?), events })
}

/// Returns audit entries, newest first.
pub(super) async fn audit(
    table: &DynamoTable,
    before: Option<u64>,
    limit: usize,
) -> Result<Page<AuditEntry, u64>, StoreError> {
    let last = before.unwrap_or(u64::MAX).saturating_sub(1);
    let values = vec![(":audit", text("A")), (":last", text(padded(last)))];
    let range = KeyRange {
        index: None,
        keys: "#pk = :audit AND #sk <= :last",
        values,
        backwards: true,
        limit: limit.max(1) + 1,
    };
    let entry = |item: &Item| {
        let read = ItemReader(item);
        Ok(Some((read.parsed("sk", |text| text.parse().ok())?, read.document("document")?)))
    };
    super::lists::page(table.pages(range), limit, entry).await
}

/// Deletes the oldest audit entries. DynamoDB deletes events when they reach `expires`.
pub(super) async fn delete_old_audit(
    table: &DynamoTable,
    call: &CallContext,
    old: &Old,
) -> Outcome<u64, WriteError> {
    let values = vec![(":audit", text("A")), (":first", text(padded(0)))];
    let keys = "#pk = :audit AND #sk >= :first";
    let oldest = KeyRange { index: None, keys, values, backwards: false, limit: old.most.max(1) };
    let items = match table.pages(oldest).next().await {
        Ok(items) => items,
        Err(error) => return Outcome::NotApplied(WriteError::Store(error)),
    };
    let mut changes = Vec::new();
    for item in items.iter().take(old.most) {
        match ItemReader(item)
            .document::<AuditEntry>("document")
            .and_then(|entry| Ok((entry, Key::of(item)?)))
        {
            Ok((entry, key)) if entry.at < old.audit_before => changes.push(Change::delete(key)),
            Ok(_) => {}
            Err(error) => return Outcome::NotApplied(WriteError::Store(error)),
        }
    }
    if changes.is_empty() {
        return Outcome::Applied(0);
    }
    match table.write(call, &changes).await {
        Ok(_) => Outcome::Applied(changes.len() as u64),
        Err(failure) => Outcome::Unknown(WriteError::Store(failure.into_error())),
    }
}
