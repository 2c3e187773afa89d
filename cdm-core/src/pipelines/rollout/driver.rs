//! The owner of a rollout: executes the effects of its events, and reports the results as further events.
//!
//! Everything runs in parallel as tasks of one loop: moves of sites, one check of the destination, one flush, and one
//! write of the record. The decisions are those of [`Rollout::advance`].

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::FuturesUnordered;

use super::check::{Check, Checked, not_ready};
use super::flush::{Flush, FlushResult};
use super::member::{MemberResult, MoveContext, Resolution};
use super::read_with_retry;
use super::recheck::recheck;
use super::records::{Attachments, Records};
use super::sites::{Sites, count_failed, events_of};
use crate::domain::rollout::{
    DeployState, Effect, Interruption, MemberOutcome, PendingFlush, Report, RolloutEvent, RolloutMember,
    RolloutPage, Window,
};
use crate::domain::{
    Digest, Direction, Freeze, MonotonicTime, Operation, OperationId, Rollout, RolloutStatus, Status,
    Subject, TerminalStatus,
};
use crate::engine::{Lost, RunOutcome, Worker};
use crate::pipelines::PipelineSettings;

/// How long sites are started after a check that has found no interruption.
const FRESH: Duration = Duration::from_millis(250);
/// How long before the end of that time the next check begins, so that sites do not wait for it.
const CHECK_AHEAD: Duration = Duration::from_millis(50);
/// The number of retries of a busy site before it is skipped.
const BUSY_TRIES: u32 = 3;

/// A rollout that this worker has claimed.
#[derive(Debug)]
pub(super) struct Driver<'a> {
    worker: &'a Worker,
    settings: &'a PipelineSettings,
    records: Records<'a>,
    /// The record at the last write of this owner.
    rollout: Rollout,
    sites: Sites,
    tasks: FuturesUnordered<BoxFuture<'a, Result<Done, Lost>>>,
    /// The effects that are not executed yet.
    effects: VecDeque<Effect>,
    /// Whether pages are being read for the next effect.
    loading: bool,
    /// The write in progress.
    writing: Option<Writing>,
    context: Arc<MoveContext<'a>>,
    moves: Moves,
    check: CheckState,
    /// The reason why no further site may move.
    interruption: Option<Interruption>,
    /// Whether sites of the window can carry a claim although no site is in flight.
    claims: bool,
    /// No earlier site of the window is open, so that a search begins here.
    open_from: u32,
    /// Whether the end of the granted sites was reported.
    reported: bool,
    /// The result of the poll of the deploy, until it is reported.
    polled: Option<DeployState>,
    /// Whether caches are being flushed.
    flushing: bool,
    /// The result of the flush, until it is reported.
    flushed: Option<FlushResult>,
}

/// The sites that the owner moves.
#[derive(Debug, Default)]
struct Moves {
    /// The sites with possible claims of an earlier owner, which are resolved first.
    recovery: Option<Recovery>,
    /// The sites that have not been started.
    queue: VecDeque<u32>,
    in_flight: u32,
    /// The sites on which another operation runs. They are retried when no other site is left.
    busy: Vec<u32>,
    busy_tries: u32,
    /// The sites that were not moved although nothing failed. They are retried after another check.
    again: Vec<u32>,
}

/// The recovery from an earlier owner.
#[derive(Debug)]
struct Recovery {
    queue: VecDeque<u32>,
    /// Whether the check of the destination is in progress.
    checking: bool,
}

/// The last check.
#[derive(Debug, Default)]
struct CheckState {
    /// The start of the check in progress.
    running_since: Option<MonotonicTime>,
    /// The start of the last check. `None` if further sites need another check.
    passed_at: Option<MonotonicTime>,
    /// Whether another check was requested, during which the last one is valid.
    renew: bool,
    /// The time at which requests and freezes were last read.
    requests_read_at: Option<MonotonicTime>,
    freezes: Vec<Freeze>,
    /// The digest that the target ran.
    running: Option<Digest>,
}

