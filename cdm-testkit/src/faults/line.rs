//! One connection, and those who wait for it in a line: it is handed to the next of them, whether that one is polled
//! or not.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// The line; its head has the connection. Clones are the same line.
#[derive(Clone, Debug, Default)]
pub(super) struct Line(Arc<Mutex<Places>>);

#[derive(Debug, Default)]
struct Places {
    next: u64,
    taken: VecDeque<(u64, Option<Waker>)>,
}

impl Line {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the connection, and has it until the answer is dropped: for longer than one poll.
    pub(super) async fn wait(&self) -> Place {
        let number = {
            let mut places = self.places();
            places.next += 1;
            let number = places.next;
            places.taken.push_back((number, None));
            number
        };
        let place = Place { line: self.clone(), number };
        let mut polled = false;
        poll_fn(|context| {
            let mut places = self.places();
            let head = places.taken.front().is_some_and(|(head, _)| *head == number);
            if head && std::mem::replace(&mut polled, true) {
                return Poll::Ready(());
            }
            if head {
                context.waker().wake_by_ref();
            }
            for (_, waker) in places.taken.iter_mut().filter(|(place, _)| *place == number) {
                *waker = Some(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
        place
    }
}

/// A place in the line; dropped, it is free.
#[derive(Debug)]
pub(super) struct Place {
    line: Line,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.line.places();
        places.taken.retain(|(number, _)| *number != self.number);
        let next = places.taken.front_mut().and_then(|(_, waker)| waker.take());
        drop(places);
        if let Some(next) = next {
            next.wake();
        }
    }
}
