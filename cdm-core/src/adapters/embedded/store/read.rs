//! Reads of single records and of lists.

use std::collections::HashMap;

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqlitePool};

use super::EmbeddedStore;
use super::error::unavailable;
use crate::adapters::embedded::file::File;
use crate::adapters::records::{self, Record};
use crate::domain::rollout::RolloutPage;
use crate::domain::search::SearchTerm;
use crate::domain::{Actor, Color, IdempotencyKey, Operation, Site, SiteId, Subject, Timestamp, WorkerId};
use crate::ports::{
    FeedEvent, IdempotencyRecord, Journal, OperationQuery, Page, PendingWork, SiteQuery, SiteRepository,
    StoreError, WorkItem,
};

type Result<T> = std::result::Result<T, StoreError>;

/// Converts a number to SQLite's integer type. No stored number needs the 64th bit.
pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Converts a stored integer back to a number.
pub(super) fn natural(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Returns the upper bound of a descending list; without a cursor, every number is below it.
fn before_or_all(before: Option<u64>) -> i64 {
    before.map_or(i64::MAX, integer)
}

/// Returns the number of rows to read: one more than the limit, which shows whether there is another page.
fn one_more(limit: usize) -> i64 {
    i64::try_from(limit.max(1)).unwrap_or(i64::MAX - 1) + 1
}

fn text(row: &SqliteRow, column: usize) -> Result<String> {
    row.try_get(column).map_err(|error| unavailable(&error))
}

fn number(row: &SqliteRow, column: usize) -> Result<u64> {
    row.try_get(column).map(natural).map_err(|error| unavailable(&error))
}

/// Reads and parses a text column.
pub(super) fn parsed<T>(row: &SqliteRow, column: usize, parse: impl Fn(&str) -> Option<T>) -> Result<T> {
    let text = text(row, column)?;
    parse(&text).ok_or_else(|| StoreError::Denied("the value of a column is invalid".to_owned()))
}

/// Reads the single document that a statement selects.
pub(super) async fn document<'q, T: Record, B>(
    sql: &'static str,
    bind: B,
    pool: &SqlitePool,
) -> Result<Option<T>>
where
    B: sqlx::Encode<'q, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite> + Send + 'q,
{
    let row = sqlx::query(sql).bind(bind).fetch_optional(pool).await.map_err(|error| unavailable(&error))?;
    row.map(|row| records::decode(&text(&row, 0)?)).transpose()
}

/// Reads a page of a list in descending order; the statement selects the number and the body.
pub(super) async fn page<T: Record>(
    sql: &'static str,
    before: Option<u64>,
    limit: usize,
    pool: &SqlitePool,
) -> Result<Page<T, u64>> {
    let query = sqlx::query(sql).bind(before_or_all(before)).bind(one_more(limit));
    let rows = query.fetch_all(pool).await.map_err(|error| unavailable(&error))?;
    let item = |row: &SqliteRow| Ok((number(row, 0)?, records::decode(&text(row, 1)?)?));
    truncate(rows.iter().map(item).collect::<Result<Vec<_>>>()?, limit)
}

/// Returns the first `limit` items, and the cursor of the next page if there are more items.
fn truncate<T, C: Clone>(mut items: Vec<(C, T)>, limit: usize) -> Result<Page<T, C>> {
    let more = items.len() > limit.max(1);
    items.truncate(limit.max(1));
    let next = items.last().map(|(cursor, _)| cursor.clone()).filter(|_| more);
    Ok(Page { items: items.into_iter().map(|(_, item)| item).collect(), next })
}

/// Reads the sites with these IDs that exist.
pub(super) async fn sites_of(file: File, ids: Vec<SiteId>) -> Result<HashMap<SiteId, Site>> {
    const ONE: &str = "SELECT id, body FROM sites WHERE id = ?";
    const SOME: &str = "SELECT id, body FROM sites WHERE id IN (SELECT value FROM json_each(?))";
    let (sql, names) = match ids.as_slice() {
        [id] => (ONE, id.as_str().to_owned()),
        // No ID contains a character that JSON would escape.
        _ => (SOME, format!("[{}]", ids.iter().map(|id| format!("\"{id}\"")).collect::<Vec<_>>().join(","))),
    };
    let query = sqlx::query(sql).bind(names);
    let rows = query.fetch_all(file.reader()).await.map_err(|error| unavailable(&error))?;
    let site = |row: &SqliteRow| {
        let site: Site = records::decode(&text(row, 1)?)?;
        Ok((site.id.clone(), site))
    };
    rows.iter().map(site).collect()
}

