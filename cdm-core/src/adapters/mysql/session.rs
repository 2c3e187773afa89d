//! A connection for one call: its time limit, its lock, and whether a changing statement was sent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, MySqlConnection, Row};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::failure::Failure;
use super::quoting::{Backslash, Quoting, Wildcards};
use crate::domain::MonotonicTime;
use crate::ports::{Clock, ErrorKind};

/// A connection that is closed when its call ends.
///
/// Connections are not pooled: after a failover, a pooled connection could lead to a server that is read-only. Closing
/// the connection also releases the call's lock and ends a waiting statement.
#[derive(Debug)]
pub(super) struct Session<'a> {
    connection: MySqlConnection,
    /// How this server parses quoted text.
    pub(super) quoting: Quoting,
    clock: &'a dyn Clock,
    deadline: MonotonicTime,
    change_sent: &'a AtomicBool,
    _permit: SemaphorePermit<'a>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits<'a> {
    pub(super) clock: &'a dyn Clock,
    pub(super) deadline: MonotonicTime,
    /// Set before the first changing statement is sent.
    pub(super) change_sent: &'a AtomicBool,
}

impl<'a> Session<'a> {
    pub(super) async fn open(
        options: &MySqlConnectOptions,
        permits: &'a Semaphore,
        limits: Limits<'a>,
    ) -> Result<Self, Failure> {
        let Limits { clock, deadline, change_sent } = limits;
        let permit = permits.acquire().await.map_err(|_| Failure::late())?;
        let connection = options.connect().await?;
        let quoting = Quoting { backslash: Backslash::Escape, wildcards: Wildcards::Match };
        let mut session = Self { connection, quoting, clock, deadline, change_sent, _permit: permit };
        session.set_time_limits().await?;
        session.quoting = session.read_quoting().await?;
        Ok(session)
    }

    /// Closes the connection, so that the server does not have to detect its end. A failure has no effect.
    pub(super) async fn close(self) {
        drop(self.connection.close().await);
    }

    /// Limits the time on the server, so that it ends a statement by the deadline itself: MariaDB any statement, MySQL
    /// reads and statements that wait for a lock. The server closes an idle session soon after the deadline, which
    /// releases its lock.
    async fn set_time_limits(&mut self) -> Result<(), Failure> {
        let remaining = self.deadline.since(self.clock.monotonic());
        if remaining.is_zero() {
            return Err(Failure::late());
        }
        let (seconds, millis) = (remaining.as_secs().max(1), remaining.as_millis().max(1));
        let (whole, part) = (millis / 1000, millis % 1000);
        let idle = seconds + 1;
        let set = format!(
            "SET SESSION autocommit = 1, lock_wait_timeout = {seconds}, innodb_lock_wait_timeout = {seconds}, \
             wait_timeout = {idle} /*M! , max_statement_time = {whole}.{part:03} */ \
             /*!50708 , max_execution_time = {millis} */"
        );
        sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut self.connection).await?;
        Ok(())
    }

    async fn read_quoting(&mut self) -> Result<Quoting, Failure> {
        let modes = self.texts("SELECT CAST(@@sql_mode AS CHAR)", &[]).await?;
        let literal = modes.iter().any(|mode| mode.contains("NO_BACKSLASH_ESCAPES"));
        let show = "SHOW GLOBAL VARIABLES WHERE Variable_name = 'partial_revokes' AND Value = 'ON'";
        let revokes = self.rows(show, &[]).await?;
        Ok(Quoting {
            backslash: if literal { Backslash::Literal } else { Backslash::Escape },
            wildcards: if revokes.is_empty() { Wildcards::Match } else { Wildcards::Literal },
        })
    }

    /// Sends a changing statement. All variable parts of the statement must be quoted with `quoting`.
    pub(super) async fn change(&mut self, statement: String) -> Result<(), Failure> {
        self.set_time_limits().await?;
        self.change_sent.store(true, Ordering::Relaxed);
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut self.connection).await?;
        Ok(())
    }

    /// Returns the first column of a statement that cannot be prepared. All variable parts must be quoted with
    /// `quoting`.
    pub(super) async fn raw_texts(&mut self, statement: String) -> Result<Vec<String>, Failure> {
        let rows = sqlx::raw_sql(AssertSqlSafe(statement)).fetch_all(&mut self.connection).await?;
        rows.iter().map(|row| Ok(row.try_get_unchecked(0)?)).collect()
    }

    /// Returns the rows of a query.
    pub(super) async fn rows(
        &mut self,
        query: &'static str,
        values: &[&str],
    ) -> Result<Vec<MySqlRow>, Failure> {
        let query = sqlx::query(query).persistent(false);
        let query = values.iter().fold(query, |query, value| query.bind((*value).to_owned()));
        Ok(query.fetch_all(&mut self.connection).await?)
    }

    /// Returns the first column of a query. Queries cast it, because the types of system tables differ between servers.
    pub(super) async fn texts(
        &mut self,
        query: &'static str,
        values: &[&str],
    ) -> Result<Vec<String>, Failure> {
        let rows = self.rows(query, values).await?;
        rows.iter().map(|row| Ok(row.try_get_unchecked(0)?)).collect()
    }

    /// Acquires the lock with this name, until the session ends. A statement that still runs on the server keeps the
    /// lock, even if its call has ended.
    pub(super) async fn lock(&mut self, name: &str) -> Result<(), Failure> {
        let remaining = self.deadline.since(self.clock.monotonic()).as_secs().to_string();
        let acquired = self.texts("SELECT CAST(GET_LOCK(?, ?) AS CHAR)", &[name, &remaining]).await;
        if acquired?.iter().any(|acquired| acquired == "1") {
            return Ok(());
        }
        Err(Failure::new(ErrorKind::Unavailable, "another call uses the same database at the moment"))
    }

    /// Sleeps, to give the server time for an earlier statement.
    pub(super) async fn pause(&self, duration: Duration) {
        self.clock.sleep_until(self.clock.monotonic().after(duration)).await;
    }
}
