//! A rollout with its sites, and the events of its owner and of users.

use std::time::Duration;

use cdm_core::domain::rollout::{
    Budget, Counts, DeployState, Effect, Interruption, MemberFailure, MemberOutcome, PendingFlush, Progress,
    Report, ReportedOutcome, RolloutEvent, RolloutMember, RolloutPhase, RolloutSpec, Timing, WaitReason,
    WaveTarget, Window,
};
use cdm_core::domain::{
    Color, Digest, Direction, Freeze, OperationId, ReasonCode, Rollout, RolloutKind, RolloutScope,
    RolloutStatus, SiteId, Subject, Term, Timestamp, Uid,
};
use cdm_core::pipelines::NewRollout;

use crate::records::digest;
use crate::search::{StateMachine, Step, Trigger, named};
use crate::{LONG, NOW, actor, worker};

const TIMING: Timing = Timing {
    scan: Duration::from_secs(1),
    longest_pause: Duration::from_secs(15),
    ready_timeout: LONG,
    backend_timeout: LONG,
    job_timeout: LONG,
};

/// After every wait and every timeout.
const LATER: Timestamp = Timestamp::from_millis(NOW.millis() + 10_000_000);

/// A rollout, the outcomes of its sites, and what its owner remembers.
#[derive(Clone)]
pub(crate) struct RolloutState {
    rollout: Rollout,
    outcomes: Vec<Option<MemberOutcome>>,
    /// The interruption that takes effect after the flush in progress.
    interruption: Option<Interruption>,
}

impl RolloutState {
    /// Returns every initial state of the search.
    pub(crate) fn all() -> Vec<Self> {
        let single = (3, vec![]);
        let canary = (3, vec![WaveTarget::Count(1), WaveTarget::Percent(100)]);
        let wide = (Window::MIN + 2, vec![WaveTarget::Count(1), WaveTarget::Percent(100)]);
        let empty = (0, vec![]);
        let mut all = Vec::new();
        for (total, waves) in [empty, single, canary, wide] {
            for kind in [RolloutKind::Promote, RolloutKind::Upgrade, RolloutKind::Flush] {
                // In a wide rollout, an upgrade has the same grants and flushes as a promote.
                if total > Window::MIN && kind == RolloutKind::Upgrade {
                    continue;
                }
                for auto_rollback in [false, true] {
                    for deploys in [false, true] {
                        let spec = RolloutSpec { kind, auto_rollback, ..spec(waves.clone()) };
                        all.push(Self::new(total, spec, deploys));
                    }
                }
            }
        }
        let waves = vec![WaveTarget::Count(1), WaveTarget::Percent(100)];
        let bakes = RolloutSpec { kind: RolloutKind::Promote, bake: Duration::from_secs(60), ..spec(waves) };
        all.push(Self::new(3, bakes, false));
        all
    }

    fn new(total: u32, spec: RolloutSpec, deploys: bool) -> Self {
        let member = |random| RolloutMember::new(id(random), Uid::from_parts(1, random.into()));
        let draft = NewRollout {
            number: 7,
            spec,
            target: Color::Green,
            members: (0..total).map(member).collect(),
            after: deploys.then(|| OperationId::on(6, Subject::Service(Color::Green))),
            retry_of: None,
            first_number: 8,
            requested_by: actor(),
            now: NOW,
        };
        let outcomes = vec![None; total as usize];
        Self { rollout: draft.record().expect("a rollout"), outcomes, interruption: None }
    }

    pub(crate) fn status(&self) -> RolloutStatus {
        self.rollout.status
    }

    /// Returns whether the rollout has more sites than one grant. The search then varies fewer outcomes: what it explores
    /// in such a rollout are the grants and the flushes while sites move.
    fn is_wide(&self) -> bool {
        self.rollout.total > Window::MIN
    }

    fn window(&self) -> Window {
        self.rollout.window()
    }

    fn forward(&self) -> bool {
        self.rollout.direction() == Direction::Forward
    }

    /// A user sends a request, or a worker claims the rollout.
    fn send(&self, event: &RolloutEvent, at: Timestamp) -> Step<Self> {
        match self.rollout.advance(event, &TIMING, at) {
            Ok((rollout, effects)) => self.follow(event, self.outcomes.clone(), rollout, &effects),
            Err(illegal) => named(&illegal, self.status().as_str(), event.as_str()),
        }
    }