/// Returns the two forms of the query's text that the column `search` is compared with.
fn forms(query: &SiteQuery) -> [Option<String>; 2] {
    let term = query.text.as_deref().map(SearchTerm::of);
    [0, 1].map(|form| term.as_ref().map(|term| term.forms()[form].to_owned()))
}

const SITES: &str = "SELECT id, body FROM sites WHERE id > ?1 AND (?2 IS NULL OR service = ?2) \
                     AND (?3 IS NULL OR state = ?3) AND (?4 IS NULL OR instr(search, ?4) > 0 OR instr(search, ?5) > 0) \
                     AND (NOT ?6 OR body ->> '$.record.route.service' <> service) ORDER BY id LIMIT ?7";

pub(super) async fn sites(
    pool: &SqlitePool,
    query: &SiteQuery,
    after: Option<&SiteId>,
    limit: usize,
) -> Result<Page<Site, SiteId>> {
    let [folded, mapped] = forms(query);
    let statement = sqlx::query(SITES)
        .bind(after.map_or("", SiteId::as_str))
        .bind(query.service.map(Color::as_str))
        .bind(query.state.map(|state| state.as_str()))
        .bind(folded)
        .bind(mapped)
        .bind(query.drifted)
        .bind(one_more(limit));
    let rows = statement.fetch_all(pool).await.map_err(|error| unavailable(&error))?;
    let site = |row: &SqliteRow| {
        let site: Site = records::decode(&text(row, 1)?)?;
        Ok((site.id.clone(), site))
    };
    truncate(rows.iter().map(site).collect::<Result<Vec<_>>>()?, limit)
}

const COUNT: &str = "SELECT count(*) FROM sites WHERE (?1 IS NULL OR service = ?1) \
                     AND (?2 IS NULL OR state = ?2) AND (?3 IS NULL OR instr(search, ?3) > 0 OR instr(search, ?4) > 0) \
                     AND (NOT ?5 OR body ->> '$.record.route.service' <> service)";

pub(super) async fn count(pool: &SqlitePool, query: &SiteQuery) -> Result<u64> {
    let [folded, mapped] = forms(query);
    let statement = sqlx::query(COUNT)
        .bind(query.service.map(Color::as_str))
        .bind(query.state.map(|state| state.as_str()))
        .bind(folded)
        .bind(mapped)
        .bind(query.drifted);
    let row = statement.fetch_one(pool).await.map_err(|error| unavailable(&error))?;
    number(&row, 0)
}

pub(super) async fn rollout_page(pool: &SqlitePool, rollout: u64, page: u32) -> Result<Option<RolloutPage>> {
    let query = sqlx::query("SELECT body FROM pages WHERE rollout = ? AND page = ?");
    let query = query.bind(integer(rollout)).bind(i64::from(page));
    let row = query.fetch_optional(pool).await.map_err(|error| unavailable(&error))?;
    row.map(|row| records::decode(&text(&row, 0)?)).transpose()
}

pub(super) async fn idempotency(
    pool: &SqlitePool,
    actor: &Actor,
    key: &IdempotencyKey,
) -> Result<Option<IdempotencyRecord>> {
    let query = sqlx::query("SELECT body FROM keys WHERE actor = ? AND key = ?");
    let query = query.bind(actor.as_str()).bind(key.as_str());
    let row = query.fetch_optional(pool).await.map_err(|error| unavailable(&error))?;
    row.map(|row| records::decode(&text(&row, 0)?)).transpose()
}

pub(super) async fn events(
    pool: &SqlitePool,
    after: Option<u64>,
    limit: usize,
) -> Result<Vec<(u64, FeedEvent)>> {
    let query = sqlx::query("SELECT seq, body FROM events WHERE seq > ? ORDER BY seq LIMIT ?");
    let query = query.bind(integer(after.unwrap_or(0))).bind(one_more(limit) - 1);
    let rows = query.fetch_all(pool).await.map_err(|error| unavailable(&error))?;
    rows.iter().map(|row| Ok((number(row, 0)?, records::decode(&text(row, 1)?)?))).collect()
}

pub(super) async fn last_event(pool: &SqlitePool) -> Result<Option<u64>> {
    let row = sqlx::query("SELECT max(seq) FROM events").fetch_one(pool).await;
    let last = row.and_then(|row| row.try_get::<Option<i64>, _>(0));
    last.map(|last| last.map(natural)).map_err(|error| unavailable(&error))
}