/// A write in progress.
#[derive(Debug)]
struct Writing {
    /// The number of reported outcomes that count against the budget.
    failed: u32,
    /// Whether the reported interruption has ended if sites move afterwards.
    ends_interruption: bool,
}

/// The result of a task.
#[derive(Debug)]
enum Done {
    Written(Box<Rollout>, Vec<Effect>),
    Loaded(Vec<RolloutPage>),
    DeployPolled(DeployState),
    Checked(Checked),
    RecoveryChecked(Checked),
    Recovered(u32, MemberResult),
    Moved(u32, MemberResult),
    Flushed(FlushResult),
    BusyPauseEnded,
    StillBusy(u32, Option<String>),
}

impl<'a> Driver<'a> {
    /// Claims the rollout. Returns `None` if it has ended or stopped.
    pub(super) async fn claim(
        worker: &'a Worker,
        settings: &'a PipelineSettings,
        number: u64,
    ) -> Result<Option<Self>, RunOutcome> {
        let ports = worker.ports();
        let Ok(Some(rollout)) = ports.store.rollout(number).await else { return Err(RunOutcome::Lost) };
        if !rollout.status.runnable() {
            return Ok(None);
        }
        if !worker.may_take_from(rollout.owner.as_ref()) {
            return Err(RunOutcome::Lost);
        }
        let now = ports.clock.wall();
        if rollout.status == RolloutStatus::Waiting
            && rollout.next_poll_at.is_some_and(|next_poll_at| next_poll_at > now)
            && rollout.control.is_none()
        {
            return Err(RunOutcome::Waiting(rollout.next_poll_at));
        }
        if let Some(next_poll) = recheck(worker, settings, &rollout, now).await {
            return Err(RunOutcome::PollAgain(next_poll));
        }
        let records = Records::new(worker, settings);
        let claim = RolloutEvent::Claim(worker.lease().worker().clone());
        let Ok((rollout, effects)) = records.advance(rollout, claim, Attachments::default()).await else {
            return Err(RunOutcome::Lost);
        };
        let context = Arc::new(move_context(worker, &rollout, false, None));
        let claims = rollout.needs_recovery && rollout.phase.is_flushing();
        let mut driver = Self {
            worker,
            settings,
            records,
            rollout,
            sites: Sites::default(),
            tasks: FuturesUnordered::new(),
            effects: effects.into(),
            loading: false,
            writing: None,
            context,
            moves: Moves::default(),
            check: CheckState::default(),
            interruption: None,
            claims,
            open_from: 0,
            reported: false,
            polled: None,
            flushing: false,
            flushed: None,
        };
        driver.interrupt_on_request();
        Ok(Some(driver))
    }

    /// Runs the rollout until it ends, stops, waits or is released.
    pub(super) async fn run(mut self) -> Result<RunOutcome, Lost> {
        loop {
            while let Some(effect) = self.next_effect() {
                match effect {
                    Effect::Release => return Ok(self.outcome()),
                    // The batch of the event has recorded the verdict.
                    Effect::RejectImage => {}
                    Effect::AwaitDeploy(deploy) => self.poll_deploy(deploy),
                    Effect::Recover(window) => self.recover(window),
                    Effect::Move(window) => self.enqueue(window),
                    Effect::Flush(pending) => self.flush(pending),
                }
            }
            self.open_from = self.first_open().unwrap_or(self.open_from);
            self.recover_sites();
            self.move_sites();
            self.check();
            self.retry_busy();
            self.report();
            debug_assert!(!self.tasks.is_empty(), "the owner has nothing to wait for: {self:?}");
            let mut done = self.tasks.next().await;
            while let Some(result) = done {
                self.handle(result?);
                done = self.tasks.next().now_or_never().flatten();
            }
        }
    }

