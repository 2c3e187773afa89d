//! Finds what is to be run, takes what a lost worker left, and keeps the lease.

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

/// Drives a rollout; the engine finds it and keeps its owner's lease.
#[async_trait]
pub trait RolloutDriver: Send + Sync + fmt::Debug + 'static {
    /// Takes the rollout and drives it until it ends, waits or is lost.
    async fn drive(&self, worker: &Worker, number: u64) -> RunOutcome;
}

/// A process's share in the work. Any number of them may run on one store.
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
    /// Every worker's last count, and since when it has stood there.
    seen: HashMap<WorkerId, (u64, MonotonicTime)>,
    /// Workers whose process is known to have ended.
    ended: BTreeSet<WorkerId>,
    /// What this worker runs now.
    busy: BTreeSet<WorkItem>,
    /// What this worker does not go on with before its moment.
    resting: HashMap<WorkItem, NextPoll>,
    /// How many looks in a row the store did not answer.
    blind: u32,
    /// Whose request was looked at already: one that still waits does so for its own reason.
    heard: BTreeSet<WorkItem>,
    /// Whether something of this worker's waits.
    waiting: bool,
    /// When the first of those that are at work beside this one will have been silent for as long as its lease.
    watched: Option<MonotonicTime>,
    /// How far the cluster's changes were followed, and whether there was news since the last look.
    mark: ChangeCursor,
    news: bool,
}

impl State {
    /// When a worker will have been silent for a lease; `None` when it is lost. Also one that is not listed is given a
    /// lease's time: it may have come since the list was read.
    fn silent(&mut self, owner: &WorkerId, now: MonotonicTime, lease: Duration) -> Option<MonotonicTime> {
        let (_, since) = *self.seen.entry(owner.clone()).or_insert((0, now));
        Some(since.after(lease)).filter(|silent| now <= *silent && !self.ended.contains(owner))
    }
}

/// What a turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunSummary {
    /// How many operations and rollouts were run.
    pub ran: usize,
    /// When something that waits wants to be looked at again.
    pub next_poll_at: Option<Timestamp>,
}

impl Worker {
    /// A worker of that name; see [`WorkerId::new`].
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

    /// Its lease.
    pub const fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The world.
    pub const fn ports(&self) -> &Ports {
        &self.ports
    }

    /// What it can run.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The measures.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether it was asked to stop.
    pub fn stopping(&self) -> bool {
        self.wake_signal.stopping()
    }

    /// Whether another worker was silent for a lease, as far as this one has looked.
    pub(super) fn lost(&self, other: &WorkerId) -> bool {
        let now = self.ports.clock.monotonic();
        self.state().silent(other, now, self.settings.lease).is_none()
    }

    /// A table of transitions does not have what was to follow: a bug, which is logged and counted, and never passed over.
    pub(crate) fn illegal(&self, error: &dyn fmt::Display) {
        self.illegal.fetch_add(1, Ordering::SeqCst);
        tracing::error!(%error, "an illegal transition was refused; this is a bug");
    }

    /// How many illegal transitions it has refused.
    pub fn illegal_transitions(&self) -> u64 {
        self.illegal.load(Ordering::SeqCst)
    }

    /// Asks it to stop: it takes nothing new, gives back what it has at the next step boundary, and [`Worker::run`]
    /// returns.
    pub fn stop(&self) {
        self.wake_signal.stop();
    }

