//! The gate that every port call goes through.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use cdm_core::domain::MonotonicTime;
use cdm_core::ports::{Clock, ErrorKind, Inconclusive, Outcome, PortError, StoreError, WriteError};

use super::line::{Line, Place};
use super::outage::{Course, Fate, Outage};
use crate::clock::SimClock;

/// A future of a port call.
pub(super) type Calling<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// One way in which a call can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The process dies before the call is sent.
    CrashBefore,
    /// The call takes effect, and the process dies before it hears of it.
    CrashAfterEffect,
    /// The process hears the answer, and dies before its next call.
    CrashAfterAnswer,
    /// The call takes effect, and its answer is lost.
    LostAnswer,
    /// The call has no effect, and nobody says so.
    LostCall,
    /// The backend does not take the call, for the moment.
    Transient,
    /// The backend asks for fewer calls.
    Throttled,
    /// The thing has changed, says the backend, although it has not.
    Conflict,
    /// The call is delivered twice.
    Duplicate,
    /// The answer is lost, and the call takes effect that many calls later.
    Delayed(u8),
    /// The process stands still here; it goes on that many calls later, or with [`u8::MAX`] when it is let.
    Paused(u8),
    /// The read answers what was so before.
    Stale,
    /// The backend refuses, and goes on refusing until someone mends it.
    Permanent,
}

impl Fault {
    /// One of each kind.
    pub const KINDS: [Self; 13] = [
        Self::CrashBefore,
        Self::CrashAfterEffect,
        Self::CrashAfterAnswer,
        Self::LostAnswer,
        Self::LostCall,
        Self::Transient,
        Self::Throttled,
        Self::Conflict,
        Self::Duplicate,
        Self::Delayed(2),
        Self::Paused(3),
        Self::Stale,
        Self::Permanent,
    ];
}

/// A call that a gate saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallSite {
    /// Port and method.
    pub name: &'static str,
    /// Whether it changes something.
    pub changes: bool,
    /// Whether there is something older that a stale read could answer.
    pub stale: bool,
    /// Whether there is a next call of the same process's, to die before.
    pub last: bool,
}

impl CallSite {
    /// Whether that fault can happen to that call.
    pub fn takes(&self, fault: Fault) -> bool {
        match fault {
            Fault::Stale => !self.changes && self.stale,
            Fault::CrashBefore
            | Fault::Transient
            | Fault::Throttled
            | Fault::Permanent
            | Fault::Paused(_) => true,
            Fault::CrashAfterAnswer => !self.last,
            Fault::CrashAfterEffect | Fault::LostAnswer | Fault::LostCall => self.changes,
            Fault::Duplicate | Fault::Delayed(_) => {
                self.changes && self.name != "store.numbers" && self.name != "store.beat"
            }
            Fault::Conflict => matches!(
                self.name,
                "store.write" | "cluster.set_canary" | "cluster.move_route" | "cluster.set_image"
            ),
        }
    }
}

/// Which calls go wrong, and how: ordinals counted from when the gate was armed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan(pub Vec<(usize, Fault)>);

/// How many calls a world may make in its life: far more than any story needs, and few enough that a loop is found.
const MOST: u64 = 200_000;

/// What stopped a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// It is dead.
    Crashed,
    /// It stands still, and will go on.
    Paused,
}

/// The gate. Clones are the same gate.
#[derive(Clone)]
pub struct FaultInjector(Arc<Mutex<State>>);

type ProbeRequest = Arc<dyn Fn() + Send + Sync>;

/// What becomes of a call: what goes wrong, what arrives before it, and until when it takes.
struct Entered {
    fault: Option<Fault>,
    due: Vec<Calling<()>>,
    until: Option<MonotonicTime>,
}

impl Entered {
    const fn with(fault: Option<Fault>) -> Self {
        Self { fault, due: Vec::new(), until: None }
    }
}

/// What a read answered, of whatever type.
type Answer = Arc<dyn Any + Send + Sync>;

struct State {
    armed: bool,
    calls: usize,
    plan: Vec<(usize, Fault)>,
    fired: BTreeSet<usize>,
    trace: Vec<CallSite>,
    tracing: bool,
    halt: Option<Halt>,
    crash_next: bool,
    crash_at: Option<&'static str>,
    denied: BTreeSet<&'static str>,
    late: VecDeque<(usize, Calling<()>)>,
    resume_at: usize,
    released: bool,
    seen: BTreeMap<String, (Option<Answer>, Answer)>,
    check: Option<ProbeRequest>,
    line: Option<Line>,
    clock: Option<SimClock>,
    outage: Option<Course>,
    total: u64,
    changes: u64,
}