/// Parses a subject in the format of its `Display` implementation.
fn subject(text: &str) -> Option<Subject> {
    match text.split_once('-') {
        Some(("site", id)) => SiteId::parse(id).ok().map(Subject::Site),
        Some(("service", color)) => Color::parse(color).ok().map(Subject::Service),
        Some(_) => None,
        None => Some(Subject::Fleet).filter(|fleet| fleet.to_string() == text),
    }
}

pub(super) async fn pending_work(pool: &SqlitePool) -> Result<Vec<PendingWork>> {
    const WORKING: &str = "SELECT number, owner, CASE status WHEN 'waiting' THEN wake END, asked, subject \
                           FROM working WHERE NOT rests ORDER BY number";
    const ACTIVE: &str = "SELECT number, owner, wake, asked FROM rollouts WHERE active ORDER BY number";
    let fetch =
        |sql| async move { sqlx::query(sql).fetch_all(pool).await.map_err(|error| unavailable(&error)) };
    let item = |row: &SqliteRow, subject| -> Result<PendingWork> {
        let column = |error: sqlx::Error| unavailable(&error);
        let owner: Option<String> = row.try_get(1).map_err(column)?;
        let next_poll_at: Option<i64> = row.try_get(2).map_err(column)?;
        Ok(PendingWork {
            subject,
            number: number(row, 0)?,
            owner: owner.as_deref().map(WorkerId::new),
            next_poll_at: next_poll_at.map(|next_poll_at| Timestamp::from_millis(natural(next_poll_at))),
            control_requested: row.try_get(3).map_err(column)?,
        })
    };
    let mut pending = Vec::new();
    for row in fetch(WORKING).await? {
        pending.push(item(&row, WorkItem::Operation(parsed(&row, 4, subject)?))?);
    }
    for row in fetch(ACTIVE).await? {
        pending.push(item(&row, WorkItem::Rollout(number(&row, 0)?))?);
    }
    Ok(pending)
}

/// The list of finished operations. Both lists have the same parameters; `?1` is an exclusive upper bound of the
/// number.
const FINISHED: &str = "SELECT number, body FROM history WHERE NOT member AND number < ?1 \
                     AND (?2 IS NULL OR subject = ?2) AND (?3 IS NULL OR kind = ?3) \
                     AND (?4 IS NULL OR status = ?4) ORDER BY number DESC LIMIT ?5";
const RUNNING: &str = "SELECT number, subject FROM working WHERE number < ?1 \
                       AND (?2 IS NULL OR subject = ?2) AND (?3 IS NULL OR kind = ?3) \
                       AND (?4 IS NULL OR status = ?4) ORDER BY number DESC LIMIT ?5";

pub(super) async fn operations(
    store: &EmbeddedStore,
    query: &OperationQuery,
    before: Option<u64>,
    limit: usize,
) -> Result<Page<Operation, u64>> {
    let site = query.site.as_ref().map(|site| Subject::Site(site.clone()).to_string());
    let fetch = |sql| {
        let statement = sqlx::query(sql)
            .bind(before_or_all(before))
            .bind(site.as_deref())
            .bind(query.kind.map(|kind| kind.as_str()))
            .bind(query.status.map(|status| status.as_str()))
            .bind(one_more(limit));
        async { statement.fetch_all(store.file.reader()).await.map_err(|error| unavailable(&error)) }
    };
    let mut found: Vec<(u64, Operation)> = Vec::new();
    // Running operations first: an operation that ends in between is then read twice instead of never.
    for row in fetch(RUNNING).await? {
        let (number, subject) = (number(&row, 0)?, parsed(&row, 1, subject)?);
        let state = match &subject {
            Subject::Site(id) => store.site(id).await?.and_then(|site| site.operation),
            Subject::Service(color) => store.service(*color).await?.operation,
            Subject::Fleet => store.fleet().await?.operation,
        };
        let state = state.filter(|state| state.number == number);
        found.extend(state.map(|state| (number, Operation::live(subject, state))));
    }
    for row in fetch(FINISHED).await? {
        let operation: Operation = records::decode(&text(&row, 1)?)?;
        found.retain(|(_, known)| known.id != operation.id);
        found.push((number(&row, 0)?, operation));
    }
    found.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    truncate(found, limit)
}