    /// Tells it that there may be work, so that it need not wait for its next look.
    pub fn wake(&self) {
        self.wake_signal.ring();
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a sign of life; the lease is renewed only if it has arrived for certain.
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

    /// Looks once, and runs everything it finds until it rests or waits. For tests and for a process that lives only
    /// as long as there is work; servers use [`Worker::run`].
    pub async fn run_once(&self) -> RunSummary {
        self.heartbeat().await;
        let (found, mut next_poll_at) = self.find().await;
        let ran = found.len();
        let work = join_all(found.into_iter().map(|subject| self.drive(subject)));
        let left = match select(Box::pin(work), Box::pin(self.keep_lease())).await {
            Either::Left((left, _)) => left,
            Either::Right(((), _)) => Vec::new(),
        };
        for left in left {
            let at = match left {
                RunOutcome::Waiting(at) => at,
                RunOutcome::Again(later) => Some(self.wall_at(later.at)),
                RunOutcome::Resting
                | RunOutcome::HandedOver
                | RunOutcome::Lost
                | RunOutcome::Unknown
                | RunOutcome::Illegal(_) => None,
            };
            next_poll_at = [next_poll_at, at].into_iter().flatten().min();
        }
        RunSummary { ran, next_poll_at }
    }

    /// Works until [`Worker::stop`]; then gives back what it has, and says that it stops.
    pub async fn run(&self) {
        self.heartbeat().await;
        let mut beating = Box::pin(self.keep_lease());
        let mut work = FuturesUnordered::new();
        while !self.stopping() {
            let room = self.settings.concurrency.saturating_sub(work.len());
            let mut ended = Vec::new();
            let find = select(Box::pin(self.find()), &mut beating);
            let found = match poll_while(find, &mut work, &mut ended).await {
                Either::Left(((found, _), _)) => found,
                Either::Right(((), _)) => Vec::new(),
            };
            for (index, subject) in found.into_iter().enumerate() {
                if index < room {
                    work.push(self.drive(subject));
                } else {
                    self.state().busy.remove(&subject);
                }
            }
            if !ended.is_empty() {
                // There may be more room, and more to do, than was found.
                continue;
            }
            let idle = async {
                if work.is_empty() {
                    self.idle().await;
                } else {
                    select(work.next(), Box::pin(self.idle())).await;
                }
            };
            select(Box::pin(idle), &mut beating).await;
        }
        // A call that does not come back in time is cut off, as if the process had died in it: the next owner looks.
        let ended = async {
            while !work.is_empty() {
                select(work.next(), &mut beating).await;
            }
        };
        self.within_grace(ended).await;
        drop(work);
        let given_back = async {
            select(Box::pin(self.release()), &mut beating).await;
            let Ok(call) = self.lease.call(&self.ports, Fence::default()) else { return };
            // Should the answer be lost, the others find out by the lease.
            let _ = self.ports.store.heartbeat(&call, self.lease.worker(), None).await;
        };
        self.within_grace(given_back).await;
    }

    /// Waits for `work`, at most for the time that a worker has to stop.
    async fn within_grace(&self, work: impl Future<Output = ()>) {
        let clock = &self.ports.clock;
        let timer = clock.sleep_until(clock.monotonic().after(self.settings.grace));
        select(std::pin::pin!(work), timer).await;
    }

    fn wall_at(&self, at: MonotonicTime) -> Timestamp {
        self.ports.clock.wall().after(at.since(self.ports.clock.monotonic()))
    }

    /// Gives back what waits, so that another worker need not wait for the lease to have it. What cannot be given back
    /// is found by the lease.
    async fn release(&self) {
        let Ok(live) = self.ports.store.pending_work().await else { return };
        for item in live.into_iter().filter(|item| item.owner.as_ref() == Some(self.lease.worker())) {
            let WorkItem::Operation(subject) = &item.subject else { continue };
            if let Ok(Some(record)) = Record::read(&self.ports, subject).await {
                self.noticed(self.runner(&|| true).hand_over(record).await);
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

    /// Returns when there may be something to do.
    async fn idle(&self) {
        let now = self.ports.clock.monotonic();
        let (waiting, mark, watched, retry) = {
            let state = self.state();
            // Without the store there is nothing to be found out, whatever else there is news of.
            let seeing = state.blind == 0;
            // A retry whose pause is shorter than the time to the next look is not kept waiting for that.
            let retry = state.resting.values().map(|later| later.at).filter(|at| *at > now).min();
            (state.waiting && seeing, state.mark, state.watched.filter(|_| seeing), retry.filter(|_| seeing))
        };
        let look = match watched {
            Some(silent) => now.after(self.settings.watch).min(silent.after(Duration::from_millis(1))),
            None => now.after(self.settings.scan),
        };
        let until = retry.map_or(look, |retry| retry.min(look));
        let timer = self.ports.clock.sleep_until(until);
        let news = async {
            if !waiting {
                return std::future::pending().await;
            }
            match self.ports.cluster.changes(mark, self.settings.scan).await {
                Ok((changed, _)) if !changed.is_empty() => {}
                // The timer brings the next look.
                Ok(_) | Err(_) => std::future::pending().await,
            }
        };
        select(select(Box::pin(self.wake_signal.heard()), timer), Box::pin(news)).await;
    }

    /// What this worker is to run now, marked as being run; and when the first that waits wants to be looked at.
    async fn find(&self) -> (Vec<WorkItem>, Option<Timestamp>) {
        match self.look().await {
            Ok(found) => {
                self.state().blind = 0;
                found
            }
            Err(error) => {
                let first = {
                    let mut state = self.state();
                    state.blind = state.blind.saturating_add(1);
                    state.blind == 1
                };
                if first {
                    tracing::warn!(%error, "the store does not answer; no work is taken until it does");
                }
                (Vec::new(), None)
            }
        }
    }

    async fn look(&self) -> Result<(Vec<WorkItem>, Option<Timestamp>), StoreError> {
        let heartbeats = self.ports.store.heartbeats().await?;
        let now = self.ports.clock.monotonic();
        {
            let mut state = self.state();
            state.ended =
                heartbeats.iter().filter(|beat| beat.ended).map(|beat| beat.worker.clone()).collect();
            for beat in heartbeats.into_iter().filter(|beat| !beat.ended) {
                let seen = state.seen.entry(beat.worker.clone()).or_insert((beat.count, now));
                if seen.0 != beat.count {
                    *seen = (beat.count, now);
                }
            }
        }
        let live = self.ports.store.pending_work().await?;
        self.follow().await;
        let wall = self.ports.clock.wall();
        let mut state = self.state();
        let news = std::mem::take(&mut state.news);
        let (mut found, mut next_poll_at, mut waiting) = (Vec::new(), None::<Timestamp>, false);
        let mut watched = None::<MonotonicTime>;
        let listed: BTreeSet<WorkItem> = live.iter().map(|item| item.subject.clone()).collect();
        state.heard.retain(|subject| listed.contains(subject));
        state.resting.retain(|subject, _| listed.contains(subject));
        for item in live {
            let mine = item.owner.as_ref() == Some(self.lease.worker());
            if !item.control_requested {
                state.heard.remove(&item.subject);
            }
            let asked = item.control_requested && !state.heard.contains(&item.subject);
            let rest = state.resting.get(&item.subject).copied();
            let due = match &item.owner {
                None => item.next_poll_at.is_none_or(|next_poll_at| next_poll_at <= wall) || asked,
                // What it waits for, it knows better than the record, which is not written at each look.
                Some(_) if mine => {
                    let woken = item.next_poll_at.is_none_or(|next_poll_at| next_poll_at <= wall);
                    asked || rest.is_some() || news || woken
                }
                Some(owner) => match state.silent(owner, now, self.settings.lease) {
                    None => true,
                    Some(until) => {
                        watched = Some(watched.map_or(until, |first| first.min(until)));
                        false
                    }
                },
            };
            if state.busy.contains(&item.subject) {
                continue;
            }
            if let Some(rest) = rest.filter(|rest| rest.at > now && !asked && !(rest.news && news)) {
                let at = wall.after(rest.at.since(now));
                next_poll_at = Some(next_poll_at.map_or(at, |next_poll_at| next_poll_at.min(at)));
                waiting |= rest.news;
                continue;
            }
            if due {
                state.busy.insert(item.subject.clone());
                if item.control_requested {
                    state.heard.insert(item.subject.clone());
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
        state.watched = watched;
        drop(state);
        Ok((found, next_poll_at))
    }

    /// Hears the cluster's news, if something of this worker's waits.
    async fn follow(&self) {
        let (waiting, mark) = {
            let state = self.state();
            (state.waiting, state.mark)
        };
        if !waiting {
            return;
        }
        if let Ok((changed, mark)) = self.ports.cluster.changes(mark, Duration::ZERO).await {
            let mut state = self.state();
            state.mark = mark;
            state.news |= !changed.is_empty();
        }
    }

    /// How often in a row a backend has kept this from going on.
    pub(crate) fn tries(&self, subject: &WorkItem) -> u32 {
        self.state().resting.get(subject).map_or(0, |rest| rest.tries)
    }

    /// The pause after that many tries in a row which a backend has kept from going on.
    pub(crate) fn pause(&self, port: &'static str, tries: u32, asked: Option<Duration>) -> Duration {
        let jitter = self.ports.entropy.jitter();
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        budget.pause(port, tries + 1, asked, jitter, &self.settings)
    }

    fn noticed(&self, left: RunOutcome) {
        if let RunOutcome::Illegal(illegal) = left {
            self.illegal(&illegal);
        }
    }

    async fn drive(&self, subject: WorkItem) -> RunOutcome {
        let left = match &subject {
            WorkItem::Rollout(number) => self.rollouts.drive(self, *number).await,
            WorkItem::Operation(at) => match Record::read(&self.ports, at).await {
                Ok(Some(record)) if self.may_take(&record) => {
                    let tries = self.tries(&subject);
                    self.runner(&|| self.stopping()).run(record, tries).await
                }
                Ok(_) | Err(_) => RunOutcome::Lost,
            },
        };
        self.noticed(left.clone());
        let mut state = self.state();
        state.busy.remove(&subject);
        match &left {
            RunOutcome::Again(later) => {
                state.waiting |= later.news;
                state.resting.insert(subject, *later);
            }
            RunOutcome::Lost | RunOutcome::Unknown | RunOutcome::Illegal(_) => {
                // Whatever kept it from going on is given time; another owner is found out by the list.
                let tries = state.resting.get(&subject).map_or(0, |rest| rest.tries) + 1;
                let pause = self.settings.scan.saturating_mul(1 << (tries - 1).min(8));
                let at = self.ports.clock.monotonic().after(pause.min(self.settings.longest_pause));
                state.resting.insert(subject, NextPoll { at, tries, news: false });
            }
            RunOutcome::Waiting(_) => {
                state.waiting = true;
                state.resting.remove(&subject);
            }
            RunOutcome::Resting | RunOutcome::HandedOver => {
                state.resting.remove(&subject);
            }
        }
        drop(state);
        left
    }

    /// Whether the owner that the record itself names, which the list may have been late to show, has lost it.
    pub(crate) fn may_take_from(&self, owner: Option<&WorkerId>) -> bool {
        let Some(owner) = owner else { return true };
        if owner == self.lease.worker() {
            return true;
        }
        let now = self.ports.clock.monotonic();
        let state = self.state();
        let silent = state.seen.get(owner).is_some_and(|(_, since)| now.since(*since) > self.settings.lease);
        silent || state.ended.contains(owner)
    }

    fn may_take(&self, record: &Record) -> bool {
        record.operation().is_some_and(|operation| {
            let waits = !operation.status.rests();
            waits && operation.member.is_none() && self.may_take_from(operation.owner.as_ref())
        })
    }
}
