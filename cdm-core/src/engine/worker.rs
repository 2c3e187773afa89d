//! The worker of a process: it finds pending work, takes over the work of lost workers, and renews its lease.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{Either, join_all, select};
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::wake_signal::WakeSignal;
use super::{Lease, NextPoll, Record, Registry, RetryBudget, RunOutcome, Runner, Settings, poll_while};
use crate::domain::{Fence, MonotonicTime, Timestamp, WorkerId};
use crate::ports::{ChangeCursor, Outcome, Ports, StoreError, WorkItem};

/// Runs rollouts. The engine finds them and renews the lease of the worker.
#[async_trait]
pub trait RolloutDriver: Send + Sync + fmt::Debug + 'static {
    /// Claims the rollout and runs it until it ends, stops, waits or is lost.
    async fn drive(&self, worker: &Worker, number: u64) -> RunOutcome;
}

/// The worker of a process. Any number of workers can share one store.
#[derive(Debug)]
pub struct Worker {
    ports: Ports,
    registry: Arc<Registry>,
    rollouts: Arc<dyn RolloutDriver>,
    settings: Settings,
    lease: Lease,
    budget: Mutex<RetryBudget>,
    state: Mutex<State>,
    heartbeats: AtomicU64,
    wake_signal: WakeSignal,
    illegal: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// By worker: the count of its last heartbeat, and the time when this worker first read that count.
    last_beats: HashMap<WorkerId, (u64, MonotonicTime)>,
    /// The workers that have announced their end.
    ended: BTreeSet<WorkerId>,
    /// The work that runs now.
    busy: BTreeSet<WorkItem>,
    /// The work that waits, with its next poll.
    polls: HashMap<WorkItem, NextPoll>,
    /// The number of consecutive scans that failed.
    failed_scans: u32,
    /// The work whose requested cancel, pause or abort was handled. If it still waits, it waits for another reason.
    handled_requests: BTreeSet<WorkItem>,
    /// Whether work of this worker waits.
    waiting: bool,
    /// The earliest end of the lease of another worker that owns work.
    next_expiry: Option<MonotonicTime>,
    /// The cursor of the changes in the cluster that were read, and whether any were read since the last scan.
    change_cursor: ChangeCursor,
    cluster_changed: bool,
}

impl State {
    /// Returns the time at which the lease of a worker ends without another heartbeat. Returns `None` if it has ended. A
    /// worker without a known heartbeat gets a full lease, since it can have started after the last read.
    fn expires_at(&mut self, owner: &WorkerId, now: MonotonicTime, lease: Duration) -> Option<MonotonicTime> {
        let (_, since) = *self.last_beats.entry(owner.clone()).or_insert((0, now));
        Some(since.after(lease)).filter(|expiry| now <= *expiry && !self.ended.contains(owner))
    }
}

/// The result of [`Worker::run_once`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunSummary {
    /// The number of operations and rollouts that were run.
    pub ran: usize,
    /// The time of the next poll of waiting work.
    pub next_poll_at: Option<Timestamp>,
}

impl Worker {
    /// Creates a worker. Each worker on a store needs its own id; see [`WorkerId::new`].
    pub fn new(
        id: WorkerId,
        ports: Ports,
        registry: Arc<Registry>,
        rollouts: Arc<dyn RolloutDriver>,
        settings: Settings,
    ) -> Self {
        Self {
            lease: Lease::new(id, &settings),
            ports,
            registry,
            rollouts,
            settings,
            budget: Mutex::default(),
            state: Mutex::default(),
            heartbeats: AtomicU64::new(0),
            wake_signal: WakeSignal::default(),
            illegal: AtomicU64::new(0),
        }
    }

    /// Returns the lease, which every write of the worker depends on.
    pub const fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Returns the backends that the worker calls.
    pub const fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Returns the pipelines that the worker can run.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Returns the settings that the worker was created with.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns whether [`Worker::stop`] was called.
    pub fn stopping(&self) -> bool {
        self.wake_signal.stopping()
    }

    /// Returns whether the lease of another worker has ended, by the heartbeats that this worker has read.
    pub(super) fn lost(&self, other: &WorkerId) -> bool {
        let now = self.ports.clock.monotonic();
        self.state().expires_at(other, now, self.settings.lease).is_none()
    }

    /// Logs and counts a transition that was not possible, which is a bug.
    pub(crate) fn illegal(&self, error: &dyn fmt::Display) {
        self.illegal.fetch_add(1, Ordering::SeqCst);
        tracing::error!(%error, "rejected an illegal transition, which is a bug");
    }

    /// Returns the number of illegal transitions that were rejected.
    pub fn illegal_transitions(&self) -> u64 {
        self.illegal.load(Ordering::SeqCst)
    }

