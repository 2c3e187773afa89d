//! The owner of a rollout, and the passes that move the sites of a window.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;

use super::checkpoint::wait;
use super::member::{MemberResult, Resolution, WindowContext};
use super::read_with_retry;
use super::run::set_flush_reason;
use super::wait_reason::{self, WaitReason};
use crate::domain::operation::OperationParent;
use crate::domain::rollout::{
    MemberFailure, MemberOutcome, RolloutEvent, RolloutMember, RolloutPage, Window,
};
use crate::domain::{
    Color, Digest, Direction, Fence, Freeze, MonotonicTime, Operation, OperationId, Reason, ReasonCode,
    Rollout, RolloutKind, RolloutStatus, SiteId, Status, Subject, TerminalStatus, Timestamp,
};
use crate::engine::{Lost, RunOutcome, Worker, next, poll_while};
use crate::pipelines::PipelineSettings;
use crate::ports::{CallContext, FeedEvent, Mutation};

/// A rollout that this worker has claimed.
#[derive(Debug)]
pub(super) struct RolloutRun<'a> {
    pub(super) worker: &'a Worker,
    pub(super) settings: &'a PipelineSettings,
    pub(super) rollout: Rollout,
    pub(super) pages: BTreeMap<u32, RolloutPage>,
    polled_at: MonotonicTime,
    /// The service that was ready at the last check, and the time of that check.
    seen_ready: Option<(Color, MonotonicTime)>,
    /// The digest that the target ran at that check. `None` on a rollback.
    running_digest: Option<Digest>,
    /// The feed events of sites, which the next write stores.
    pub(super) pending_events: Vec<FeedEvent>,
    /// The reason of the present interruption, if it is one of a backend or a changed digest.
    pub(super) wait_reason: Option<WaitReason>,
    /// The first site with an inconclusive health gate, and the reason.
    pub(super) inconclusive: Option<String>,
    /// The freezes at the last read.
    pub(super) freezes: Vec<Freeze>,
    /// The freeze of all sites, if there is one.
    pub(super) frozen: Option<Freeze>,
}

/// The reason why a window ended before each of its sites had an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interruption {
    /// A pause or an abort was requested.
    ControlRequested,
    /// The wave has exceeded its budget.
    Budget,
    /// The health gate of a site was inconclusive.
    Inconclusive,
    /// A freeze stops moves.
    Frozen,
    /// The target runs another digest than the wanted one.
    DigestChanged,
    /// The destination is not ready.
    NotReady,
    /// The cluster does not respond, so that the readiness of the destination is unknown.
    ClusterUnavailable,
    /// The cluster does not respond, so that the route of a claimed site is unknown.
    Unreachable,
    /// The caches cannot be flushed at present.
    FlushBlocked,
    /// The process stops.
    Stopping,
}

impl Interruption {
    /// Returns whether the moved sites of the window are flushed before the checkpoint.
    pub(super) const fn allows_flush(interruption: Option<Self>) -> bool {
        use Interruption::{Budget, ControlRequested, DigestChanged, Frozen, Inconclusive};
        matches!(interruption, None | Some(ControlRequested | Budget | Inconclusive | Frozen | DigestChanged))
    }
}

/// The interval at which an owner checks for a requested pause or abort during a window.
pub(super) const CONTROL_INTERVAL: Duration = Duration::from_secs(1);
/// How long a check that found the destination ready stays valid.
const FRESH: Duration = Duration::from_millis(250);
/// The number of retries of a busy site before it is skipped.
const BUSY_TRIES: u32 = 3;

