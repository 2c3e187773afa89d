//! A transaction that leaves its connection usable, regardless of how the transaction ends.
//!
//! SQLite ends a transaction itself when a commit fails, and when a statement fails because the disk is full. sqlx
//! tracks the nesting depth itself, and treats such a connection as inside a transaction forever. This transaction
//! rolls back what was not committed, and replaces a connection that cannot roll back.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqliteConnection, SqlitePool};
use tokio::runtime::Handle;

use super::space::{DiskSpace, write_probe};

/// `SQLITE_ERROR`, the result of `ROLLBACK` without an open transaction.
const NO_TRANSACTION: &str = "1";

/// A transaction on a pooled connection, which it returns to the pool when it ends.
#[derive(Debug)]
pub(in super::super) struct Transaction {
    /// `None` once the transaction has ended.
    connection: Option<PoolConnection<Sqlite>>,
    /// Where a writing transaction records whether the disk has space; `None` for reads.
    space: Option<Arc<DiskSpace>>,
}

impl Transaction {
    /// Starts a transaction on a connection of `pool` with `statement`.
    pub(super) async fn begin(
        pool: &SqlitePool,
        statement: &'static str,
        space: Option<Arc<DiskSpace>>,
    ) -> Result<Self, sqlx::Error> {
        // From here on, dropping this future rolls the connection back: the statement may have been sent.
        let mut tx = Self { connection: Some(pool.acquire().await?), space };
        execute_raw(&mut tx, statement).await.inspect_err(|error| tx.record_error(error))?;
        Ok(tx)
    }

    /// Commits the transaction. If the commit fails, no change was made, with one exception: the disk may have stored
    /// all changes before it failed, and the next process then finds them if this one is killed.
    pub(in super::super) async fn commit(mut self) -> Result<(), sqlx::Error> {
        let result = self.try_commit().await;
        match &result {
            Ok(()) => {
                self.connection = None;
                if let Some(space) = &self.space {
                    space.record_success();
                }
            }
            Err(error) => {
                self.record_error(error);
                self.end().await;
            }
        }
        result
    }

    async fn try_commit(&mut self) -> Result<(), sqlx::Error> {
        // A commit without changes needs no space, so it would show nothing about the space.
        if self.space.as_ref().is_some_and(|space| space.is_full()) {
            write_probe(self).await?;
        }
        execute_raw(self, "COMMIT").await
    }

    /// Rolls the transaction back, and waits for the end of the rollback.
    pub(in super::super) async fn rollback(mut self) {
        self.end().await;
    }

    /// Starts a savepoint, which [`Transaction::release_savepoint`] or [`Transaction::rollback_to_savepoint`] ends.
    pub(in super::super) async fn begin_savepoint(&mut self) -> Result<(), sqlx::Error> {
        execute_raw(self, "SAVEPOINT part").await
    }

    /// Keeps the changes since the savepoint. Fails if SQLite has rolled back the whole transaction in the meantime.
    pub(in super::super) async fn release_savepoint(&mut self) -> Result<(), sqlx::Error> {
        execute_raw(self, "RELEASE part").await
    }

    /// Undoes the changes since the savepoint. Fails if SQLite has rolled back the whole transaction in the meantime.
    pub(in super::super) async fn rollback_to_savepoint(&mut self) -> Result<(), sqlx::Error> {
        execute_raw(self, "ROLLBACK TO part; RELEASE part").await
    }

    /// Records the error of a statement.
    pub(in super::super) fn record_error(&self, error: &sqlx::Error) {
        if let Some(space) = &self.space {
            space.record_failure(error);
        }
    }

    async fn end(&mut self) {
        if let Some(connection) = self.connection.take() {
            end(connection).await;
        }
    }
}

/// Rolls back. If that fails, closes the connection, and the pool opens another one.
async fn end(mut connection: PoolConnection<Sqlite>) {
    let ended = execute_raw(&mut connection, "ROLLBACK").await;
    let no_transaction = |error: &sqlx::Error| {
        error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref()
            == Some(NO_TRANSACTION)
    };
    if let Err(error) = ended
        && !no_transaction(&error)
    {
        tracing::warn!(%error, "a connection to the database file is replaced, because its rollback failed");
        connection.close_on_drop();
    }
}

async fn execute_raw(connection: &mut SqliteConnection, statement: &'static str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(statement).execute(connection).await.map(drop)
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(end(connection))),
            // Without a runtime the rollback cannot be awaited. Closing the connection rolls back too.
            Err(_) => drop(connection.detach()),
        }
    }
}

impl Deref for Transaction {
    type Target = SqliteConnection;

    /// # Panics
    /// Never: only the functions that end the transaction take the connection.
    fn deref(&self) -> &SqliteConnection {
        match &self.connection {
            Some(connection) => connection,
            None => unreachable!("the transaction has ended"),
        }
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        match &mut self.connection {
            Some(connection) => connection,
            None => unreachable!("the transaction has ended"),
        }
    }
}