    /// The owner reports an event, which must be possible.
    fn report(&self, event: &RolloutEvent, outcomes: Vec<Option<MemberOutcome>>) -> Step<Self> {
        match self.rollout.advance(event, &TIMING, NOW) {
            Ok((rollout, effects)) => self.follow(event, outcomes, rollout, &effects),
            Err(illegal) => Step::Wrong(illegal.to_string()),
        }
    }

    /// Checks the effects of an event, and returns the state after it.
    fn follow(
        &self,
        event: &RolloutEvent,
        outcomes: Vec<Option<MemberOutcome>>,
        rollout: Rollout,
        effects: &[Effect],
    ) -> Step<Self> {
        let mut next = Self { rollout, outcomes, interruption: None };
        next.rollout.term = next.rollout.term.min(Term(1));
        let (was, is) = (&self.rollout, &next.rollout);
        let released = effects.contains(&Effect::Release);
        let owned = is.status == RolloutStatus::Running && is.owner.is_some();
        let flushes = is.phase.progress().pending_flush;
        let stops = was.control.is_some() && is.control.is_some();
        let accepted = match event {
            RolloutEvent::Resume(Some(digest)) => is.wanted() == Some(*digest),
            _ => true,
        };
        let idle = is.phase.moves_sites() && next.open().is_none() && flushes.is_none();
        let checks = [
            (accepted, "the rollout continues with another digest than the accepted one"),
            (!(stops && is.window().end > was.window().end), "sites were granted after a request to stop"),
            (!(is_report(event) && released == owned), "the owner is released and owns the rollout"),
            (
                effects.iter().all(|effect| match effect {
                    Effect::Move(window) | Effect::Recover(window) => {
                        window.start >= is.window().start && window.end <= is.window().end
                    }
                    Effect::Flush(pending) => flushes == Some(*pending),
                    Effect::AwaitDeploy(_) | Effect::RejectImage | Effect::Release => true,
                }),
                "an effect exceeds the record",
            ),
            (
                !(is_report(event) && owned && idle && effects.is_empty() && is.control.is_none()),
                "the owner has nothing to do",
            ),
            (
                !(was.needs_recovery && matches!(event, RolloutEvent::Claim(_)) && owned)
                    || is.needs_recovery
                    || is.awaited_deploy().is_some(),
                "claims were forgotten",
            ),
        ];
        if let Some((_, wrong)) = checks.iter().find(|(condition, _)| !condition) {
            return Step::Wrong((*wrong).to_owned());
        }
        if is.phase.is_flushing() && owned {
            next.interruption = match event {
                RolloutEvent::Interrupted(_, interruption) => Some(interruption.clone()),
                RolloutEvent::CachesFlushed(..) => self.interruption.clone(),
                _ => None,
            };
        }
        number_flushes_alike(&mut next.rollout.phase);
        Step::To(next)
    }

    /// Returns the open sites of the window.
    fn remaining(&self) -> Vec<u32> {
        let Window { start, end } = self.window();
        let open = |ordinal: &u32| match (self.forward(), self.outcomes[*ordinal as usize]) {
            (true, outcome) => outcome.is_none(),
            (false, outcome) => outcome == Some(MemberOutcome::Moved),
        };
        (start..end).filter(open).collect()
    }

    fn open(&self) -> Option<u32> {
        self.remaining().first().copied()
    }

    /// Returns the sites of a range whose caches are to be flushed.
    fn flushable(&self, range: Window) -> Vec<u32> {
        let there = |ordinal: &u32| match self.outcomes[*ordinal as usize] {
            Some(MemberOutcome::Moved | MemberOutcome::InPlace | MemberOutcome::Returned) => true,
            Some(_) | None => false,
        };
        (range.start..range.end).filter(there).collect()
    }