impl<'a> RolloutRun<'a> {
    /// Claims the rollout. Returns `None` if it has ended or stopped.
    pub(super) async fn take(
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
        if let Some(next_poll) = wait_reason::recheck(worker, settings, &rollout, now).await {
            return Err(RunOutcome::PollAgain(next_poll));
        }
        let polled_at = ports.clock.monotonic();
        let mut run = Self {
            worker,
            settings,
            rollout,
            pages: BTreeMap::new(),
            polled_at,
            seen_ready: None,
            running_digest: None,
            pending_events: Vec::new(),
            wait_reason: None,
            inconclusive: None,
            freezes: Vec::new(),
            frozen: None,
        };
        let (version, needs_recovery) = (run.rollout.version, run.rollout.needs_recovery);
        let claimed = run
            .commit(Vec::new(), |rollout| {
                if rollout.version != version {
                    return Ok(false);
                }
                rollout.claim(worker.lease().worker(), now)?;
                rollout.needs_recovery = true;
                if rollout.after.is_none() && !rollout.grant_first_window() {
                    rollout.settle(RolloutEvent::Succeed, None, now)?;
                }
                Ok(true)
            })
            .await;
        if claimed.is_err() {
            return Err(RunOutcome::Lost);
        }
        // The stored flag covers the claims of this owner. The earlier value states whether claims must be resolved now.
        run.rollout.needs_recovery = needs_recovery;
        Ok(Some(run))
    }

    pub(super) fn now(&self) -> Timestamp {
        self.worker.ports().clock.wall()
    }

    /// Waits for the deploy of a rollout that deploys first.
    pub(super) async fn await_deploy(&mut self) -> Result<Option<RunOutcome>, Lost> {
        let Some(deploy) = self.rollout.after.clone() else { return Ok(None) };
        let ended = self.worker.ports().store.history(&deploy).await.unwrap_or_default();
        let now = self.now();
        let status = ended.as_ref().map(|operation| operation.state.status);
        let why = ended.and_then(|operation| operation.state.reason).map_or_else(String::new, |r| r.message);
        let again = self.worker.settings().scan;
        self.commit(Vec::new(), |rollout| {
            match status {
                _ if rollout.control.is_some() => rollout.proceed(false, now)?,
                Some(Status::Ended(TerminalStatus::Succeeded)) => {
                    rollout.after = None;
                    rollout.waiting_since = None;
                    if !rollout.grant_first_window() {
                        rollout.settle(RolloutEvent::Succeed, None, now)?;
                    }
                }
                Some(_) => {
                    let message = format!("{deploy} did not succeed: {why}");
                    let reason = Reason { code: ReasonCode::ImageNotReady, message, since: now, until: None };
                    rollout.settle(RolloutEvent::Fail, Some(reason), now)?;
                }
                None => {
                    let why =
                        WaitReason { code: ReasonCode::Deploying, message: format!("{deploy} is under way") };
                    wait(rollout, why, now, again, None)?;
                }
            }
            Ok(true)
        })
        .await?;
        Ok(match self.rollout.status {
            RolloutStatus::Running => None,
            RolloutStatus::Waiting => Some(RunOutcome::Waiting(self.rollout.next_poll_at)),
            _ => Some(RunOutcome::Settled),
        })
    }

    /// Returns the sites of the window, with their ordinals.
    pub(super) fn members(&self) -> impl Iterator<Item = (u32, &RolloutMember)> {
        self.members_of(self.rollout.window)
    }

    /// Returns the sites of `window` whose pages were read, with their ordinals.
    pub(super) fn members_of(&self, window: Window) -> impl Iterator<Item = (u32, &RolloutMember)> {
        let all = self.pages.values().flat_map(|page| {
            let start = page.page * RolloutPage::SIZE;
            (start..).zip(&page.members)
        });
        all.filter(move |(ordinal, _)| (window.start..window.end).contains(ordinal))
    }

    /// Returns the sites of the window that must still be moved in the present direction.
    pub(super) fn remaining(&self) -> Vec<(u32, RolloutMember)> {
        let open = |outcome: Option<MemberOutcome>| match self.rollout.direction {
            Direction::Forward => outcome.is_none(),
            Direction::Rollback => outcome == Some(MemberOutcome::Moved),
        };
        let todo = self.members().filter(|(_, member)| open(member.outcome));
        todo.map(|(ordinal, member)| (ordinal, member.clone())).collect()
    }

