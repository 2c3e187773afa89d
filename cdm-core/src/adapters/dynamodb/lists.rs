//! Lists: of sites, operations, rollouts and of what is to be done. An index tells what there is; what it is, is read by
//! its key.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;

use super::item::{
    Item, Key, Read, SHARDS, history_sk, live as live_shard, number, padded, site_shard, text,
};
use super::site;
use super::table::{Ask, DynamoTable, Pages};
use crate::domain::{
    Color, Operation, OperationId, OperationState, Rollout, Site, SiteId, Subject, Timestamp, WorkerId,
};
use crate::ports::{OperationQuery, Page, PendingWork, SiteQuery, StoreError, WorkItem};

type Result<T> = std::result::Result<T, StoreError>;

/// The index that has every site, and is written when one comes or goes, or its service changes.
pub(super) const LISTS: &str = "lists";
/// The index of operations: those at work, those that are parked, those that have ended; and of rollouts at work.
pub(super) const WORK: &str = "work";
/// How many items are asked for at once where all are wanted.
const PAGE: usize = 1_000;

/// The first of what the pages have, at most `limit`, and where the next page begins if there is more.
pub(super) async fn page<T: Send>(
    mut pages: Pages<'_>,
    limit: usize,
    item: impl Fn(&Item) -> Result<Option<(u64, T)>> + Send,
) -> Result<Page<T, u64>> {
    let limit = limit.max(1);
    let mut found = Vec::new();
    while !pages.over() && found.len() <= limit {
        for one in pages.next().await? {
            found.extend(item(&one)?);
        }
    }
    Ok(cut(found, limit))
}

fn cut<T, C: Clone>(mut found: Vec<(C, T)>, limit: usize) -> Page<T, C> {
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().map(|(cursor, _)| cursor.clone()).filter(|_| more);
    Page { items: found.into_iter().map(|(_, item)| item).collect(), next }
}

/// Sites in order of their ids. Each is judged as it lies, not as the index has it.
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
        for some in keys.chunks(limit + 1) {
            let mut items = table.get_many(some).await?;
            for key in some {
                // One that is gone is still listed for a moment.
                let Some(item) = items.remove(key) else { continue };
                let site = site::of_item(&item)?;
                found.extend(Some(site).filter(|site| query.has(site)).map(|site| (site.id.clone(), site)));
            }
            if found.len() > limit {
                return Ok(cut(found, limit));
            }
        }
        if !more {
            return Ok(cut(found, limit));
        }
        after = ids.last().cloned().or(after);
    }
}

/// The next ids, in order, and whether there are more.
async fn ids(table: &DynamoTable, after: Option<&SiteId>, some: usize) -> Result<(Vec<SiteId>, bool)> {
    let shards = try_join_all((0..SHARDS).map(async |shard| {
        let mut pages = table.ask(of_shard(shard, after, some));
        let mut ids = Vec::new();
        while !pages.over() && ids.len() < some {
            for item in pages.next().await? {
                ids.push(Read(&item).parsed("id", |text| SiteId::parse(text).ok())?);
            }
        }
        Ok::<_, StoreError>((ids, !pages.over()))
    }))
    .await?;
    // Beyond the last id of a shard that has more, others may come in between.
    let bound = shards.iter().filter(|(_, more)| *more).filter_map(|(ids, _)| ids.last()).min().cloned();
    let mut all: Vec<SiteId> = shards.into_iter().flat_map(|(ids, _)| ids).collect();
    all.sort();
    if let Some(bound) = &bound {
        all.retain(|id| id <= bound);
    }
    Ok((all, bound.is_some()))
}

fn of_shard(shard: u64, after: Option<&SiteId>, limit: usize) -> Ask {
    let mut values = vec![(":list", text(site_shard(shard)))];
    let keys = match after {
        None => "#list = :list",
        Some(after) => {
            values.push((":after", text(after.as_str())));
            "#list = :list AND #id > :after"
        }
    };
    Ask { index: Some(LISTS), keys, values, backwards: false, limit }
}

/// How many sites a query has. By service alone, or all of them, the index knows.
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
        let items = table.ask(of_shard(shard, None, PAGE)).all().await?;
        let of = |item: &&Item| wanted.is_none() || Read(item).text_if("service") == wanted;
        Ok::<_, StoreError>(items.iter().filter(of).count() as u64)
    }));
    Ok(counts.await?.into_iter().sum())
}

/// Rollouts, newest first.
pub(super) async fn rollouts(
    table: &DynamoTable,
    before: Option<u64>,
    limit: usize,
) -> Result<Page<Rollout, u64>> {
    let last = before.unwrap_or(u64::MAX).saturating_sub(1);
    let values = vec![(":rollouts", text("R")), (":last", text(padded(last)))];
    let keys = "#pk = :rollouts AND #sk <= :last";
    let ask = Ask { index: None, keys, values, backwards: true, limit: limit.max(1) + 1 };
    let rollout = |item: &Item| {
        let rollout: Rollout = Read(item).document("document")?;
        Ok(Some((rollout.number, rollout)))
    };
    page(table.ask(ask), limit, rollout).await
}

