//! The decisions of a rollout, without calls: waves, windows, budget, halt and rollback.
//!
//! A rollout is its specification ([`RolloutSpec`]), its status and its phase ([`RolloutPhase`]). One function,
//! [`Rollout::advance`], returns the rollout after an event ([`RolloutEvent`]) and the effects that the owner executes
//! ([`Effect`]).
//!
//! The list of sites is fixed when the rollout is accepted. The owner moves only sites of the *window*, which is granted
//! by a write of the record; the same write stores the outcomes of earlier sites. Therefore an owner that has lost the
//! rollout cannot claim sites after the last granted one.

mod advance;
mod event;
mod gate;
mod member;
mod phase;
mod plan;
mod samples;
mod spec;
mod status;
mod waves;

use super::fence::{ClaimToken, Direction, Term};
use super::reason::Reason;
use super::{Actor, Color, Digest, OperationId, Timestamp, WorkerId};

pub use event::{
    DeployState, Effect, Interruption, Report, ReportedOutcome, RolloutEvent, Timing, WaitReason,
};
pub use gate::{HealthGate, Judgement, ProbeResponse};
pub use member::{MemberFailure, MemberOutcome, RolloutMember, RolloutPage};
pub use phase::{PendingFlush, Progress, RolloutPhase, Window};
pub use plan::{CallEstimate, Candidate, Change, Plan, PlanInputs, PlannedWave, Warning, hash};
pub use samples::ProgressSample;
pub use spec::{RolloutKind, RolloutScope, RolloutSpec};
pub use status::{IllegalRollout, RolloutStatus, Transition};
pub use waves::{Budget, Counts, Wave, WaveTarget, plan_waves};

pub(crate) use member::truncate;

/// A request of a user to a started rollout. It takes effect once no site is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Control {
    /// Pause the rollout, so that a user can resume it.
    Pause,
    /// Abort the rollout. An abort replaces a requested pause.
    Abort,
}

