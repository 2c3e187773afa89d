//! The decisions of a rollout, without calls: waves, windows, budget, halt and rollback.
//!
//! The list of sites is fixed when the rollout is accepted. The owner processes one *window* of the list at a time. A
//! *checkpoint* stores the outcomes of the window and grants the next one in the same write. Therefore a rollout stops
//! at the next checkpoint, and an owner that has lost the rollout cannot claim sites after the last granted window.

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

/// The kind of a rollout: its effect on each site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RolloutKind {
    /// Assigns the site to the target.
    Upgrade,
    /// Moves the route of the site to the target, and assigns the site to it.
    Promote,
    /// Only flushes the caches of the site: the hooks of a deploy.
    Flush,
}

impl RolloutKind {
    /// Returns whether sites change service. Only one unfinished rollout may do that.
    pub const fn moves(self) -> bool {
        match self {
            Self::Upgrade | Self::Promote => true,
            Self::Flush => false,
        }
    }
}

/// The sites of a rollout, as they were requested. The stored list contains the sites that this was resolved to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RolloutScope {
    /// The sites on the active canary.
    #[default]
    Active,
    /// The sites on the other service.
    Inactive,
    /// The active sites of both services.
    All,
    /// The sites on this service, for the hooks of a deploy to it.
    Service(Color),
    /// The sites with these ids.
    Sites(Vec<SiteId>),
}

/// A request of a user to a rollout that has an owner. The owner applies it at the next checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Control {
    /// Pause the rollout, so that a user can resume it.
    Pause,
    /// Abort the rollout. An abort replaces a requested pause.
    Abort,
}

/// A range of the list of sites: the ordinals from `start` up to, but not including, `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// The ordinal of the first site.
    pub start: u32,
    /// The ordinal after the last site.
    pub end: u32,
}

impl Window {
    /// The least size of a window, in sites. A wave that has fewer sites has a smaller window. Each window costs a
    /// checkpoint.
    pub const MIN: u32 = 128;
    /// The greatest size of a window, in sites.
    pub const MAX: u32 = 512;

    /// Returns the size of a window, in sites: four times `max_concurrent`, between [`Window::MIN`] and [`Window::MAX`].
    /// At the end of a window fewer sites move concurrently, so higher concurrency needs larger windows.
    pub fn size(max_concurrent: u32) -> u32 {
        max_concurrent.saturating_mul(4).clamp(Self::MIN, Self::MAX)
    }
}

/// Windows whose sites have their outcomes, and whose caches are flushed while later windows are processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingFlush {
    /// The range of these windows together.
    pub window: Window,
    /// The round of the jobs that flush them; see [`Rollout::job`].
    pub job: u32,
}

impl PendingFlush {
    /// The limit of sites that can move while the caches of earlier ones are flushed.
    pub const MAX: u32 = 1_024;
}