    /// Returns the next effect. If its pages were not read, reads them first.
    fn next_effect(&mut self) -> Option<Effect> {
        if self.loading {
            return None;
        }
        let pages = match self.effects.front()? {
            Effect::AwaitDeploy(_) | Effect::RejectImage | Effect::Release => Vec::new(),
            Effect::Recover(_) | Effect::Move(_) | Effect::Flush(_) => {
                self.sites.missing(self.rollout.phase.progress())
            }
        };
        if pages.is_empty() {
            return self.effects.pop_front();
        }
        let (worker, number) = (self.worker, self.rollout.number);
        self.loading = true;
        self.spawn(async move {
            let mut read = Vec::with_capacity(pages.len());
            for page in pages {
                let store = &worker.ports().store;
                read.push(read_with_retry(worker, || store.rollout_page(number, page)).await?.ok_or(Lost)?);
            }
            Ok(Done::Loaded(read))
        });
        None
    }

    fn spawn(&self, task: impl Future<Output = Result<Done, Lost>> + Send + 'a) {
        self.tasks.push(task.boxed());
    }

    /// Returns the outcome of this owner's run, once the rollout is released.
    fn outcome(&self) -> RunOutcome {
        match (self.rollout.status, &self.interruption) {
            (RolloutStatus::Waiting, Some(Interruption::Stopping)) if self.rollout.next_poll_at.is_none() => {
                RunOutcome::HandedOver
            }
            (RolloutStatus::Waiting, _) => RunOutcome::Waiting(self.rollout.next_poll_at),
            _ => RunOutcome::Settled,
        }
    }

    fn poll_deploy(&self, deploy: OperationId) {
        let worker = self.worker;
        self.spawn(async move {
            let ended = worker.ports().store.history(&deploy).await.unwrap_or_default();
            let state = match ended.map(|operation| operation.state) {
                None => DeployState::Running,
                Some(state) if state.status == Status::Ended(TerminalStatus::Succeeded) => {
                    DeployState::Succeeded
                }
                Some(state) => DeployState::Failed(state.reason.map_or_else(String::new, |r| r.message)),
            };
            Ok(Done::DeployPolled(state))
        });
    }

    /// Begins the recovery of the claims of an earlier owner. If the rollout is to stop, or the target runs another
    /// digest, moves are only ended where they are.
    fn recover(&mut self, window: Window) {
        let queue: VecDeque<u32> = self.sites.open(window, self.rollout.direction()).collect();
        if queue.is_empty() {
            return;
        }
        self.claims = true;
        let stops = self.rollout.control.is_some();
        self.moves.recovery = Some(Recovery { queue, checking: !stops });
        if stops {
            self.set_context(true);
            return;
        }
        let check = Check::of_destination(self.worker, &self.rollout);
        self.spawn(async move { Ok(Done::RecoveryChecked(check.run().await?)) });
    }

    fn set_context(&mut self, stops: bool) {
        self.context = Arc::new(move_context(self.worker, &self.rollout, stops, self.check.running));
    }

    /// Adds the open sites of a granted window to the queue. They are started after another check, except while earlier
    /// sites move: the last check is valid then until the next one ends.
    fn enqueue(&mut self, window: Window) {
        let direction = self.rollout.direction();
        self.moves.queue.extend(self.sites.open(window, direction));
        if crate::bug!(WindowOverrun) {
            self.moves.queue.push_back(window.end);
        }
        self.moves.busy_tries = 0;
        self.reported = false;
        self.open_from = 0;
        self.check.requests_read_at = None;
        self.check.renew = true;
        if self.moves.in_flight == 0 && self.moves.recovery.is_none() {
            self.check.passed_at = None;
            self.set_context(false);
        }
    }

    fn flush(&mut self, pending: PendingFlush) {
        let sites = self.sites.flushable(pending.window).collect();
        let flush = Flush::new(self.worker, self.settings, &self.rollout, pending, sites);
        self.flushing = true;
        self.spawn(async move { Ok(Done::Flushed(flush.run().await?)) });
    }

    /// Returns how many sites are processed in parallel.
    fn limit(&self) -> u32 {
        let worker = u32::try_from(self.worker.settings().concurrency).unwrap_or(u32::MAX);
        self.rollout.spec.max_concurrent.min(worker)
    }