/// The record of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// The number, from the same sequence as the numbers of operations.
    pub number: u64,
    /// What the user has chosen. The digest is the one that the target must run, as it was at acceptance.
    pub spec: RolloutSpec,
    /// The service that the sites move to. It does not change after acceptance.
    pub target: Color,
    /// The digest that a user has accepted instead when resuming; see [`Rollout::wanted`].
    pub accepted_digest: Option<Digest>,
    /// The waves, with the counts of their outcomes.
    pub waves: Vec<Wave>,
    /// The status; see [`RolloutStatus::next`] for its transitions.
    pub status: RolloutStatus,
    /// The phase, with the granted sites and the flushes of caches.
    pub phase: RolloutPhase,
    /// The requested pause or abort that has not taken effect yet.
    pub control: Option<Control>,
    /// The worker that has claimed the rollout.
    pub owner: Option<WorkerId>,
    /// The number of claims.
    pub term: Term,
    /// Whether sites of the window can carry the claim of an owner. The next owner resolves these claims first.
    pub needs_recovery: bool,
    /// The failures of the window's wave that a user has acknowledged by resuming.
    pub acknowledged_failures: u32,
    /// The number of sites of the window's wave that failed the health gate on the wanted digest, since a user last
    /// acknowledged failures.
    pub unhealthy: u32,
    /// The number of sites that were on the target before the rollout. They cannot be rolled back one by one.
    pub in_place: u32,
    /// The first sites that failed, are parked or were skipped on the way forward, at most [`MemberFailure::KEPT`].
    pub failures: Vec<MemberFailure>,
    /// Whether more sites of a wave failed the health gate than the budget allows: the wanted image is bad.
    pub image_rejected: bool,
    /// The deploy that restores the previous digest, if a halt has requested one.
    pub rollback: Option<OperationId>,
    /// The operation number of the first site. The numbers of the others follow in the order of the ordinals.
    pub first_number: u64,
    /// The number of sites.
    pub total: u32,
    /// The service whose lock the rollout holds.
    pub locked_color: Option<Color>,
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
        ClaimToken { rollout: self.number, direction: self.phase.direction(), term: self.term }
    }

    /// Returns the service that sites move to in the present direction.
    pub const fn destination(&self) -> Color {
        match self.phase.direction() {
            Direction::Forward => self.target,
            Direction::Rollback => self.target.other(),
        }
    }

    /// Returns the digest that the target must run while sites move: the one of the request, or the one that a user has
    /// accepted since.
    pub fn wanted(&self) -> Option<Digest> {
        self.accepted_digest.or(self.spec.digest)
    }

    /// Returns the granted sites of which not all have an outcome.
    pub fn window(&self) -> Window {
        self.phase.progress().window
    }

    /// Returns the direction in which sites move.
    pub const fn direction(&self) -> Direction {
        self.phase.direction()
    }

    /// Returns the deploy that the rollout waits for.
    pub const fn awaited_deploy(&self) -> Option<&OperationId> {
        match &self.phase {
            RolloutPhase::Deploying(deploy) => Some(deploy),
            _ => None,
        }
    }

    /// Returns whether sites move, or will move, to the digest that the target runs now.
    pub const fn moves_to_target(&self) -> bool {
        self.spec.kind.moves()
            && match self.phase {
                RolloutPhase::Moving(_) | RolloutPhase::Flushing(_) | RolloutPhase::Baking { .. } => true,
                RolloutPhase::Deploying(_) | RolloutPhase::RollingBack { .. } => false,
            }
    }

    /// Returns the service whose lock the rollout needs in its present state. After a request to stop it acquires no
    /// lock, and releases the one that it holds when no site is in flight.
    pub fn lock(&self) -> Option<Color> {
        let destination = self.destination();
        let holds = self.phase.moves_sites() && self.locked_color == Some(destination);
        let routes = self.spec.kind == RolloutKind::Promote
            && self.status == RolloutStatus::Running
            && self.awaited_deploy().is_none()
            && (self.control.is_none() || holds);
        routes.then_some(destination)
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
        match (self.status, self.direction()) {
            (RolloutStatus::Running, Direction::Forward) => {
                self.window().end.saturating_sub(self.counts().resolved())
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
        let start = self.window().start;
        self.waves.iter().position(|wave| wave.end > start)
    }

    /// Returns how many more sites of the window's wave may fail.
    pub fn remaining_budget(&self) -> u32 {
        let Some(index) = self.wave() else { return 0 };
        let failed = self.waves[index].counts.failed.saturating_sub(self.acknowledged_failures);
        self.spec.budget.allows(self.wave_size(index)).saturating_sub(failed)
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
    pub(crate) fn count(
        &mut self,
        ordinal: u32,
        before: Option<MemberOutcome>,
        now: MemberOutcome,
        digest: Option<Digest>,
    ) {
        let forward = self.direction() == Direction::Forward;
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
    fn record_failure(&mut self, failure: &MemberFailure) {
        let (bad, skipped) = (
            failure.outcome.fails() || failure.outcome == MemberOutcome::Parked,
            failure.outcome.is_skipped(),
        );
        if self.direction() == Direction::Rollback || !(bad || skipped) {
            return;
        }
        if self.failures.len() < MemberFailure::KEPT {
            self.failures.push(failure.clone());
        } else if bad && let Some(at) = self.failures.iter().rposition(|kept| kept.outcome.is_skipped()) {
            self.failures.remove(at);
            self.failures.push(failure.clone());
        }
    }

    /// Returns whether the window's wave has more failures than its budget allows.
    pub fn over_budget(&self) -> bool {
        let Some(index) = self.wave() else { return false };
        let failed = self.waves[index].counts.failed.saturating_sub(self.acknowledged_failures);
        failed > self.spec.budget.allows(self.wave_size(index))
    }
}