/// The record of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// The number, from the same sequence as the numbers of operations.
    pub number: u64,
    /// The effect on each site.
    pub kind: RolloutKind,
    /// The service that the sites move to. It does not change after acceptance.
    pub target: Color,
    /// The digest that the target must run, as it was at acceptance.
    pub digest: Option<Digest>,
    /// The digest that a user has accepted instead when resuming; see [`Rollout::wanted`].
    pub accepted_digest: Option<Digest>,
    /// The requested sites. A retry has the scope of the original rollout.
    pub scope: RolloutScope,
    /// The waves, with the counts of their outcomes.
    pub waves: Vec<Wave>,
    /// The limit of sites that move concurrently.
    pub max_concurrent: u32,
    /// The number of sites of a wave that may fail.
    pub budget: Budget,
    /// Whether a rollout that exceeds its budget rolls the moved sites back.
    pub auto_rollback: bool,
    /// The health gate of each site. `None`: sites are not probed.
    pub gate: Option<HealthGate>,
    /// The bake time between two waves.
    pub bake: Duration,
    /// The status; see [`RolloutStatus::next`] for its transitions.
    pub status: RolloutStatus,
    /// The request that was made since the last checkpoint.
    pub control: Option<Control>,
    /// The worker that has claimed the rollout.
    pub owner: Option<WorkerId>,
    /// The number of claims.
    pub term: u64,
    /// Whether sites move forward, or are rolled back.
    pub direction: Direction,
    /// The granted window: the owner claims only sites in it.
    pub window: Window,
    /// The failures of the window's wave that a user has acknowledged by resuming.
    pub acknowledged_failures: u32,
    /// The number of sites of the window's wave that failed the health gate on the wanted digest, since a user last
    /// acknowledged failures.
    pub unhealthy: u32,
    /// The number of sites that were on the target before the rollout. They cannot be rolled back one by one.
    pub in_place: u32,
    /// The first sites that failed, are parked or were skipped on the way forward, at most [`MemberFailure::KEPT`].
    pub failures: Vec<MemberFailure>,
    /// The end of the present bake time, or of the last one.
    pub baking: Option<Timestamp>,
    /// Whether more sites of a wave failed the health gate than the budget allows: the wanted image is bad.
    pub image_rejected: bool,
    /// The deploy that restores the previous digest, if a halt has requested one.
    pub rollback: Option<OperationId>,
    /// The end of the range that is rolled back.
    pub rollback_end: u32,
    /// Whether sites of the window can still carry the claim of an earlier owner.
    pub needs_recovery: bool,
    /// The round of jobs that flush the window: 1, and one more for each repetition of the window.
    pub job: u32,
    /// The operation number of the first site. The numbers of the others follow in the order of the ordinals.
    pub first_number: u64,
    /// The number of sites.
    pub total: u32,
    /// The deploy that must succeed before sites move. `None` once it has succeeded.
    pub after: Option<OperationId>,
    /// The service whose lock the rollout holds.
    pub locked_color: Option<Color>,
    /// Whether the outcomes of the window are stored, and only its caches must still be flushed.
    pub flushing: bool,
    /// The earlier windows whose caches are flushed in parallel.
    pub pending_flush: Option<PendingFlush>,
    /// The ordinal of the first site whose caches are neither flushed nor part of `pending_flush`.
    pub flush_from: u32,
    /// The progress over time, at most [`ProgressSample::KEPT`] samples.
    pub samples: Vec<ProgressSample>,
    /// The reason why the rollout waits, paused, halted, failed, or is rolled back.
    pub reason: Option<Reason>,
    /// The time since which the rollout has made no progress, for the timeout of a wait.
    pub waiting_since: Option<Timestamp>,
    /// The time of the next poll while the rollout waits.
    pub next_poll_at: Option<Timestamp>,
    /// The rollout whose failed sites this one retries.
    pub retry_of: Option<u64>,
    /// The actor that requested the rollout.
    pub requested_by: Actor,
    /// The time when the rollout was accepted.
    pub created_at: Timestamp,
    /// The time of the first claim.
    pub started_at: Option<Timestamp>,
    /// The time when the rollout ended.
    pub finished_at: Option<Timestamp>,
    /// The version of the record, which each write increments.
    pub version: u64,
}

impl Rollout {
    /// Returns the token with which the owner claims sites.
    pub const fn claim_token(&self) -> ClaimToken {
        ClaimToken { rollout: self.number, direction: self.direction, term: self.term }
    }

    /// Returns the service that sites move to in the present direction.
    pub const fn destination(&self) -> Color {
        match self.direction {
            Direction::Forward => self.target,
            Direction::Rollback => self.target.other(),
        }
    }

    /// Returns the digest that the target must run while sites move: the one of the request, or the one that a user has
    /// accepted since.
    pub fn wanted(&self) -> Option<Digest> {
        self.accepted_digest.or(self.digest)
    }

    /// Returns the service whose lock the rollout needs in its present state.
    pub fn lock(&self) -> Option<Color> {
        let routes = self.control.is_none()
            && self.kind == RolloutKind::Promote
            && self.status == RolloutStatus::Running
            && self.after.is_none();
        routes.then(|| self.destination())
    }

