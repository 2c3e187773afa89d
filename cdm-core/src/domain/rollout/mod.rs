//! The pure part of a rollout: waves, windows, budget, halt and return.
//!
//! A rollout's list of sites is frozen when it is accepted. Its owner works on one *window* of that list at a time; a
//! *checkpoint* writes what became of the window, and in the same write grants the next. So a rollout stops at the
//! next checkpoint whoever asks, and an owner that lost it can reach no site beyond the last window it was granted.

mod gate;
mod member;
mod plan;
mod samples;
mod status;
mod waves;

use std::time::Duration;

use super::fence::{ClaimToken, Direction};
use super::reason::{Reason, ReasonCode};
use super::{Actor, Color, Digest, OperationId, SiteId, Timestamp, WorkerId};

pub use gate::{HealthGate, Judgement, ProbeResponse};
pub use member::{MemberFailure, MemberOutcome, RolloutMember, RolloutPage};
pub use plan::{CallEstimate, Candidate, Change, Plan, PlanInputs, PlannedWave, Timed, Warning, hash};
pub use samples::ProgressSample;
pub use status::{IllegalRollout, RolloutEvent, RolloutStatus};
pub use waves::{Budget, Counts, Wave, WaveTarget, plan_waves};

/// What a rollout does to each of its sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RolloutKind {
    /// Assigns it to the target.
    Upgrade,
    /// Moves its route and assignment to the target.
    Promote,
    /// Flushes its caches only: the hooks of a deploy.
    Flush,
}

impl RolloutKind {
    /// Whether sites change service, which only one unfinished rollout may do.
    pub const fn moves(self) -> bool {
        match self {
            Self::Upgrade | Self::Promote => true,
            Self::Flush => false,
        }
    }
}

/// Which sites a rollout takes, in the words of whoever asked for it. Its frozen list says which they were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RolloutScope {
    /// Those on the active canary service.
    #[default]
    Active,
    /// Those on the other one.
    Inactive,
    /// All.
    All,
    /// Those on this service: the hooks of a deploy to it.
    Service(Color),
    /// These.
    Sites(Vec<SiteId>),
}

/// What someone asked of a rollout that an owner has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Control {
    /// To pause.
    Pause,
    /// To abort; it outranks everything.
    Abort,
}

/// A stretch of the frozen list: the ordinals from `start` up to, not including, `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// The first.
    pub start: u32,
    /// The one after the last.
    pub end: u32,
}

impl Window {
    /// How many sites a window has at least, where there are as many; a checkpoint is written for each window.
    pub const LEAST: u32 = 128;
    /// How many at most.
    pub const MOST: u32 = 512;

    /// How many sites a window has: at its end those under way run out, so the more there are of them, the longer it is.
    pub fn size(max_concurrent: u32) -> u32 {
        max_concurrent.saturating_mul(4).clamp(Self::LEAST, Self::MOST)
    }
}

/// Windows whose sites have their outcomes, and whose caches are flushed while further sites are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingFlush {
    /// The stretch that they make up.
    pub window: Window,
    /// The first of its jobs, as [`Rollout::job`] had it.
    pub job: u32,
}

impl PendingFlush {
    /// How many sites may be moved during the flush of those before them.
    pub const MOST: u32 = 1_024;
}