    /// Stops the worker: it claims no further work and releases each operation at the next step boundary. Then
    /// [`Worker::run`] returns.
    pub fn stop(&self) {
        self.wake_signal.stop();
    }

    /// Notifies the worker of new work, so that it scans at once.
    pub fn wake(&self) {
        self.wake_signal.notify();
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a heartbeat. The lease is renewed only if the store has certainly applied it.
    pub async fn heartbeat(&self) {
        let sent = self.ports.clock.monotonic();
        let call = crate::ports::CallContext {
            deadline: sent.after(self.settings.call),
            write: self.ports.entropy.write(),
            fence: Fence::default(),
        };
        let count = self.heartbeats.fetch_add(1, Ordering::SeqCst) + 1;
        if let Outcome::Applied(()) =
            self.ports.store.heartbeat(&call, self.lease.worker(), Some(count)).await
        {
            self.lease.renewed(sent);
        }
    }

    async fn keep_lease(&self) {
        loop {
            let next = self.ports.clock.monotonic().after(self.settings.beat);
            self.ports.clock.sleep_until(next).await;
            self.heartbeat().await;
        }
    }

    /// Scans once, and runs all due work until it ends, stops or waits. For tests, and for a process that ends when no
    /// work is left; servers use [`Worker::run`].
    pub async fn run_once(&self) -> RunSummary {
        self.heartbeat().await;
        let (found, mut next_poll_at) = self.find().await;
        let ran = found.len();
        let work = join_all(found.into_iter().map(|subject| self.drive(subject)));
        let outcomes = match select(Box::pin(work), Box::pin(self.keep_lease())).await {
            Either::Left((outcomes, _)) => outcomes,
            Either::Right(((), _)) => Vec::new(),
        };
        for outcome in outcomes {
            let at = match outcome {
                RunOutcome::Waiting(at) => at,
                RunOutcome::PollAgain(next_poll) => Some(self.wall_at(next_poll.at)),
                RunOutcome::Settled
                | RunOutcome::HandedOver
                | RunOutcome::Lost
                | RunOutcome::Unknown
                | RunOutcome::Illegal(_) => None,
            };
            next_poll_at = [next_poll_at, at].into_iter().flatten().min();
        }
        RunSummary { ran, next_poll_at }
    }

    /// Runs until [`Worker::stop`] is called. Then releases the work of this worker and announces its end.
    pub async fn run(&self) {
        self.heartbeat().await;
        let mut renewing = Box::pin(self.keep_lease());
        let mut work = FuturesUnordered::new();
        while !self.stopping() {
            let capacity = self.settings.concurrency.saturating_sub(work.len());
            let mut ended = Vec::new();
            let find = select(Box::pin(self.find()), &mut renewing);
            let found = match poll_while(find, &mut work, &mut ended).await {
                Either::Left(((found, _), _)) => found,
                Either::Right(((), _)) => Vec::new(),
            };
            for (index, subject) in found.into_iter().enumerate() {
                if index < capacity {
                    work.push(self.drive(subject));
                } else {
                    self.state().busy.remove(&subject);
                }
            }
            if !ended.is_empty() {
                // Finished work leaves capacity, and can have created further work.
                continue;
            }
            let idle = async {
                if work.is_empty() {
                    self.idle().await;
                } else {
                    select(work.next(), Box::pin(self.idle())).await;
                }
            };
            select(Box::pin(idle), &mut renewing).await;
        }
        // A call that does not return in time is dropped, as in a crash: the next owner reads its effect.
        let ended = async {
            while !work.is_empty() {
                select(work.next(), &mut renewing).await;
            }
        };
        self.finish_within_grace(ended).await;
        drop(work);
        let handed_over = async {
            select(Box::pin(self.release()), &mut renewing).await;
            let Ok(call) = self.lease.call(&self.ports, Fence::default()) else { return };
            // If this call fails, other workers detect the end by the lease.
            let _ = self.ports.store.heartbeat(&call, self.lease.worker(), None).await;
        };
        self.finish_within_grace(handed_over).await;
    }

    /// Waits for `work`, but not longer than [`Settings::grace`].
    async fn finish_within_grace(&self, work: impl Future<Output = ()>) {
        let clock = &self.ports.clock;
        let timer = clock.sleep_until(clock.monotonic().after(self.settings.grace));
        select(std::pin::pin!(work), timer).await;
    }

    fn wall_at(&self, at: MonotonicTime) -> Timestamp {
        self.ports.clock.wall().after(at.since(self.ports.clock.monotonic()))
    }

    /// Releases waiting operations, so that another worker can claim them before the lease ends. An operation that
    /// cannot be released is claimed after the end of the lease.
    async fn release(&self) {
        let Ok(pending) = self.ports.store.pending_work().await else { return };
        for item in pending.into_iter().filter(|item| item.owner.as_ref() == Some(self.lease.worker())) {
            let WorkItem::Operation(subject) = &item.subject else { continue };
            if let Ok(Some(record)) = Record::read(&self.ports, subject).await {
                self.report_illegal(self.runner(&|| true).hand_over(record).await);
            }
        }
    }

    fn runner<'a>(&'a self, stopping: &'a (dyn Fn() -> bool + Sync)) -> Runner<'a> {
        Runner {
            stopping,
            ports: &self.ports,
            registry: &self.registry,
            lease: &self.lease,
            settings: &self.settings,
            budget: &self.budget,
        }
    }

    /// Returns at the time of the next scan, or when a notification or a change in the cluster arrives.
    async fn idle(&self) {
        let now = self.ports.clock.monotonic();
        let (waiting, change_cursor, next_expiry, retry) = {
            let state = self.state();
            // While the store does not respond, other triggers are useless.
            let available = state.failed_scans == 0;
            // A retry that is due before the next scan is not delayed until that scan.
            let retry = state.polls.values().map(|next_poll| next_poll.at).filter(|at| *at > now).min();
            (
                state.waiting && available,
                state.change_cursor,
                state.next_expiry.filter(|_| available),
                retry.filter(|_| available),
            )
        };
        let next_scan = match next_expiry {
            Some(expiry) => now.after(self.settings.watch).min(expiry.after(Duration::from_millis(1))),
            None => now.after(self.settings.scan),
        };
        let until = retry.map_or(next_scan, |retry| retry.min(next_scan));
        let timer = self.ports.clock.sleep_until(until);
        let cluster_changed = async {
            if !waiting {
                return std::future::pending().await;
            }
            match self.ports.cluster.changes(change_cursor, self.settings.scan).await {
                Ok((changed, _)) if !changed.is_empty() => {}
                // The timer triggers the next scan.
                Ok(_) | Err(_) => std::future::pending().await,
            }
        };
        select(select(Box::pin(self.wake_signal.notified()), timer), Box::pin(cluster_changed)).await;
    }

    /// Returns the due work, marked as busy, and the time of the next poll of other work. A scan that fails finds no
    /// work.
    async fn find(&self) -> (Vec<WorkItem>, Option<Timestamp>) {
        match self.scan().await {
            Ok(found) => {
                self.state().failed_scans = 0;
                found
            }
            Err(error) => {
                let first = {
                    let mut state = self.state();
                    state.failed_scans = state.failed_scans.saturating_add(1);
                    state.failed_scans == 1
                };
                if first {
                    tracing::warn!(%error, "the store does not respond; no work is claimed until it does");
                }
                (Vec::new(), None)
            }
        }
    }

    async fn scan(&self) -> Result<(Vec<WorkItem>, Option<Timestamp>), StoreError> {
        let heartbeats = self.ports.store.heartbeats().await?;
        let now = self.ports.clock.monotonic();
        {
            let mut state = self.state();
            state.ended =
                heartbeats.iter().filter(|beat| beat.ended).map(|beat| beat.worker.clone()).collect();
            for beat in heartbeats.into_iter().filter(|beat| !beat.ended) {
                let last = state.last_beats.entry(beat.worker.clone()).or_insert((beat.count, now));
                if last.0 != beat.count {
                    *last = (beat.count, now);
                }
            }
        }
        let pending = self.ports.store.pending_work().await?;
        self.read_changes().await;
        let wall = self.ports.clock.wall();
        let mut state = self.state();
        let cluster_changed = std::mem::take(&mut state.cluster_changed);
        let (mut found, mut next_poll_at, mut waiting) = (Vec::new(), None::<Timestamp>, false);
        let mut next_expiry = None::<MonotonicTime>;
        let listed: BTreeSet<WorkItem> = pending.iter().map(|item| item.subject.clone()).collect();
        state.handled_requests.retain(|subject| listed.contains(subject));
        state.polls.retain(|subject, _| listed.contains(subject));
        for item in pending {
            let mine = item.owner.as_ref() == Some(self.lease.worker());
            if !item.control_requested {
                state.handled_requests.remove(&item.subject);
            }
            let requested = item.control_requested && !state.handled_requests.contains(&item.subject);
            let poll = state.polls.get(&item.subject).copied();
            let due = match &item.owner {
                None => item.next_poll_at.is_none_or(|next_poll_at| next_poll_at <= wall) || requested,
                // The record of own waiting work is not written at each poll, so that the memory is more recent.
                Some(_) if mine => {
                    let woken = item.next_poll_at.is_none_or(|next_poll_at| next_poll_at <= wall);
                    requested || poll.is_some() || cluster_changed || woken
                }
                Some(owner) => match state.expires_at(owner, now, self.settings.lease) {
                    None => true,
                    Some(until) => {
                        next_expiry = Some(next_expiry.map_or(until, |first| first.min(until)));
                        false
                    }
                },
            };
            if state.busy.contains(&item.subject) {
                continue;
            }
            if let Some(poll) =
                poll.filter(|poll| poll.at > now && !requested && !(poll.on_change && cluster_changed))
            {
                let at = wall.after(poll.at.since(now));
                next_poll_at = Some(next_poll_at.map_or(at, |next_poll_at| next_poll_at.min(at)));
                waiting |= poll.on_change;
                continue;
            }
            if due {
                state.busy.insert(item.subject.clone());
                if item.control_requested {
                    state.handled_requests.insert(item.subject.clone());
                }
                found.push(item.subject);
            } else if mine || item.owner.is_none() {
                waiting = true;
                next_poll_at = Some(next_poll_at.map_or(item.next_poll_at.unwrap_or(wall), |at| {
                    at.min(item.next_poll_at.unwrap_or(wall))
                }));
            }
        }
        state.waiting = waiting;
        state.next_expiry = next_expiry;
        drop(state);
        Ok((found, next_poll_at))
    }

    /// Reads the changes in the cluster, if work of this worker waits.
    async fn read_changes(&self) {
        let (waiting, change_cursor) = {
            let state = self.state();
            (state.waiting, state.change_cursor)
        };
        if !waiting {
            return;
        }
        if let Ok((changed, change_cursor)) = self.ports.cluster.changes(change_cursor, Duration::ZERO).await
        {
            let mut state = self.state();
            state.change_cursor = change_cursor;
            state.cluster_changed |= !changed.is_empty();
        }
    }

    /// Returns the number of consecutive failures of a backend for this work.
    pub(crate) fn tries(&self, subject: &WorkItem) -> u32 {
        self.state().polls.get(subject).map_or(0, |poll| poll.tries)
    }

    /// Returns the pause after `tries` consecutive failures of a backend. It is not shorter than `requested`, the pause
    /// that the backend has requested.
    pub(crate) fn pause(&self, port: &'static str, tries: u32, requested: Option<Duration>) -> Duration {
        let jitter = self.ports.entropy.jitter();
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        budget.pause(port, tries + 1, requested, jitter, &self.settings)
    }

    fn report_illegal(&self, outcome: RunOutcome) {
        if let RunOutcome::Illegal(illegal) = outcome {
            self.illegal(&illegal);
        }
    }

    async fn drive(&self, subject: WorkItem) -> RunOutcome {
        let outcome = match &subject {
            WorkItem::Rollout(number) => self.rollouts.drive(self, *number).await,
            WorkItem::Operation(at) => match Record::read(&self.ports, at).await {
                Ok(Some(record)) if self.may_take(&record) => {
                    let tries = self.tries(&subject);
                    self.runner(&|| self.stopping()).run(record, tries).await
                }
                Ok(_) | Err(_) => RunOutcome::Lost,
            },
        };
        self.report_illegal(outcome.clone());
        let mut state = self.state();
        state.busy.remove(&subject);
        match &outcome {
            RunOutcome::PollAgain(next_poll) => {
                state.waiting |= next_poll.on_change;
                state.polls.insert(subject, *next_poll);
            }
            RunOutcome::Lost | RunOutcome::Unknown | RunOutcome::Illegal(_) => {
                // A growing pause for a persistent cause. The next scan shows another owner.
                let tries = state.polls.get(&subject).map_or(0, |poll| poll.tries) + 1;
                let pause = self.settings.scan.saturating_mul(1 << (tries - 1).min(8));
                let at = self.ports.clock.monotonic().after(pause.min(self.settings.longest_pause));
                state.polls.insert(subject, NextPoll { at, tries, on_change: false });
            }
            RunOutcome::Waiting(_) => {
                state.waiting = true;
                state.polls.remove(&subject);
            }
            RunOutcome::Settled | RunOutcome::HandedOver => {
                state.polls.remove(&subject);
            }
        }
        drop(state);
        outcome
    }

    /// Returns whether the work can be claimed from `owner`, the owner in the record itself. The list of pending work
    /// can lag behind the record.
    pub(crate) fn may_take_from(&self, owner: Option<&WorkerId>) -> bool {
        let Some(owner) = owner else { return true };
        if owner == self.lease.worker() {
            return true;
        }
        let now = self.ports.clock.monotonic();
        let state = self.state();
        let expired =
            state.last_beats.get(owner).is_some_and(|(_, since)| now.since(*since) > self.settings.lease);
        expired || state.ended.contains(owner)
    }

    fn may_take(&self, record: &Record) -> bool {
        record.operation().is_some_and(|operation| {
            !operation.status.is_settled()
                && operation.member.is_none()
                && self.may_take_from(operation.owner.as_ref())
        })
    }
}
