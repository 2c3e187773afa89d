//! A transaction that leaves its connection usable, however it ends.
//!
//! SQLite ends a transaction by itself when a commit fails, and when a statement meets a full disk. sqlx counts
//! the depth itself and treats such a connection as inside a transaction for good. This transaction rolls back what was
//! not committed, and replaces a connection that cannot roll back.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqliteConnection, SqlitePool};
use tokio::runtime::Handle;

use super::space::{Space, write_probe};

/// `SQLITE_ERROR`, which `ROLLBACK` answers where no transaction is open.
const NONE_OPEN: &str = "1";

/// A transaction on a connection of its own, which it gives back in the end.
#[derive(Debug)]
pub(in super::super) struct Transaction {
    /// Taken when the transaction has ended.
    connection: Option<PoolConnection<Sqlite>>,
    /// Where a writing transaction notes what the disk does.
    space: Option<Arc<Space>>,
}

impl Transaction {
    /// Begins on a connection of `pool`, by `statement`.
    pub(super) async fn begin(
        pool: &SqlitePool,
        statement: &'static str,
        space: Option<Arc<Space>>,
    ) -> Result<Self, sqlx::Error> {
        // From here on the connection is rolled back when this future is dropped: the statement may be on its way.
        let mut begun = Self { connection: Some(pool.acquire().await?), space };
        run(&mut begun, statement).await.inspect_err(|error| begun.note(error))?;
        Ok(begun)
    }

    /// Makes everything since the beginning last. When it fails, nothing of it is there, but for one case: the disk may
    /// have taken all of it before it failed, and a process that is killed then finds it there.
    pub(in super::super) async fn commit(mut self) -> Result<(), sqlx::Error> {
        let done = self.try_commit().await;
        match &done {
            Ok(()) => {
                self.connection = None;
                if let Some(space) = &self.space {
                    space.written();
                }
            }
            Err(error) => {
                self.note(error);
                self.end().await;
            }
        }
        done
    }

    async fn try_commit(&mut self) -> Result<(), sqlx::Error> {
        // A commit that changes nothing needs no space and says nothing about it.
        if self.space.as_ref().is_some_and(|space| space.is_full()) {
            write_probe(self).await?;
        }
        run(self, "COMMIT").await
    }

    /// Rolls everything back, and waits for it.
    pub(in super::super) async fn rollback(mut self) {
        self.end().await;
    }

    /// Opens a part of the transaction that [`Transaction::keep_part`] or [`Transaction::undo_part`] ends.
    pub(in super::super) async fn begin_part(&mut self) -> Result<(), sqlx::Error> {
        run(self, "SAVEPOINT part").await
    }

    /// Keeps what was done since the part began. Fails where SQLite has undone the whole transaction meanwhile.
    pub(in super::super) async fn keep_part(&mut self) -> Result<(), sqlx::Error> {
        run(self, "RELEASE part").await
    }

    /// Undoes what was done since the part began, likewise.
    pub(in super::super) async fn undo_part(&mut self) -> Result<(), sqlx::Error> {
        run(self, "ROLLBACK TO part; RELEASE part").await
    }

    /// Takes note of an error of a statement.
    pub(in super::super) fn note(&self, error: &sqlx::Error) {
        if let Some(space) = &self.space {
            space.failed(error);
        }
    }

    async fn end(&mut self) {
        if let Some(connection) = self.connection.take() {
            end(connection).await;
        }
    }
}

/// Rolls back; a connection on which that fails is closed, and the pool opens another one.
async fn end(mut connection: PoolConnection<Sqlite>) {
    let ended = run(&mut connection, "ROLLBACK").await;
    let none_open = |error: &sqlx::Error| {
        error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() == Some(NONE_OPEN)
    };
    if let Err(error) = ended
        && !none_open(&error)
    {
        tracing::warn!(%error, "a connection to the database file is replaced: it does not roll back");
        connection.close_on_drop();
    }
}

async fn run(on: &mut SqliteConnection, statement: &'static str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(statement).execute(on).await.map(drop)
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(end(connection))),
            // Without a runtime nothing can be awaited. To close the connection rolls back too.
            Err(_) => drop(connection.detach()),
        }
    }
}

impl Deref for Transaction {
    type Target = SqliteConnection;

    /// # Panics
    /// Never: the connection is taken only by what ends the transaction.
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