/// A rollout's own record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// Its number, drawn like an operation's.
    pub number: u64,
    /// What it does.
    pub kind: RolloutKind,
    /// Where to; fixed when it was accepted.
    pub target: Color,
    /// The digest that the target has to run; fixed when it was accepted.
    pub digest: Option<Digest>,
    /// The digest that a person has resumed it on in place of that one; see [`Rollout::wanted`].
    pub accepted_digest: Option<Digest>,
    /// Which sites were asked for; of a retry, as the first one had it.
    pub scope: RolloutScope,
    /// The waves and what came out of them.
    pub waves: Vec<Wave>,
    /// How many sites at once.
    pub max_concurrent: u32,
    /// How many sites of a wave may fail.
    pub budget: Budget,
    /// Whether a halt takes the moved sites back.
    pub auto_rollback: bool,
    /// What each site has to answer.
    pub gate: Option<HealthGate>,
    /// How long it rests between two waves.
    pub bake: Duration,
    /// Where it is.
    pub status: RolloutStatus,
    /// What was asked of it since the last checkpoint.
    pub control: Option<Control>,
    /// Who has it.
    pub owner: Option<WorkerId>,
    /// How often it was claimed.
    pub term: u64,
    /// Which way it goes.
    pub direction: Direction,
    /// The stretch that the owner may touch.
    pub window: Window,
    /// Failures of the window's wave that a person has seen and resumed over.
    pub acknowledged_failures: u32,
    /// How many sites of the window's wave the gate spoke against on the digest that is wanted, since a person last
    /// resumed over them.
    pub unhealthy: u32,
    /// How many sites were on the target already; they cannot be taken back one by one.
    pub in_place: u32,
    /// The first sites that came out badly on the way out, or were skipped, at most [`MemberFailure::KEPT`].
    pub failures: Vec<MemberFailure>,
    /// Until when the next wave waits.
    pub baking: Option<Timestamp>,
    /// Whether the gate spoke against more sites of a wave than may fail: the image that is wanted is bad.
    pub image_rejected: bool,
    /// The deploy that puts the digest before this one back, where a halt asked for it.
    pub rollback: Option<OperationId>,
    /// On the way back: where it ends.
    pub rollback_end: u32,
    /// Whether sites of the window may be claimed by an owner that did not come to its end.
    pub needs_recovery: bool,
    /// Which round of jobs flushes the window: 1, then one more each time that it is gone through again.
    pub job: u32,
    /// The first of its members' operation numbers, which follow one another by ordinal.
    pub first_number: u64,
    /// How many sites.
    pub total: u32,
    /// The deploy that has to succeed first.
    pub after: Option<OperationId>,
    /// Which colour's hold it has.
    pub locked_color: Option<Color>,
    /// Whether the window's sites have their outcomes, and only their caches are still to be flushed.
    pub flushing: bool,
    /// The windows that are being flushed beside this one.
    pub pending_flush: Option<PendingFlush>,
    /// The caches of all sites before this one are flushed, or `trailing`.
    pub flush_from: u32,
    /// How far it was and when, thinned out the longer it takes: at most [`ProgressSample::KEPT`].
    pub samples: Vec<ProgressSample>,
    /// Why it waits, is paused, halted or failed.
    pub reason: Option<Reason>,
    /// Since when it has not come on, for the deadline of a wait.
    pub waiting_since: Option<Timestamp>,
    /// When a waiting rollout looks again by itself.
    pub next_poll_at: Option<Timestamp>,
    /// The rollout whose failed sites this one takes up.
    pub retry_of: Option<u64>,
    /// Whose request it was.
    pub requested_by: Actor,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When a worker first had it.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Raised by every write.
    pub version: u64,
}

impl Rollout {
    /// The owner's right to claim sites.
    pub const fn claim_token(&self) -> ClaimToken {
        ClaimToken { rollout: self.number, direction: self.direction, term: self.term }
    }

    /// Where the sites go on the present leg.
    pub const fn destination(&self) -> Color {
        match self.direction {
            Direction::Forward => self.target,
            Direction::Rollback => self.target.other(),
        }
    }

    /// The digest on which sites may move: what it was started for, or what a person has accepted since.
    pub fn wanted(&self) -> Option<Digest> {
        self.accepted_digest.or(self.digest)
    }

    /// The hold that it needs as it stands.
    pub fn lock(&self) -> Option<Color> {
        let routes = self.control.is_none()
            && self.kind == RolloutKind::Promote
            && self.status == RolloutStatus::Running
            && self.after.is_none();
        routes.then(|| self.destination())
    }

    /// A worker takes it. The first claim grants the first window.
    ///
    /// # Errors
    /// [`IllegalRollout`] when its status does not take it; nothing is changed then.
    pub fn claim(&mut self, worker: &WorkerId, now: Timestamp) -> Result<(), IllegalRollout> {
        self.status = self.status.next(RolloutEvent::Claim)?;
        self.owner = Some(worker.clone());
        self.term += 1;
        self.next_poll_at = None;
        self.reason = self.reason.take().filter(|_| self.direction == Direction::Rollback);
        self.started_at = self.started_at.or(Some(now));
        self.mark(now);
        Ok(())
    }

