//! Runs futures on simulated time: polls whoever can go on, and moves the clock when nobody can.
//!
//! A server has a runtime and a real clock instead; there, `spawn` is the runtime's.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use cdm_testkit::clock::SimClock;

/// How many rounds one future may take before it counts as stuck.
const ROUNDS: usize = 1_000_000;

/// A runtime for one thread whose time is simulated.
pub struct Driver {
    clock: SimClock,
    tasks: BTreeMap<TaskId, Task>,
    spawned: u32,
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Names a spawned task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskId(u32);

impl Driver {
    /// A driver of this clock, with no task.
    pub const fn new(clock: SimClock) -> Self {
        Self { clock, tasks: BTreeMap::new(), spawned: 0 }
    }

    /// Has `task` run beside everything that is waited for from now on.
    pub fn spawn(&mut self, task: impl Future<Output = ()> + 'static) -> TaskId {
        self.spawned += 1;
        let id = TaskId(self.spawned);
        self.tasks.insert(id, Box::pin(task));
        id
    }

    /// Drops a task where it stands, as the death of its process would.
    pub fn kill(&mut self, id: TaskId) {
        self.tasks.remove(&id);
    }

    /// The value of `future`, while all tasks go on beside it.
    ///
    /// # Panics
    /// When everything waits and nobody waits for time, or the future is never done.
    pub fn block_on<T>(&mut self, future: impl Future<Output = T>) -> T {
        match self.block_on_unless(future, || false) {
            Some(value) => value,
            None => unreachable!("nothing stops it"),
        }
    }

    /// The same; `None` as soon as `stopped` says so, which is asked before time passes.
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
            None => panic!("everything waits, and nobody waits for time"),
        }
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("tasks", &self.tasks.len()).finish_non_exhaustive()
    }
}

/// Whether anyone can go on without the clock.
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