    /// Starts to resolve claims of an earlier owner, as many in parallel as the limit allows. An interruption does not
    /// stop the recovery, since a rollout that has stopped does not resolve claims any more.
    fn recover_sites(&mut self) {
        let limit = self.limit();
        let Some(recovery) = self.moves.recovery.as_mut().filter(|recovery| !recovery.checking) else {
            return;
        };
        if matches!(self.interruption, Some(Interruption::Unreachable(_))) {
            recovery.queue.clear();
        }
        while self.moves.in_flight < limit
            && let Some(ordinal) = recovery.queue.pop_front()
        {
            let Some(member) = self.sites.get(ordinal).cloned() else { continue };
            let context = Arc::clone(&self.context);
            self.moves.in_flight += 1;
            let task = async move { Ok(Done::Recovered(ordinal, context.recover(ordinal, &member).await?)) };
            self.tasks.push(task.boxed());
        }
        if self.moves.in_flight == 0 {
            self.moves.recovery = None;
            self.claims = matches!(self.interruption, Some(Interruption::Unreachable(_)));
            self.set_context(false);
        }
    }

    /// Returns whether further sites may be started, or are started after the next check.
    fn moves_on(&self) -> bool {
        self.interruption.is_none() && self.moves.recovery.is_none() && self.rollout.phase.moves_sites()
    }

    /// Returns whether the last check is still valid.
    fn is_checked(&self) -> bool {
        let now = self.worker.ports().clock.monotonic();
        self.check.passed_at.is_some_and(|at| now.since(at) < FRESH)
    }

    /// Starts to move sites, as many in parallel as the limit allows.
    fn move_sites(&mut self) {
        if self.moves_on() && self.worker.stopping() && self.first_open().is_some() {
            self.interrupt(Interruption::Stopping);
        }
        if !self.moves_on() || !self.is_checked() {
            return;
        }
        while self.moves.in_flight < self.limit()
            && let Some(ordinal) = self.moves.queue.pop_front()
        {
            if !self.sites.is_open(ordinal, self.rollout.direction()) {
                continue;
            }
            let Some(member) = self.sites.get(ordinal).cloned() else { continue };
            let now = self.worker.ports().clock.wall();
            let frozen = |freeze: &&Freeze| freeze.names(&member.id) && freeze.holds(now);
            if let Some(freeze) = self.check.freezes.iter().find(frozen) {
                let why = Some(freeze.describe());
                self.sites.resolve(ordinal, Resolution::skipped(MemberOutcome::SkippedFrozen, why));
                continue;
            }
            let context = Arc::clone(&self.context);
            self.moves.in_flight += 1;
            self.spawn(async move { Ok(Done::Moved(ordinal, context.move_site(ordinal, &member).await?)) });
        }
    }

    /// Starts the next check, if further sites, or the result of a flush, wait for it or soon will.
    fn check(&mut self) {
        if !self.moves_on() || self.check.running_since.is_some() {
            return;
        }
        if self.moves.queue.is_empty() && self.moves.in_flight == 0 && !self.moves.again.is_empty() {
            self.moves.queue.extend(self.moves.again.drain(..));
            self.check.passed_at = None;
        }
        let now = self.worker.ports().clock.monotonic();
        let stale = self.check.passed_at.is_none_or(|at| now.since(at) + CHECK_AHEAD >= FRESH);
        let wanted = !self.moves.queue.is_empty() || self.flushed.is_some() || self.wants_report();
        if !wanted || !(stale || self.check.renew) {
            return;
        }
        let check =
            Check::of_destination(self.worker, &self.rollout).with_requests(self.check.requests_read_at, now);
        if check.reads_requests() || self.check.requests_read_at.is_none() {
            self.check.requests_read_at = Some(now);
        }
        (self.check.running_since, self.check.renew) = (Some(now), false);
        self.spawn(async move { Ok(Done::Checked(check.run().await?)) });
    }

