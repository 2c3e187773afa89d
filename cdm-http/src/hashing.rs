//! Threads for password hashing, separate from the threads that handle requests, with a short queue.
//!
//! [`THREADS`] limits the memory: a hash needs 19 MiB, so all hashes together need at most 38 MiB, independent of the load.
//! A thread stays busy until its hash is finished, so a client that disconnects cannot start more hashes. Queued work whose
//! caller has gone is dropped.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The number of hashes that are computed at once.
pub(crate) const THREADS: usize = 2;
/// The maximum length of the queue of each class of requesters.
const QUEUE: usize = 16;
/// The maximum number of queued hashes of one requester.
const QUEUE_EACH: usize = 4;

/// The requester of a hash. Hashes of known requesters are computed first, so that unknown clients cannot block them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Requester {
    /// A device, a session or a token that was authenticated before.
    Known(String),
    /// An unknown client at this address.
    Address(IpAddr),
    /// An unknown client on this machine. The limit per requester does not apply, since a proxy on this machine may forward
    /// many clients.
    Loopback,
}

/// The queue is full for this requester.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy;

/// Queued work, with the channel to its caller.
trait Work: Send {
    fn is_abandoned(&self) -> bool;
    fn run(self: Box<Self>);
}

struct Task<T, F> {
    caller: oneshot::Sender<T>,
    work: F,
}

impl<T: Send, F: FnOnce() -> T + Send> Work for Task<T, F> {
    fn is_abandoned(&self) -> bool {
        self.caller.is_closed()
    }

    fn run(self: Box<Self>) {
        let Self { caller, work } = *self;
        // The thread survives a panic; the caller gets a closed channel.
        if let Ok(result) = catch_unwind(AssertUnwindSafe(work)) {
            let _ = caller.send(result);
        }
    }
}

struct Job {
    requester: Requester,
    work: Box<dyn Work>,
}

#[derive(Default)]
struct Queue {
    known: VecDeque<Job>,
    unknown: VecDeque<Job>,
    threads: usize,
    closed: bool,
}

#[derive(Default)]
struct PoolState {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl PoolState {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next job whose caller still waits; `None` once the pool is dropped.
    fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if queue.closed {
                return None;
            }
            while let Some(job) = queue.known.pop_front().or_else(|| queue.unknown.pop_front()) {
                if !job.work.is_abandoned() {
                    return Some(job);
                }
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The threads and their queue. The threads start with the first hash and end with the pool.
#[derive(Default)]
pub(crate) struct HashPool(Arc<PoolState>);

impl fmt::Debug for HashPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashPool")
    }
}

impl HashPool {
    /// Queues work, and returns a receiver for its result. Dropping the receiver removes work that has not started.
    ///
    /// # Errors
    /// [`Busy`] if the queue, or the requester's share of the queue, is full.
    pub(crate) fn submit<T: Send + 'static>(
        &self,
        requester: Requester,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<T>, Busy> {
        let (caller, result) = oneshot::channel();
        let mut queue = self.0.lock();
        if queue.threads < THREADS && self.start(queue.threads) {
            queue.threads += 1;
        }
        if queue.threads == 0 {
            return Err(Busy);
        }
        let queued = match requester {
            Requester::Known(_) => &mut queue.known,
            Requester::Address(_) | Requester::Loopback => &mut queue.unknown,
        };
        queued.retain(|job| !job.work.is_abandoned());
        let own = queued.iter().filter(|job| job.requester == requester).count();
        let share = if requester == Requester::Loopback { QUEUE } else { QUEUE_EACH };
        if queued.len() >= QUEUE || own >= share {
            return Err(Busy);
        }
        queued.push_back(Job { requester, work: Box::new(Task { caller, work }) });
        drop(queue);
        self.0.changed.notify_one();
        Ok(result)
    }

    /// Starts a thread; returns whether that succeeded.
    fn start(&self, number: usize) -> bool {
        let shared = Arc::clone(&self.0);
        let thread = std::thread::Builder::new().name(format!("password-{number}"));
        let run = move || {
            while let Some(job) = shared.next() {
                job.work.run();
            }
        };
        thread.spawn(run).is_ok()
    }
}

impl Drop for HashPool {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.closed = true;
        queue.known.clear();
        queue.unknown.clear();
        drop(queue);
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    /// Work that blocks until the test ends it.
    struct BlockingWork {
        started: mpsc::Receiver<usize>,
        start: mpsc::Sender<usize>,
        running: Arc<AtomicUsize>,
        peak: Arc<AtomicUsize>,
    }

    impl BlockingWork {
        fn new() -> Self {
            let (start, started) = mpsc::channel();
            Self { started, start, running: Arc::default(), peak: Arc::default() }
        }

