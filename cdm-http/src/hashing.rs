//! Threads for password hashing, apart from those that serve requests, behind a short queue.
//!
//! Memory is bounded by [`THREADS`]: a hash takes 19 MiB, so all of them take 38 MiB at most, whatever clients do. The
//! slot belongs to the thread, not to the request: a client that disconnects neither frees a slot whose hash still runs
//! nor adds a hash. Work whose caller is gone before it began is dropped.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// How many hashes are made at once.
pub(crate) const THREADS: usize = 2;
/// How many requests of each class wait for a thread.
const WAITING: usize = 16;
/// How many of these may be of one requester.
const WAITING_EACH: usize = 4;

/// Who asks for a hash. Known requesters are served first, so that strangers cannot keep them out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Requester {
    /// A device, a session or a token that has proven who it is.
    Known(String),
    /// Anyone at that address.
    Stranger(IpAddr),
    /// Anyone on this machine: they have no share by address, since a proxy here may stand for many.
    Loopback,
}

/// The queue has no place left for this requester.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy;

/// Work with the way back to its caller.
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
        // The thread outlives a panic; the caller sees a closed channel.
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
    strangers: VecDeque<Job>,
    threads: usize,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job that somebody still waits for; `None` once the pool is gone.
    fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if queue.closed {
                return None;
            }
            while let Some(job) = queue.known.pop_front().or_else(|| queue.strangers.pop_front()) {
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
pub(crate) struct HashPool(Arc<Shared>);

impl fmt::Debug for HashPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashPool")
    }
}

impl HashPool {
    /// Queues work; its result comes by the receiver, and a receiver that is dropped withdraws work that has not begun.
    ///
    /// # Errors
    /// [`Busy`] at once when the requester has as many places as it may, or none is left.
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
        let places = match requester {
            Requester::Known(_) => &mut queue.known,
            Requester::Stranger(_) | Requester::Loopback => &mut queue.strangers,
        };
        places.retain(|job| !job.work.is_abandoned());
        let own = places.iter().filter(|job| job.requester == requester).count();
        let share = if requester == Requester::Loopback { WAITING } else { WAITING_EACH };
        if places.len() >= WAITING || own >= share {
            return Err(Busy);
        }
        places.push_back(Job { requester, work: Box::new(Task { caller, work }) });
        drop(queue);
        self.0.changed.notify_one();
        Ok(result)
    }

    /// Whether one more thread could be started.
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
        queue.strangers.clear();
        drop(queue);
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    /// Hashes that run until the test ends them.
    struct Held {
        begun: mpsc::Receiver<usize>,
        begin: mpsc::Sender<usize>,
        running: Arc<AtomicUsize>,
        most: Arc<AtomicUsize>,
    }

    impl Held {
        fn new() -> Self {
            let (begin, begun) = mpsc::channel();
            Self { begun, begin, running: Arc::default(), most: Arc::default() }
        }

        /// Work named by a number, and what ends it.
        fn work(&self, number: usize) -> (impl FnOnce() -> usize + Send + use<>, mpsc::Sender<()>) {
            let (end, ended) = mpsc::channel::<()>();
            let (begin, running, most) =
                (self.begin.clone(), Arc::clone(&self.running), Arc::clone(&self.most));
            let work = move || {
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                let _ = begin.send(number);
                let _ = ended.recv();
                running.fetch_sub(1, Ordering::SeqCst);
                number
            };
            (work, end)
        }
    }

    fn address(last: u8) -> Requester {
        Requester::Stranger(IpAddr::from([192, 0, 2, last]))
    }

    /// Fills the threads with work that runs on.
    fn occupy(pool: &HashPool, held: &Held) -> Vec<(oneshot::Receiver<usize>, mpsc::Sender<()>)> {
        let occupied = (0..THREADS).map(|number| {
            let (work, end) = held.work(number);
            (pool.submit(Requester::Loopback, work).expect("a place"), end)
        });
        let occupied: Vec<_> = occupied.collect();
        for _ in 0..THREADS {
            held.begun.recv().expect("it begins");
        }
        occupied
    }

    #[test]
    fn disconnects_neither_free_a_slot_nor_multiply_hashes() {
        let (pool, held) = (HashPool::default(), Held::new());
        let (callers, ends): (Vec<_>, Vec<_>) = occupy(&pool, &held).into_iter().unzip();
        // The callers of what runs leave, and 150 come and go.
        drop(callers);
        for number in 100..250 {
            let (work, _) = held.work(number);
            drop(pool.submit(Requester::Loopback, work).expect("places of the gone are free again"));
        }
        assert_eq!(held.running.load(Ordering::SeqCst), THREADS, "what runs goes on, and nothing beside it");
        let (work, end) = held.work(7);
        let right = pool.submit(Requester::Loopback, work).expect("a place");
        drop(end);
        drop(ends);
        assert_eq!(right.blocking_recv(), Ok(7));
        assert_eq!(held.begun.recv(), Ok(7), "none of the 150 began");
        assert_eq!(held.most.load(Ordering::SeqCst), THREADS, "the bound on hashes in memory at once");
    }

    #[test]
    fn no_address_takes_all_places() {
        let (pool, held) = (HashPool::default(), Held::new());
        let occupied = occupy(&pool, &held);
        let mut waiting = Vec::new();
        let mut ask = |requester: Requester| {
            let (work, _) = held.work(9);
            pool.submit(requester, work).map(|caller| waiting.push(caller))
        };
        for _ in 0..WAITING_EACH {
            assert_eq!(ask(address(1)), Ok(()));
        }
        assert_eq!(ask(address(1)), Err(Busy), "its share is used up");
        for number in 0..WAITING - WAITING_EACH {
            let number = u8::try_from(number).expect("few");
            assert_eq!(ask(address(2 + number)), Ok(()), "others have places");
        }
        assert_eq!(ask(address(99)), Err(Busy), "the queue is full");
        assert_eq!(ask(Requester::Loopback), Err(Busy));
        assert_eq!(ask(Requester::Known("a device".to_owned())), Ok(()), "known devices have their own");
        drop(occupied);
    }

    #[test]
    fn known_devices_are_served_before_strangers() {
        let (pool, held) = (HashPool::default(), Held::new());
        let (_callers, ends): (Vec<_>, Vec<_>) = occupy(&pool, &held).into_iter().unzip();
        let (work, last) = held.work(8);
        let stranger = pool.submit(address(1), work).expect("a place");
        let (work, first) = held.work(9);
        let known = pool.submit(Requester::Known("a device".to_owned()), work).expect("a place");
        // One thread gets free.
        let mut ends = ends.into_iter();
        drop(ends.next());
        assert_eq!(held.begun.recv(), Ok(9));
        drop(first);
        assert_eq!(known.blocking_recv(), Ok(9));
        drop((last, ends));
        assert_eq!(stranger.blocking_recv(), Ok(8));
    }

    #[test]
    fn a_panic_ends_its_own_work_alone() {
        let pool = HashPool::default();
        for _ in 0..=THREADS {
            let broken = pool.submit(Requester::Loopback, || panic!("on purpose")).expect("a place");
            assert!(broken.blocking_recv().is_err());
        }
        let sound = pool.submit(Requester::Loopback, || 1).expect("a place");
        assert_eq!(sound.blocking_recv(), Ok(1));
    }
}