    /// Grants the first window; `false` when there is no site.
    pub fn open(&mut self) -> bool {
        let Some(first) = self.waves.first() else { return false };
        if self.window.end == 0 {
            self.window = Window { start: 0, end: first.end.min(Window::size(self.max_concurrent)) };
        }
        self.window.end > 0
    }

    /// All waves' counts together.
    pub fn counts(&self) -> Counts {
        self.waves.iter().fold(Counts::default(), |sum, wave| Counts {
            succeeded: sum.succeeded + wave.counts.succeeded,
            failed: sum.failed + wave.counts.failed,
            skipped: sum.skipped + wave.counts.skipped,
            parked: sum.parked + wave.counts.parked,
        })
    }

    /// Whether it has come to its end with sites that it did not bring where it wanted them.
    pub fn is_partial(&self) -> bool {
        let Counts { failed, skipped, parked, .. } = self.counts();
        self.status == RolloutStatus::Succeeded && failed + skipped + parked > 0
    }

    /// Sites of the granted window without an outcome, while an owner works on them.
    pub fn running(&self) -> u32 {
        match (self.status, self.direction) {
            (RolloutStatus::Running, Direction::Forward) => {
                self.window.end.saturating_sub(self.counts().resolved())
            }
            _ => 0,
        }
    }

    /// Sites that nothing was done to yet.
    pub fn pending(&self) -> u32 {
        self.total.saturating_sub(self.counts().resolved()).saturating_sub(self.running())
    }

    /// The wave that the window lies in.
    pub fn wave(&self) -> Option<usize> {
        self.waves.iter().position(|wave| wave.end > self.window.start)
    }

    /// How many more failures the window's wave bears.
    pub fn room(&self) -> u32 {
        let Some(index) = self.wave() else { return 0 };
        let failed = self.waves[index].counts.failed.saturating_sub(self.acknowledged_failures);
        self.budget.allows(self.wave_size(index)).saturating_sub(failed)
    }

    fn wave_size(&self, index: usize) -> u32 {
        let start = index.checked_sub(1).map_or(0, |before| self.waves[before].end);
        self.waves[index].end - start
    }

    fn wave_of(&mut self, ordinal: u32) -> Option<&mut Wave> {
        self.waves.iter_mut().find(|wave| wave.end > ordinal)
    }

    /// Counts the outcomes of the window. On the way back an outcome replaces the one before. `digest` is the one on
    /// which the site came out so.
    pub fn count(
        &mut self,
        ordinal: u32,
        before: Option<MemberOutcome>,
        now: MemberOutcome,
        digest: Option<Digest>,
    ) {
        let out = self.direction == Direction::Forward;
        let counts = digest == self.wanted() || crate::bug!(VerdictOnRolloutsDigest);
        let Some(wave) = self.wave_of(ordinal) else { return };
        if let Some(before) = before {
            wave.counts.remove(before);
        }
        wave.counts.add(now);
        if matches!(now, MemberOutcome::InPlace | MemberOutcome::UnhealthyInPlace) {
            self.in_place += 1;
        }
        // What a site said of another image is held against none.
        if out && counts && now.speaks_against_image() {
            self.unhealthy += 1;
        }
    }

    /// Keeps a site that came out badly or was skipped, while there is room; one that was skipped makes way for one that
    /// came out badly.
    pub fn record_failure(&mut self, failure: &MemberFailure) {
        let (bad, skipped) = (
            failure.outcome.fails() || failure.outcome == MemberOutcome::Parked,
            failure.outcome.is_skipped(),
        );
        if self.direction == Direction::Rollback || !(bad || skipped) {
            return;
        }
        if self.failures.len() < MemberFailure::KEPT {
            self.failures.push(failure.clone());
        } else if bad && let Some(at) = self.failures.iter().rposition(|kept| kept.outcome.is_skipped()) {
            self.failures.remove(at);
            self.failures.push(failure.clone());
        }
    }

