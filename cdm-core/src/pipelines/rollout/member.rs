//! One site of a rollout: claim it, move its route, release it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::check::{CONTROL_INTERVAL, not_ready};
use super::read_with_retry;
use super::recheck::wait_reason;
use crate::domain::fence::ClaimToken;
use crate::domain::operation::Move;
use crate::domain::rollout::{HealthGate, MemberOutcome, RolloutMember, WaitReason};
use crate::domain::site::{Claim, ClaimIntent, ClaimRefused, Claimed, ReleaseClaim};
use crate::domain::{
    Actor, Color, Digest, Direction, Epoch, Fence, MonotonicTime, ReasonCode, RolloutKind, Routed,
};
use crate::engine::{Backoff, Lost, Pauses, Worker, retry_write};
use crate::pipelines::route::{FenceRule, Readiness, RouteMover, RouteOwner, RouteResult};
use crate::ports::{CallContext, ErrorKind, Outcome, StoreError, WriteError};

/// The data that all sites share which move in one direction.
#[derive(Debug)]
pub(super) struct MoveContext<'a> {
    pub(super) worker: &'a Worker,
    pub(super) kind: RolloutKind,
    pub(super) claim_token: ClaimToken,
    pub(super) destination: Color,
    pub(super) first_number: u64,
    pub(super) requested_by: Actor,
    /// Whether moves that a lost owner began are only ended where they are, since the rollout is to stop.
    pub(super) stops: bool,
    /// The digest that the target ran when it was last read; `None` if it was not read, since no site moves.
    pub(super) running: Mutex<Option<Digest>>,
    /// The health gate of each site; `None` on a rollback.
    pub(super) gate: Option<HealthGate>,
    /// Whether a pause or an abort was requested, and when the store was last read for it.
    pub(super) control_requested: AtomicBool,
    pub(super) polled_at: Mutex<MonotonicTime>,
}

/// The result of one site's turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MemberResult {
    /// The site has its outcome.
    Resolved(Resolution),
    /// Another operation runs on the site.
    Busy,
    /// The site is untouched, and rejects a lost owner.
    FencedOff,
    /// The site is claimed, and the cluster does not answer: the next owner resolves it.
    Unreachable(WaitReason),
    /// The site is untouched: the target is not ready.
    NotReady,
    /// The site is untouched: the health gate has no conclusive answer, for this reason.
    Inconclusive(String),
}

/// The outcome of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolution {
    pub(super) outcome: MemberOutcome,
    /// The reason of a failure, or of a skipped site.
    pub(super) why: Option<String>,
    /// The digest that the target ran, where the site was moved or probed there.
    pub(super) digest: Option<Digest>,
}

impl Resolution {
    /// Returns the outcome of a site that was not touched.
    pub(super) fn skipped(outcome: MemberOutcome, why: Option<String>) -> Self {
        Self { outcome, why: why.or_else(|| Some(outcome.describe().to_owned())), digest: None }
    }
}

/// The position of a claimed site's route after a move.
pub(super) enum Placement {
    /// It carries this claim's fence.
    At(Routed),
    /// It was not moved: the service is not ready.
    NotReady,
    /// The cluster does not move it.
    Refused,
    /// Unknown, for a reason that is not the site's.
    Unreachable(WaitReason),
}

/// A claimed site.
pub(super) struct ClaimedSite<'a> {
    pub(super) member: &'a RolloutMember,
    pub(super) course: Move,
    /// The fence of the claim.
    pub(super) fence: Fence,
}

/// How often a call for one site is tried before the rollout waits for the backend.
const TRIES: u32 = 4;

/// The owner of a claimed site.
struct SiteOwner<'a> {
    worker: &'a Worker,
    member: &'a RolloutMember,
    fence: Fence,
}

impl RouteOwner for SiteOwner<'_> {
    type Error = Lost;

    async fn still_owner(&self) -> Result<(), Lost> {
        let site = read_with_retry(self.worker, || self.worker.ports().store.site(&self.member.id)).await?;
        let operation = site.and_then(|site| site.operation);
        if operation.is_some_and(|operation| operation.fence() == self.fence) { Ok(()) } else { Err(Lost) }
    }

    fn call(&self, fence: Fence) -> Result<CallContext, Lost> {
        self.worker.lease().call(self.worker.ports(), fence)
    }
}

