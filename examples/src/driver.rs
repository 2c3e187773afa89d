//! Runs futures on simulated time: polls each future that can continue, and advances the clock when none can.
//!
//! A server has a runtime and a real clock instead; `spawn` is then the runtime's.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use cdm_testkit::clock::SimClock;

/// Maximum number of rounds for one future; more count as stuck.
const ROUNDS: usize = 1_000_000;

/// A single-threaded runtime with simulated time.
pub struct Driver {
    clock: SimClock,
    tasks: BTreeMap<TaskId, Task>,
    spawned: u32,
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Identifies a spawned task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskId(u32);

impl Driver {
    /// Creates a driver of this clock, without tasks.
    pub const fn new(clock: SimClock) -> Self {
        Self { clock, tasks: BTreeMap::new(), spawned: 0 }
    }

    /// Adds a task, which runs in parallel with each future that is waited for from now on.
    pub fn spawn(&mut self, task: impl Future<Output = ()> + 'static) -> TaskId {
        self.spawned += 1;
        let id = TaskId(self.spawned);
        self.tasks.insert(id, Box::pin(task));
        id
    }

    /// Drops a task where it is, like the death of its process.
    pub fn kill(&mut self, id: TaskId) {
        self.tasks.remove(&id);
    }

    /// Runs a future together with all tasks, and returns its value.
    ///
    /// # Panics
    /// When all futures wait, but none of them for time, or when the future does not complete.
    pub fn block_on<T>(&mut self, future: impl Future<Output = T>) -> T {
        match self.block_on_unless(future, || false) {
            Some(value) => value,
            None => unreachable!("it cannot be stopped"),
        }
    }

    /// Like [`Driver::block_on`], but returns `None` as soon as `stopped` returns true, which is checked before time
    /// passes.
    ///
    /// # Panics
    /// As [`Driver::block_on`].
    pub fn block_on_unless<T>(
        &mut self,
        future: impl Future<Output = T>,
        stopped: impl Fn() -> bool,
    ) -> Option<T> {
        let mut future = pin!(future);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        for _ in 0..ROUNDS {
            self.tasks.retain(|_, task| task.as_mut().poll(&mut context).is_pending());
            if stopped() {
                return None;
            }
            if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return Some(value);
            }
            if !woken.take() {
                self.let_time_pass();
            }
        }
        panic!("a future was polled {ROUNDS} times and is not done");
    }

    fn let_time_pass(&self) {
        match self.clock.next_sleeper() {
            Some(next) => self.clock.advance_to(next),
            None => panic!("all futures wait, but none of them for time"),
        }
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("tasks", &self.tasks.len()).finish_non_exhaustive()
    }
}

/// Whether a future can continue without the clock.
#[derive(Debug, Default)]
struct Woken(AtomicBool);

impl Woken {
    fn take(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}
