//! Change notifications: one row per changed object, with the number of its last change.

use std::time::Duration;

use sqlx::{Row, SqliteConnection};

use super::tables::{count, damaged, next_number};
use super::{Inner, POLL_INTERVAL};
use crate::domain::{Color, JobName};
use crate::ports::{ChangeCursor, Changed};

/// The counter of changes.
const CHANGES: &str = "news";
/// The counter with the number of the last discarded change.
const DISCARDED: &str = "forgotten";

/// How many of the latest change numbers are kept.
const KEPT_CHANGES: i64 = 20_000;
/// How many changes pass between two removals of old ones.
const SWEEP_INTERVAL: i64 = 1_000;

/// Records a change, in the transaction that makes the change.
pub(super) async fn record(conn: &mut SqliteConnection, changed: &Changed) -> Result<(), sqlx::Error> {
    let number = next_number(conn, CHANGES).await?;
    let object = match changed {
        Changed::Job(name) => format!("job/{name}"),
        Changed::Service(color) => format!("service/{color}"),
        Changed::Anything => "anything".to_owned(),
    };
    sqlx::query("INSERT OR REPLACE INTO cluster_news (thing, number) VALUES (?, ?)")
        .bind(object)
        .bind(number)
        .execute(&mut *conn)
        .await?;
    if number % SWEEP_INTERVAL == 0 && number > KEPT_CHANGES {
        discard(conn, number - KEPT_CHANGES).await?;
    }
    Ok(())
}

async fn discard(conn: &mut SqliteConnection, until: i64) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM cluster_news WHERE number <= ?").bind(until).execute(&mut *conn).await?;
    sqlx::query("INSERT OR REPLACE INTO cluster_counts (name, value) VALUES (?, ?)")
        .bind(DISCARDED)
        .bind(until)
        .execute(conn)
        .await
        .map(drop)
}

/// Returns the changes since `cursor`; waits up to `wait` for the first one.
pub(super) async fn since(
    inner: &Inner,
    cursor: ChangeCursor,
    wait: Duration,
) -> Result<(Vec<Changed>, ChangeCursor), sqlx::Error> {
    let until = inner.clock.monotonic().after(wait);
    let mut change_signal = inner.change_signal.subscribe();
    loop {
        // Read before the changes, so that a write after reading them shows as another version.
        let version = inner.file.version().await?;
        let (changes, next) = read_changes(inner, cursor).await?;
        if !changes.is_empty() {
            return Ok((changes, next));
        }
        loop {
            if inner.clock.monotonic() >= until {
                return Ok((changes, next));
            }
            let next_poll = inner.clock.monotonic().after(POLL_INTERVAL).min(until);
            tokio::select! {
                _ = change_signal.changed() => {}
                () = inner.clock.sleep_until(next_poll) => {}
            }
            if inner.file.version().await? != version {
                break;
            }
        }
    }
}

async fn read_changes(
    inner: &Inner,
    cursor: ChangeCursor,
) -> Result<(Vec<Changed>, ChangeCursor), sqlx::Error> {
    let mut tx = inner.file.snapshot().await?;
    let last = count(&mut tx, CHANGES).await?;
    let discarded = count(&mut tx, DISCARDED).await?;
    let next = ChangeCursor(u64::try_from(last).unwrap_or_default());
    let from = i64::try_from(cursor.0).unwrap_or(i64::MAX);
    if from < discarded || from > last {
        return Ok((vec![Changed::Anything], next));
    }
    let rows = sqlx::query("SELECT thing FROM cluster_news WHERE number > ? ORDER BY number").bind(from);
    let rows = rows.fetch_all(&mut *tx).await?;
    let changes = rows.iter().map(|row| parse(row.try_get(0)?)).collect::<Result<_, _>>()?;
    Ok((changes, next))
}

fn parse(object: &str) -> Result<Changed, sqlx::Error> {
    let changed = match object.split_once('/') {
        Some(("job", name)) => JobName::parse(name).map(Changed::Job),
        Some(("service", color)) => Color::parse(color).ok().map(Changed::Service),
        Some(_) => None,
        None => (object == "anything").then_some(Changed::Anything),
    };
    changed.ok_or_else(|| damaged("a change"))
}