impl fmt::Debug for FaultInjector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

impl Default for FaultInjector {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            armed: false,
            calls: 0,
            plan: Vec::new(),
            fired: BTreeSet::new(),
            trace: Vec::new(),
            tracing: false,
            halt: None,
            crash_next: false,
            crash_at: None,
            denied: BTreeSet::new(),
            late: VecDeque::new(),
            resume_at: usize::MAX,
            released: false,
            seen: BTreeMap::new(),
            check: None,
            line: None,
            clock: None,
            outage: None,
            total: 0,
            changes: 0,
        })))
    }
}

impl FaultInjector {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called after every call.
    pub fn check_with(&self, check: ProbeRequest) {
        self.state().check = Some(check);
    }

    /// Outages last by this clock.
    pub fn timed_by(&self, clock: SimClock) {
        self.state().clock = Some(clock);
    }

    /// From now on a port goes out as planned, whatever else goes wrong; with `None` every port serves.
    ///
    /// # Panics
    /// Where no clock was given.
    pub fn outage(&self, outage: Option<Outage>) {
        let mut state = self.state();
        assert!(state.clock.is_some(), "an outage lasts by a clock");
        state.outage = outage.map(Course::new);
    }

    /// Whether the outage has begun, and how many calls its port was sent in it.
    pub fn outage_calls(&self) -> (bool, usize) {
        self.state().outage.map_or((false, 0), |course| (course.began(), course.during))
    }

    /// From now on calls are counted, and go wrong as planned.
    pub fn arm(&self, plan: Plan) {
        let mut state = self.state();
        state.armed = true;
        state.calls = 0;
        state.plan = plan.0;
        state.fired.clear();
    }

    /// From now on there is one connection: each call waits for it, and has it for longer than one poll. Only whoever
    /// waits for news of the cluster has another.
    pub fn narrow(&self) {
        self.state().line = Some(Line::default());
    }

    /// There are as many connections again as anybody wants.
    pub fn widen(&self) {
        self.state().line = None;
    }

    /// Waits for the connection where there is only one.
    async fn connection(&self, name: &str) -> Option<Place> {
        let line = self.state().line.clone().filter(|_| name != "cluster.changes")?;
        Some(line.wait().await)
    }

    /// The next call of that name kills its process.
    pub fn crash_at(&self, name: &'static str) {
        self.state().crash_at = Some(name);
    }

    /// From now on calls are written down; they are answered by [`FaultInjector::trace`].
    pub fn start_trace(&self) {
        let mut state = self.state();
        state.armed = true;
        state.calls = 0;
        state.trace.clear();
        state.tracing = true;
    }

    /// The calls since [`FaultInjector::start_trace`], which ends with it.
    pub fn trace(&self) -> Vec<CallSite> {
        let mut state = self.state();
        state.tracing = false;
        state.armed = false;
        let mut trace = std::mem::take(&mut state.trace);
        if let Some(last) = trace.last_mut() {
            last.last = true;
        }
        trace
    }

    /// Nothing goes wrong any more; what was refused is allowed again, what was late arrives.
    pub async fn heal(&self) {
        let late = {
            let mut state = self.state();
            state.armed = false;
            state.denied.clear();
            state.crash_next = false;
            state.released = true;
            std::mem::take(&mut state.late)
        };
        for (_, late) in late {
            late.await;
        }
        self.checked();
    }

    /// How many of the planned faults have happened.
    pub fn fired(&self) -> usize {
        self.state().fired.len()
    }

    /// What has stopped the process that runs, once.
    pub fn take_halt(&self) -> Option<Halt> {
        self.state().halt.take()
    }

    /// Lets a process that stands still go on.
    pub fn release(&self) {
        self.state().released = true;
    }

    /// Whether a process that stands still may go on.
    pub fn released(&self) -> bool {
        let state = self.state();
        state.released || state.calls >= state.resume_at
    }

    /// All calls since the gate was made that change something, but for signs of life.
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// All calls since the gate was made.
    pub fn total(&self) -> u64 {
        self.state().total
    }

