//! Lists of sites, operations, rollouts and pending work. An index determines which items to read; the items are then
//! read from the table by key.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;

use super::item::{
    Item, ItemReader, Key, SHARDS, history_sk, number, padded, pending_shard, site_shard, text,
};
use super::site;
use super::table::{DynamoTable, KeyRange, Pages};
use crate::domain::{
    Color, Operation, OperationId, OperationState, Rollout, Site, SiteId, Subject, Timestamp, WorkerId,
};
use crate::ports::{OperationQuery, Page, PendingWork, SiteQuery, StoreError, WorkItem};

type Result<T> = std::result::Result<T, StoreError>;

/// The index of sites, which is written when a site is created or removed, or when its service changes.
pub(super) const LISTS: &str = "lists";
/// The index of operations (running, parked and finished) and of rollouts in progress.
pub(super) const WORK: &str = "work";
/// The page size of queries that read all items.
const PAGE: usize = 1_000;

/// Returns the first `limit` items of the pages, and the cursor of the next page if there are more items.
pub(super) async fn page<T: Send>(
    mut pages: Pages<'_>,
    limit: usize,
    item: impl Fn(&Item) -> Result<Option<(u64, T)>> + Send,
) -> Result<Page<T, u64>> {
    let limit = limit.max(1);
    let mut found = Vec::new();
    while !pages.is_done() && found.len() <= limit {
        for entry in pages.next().await? {
            found.extend(item(&entry)?);
        }
    }
    Ok(truncate(found, limit))
}

fn truncate<T, C: Clone>(mut found: Vec<(C, T)>, limit: usize) -> Page<T, C> {
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().map(|(cursor, _)| cursor.clone()).filter(|_| more);
    Page { items: found.into_iter().map(|(_, item)| item).collect(), next }
}

/// Returns sites in order of their IDs. The query is matched against the stored sites, not against the index.
pub(super) async fn sites(
    table: &DynamoTable,
    query: &SiteQuery,
    after: Option<&SiteId>,
    limit: usize,
) -> Result<Page<Site, SiteId>> {
    let limit = limit.max(1);
    let mut found = Vec::new();
    let mut after = after.cloned();
    loop {
        let (ids, more) = ids(table, after.as_ref(), (limit + 1).min(PAGE)).await?;
        let keys: Vec<Key> = ids.iter().map(Key::site).collect();
        for chunk in keys.chunks(limit + 1) {
            let mut items = table.get_many(chunk).await?;
            for key in chunk {
                // The index still lists a removed site for a moment.
                let Some(item) = items.remove(key) else { continue };
                let site = site::from_item(&item)?;
                found.extend(Some(site).filter(|site| query.has(site)).map(|site| (site.id.clone(), site)));
            }
            if found.len() > limit {
                return Ok(truncate(found, limit));
            }
        }
        if !more {
            return Ok(truncate(found, limit));
        }
        after = ids.last().cloned().or(after);
    }
}

/// Returns the next IDs, in order, and whether there are more.
async fn ids(table: &DynamoTable, after: Option<&SiteId>, limit: usize) -> Result<(Vec<SiteId>, bool)> {
    let shards = try_join_all((0..SHARDS).map(async |shard| {
        let mut pages = table.pages(shard_range(shard, after, limit));
        let mut ids = Vec::new();
        while !pages.is_done() && ids.len() < limit {
            for item in pages.next().await? {
                ids.push(ItemReader(&item).parsed("id", |text| SiteId::parse(text).ok())?);
            }
        }
        Ok::<_, StoreError>((ids, !pages.is_done()))
    }))
    .await?;
    // A shard that has more may have IDs beyond its last one that precede IDs of other shards.
    let bound = shards.iter().filter(|(_, more)| *more).filter_map(|(ids, _)| ids.last()).min().cloned();
    let mut all: Vec<SiteId> = shards.into_iter().flat_map(|(ids, _)| ids).collect();
    all.sort();
    if let Some(bound) = &bound {
        all.retain(|id| id <= bound);
    }
    Ok((all, bound.is_some()))
}

fn shard_range(shard: u64, after: Option<&SiteId>, limit: usize) -> KeyRange {
    let mut values = vec![(":list", text(site_shard(shard)))];
    let keys = match after {
        None => "#list = :list",
        Some(after) => {
            values.push((":after", text(after.as_str())));
            "#list = :list AND #id > :after"
        }
    };
    KeyRange { index: Some(LISTS), keys, values, backwards: false, limit }
}