    /// Decides what follows a checkpoint. `whole` says whether every site of the window has its outcome.
    ///
    /// An abort comes first, then a pause, then the budget; only then is the next window granted.
    ///
    /// # Errors
    /// [`IllegalRollout`] when its status does not take what follows.
    pub fn proceed(&mut self, whole: bool, now: Timestamp) -> Result<(), IllegalRollout> {
        self.mark(now);
        match self.control.take() {
            Some(Control::Abort) => return self.settle(RolloutEvent::Abort, None, now),
            Some(Control::Pause) if !crate::bug!(PauseForgotten) => {
                let message = "paused on request".to_owned();
                let paused = Reason { code: ReasonCode::Paused, message, since: now, until: None };
                // Why it goes back is what it ends with.
                let reason =
                    self.reason.take().filter(|_| self.direction == Direction::Rollback).unwrap_or(paused);
                return self.settle(RolloutEvent::Pause, Some(reason), now);
            }
            Some(Control::Pause) | None => {}
        }
        if self.direction == Direction::Forward && self.over_budget() && !crate::bug!(BudgetIgnored) {
            return self.halt(now);
        }
        if !whole {
            return Ok(());
        }
        let limit = match self.direction {
            Direction::Forward => self.waves.iter().map(|wave| wave.end).find(|end| *end > self.window.end),
            Direction::Rollback => {
                Some(self.rollback_end).filter(|rollback_end| *rollback_end > self.window.end)
            }
        };
        match (limit, self.direction) {
            (Some(end), _) => {
                let start = self.window.end;
                self.waiting_since = None;
                self.window = Window { start, end: end.min(start + Window::size(self.max_concurrent)) };
                self.job = 1;
                self.flushing = false;
                if self.waves.iter().any(|wave| wave.end == start) {
                    self.acknowledged_failures = 0;
                    self.unhealthy = 0;
                    self.bake(now)?;
                }
                Ok(())
            }
            (None, Direction::Forward) => self.settle(RolloutEvent::Succeed, None, now),
            (None, Direction::Rollback) => {
                let reason = self.reason.take();
                self.settle(RolloutEvent::Fail, reason, now)
            }
        }
    }

    /// Whether the window's caches may be flushed while further sites are moved: there are some, at once, and nobody has
    /// asked anything.
    pub fn may_flush_later(&self) -> bool {
        let ends = |wave: &Wave| wave.end == self.window.end;
        let next = match self.direction {
            Direction::Forward => {
                let rests = !self.bake.is_zero() && self.waves.iter().any(ends);
                self.window.end < self.total && !rests && !self.over_budget()
            }
            Direction::Rollback => self.window.end < self.rollback_end,
        };
        next && self.control.is_none()
    }

    /// Whether the window's wave has more failures than it may have.
    pub fn over_budget(&self) -> bool {
        let Some(index) = self.wave() else { return false };
        let failed = self.waves[index].counts.failed.saturating_sub(self.acknowledged_failures);
        failed > self.budget.allows(self.wave_size(index))
    }

    /// Rests between two waves, where that was asked for.
    fn bake(&mut self, now: Timestamp) -> Result<(), IllegalRollout> {
        if self.direction == Direction::Rollback || self.bake.is_zero() || crate::bug!(BakeSkipped) {
            return Ok(());
        }
        self.baking = Some(now.after(self.bake));
        let reason = self.baking_reason(now);
        self.settle(RolloutEvent::Wait, reason, now)?;
        self.owner = None;
        self.next_poll_at = self.baking;
        Ok(())
    }

    /// Why it rests, while it does.
    fn baking_reason(&self, now: Timestamp) -> Option<Reason> {
        let until = self.baking.filter(|until| *until > now)?;
        let wave = self.wave().map_or("", |wave| self.waves[wave].name.as_str());
        let message = format!("the wave `{wave}` begins when the one before has had its time");
        Some(Reason { code: ReasonCode::Baking, message, since: now, until: Some(until) })
    }

