//! What is kept of a batch for people: its audit entry, and its events, which are read as one feed.
//!
//! A batch with events draws a *place* in the feed, and writes them there together with its records. Places are drawn in
//! order but filled in any order; so a reader goes no further than the first place that is neither filled nor *closed*. A
//! place that stays empty is closed by whoever gives it up, or by a reader who has waited long enough; then its writer
//! finds it taken, and draws another. No reader passes an event by, and no clock is relied upon for that.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;

use super::batch::seconds;
use super::change::{ABSENT, Change};
use super::failure::Failure;
use super::item::{Item, Key, Read, document, number, padded, put, text};
use super::table::{Ask, DynamoTable};
use crate::adapters::records;
use crate::domain::{AuditEntry, Fence, Timestamp};
use crate::ports::{CallContext, FeedEvent, Old, Outcome, Page, StoreError, WriteError, WriteId};

/// How many numbers a place has: more than a batch has events.
const ROOM: u64 = 1_000;
/// How long a reader waits for a place to be filled before it closes it.
const PATIENCE: Duration = Duration::from_secs(2);
/// After that long nobody comes any more to fill a place: the service takes no request that was signed so long ago.
const NEVER: Duration = Duration::from_hours(1);
/// How many places at the end of a gap may be waited for: more than are under way at once.
const WIDEST: u64 = 1_000;
/// How far a reader who asks for the end looks back for places that are still to be filled.
const BACK: usize = 100;

/// What is kept of one batch.
pub(super) struct FeedWriter<'a> {
    pub(super) table: &'a DynamoTable,
    pub(super) call: &'a CallContext,
    pub(super) audit: Option<&'a AuditEntry>,
    pub(super) events: &'a [FeedEvent],
}

/// Where it is kept.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbers {
    audit: u64,
    place: u64,
    /// When the place before it was drawn.
    before: Timestamp,
}

impl FeedWriter<'_> {
    /// Draws what the batch needs, in one request; in none where it needs nothing.
    pub(super) async fn draw(&self) -> Result<Numbers, Failure> {
        if self.audit.is_none() && self.events.is_empty() {
            return Ok(Numbers::default());
        }
        if self.events.len() as u64 > ROOM {
            return Err(StoreError::Denied("a batch has at most 1,000 events".to_owned()).into());
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
        let read = Read(&counted);
        let before = Timestamp::from_millis(read.number_if("before").unwrap_or_default());
        Ok(Numbers {
            audit: read.number("audit")?,
            place: read.number_if("place").unwrap_or_default(),
            before,
        })
    }

    /// What puts them there.
    pub(super) fn changes(&self, numbers: Numbers) -> Result<Vec<(Key, Change)>, StoreError> {
        let mut changes = Vec::new();
        if let Some(entry) = self.audit {
            let key = Key::audit(numbers.audit);
            let mut item = key.item();
            put(&mut item, "document", document(entry)?);
            changes.push((key, Change::put(item)));
        }
        if !self.events.is_empty() {
            let documents = self.events.iter().map(document).collect::<Result<_, _>>()?;
            let key = Key::event(numbers.place);
            let item = self.table.place(numbers.place, numbers.before, documents);
            changes.push((key, Change::put(item).when(ABSENT)));
        }
        Ok(changes)
    }

    /// Closes the place of a batch that was not written. Where that fails, a reader will.
    pub(super) async fn give_up(&self, numbers: Numbers) {
        if !self.events.is_empty() {
            let _ = self.table.close(self.call, numbers.place, numbers.before).await;
        }
    }
}

/// How far the feed is known to be filled or closed.
#[derive(Clone, Copy, Debug)]
struct Known {
    place: u64,
    /// The last event up to there.
    last: Option<u64>,
}

/// The feed as readers have it; remembers how far it was found without gaps.
#[derive(Debug, Default)]
pub(super) struct Feed(Mutex<Option<Known>>);

/// What a place holds.
struct Place {
    number: u64,
    /// When the place before it was drawn.
    before: Timestamp,
    events: Vec<FeedEvent>,
}

/// What is to be made of places that are not there.
enum Gap {
    /// They will be filled no more.
    Closed,
    /// They may be filled yet.
    Open,
    /// One of them was filled meanwhile.
    Filled,
}

impl Feed {
    /// Events after number `after`, each with its number.
    pub(super) async fn events(
        &self,
        table: &DynamoTable,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, FeedEvent)>, StoreError> {
        let limit = limit.max(1);
        // The place that the event lies in may hold more of them.
        let read = after.div_ceil(ROOM);
        let mut events = Vec::new();
        table
            .walk(read.saturating_sub(1), limit, |place| {
                let first = (place.number - 1) * ROOM + 1;
                let numbered = (first..).zip(place.events).filter(|(number, _)| *number > after);
                events.extend(numbered);
                events.len() < limit
            })
            .await?;
        events.truncate(limit);
        Ok(events)
    }

    /// The number of the last event that readers have, or could have.
    pub(super) async fn last(&self, table: &DynamoTable) -> Result<Option<u64>, StoreError> {
        let known = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = match known {
            Some(known) => known,
            None => Known { place: table.back().await?, last: None },
        };
        table
            .walk(known.place, BACK, |place| {
                let first = (place.number - 1) * ROOM;
                if !place.events.is_empty() {
                    known.last = Some(first + place.events.len() as u64);
                }
                known.place = place.number;
                true
            })
            .await?;
        // Where there is nothing but closed places, their numbers are as good.
        let last = known.last.or_else(|| Some(known.place * ROOM).filter(|last| *last > 0));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        Ok(last)
    }
}