    /// Moves the sites of the window, and stores their outcomes.
    pub(super) async fn move_window(&mut self) -> Result<Option<Interruption>, Lost> {
        let mut outcomes = Vec::new();
        let mut interruption = None;
        let todo = self.remaining();
        self.seen_ready = None;
        if self.rollout.needs_recovery && !todo.is_empty() && !crate::bug!(WindowNotSettled) {
            let mut stops = self.rollout.control.is_some();
            let mut changed = None;
            if !stops && let Some(interruption) = self.check_destination().await {
                if interruption != Interruption::DigestChanged {
                    return Ok(Some(interruption));
                }
                // The wait has no limit, so that the claimed sites are released.
                (stops, changed) = (true, Some(interruption));
            }
            let settled = self.run_pass(&todo, Pass::Recover { stops }, &mut outcomes).await?;
            interruption = settled.or(changed);
        }
        if interruption != Some(Interruption::Unreachable) {
            self.rollout.needs_recovery = false;
        }
        let settled: Vec<u32> = outcomes.iter().map(|site: &ResolvedSite| site.ordinal).collect();
        let todo: Vec<_> = todo.into_iter().filter(|(ordinal, _)| !settled.contains(ordinal)).collect();
        if interruption.is_none() && !todo.is_empty() {
            interruption = self.run_pass(&todo, Pass::Move, &mut outcomes).await?;
        }
        // A site whose route is unknown stays claimed. The next owner resolves it first, also before an abort.
        self.rollout.needs_recovery |= interruption == Some(Interruption::Unreachable);
        if !outcomes.is_empty() {
            self.write_outcomes(&outcomes, interruption).await?;
        }
        Ok(interruption)
    }

    /// Writes outcomes into the pages and counts them in the record, in one batch.
    pub(super) async fn write_outcomes(
        &mut self,
        outcomes: &[ResolvedSite],
        interruption: Option<Interruption>,
    ) -> Result<(), Lost> {
        let (mut before, mut failures) = (Vec::with_capacity(outcomes.len()), Vec::new());
        let mut reported = Vec::with_capacity(outcomes.len());
        for ResolvedSite { ordinal, resolution } in outcomes {
            let page = self.pages.get_mut(&(ordinal / RolloutPage::SIZE));
            let index = (ordinal % RolloutPage::SIZE) as usize;
            if let Some(member) = page.and_then(|page| page.members.get_mut(index)) {
                member.why = resolution.why.as_deref().map(truncate);
                // A rollback or a failed flush keeps the digest of the move.
                member.digest = resolution.digest.or(member.digest);
                before.push((*ordinal, member.outcome, resolution.outcome, resolution.digest));
                member.outcome = Some(resolution.outcome);
                let (site, why) = (member.id.clone(), member.why.clone());
                reported.push((*ordinal, site.clone(), resolution.outcome));
                failures.push(MemberFailure { site, outcome: resolution.outcome, why });
            }
        }
        if self.rollout.kind.moves() {
            let events =
                reported.into_iter().map(|(ordinal, site, outcome)| self.event_of(ordinal, site, outcome));
            self.pending_events = events.collect();
        }
        let touched = |page: &&RolloutPage| before.iter().any(|(at, ..)| at / RolloutPage::SIZE == page.page);
        let pages = self.pages.values().filter(touched).cloned().map(Mutation::RolloutPage).collect();
        let flush = self.members().any(|(_, member)| flushable(member.outcome));
        let is_repeated = matches!(
            interruption,
            Some(
                Interruption::NotReady
                    | Interruption::ClusterUnavailable
                    | Interruption::Unreachable
                    | Interruption::Stopping
            )
        );
        let (now, timeout) = (self.now(), self.settings.job_timeout);
        let waits = flush && !is_repeated && !self.rollout.can_defer_flush();
        self.commit(pages, |rollout| {
            for (ordinal, before, outcome, digest) in &before {
                rollout.count(*ordinal, *before, *outcome, *digest);
            }
            failures.iter().for_each(|failure| rollout.record_failure(failure));
            rollout.flushing = flush && !is_repeated;
            // The rollout has made progress.
            rollout.waiting_since = None;
            if waits {
                set_flush_reason(rollout, now, timeout);
            }
            Ok(true)
        })
        .await
    }

