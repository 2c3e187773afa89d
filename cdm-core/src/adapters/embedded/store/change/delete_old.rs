//! Deletes audit entries and events after their retention period.

use async_trait::async_trait;
use sqlx::{Row, SqliteConnection};

use super::super::error::Failure;
use super::super::read::{integer, natural};
use super::Change;
use crate::adapters::records::{self, Record};
use crate::domain::{AuditEntry, Timestamp};
use crate::ports::{CallContext, FeedEvent, Old};

/// Deletes a bounded number of the oldest audit entries and events.
pub(in super::super) struct DeleteOld(pub(in super::super) Old);

// The last row of each table stays, so that the numbers continue after it.
const OLDEST_AUDIT: &str =
    "SELECT seq, body FROM audit WHERE seq < (SELECT max(seq) FROM audit) ORDER BY seq LIMIT ?";
const OLDEST_EVENTS: &str =
    "SELECT seq, body FROM events WHERE seq < (SELECT max(seq) FROM events) ORDER BY seq LIMIT ?";

#[async_trait]
impl Change<u64> for DeleteOld {
    async fn run(
        &self,
        conn: &mut SqliteConnection,
        _call: &CallContext,
        _now: Timestamp,
    ) -> Result<u64, Failure> {
        let Old { audit_before, events_before, events_to, most } = self.0;
        let audit = oldest(conn, OLDEST_AUDIT, most, |entry: &AuditEntry| entry.at < audit_before).await?;
        let mut events =
            oldest(conn, OLDEST_EVENTS, most, |event: &FeedEvent| event.at < events_before).await?;
        events.retain(|number| events_to.is_none_or(|to| *number <= integer(to)));
        for number in &audit {
            sqlx::query("DELETE FROM audit WHERE seq = ?").bind(number).execute(&mut *conn).await?;
        }
        for number in &events {
            sqlx::query("DELETE FROM events WHERE seq = ?").bind(number).execute(&mut *conn).await?;
        }
        Ok(natural(integer((audit.len() + events.len()) as u64)))
    }
}

/// Returns the numbers of the oldest rows that are past their retention period.
async fn oldest<T: Record>(
    conn: &mut SqliteConnection,
    sql: &'static str,
    most: usize,
    is_old: impl Fn(&T) -> bool,
) -> Result<Vec<i64>, Failure> {
    let rows = sqlx::query(sql).bind(integer(most as u64)).fetch_all(conn).await?;
    let mut numbers = Vec::new();
    for row in rows {
        if is_old(&records::decode(row.try_get(1)?)?) {
            numbers.push(row.try_get(0)?);
        }
    }
    Ok(numbers)
}