    /// Retries the busy sites after a pause when no other site is left. After some tries they are skipped.
    fn retry_busy(&mut self) {
        let Moves { queue, in_flight, busy, again, .. } = &self.moves;
        let others = !queue.is_empty() || *in_flight > 0 || !again.is_empty();
        if others || busy.is_empty() || !self.moves_on() {
            return;
        }
        let worker = self.worker;
        self.moves.busy_tries += 1;
        if self.moves.busy_tries <= BUSY_TRIES {
            self.moves.in_flight += 1;
            self.spawn(async move {
                let clock = &worker.ports().clock;
                clock.sleep_until(clock.monotonic().after(worker.settings().scan)).await;
                Ok(Done::BusyPauseEnded)
            });
            return;
        }
        for ordinal in std::mem::take(&mut self.moves.busy) {
            let Some(member) = self.sites.get(ordinal).cloned() else { continue };
            self.moves.in_flight += 1;
            self.spawn(async move { Ok(Done::StillBusy(ordinal, busy_reason(worker, &member).await?)) });
        }
    }

    /// Returns the first site of the window that has no outcome yet, or that has not moved back.
    fn first_open(&self) -> Option<u32> {
        let Window { start, end } = self.rollout.window();
        let window = Window { start: start.max(self.open_from), end };
        self.sites.open(window, self.rollout.direction()).next()
    }

    /// Returns whether a report during the moves begins a flush or is granted further sites.
    fn wants_report(&self) -> bool {
        let short = self.moves.queue.len() < self.limit() as usize;
        self.first_open().is_some_and(|open| {
            self.rollout.begins_flush(open) || (short && self.rollout.next_grant(open).is_some())
        })
    }

    /// Writes the next event of the rollout, if there is one and no write is in progress.
    fn report(&mut self) {
        if self.writing.is_some() || !self.effects.is_empty() {
            return;
        }
        let event = self.next_event();
        let Some((event, attachments)) = event else { return };
        let failed = match &event {
            RolloutEvent::SitesMoved(report)
            | RolloutEvent::CachesFlushed(report, _)
            | RolloutEvent::Interrupted(report, _) => count_failed(&report.outcomes),
            _ => 0,
        };
        let ends_interruption =
            matches!(event, RolloutEvent::Interrupted(..) | RolloutEvent::CachesFlushed(_, Some(_)));
        self.writing = Some(Writing { failed, ends_interruption });
        let (records, rollout) = (self.records, self.rollout.clone());
        self.spawn(async move {
            let (rollout, effects) = records.advance(rollout, event, attachments).await?;
            Ok(Done::Written(Box::new(rollout), effects))
        });
    }

    fn next_event(&mut self) -> Option<(RolloutEvent, Attachments)> {
        if let Some(state) = self.polled.take() {
            return Some((RolloutEvent::DeployPolled(state), Attachments::default()));
        }
        let flushes = self.rollout.phase.is_flushing();
        let may_report = flushes || self.interruption.is_some() || self.is_checked();
        if let Some(result) = self.flushed.take_if(|_| may_report) {
            let fails = match result {
                FlushResult::Finished(parked) => {
                    for (ordinal, why) in parked {
                        let parked = Resolution { outcome: MemberOutcome::Parked, why, digest: None };
                        self.sites.resolve(ordinal, parked);
                    }
                    let (report, attachments) = self.take_report();
                    let interruption = self.interruption.clone();
                    return Some((RolloutEvent::CachesFlushed(report, interruption), attachments));
                }
                FlushResult::Blocked(why) => Interruption::FlushBlocked(why),
                FlushResult::Stopping => Interruption::Stopping,
            };
            if self.interruption.as_ref().is_none_or(Interruption::allows_flush) {
                self.interruption = Some(fails);
            }
        }
        if self.moves.in_flight > 0 && (self.interruption.is_some() || self.moves.recovery.is_some()) {
            return None;
        }
        if let Some(interruption) = self.interruption.clone() {
            // A flush in progress ends first, unless nothing can be flushed at present.
            let waits = flushes || matches!(interruption, Interruption::NotReady(_));
            if self.moves.recovery.is_some() || (self.flushing && waits) {
                return None;
            }
            self.moves = Moves::default();
            let (report, attachments) = self.take_report();
            return Some((RolloutEvent::Interrupted(report, interruption), attachments));
        }
        if !self.moves_on() {
            return None;
        }
        let Moves { queue, in_flight, busy, again, .. } = &self.moves;
        let ended = queue.is_empty() && *in_flight == 0 && busy.is_empty() && again.is_empty();
        let reports = if ended { !self.reported } else { self.is_checked() && self.wants_report() };
        if !reports {
            return None;
        }
        self.reported = ended;
        let (report, attachments) = self.take_report();
        Some((RolloutEvent::SitesMoved(report), attachments))
    }

