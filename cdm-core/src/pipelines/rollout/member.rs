//! One site of a rollout, from its claim to its completion.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::answered;
use super::gated::Held;
use super::why::Why;
use crate::domain::fence::ClaimToken;
use crate::domain::operation::Move;
use crate::domain::rollout::{HealthGate, MemberOutcome, RolloutMember};
use crate::domain::site::{Claim, ClaimIntent, ClaimRefused, Claimed, ReleaseClaim};
use crate::domain::{Actor, Color, Digest, Direction, Fence, MonotonicTime, RolloutKind, Routed};
use crate::engine::{Lost, Worker};
use crate::ports::{ErrorKind, Outcome, StoreError, WriteError};

/// What all sites of a window share.
#[derive(Debug)]
pub(super) struct Shared<'a> {
    pub(super) worker: &'a Worker,
    pub(super) kind: RolloutKind,
    pub(super) claim_token: ClaimToken,
    pub(super) destination: Color,
    pub(super) first_number: u64,
    pub(super) requested_by: Actor,
    /// What is begun already is only finished, and nothing is moved: someone wants the rollout to stop.
    pub(super) still: bool,
    /// The digest that the target was last seen to run; `None` where nobody has looked, since nothing is moved.
    pub(super) ran: Mutex<Option<Digest>>,
    /// What each site has to answer; on the way back nothing.
    pub(super) gate: Option<&'a HealthGate>,
    /// Whether someone asked something of the rollout, and when that was last looked at.
    pub(super) asked: AtomicBool,
    pub(super) looked: Mutex<MonotonicTime>,
}

/// How a site was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// With an outcome.
    Out(MemberResult),
    /// Another operation is at work on it.
    Busy,
    /// Untouched, and out of a lost owner's reach.
    Barred,
    /// Claimed, and the cluster does not say: it is finished when it does.
    Unreachable(Why),
    /// Untouched: the target is not ready.
    NotReady,
    /// Untouched: whether it works on the target could not be found out, and why.
    Inconclusive(String),
}

/// How a site came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MemberResult {
    /// How.
    pub(super) outcome: MemberOutcome,
    /// Why, where it is a bad one or it was skipped.
    pub(super) why: Option<String>,
    /// The digest that the target ran, where it was moved there or asked there.
    pub(super) digest: Option<Digest>,
}

impl MemberResult {
    /// Nothing was done to it, and why.
    pub(super) fn skipped(outcome: MemberOutcome, why: Option<String>) -> Self {
        Self { outcome, why: why.or_else(|| Some(outcome.describe().to_owned())), digest: None }
    }
}

/// How often the cluster is asked about one site before the rollout waits for it.
pub(super) const TRIES: u32 = 4;