    /// Returns the outcomes after the first `bad` of these sites have the first outcome and the others the second, and
    /// the report of them.
    fn resolve(
        &self,
        sites: &[u32],
        bad: usize,
        outcomes: (MemberOutcome, MemberOutcome),
    ) -> (Vec<Option<MemberOutcome>>, Report) {
        let mut next = self.clone();
        let mut reported = Vec::new();
        for (index, ordinal) in sites.iter().enumerate() {
            let outcome = if index < bad { outcomes.0 } else { outcomes.1 };
            let before = next.outcomes[*ordinal as usize].replace(outcome);
            let site = MemberFailure { site: id(*ordinal), outcome, why: None };
            reported.push(ReportedOutcome { ordinal: *ordinal, before, digest: None, site });
        }
        let Progress { flush_from, window, .. } = next.rollout.phase.progress();
        let unflushed = next.flushable(Window { start: flush_from, end: window.end }).first().copied();
        let report = Report { outcomes: reported, open: next.open(), unflushed, claims: false };
        (next.outcomes, report)
    }

    /// The owner stops before each granted site has its outcome.
    fn interrupt(&self, interruption: Interruption) -> Step<Self> {
        let (outcomes, report) = self.resolve(&[], 0, (MemberOutcome::Moved, MemberOutcome::Moved));
        let claims = matches!(interruption, Interruption::Unreachable(_));
        self.report(&RolloutEvent::Interrupted(Report { claims, ..report }, interruption), outcomes)
    }

    /// Returns the events while sites move.
    fn moves(&self) -> Vec<(Trigger, String, Step<Self>)> {
        let mut steps = Vec::new();
        let mut step = |event: String, step| steps.push((Trigger::System, event, step));
        let remaining = self.remaining();
        let (bad, good) = match self.forward() {
            true if self.rollout.spec.kind.moves() => (MemberOutcome::Failed, MemberOutcome::Moved),
            true => (MemberOutcome::Parked, MemberOutcome::InPlace),
            false => (MemberOutcome::Parked, MemberOutcome::Returned),
        };
        let moved = |sites: &[u32], failed, outcomes| {
            let (outcomes, report) = self.resolve(sites, failed, outcomes);
            self.report(&RolloutEvent::SitesMoved(report), outcomes)
        };
        let failures = if self.is_wide() { vec![0, 2] } else { (0..=remaining.len().min(2)).collect() };
        for failed in failures {
            step(
                format!("{failed} sites {bad:?}, the rest {good:?}"),
                moved(&remaining, failed, (bad, good)),
            );
        }
        if !self.is_wide() {
            step("all skipped".to_owned(), moved(&remaining, 0, (bad, MemberOutcome::SkippedBusy)));
        }
        let starts = self.rollout.waves.iter().map(|wave| wave.end).chain([0]);
        if remaining.len() > 1 && starts.into_iter().any(|start| start == remaining[0]) {
            for failed in 0..if self.is_wide() { 1 } else { 2 } {
                step(format!("the first {failed} {bad:?}"), moved(&remaining[..1], failed, (bad, good)));
            }
        }
        if remaining.len() > 2 {
            let all_but_one = &remaining[..remaining.len() - 1];
            step(format!("all but one {good:?}"), moved(all_but_one, 0, (bad, good)));
        }
        if let Some(pending) = self.rollout.phase.progress().pending_flush {
            steps.extend(self.flush_ends(pending));
        }
        let mut step = |event: &str, interruption| {
            steps.push((Trigger::System, event.to_owned(), self.interrupt(interruption)));
        };
        if self.rollout.control.is_some() {
            step("stop", Interruption::ControlRequested);
        }
        if self.rollout.over_budget() {
            step("over budget", Interruption::Budget);
        }
        step("not ready", Interruption::NotReady(wait_reason(ReasonCode::ServiceNotReady)));
        step("unreachable", Interruption::Unreachable(wait_reason(ReasonCode::Retrying)));
        step("stopping", Interruption::Stopping);
        if self.forward() && self.rollout.spec.kind.moves() {
            step("another digest", Interruption::DigestChanged(wait_reason(ReasonCode::DigestChanged)));
            step("frozen", Interruption::Frozen(freeze()));
            step("inconclusive", Interruption::Inconclusive("no answer".to_owned()));
        }
        steps
    }

