//! Reads by key that are made together: whoever asks while a statement runs is answered by the next one.
//!
//! A statement costs several changes of thread, which is much more than it costs SQLite to find a row. So one statement
//! runs at a time, for all that have asked by then. Every answer is read after it was asked for; nothing is remembered.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::future::{Either, select};
use tokio::sync::oneshot::{self, error::TryRecvError};

/// Who is answered by one statement, at most.
const MOST: usize = 64;

/// What is asked for, and who is told.
struct Asked<K, V, E> {
    key: K,
    tell: oneshot::Sender<Result<Option<V>, E>>,
}

/// Reads of one kind.
pub(super) struct Together<K, V, E> {
    asked: Mutex<Vec<Asked<K, V, E>>>,
    turn: tokio::sync::Mutex<()>,
}

impl<K, V, E> Default for Together<K, V, E> {
    fn default() -> Self {
        Self { asked: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }
}

impl<K, V, E> fmt::Debug for Together<K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Together")
    }
}

impl<K: Clone + Eq + Hash, V: Clone, E: Clone> Together<K, V, E> {
    /// What is found under `key`. `read` finds what there is of several keys; it may be called for those of others.
    pub(super) async fn get<R>(&self, key: &K, read: &(impl Fn(Vec<K>) -> R + Sync)) -> Result<Option<V>, E>
    where
        R: Future<Output = Result<HashMap<K, V>, E>>,
    {
        loop {
            let (tell, told) = oneshot::channel();
            self.queue().push(Asked { key: key.clone(), tell });
            // Whoever has the turn reads for everyone. One that is dropped over it leaves the others to ask again.
            match select(told, pin!(self.turn.lock())).await {
                Either::Left((Ok(answer), _)) => return answer,
                Either::Left((Err(_), _)) => {}
                Either::Right((_turn, mut told)) => loop {
                    match told.try_recv() {
                        Ok(answer) => return answer,
                        Err(TryRecvError::Empty) => self.answer(read).await,
                        Err(TryRecvError::Closed) => break,
                    }
                },
            }
        }
    }

    /// Reads for those who have asked.
    async fn answer<R>(&self, read: &impl Fn(Vec<K>) -> R)
    where
        R: Future<Output = Result<HashMap<K, V>, E>>,
    {
        let some: Vec<_> = {
            let mut queue = self.queue();
            let some = queue.len().min(MOST);
            queue.drain(..some).filter(|asked| !asked.tell.is_closed()).collect()
        };
        let keys: HashSet<&K> = some.iter().map(|asked| &asked.key).collect();
        let keys: Vec<K> = keys.into_iter().cloned().collect();
        let found = read(keys).await;
        for Asked { key, tell } in some {
            let answer = match &found {
                Ok(found) => Ok(found.get(&key).cloned()),
                Err(error) => Err(error.clone()),
            };
            // Who asked may be gone.
            let _ = tell.send(answer);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Vec<Asked<K, V, E>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::{FutureExt, join_all, pending};

    use super::*;

    type Numbers = Together<u32, u32, ()>;

    #[tokio::test]
    async fn who_asks_while_a_statement_runs_is_answered_by_the_next_one() {
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
        for (key, answer) in keys.into_iter().zip(answers) {
            assert_eq!(answer, Ok((key != 7).then_some(2 * key)));
        }
        assert_eq!(
            statements.load(Ordering::SeqCst),
            2,
            "one for the first, one for all who asked meanwhile"
        );
    }

    #[tokio::test]
    async fn one_that_is_dropped_over_its_statement_leaves_the_others_to_ask_again() {
        let numbers = Numbers::default();
        let stuck = |_| pending::<Result<HashMap<u32, u32>, ()>>();
        let double = |keys: Vec<u32>| async { Ok(keys.into_iter().map(|key| (key, 2 * key)).collect()) };
        let mut first = Box::pin(numbers.get(&1, &stuck));
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = Box::pin(numbers.get(&2, &double));
        assert!(second.as_mut().now_or_never().is_none(), "the first has the turn");
        drop(first);
        assert_eq!(second.await, Ok(Some(4)));
    }
}