impl Shared<'_> {
    /// Claims the site and moves it.
    pub(super) async fn go(&self, ordinal: u32, member: &RolloutMember) -> Result<Taken, Lost> {
        let intent = match self.kind {
            RolloutKind::Promote => ClaimIntent::Promote(self.destination),
            RolloutKind::Upgrade => ClaimIntent::Upgrade(self.destination),
            RolloutKind::Flush => return Ok(self.out(MemberOutcome::InPlace, None)),
        };
        self.take(ordinal, member, intent).await
    }

    /// Finishes what a lost owner began on the site; where it began nothing, keeps it from beginning.
    pub(super) async fn settle(&self, ordinal: u32, member: &RolloutMember) -> Result<Taken, Lost> {
        if self.kind.moves() {
            self.take(ordinal, member, ClaimIntent::Recover).await
        } else {
            Ok(Taken::Barred)
        }
    }

    async fn take(&self, ordinal: u32, member: &RolloutMember, intent: ClaimIntent) -> Result<Taken, Lost> {
        let ports = self.worker.ports();
        let number = self.first_number + u64::from(ordinal);
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
        let mut call = self.worker.lease().call(ports, Fence::new(number, 0))?;
        let mut pause = self.worker.settings().pause;
        let claimed = loop {
            match ports.store.claim(&call, &claim).await {
                Outcome::Applied(claimed) => break claimed,
                Outcome::NotApplied(WriteError::Claim(refused)) => {
                    return match refused {
                        ClaimRefused::Gone => {
                            Ok(Taken::Out(MemberResult::skipped(MemberOutcome::SkippedGone, None)))
                        }
                        ClaimRefused::NotActive => {
                            Ok(Taken::Out(MemberResult::skipped(MemberOutcome::SkippedInactive, None)))
                        }
                        ClaimRefused::Busy => Ok(Taken::Busy),
                        ClaimRefused::AlreadyResolved(outcome, digest) => {
                            Ok(Taken::Out(MemberResult { outcome, why: None, digest }))
                        }
                        ClaimRefused::Fenced => Err(Lost),
                    };
                }
                Outcome::NotApplied(WriteError::Store(StoreError::Denied(_))) => return Err(Lost),
                Outcome::NotApplied(_) | Outcome::Unknown(_) => {
                    self.sleep(&mut pause).await;
                    let again = self.worker.lease().call(ports, Fence::new(number, 0))?;
                    call = crate::ports::CallContext { write: call.write, ..again };
                }
            }
        };
        let (course, route, epoch) = match claimed {
            Claimed::FencedOff => return Ok(Taken::Barred),
            Claimed::Taken { course, route, epoch, .. } => (course, route, epoch),
        };
        let fence = Fence::new(number, epoch);
        if let Some(gate) = self.gate {
            return self.gated(&Held { gate, member, course, fence }, route).await;
        }
        let routed = match self.kind {
            RolloutKind::Promote => self.point(member, course, route, fence).await?,
            RolloutKind::Upgrade | RolloutKind::Flush => Pointed::At(route),
        };
        let (outcome, service, route) = match routed {
            Pointed::Unreachable(why) => return Ok(Taken::Unreachable(why)),
            Pointed::Refused if self.claim_token.direction == Direction::Rollback => {
                (MemberOutcome::Parked, None, None)
            }
            Pointed::Refused => (MemberOutcome::Failed, None, None),
            Pointed::Still(seen) => {
                self.release_claim(member, fence, None, None, Some(seen)).await?;
                return Ok(Taken::Barred);
            }
            Pointed::At(seen) => {
                let moved = course.from != course.to || course.routed != course.to;
                let outcome = match (self.claim_token.direction, moved) {
                    (Direction::Rollback, _) => MemberOutcome::Returned,
                    (Direction::Forward, true) => MemberOutcome::Moved,
                    (Direction::Forward, false) => MemberOutcome::InPlace,
                };
                (outcome, Some(course.to), seen)
            }
        };
        self.release_claim(member, fence, Some(outcome), service, route).await?;
        Ok(self.out(outcome, None))
    }

    /// The site has come out so, on what the target was seen to run.
    pub(super) fn out(&self, outcome: MemberOutcome, why: Option<String>) -> Taken {
        Taken::Out(MemberResult { outcome, why, digest: self.digest_of(outcome) })
    }

    /// The digest on which a site has such an outcome: what the target ran, where it has to do with that.
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
        self.ran().filter(|_| on_target)
    }

    /// The digest that the target was last seen to run.
    pub(super) fn ran(&self) -> Option<Digest> {
        *self.ran.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The target was seen to run that digest.
    pub(super) fn saw(&self, digest: Option<Digest>) {
        *self.ran.lock().unwrap_or_else(PoisonError::into_inner) = digest;
    }

    /// Whether nothing new is to be begun, and what takes long is to be cut short.
    pub(super) async fn to_stop(&self) -> bool {
        let ports = self.worker.ports();
        if self.worker.stopping() || self.asked.load(Ordering::SeqCst) {
            return true;
        }
        let now = ports.clock.monotonic();
        let due = {
            let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            let due = now.since(*looked) >= super::owner::LOOK;
            *looked = if due { now } else { *looked };
            due
        };
        if due && let Ok(Some(head)) = ports.store.rollout(self.claim_token.rollout).await {
            self.asked.store(head.control.is_some(), Ordering::SeqCst);
        }
        self.asked.load(Ordering::SeqCst)
    }

    pub(super) async fn release_claim(
        &self,
        member: &RolloutMember,
        fence: Fence,
        outcome: Option<MemberOutcome>,
        service: Option<Color>,
        route: Option<Routed>,
    ) -> Result<(), Lost> {
        let ports = self.worker.ports();
        let at = ports.clock.wall();
        let digest = outcome.and_then(|outcome| self.digest_of(outcome));
        let complete = ReleaseClaim {
            id: member.id.clone(),
            claim_token: self.claim_token,
            fence,
            outcome,
            digest,
            service,
            route,
            at,
        };
        let mut call = self.worker.lease().call(ports, fence)?;
        let mut pause = self.worker.settings().pause;
        loop {
            match ports.store.release_claim(&call, &complete).await {
                Outcome::Applied(()) => return Ok(()),
                Outcome::NotApplied(WriteError::Claim(_) | WriteError::Store(StoreError::Denied(_))) => {
                    return Err(Lost);
                }
                Outcome::NotApplied(_) | Outcome::Unknown(_) => {
                    self.sleep(&mut pause).await;
                    let again = self.worker.lease().call(ports, fence)?;
                    call = crate::ports::CallContext { write: call.write, ..again };
                }
            }
        }
    }

    /// Points the route. Without trouble that is one request: the record knows the fence that the route carries.
    async fn point(
        &self,
        member: &RolloutMember,
        course: Move,
        confirmed: Option<Routed>,
        fence: Fence,
    ) -> Result<Pointed, Lost> {
        let ports = self.worker.ports();
        let here = Pointed::At(Some(Routed { service: course.to, fence }));
        let Some(confirmed) = confirmed else { return Ok(Pointed::Refused) };
        // A route that points there already needs no request, unless a lost owner may have sent one.
        let first = fence.epoch == self.claim_token.direction.first_epoch();
        if confirmed.service == course.to && first {
            return Ok(Pointed::At(Some(confirmed)));
        }
        let mut expect = confirmed.fence;
        let mut look = !first || self.still;
        let mut to = course.to;
        let mut missing = false;
        let mut pause = self.worker.settings().pause;
        let mut why = Why::unknown("whether the route was moved is unknown");
        for _ in 0..TRIES {
            if look {
                match ports.cluster.route(member.uid).await {
                    Ok(Some(route)) if route.fence == fence && route.service == course.to => return Ok(here),
                    Ok(Some(route)) => {
                        self.still_owner(member, fence).await?;
                        expect = route.fence;
                        to = if self.still { route.service } else { course.to };
                    }
                    Ok(None) if missing => return Ok(Pointed::Refused),
                    // The view may lag: only a route that stays away is missing.
                    Ok(None) => {
                        missing = true;
                        self.sleep(&mut pause).await;
                        continue;
                    }
                    Err(error) if error.is_retryable() => {
                        why = Why::from(&error);
                        self.sleep(&mut pause).await;
                        continue;
                    }
                    Err(error) => return Ok(Pointed::Unreachable(Why::from(&error))),
                }
            }
            let call = self.worker.lease().call(ports, fence)?;
            match ports.cluster.move_route(&call, member.uid, expect, to).await {
                Outcome::Applied(()) if to == course.to => return Ok(here),
                Outcome::Applied(()) => return Ok(Pointed::Still(Routed { service: to, fence })),
                Outcome::NotApplied(error) => match error.kind {
                    ErrorKind::Conflict => why = Why::from(&error),
                    ErrorKind::Throttled(asked) => {
                        why = Why::from(&error);
                        self.sleep_at_least(&mut pause, asked).await;
                    }
                    ErrorKind::Unavailable | ErrorKind::Full => {
                        why = Why::from(&error);
                        self.sleep(&mut pause).await;
                    }
                    // No site's fault.
                    ErrorKind::Denied => return Ok(Pointed::Unreachable(Why::from(&error))),
                    ErrorKind::NotFound => return Ok(Pointed::Refused),
                    // Nothing was applied, and nothing that was sent before is still under way.
                    _ if !look => return Ok(Pointed::Refused),
                    // After an unknown outcome a refusal alone does not say where the route is.
                    _ => return Ok(Pointed::Unreachable(Why::from(&error))),
                },
                Outcome::Unknown(error) => {
                    why = Why::from(&error);
                    self.sleep(&mut pause).await;
                }
            }
            look = true;
        }
        Ok(Pointed::Unreachable(why))
    }

    /// Makes sure that the site is still this owner's, between a look at its route and a write that expects what was
    /// seen: see [`crate::engine::StepContext::still_owner`].
    pub(super) async fn still_owner(&self, member: &RolloutMember, fence: Fence) -> Result<(), Lost> {
        let site = answered(self.worker, || self.worker.ports().store.site(&member.id)).await?;
        let operation = site.and_then(|site| site.operation);
        if operation.is_some_and(|operation| operation.fence() == fence) { Ok(()) } else { Err(Lost) }
    }

    pub(super) async fn sleep(&self, pause: &mut Duration) {
        self.sleep_at_least(pause, None).await;
    }

    pub(super) async fn sleep_at_least(&self, pause: &mut Duration, asked: Option<Duration>) {
        let clock = &self.worker.ports().clock;
        let until = clock.monotonic().after((*pause).max(asked.unwrap_or_default()));
        clock.sleep_until(until).await;
        *pause = (*pause * 2).min(self.worker.settings().longest_pause);
    }
}

/// Where a site's route was left.
enum Pointed {
    /// Where it is wanted, as the record shall have it.
    At(Option<Routed>),
    /// Where it was, out of reach of whatever a lost owner has sent.
    Still(Routed),
    /// Where it was; the cluster does not want it elsewhere.
    Refused,
    /// Nobody knows; and it says nothing about the site.
    Unreachable(Why),
}