    /// Returns the feed event of an outcome.
    fn event_of(&self, ordinal: u32, site: SiteId, outcome: MemberOutcome) -> FeedEvent {
        let (number, rollout) = (self.rollout.first_number + u64::from(ordinal), self.rollout.number);
        FeedEvent {
            at: self.now(),
            subject: Some(Subject::Site(site)),
            operation: Some(OperationId { number, parent: OperationParent::Rollout(rollout, ordinal) }),
            rollout: Some(rollout),
            what: format!("site {}", outcome.as_str()),
        }
    }

    /// Runs one pass over sites, as many concurrently as the rollout and the worker allow.
    async fn run_pass(
        &mut self,
        todo: &[(u32, RolloutMember)],
        pass: Pass,
        outcomes: &mut Vec<ResolvedSite>,
    ) -> Result<Option<Interruption>, Lost> {
        let gate = self.rollout.gate.clone().filter(|_| self.rollout.direction == Direction::Forward);
        let context = WindowContext {
            worker: self.worker,
            kind: self.rollout.kind,
            claim_token: self.rollout.claim_token(),
            destination: self.rollout.destination(),
            first_number: self.rollout.first_number,
            requested_by: self.rollout.requested_by.clone(),
            stops: pass == Pass::Recover { stops: true },
            running: Mutex::new(self.running_digest),
            gate: gate.as_ref(),
            control_requested: AtomicBool::new(self.rollout.control.is_some()),
            polled_at: Mutex::new(self.polled_at),
        };
        let context = &context;
        let start = |ordinal: u32, member: &'_ RolloutMember| {
            let member = member.clone();
            async move {
                let result = match pass {
                    Pass::Recover { .. } => context.recover(ordinal, &member).await,
                    Pass::Move => context.move_site(ordinal, &member).await,
                };
                (ordinal, member, result)
            }
        };
        let limit = self.rollout.max_concurrent.min(self.worker_share()) as usize;
        let budget = self.rollout.remaining_budget();
        // The outcomes of the recovered sites count, too.
        let mut failed = outcomes.iter().map(|site| u32::from(site.resolution.outcome.fails())).sum::<u32>();
        // The owner can be lost between the outcome that exceeds the budget and the halt.
        let over_budget = failed > budget || (self.rollout.over_budget() && !crate::bug!(BudgetIgnored));
        let mut interruption =
            (pass == Pass::Move && over_budget && self.rollout.direction == Direction::Forward)
                .then_some(Interruption::Budget);
        let mut queue: Vec<(u32, RolloutMember)> = todo.iter().rev().cloned().collect();
        let mut busy: Vec<(u32, RolloutMember)> = Vec::new();
        let mut tries = 0;
        let (mut in_flight, mut finished) = (FuturesUnordered::new(), Vec::new());
        loop {
            if queue.is_empty()
                && in_flight.is_empty()
                && finished.is_empty()
                && !busy.is_empty()
                && interruption.is_none()
            {
                tries += 1;
                if tries > BUSY_TRIES {
                    for (ordinal, member) in std::mem::take(&mut busy) {
                        let why = self.busy_reason(&member).await?;
                        let resolution = Resolution::skipped(MemberOutcome::SkippedBusy, why);
                        outcomes.push(ResolvedSite { ordinal, resolution });
                    }
                } else {
                    let clock = &self.worker.ports().clock;
                    clock.sleep_until(clock.monotonic().after(self.worker.settings().scan)).await;
                    queue.append(&mut busy);
                }
            }
            // The pass refills when half of the sites have finished, so that one check of the service covers many sites.
            if pass.continues(interruption) && !queue.is_empty() && in_flight.len() <= limit / 2 {
                if pass == Pass::Move {
                    interruption =
                        poll_while(self.poll_interruption(), &mut in_flight, &mut finished).await?;
                    context.set_running(self.running_digest);
                }
                while pass.continues(interruption) && in_flight.len() < limit {
                    let Some((ordinal, member)) = queue.pop() else { break };
                    if pass == Pass::Move && self.freeze_of(&member.id).is_some() {
                        let why = self.freeze_of(&member.id).map(Freeze::describe);
                        let resolution = Resolution::skipped(MemberOutcome::SkippedFrozen, why);
                        outcomes.push(ResolvedSite { ordinal, resolution });
                        continue;
                    }
                    in_flight.push(start(ordinal, &member));
                }
                if crate::bug!(WindowOverrun) && queue.is_empty() {
                    let beyond = self.rollout.window.end;
                    let next = self
                        .pages
                        .values()
                        .flat_map(|page| (page.page * RolloutPage::SIZE..).zip(&page.members));
                    if let Some((ordinal, member)) = next.into_iter().find(|(ordinal, _)| *ordinal == beyond)
                    {
                        in_flight.push(start(ordinal, member));
                    }
                }
            }
            let Some((ordinal, member, result)) = next(&mut finished, &mut in_flight).await else {
                if !pass.continues(interruption) || (queue.is_empty() && busy.is_empty()) {
                    break;
                }
                continue;
            };
            match result? {
                MemberResult::Resolved(resolution) => {
                    failed += u32::from(resolution.outcome.fails());
                    outcomes.push(ResolvedSite { ordinal, resolution });
                    if failed > budget
                        && self.rollout.direction == Direction::Forward
                        && !crate::bug!(BudgetIgnored)
                    {
                        interruption = interruption.or(Some(Interruption::Budget));
                    }
                }
                MemberResult::Busy => busy.push((ordinal, member)),
                // The probes of a health gate may have ended early.
                MemberResult::FencedOff if context.gate.is_some() && pass == Pass::Move => {
                    interruption = interruption.or(self.stop_cause(context).await);
                }
                MemberResult::FencedOff => {}
                MemberResult::NotReady => interruption = interruption.or(Some(Interruption::NotReady)),
                MemberResult::Inconclusive(why) => {
                    self.inconclusive.get_or_insert_with(|| format!("`{}`: {why}", member.id));
                    interruption = interruption.or(Some(Interruption::Inconclusive));
                }
                MemberResult::Unreachable(why) => {
                    self.wait_reason = Some(why);
                    interruption = Some(Interruption::Unreachable);
                }
            }
        }
        Ok(interruption)
    }

    async fn stop_cause(&self, context: &WindowContext<'_>) -> Option<Interruption> {
        let stops = context.should_stop().await;
        stops.then(|| {
            if self.worker.stopping() { Interruption::Stopping } else { Interruption::ControlRequested }
        })
    }

    fn worker_share(&self) -> u32 {
        u32::try_from(self.worker.settings().concurrency).unwrap_or(u32::MAX)
    }

    /// Returns the interruption that stops further moves, if there is one.
    async fn poll_interruption(&mut self) -> Result<Option<Interruption>, Lost> {
        if self.worker.stopping() {
            return Ok(Some(Interruption::Stopping));
        }
        let now = self.worker.ports().clock.monotonic();
        if self.rollout.control.is_none() && now.since(self.polled_at) >= CONTROL_INTERVAL {
            self.polled_at = now;
            if let Ok(Some(rollout)) = self.worker.ports().store.rollout(self.rollout.number).await {
                self.rollout.control = rollout.control;
            }
            self.frozen = self.read_freezes().await?;
        }
        if self.rollout.control.is_some() && !crate::bug!(PauseForgotten) {
            return Ok(Some(Interruption::ControlRequested));
        }
        if self.frozen.is_some() && self.rollout.control.is_none() {
            return Ok(Some(Interruption::Frozen));
        }
        Ok(self.check_destination().await)
    }

    /// Checks the destination before sites move there, and returns the interruption if they must not. On the way forward
    /// the destination must run the wanted digest. While routes move, the rollout holds the lock of the destination, so
    /// that no deploy changes the digest between this check and a move.
    async fn check_destination(&mut self) -> Option<Interruption> {
        let (out, promotes) =
            (self.rollout.direction == Direction::Forward, self.rollout.kind == RolloutKind::Promote);
        if !self.rollout.kind.moves() || !(out || promotes) {
            return None;
        }
        let (destination, now) = (self.rollout.destination(), self.worker.ports().clock.monotonic());
        if self.seen_ready.is_some_and(|(which, at)| which == destination && now.since(at) < FRESH) {
            return None;
        }
        let seen = self.worker.ports().cluster.service(destination).await;
        let wanted = self.rollout.wanted().filter(|_| out && !crate::bug!(WindowIgnoresDigest));
        let interruption = match seen {
            Ok(view) if wanted.is_some() && view.digest != wanted => {
                self.wait_reason = Some(WaitReason::changed(destination, wanted, view.digest));
                Some(Interruption::DigestChanged)
            }
            Ok(view) if !promotes || view.is_ready() || crate::bug!(RouteBeforeReady) => {
                self.running_digest = view.digest.filter(|_| out);
                None
            }
            Ok(_) => Some(Interruption::NotReady),
            Err(error) => {
                self.wait_reason = Some(WaitReason::from(&error));
                Some(Interruption::ClusterUnavailable)
            }
        };
        self.seen_ready = interruption.is_none().then_some((destination, now));
        interruption
    }

    /// Returns the reason why a site is busy. Returns `None` if no operation runs on it any more.
    async fn busy_reason(&self, member: &RolloutMember) -> Result<Option<String>, Lost> {
        let site = read_with_retry(self.worker, || self.worker.ports().store.site(&member.id)).await?;
        let operation = site.and_then(|site| site.operation);
        Ok(operation.map(|operation| {
            let kind = operation.input.kind();
            let id = Operation::live(Subject::Site(member.id.clone()), operation).id;
            format!("the {kind} `{id}` ran on the site until the end of its window")
        }))
    }

    pub(super) fn call(&self) -> Result<CallContext, Lost> {
        self.worker.lease().call(self.worker.ports(), Fence::new(self.rollout.number, self.rollout.term))
    }
}

