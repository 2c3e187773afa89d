//! The injector that every port call passes through.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use cdm_core::domain::MonotonicTime;
use cdm_core::ports::{Clock, ErrorKind, Inconclusive, Outcome, PortError, StoreError, WriteError};

use super::fair_lock::{FairLock, FairLockGuard};
use super::fault::Fault;
use super::outage::{ActiveOutage, Outage, OutageEffect};
use crate::clock::SimClock;

/// The future of a port call.
pub(super) type PortFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A port call, as the injector recorded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallSite {
    /// Port and method, such as `store.write`.
    pub name: &'static str,
    /// Whether the call changes something.
    pub changes: bool,
    /// Whether there is an older value that a stale read could return.
    pub stale: bool,
    /// Whether this is the last call of the trace, so that there is no next call to crash before.
    pub last: bool,
}

impl CallSite {
    /// Returns whether the fault can happen to this call.
    pub fn supports(&self, fault: Fault) -> bool {
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

/// Planned faults by the ordinal of their call. Ordinals count from [`FaultInjector::arm`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan(pub Vec<(usize, Fault)>);

/// Maximum calls of one simulated platform: far more than any scenario needs, and few enough to find an endless
/// loop.
const MAX_CALLS: u64 = 200_000;

/// Why a process stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// An injected crash ended the process.
    Crashed,
    /// The process is paused, and will resume.
    Paused,
}

/// Counts port calls and injects faults into them. Clones share one state.
#[derive(Clone)]
pub struct FaultInjector(Arc<Mutex<State>>);

type AfterCall = Arc<dyn Fn() + Send + Sync>;

/// The decision about a call: the fault, the delayed calls that take effect first, and the time at which the
/// call ends.
struct Interception {
    fault: Option<Fault>,
    overdue: Vec<PortFuture<()>>,
    until: Option<MonotonicTime>,
}

impl Interception {
    const fn with(fault: Option<Fault>) -> Self {
        Self { fault, overdue: Vec::new(), until: None }
    }
}

/// The value that a read returned.
type ReadValue = Arc<dyn Any + Send + Sync>;

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
    delayed: VecDeque<(usize, PortFuture<()>)>,
    resume_at: usize,
    released: bool,
    reads: BTreeMap<String, (Option<ReadValue>, ReadValue)>,
    check: Option<AfterCall>,
    connection: Option<FairLock>,
    clock: Option<SimClock>,
    outage: Option<ActiveOutage>,
    total: u64,
    changes: u64,
}

