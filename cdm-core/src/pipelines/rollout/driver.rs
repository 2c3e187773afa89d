//! The owner of a rollout: its windows and its checkpoints.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;

use super::answered;
use super::checkpoint::wait;
use super::course::flushes;
use super::member::{MemberResult, Resolution, WindowContext};
use super::why::{self, Why};
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

/// A worker that has a rollout.
#[derive(Debug)]
pub(super) struct RolloutRun<'a> {
    pub(super) worker: &'a Worker,
    pub(super) settings: &'a PipelineSettings,
    pub(super) head: Rollout,
    pub(super) pages: BTreeMap<u32, RolloutPage>,
    looked: MonotonicTime,
    /// Which service was ready at the last look, and when that was.
    seen_ready: Option<(Color, MonotonicTime)>,
    /// The digest that the target ran at that look, on the way out.
    ran: Option<Digest>,
    /// What became of sites that the feed is told of with the next write.
    pub(super) told: Vec<FeedEvent>,
    /// What a backend said, or what has changed, that keeps the rollout from going on.
    pub(super) trouble: Option<Why>,
    /// The site that could not be asked, and why.
    pub(super) unasked: Option<String>,
    /// What stopped moves when it last looked.
    pub(super) freezes: Vec<Freeze>,
    /// The freeze of everyone, where there is one.
    pub(super) frozen: Option<Freeze>,
}

/// Why a window was left before each of its sites had an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interruption {
    /// Someone asked to pause or abort.
    Asked,
    /// The wave is over its budget.
    Budget,
    /// Whether a site works could not be found out.
    Inconclusive,
    /// A freeze stops moves.
    Frozen,
    /// The target runs another digest than sites may move on.
    Changed,
    /// The destination is not ready.
    NotReady,
    /// Whether the destination is ready, the cluster does not say.
    Away,
    /// A claimed site is in doubt, and the cluster does not say.
    Unreachable,
    /// The caches cannot be flushed for now.
    Backend,
    /// The process wants to end.
    Stopping,
}

impl Interruption {
    /// Whether the window's sites that were moved are to be flushed all the same.
    pub(super) const fn moves(early: Option<Self>) -> bool {
        use Interruption::{Asked, Budget, Changed, Frozen, Inconclusive};
        matches!(early, None | Some(Asked | Budget | Inconclusive | Frozen | Changed))
    }
}

/// How often an owner looks whether someone asked something, while a window lasts.
pub(super) const CONTROL_INTERVAL: Duration = Duration::from_secs(1);
/// How long a look that saw the destination ready is as good as another one.
const FRESH: Duration = Duration::from_millis(250);
/// How often a busy site is tried again before the window is left without it.
const BUSY_TRIES: u32 = 3;

impl<'a> RolloutRun<'a> {
    /// Takes the rollout; `None` when there is nothing to do.
    pub(super) async fn take(
        worker: &'a Worker,
        settings: &'a PipelineSettings,
        number: u64,
    ) -> Result<Option<Self>, RunOutcome> {
        let ports = worker.ports();
        let Ok(Some(head)) = ports.store.rollout(number).await else { return Err(RunOutcome::Lost) };
        if !head.status.runnable() {
            return Ok(None);
        }
        if !worker.may_take_from(head.owner.as_ref()) {
            return Err(RunOutcome::Lost);
        }
        let now = ports.clock.wall();
        if head.status == RolloutStatus::Waiting
            && head.next_poll_at.is_some_and(|next_poll_at| next_poll_at > now)
            && head.control.is_none()
        {
            return Err(RunOutcome::Waiting(head.next_poll_at));
        }
        if let Some(later) = why::still(worker, settings, &head, now).await {
            return Err(RunOutcome::Again(later));
        }
        let looked = ports.clock.monotonic();
        let mut owner = Self {
            worker,
            settings,
            head,
            pages: BTreeMap::new(),
            looked,
            seen_ready: None,
            ran: None,
            told: Vec::new(),
            trouble: None,
            unasked: None,
            freezes: Vec::new(),
            frozen: None,
        };
        let (version, needs_recovery) = (owner.head.version, owner.head.needs_recovery);
        let claimed = owner
            .commit(Vec::new(), |head| {
                if head.version != version {
                    return Ok(false);
                }
                head.claim(worker.lease().worker(), now)?;
                head.needs_recovery = true;
                if head.after.is_none() && !head.open() {
                    head.settle(RolloutEvent::Succeed, None, now)?;
                }
                Ok(true)
            })
            .await;
        if claimed.is_err() {
            return Err(RunOutcome::Lost);
        }
        // What the store has is that sites may be claimed from now on; whether they were before decides what is next.
        owner.head.needs_recovery = needs_recovery;
        Ok(Some(owner))
    }