    /// Returns what the owner has done since its last report.
    fn take_report(&mut self) -> (Report, Attachments) {
        let unflushed_from = self.rollout.phase.progress().flush_from;
        let range = Window { start: unflushed_from, end: self.rollout.window().end };
        let unflushed = self.sites.flushable(range).next().map(|(ordinal, _)| ordinal);
        let (open, claims) = (self.first_open(), self.claims);
        let (outcomes, pages) = self.sites.take_outcomes();
        let events = events_of(&self.rollout, &outcomes, self.worker.ports().clock.wall());
        (Report { outcomes, open, unflushed, claims }, Attachments { pages, events })
    }

    fn handle(&mut self, done: Done) {
        match done {
            Done::Written(rollout, effects) => {
                let ends = self.writing.take().is_some_and(|writing| writing.ends_interruption);
                self.rollout = *rollout;
                if ends && effects.iter().any(|effect| matches!(effect, Effect::Move(_))) {
                    self.interruption = None;
                }
                self.effects.extend(effects);
                self.interrupt_on_request();
            }
            Done::Loaded(pages) => {
                self.sites.insert(pages);
                self.loading = false;
            }
            Done::DeployPolled(state) => self.polled = Some(state),
            Done::Checked(checked) => self.handle_check(checked),
            Done::RecoveryChecked(checked) => self.handle_recovery_check(checked),
            Done::Recovered(ordinal, result) => {
                self.moves.in_flight -= 1;
                self.handle_result(ordinal, result);
            }
            Done::Moved(ordinal, result) => {
                self.moves.in_flight -= 1;
                match result {
                    MemberResult::Busy => self.moves.busy.push(ordinal),
                    MemberResult::FencedOff => {
                        self.moves.again.push(ordinal);
                        // The probes of a health gate end early on a request.
                        if self.context.gate.is_some() {
                            self.interrupt_stopped_probe();
                        }
                    }
                    result => self.handle_result(ordinal, result),
                }
            }
            Done::Flushed(result) => {
                self.flushing = false;
                self.flushed = Some(result);
            }
            Done::BusyPauseEnded => {
                self.moves.in_flight -= 1;
                self.moves.queue.extend(self.moves.busy.drain(..));
            }
            Done::StillBusy(ordinal, why) => {
                self.moves.in_flight -= 1;
                self.sites.resolve(ordinal, Resolution::skipped(MemberOutcome::SkippedBusy, why));
            }
        }
    }

    fn handle_check(&mut self, checked: Checked) {
        let Checked { interruption, control, freezes, digest } = checked;
        let started = self.check.running_since.take();
        self.check.passed_at = started.filter(|_| interruption.is_none());
        if let Some(freezes) = freezes {
            self.check.freezes = freezes;
        }
        if interruption.is_none() {
            self.check.running = digest;
            self.context.set_running(digest);
        }
        if control.is_some() {
            self.context.control_requested.store(true, Ordering::SeqCst);
        }
        if let Some(interruption) = interruption {
            self.interrupt(interruption);
        }
    }