    fn checked(&self) {
        let check = self.state().check.clone();
        if let Some(check) = check {
            check();
        }
    }

    /// Counts the call, and answers what goes wrong with it.
    fn enter(&self, name: &'static str, changes: bool, stale: bool) -> Entered {
        let mut state = self.state();
        state.total += 1;
        state.changes += u64::from(changes && name != "store.beat");
        assert!(state.total < MOST, "BoundedCalls: {MOST} calls, the last of them `{name}`");
        // A process that was stopped makes no further call, whatever else of it was about to.
        match state.halt {
            Some(Halt::Crashed) => return Entered::with(Some(Fault::CrashBefore)),
            Some(Halt::Paused) => return Entered::with(Some(Fault::Paused(0))),
            None => {}
        }
        if state.crash_next || state.crash_at == Some(name) {
            state.crash_next = false;
            state.crash_at = None;
            state.halt = Some(Halt::Crashed);
            return Entered::with(Some(Fault::CrashBefore));
        }
        let now = state.clock.as_ref().map(Clock::monotonic);
        let met = match (&mut state.outage, now) {
            (Some(course), Some(now)) => course.call(name, now),
            _ => Fate::Nothing,
        };
        match met {
            Fate::Nothing => {}
            Fate::Crash => {
                state.halt = Some(Halt::Crashed);
                return Entered::with(Some(Fault::CrashBefore));
            }
            Fate::Trouble(takes, fault) => {
                let until = now.map(|now| now.after(takes)).filter(|_| !takes.is_zero());
                return Entered { fault, due: Vec::new(), until };
            }
        }
        let mut fault = state.denied.contains(name).then_some(Fault::Permanent);
        if !state.armed {
            return Entered::with(fault);
        }
        let call = state.calls;
        state.calls += 1;
        if state.tracing {
            state.trace.push(CallSite { name, changes, stale, last: false });
        }
        let mut due = Vec::new();
        while state.late.front().is_some_and(|(at, _)| *at <= call) {
            if let Some((_, late)) = state.late.pop_front() {
                due.push(late);
            }
        }
        if let Some(planned) = state.plan.iter().position(|(at, _)| *at == call) {
            let (_, planned_fault) = state.plan[planned];
            state.fired.insert(planned);
            fault = Some(planned_fault);
        }
        match fault {
            Some(Fault::CrashBefore) => state.halt = Some(Halt::Crashed),
            Some(Fault::CrashAfterAnswer) => state.crash_next = true,
            Some(Fault::Paused(calls)) => {
                state.halt = Some(Halt::Paused);
                state.released = false;
                let for_good = calls == u8::MAX;
                state.resume_at = if for_good { usize::MAX } else { call + 1 + usize::from(calls) };
            }
            Some(Fault::Permanent) => {
                state.denied.insert(name);
            }
            _ => {}
        }
        Entered { fault, due, until: None }
    }

    /// Waits for as long as the call takes.
    async fn take_time(&self, until: Option<MonotonicTime>) {
        let clock = self.state().clock.clone();
        if let (Some(clock), Some(until)) = (clock, until) {
            clock.sleep_until(until).await;
        }
    }