impl fmt::Debug for FaultInjector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultInjector")
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
            delayed: VecDeque::new(),
            resume_at: usize::MAX,
            released: false,
            reads: BTreeMap::new(),
            check: None,
            connection: None,
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

    /// Sets a function that runs after every call.
    pub fn check_with(&self, check: AfterCall) {
        self.state().check = Some(check);
    }

    /// Sets the clock that measures the duration of outages.
    pub fn timed_by(&self, clock: SimClock) {
        self.state().clock = Some(clock);
    }

    /// Starts the planned outage of one port. `None` ends it. An outage takes precedence over planned and
    /// permanent faults.
    ///
    /// # Panics
    /// Panics if [`FaultInjector::timed_by`] was not called.
    pub fn outage(&self, outage: Option<Outage>) {
        let mut state = self.state();
        assert!(state.clock.is_some(), "an outage needs a clock");
        state.outage = outage.map(ActiveOutage::new);
    }

    /// Returns whether the outage has begun, and the number of calls to its port during it.
    pub fn outage_calls(&self) -> (bool, usize) {
        self.state().outage.map_or((false, 0), |active| (active.began(), active.during))
    }

    /// Starts counting calls from 0 and injecting the planned faults.
    pub fn arm(&self, plan: Plan) {
        let mut state = self.state();
        state.armed = true;
        state.calls = 0;
        state.plan = plan.0;
        state.fired.clear();
    }

    /// Limits the ports to one connection: each call waits for it, and holds it for longer than one poll. Only
    /// `cluster.changes` has its own connection.
    pub fn use_one_connection(&self) {
        self.state().connection = Some(FairLock::default());
    }

    /// Removes the limit of [`FaultInjector::use_one_connection`].
    pub fn use_many_connections(&self) {
        self.state().connection = None;
    }

    /// Waits for the connection if there is only one.
    async fn connection(&self, name: &str) -> Option<FairLockGuard> {
        let connection = self.state().connection.clone().filter(|_| name != "cluster.changes")?;
        Some(connection.wait().await)
    }

    /// Crashes the process at its next call with this name.
    pub fn crash_at(&self, name: &'static str) {
        self.state().crash_at = Some(name);
    }

    /// Starts recording calls, for [`FaultInjector::trace`].
    pub fn start_trace(&self) {
        let mut state = self.state();
        state.armed = true;
        state.calls = 0;
        state.trace.clear();
        state.tracing = true;
    }

    /// Stops recording, and returns the calls since [`FaultInjector::start_trace`].
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

    /// Ends all injected faults except an outage: denied calls are allowed again, delayed calls take effect, and
    /// paused processes may resume.
    pub async fn heal(&self) {
        let delayed = {
            let mut state = self.state();
            state.armed = false;
            state.denied.clear();
            state.crash_next = false;
            state.released = true;
            std::mem::take(&mut state.delayed)
        };
        for (_, delayed) in delayed {
            delayed.await;
        }
        self.run_check();
    }

    /// Returns how many of the planned faults were injected.
    pub fn fired(&self) -> usize {
        self.state().fired.len()
    }

    /// Takes the reason why the running process stopped, if it did.
    pub fn take_halt(&self) -> Option<Halt> {
        self.state().halt.take()
    }

    /// Lets a paused process resume.
    pub fn release(&self) {
        self.state().released = true;
    }

    /// Returns whether a paused process may resume.
    pub fn released(&self) -> bool {
        let state = self.state();
        state.released || state.calls >= state.resume_at
    }

    /// Returns the number of calls so far that change something, without heartbeats.
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// Returns the number of calls so far.
    pub fn total(&self) -> u64 {
        self.state().total
    }

    fn run_check(&self) {
        let check = self.state().check.clone();
        if let Some(check) = check {
            check();
        }
    }

    /// Counts the call, and decides what happens to it.
    fn intercept(&self, name: &'static str, changes: bool, stale: bool) -> Interception {
        let mut state = self.state();
        state.total += 1;
        state.changes += u64::from(changes && name != "store.beat");
        assert!(state.total < MAX_CALLS, "BoundedCalls: {MAX_CALLS} calls, the last of them `{name}`");
        // A stopped process makes no further calls, even if several of its futures are ready.
        match state.halt {
            Some(Halt::Crashed) => return Interception::with(Some(Fault::CrashBefore)),
            Some(Halt::Paused) => return Interception::with(Some(Fault::Paused(0))),
            None => {}
        }
        if state.crash_next || state.crash_at == Some(name) {
            state.crash_next = false;
            state.crash_at = None;
            state.halt = Some(Halt::Crashed);
            return Interception::with(Some(Fault::CrashBefore));
        }
        let now = state.clock.as_ref().map(Clock::monotonic);
        let outage_effect = match (&mut state.outage, now) {
            (Some(active), Some(now)) => active.call(name, now),
            _ => OutageEffect::Unaffected,
        };
        match outage_effect {
            OutageEffect::Unaffected => {}
            OutageEffect::Crash => {
                state.halt = Some(Halt::Crashed);
                return Interception::with(Some(Fault::CrashBefore));
            }
            OutageEffect::Fail(takes, fault) => {
                let until = now.map(|now| now.after(takes)).filter(|_| !takes.is_zero());
                return Interception { fault, overdue: Vec::new(), until };
            }
        }
        let mut fault = state.denied.contains(name).then_some(Fault::Permanent);
        if !state.armed {
            return Interception::with(fault);
        }
        let call = state.calls;
        state.calls += 1;
        if state.tracing {
            state.trace.push(CallSite { name, changes, stale, last: false });
        }
        let mut overdue = Vec::new();
        while state.delayed.front().is_some_and(|(at, _)| *at <= call) {
            if let Some((_, delayed)) = state.delayed.pop_front() {
                overdue.push(delayed);
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
        Interception { fault, overdue, until: None }
    }

    /// Waits until the call ends.
    async fn wait_until(&self, until: Option<MonotonicTime>) {
        let clock = self.state().clock.clone();
        if let (Some(clock), Some(until)) = (clock, until) {
            clock.sleep_until(until).await;
        }
    }

    async fn wait_for_resume(&self) {
        poll_fn(|context| {
            if self.released() {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Passes a call that changes something.
    pub(super) async fn change<T, E>(
        &self,
        name: &'static str,
        send: impl Fn() -> PortFuture<Outcome<T, E>> + Send,
    ) -> Outcome<T, E>
    where
        T: Send + 'static,
        E: InjectedError + Send + 'static,
    {
        let _connection = self.connection(name).await;
        let Interception { fault, overdue, until } = self.intercept(name, true, false);
        for delayed in overdue {
            delayed.await;
        }
        self.wait_until(until).await;
        let outcome = match fault {
            None | Some(Fault::CrashAfterAnswer | Fault::Stale) => send().await,
            Some(Fault::CrashBefore) => return std::future::pending().await,
            Some(Fault::CrashAfterEffect) => {
                let _ = send().await;
                self.run_check();
                self.state().halt = Some(Halt::Crashed);
                return std::future::pending().await;
            }
            Some(Fault::LostAnswer) => {
                let _ = send().await;
                Outcome::Unknown(E::error(name, Fault::LostAnswer))
            }
            Some(Fault::LostCall) => Outcome::Unknown(E::error(name, Fault::LostCall)),
            Some(fault @ (Fault::Transient | Fault::Throttled | Fault::Conflict | Fault::Permanent)) => {
                Outcome::NotApplied(E::error(name, fault))
            }
            Some(Fault::Duplicate) => {
                let first = send().await;
                self.run_check();
                let _ = send().await;
                first
            }
            Some(Fault::Delayed(calls)) => {
                let call = send();
                let mut state = self.state();
                let at = state.calls + usize::from(calls);
                state.delayed.push_back((at, Box::pin(async move { drop(call.await) })));
                drop(state);
                Outcome::Unknown(E::error(name, Fault::LostAnswer))
            }
            Some(Fault::Paused(_)) => {
                self.wait_for_resume().await;
                send().await
            }
        };
        self.run_check();
        outcome
    }

    /// Passes a read. `key` identifies what is read, for stale reads; `initial` returns the value from before
    /// the first write.
    pub(super) async fn read<T, E>(
        &self,
        name: &'static str,
        key: Option<String>,
        initial: impl FnOnce(&T) -> Option<T> + Send,
        send: impl Fn() -> PortFuture<Result<T, E>> + Send,
    ) -> Result<T, E>
    where
        T: Clone + PartialEq + Send + Sync + 'static,
        E: InjectedError + Send + 'static,
    {
        let _connection = self.connection(name).await;
        // The value of a stale read depends on the current value.
        let mut older = None;
        if let Some(key) = &key
            && let Ok(now) = send().await
        {
            let mut state = self.state();
            let previous = state.reads.remove(key);
            let (before, last) = match previous {
                Some((before, last)) => {
                    let same = last.downcast_ref::<T>().is_some_and(|last| *last == now);
                    if same { (before, last) } else { (Some(last), Arc::new(now.clone()) as _) }
                }
                None => (None, Arc::new(now.clone()) as Arc<dyn Any + Send + Sync>),
            };
            older = before
                .as_ref()
                .and_then(|before| before.downcast_ref::<T>().cloned())
                .or_else(|| initial(&now));
            state.reads.insert(key.clone(), (before, last));
        }
        let Interception { fault, overdue, until } = self.intercept(name, false, older.is_some());
        for delayed in overdue {
            delayed.await;
        }
        self.wait_until(until).await;
        let result = match fault {
            Some(Fault::CrashBefore | Fault::CrashAfterEffect) => {
                self.state().halt = Some(Halt::Crashed);
                return std::future::pending().await;
            }
            Some(fault @ (Fault::Transient | Fault::Throttled | Fault::Permanent | Fault::LostCall)) => {
                Err(E::error(name, fault))
            }
            Some(Fault::Paused(_)) => {
                self.wait_for_resume().await;
                send().await
            }
            Some(Fault::Stale) => match older {
                Some(older) => Ok(older),
                None => send().await,
            },
            None
            | Some(
                Fault::CrashAfterAnswer
                | Fault::LostAnswer
                | Fault::Conflict
                | Fault::Duplicate
                | Fault::Delayed(_),
            ) => send().await,
        };
        self.run_check();
        result
    }
}

/// An error that can represent a fault.
pub(super) trait InjectedError: Sized {
    fn error(name: &'static str, fault: Fault) -> Self;
}

impl InjectedError for PortError {
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

impl InjectedError for Inconclusive {
    fn error(name: &'static str, fault: Fault) -> Self {
        Self(format!("{name}: injected {fault:?}"))
    }
}

impl InjectedError for StoreError {
    fn error(name: &'static str, fault: Fault) -> Self {
        match fault {
            Fault::Throttled => Self::Throttled,
            Fault::Permanent => Self::Denied(name.to_owned()),
            _ => Self::Unavailable(format!("injected {fault:?}")),
        }
    }
}

impl InjectedError for WriteError {
    fn error(name: &'static str, fault: Fault) -> Self {
        match fault {
            Fault::Conflict => Self::Conflict(name.to_owned()),
            fault => Self::Store(StoreError::error(name, fault)),
        }
    }
}
