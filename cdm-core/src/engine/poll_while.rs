//! Awaits one future while others make progress.

use futures_util::future::{Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt};

/// Awaits `first`, and polls `others` meanwhile. Appends the results of those that finish to `done`.
///
/// A future that is not polled can hold a connection that `first` waits for. Therefore code with futures in flight
/// awaits other futures only with this function.
pub(crate) async fn poll_while<T, U>(
    first: impl Future<Output = T>,
    others: &mut FuturesUnordered<impl Future<Output = U>>,
    done: &mut Vec<U>,
) -> T {
    let mut first = std::pin::pin!(first);
    while !others.is_empty() {
        match select(&mut first, others.next()).await {
            Either::Left((output, _)) => return output,
            Either::Right((output, _)) => done.extend(output),
        }
    }
    first.await
}
