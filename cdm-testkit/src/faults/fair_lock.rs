//! One connection with a first-in, first-out queue. The connection passes to the next waiter whether or not
//! that waiter is polled.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// The queue; its head holds the connection. Clones share one queue.
#[derive(Clone, Debug, Default)]
pub(super) struct FairLock(Arc<Mutex<Waiters>>);

#[derive(Debug, Default)]
struct Waiters {
    next: u64,
    queue: VecDeque<(u64, Option<Waker>)>,
}

impl FairLock {
    fn waiters(&self) -> MutexGuard<'_, Waiters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the connection, and holds it until the returned guard is dropped: for longer than one poll.
    pub(super) async fn wait(&self) -> FairLockGuard {
        let number = {
            let mut waiters = self.waiters();
            waiters.next += 1;
            let number = waiters.next;
            waiters.queue.push_back((number, None));
            number
        };
        let guard = FairLockGuard { lock: self.clone(), number };
        let mut polled = false;
        poll_fn(|context| {
            let mut waiters = self.waiters();
            let head = waiters.queue.front().is_some_and(|(head, _)| *head == number);
            if head && std::mem::replace(&mut polled, true) {
                return Poll::Ready(());
            }
            if head {
                context.waker().wake_by_ref();
            }
            for (_, waker) in waiters.queue.iter_mut().filter(|(waiting, _)| *waiting == number) {
                *waker = Some(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
        guard
    }
}

/// A place in the queue; dropping it releases the connection or leaves the queue.
#[derive(Debug)]
pub(super) struct FairLockGuard {
    lock: FairLock,
    number: u64,
}

impl Drop for FairLockGuard {
    fn drop(&mut self) {
        let mut waiters = self.lock.waiters();
        waiters.queue.retain(|(number, _)| *number != self.number);
        let next = waiters.queue.front_mut().and_then(|(_, waker)| waker.take());
        drop(waiters);
        if let Some(next) = next {
            next.wake();
        }
    }
}