    /// Claims the rollout for a worker, under a new term.
    ///
    /// # Errors
    /// [`IllegalRollout`] if a rollout in this status cannot be claimed. It is then unchanged.
    pub fn claim(&mut self, worker: &WorkerId, now: Timestamp) -> Result<(), IllegalRollout> {
        self.status = self.status.next(RolloutEvent::Claim)?;
        self.owner = Some(worker.clone());
        self.term += 1;
        self.next_poll_at = None;
        self.reason = self.reason.take().filter(|_| self.direction == Direction::Rollback);
        self.started_at = self.started_at.or(Some(now));
        self.record_sample(now);
        Ok(())
    }

    /// Grants the first window, if no window was granted yet. Returns `false` if the rollout has no site.
    pub fn grant_first_window(&mut self) -> bool {
        let Some(first) = self.waves.first() else { return false };
        if self.window.end == 0 {
            self.window = Window { start: 0, end: first.end.min(Window::size(self.max_concurrent)) };
        }
        self.window.end > 0
    }

    /// Returns the sum of the counts of all waves.
    pub fn counts(&self) -> Counts {
        self.waves.iter().fold(Counts::default(), |sum, wave| Counts {
            succeeded: sum.succeeded + wave.counts.succeeded,
            failed: sum.failed + wave.counts.failed,
            skipped: sum.skipped + wave.counts.skipped,
            parked: sum.parked + wave.counts.parked,
        })
    }

    /// Returns whether the rollout has succeeded while sites failed, were skipped, or are parked.
    pub fn is_partial(&self) -> bool {
        let Counts { failed, skipped, parked, .. } = self.counts();
        self.status == RolloutStatus::Succeeded && failed + skipped + parked > 0
    }

    /// Returns the number of sites of the granted window that have no outcome yet, while an owner moves them forward.
    pub fn running(&self) -> u32 {
        match (self.status, self.direction) {
            (RolloutStatus::Running, Direction::Forward) => {
                self.window.end.saturating_sub(self.counts().resolved())
            }
            _ => 0,
        }
    }

    /// Returns the number of sites that no window has reached yet.
    pub fn pending(&self) -> u32 {
        self.total.saturating_sub(self.counts().resolved()).saturating_sub(self.running())
    }

    /// Returns the index of the wave that contains the window.
    pub fn wave(&self) -> Option<usize> {
        self.waves.iter().position(|wave| wave.end > self.window.start)
    }