impl DynamoTable {
    /// An item that fills a place; without events, that closes it.
    fn place(&self, place: u64, before: Timestamp, events: Vec<AttributeValue>) -> Item {
        let mut item = Key::event(place).item();
        put(&mut item, "before", number(before.millis()));
        if let Some(kept) = self.events_kept {
            put(&mut item, "expires", seconds(self.clock.wall().after(kept)));
        }
        put(&mut item, "events", AttributeValue::L(events));
        item
    }

    /// Closes a place; `false` where it was filled meanwhile.
    async fn close(&self, call: &CallContext, place: u64, before: Timestamp) -> Result<bool, StoreError> {
        let change = Change::put(self.place(place, before, Vec::new())).when(ABSENT);
        match self.write(call, &[change]).await {
            Ok(_) => Ok(true),
            Err(Failure::Unmet(_)) => Ok(false),
            Err(failure) => Err(failure.into_error()),
        }
    }

    /// Where to begin to look for the end of the feed: the place before the last ones.
    async fn back(&self) -> Result<u64, StoreError> {
        let ask = Ask { backwards: true, ..feed(1, BACK) };
        let newest = self.ask(ask).next().await?;
        match newest.last() {
            Some(oldest) if newest.len() >= BACK => Ok(place_of(oldest)?.number),
            Some(_) | None => Ok(0),
        }
    }

    /// Hands the places after `read` to `visit`, in order and without gaps, as far as they go or as long as it wants more.
    async fn walk(
        &self,
        mut read: u64,
        limit: usize,
        mut visit: impl FnMut(Place) -> bool + Send,
    ) -> Result<(), StoreError> {
        let mut pages = self.ask(feed(read + 1, limit.max(2)));
        while !pages.over() {
            for item in pages.next().await? {
                let place = place_of(&item)?;
                match self.gap(read + 1..place.number, place.before).await? {
                    Gap::Closed => {}
                    Gap::Open => return Ok(()),
                    Gap::Filled => return Box::pin(self.walk(read, limit, visit)).await,
                }
                read = place.number;
                if !visit(place) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Looks at places that are empty although one after them was filled; the last of them was drawn at `drawn`. Closes
    /// them where it is time.
    async fn gap(&self, places: Range<u64>, drawn: Timestamp) -> Result<Gap, StoreError> {
        let age = self.clock.wall().since(drawn);
        // Those of long ago are closed, or were filled and have expired.
        if places.is_empty() || age >= NEVER {
            return Ok(Gap::Closed);
        }
        if age < PATIENCE {
            return Ok(Gap::Open);
        }
        let call = CallContext { deadline: self.soon(), write: WriteId::default(), fence: Fence::default() };
        let first = places.start.max(places.end.saturating_sub(WIDEST));
        for place in first..places.end {
            // In order: below a place that a reader has closed there is nothing to wait for.
            if !self.close(&call, place, Timestamp::default()).await? {
                return Ok(Gap::Filled);
            }
        }
        Ok(Gap::Closed)
    }
}

fn feed(first: u64, limit: usize) -> Ask {
    let values =
        vec![(":feed", text("E")), (":first", text(padded(first))), (":last", text(padded(u64::MAX)))];
    Ask { index: None, keys: "#pk = :feed AND #sk BETWEEN :first AND :last", values, backwards: false, limit }
}

fn place_of(item: &Item) -> Result<Place, StoreError> {
    let read = Read(item);
    let events = read.list("events")?.into_iter().map(records::decode).collect::<Result<_, _>>()?;
    let number = read.parsed("sk", |text| text.parse().ok())?;
    Ok(Place { number, before: Timestamp::from_millis(read.number("before")?), events })
}

/// Audit entries, newest first.
pub(super) async fn audit(
    table: &DynamoTable,
    before: Option<u64>,
    limit: usize,
) -> Result<Page<AuditEntry, u64>, StoreError> {
    let last = before.unwrap_or(u64::MAX).saturating_sub(1);
    let values = vec![(":audit", text("A")), (":last", text(padded(last)))];
    let ask = Ask {
        index: None,
        keys: "#pk = :audit AND #sk <= :last",
        values,
        backwards: true,
        limit: limit.max(1) + 1,
    };
    let entry = |item: &Item| {
        let read = Read(item);
        Ok(Some((read.parsed("sk", |text| text.parse().ok())?, read.document("document")?)))
    };
    super::lists::page(table.ask(ask), limit, entry).await
}

/// Deletes the oldest audit entries. Events end by their `expires`.
pub(super) async fn delete_old_audit(
    table: &DynamoTable,
    call: &CallContext,
    old: &Old,
) -> Outcome<u64, WriteError> {
    let values = vec![(":audit", text("A")), (":first", text(padded(0)))];
    let keys = "#pk = :audit AND #sk >= :first";
    let oldest = Ask { index: None, keys, values, backwards: false, limit: old.most.max(1) };
    let items = match table.ask(oldest).next().await {
        Ok(items) => items,
        Err(error) => return Outcome::NotApplied(WriteError::Store(error)),
    };
    let mut changes = Vec::new();
    for item in items.iter().take(old.most) {
        match Read(item).document::<AuditEntry>("document").and_then(|entry| Ok((entry, Key::of(item)?))) {
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