/// Counts the sites that match a query. The index suffices for all sites and for the sites of one service.
pub(super) async fn count(table: &DynamoTable, query: &SiteQuery) -> Result<u64> {
    if query.state.is_some() || query.text.is_some() || query.drifted {
        let (mut count, mut after) = (0, None);
        loop {
            let page = sites(table, query, after.as_ref(), PAGE).await?;
            count += page.items.len() as u64;
            after = page.next;
            if after.is_none() {
                return Ok(count);
            }
        }
    }
    let wanted = query.service.map(Color::as_str);
    let counts = try_join_all((0..SHARDS).map(async |shard| {
        let items = table.pages(shard_range(shard, None, PAGE)).all().await?;
        let of = |item: &&Item| wanted.is_none() || ItemReader(item).text_if("service") == wanted;
        Ok::<_, StoreError>(items.iter().filter(of).count() as u64)
    }));
    Ok(counts.await?.into_iter().sum())
}

/// Returns rollouts, newest first.
pub(super) async fn rollouts(
    table: &DynamoTable,
    before: Option<u64>,
    limit: usize,
) -> Result<Page<Rollout, u64>> {
    let last = before.unwrap_or(u64::MAX).saturating_sub(1);
    let values = vec![(":rollouts", text("R")), (":last", text(padded(last)))];
    let keys = "#pk = :rollouts AND #sk <= :last";
    let range = KeyRange { index: None, keys, values, backwards: true, limit: limit.max(1) + 1 };
    let rollout = |item: &Item| {
        let rollout: Rollout = ItemReader(item).document("document")?;
        Ok(Some((rollout.number, rollout)))
    };
    page(table.pages(range), limit, rollout).await
}

fn work_range(part: String, before: Option<u64>, limit: usize) -> KeyRange {
    let mut values = vec![(":work", text(part))];
    let keys = match before {
        None => "#work = :work",
        Some(before) => {
            values.push((":before", number(before)));
            "#work = :work AND #number < :before"
        }
    };
    KeyRange { index: Some(WORK), keys, values, backwards: true, limit }
}

/// Returns the subject whose record the item is; `None` for items of other kinds.
fn subject(key: &Key) -> Option<Subject> {
    match (key.pk.split_once('#'), key.sk.as_str()) {
        (Some(("S", id)), "SITE") => SiteId::parse(id).ok().map(Subject::Site),
        (Some(("C", color)), "SVC") => Color::parse(color).ok().map(Subject::Service),
        (None, "FLEET") => Some(Subject::Fleet),
        (Some(_) | None, _) => None,
    }
}

/// Returns the operations and rollouts that a worker may have to run, from the index alone.
pub(super) async fn pending_work(table: &DynamoTable) -> Result<Vec<PendingWork>> {
    let parts = (0..SHARDS).map(|shard| table.pages(work_range(pending_shard(shard), None, PAGE)).all());
    let items = try_join_all(parts).await?;
    let item = |item: &Item| {
        let (key, read) = (Key::of(item)?, ItemReader(item));
        let number = read.number("number")?;
        let subject = match (key.pk.as_str(), subject(&key)) {
            ("R", _) => WorkItem::Rollout(number),
            (_, Some(subject)) => WorkItem::Operation(subject),
            (_, None) => return Err(read.invalid_attribute("pk")),
        };
        Ok(PendingWork {
            subject,
            number,
            owner: read.text_if("opOwner").map(WorkerId::new),
            next_poll_at: read.number_if("opWake").map(Timestamp::from_millis),
            control_requested: read.flag("opAsked"),
        })
    };
    items.iter().flatten().map(item).collect()
}

fn operation(subject: &Subject, item: &Item) -> Result<Option<OperationState>> {
    Ok(match subject {
        Subject::Site(_) => site::from_item(item)?.operation,
        Subject::Service(_) => ItemReader(item).document::<crate::domain::Service>("document")?.operation,
        Subject::Fleet => ItemReader(item).document::<crate::domain::Fleet>("document")?.operation,
    })
}

/// Returns whether an index entry may belong to an operation that matches the query.
fn may_match(query: &OperationQuery, item: &Item) -> bool {
    let read = ItemReader(item);
    query.kind.is_none_or(|kind| read.text_if("opKind") == Some(kind.as_str()))
        && query.status.is_none_or(|status| read.text_if("opStatus") == Some(status.as_str()))
}