    /// Returns how many more sites of the window's wave may fail.
    pub fn remaining_budget(&self) -> u32 {
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

    /// Counts one outcome. On a rollback the new outcome replaces the earlier one, which is `before`. `digest` is the
    /// digest on which the site has this outcome.
    pub fn count(
        &mut self,
        ordinal: u32,
        before: Option<MemberOutcome>,
        now: MemberOutcome,
        digest: Option<Digest>,
    ) {
        let forward = self.direction == Direction::Forward;
        let counts = digest == self.wanted() || crate::bug!(VerdictOnRolloutsDigest);
        let Some(wave) = self.wave_of(ordinal) else { return };
        if let Some(before) = before {
            wave.counts.remove(before);
        }
        wave.counts.add(now);
        if matches!(now, MemberOutcome::InPlace | MemberOutcome::UnhealthyInPlace) {
            self.in_place += 1;
        }
        // A failed probe of another image says nothing about the wanted one.
        if forward && counts && now.blames_image() {
            self.unhealthy += 1;
        }
    }

    /// Records a site that failed, is parked, or was skipped. When the list is full, a failed or parked site replaces
    /// the last skipped one.
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

    /// Decides the next state at a checkpoint. `whole` states whether every site of the window has its outcome.
    ///
    /// A requested abort is applied first, then a pause, then the budget. Only then the next window is granted.
    ///
    /// # Errors
    /// [`IllegalRollout`] if the decision is not possible in the present status.
    pub fn proceed(&mut self, whole: bool, now: Timestamp) -> Result<(), IllegalRollout> {
        self.record_sample(now);
        match self.control.take() {
            Some(Control::Abort) => return self.settle(RolloutEvent::Abort, None, now),
            Some(Control::Pause) if !crate::bug!(PauseForgotten) => {
                let message = "paused on request".to_owned();
                let paused = Reason { code: ReasonCode::Paused, message, since: now, until: None };
                // A rollback ends with the reason that started it.
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

    /// Returns whether the caches of the window can be flushed while later sites move: more sites follow without a bake
    /// time in between, the budget is not exceeded, and neither a pause nor an abort was requested.
    pub fn can_defer_flush(&self) -> bool {
        let ends = |wave: &Wave| wave.end == self.window.end;
        let next = match self.direction {
            Direction::Forward => {
                let pauses = !self.bake.is_zero() && self.waves.iter().any(ends);
                self.window.end < self.total && !pauses && !self.over_budget()
            }
            Direction::Rollback => self.window.end < self.rollback_end,
        };
        next && self.control.is_none()
    }

    /// Returns whether the window's wave has more failures than its budget allows.
    pub fn over_budget(&self) -> bool {
        let Some(index) = self.wave() else { return false };
        let failed = self.waves[index].counts.failed.saturating_sub(self.acknowledged_failures);
        failed > self.budget.allows(self.wave_size(index))
    }

    /// Starts the bake time after a wave, if the rollout has one.
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

    /// Returns the reason of the present bake time. Returns `None` once it is over.
    fn baking_reason(&self, now: Timestamp) -> Option<Reason> {
        let until = self.baking.filter(|until| *until > now)?;
        let wave = self.wave().map_or("", |wave| self.waves[wave].name.as_str());
        let message = format!("the wave `{wave}` starts after the bake time of the previous wave");
        Some(Reason { code: ReasonCode::Baking, message, since: now, until: Some(until) })
    }

    fn halt(&mut self, now: Timestamp) -> Result<(), IllegalRollout> {
        let allowed = self.wave().map_or(0, |wave| self.budget.allows(self.wave_size(wave)));
        self.image_rejected |= self.unhealthy > allowed && !crate::bug!(GateAcquits);
        let failed = self.wave().map_or(0, |wave| self.waves[wave].counts.failed);
        let name = self.wave().map_or("", |wave| self.waves[wave].name.as_str());
        let message =
            format!("{failed} sites of the wave `{name}` failed, which exceeds its budget of {allowed}");
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

    /// Applies an event, with the reason of the new status. For requests of users see [`Rollout::request`].
    ///
    /// # Errors
    /// [`IllegalRollout`] if the event is not possible in the present status. The rollout is then unchanged.
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

    /// Applies a request of a user. A pause or an abort of a started rollout is stored in [`Rollout::control`], and the
    /// owner applies it at the next checkpoint. Every other request takes effect at once.
    ///
    /// # Errors
    /// [`IllegalRollout`] if the request is not possible in the present status.
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
                // A requested abort stays; a requested pause is withdrawn.
                self.control = self.control.filter(|requested| *requested == Control::Abort);
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

    /// Resumes the rollout. `accepted` is a digest that replaces the wanted one. A waiting rollout is resumed only with
    /// `accepted`, or if it waits because the digest has changed.
    ///
    /// # Errors
    /// [`IllegalRollout`] if a rollout in this status cannot be resumed, or if `accepted` is set while the rollout still
    /// waits for its own deploy, is rolled back, or moves no sites.
    pub fn resume(&mut self, accepted: Option<Digest>, now: Timestamp) -> Result<(), IllegalRollout> {
        let changed = self.reason.as_ref().is_some_and(|reason| reason.code == ReasonCode::DigestChanged);
        let accepts = self.direction == Direction::Forward && self.after.is_none() && self.kind.moves();
        let waits = self.status == RolloutStatus::Waiting;
        let open = !waits || (self.control.is_none() && (changed || accepted.is_some()));
        if !open || (accepted.is_some() && !accepts) {
            let event = RolloutEvent::Resume.as_str();
            return Err(IllegalRollout { status: self.status.as_str(), event });
        }
        self.request(RolloutEvent::Resume, now)?;
        if accepted.is_some() && accepted != self.wanted() {
            self.accepted_digest = accepted.filter(|_| accepted != self.digest);
            // The failures so far are of another image.
            self.unhealthy = 0;
            self.image_rejected = false;
        }
        Ok(())
    }
}