fn of_work(part: String, before: Option<u64>, limit: usize) -> Ask {
    let mut values = vec![(":work", text(part))];
    let keys = match before {
        None => "#work = :work",
        Some(before) => {
            values.push((":before", number(before)));
            "#work = :work AND #number < :before"
        }
    };
    Ask { index: Some(WORK), keys, values, backwards: true, limit }
}

/// Whose record an item is; `None` for one that is nobody's.
fn subject(key: &Key) -> Option<Subject> {
    match (key.pk.split_once('#'), key.sk.as_str()) {
        (Some(("S", id)), "SITE") => SiteId::parse(id).ok().map(Subject::Site),
        (Some(("C", color)), "SVC") => Color::parse(color).ok().map(Subject::Service),
        (None, "FLEET") => Some(Subject::Fleet),
        (Some(_) | None, _) => None,
    }
}

/// What a worker may have to do something for, told by the index alone.
pub(super) async fn live(table: &DynamoTable) -> Result<Vec<PendingWork>> {
    let parts = (0..SHARDS).map(|shard| table.ask(of_work(live_shard(shard), None, PAGE)).all());
    let items = try_join_all(parts).await?;
    let item = |item: &Item| {
        let (key, read) = (Key::of(item)?, Read(item));
        let number = read.number("number")?;
        let subject = match (key.pk.as_str(), subject(&key)) {
            ("R", _) => WorkItem::Rollout(number),
            (_, Some(subject)) => WorkItem::Operation(subject),
            (_, None) => return Err(read.broken("pk")),
        };
        Ok(PendingWork {
            subject,
            number,
            owner: read.text_if("opOwner").map(WorkerId::new),
            next_poll_at: read.number_if("opWake").map(Timestamp::from_millis),
            control_requested: read.truth("opAsked"),
        })
    };
    items.iter().flatten().map(item).collect()
}

/// The slot of a subject's record.
fn operation(subject: &Subject, item: &Item) -> Result<Option<OperationState>> {
    Ok(match subject {
        Subject::Site(_) => site::of_item(item)?.operation,
        Subject::Service(_) => Read(item).document::<crate::domain::Service>("document")?.operation,
        Subject::Fleet => Read(item).document::<crate::domain::Fleet>("document")?.operation,
    })
}

/// Whether an index's entry may be of an operation that a query has.
fn may_have(query: &OperationQuery, item: &Item) -> bool {
    let read = Read(item);
    query.kind.is_none_or(|kind| read.text_if("opKind") == Some(kind.as_str()))
        && query.status.is_none_or(|status| read.text_if("opStatus") == Some(status.as_str()))
}

/// Operations, newest first.
pub(super) async fn operations(
    table: &DynamoTable,
    query: &OperationQuery,
    before: Option<u64>,
    limit: usize,
) -> Result<Page<Operation, u64>> {
    let limit = limit.max(1);
    let mut found = BTreeMap::new();
    // First those at work: one that ends in between is then seen twice rather than not at all.
    let floor = at_work(table, query, before, limit, &mut found).await?;
    match &query.site {
        Some(id) => ended_of(table, id, query, before, limit, &mut found).await?,
        None => ended(table, query, before, limit, &mut found).await?,
    }
    let newest = found.into_values().rev().map(|operation: Operation| (operation.id.number, operation));
    let newest = newest.filter(|(number, _)| floor.is_none_or(|floor| *number >= floor));
    let page = cut(newest.collect(), limit);
    Ok(Page { next: page.next.or(floor), items: page.items })
}

type Found = BTreeMap<(u64, OperationId), Operation>;

/// Finds those at work; answers down to which number it has looked, where there are more.
async fn at_work(
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
            let parts = (0..SHARDS).map(live_shard).chain(["parked".to_owned()]);
            let asked = parts.map(|part| table.ask(of_work(part, before, PAGE)).all());
            let items: Vec<Item> = try_join_all(asked).await?.into_iter().flatten().collect();
            let mut listed = Vec::new();
            for item in items.iter().filter(|item| may_have(query, item)) {
                listed.extend(subject(&Key::of(item)?).zip(Read(item).number_if("number")));
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

/// Those of one site lie beside its record.
async fn ended_of(
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
    let mut pages = table.ask(Ask { index: None, keys, values, backwards: true, limit: limit + 1 });
    let mut more = limit + 1;
    while !pages.over() && more > 0 {
        for item in pages.next().await? {
            let operation: Operation = Read(&item).document("document")?;
            if query.has(&operation) {
                more = more.saturating_sub(1);
                found.insert((operation.id.number, operation.id.clone()), operation);
            }
        }
    }
    Ok(())
}

async fn ended(
    table: &DynamoTable,
    query: &OperationQuery,
    before: Option<u64>,
    limit: usize,
    found: &mut Found,
) -> Result<()> {
    let mut pages = table.ask(of_work("ended".to_owned(), before, limit + 1));
    let mut more = limit + 1;
    while !pages.over() && more > 0 {
        let listed = pages.next().await?;
        let keys =
            listed.iter().filter(|item| may_have(query, item)).map(Key::of).collect::<Result<Vec<_>>>()?;
        for item in table.get_many(&keys).await?.values() {
            let operation: Operation = Read(item).document("document")?;
            if query.has(&operation) {
                more = more.saturating_sub(1);
                found.insert((operation.id.number, operation.id.clone()), operation);
            }
        }
    }
    Ok(())
}