/// Returns operations, newest first.
pub(super) async fn operations(
    table: &DynamoTable,
    query: &OperationQuery,
    before: Option<u64>,
    limit: usize,
) -> Result<Page<Operation, u64>> {
    let limit = limit.max(1);
    let mut found = BTreeMap::new();
    // Running operations first: an operation that ends in between is then read twice instead of never.
    let floor = running(table, query, before, limit, &mut found).await?;
    match &query.site {
        Some(id) => finished_of_site(table, id, query, before, limit, &mut found).await?,
        None => finished(table, query, before, limit, &mut found).await?,
    }
    let newest = found.into_values().rev().map(|operation: Operation| (operation.id.number, operation));
    let newest = newest.filter(|(number, _)| floor.is_none_or(|floor| *number >= floor));
    let page = truncate(newest.collect(), limit);
    Ok(Page { next: page.next.or(floor), items: page.items })
}

type Found = BTreeMap<(u64, OperationId), Operation>;

/// Finds operations that have not finished. If there are more than `limit`, returns the lowest number that was
/// examined.
async fn running(
    table: &DynamoTable,
    query: &OperationQuery,
    before: Option<u64>,
    limit: usize,
    found: &mut Found,
) -> Result<Option<u64>> {
    let mut floor = None;
    let subjects = match &query.site {
        Some(id) => vec![Subject::Site(id.clone())],
        None => {
            let parts = (0..SHARDS).map(pending_shard).chain(["parked".to_owned()]);
            let queries = parts.map(|part| table.pages(work_range(part, before, PAGE)).all());
            let items: Vec<Item> = try_join_all(queries).await?.into_iter().flatten().collect();
            let mut listed = Vec::new();
            for item in items.iter().filter(|item| may_match(query, item)) {
                listed.extend(subject(&Key::of(item)?).zip(ItemReader(item).number_if("number")));
            }
            listed.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
            floor = listed.get(limit).filter(|_| listed.len() > limit + 1).map(|(_, number)| *number);
            listed.into_iter().take(limit + 1).map(|(subject, _)| subject).collect()
        }
    };
    let keys: Vec<Key> = subjects.iter().map(Key::subject).collect();
    let items = table.get_many(&keys).await?;
    for (subject, key) in subjects.into_iter().zip(&keys) {
        let Some(state) = items.get(key).map(|item| operation(&subject, item)).transpose()?.flatten() else {
            continue;
        };
        let operation = Operation::live(subject, state);
        if before.is_none_or(|before| operation.id.number < before) && query.has(&operation) {
            found.insert((operation.id.number, operation.id.clone()), operation);
        }
    }
    Ok(floor)
}

/// Finds the finished operations of one site, which have the partition key of its record.
async fn finished_of_site(
    table: &DynamoTable,
    id: &SiteId,
    query: &OperationQuery,
    before: Option<u64>,
    limit: usize,
    found: &mut Found,
) -> Result<()> {
    let last = before.unwrap_or(u64::MAX).saturating_sub(1);
    let values = vec![
        (":home", text(Key::site(id).pk)),
        (":first", text(history_sk(0))),
        (":last", text(history_sk(last))),
    ];
    let keys = "#pk = :home AND #sk BETWEEN :first AND :last";
    let mut pages = table.pages(KeyRange { index: None, keys, values, backwards: true, limit: limit + 1 });
    let mut more = limit + 1;
    while !pages.is_done() && more > 0 {
        for item in pages.next().await? {
            let operation: Operation = ItemReader(&item).document("document")?;
            if query.has(&operation) {
                more = more.saturating_sub(1);
                found.insert((operation.id.number, operation.id.clone()), operation);
            }
        }
    }
    Ok(())
}

async fn finished(
    table: &DynamoTable,
    query: &OperationQuery,
    before: Option<u64>,
    limit: usize,
    found: &mut Found,
) -> Result<()> {
    let mut pages = table.pages(work_range("ended".to_owned(), before, limit + 1));
    let mut more = limit + 1;
    while !pages.is_done() && more > 0 {
        let listed = pages.next().await?;
        let keys =
            listed.iter().filter(|item| may_match(query, item)).map(Key::of).collect::<Result<Vec<_>>>()?;
        for item in table.get_many(&keys).await?.values() {
            let operation: Operation = ItemReader(item).document("document")?;
            if query.has(&operation) {
                more = more.saturating_sub(1);
                found.insert((operation.id.number, operation.id.clone()), operation);
            }
        }
    }
    Ok(())
}