    pub(super) fn now(&self) -> Timestamp {
        self.worker.ports().clock.wall()
    }

    /// A rollout that deploys first waits for that.
    pub(super) async fn await_deploy(&mut self) -> Result<Option<RunOutcome>, Lost> {
        let Some(deploy) = self.head.after.clone() else { return Ok(None) };
        let ended = self.worker.ports().store.history(&deploy).await.unwrap_or_default();
        let now = self.now();
        let status = ended.as_ref().map(|operation| operation.state.status);
        let why = ended.and_then(|operation| operation.state.reason).map_or_else(String::new, |r| r.message);
        let again = self.worker.settings().scan;
        self.commit(Vec::new(), |head| {
            match status {
                _ if head.control.is_some() => head.proceed(false, now)?,
                Some(Status::Ended(TerminalStatus::Succeeded)) => {
                    head.after = None;
                    head.waiting_since = None;
                    if !head.open() {
                        head.settle(RolloutEvent::Succeed, None, now)?;
                    }
                }
                Some(_) => {
                    let message = format!("{deploy} did not succeed: {why}");
                    let reason = Reason { code: ReasonCode::ImageNotReady, message, since: now, until: None };
                    head.settle(RolloutEvent::Fail, Some(reason), now)?;
                }
                None => {
                    let why = Why { code: ReasonCode::Deploying, message: format!("{deploy} is under way") };
                    wait(head, why, now, again, None)?;
                }
            }
            Ok(true)
        })
        .await?;
        Ok(match self.head.status {
            RolloutStatus::Running => None,
            RolloutStatus::Waiting => Some(RunOutcome::Waiting(self.head.next_poll_at)),
            _ => Some(RunOutcome::Resting),
        })
    }

    /// The window's sites, with their ordinals.
    pub(super) fn members(&self) -> impl Iterator<Item = (u32, &RolloutMember)> {
        self.members_of(self.head.window)
    }

    /// The sites of a window whose pages were read, with their ordinals.
    pub(super) fn members_of(&self, window: Window) -> impl Iterator<Item = (u32, &RolloutMember)> {
        let all = self.pages.values().flat_map(|page| {
            let start = page.page * RolloutPage::SIZE;
            (start..).zip(&page.members)
        });
        all.filter(move |(ordinal, _)| (window.start..window.end).contains(ordinal))
    }

    /// The window's sites that this leg has still to do something to.
    pub(super) fn todo(&self) -> Vec<(u32, RolloutMember)> {
        let open = |outcome: Option<MemberOutcome>| match self.head.direction {
            Direction::Forward => outcome.is_none(),
            Direction::Rollback => outcome == Some(MemberOutcome::Moved),
        };
        let todo = self.members().filter(|(_, member)| open(member.outcome));
        todo.map(|(ordinal, member)| (ordinal, member.clone())).collect()
    }

    /// Moves the window's sites, and writes their outcomes down.
    pub(super) async fn window(&mut self) -> Result<Option<Interruption>, Lost> {
        let mut outcomes = Vec::new();
        let mut early = None;
        let todo = self.todo();
        self.seen_ready = None;
        if self.head.needs_recovery && !todo.is_empty() && !crate::bug!(WindowNotSettled) {
            let mut still = self.head.control.is_some();
            let mut changed = None;
            if !still && let Some(early) = self.unready().await {
                if early != Interruption::Changed {
                    return Ok(Some(early));
                }
                // Nobody knows for how long: the sites are let go.
                (still, changed) = (true, Some(early));
            }
            let settled = self.send(&todo, Pass::Settle { still }, &mut outcomes).await?;
            early = settled.or(changed);
        }
        if early != Some(Interruption::Unreachable) {
            self.head.needs_recovery = false;
        }
        let settled: Vec<u32> = outcomes.iter().map(|out: &Out| out.ordinal).collect();
        let todo: Vec<_> = todo.into_iter().filter(|(ordinal, _)| !settled.contains(ordinal)).collect();
        if early.is_none() && !todo.is_empty() {
            early = self.send(&todo, Pass::Move, &mut outcomes).await?;
        }
        // A site in doubt stays claimed; whoever comes next, be it only to abort, brings it to an end first.
        self.head.needs_recovery |= early == Some(Interruption::Unreachable);
        if !outcomes.is_empty() {
            self.write_outcomes(&outcomes, early).await?;
        }
        Ok(early)
    }