impl MoveContext<'_> {
    /// Claims a site and moves it.
    pub(super) async fn move_site(&self, ordinal: u32, member: &RolloutMember) -> Result<MemberResult, Lost> {
        let intent = match self.kind {
            RolloutKind::Promote => ClaimIntent::Promote(self.destination),
            RolloutKind::Upgrade => ClaimIntent::Upgrade(self.destination),
            RolloutKind::Flush => return Ok(self.resolved(MemberOutcome::InPlace, None)),
        };
        self.claim_and_move(ordinal, member, intent).await
    }

    /// Ends what a lost owner began on a site; an untouched site rejects that owner afterwards.
    pub(super) async fn recover(&self, ordinal: u32, member: &RolloutMember) -> Result<MemberResult, Lost> {
        if self.kind.moves() {
            self.claim_and_move(ordinal, member, ClaimIntent::Recover).await
        } else {
            Ok(MemberResult::FencedOff)
        }
    }

    async fn claim_and_move(
        &self,
        ordinal: u32,
        member: &RolloutMember,
        intent: ClaimIntent,
    ) -> Result<MemberResult, Lost> {
        let number = self.first_number + u64::from(ordinal);
        let (course, route, epoch) = match self.claim(ordinal, number, member, intent).await? {
            Ok(Claimed::Taken { course, route, epoch, .. }) => (course, route, epoch),
            Ok(Claimed::FencedOff) => return Ok(MemberResult::FencedOff),
            Err(refused) => {
                let skipped = |outcome| MemberResult::Resolved(Resolution::skipped(outcome, None));
                return match refused {
                    ClaimRefused::Gone => Ok(skipped(MemberOutcome::SkippedGone)),
                    ClaimRefused::NotActive => Ok(skipped(MemberOutcome::SkippedInactive)),
                    ClaimRefused::Busy => Ok(MemberResult::Busy),
                    ClaimRefused::AlreadyResolved(outcome, digest) => {
                        Ok(MemberResult::Resolved(Resolution { outcome, why: None, digest }))
                    }
                    ClaimRefused::Fenced => Err(Lost),
                };
            }
        };
        let claimed = ClaimedSite { member, course, fence: Fence::new(number, epoch) };
        if let Some(gate) = &self.gate {
            return self.move_through_gate(gate, &claimed, route).await;
        }
        let placement = match self.kind {
            RolloutKind::Promote => self.place_once(&claimed, route).await?,
            RolloutKind::Upgrade | RolloutKind::Flush => None,
        };
        let rolls_back = self.claim_token.direction == Direction::Rollback;
        let (outcome, service, route) = match placement {
            Some(Placement::Unreachable(why)) => return Ok(MemberResult::Unreachable(why)),
            Some(Placement::NotReady) => return Ok(MemberResult::NotReady),
            Some(Placement::Refused) if rolls_back => (MemberOutcome::Parked, None, None),
            Some(Placement::Refused) => (MemberOutcome::Failed, None, None),
            Some(Placement::At(at)) if at.service != course.to => {
                self.release(&claimed, None, None, Some(at)).await?;
                return Ok(MemberResult::FencedOff);
            }
            Some(Placement::At(_)) | None => {
                let at = match placement {
                    Some(Placement::At(at)) => Some(at),
                    _ => route,
                };
                let moved = course.from != course.to || course.routed != course.to;
                let outcome = match (rolls_back, moved) {
                    (true, _) => MemberOutcome::Returned,
                    (false, true) => MemberOutcome::Moved,
                    (false, false) => MemberOutcome::InPlace,
                };
                (outcome, Some(course.to), at)
            }
        };
        self.release(&claimed, Some(outcome), service, route).await?;
        Ok(self.resolved(outcome, None))
    }

    async fn claim(
        &self,
        ordinal: u32,
        number: u64,
        member: &RolloutMember,
        intent: ClaimIntent,
    ) -> Result<Result<Claimed, ClaimRefused>, Lost> {
        let ports = self.worker.ports();
        let claim = Claim {
            id: member.id.clone(),
            uid: member.uid,
            claim_token: self.claim_token,
            intent,
            ordinal,
            number,
            owner: self.worker.lease().worker().clone(),
            requested_by: self.requested_by.clone(),
            at: ports.clock.wall(),
        };
        let (fence, claim) = (Fence::new(number, Epoch::ZERO), &claim);
        match self.retry(fence, |call| async move { ports.store.claim(&call, claim).await }).await? {
            Ok(claimed) => Ok(Ok(claimed)),
            Err(WriteError::Claim(refused)) => Ok(Err(refused)),
            Err(_) => Err(Lost),
        }
    }

    /// Repeats a write of a site's record until the store applies it, or refuses the claim.
    async fn retry<T, F>(
        &self,
        fence: Fence,
        write: impl Fn(CallContext) -> F,
    ) -> Result<Result<T, WriteError>, Lost>
    where
        F: Future<Output = Outcome<T, WriteError>>,
    {
        let ports = self.worker.ports();
        let backoff = Backoff::of(self.worker.settings());
        let pauses = Pauses { clock: &*ports.clock, backoff, stopping: None, tries: None };
        let again = |error: &WriteError| {
            !matches!(error, WriteError::Claim(_) | WriteError::Store(StoreError::Denied(_)))
        };
        let call = || self.worker.lease().call(ports, fence);
        let written = retry_write(pauses, call, again, write).await?;
        Ok(written.map_err(|unwritten| unwritten.error))
    }

    /// Returns the result of a site with an outcome on the digest that the target ran.
    pub(super) fn resolved(&self, outcome: MemberOutcome, why: Option<String>) -> MemberResult {
        MemberResult::Resolved(Resolution { outcome, why, digest: self.digest_of(outcome) })
    }

    /// Returns the digest of an outcome: the one that the target ran, where the outcome depends on it.
    fn digest_of(&self, outcome: MemberOutcome) -> Option<Digest> {
        let on_target = match outcome {
            MemberOutcome::Moved
            | MemberOutcome::InPlace
            | MemberOutcome::Unhealthy
            | MemberOutcome::UnhealthyInPlace
            | MemberOutcome::Returned
            | MemberOutcome::Parked => self.kind.moves() && self.claim_token.direction == Direction::Forward,
            MemberOutcome::Failed
            | MemberOutcome::SkippedGone
            | MemberOutcome::SkippedInactive
            | MemberOutcome::SkippedBusy
            | MemberOutcome::SkippedFrozen => false,
        };
        self.running().filter(|_| on_target)
    }

    /// Returns the digest that the target ran when it was last read.
    pub(super) fn running(&self) -> Option<Digest> {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the digest that the target runs.
    pub(super) fn set_running(&self, digest: Option<Digest>) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = digest;
    }

    /// Returns whether the worker stops, or a pause or an abort was requested: long waits then end early. Reads the
    /// store at most once per [`CONTROL_INTERVAL`].
    pub(super) async fn should_stop(&self) -> bool {
        let ports = self.worker.ports();
        if self.worker.stopping() || self.control_requested.load(Ordering::SeqCst) {
            return true;
        }
        let now = ports.clock.monotonic();
        let due = {
            let mut polled = self.polled_at.lock().unwrap_or_else(PoisonError::into_inner);
            let due = now.since(*polled) >= CONTROL_INTERVAL;
            *polled = if due { now } else { *polled };
            due
        };
        if due && let Ok(Some(rollout)) = ports.store.rollout(self.claim_token.rollout).await {
            self.control_requested.store(rollout.control.is_some(), Ordering::SeqCst);
        }
        self.control_requested.load(Ordering::SeqCst)
    }

    /// Releases a claimed site with its outcome; `None` leaves it without one, for a later turn.
    pub(super) async fn release(
        &self,
        claimed: &ClaimedSite<'_>,
        outcome: Option<MemberOutcome>,
        service: Option<Color>,
        route: Option<Routed>,
    ) -> Result<(), Lost> {
        let ports = self.worker.ports();
        let release = ReleaseClaim {
            id: claimed.member.id.clone(),
            claim_token: self.claim_token,
            fence: claimed.fence,
            outcome,
            digest: outcome.and_then(|outcome| self.digest_of(outcome)),
            service,
            route,
            at: ports.clock.wall(),
        };
        let release = &release;
        let write = |call| async move { ports.store.release_claim(&call, release).await };
        self.retry(claimed.fence, write).await?.map_err(|_| Lost)
    }

    /// Moves the route of a site without a health gate. Without faults that is one request: the record knows the fence
    /// that the route carries.
    async fn place_once(
        &self,
        claimed: &ClaimedSite<'_>,
        confirmed: Option<Routed>,
    ) -> Result<Option<Placement>, Lost> {
        let Some(confirmed) = confirmed else { return Ok(Some(Placement::Refused)) };
        let first = self.is_first(claimed);
        // A route that points there already needs no request, unless a lost owner may have sent one.
        if first && confirmed.service == claimed.course.to {
            return Ok(Some(Placement::At(confirmed)));
        }
        let to = (!self.stops).then_some(claimed.course.to);
        let known = Some(confirmed).filter(|_| first && !self.stops);
        self.place(claimed, to, known, FenceRule::Fixed(claimed.fence), Readiness::Checked).await.map(Some)
    }

    /// Returns whether no lost owner can have sent a request for this site.
    pub(super) fn is_first(&self, claimed: &ClaimedSite<'_>) -> bool {
        claimed.fence.epoch == self.claim_token.direction.first_epoch()
    }

    /// Moves the route of a claimed site to a service; `None` leaves it where it is, and only keeps out what a lost
    /// owner has sent. `known` is the route as it was last confirmed; without it the cluster is read.
    pub(super) async fn place(
        &self,
        claimed: &ClaimedSite<'_>,
        to: Option<Color>,
        known: Option<Routed>,
        fence: FenceRule,
        readiness: Readiness,
    ) -> Result<Placement, Lost> {
        let ports = self.worker.ports();
        let owner = SiteOwner { worker: self.worker, member: claimed.member, fence: claimed.fence };
        let uid = claimed.member.uid;
        let mover = RouteMover { ports, owner: &owner, uid, to, fence, readiness, confirmed: None };
        let (mut known, mut sent, mut missing) = (known, None, false);
        let mut backoff = Backoff::of(self.worker.settings());
        let mut why = WaitReason {
            code: ReasonCode::Retrying,
            message: "whether the route was moved is unknown".to_owned(),
        };
        for _ in 0..TRIES {
            let least = match mover.attempt(known, sent).await? {
                RouteResult::Moved(at) => return Ok(Placement::At(at)),
                RouteResult::NotReady(..) if sent.is_none() => return Ok(Placement::NotReady),
                RouteResult::NotReady(service, _) => return Ok(Placement::Unreachable(not_ready(service))),
                RouteResult::Missing if missing => return Ok(Placement::Refused),
                // The view may lag: only a route that stays absent is missing.
                RouteResult::Missing => {
                    missing = true;
                    None
                }
                RouteResult::Conflict(error) => {
                    (why, known) = (wait_reason(&error), None);
                    continue;
                }
                RouteResult::Busy(error) => {
                    why = wait_reason(&error);
                    match error.kind {
                        ErrorKind::Throttled(least) => least,
                        _ => None,
                    }
                }
                RouteResult::Unreachable(error) => {
                    return Ok(Placement::Unreachable(wait_reason(&error)));
                }
                // Nothing was applied, and no earlier request is in flight.
                RouteResult::Rejected(error)
                    if error.kind == ErrorKind::NotFound || (sent.is_none() && self.is_first(claimed)) =>
                {
                    return Ok(Placement::Refused);
                }
                // After an unknown outcome, a rejection alone does not show where the route points.
                RouteResult::Rejected(error) => return Ok(Placement::Unreachable(wait_reason(&error))),
                RouteResult::Unknown(error, next) => {
                    why = wait_reason(&error);
                    (sent, known) = (Some(next), None);
                    None
                }
            };
            backoff.wait_at_least(&*ports.clock, least).await;
        }
        Ok(Placement::Unreachable(why))
    }
}