    /// Returns the events at the end of a flush.
    fn flush_ends(&self, pending: PendingFlush) -> Vec<(Trigger, String, Step<Self>)> {
        let mut steps = Vec::new();
        let flushed = self.flushable(pending.window);
        let results = [("flushed", &[][..]), ("flush failed", &flushed)];
        for (event, parked) in results.into_iter().take(if self.is_wide() { 1 } else { 2 }) {
            let (outcomes, report) = self.resolve(parked, 0, (MemberOutcome::Parked, MemberOutcome::Parked));
            let event_sent = RolloutEvent::CachesFlushed(report, self.interruption.clone());
            steps.push((Trigger::System, event.to_owned(), self.report(&event_sent, outcomes)));
        }
        let blocked = Interruption::FlushBlocked(wait_reason(ReasonCode::Retrying));
        steps.push((Trigger::System, "flush blocked".to_owned(), self.interrupt(blocked)));
        steps
    }

    /// Returns the events of the owner.
    fn owned(&self) -> Vec<(Trigger, String, Step<Self>)> {
        let polled = |event: &str, state| {
            let polled = self.report(&RolloutEvent::DeployPolled(state), self.outcomes.clone());
            (Trigger::System, event.to_owned(), polled)
        };
        match &self.rollout.phase {
            RolloutPhase::Deploying(_) => vec![
                polled("deploy running", DeployState::Running),
                polled("deploy succeeded", DeployState::Succeeded),
                polled("deploy failed", DeployState::Failed("why".to_owned())),
            ],
            RolloutPhase::Baking { .. } => {
                vec![(Trigger::System, "stop".to_owned(), self.interrupt(Interruption::ControlRequested))]
            }
            phase if phase.is_flushing() => {
                let stopping =
                    (Trigger::System, "stopping".to_owned(), self.interrupt(Interruption::Stopping));
                let pending = phase.progress().pending_flush;
                pending
                    .map(|pending| self.flush_ends(pending))
                    .into_iter()
                    .flatten()
                    .chain([stopping])
                    .collect()
            }
            _ => self.moves(),
        }
    }
}

/// Sets the round of each flush to 1. It rises with each flush that is repeated, and only names the jobs.
fn number_flushes_alike(phase: &mut RolloutPhase) {
    let (RolloutPhase::Moving(progress)
    | RolloutPhase::Flushing(progress)
    | RolloutPhase::Baking { progress, .. }
    | RolloutPhase::RollingBack { progress, .. }) = phase
    else {
        return;
    };
    progress.round = 1;
    progress.pending_flush = progress.pending_flush.map(|pending| PendingFlush { round: 1, ..pending });
}

/// Returns whether the owner reports the event, apart from its claim.
fn is_report(event: &RolloutEvent) -> bool {
    match event {
        RolloutEvent::DeployPolled(_)
        | RolloutEvent::SitesMoved(_)
        | RolloutEvent::CachesFlushed(..)
        | RolloutEvent::Interrupted(..) => true,
        RolloutEvent::Pause
        | RolloutEvent::Resume(_)
        | RolloutEvent::Abort
        | RolloutEvent::Claim(_)
        | RolloutEvent::Locked { .. } => false,
    }
}

/// Returns a freeze of all sites, without an end.
fn freeze() -> Freeze {
    Freeze { number: 9, sites: None, reason: "why".to_owned(), by: actor(), at: NOW, until: None }
}

fn spec(waves: Vec<WaveTarget>) -> RolloutSpec {
    RolloutSpec {
        digest: Some(digest()),
        scope: RolloutScope::All,
        waves,
        max_concurrent: 32,
        budget: Budget::Count(1),
        ..RolloutSpec::default()
    }
}

fn id(ordinal: u32) -> SiteId {
    SiteId::parse(&format!("s{ordinal}")).expect("a site id")
}

fn other_digest() -> Digest {
    Digest::parse(&"e".repeat(64)).expect("a digest")
}

fn wait_reason(code: ReasonCode) -> WaitReason {
    WaitReason { code, message: "why".to_owned() }
}