    /// Writes outcomes into their pages and counts them, in one batch.
    pub(super) async fn write_outcomes(
        &mut self,
        outcomes: &[Out],
        early: Option<Interruption>,
    ) -> Result<(), Lost> {
        let (mut before, mut failures) = (Vec::with_capacity(outcomes.len()), Vec::new());
        let mut told = Vec::with_capacity(outcomes.len());
        for Out { ordinal, came } in outcomes {
            let page = self.pages.get_mut(&(ordinal / RolloutPage::SIZE));
            let index = (ordinal % RolloutPage::SIZE) as usize;
            if let Some(member) = page.and_then(|page| page.members.get_mut(index)) {
                member.why = came.why.as_deref().map(shortened);
                // A return, or a flush that failed, is of what was moved on that digest.
                member.digest = came.digest.or(member.digest);
                before.push((*ordinal, member.outcome, came.outcome, came.digest));
                member.outcome = Some(came.outcome);
                let (site, why) = (member.id.clone(), member.why.clone());
                told.push((*ordinal, site.clone(), came.outcome));
                failures.push(MemberFailure { site, outcome: came.outcome, why });
            }
        }
        if self.head.kind.moves() {
            let events =
                told.into_iter().map(|(ordinal, site, outcome)| self.event_of(ordinal, site, outcome));
            self.told = events.collect();
        }
        let touched = |page: &&RolloutPage| before.iter().any(|(at, ..)| at / RolloutPage::SIZE == page.page);
        let pages = self.pages.values().filter(touched).cloned().map(Mutation::RolloutPage).collect();
        let flush = self.members().any(|(_, member)| flushable(member.outcome));
        let comes_back = matches!(
            early,
            Some(
                Interruption::NotReady
                    | Interruption::Away
                    | Interruption::Unreachable
                    | Interruption::Stopping
            )
        );
        let (now, timeout) = (self.now(), self.settings.job_timeout);
        let waits = flush && !comes_back && !self.head.may_flush_later();
        self.commit(pages, |head| {
            for (ordinal, before, outcome, digest) in &before {
                head.count(*ordinal, *before, *outcome, *digest);
            }
            failures.iter().for_each(|failure| head.record_failure(failure));
            head.flushing = flush && !comes_back;
            // It came on.
            head.waiting_since = None;
            if waits {
                flushes(head, now, timeout);
            }
            Ok(true)
        })
        .await
    }

    /// What the feed is told of a site.
    fn event_of(&self, ordinal: u32, site: SiteId, outcome: MemberOutcome) -> FeedEvent {
        let (number, rollout) = (self.head.first_number + u64::from(ordinal), self.head.number);
        FeedEvent {
            at: self.now(),
            subject: Some(Subject::Site(site)),
            operation: Some(OperationId { number, parent: OperationParent::Rollout(rollout, ordinal) }),
            rollout: Some(rollout),
            what: format!("site {}", outcome.as_str()),
        }
    }

