//! A signal that wakes an idle loop, to check for work or to stop.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use futures_util::task::AtomicWaker;

/// The signal of one loop. Only one task can wait for it.
#[derive(Debug, Default)]
pub(super) struct WakeSignal {
    stopping: AtomicBool,
    notified: AtomicBool,
    waker: AtomicWaker,
}

impl WakeSignal {
    /// Requests the end of the loop.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.waker.wake();
    }

    /// Returns whether the end of the loop was requested.
    pub(super) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Wakes the loop to check for work.
    pub(super) fn notify(&self) {
        self.notified.store(true, Ordering::SeqCst);
        self.waker.wake();
    }

    /// Returns once [`WakeSignal::notify`] was called since the last return, or the end of the loop was requested.
    pub(super) async fn notified(&self) {
        poll_fn(|context| {
            self.waker.register(context.waker());
            if self.notified.swap(false, Ordering::SeqCst) || self.stopping() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}
