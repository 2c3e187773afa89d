//! What changed: one row for each thing, with the number of its last change.

use std::time::Duration;

use sqlx::{Row, SqliteConnection};

use super::tables::{bump, count, damaged};
use super::{GLANCE, Inner};
use crate::domain::{Color, JobName};
use crate::ports::{ChangeCursor, Changed};

/// Counts changes.
const NEWS: &str = "news";
/// The number of the last change that was forgotten.
const FORGOTTEN: &str = "forgotten";

/// How many numbers back changes are remembered.
const MEMORY: i64 = 20_000;
/// After how many changes the oldest are forgotten.
const SWEEP: i64 = 1_000;

/// Writes down that something changed, in the transaction that changes it.
pub(super) async fn tell(conn: &mut SqliteConnection, changed: &Changed) -> Result<(), sqlx::Error> {
    let number = bump(conn, NEWS).await?;
    let thing = match changed {
        Changed::Job(name) => format!("job/{name}"),
        Changed::Service(color) => format!("service/{color}"),
        Changed::Anything => "anything".to_owned(),
    };
    sqlx::query("INSERT OR REPLACE INTO cluster_news (thing, number) VALUES (?, ?)")
        .bind(thing)
        .bind(number)
        .execute(&mut *conn)
        .await?;
    if number % SWEEP == 0 && number > MEMORY {
        forget(conn, number - MEMORY).await?;
    }
    Ok(())
}

async fn forget(conn: &mut SqliteConnection, until: i64) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM cluster_news WHERE number <= ?").bind(until).execute(&mut *conn).await?;
    sqlx::query("INSERT OR REPLACE INTO cluster_counts (name, value) VALUES (?, ?)")
        .bind(FORGOTTEN)
        .bind(until)
        .execute(conn)
        .await
        .map(drop)
}

/// What changed since `mark`, waiting at most `wait` for something.
pub(super) async fn since(
    inner: &Inner,
    mark: ChangeCursor,
    wait: Duration,
) -> Result<(Vec<Changed>, ChangeCursor), sqlx::Error> {
    let until = inner.clock.monotonic().after(wait);
    let mut pulse = inner.pulse.subscribe();
    loop {
        // Before the look, so that whatever comes after the look shows as another version.
        let version = inner.file.version().await?;
        let (news, next) = look(inner, mark).await?;
        if !news.is_empty() {
            return Ok((news, next));
        }
        loop {
            if inner.clock.monotonic() >= until {
                return Ok((news, next));
            }
            let glance = inner.clock.monotonic().after(GLANCE).min(until);
            tokio::select! {
                _ = pulse.changed() => {}
                () = inner.clock.sleep_until(glance) => {}
            }
            if inner.file.version().await? != version {
                break;
            }
        }
    }
}

async fn look(inner: &Inner, mark: ChangeCursor) -> Result<(Vec<Changed>, ChangeCursor), sqlx::Error> {
    let mut tx = inner.file.snapshot().await?;
    let last = count(&mut tx, NEWS).await?;
    let forgotten = count(&mut tx, FORGOTTEN).await?;
    let next = ChangeCursor(u64::try_from(last).unwrap_or_default());
    let from = i64::try_from(mark.0).unwrap_or(i64::MAX);
    if from < forgotten || from > last {
        return Ok((vec![Changed::Anything], next));
    }
    let rows = sqlx::query("SELECT thing FROM cluster_news WHERE number > ? ORDER BY number").bind(from);
    let rows = rows.fetch_all(&mut *tx).await?;
    let news = rows.iter().map(|row| parse(row.try_get(0)?)).collect::<Result<_, _>>()?;
    Ok((news, next))
}

fn parse(thing: &str) -> Result<Changed, sqlx::Error> {
    let changed = match thing.split_once('/') {
        Some(("job", name)) => JobName::parse(name).map(Changed::Job),
        Some(("service", color)) => Color::parse(color).ok().map(Changed::Service),
        Some(_) => None,
        None => (thing == "anything").then_some(Changed::Anything),
    };
    changed.ok_or_else(|| damaged("a change"))
}
