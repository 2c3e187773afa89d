//! The writer: applies queued changes in groups of one commit. Each change is atomic.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use sqlx::SqliteConnection;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::super::file::{File, Transaction};
use super::change::Change;
use super::error::{Failure, unavailable};
use crate::domain::{MonotonicTime, Timestamp};
use crate::ports::{CallContext, Clock, Outcome, StoreError, WriteError};

/// The maximum number of changes in one commit.
const MAX_GROUP: usize = 64;

/// A handle to the writer's queue. The writer ends when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Writer(mpsc::UnboundedSender<Box<dyn PendingChange>>);

impl Writer {
    /// Starts the writer. A change is committed at once if no other change is queued.
    pub(super) fn start(file: File, clock: Arc<dyn Clock>) -> Self {
        let (queued, waiting) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(run_writer(file, clock, waiting));
        tasks.detach_all();
        Self(queued)
    }

    /// Applies a change. A failure before the commit means that nothing changed; after a failed commit the outcome is
    /// unknown. Dropping the future is safe: a change that has not started is then skipped, and a change that has
    /// started is completed.
    pub(super) async fn change<T, C>(&self, call: &CallContext, change: C) -> Outcome<T, WriteError>
    where
        T: Send + 'static,
        C: Change<T> + 'static,
    {
        let (reply, response) = oneshot::channel();
        let queued = QueuedChange { call: *call, change, result: None, reply };
        if self.0.send(Box::new(queued)).is_err() {
            return Outcome::NotApplied(write_error("the store was closed"));
        }
        response
            .await
            .unwrap_or_else(|_| Outcome::Unknown(write_error("the store was closed before it responded")))
    }
}

enum CommitOutcome {
    Committed,
    /// Nothing was written.
    RolledBack(StoreError),
    Unknown(StoreError),
}

/// A queued change, independent of the type of its result.
#[async_trait]
trait PendingChange: Send {
    /// Returns whether the change should still run: its deadline has not passed, and its caller still waits.
    fn should_run(&mut self, now: MonotonicTime) -> bool;
    /// Runs the change. Returns whether its writes are to be kept.
    async fn run(&mut self, conn: &mut SqliteConnection, now: Timestamp) -> bool;
    fn respond(self: Box<Self>, commit: &CommitOutcome);
}

struct QueuedChange<T, C> {
    call: CallContext,
    change: C,
    result: Option<Result<T, Failure>>,
    reply: oneshot::Sender<Outcome<T, WriteError>>,
}

#[async_trait]
impl<T: Send, C: Change<T>> PendingChange for QueuedChange<T, C> {
    fn should_run(&mut self, now: MonotonicTime) -> bool {
        let late = now > self.call.deadline;
        if late {
            self.result = Some(Err(write_error("the deadline passed before the change started").into()));
        }
        !late && !self.reply.is_closed()
    }

    async fn run(&mut self, conn: &mut SqliteConnection, now: Timestamp) -> bool {
        self.result.insert(self.change.run(conn, &self.call, now).await).is_ok()
    }

    fn respond(self: Box<Self>, commit: &CommitOutcome) {
        let outcome = match (self.result, commit) {
            (Some(Err(Failure::Sql(error))), _) => {
                Outcome::NotApplied(WriteError::Store(unavailable(&error)))
            }
            (Some(Ok(value)), CommitOutcome::Committed) => Outcome::Applied(value),
            (Some(Ok(_)), CommitOutcome::Unknown(why)) => Outcome::Unknown(WriteError::Store(why.clone())),
            (Some(Err(Failure::Refused(refused))), CommitOutcome::Committed) => Outcome::NotApplied(refused),
            // The rejection may be based on a change of the same group that was not committed.
            (Some(Ok(_) | Err(Failure::Refused(_))), CommitOutcome::RolledBack(why))
            | (Some(Err(Failure::Refused(_))), CommitOutcome::Unknown(why)) => {
                Outcome::NotApplied(WriteError::Store(why.clone()))
            }
            (None, _) => Outcome::NotApplied(write_error("the change was not started")),
        };
        // The caller may have dropped its future.
        let _ = self.reply.send(outcome);
    }
}

fn write_error(why: &str) -> WriteError {
    WriteError::Store(StoreError::Unavailable(why.to_owned()))
}

async fn run_writer(
    file: File,
    clock: Arc<dyn Clock>,
    mut waiting: mpsc::UnboundedReceiver<Box<dyn PendingChange>>,
) {
    while let Some(first) = waiting.recv().await {
        let mut group = Vec::new();
        let written = write(&file, &*clock, first, &mut waiting, &mut group);
        // If a change panics, its group fails; the next group is not affected.
        let commit = AssertUnwindSafe(written).catch_unwind().await;
        let commit = commit.unwrap_or_else(|_| {
            CommitOutcome::RolledBack(StoreError::Unavailable(
                "another change of the same commit failed unexpectedly".to_owned(),
            ))
        });
        for item in group {
            item.respond(&commit);
        }
    }
}

/// Applies a change, and further queued changes, in one commit.
async fn write(
    file: &File,
    clock: &dyn Clock,
    first: Box<dyn PendingChange>,
    waiting: &mut mpsc::UnboundedReceiver<Box<dyn PendingChange>>,
    group: &mut Vec<Box<dyn PendingChange>>,
) -> CommitOutcome {
    let rolled_back = |error: &sqlx::Error| CommitOutcome::RolledBack(unavailable(error));
    let started = file.begin().await;
    let mut next = Some(first);
    let mut failed = None;
    let mut transaction = match started {
        Ok(transaction) => transaction,
        Err(error) => {
            group.extend(next);
            while group.len() < MAX_GROUP
                && let Ok(item) = waiting.try_recv()
            {
                group.push(item);
            }
            return rolled_back(&error);
        }
    };
    while let Some(mut item) = next {
        if item.should_run(clock.monotonic()) {
            failed = run_in_savepoint(&mut transaction, &mut *item, clock.wall()).await.err();
        }
        group.push(item);
        next = if group.len() < MAX_GROUP && failed.is_none() { waiting.try_recv().ok() } else { None };
    }
    // SQLite may have rolled back the whole transaction, so the remaining changes must not be committed.
    if let Some(error) = failed {
        transaction.rollback().await;
        return rolled_back(&error);
    }
    match transaction.commit().await {
        Ok(()) => CommitOutcome::Committed,
        Err(error) => CommitOutcome::Unknown(unavailable(&error)),
    }
}

/// Applies one change of a group in a savepoint. If the change fails, only its own writes are rolled back.
async fn run_in_savepoint(
    transaction: &mut Transaction,
    item: &mut dyn PendingChange,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    transaction.begin_savepoint().await?;
    if item.run(transaction, now).await {
        transaction.release_savepoint().await
    } else {
        transaction.rollback_to_savepoint().await
    }
}
