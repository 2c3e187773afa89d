//! One connection for one call: what it may take, the lock that it holds, and whether it has begun to change anything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, MySqlConnection, Row};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::failure::Failure;
use super::quoting::{Backslash, Quoting, Wildcards};
use crate::domain::MonotonicTime;
use crate::ports::{Clock, ErrorKind};

/// A connection that ends with its call; clones of nothing, kept by nobody.
///
/// A kept one would, after a fail-over, lead to a server that only reads. And with its connection go a call's lock and
/// whatever it still waits for.
#[derive(Debug)]
pub(super) struct Session<'a> {
    connection: MySqlConnection,
    /// How this server reads what is quoted.
    pub(super) quoting: Quoting,
    clock: &'a dyn Clock,
    deadline: MonotonicTime,
    begun: &'a AtomicBool,
    _turn: SemaphorePermit<'a>,
}

/// Whose time a session's work takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<'a> {
    pub(super) clock: &'a dyn Clock,
    pub(super) deadline: MonotonicTime,
    /// Set before the first statement that changes something is sent.
    pub(super) begun: &'a AtomicBool,
}

impl<'a> Session<'a> {
    pub(super) async fn open(
        options: &MySqlConnectOptions,
        turns: &'a Semaphore,
        span: Span<'a>,
    ) -> Result<Self, Failure> {
        let Span { clock, deadline, begun } = span;
        let turn = turns.acquire().await.map_err(|_| Failure::late())?;
        let connection = options.connect().await?;
        let quoting = Quoting { backslash: Backslash::Escape, wildcards: Wildcards::Match };
        let mut session = Self { connection, quoting, clock, deadline, begun, _turn: turn };
        session.limit().await?;
        session.quoting = session.look_how_it_reads().await?;
        Ok(session)
    }

    /// Says good-bye, so that the server need not find out. Whether that is heard changes nothing.
    pub(super) async fn close(self) {
        drop(self.connection.close().await);
    }

    /// Tells the server how long it may still take, so that it ends by the deadline on its own: MariaDB any statement,
    /// MySQL what waits for a lock, and reads. A session that nobody speaks to is closed soon after, with its lock.
    async fn limit(&mut self) -> Result<(), Failure> {
        let left = self.deadline.since(self.clock.monotonic());
        if left.is_zero() {
            return Err(Failure::late());
        }
        let (seconds, millis) = (left.as_secs().max(1), left.as_millis().max(1));
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

    async fn look_how_it_reads(&mut self) -> Result<Quoting, Failure> {
        let modes = self.texts("SELECT CAST(@@sql_mode AS CHAR)", &[]).await?;
        let literal = modes.iter().any(|mode| mode.contains("NO_BACKSLASH_ESCAPES"));
        let show = "SHOW GLOBAL VARIABLES WHERE Variable_name = 'partial_revokes' AND Value = 'ON'";
        let revokes = self.rows(show, &[]).await?;
        Ok(Quoting {
            backslash: if literal { Backslash::Literal } else { Backslash::Escape },
            wildcards: if revokes.is_empty() { Wildcards::Match } else { Wildcards::Literal },
        })
    }

    /// Sends a statement that changes something. What is not constant in it has gone through `quoting`.
    pub(super) async fn change(&mut self, statement: String) -> Result<(), Failure> {
        self.limit().await?;
        self.begun.store(true, Ordering::Relaxed);
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut self.connection).await?;
        Ok(())
    }

    /// The rows of a statement that cannot be prepared. What is not constant in it has gone through `quoting`.
    pub(super) async fn shown(&mut self, statement: String) -> Result<Vec<String>, Failure> {
        let rows = sqlx::raw_sql(AssertSqlSafe(statement)).fetch_all(&mut self.connection).await?;
        rows.iter().map(|row| Ok(row.try_get_unchecked(0)?)).collect()
    }

    /// The rows of a query.
    pub(super) async fn rows(
        &mut self,
        query: &'static str,
        values: &[&str],
    ) -> Result<Vec<MySqlRow>, Failure> {
        let query = sqlx::query(query).persistent(false);
        let query = values.iter().fold(query, |query, value| query.bind((*value).to_owned()));
        Ok(query.fetch_all(&mut self.connection).await?)
    }

    /// The first column of a query's rows. Servers differ in the types of their own tables: a query casts.
    pub(super) async fn texts(
        &mut self,
        query: &'static str,
        values: &[&str],
    ) -> Result<Vec<String>, Failure> {
        let rows = self.rows(query, values).await?;
        rows.iter().map(|row| Ok(row.try_get_unchecked(0)?)).collect()
    }

    /// Takes the lock of that name, which lasts as long as the session. A statement that is under way keeps it, also
    /// when nobody listens any more.
    pub(super) async fn lock(&mut self, name: &str) -> Result<(), Failure> {
        let left = self.deadline.since(self.clock.monotonic()).as_secs().to_string();
        let taken = self.texts("SELECT CAST(GET_LOCK(?, ?) AS CHAR)", &[name, &left]).await;
        if taken?.iter().any(|taken| taken == "1") {
            return Ok(());
        }
        Err(Failure::new(ErrorKind::Unavailable, "another call is at work on the same database"))
    }

    /// Lets a moment pass in which the server does what it was told.
    pub(super) async fn pause(&self, moment: Duration) {
        self.clock.sleep_until(self.clock.monotonic().after(moment)).await;
    }
}
