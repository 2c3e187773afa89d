//! Awaits one thing while others go on.

use futures_util::future::{Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt};

/// What `first` comes to; what the others come to meanwhile is added to `done`.
///
/// A future that nobody polls may hold the very connection that another one waits for. Whoever has some in flight
/// awaits nothing else without them.
pub(crate) async fn poll_while<T, U>(
    first: impl Future<Output = T>,
    others: &mut FuturesUnordered<impl Future<Output = U>>,
    done: &mut Vec<U>,
) -> T {
    let mut first = std::pin::pin!(first);
    while !others.is_empty() {
        match select(&mut first, others.next()).await {
            Either::Left((answer, _)) => return answer,
            Either::Right((ended, _)) => done.extend(ended),
        }
    }
    first.await
}

/// The next that has come to its end: one of `done`, or else of those in flight.
pub(crate) async fn next<U>(
    done: &mut Vec<U>,
    others: &mut FuturesUnordered<impl Future<Output = U>>,
) -> Option<U> {
    match done.pop() {
        Some(ended) => Some(ended),
        None => others.next().await,
    }
}