    /// Sends sites on their way, as many at once as the rollout allows.
    async fn send(
        &mut self,
        todo: &[(u32, RolloutMember)],
        pass: Pass,
        outcomes: &mut Vec<Out>,
    ) -> Result<Option<Interruption>, Lost> {
        let gate = self.head.gate.clone().filter(|_| self.head.direction == Direction::Forward);
        let shared = WindowContext {
            worker: self.worker,
            kind: self.head.kind,
            claim_token: self.head.claim_token(),
            destination: self.head.destination(),
            first_number: self.head.first_number,
            requested_by: self.head.requested_by.clone(),
            stops: pass == Pass::Settle { still: true },
            running: Mutex::new(self.ran),
            gate: gate.as_ref(),
            control_requested: AtomicBool::new(self.head.control.is_some()),
            polled_at: Mutex::new(self.looked),
        };
        let shared = &shared;
        let go = |ordinal: u32, member: &'_ RolloutMember| {
            let member = member.clone();
            async move {
                let taken = match pass {
                    Pass::Settle { .. } => shared.recover(ordinal, &member).await,
                    Pass::Move => shared.move_site(ordinal, &member).await,
                };
                (ordinal, member, taken)
            }
        };
        let most = self.head.max_concurrent.min(self.worker_share()) as usize;
        let room = self.head.room();
        // What a lost owner's sites came out as counts too.
        let mut failed = outcomes.iter().map(|out| u32::from(out.came.outcome.fails())).sum::<u32>();
        // Also of a wave whose owner was lost between its last outcome and its halt nobody further is sent.
        let over = failed > room || (self.head.over_budget() && !crate::bug!(BudgetIgnored));
        let mut early = (pass == Pass::Move && over && self.head.direction == Direction::Forward)
            .then_some(Interruption::Budget);
        let mut queue: Vec<(u32, RolloutMember)> = todo.iter().rev().cloned().collect();
        let mut busy: Vec<(u32, RolloutMember)> = Vec::new();
        let mut tries = 0;
        let (mut flight, mut landed) = (FuturesUnordered::new(), Vec::new());
        loop {
            if queue.is_empty()
                && flight.is_empty()
                && landed.is_empty()
                && !busy.is_empty()
                && early.is_none()
            {
                tries += 1;
                if tries > BUSY_TRIES {
                    for (ordinal, member) in std::mem::take(&mut busy) {
                        let why = self.what_is_at_work(&member).await?;
                        let came = Resolution::skipped(MemberOutcome::SkippedBusy, why);
                        outcomes.push(Out { ordinal, came });
                    }
                } else {
                    let clock = &self.worker.ports().clock;
                    clock.sleep_until(clock.monotonic().after(self.worker.settings().scan)).await;
                    queue.append(&mut busy);
                }
            }
            // Refilled by halves, so that one look at the service serves many sites.
            if pass.goes_on(early) && !queue.is_empty() && flight.len() <= most / 2 {
                if pass == Pass::Move {
                    early = poll_while(self.may_go_on(), &mut flight, &mut landed).await?;
                    shared.set_running(self.ran);
                }
                while pass.goes_on(early) && flight.len() < most {
                    let Some((ordinal, member)) = queue.pop() else { break };
                    if pass == Pass::Move && self.freeze_of(&member.id).is_some() {
                        let why = self.freeze_of(&member.id).map(Freeze::describe);
                        let came = Resolution::skipped(MemberOutcome::SkippedFrozen, why);
                        outcomes.push(Out { ordinal, came });
                        continue;
                    }
                    flight.push(go(ordinal, &member));
                }
                if crate::bug!(WindowOverrun) && queue.is_empty() {
                    let beyond = self.head.window.end;
                    let next = self
                        .pages
                        .values()
                        .flat_map(|page| (page.page * RolloutPage::SIZE..).zip(&page.members));
                    if let Some((ordinal, member)) = next.into_iter().find(|(ordinal, _)| *ordinal == beyond)
                    {
                        flight.push(go(ordinal, member));
                    }
                }
            }
            let Some((ordinal, member, taken)) = next(&mut landed, &mut flight).await else {
                if !pass.goes_on(early) || (queue.is_empty() && busy.is_empty()) {
                    break;
                }
                continue;
            };
            match taken? {
                MemberResult::Resolved(came) => {
                    failed += u32::from(came.outcome.fails());
                    outcomes.push(Out { ordinal, came });
                    if failed > room
                        && self.head.direction == Direction::Forward
                        && !crate::bug!(BudgetIgnored)
                    {
                        early = early.or(Some(Interruption::Budget));
                    }
                }
                MemberResult::Busy => busy.push((ordinal, member)),
                // A gate may have been cut short.
                MemberResult::FencedOff if shared.gate.is_some() && pass == Pass::Move => {
                    early = early.or(self.cut_short(shared).await);
                }
                MemberResult::FencedOff => {}
                MemberResult::NotReady => early = early.or(Some(Interruption::NotReady)),
                MemberResult::Inconclusive(why) => {
                    self.unasked.get_or_insert_with(|| format!("`{}`: {why}", member.id));
                    early = early.or(Some(Interruption::Inconclusive));
                }
                MemberResult::Unreachable(why) => {
                    self.trouble = Some(why);
                    early = Some(Interruption::Unreachable);
                }
            }
        }
        Ok(early)
    }

    async fn cut_short(&self, shared: &WindowContext<'_>) -> Option<Interruption> {
        let stops = shared.should_stop().await;
        stops.then(|| if self.worker.stopping() { Interruption::Stopping } else { Interruption::Asked })
    }

    fn worker_share(&self) -> u32 {
        u32::try_from(self.worker.settings().concurrency).unwrap_or(u32::MAX)
    }

    /// Whether more sites may be sent on their way.
    async fn may_go_on(&mut self) -> Result<Option<Interruption>, Lost> {
        if self.worker.stopping() {
            return Ok(Some(Interruption::Stopping));
        }
        let now = self.worker.ports().clock.monotonic();
        if self.head.control.is_none() && now.since(self.looked) >= CONTROL_INTERVAL {
            self.looked = now;
            if let Ok(Some(head)) = self.worker.ports().store.rollout(self.head.number).await {
                self.head.control = head.control;
            }
            self.frozen = self.look_for_freezes().await?;
        }
        if self.head.control.is_some() && !crate::bug!(PauseForgotten) {
            return Ok(Some(Interruption::Asked));
        }
        if self.frozen.is_some() && self.head.control.is_none() {
            return Ok(Some(Interruption::Frozen));
        }
        Ok(self.unready().await)
    }

    /// The look at the destination, before sites are moved there: why none may be. On the way out it has to run the digest
    /// that is wanted. While routes move, the rollout has its hold, and no deploy comes between this look and a move.
    async fn unready(&mut self) -> Option<Interruption> {
        let (out, promotes) =
            (self.head.direction == Direction::Forward, self.head.kind == RolloutKind::Promote);
        if !self.head.kind.moves() || !(out || promotes) {
            return None;
        }
        let (destination, now) = (self.head.destination(), self.worker.ports().clock.monotonic());
        if self.seen_ready.is_some_and(|(which, at)| which == destination && now.since(at) < FRESH) {
            return None;
        }
        let seen = self.worker.ports().cluster.service(destination).await;
        let wanted = self.head.wanted().filter(|_| out && !crate::bug!(WindowIgnoresDigest));
        let early = match seen {
            Ok(view) if wanted.is_some() && view.digest != wanted => {
                self.trouble = Some(Why::changed(destination, wanted, view.digest));
                Some(Interruption::Changed)
            }
            Ok(view) if !promotes || view.is_ready() || crate::bug!(RouteBeforeReady) => {
                self.ran = view.digest.filter(|_| out);
                None
            }
            Ok(_) => Some(Interruption::NotReady),
            Err(error) => {
                self.trouble = Some(Why::from(&error));
                Some(Interruption::Away)
            }
        };
        self.seen_ready = early.is_none().then_some((destination, now));
        early
    }

    /// Why a site is busy, in words; `None` where nothing is at work on it any more.
    async fn what_is_at_work(&self, member: &RolloutMember) -> Result<Option<String>, Lost> {
        let site = answered(self.worker, || self.worker.ports().store.site(&member.id)).await?;
        let operation = site.and_then(|site| site.operation);
        Ok(operation.map(|operation| {
            let kind = operation.input.kind();
            let id = Operation::live(Subject::Site(member.id.clone()), operation).id;
            format!("the {kind} `{id}` was at work on it until the end of its window")
        }))
    }

    pub(super) fn call(&self) -> Result<CallContext, Lost> {
        self.worker.lease().call(self.worker.ports(), Fence::new(self.head.number, self.head.term))
    }
}

/// A site's ordinal, and how it came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Out {
    pub(super) ordinal: u32,
    pub(super) came: Resolution,
}

/// So much of a reason as a page of sites has room for.
pub(super) fn shortened(why: &str) -> String {
    why.chars().take(200).collect()
}

/// Which way sites are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// What a lost owner began is finished.
    Settle {
        /// Without moving anything.
        still: bool,
    },
    /// On.
    Move,
}

impl Pass {
    /// Whether further sites are sent. What a lost owner has begun is brought to an end whatever else there is to do:
    /// once the rollout rests, nobody looks for it any more.
    const fn goes_on(self, early: Option<Interruption>) -> bool {
        match (self, early) {
            (_, None) => true,
            (Self::Move, Some(_)) | (Self::Settle { .. }, Some(Interruption::Unreachable)) => false,
            (Self::Settle { .. }, Some(_)) => true,
        }
    }
}

/// Whether a site's caches are to be flushed: it is where the rollout, or its return, wants it.
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
