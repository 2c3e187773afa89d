//! The one that writes: makes the changes that wait under one commit, each of them in whole or not at all.

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

/// How many changes one commit has at most.
const MOST: usize = 64;

/// Where changes are asked for; clones ask the same writer. It ends with the last of them.
#[derive(Clone)]
pub(super) struct Writer(mpsc::UnboundedSender<Box<dyn Asked>>);

impl Writer {
    /// Begins to write. A change that nobody waits with is committed at once.
    pub(super) fn start(file: File, clock: Arc<dyn Clock>) -> Self {
        let (asked, waiting) = mpsc::unbounded_channel();
        let mut input = JoinSet::new();
        input.spawn(keep(file, clock, waiting));
        input.detach_all();
        Self(asked)
    }

    /// Makes a change. What fails before the commit has changed nothing; of what fails in the commit nobody knows. To
    /// drop the call does no harm: a change that has not begun is not made then, another is made.
    pub(super) async fn change<T, C>(&self, call: &CallContext, change: C) -> Outcome<T, WriteError>
    where
        T: Send + 'static,
        C: Change<T> + 'static,
    {
        let (to, answer) = oneshot::channel();
        let asked = One { call: *call, change, made: None, to };
        if self.0.send(Box::new(asked)).is_err() {
            return Outcome::NotApplied(refusal("the store is closed"));
        }
        answer.await.unwrap_or_else(|_| Outcome::Unknown(refusal("the store ended before it answered")))
    }
}

/// What became of a commit.
enum End {
    Committed,
    /// Nothing of it was written.
    Undone(StoreError),
    Unknown(StoreError),
}

/// A change that waits, whatever it answers.
#[async_trait]
trait Asked: Send {
    /// Whether it is still to be made at this time.
    fn wanted(&mut self, now: MonotonicTime) -> bool;
    /// Whether what it did is to be kept.
    async fn run(&mut self, on: &mut SqliteConnection, now: Timestamp) -> bool;
    fn answer(self: Box<Self>, end: &End);
}

struct One<T, C> {
    call: CallContext,
    change: C,
    made: Option<Result<T, Failure>>,
    to: oneshot::Sender<Outcome<T, WriteError>>,
}

#[async_trait]
impl<T: Send, C: Change<T>> Asked for One<T, C> {
    fn wanted(&mut self, now: MonotonicTime) -> bool {
        let late = now > self.call.deadline;
        if late {
            self.made = Some(Err(refusal("the call's deadline has passed").into()));
        }
        !late && !self.to.is_closed()
    }

    async fn run(&mut self, on: &mut SqliteConnection, now: Timestamp) -> bool {
        self.made.insert(self.change.run(on, &self.call, now).await).is_ok()
    }

    fn answer(self: Box<Self>, end: &End) {
        let outcome = match (self.made, end) {
            (Some(Err(Failure::Sql(error))), _) => {
                Outcome::NotApplied(WriteError::Store(unavailable(&error)))
            }
            (Some(Ok(value)), End::Committed) => Outcome::Applied(value),
            (Some(Ok(_)), End::Unknown(why)) => Outcome::Unknown(WriteError::Store(why.clone())),
            (Some(Err(Failure::Refused(refused))), End::Committed) => Outcome::NotApplied(refused),
            // Why it was refused may have been a change that is not there.
            (Some(Ok(_) | Err(Failure::Refused(_))), End::Undone(why))
            | (Some(Err(Failure::Refused(_))), End::Unknown(why)) => {
                Outcome::NotApplied(WriteError::Store(why.clone()))
            }
            (None, _) => Outcome::NotApplied(refusal("the change was not begun")),
        };
        // Whoever asked may be gone.
        let _ = self.to.send(outcome);
    }
}

fn refusal(why: &str) -> WriteError {
    WriteError::Store(StoreError::Unavailable(why.to_owned()))
}

async fn keep(file: File, clock: Arc<dyn Clock>, mut waiting: mpsc::UnboundedReceiver<Box<dyn Asked>>) {
    while let Some(first) = waiting.recv().await {
        let mut group = Vec::new();
        let written = write(&file, &*clock, first, &mut waiting, &mut group);
        // A change that panics takes its group with it, and leaves the next one alone.
        let end = AssertUnwindSafe(written).catch_unwind().await;
        let end = end.unwrap_or_else(|_| {
            End::Undone(StoreError::Unavailable("a change of the same commit broke off".to_owned()))
        });
        for one in group {
            one.answer(&end);
        }
    }
}

/// Makes a change, and after it those that have come meanwhile.
async fn write(
    file: &File,
    clock: &dyn Clock,
    first: Box<dyn Asked>,
    waiting: &mut mpsc::UnboundedReceiver<Box<dyn Asked>>,
    group: &mut Vec<Box<dyn Asked>>,
) -> End {
    let undone = |error: &sqlx::Error| End::Undone(unavailable(error));
    let begun = file.begin().await;
    let mut next = Some(first);
    let mut broken = None;
    let mut transaction = match begun {
        Ok(transaction) => transaction,
        Err(error) => {
            group.extend(next);
            while group.len() < MOST
                && let Ok(one) = waiting.try_recv()
            {
                group.push(one);
            }
            return undone(&error);
        }
    };
    while let Some(mut one) = next {
        if one.wanted(clock.monotonic()) {
            broken = alone(&mut transaction, &mut *one, clock.wall()).await.err();
        }
        group.push(one);
        next = if group.len() < MOST && broken.is_none() { waiting.try_recv().ok() } else { None };
    }
    // The file itself may have undone everything so far; what was done is not to be committed in part.
    if let Some(error) = broken {
        transaction.rollback().await;
        return undone(&error);
    }
    match transaction.commit().await {
        Ok(()) => End::Committed,
        Err(error) => End::Unknown(unavailable(&error)),
    }
}

/// Makes one change of several; if it fails, it alone is undone.
async fn alone(
    transaction: &mut Transaction,
    one: &mut dyn Asked,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    transaction.begin_part().await?;
    if one.run(transaction, now).await {
        transaction.keep_part().await
    } else {
        transaction.undo_part().await
    }
}