/// A site with its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResolvedSite {
    pub(super) ordinal: u32,
    pub(super) resolution: Resolution,
}

/// Limits a reason to 200 characters, so that a page of sites stays small.
pub(super) fn truncate(why: &str) -> String {
    why.chars().take(200).collect()
}

/// A pass over the sites of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// Resolves the claims of a lost owner.
    Recover {
        /// Whether routes stay where they are.
        stops: bool,
    },
    /// Moves sites.
    Move,
}

impl Pass {
    /// Returns whether the pass processes further sites. The claims of a lost owner are resolved despite other
    /// interruptions, since a rollout that has stopped does not resolve them any more.
    const fn continues(self, interruption: Option<Interruption>) -> bool {
        match (self, interruption) {
            (_, None) => true,
            (Self::Move, Some(_)) | (Self::Recover { .. }, Some(Interruption::Unreachable)) => false,
            (Self::Recover { .. }, Some(_)) => true,
        }
    }
}

/// Returns whether the caches of a site with this outcome must be flushed: the site is on the destination.
pub(super) fn flushable(outcome: Option<MemberOutcome>) -> bool {
    match outcome {
        Some(MemberOutcome::Moved | MemberOutcome::InPlace | MemberOutcome::Returned) => true,
        Some(
            MemberOutcome::Failed
            | MemberOutcome::Unhealthy
            | MemberOutcome::UnhealthyInPlace
            | MemberOutcome::SkippedGone
            | MemberOutcome::SkippedInactive
            | MemberOutcome::SkippedBusy
            | MemberOutcome::SkippedFrozen
            | MemberOutcome::Parked,
        )
        | None => false,
    }
}