    /// Continues the recovery after the check of the destination. If the target runs another digest, the rollout waits
    /// without a limit, so that the claimed sites are released first.
    fn handle_recovery_check(&mut self, checked: Checked) {
        let Some(recovery) = &mut self.moves.recovery else { return };
        recovery.checking = false;
        let changed = matches!(checked.interruption, Some(Interruption::DigestChanged(_)));
        self.check.running = checked.digest;
        match checked.interruption {
            None => self.set_context(false),
            Some(interruption) => {
                if changed {
                    self.set_context(true);
                } else {
                    self.moves.recovery = None;
                }
                self.interrupt(interruption);
            }
        }
    }

    /// Handles a result that means the same in a recovery and in a move. The other results leave the site in the queue.
    fn handle_result(&mut self, ordinal: u32, result: MemberResult) {
        match result {
            MemberResult::Resolved(resolution) => {
                self.sites.resolve(ordinal, resolution);
                self.interrupt_on_budget();
            }
            MemberResult::Busy | MemberResult::FencedOff => {}
            MemberResult::NotReady => {
                self.interrupt(Interruption::NotReady(not_ready(self.rollout.destination())));
            }
            MemberResult::Inconclusive(why) => {
                let site = self.sites.get(ordinal).map_or_else(String::new, |member| member.id.to_string());
                self.interrupt(Interruption::Inconclusive(format!("`{site}`: {why}")));
            }
            MemberResult::Unreachable(why) => {
                self.claims = true;
                self.interruption = Some(Interruption::Unreachable(why));
            }
        }
    }

    /// Stops further moves, unless an earlier interruption stops them already.
    fn interrupt(&mut self, interruption: Interruption) {
        self.interruption.get_or_insert(interruption);
    }

    /// Stops further moves after a write that has read a request, or has exceeded the budget.
    fn interrupt_on_request(&mut self) {
        if self.rollout.status != RolloutStatus::Running || self.rollout.awaited_deploy().is_some() {
            return;
        }
        if self.rollout.control.is_some() && !crate::bug!(PauseForgotten) {
            self.interrupt(Interruption::ControlRequested);
        }
        self.interrupt_on_budget();
    }

    /// Stops further moves if more sites have failed than the budget allows. The outcomes that are not stored yet count.
    fn interrupt_on_budget(&mut self) {
        let unsaved = self.sites.failed() + self.writing.as_ref().map_or(0, |writing| writing.failed);
        let over = unsaved > self.rollout.remaining_budget() || self.rollout.over_budget();
        if over && self.rollout.direction() == Direction::Forward && !crate::bug!(BudgetIgnored) {
            self.interrupt(Interruption::Budget);
        }
    }

    fn interrupt_stopped_probe(&mut self) {
        if self.worker.stopping() {
            self.interrupt(Interruption::Stopping);
        } else if self.context.control_requested.load(Ordering::SeqCst) {
            self.interrupt(Interruption::ControlRequested);
        }
    }
}

fn move_context<'a>(
    worker: &'a Worker,
    rollout: &Rollout,
    stops: bool,
    running: Option<Digest>,
) -> MoveContext<'a> {
    MoveContext {
        worker,
        kind: rollout.spec.kind,
        claim_token: rollout.claim_token(),
        destination: rollout.destination(),
        first_number: rollout.first_number,
        requested_by: rollout.requested_by.clone(),
        stops,
        running: Mutex::new(running),
        gate: rollout.spec.gate.clone().filter(|_| rollout.direction() == Direction::Forward),
        control_requested: AtomicBool::new(rollout.control.is_some()),
        polled_at: Mutex::new(worker.ports().clock.monotonic()),
    }
}

/// Returns the reason why a site is busy. Returns `None` if no operation runs on it any more.
async fn busy_reason(worker: &Worker, member: &RolloutMember) -> Result<Option<String>, Lost> {
    let site = read_with_retry(worker, || worker.ports().store.site(&member.id)).await?;
    let operation = site.and_then(|site| site.operation);
    Ok(operation.map(|operation| {
        let kind = operation.input.kind();
        let id = Operation::live(Subject::Site(member.id.clone()), operation).id;
        format!("the {kind} `{id}` ran on the site until the end of its window")
    }))
}
