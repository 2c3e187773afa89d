//! Coalesces concurrent reads by key: all keys that are requested while a statement runs are read by the next
//! statement.
//!
//! A statement costs several thread switches, much more than SQLite needs to find a row, so one statement at a time
//! reads all keys that have been requested. Every response is read after its request; nothing is cached.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::future::{Either, select};
use tokio::sync::oneshot::{self, error::TryRecvError};

/// The maximum number of requests that one statement serves.
const MAX_BATCH: usize = 64;

/// A requested key, and the channel for the response.
struct Waiter<K, V, E> {
    key: K,
    reply: oneshot::Sender<Result<Option<V>, E>>,
}

/// Coalesces the reads of one kind.
pub(super) struct Coalescer<K, V, E> {
    waiting: Mutex<Vec<Waiter<K, V, E>>>,
    reading: tokio::sync::Mutex<()>,
}

impl<K, V, E> Default for Coalescer<K, V, E> {
    fn default() -> Self {
        Self { waiting: Mutex::default(), reading: tokio::sync::Mutex::default() }
    }
}

impl<K, V, E> fmt::Debug for Coalescer<K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Coalescer")
    }
}

impl<K: Clone + Eq + Hash, V: Clone, E: Clone> Coalescer<K, V, E> {
    /// Returns the value of `key`. `read` returns the values of several keys that exist; it may be called for the keys
    /// of other callers.
    pub(super) async fn get<R>(&self, key: &K, read: &(impl Fn(Vec<K>) -> R + Sync)) -> Result<Option<V>, E>
    where
        R: Future<Output = Result<HashMap<K, V>, E>>,
    {
        loop {
            let (reply, response) = oneshot::channel();
            self.queue().push(Waiter { key: key.clone(), reply });
            // The caller that holds the lock reads for all others. If its future is dropped, the others request their
            // keys again.
            match select(response, pin!(self.reading.lock())).await {
                Either::Left((Ok(result), _)) => return result,
                Either::Left((Err(_), _)) => {}
                Either::Right((_reading, mut response)) => loop {
                    match response.try_recv() {
                        Ok(result) => return result,
                        Err(TryRecvError::Empty) => self.read_batch(read).await,
                        Err(TryRecvError::Closed) => break,
                    }
                },
            }
        }
    }

    /// Reads the requested keys and sends the responses.
    async fn read_batch<R>(&self, read: &impl Fn(Vec<K>) -> R)
    where
        R: Future<Output = Result<HashMap<K, V>, E>>,
    {
        let batch: Vec<_> = {
            let mut queue = self.queue();
            let batch = queue.len().min(MAX_BATCH);
            queue.drain(..batch).filter(|waiting| !waiting.reply.is_closed()).collect()
        };
        let keys: HashSet<&K> = batch.iter().map(|waiting| &waiting.key).collect();
        let keys: Vec<K> = keys.into_iter().cloned().collect();
        let found = read(keys).await;
        for Waiter { key, reply } in batch {
            let result = match &found {
                Ok(found) => Ok(found.get(&key).cloned()),
                Err(error) => Err(error.clone()),
            };
            // The caller may have dropped its future.
            let _ = reply.send(result);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Vec<Waiter<K, V, E>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::{FutureExt, join_all, pending};

    use super::*;

    type Numbers = Coalescer<u32, u32, ()>;

    #[tokio::test]
    async fn requests_during_a_statement_share_the_next_one() {
        let (numbers, statements) = (Numbers::default(), AtomicUsize::new(0));
        let read = |keys: Vec<u32>| {
            statements.fetch_add(1, Ordering::SeqCst);
            async {
                tokio::task::yield_now().await;
                Ok(keys.into_iter().filter(|key| *key != 7).map(|key| (key, 2 * key)).collect())
            }
        };
        let keys: Vec<u32> = (0..40).collect();
        let answers = join_all(keys.iter().map(|key| numbers.get(key, &read))).await;
        for (key, result) in keys.into_iter().zip(answers) {
            assert_eq!(result, Ok((key != 7).then_some(2 * key)));
        }
        assert_eq!(
            statements.load(Ordering::SeqCst),
            2,
            "one statement for the first request, one for all others"
        );
    }

    #[tokio::test]
    async fn requests_survive_a_reader_that_is_dropped() {
        let numbers = Numbers::default();
        let stuck = |_| pending::<Result<HashMap<u32, u32>, ()>>();
        let double = |keys: Vec<u32>| async { Ok(keys.into_iter().map(|key| (key, 2 * key)).collect()) };
        let mut first = Box::pin(numbers.get(&1, &stuck));
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = Box::pin(numbers.get(&2, &double));
        assert!(second.as_mut().now_or_never().is_none(), "the first request holds the lock");
        drop(first);
        assert_eq!(second.await, Ok(Some(4)));
    }
}