        /// Returns work with a number, and the sender whose drop ends it.
        fn work(&self, number: usize) -> (impl FnOnce() -> usize + Send + use<>, mpsc::Sender<()>) {
            let (end, ended) = mpsc::channel::<()>();
            let (start, running, peak) =
                (self.start.clone(), Arc::clone(&self.running), Arc::clone(&self.peak));
            let work = move || {
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                peak.fetch_max(now, Ordering::SeqCst);
                let _ = start.send(number);
                let _ = ended.recv();
                running.fetch_sub(1, Ordering::SeqCst);
                number
            };
            (work, end)
        }
    }

    fn address(last: u8) -> Requester {
        Requester::Address(IpAddr::from([192, 0, 2, last]))
    }

    /// Occupies all threads with work that does not end.
    fn occupy(pool: &HashPool, blocking: &BlockingWork) -> Vec<(oneshot::Receiver<usize>, mpsc::Sender<()>)> {
        let occupied = (0..THREADS).map(|number| {
            let (work, end) = blocking.work(number);
            (pool.submit(Requester::Loopback, work).expect("a free queue entry"), end)
        });
        let occupied: Vec<_> = occupied.collect();
        for _ in 0..THREADS {
            blocking.started.recv().expect("the work starts");
        }
        occupied
    }

    #[test]
    fn disconnects_neither_free_a_thread_nor_add_hashes() {
        let (pool, blocking) = (HashPool::default(), BlockingWork::new());
        let (callers, ends): (Vec<_>, Vec<_>) = occupy(&pool, &blocking).into_iter().unzip();
        // The callers of the running work disconnect, and 150 other callers connect and disconnect.
        drop(callers);
        for number in 100..250 {
            let (work, _) = blocking.work(number);
            drop(
                pool.submit(Requester::Loopback, work)
                    .expect("entries of disconnected callers are free again"),
            );
        }
        assert_eq!(blocking.running.load(Ordering::SeqCst), THREADS, "only the running work continues");
        let (work, end) = blocking.work(7);
        let last = pool.submit(Requester::Loopback, work).expect("a free queue entry");
        drop(end);
        drop(ends);
        assert_eq!(last.blocking_recv(), Ok(7));
        assert_eq!(blocking.started.recv(), Ok(7), "none of the 150 was started");
        assert_eq!(blocking.peak.load(Ordering::SeqCst), THREADS, "the limit of concurrent hashes");
    }

    #[test]
    fn no_address_fills_the_queue() {
        let (pool, blocking) = (HashPool::default(), BlockingWork::new());
        let occupied = occupy(&pool, &blocking);
        let mut waiting = Vec::new();
        let mut submit = |requester: Requester| {
            let (work, _) = blocking.work(9);
            pool.submit(requester, work).map(|caller| waiting.push(caller))
        };
        for _ in 0..QUEUE_EACH {
            assert_eq!(submit(address(1)), Ok(()));
        }
        assert_eq!(submit(address(1)), Err(Busy), "its share is used up");
        for number in 0..QUEUE - QUEUE_EACH {
            let number = u8::try_from(number).expect("few");
            assert_eq!(submit(address(2 + number)), Ok(()), "other addresses have entries left");
        }
        assert_eq!(submit(address(99)), Err(Busy), "the queue is full");
        assert_eq!(submit(Requester::Loopback), Err(Busy));
        assert_eq!(
            submit(Requester::Known("a device".to_owned())),
            Ok(()),
            "known devices have a separate queue"
        );
        drop(occupied);
    }

    #[test]
    fn work_of_known_devices_runs_first() {
        let (pool, blocking) = (HashPool::default(), BlockingWork::new());
        let (_callers, ends): (Vec<_>, Vec<_>) = occupy(&pool, &blocking).into_iter().unzip();
        let (work, last) = blocking.work(8);
        let unknown = pool.submit(address(1), work).expect("a free queue entry");
        let (work, first) = blocking.work(9);
        let known = pool.submit(Requester::Known("a device".to_owned()), work).expect("a free queue entry");
        // One thread becomes free.
        let mut ends = ends.into_iter();
        drop(ends.next());
        assert_eq!(blocking.started.recv(), Ok(9));
        drop(first);
        assert_eq!(known.blocking_recv(), Ok(9));
        drop((last, ends));
        assert_eq!(unknown.blocking_recv(), Ok(8));
    }

    #[test]
    fn a_panic_affects_only_its_own_work() {
        let pool = HashPool::default();
        for _ in 0..=THREADS {
            let panicked =
                pool.submit(Requester::Loopback, || panic!("on purpose")).expect("a free queue entry");
            assert!(panicked.blocking_recv().is_err());
        }
        let next = pool.submit(Requester::Loopback, || 1).expect("a free queue entry");
        assert_eq!(next.blocking_recv(), Ok(1));
    }
}
