//! Wakes a loop that rests: because there may be something to do, or because it shall end.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use futures_util::task::AtomicWaker;

/// What a loop listens for while it has nothing to do; one loop for each bell.
#[derive(Debug, Default)]
pub(super) struct WakeSignal {
    stopping: AtomicBool,
    rung: AtomicBool,
    waker: AtomicWaker,
}

impl WakeSignal {
    /// The loop shall end.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.waker.wake();
    }

    /// Whether it shall.
    pub(super) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// There may be something to do.
    pub(super) fn ring(&self) {
        self.rung.store(true, Ordering::SeqCst);
        self.waker.wake();
    }

    /// Returns once it has rung since the last time, or the loop shall end.
    pub(super) async fn heard(&self) {
        poll_fn(|context| {
            self.waker.register(context.waker());
            if self.rung.swap(false, Ordering::SeqCst) || self.stopping() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}