impl StateMachine for RolloutState {
    fn key(&self) -> String {
        let Rollout { spec, total, status, phase, control, acknowledged_failures, .. } = &self.rollout;
        let counts = self.rollout.waves.iter().map(|wave| {
            let Counts { succeeded, failed, skipped, parked, .. } = wave.counts;
            format!("{succeeded}+{failed}+{skipped}+{parked} ")
        });
        let why = self.rollout.reason.as_ref().map(|reason| reason.code);
        let flags = (
            self.rollout.owner.is_some(),
            self.rollout.accepted_digest.is_some(),
            self.rollout.needs_recovery,
            why,
            self.rollout.waiting_since,
        );
        let end = self.window().end as usize;
        let moved = self.outcomes.iter().skip(end).filter(|o| **o == Some(MemberOutcome::Moved)).count();
        let flush_from = self.rollout.phase.progress().flush_from;
        let unflushed = self.flushable(Window { start: flush_from, end: self.window().end }).len();
        format!(
            "{:?} {total} {} {} {} {control:?} {phase:?} {acknowledged_failures} {flags:?} {} {unflushed} {moved} {:?} {}",
            spec.kind,
            spec.auto_rollback,
            spec.bake.as_secs(),
            status.as_str(),
            self.remaining().len(),
            self.interruption,
            counts.collect::<String>(),
        )
    }

    fn events(&self) -> Vec<(Trigger, String, Step<Self>)> {
        let claim = RolloutEvent::Claim(worker());
        let accept = RolloutEvent::Resume(Some(other_digest()));
        let mut events = vec![
            (Trigger::User, "pause".to_owned(), self.send(&RolloutEvent::Pause, NOW)),
            (Trigger::User, "resume".to_owned(), self.send(&RolloutEvent::Resume(None), NOW)),
            (Trigger::User, "resume on another digest".to_owned(), self.send(&accept, NOW)),
            (Trigger::Abort, "abort".to_owned(), self.send(&RolloutEvent::Abort, NOW)),
            (Trigger::System, "claim".to_owned(), self.send(&claim, NOW)),
        ];
        if matches!(self.rollout.phase, RolloutPhase::Baking { .. }) {
            events.push((Trigger::System, "claim, later".to_owned(), self.send(&claim, LATER)));
        }
        if self.status() == RolloutStatus::Running && self.rollout.owner.is_some() {
            events.extend(self.owned());
        }
        events
    }

    fn check_invariants(&self) -> Result<(), String> {
        let rollout = &self.rollout;
        let Window { start, end } = rollout.window();
        let mut from = 0;
        for wave in &rollout.waves {
            let mut counted = Counts::default();
            self.outcomes[from as usize..wave.end as usize]
                .iter()
                .flatten()
                .for_each(|one| counted.add(*one));
            if counted != wave.counts {
                return Err(format!("the wave's tally is {:?}, and its sites have {counted:?}", wave.counts));
            }
            if self.forward() && start < wave.end && wave.end < end {
                return Err("a window crosses the end of its wave".to_owned());
            }
            from = wave.end;
        }
        let counts = rollout.counts().resolved() + rollout.running() + rollout.pending();
        let checks = [
            (
                end.saturating_sub(start) <= 2 * Window::size(32) && end <= rollout.total,
                "more than two windows are granted",
            ),
            (counts == rollout.total, "the counts do not sum to the total"),
            (
                rollout.status.runnable() || rollout.owner.is_none(),
                "a rollout that does not run has an owner",
            ),
            (
                rollout.status.runnable() || rollout.status.ended() || rollout.control.is_none(),
                "a request is still pending",
            ),
            (rollout.status.ended() == rollout.finished_at.is_some(), "an end without its time"),
            (
                rollout.lock().is_none() || rollout.status == RolloutStatus::Running,
                "a rollout at rest holds a lock",
            ),
        ];
        if let Some((_, wrong)) = checks.iter().find(|(condition, _)| !condition) {
            return Err((*wrong).to_owned());
        }
        match rollout.status {
            RolloutStatus::Succeeded if rollout.counts().resolved() != rollout.total => {
                Err("succeeded, with sites left".to_owned())
            }
            RolloutStatus::Succeeded if rollout.phase.progress().pending_flush.is_some() => {
                Err("succeeded, with caches left".to_owned())
            }
            RolloutStatus::Succeeded
                if !self.flushable(Window { start: rollout.phase.progress().flush_from, end }).is_empty() =>
            {
                Err("succeeded, with sites that were not flushed".to_owned())
            }
            RolloutStatus::Halted | RolloutStatus::Failed if rollout.reason.is_none() => {
                Err(format!("{} without a reason", rollout.status.as_str()))
            }
            _ => Ok(()),
        }
    }

    fn rests(&self) -> bool {
        !self.status().runnable()
    }

    fn ended(&self) -> bool {
        self.status().ended()
    }
}