    fn halt(&mut self, now: Timestamp) -> Result<(), IllegalRollout> {
        let allowed = self.wave().map_or(0, |wave| self.budget.allows(self.wave_size(wave)));
        self.image_rejected |= self.unhealthy > allowed && !crate::bug!(GateAcquits);
        let failed = self.wave().map_or(0, |wave| self.waves[wave].counts.failed);
        let name = self.wave().map_or("", |wave| self.waves[wave].name.as_str());
        let message =
            format!("{failed} sites of the wave `{name}` failed, more than its budget of {allowed}");
        let reason = Reason { code: ReasonCode::BudgetExceeded, message, since: now, until: None };
        if self.auto_rollback && self.kind.moves() {
            self.rollback_end = self.window.end;
            self.direction = Direction::Rollback;
            self.pending_flush = None;
            self.flush_from = 0;
            self.window = Window { start: 0, end: self.rollback_end.min(Window::size(self.max_concurrent)) };
            self.job = 1;
            self.flushing = false;
            self.reason = Some(reason);
            Ok(())
        } else {
            self.settle(RolloutEvent::Halt, Some(reason), now)
        }
    }

    /// Lets an event happen. What is asked of a rollout that has an owner does not race with it: that is `control`.
    ///
    /// # Errors
    /// [`IllegalRollout`] when the table does not have it; nothing is changed then.
    pub fn settle(
        &mut self,
        event: RolloutEvent,
        reason: Option<Reason>,
        now: Timestamp,
    ) -> Result<(), IllegalRollout> {
        self.status = self.status.next(event)?;
        self.reason = reason;
        if !self.status.runnable() {
            self.owner = None;
            self.next_poll_at = None;
        }
        if self.status.ended() {
            self.finished_at = Some(now);
        }
        Ok(())
    }

    /// Someone asks for something. What nobody owns changes at once; an owner learns of it at its next checkpoint.
    ///
    /// # Errors
    /// [`IllegalRollout`] when the status does not take it.
    pub fn request(&mut self, event: RolloutEvent, now: Timestamp) -> Result<(), IllegalRollout> {
        let status = self.status.next(event)?;
        let control = match event {
            RolloutEvent::Pause => Some(Control::Pause),
            RolloutEvent::Abort => Some(Control::Abort),
            _ => None,
        };
        match control {
            Some(control) if self.status.runnable() && (self.owner.is_some() || self.window.end > 0) => {
                self.control = self.control.max(Some(control));
            }
            _ => {
                if event == RolloutEvent::Resume && self.status == RolloutStatus::Halted {
                    self.acknowledged_failures = self.wave().map_or(0, |wave| self.waves[wave].counts.failed);
                    self.unhealthy = 0;
                }
                // What was asked of one that waits stands, but for a pause.
                self.control = self.control.filter(|asked| *asked == Control::Abort);
                self.waiting_since = None;
                self.status = status;
                self.reason = self.reason.take().filter(|_| self.direction == Direction::Rollback);
                self.next_poll_at = None;
                if event == RolloutEvent::Resume
                    && let Some(baking) = self.baking_reason(now)
                {
                    self.next_poll_at = baking.until;
                    self.reason = Some(baking);
                }
                if status.ended() {
                    self.finished_at = Some(now);
                }
            }
        }
        Ok(())
    }

    /// A person lets it go on, with `accepted` on that digest in place of the one that was wanted. A rollout that waits
    /// takes that only where it waits for it, or is told a digest.
    ///
    /// # Errors
    /// [`IllegalRollout`] when the status does not take it, when its own deploy comes first, or when it goes back and
    /// moves no site to the target any more.
    pub fn resume(&mut self, accepted: Option<Digest>, now: Timestamp) -> Result<(), IllegalRollout> {
        let changed = self.reason.as_ref().is_some_and(|reason| reason.code == ReasonCode::DigestChanged);
        let out = self.direction == Direction::Forward && self.after.is_none() && self.kind.moves();
        let waits = self.status == RolloutStatus::Waiting;
        let open = !waits || (self.control.is_none() && (changed || accepted.is_some()));
        if !open || (accepted.is_some() && !out) {
            let event = RolloutEvent::Resume.as_str();
            return Err(IllegalRollout { status: self.status.as_str(), event });
        }
        self.request(RolloutEvent::Resume, now)?;
        if accepted.is_some() && accepted != self.wanted() {
            self.accepted_digest = accepted.filter(|_| accepted != self.digest);
            // Nothing is held against an image that was not there.
            self.unhealthy = 0;
            self.image_rejected = false;
        }
        Ok(())
    }
}