    async fn stand_still(&self) {
        poll_fn(|context| {
            if self.released() {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// A call that changes something.
    pub(super) async fn change<T, E>(
        &self,
        name: &'static str,
        make: impl Fn() -> Calling<Outcome<T, E>> + Send,
    ) -> Outcome<T, E>
    where
        T: Send + 'static,
        E: Injected + Send + 'static,
    {
        let _connection = self.connection(name).await;
        let Entered { fault, due, until } = self.enter(name, true, false);
        for late in due {
            late.await;
        }
        self.take_time(until).await;
        let outcome = match fault {
            None | Some(Fault::CrashAfterAnswer | Fault::Stale) => make().await,
            Some(Fault::CrashBefore) => return std::future::pending().await,
            Some(Fault::CrashAfterEffect) => {
                let _ = make().await;
                self.checked();
                self.state().halt = Some(Halt::Crashed);
                return std::future::pending().await;
            }
            Some(Fault::LostAnswer) => {
                let _ = make().await;
                Outcome::Unknown(E::error(name, Fault::LostAnswer))
            }
            Some(Fault::LostCall) => Outcome::Unknown(E::error(name, Fault::LostCall)),
            Some(fault @ (Fault::Transient | Fault::Throttled | Fault::Conflict | Fault::Permanent)) => {
                Outcome::NotApplied(E::error(name, fault))
            }
            Some(Fault::Duplicate) => {
                let first = make().await;
                self.checked();
                let _ = make().await;
                first
            }
            Some(Fault::Delayed(calls)) => {
                let call = make();
                let mut state = self.state();
                let at = state.calls + usize::from(calls);
                state.late.push_back((at, Box::pin(async move { drop(call.await) })));
                drop(state);
                Outcome::Unknown(E::error(name, Fault::LostAnswer))
            }
            Some(Fault::Paused(_)) => {
                self.stand_still().await;
                make().await
            }
        };
        self.checked();
        outcome
    }

    /// A call that only reads. `key` tells what is read; `nothing` is what was there before anything was.
    pub(super) async fn read<T, E>(
        &self,
        name: &'static str,
        key: Option<String>,
        nothing: impl FnOnce(&T) -> Option<T> + Send,
        make: impl Fn() -> Calling<Result<T, E>> + Send,
    ) -> Result<T, E>
    where
        T: Clone + PartialEq + Send + Sync + 'static,
        E: Injected + Send + 'static,
    {
        let _connection = self.connection(name).await;
        // What a stale read would answer is known only once the true answer is.
        let mut older = None;
        if let Some(key) = &key
            && let Ok(now) = make().await
        {
            let mut state = self.state();
            let held = state.seen.remove(key);
            let (before, last) = match held {
                Some((before, last)) => {
                    let same = last.downcast_ref::<T>().is_some_and(|last| *last == now);
                    if same { (before, last) } else { (Some(last), Arc::new(now.clone()) as _) }
                }
                None => (None, Arc::new(now.clone()) as Arc<dyn Any + Send + Sync>),
            };
            older = before
                .as_ref()
                .and_then(|before| before.downcast_ref::<T>().cloned())
                .or_else(|| nothing(&now));
            state.seen.insert(key.clone(), (before, last));
        }
        let Entered { fault, due, until } = self.enter(name, false, older.is_some());
        for late in due {
            late.await;
        }
        self.take_time(until).await;
        let answer = match fault {
            Some(Fault::CrashBefore | Fault::CrashAfterEffect) => {
                self.state().halt = Some(Halt::Crashed);
                return std::future::pending().await;
            }
            Some(fault @ (Fault::Transient | Fault::Throttled | Fault::Permanent | Fault::LostCall)) => {
                Err(E::error(name, fault))
            }
            Some(Fault::Paused(_)) => {
                self.stand_still().await;
                make().await
            }
            Some(Fault::Stale) => match older {
                Some(older) => Ok(older),
                None => make().await,
            },
            None
            | Some(
                Fault::CrashAfterAnswer
                | Fault::LostAnswer
                | Fault::Conflict
                | Fault::Duplicate
                | Fault::Delayed(_),
            ) => make().await,
        };
        self.checked();
        answer
    }
}

/// An error that a fault can be told by.
pub(super) trait Injected: Sized {
    fn error(name: &'static str, fault: Fault) -> Self;
}

impl Injected for PortError {
    fn error(name: &'static str, fault: Fault) -> Self {
        let kind = match fault {
            Fault::Throttled => ErrorKind::Throttled(Some(std::time::Duration::from_secs(1))),
            Fault::Conflict => ErrorKind::Conflict,
            Fault::Permanent => ErrorKind::Denied,
            _ => ErrorKind::Unavailable,
        };
        Self::new(name, kind, format!("injected {fault:?}"))
    }
}

impl Injected for Inconclusive {
    fn error(name: &'static str, fault: Fault) -> Self {
        Self(format!("{name}: injected {fault:?}"))
    }
}

impl Injected for StoreError {
    fn error(name: &'static str, fault: Fault) -> Self {
        match fault {
            Fault::Throttled => Self::Throttled,
            Fault::Permanent => Self::Denied(name.to_owned()),
            _ => Self::Unavailable(format!("injected {fault:?}")),
        }
    }
}

impl Injected for WriteError {
    fn error(name: &'static str, fault: Fault) -> Self {
        match fault {
            Fault::Conflict => Self::Conflict(name.to_owned()),
            fault => Self::Store(StoreError::error(name, fault)),
        }
    }
}
