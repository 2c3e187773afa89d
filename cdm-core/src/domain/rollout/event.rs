//! The events of a rollout, and the effects that the owner executes.

use std::time::Duration;

use super::{MemberFailure, MemberOutcome, PendingFlush, Window};
use crate::domain::{Color, Digest, Freeze, OperationId, ReasonCode, WorkerId};

/// An event of a rollout. The first three are requests of users; the owner reports the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RolloutEvent {
    /// A user pauses the rollout.
    Pause,
    /// A user resumes the rollout. The digest, if there is one, replaces the wanted digest.
    Resume(Option<Digest>),
    /// A user aborts the rollout. An abort replaces a requested pause.
    Abort,
    /// A worker claims the rollout.
    Claim(WorkerId),
    /// The rollout needs the lock of a service, which a deploy holds.
    Locked {
        /// The service.
        service: Color,
        /// Whether sites of the window can carry a claim.
        claims: bool,
    },
    /// The deploy of the rollout was polled.
    DeployPolled(DeployState),
    /// Sites have outcomes. If no site is open, every granted site has one.
    SitesMoved(Report),
    /// The flush of caches has ended. The report contains the sites that are parked since their caches were not
    /// flushed. The interruption is the one that was seen before the flush.
    CachesFlushed(Report, Option<Interruption>),
    /// The owner has stopped moving sites before each granted one had its outcome. No site is in flight.
    Interrupted(Report, Interruption),
}

/// The state of the deploy that a rollout waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeployState {
    /// The deploy has not ended, or its state is unknown.
    Running,
    /// The deploy has succeeded.
    Succeeded,
    /// The deploy has failed or was canceled, for this reason.
    Failed(String),
}

/// What the owner has done since its last report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The new outcomes.
    pub outcomes: Vec<ReportedOutcome>,
    /// The first site of the window that has no outcome yet, or that has not moved back. `None`: no site is open.
    pub open: Option<u32>,
    /// The first site whose caches are neither flushed nor part of the pending flush, and have to be.
    pub unflushed: Option<u32>,
    /// Whether a site of the window can carry a claim although no site is in flight: its route is unknown, or the
    /// claims of an earlier owner are not resolved.
    pub claims: bool,
}

/// A new outcome of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedOutcome {
    /// The ordinal of the site.
    pub ordinal: u32,
    /// The outcome before, which this one replaces.
    pub before: Option<MemberOutcome>,
    /// The digest on which the site has the outcome.
    pub digest: Option<Digest>,
    /// The site, the outcome and its reason.
    pub site: MemberFailure,
}

/// The reason why an owner stops moving sites before each granted one has an outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// A pause or an abort was requested.
    ControlRequested,
    /// The wave has exceeded its budget.
    Budget,
    /// The health gate of a site was inconclusive. Contains the first such site and its reason.
    Inconclusive(String),
    /// A freeze stops moves.
    Frozen(Freeze),
    /// The target runs another digest than the wanted one.
    DigestChanged(WaitReason),
    /// The destination is not ready.
    NotReady(WaitReason),
    /// The cluster does not respond, so that the readiness of the destination is unknown.
    ClusterUnavailable(WaitReason),
    /// The cluster does not respond, so that the route of a claimed site is unknown.
    Unreachable(WaitReason),
    /// The caches cannot be flushed at present.
    FlushBlocked(WaitReason),
    /// The process stops.
    Stopping,
}

impl Interruption {
    /// Returns whether the caches of the moved sites are flushed before the interruption takes effect.
    pub const fn allows_flush(&self) -> bool {
        match self {
            Self::ControlRequested
            | Self::Budget
            | Self::Inconclusive(_)
            | Self::Frozen(_)
            | Self::DigestChanged(_) => true,
            Self::NotReady(_)
            | Self::ClusterUnavailable(_)
            | Self::Unreachable(_)
            | Self::FlushBlocked(_)
            | Self::Stopping => false,
        }
    }
}

/// The reason why a rollout waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitReason {
    /// The stable code.
    pub code: ReasonCode,
    /// The text for users.
    pub message: String,
}

impl WaitReason {
    /// Returns whether the rollout waits for a backend.
    pub const fn is_of_backend(code: ReasonCode) -> bool {
        matches!(code, ReasonCode::Retrying | ReasonCode::Throttled | ReasonCode::Denied)
    }
}

/// An effect of an event, which the owner executes. The locks and the record of the fleet follow from the record of the
/// rollout and are written in the same batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Poll this deploy.
    AwaitDeploy(OperationId),
    /// Resolve the claims of an earlier owner in this range before further sites move.
    Recover(Window),
    /// Move the open sites of this range.
    Move(Window),
    /// Flush the caches of the moved sites of this range.
    Flush(PendingFlush),
    /// Record the verdict that the wanted image is bad, in the same batch.
    RejectImage,
    /// End the work of this owner: the rollout waits, has stopped or has ended.
    Release,
}

/// The durations that decide how long a rollout waits. The requests of users depend on none of them, so that the default
/// is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// The pause between two polls of a condition.
    pub scan: Duration,
    /// The longest pause between two polls of a backend. The pause grows with the time of the wait.
    pub longest_pause: Duration,
    /// The timeout of a wait for a service to become ready; the rollout is paused then.
    pub ready_timeout: Duration,
    /// The timeout of a wait for a backend; the rollout is paused then.
    pub backend_timeout: Duration,
    /// The timeout of a job that flushes caches.
    pub job_timeout: Duration,
}

impl Timing {
    /// The longest interval between two checks of a freeze. The removal of a freeze wakes the rollout earlier.
    pub const FREEZE_POLL: Duration = Duration::from_secs(60);

    /// Returns the pause before the next poll of a backend by a rollout that has waited for this time already: the same
    /// time again, within the limits.
    pub fn growing_pause(&self, waited: Duration) -> Duration {
        waited.clamp(self.scan.min(self.longest_pause), self.longest_pause)
    }
}
