//! One site of a rollout with a gate: asked at the target, moved, asked again through its route, and taken back where
//! that speaks against it.
//!
//! Every write of the route has a fence above the one that it tests, so that of two writes which expect the same one
//! only one is applied, and a late one finds another fence than it expects.

use std::time::Duration;

use super::answered;
use super::member::{Shared, Taken};
use super::why::Why;
use crate::domain::operation::Move;
use crate::domain::rollout::{HealthGate, Judgement, MemberOutcome, RolloutMember};
use crate::domain::{Color, Fence, Hostname, ReasonCode, Routed};
use crate::engine::Lost;
use crate::ports::{ErrorKind, Outcome, ProbeRequest, Via};

/// How often one answer that speaks against a site is asked for again, and one that does not come.
const TRIES: u32 = 3;
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two questions to one site: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// A site that is claimed.
pub(super) struct Held<'a> {
    pub(super) gate: &'a HealthGate,
    pub(super) member: &'a RolloutMember,
    pub(super) course: Move,
    /// The claim's fence.
    pub(super) fence: Fence,
}

/// What the gate says in the end.
enum Spoken {
    Healthy,
    Unhealthy(String),
    Inconclusive(String),
    /// Nothing: the rollout is to stop.
    Stopped,
}

/// Where a route was put.
enum Placed {
    At(Routed),
    /// The service is not ready to take it.
    NotReady,
    /// The cluster does not want it there.
    Refused,
    Unreachable(Why),
}

impl Shared<'_> {
    /// Brings a claimed site through its gate.
    pub(super) async fn gated(&self, held: &Held<'_>, confirmed: Option<Routed>) -> Result<Taken, Lost> {
        let Some(confirmed) = confirmed else {
            return self.leave(held, MemberOutcome::Failed, None, "it has no route".to_owned()).await;
        };
        let first = held.fence.epoch == self.claim_token.direction.first_epoch();
        let at = if first {
            confirmed
        } else {
            match self.place(held, None, None).await? {
                Placed::At(at) => at,
                other => return self.unplaced(held, confirmed, other).await,
            }
        };
        let Some(host) = self.host(held.member).await? else {
            return self.untouched(held, at, Taken::Barred).await;
        };
        let Move { routed: origin, to, .. } = held.course;
        if at.service == to {
            let spoken = if self.still {
                Spoken::Stopped
            } else {
                let before = match origin == to {
                    true => Ok(None),
                    false => self.before(held, &host, Via::Service(origin)).await,
                };
                match before {
                    Ok(before) => self.through(held, &host, before).await,
                    Err(spoken) => spoken,
                }
            };
            return self.conclude(held, at, spoken).await;
        }
        if self.still {
            return self.untouched(held, at, Taken::Barred).await;
        }
        let direct = self.direct(held, &host).await;
        let before = match self.of_what_ran(direct, to).await {
            Spoken::Healthy => self.before(held, &host, Via::Route).await,
            spoken => Err(spoken),
        };
        let before = match before {
            Ok(before) => before,
            Err(Spoken::Unhealthy(why)) => {
                let why = format!("asked before its move: {why}");
                return self.leave(held, MemberOutcome::Unhealthy, Some(at), why).await;
            }
            Err(Spoken::Inconclusive(why)) => {
                return self.untouched(held, at, Taken::Inconclusive(why)).await;
            }
            Err(Spoken::Healthy | Spoken::Stopped) => return self.untouched(held, at, Taken::Barred).await,
        };
        let at = match self.place(held, Some(to), Some(at)).await? {
            Placed::At(at) => at,
            other => return self.unplaced(held, at, other).await,
        };
        let spoken = self.through(held, &host, before).await;
        self.conclude(held, at, spoken).await
    }

    /// Does what the gate said of a site whose route points to the target.
    async fn conclude(&self, held: &Held<'_>, at: Routed, spoken: Spoken) -> Result<Taken, Lost> {
        let Move { from, to, routed: origin } = held.course;
        let in_place = origin == to;
        let spoken = self.of_what_ran(spoken, to).await;
        let why = match &spoken {
            Spoken::Healthy => {
                let moved = from != to || !in_place;
                let outcome = if moved { MemberOutcome::Moved } else { MemberOutcome::InPlace };
                self.release_claim(held.member, held.fence, Some(outcome), Some(to), Some(at)).await?;
                return Ok(self.out(outcome, None));
            }
            Spoken::Unhealthy(why) | Spoken::Inconclusive(why) => why.clone(),
            Spoken::Stopped => "it was to stop before its gate had spoken".to_owned(),
        };
        let failed = matches!(spoken, Spoken::Unhealthy(_));
        if in_place && failed {
            return self.leave(held, MemberOutcome::UnhealthyInPlace, Some(at), why).await;
        }
        if failed && crate::bug!(UnhealthyStays) {
            self.release_claim(held.member, held.fence, Some(MemberOutcome::Returned), Some(to), Some(at))
                .await?;
            return Ok(self.out(MemberOutcome::Returned, Some(why)));
        }
        let back = if in_place {
            at
        } else {
            match self.place(held, Some(origin), Some(at)).await? {
                Placed::At(back) => back,
                Placed::Unreachable(why) => return Ok(Taken::Unreachable(why)),
                Placed::NotReady | Placed::Refused => {
                    let why = format!("{why}; `{origin}` does not take it back");
                    self.release_claim(
                        held.member,
                        held.fence,
                        Some(MemberOutcome::Parked),
                        Some(to),
                        Some(at),
                    )
                    .await?;
                    return Ok(self.out(MemberOutcome::Parked, Some(why)));
                }
            }
        };
        match spoken {
            Spoken::Unhealthy(_) => self.leave(held, MemberOutcome::Returned, Some(back), why).await,
            Spoken::Inconclusive(_) => self.untouched(held, back, Taken::Inconclusive(why)).await,
            Spoken::Healthy | Spoken::Stopped => self.untouched(held, back, Taken::Barred).await,
        }
    }

    /// Lets the site go with an outcome that leaves its record's service as it was.
    async fn leave(
        &self,
        held: &Held<'_>,
        outcome: MemberOutcome,
        at: Option<Routed>,
        why: String,
    ) -> Result<Taken, Lost> {
        self.release_claim(held.member, held.fence, Some(outcome), None, at).await?;
        Ok(self.out(outcome, Some(why)))
    }

    /// Lets the site go as if it had not been taken; it is still to come.
    async fn untouched(&self, held: &Held<'_>, at: Routed, taken: Taken) -> Result<Taken, Lost> {
        self.release_claim(held.member, held.fence, None, None, Some(at)).await?;
        Ok(taken)
    }

    /// What becomes of a site whose route could not be put where it was wanted.
    async fn unplaced(&self, held: &Held<'_>, at: Routed, placed: Placed) -> Result<Taken, Lost> {
        match placed {
            Placed::At(at) => self.untouched(held, at, Taken::Barred).await,
            Placed::NotReady => self.untouched(held, at, Taken::NotReady).await,
            Placed::Refused => {
                self.leave(
                    held,
                    MemberOutcome::Failed,
                    None,
                    "the cluster does not move its route".to_owned(),
                )
                .await
            }
            Placed::Unreachable(why) => Ok(Taken::Unreachable(why)),
        }
    }

    /// A word against the target is one against the image that it ran when the site was asked. Where it runs another one by
    /// now, nobody knows which of them has answered, and the site is asked again under the next.
    async fn of_what_ran(&self, spoken: Spoken, to: Color) -> Spoken {
        if !matches!(spoken, Spoken::Unhealthy(_)) || self.ran().is_none() || crate::bug!(WindowIgnoresDigest)
        {
            return spoken;
        }
        match self.worker.ports().cluster.service(to).await {
            Ok(view) if view.digest == self.ran() => spoken,
            Ok(_) => Spoken::Stopped,
            Err(error) => Spoken::Inconclusive(format!("what `{to}` ran is unknown: {error}")),
        }
    }

    /// Asks the target itself.
    async fn direct(&self, held: &Held<'_>, host: &Hostname) -> Spoken {
        let check = check(held, host, Via::Service(held.course.to));
        let mut pause = PAUSES.0;
        for last in (0..TRIES).map(|n| n + 1 == TRIES) {
            let spoken = match self.worker.ports().probe.probe(&check).await {
                Ok(answer) => match held.gate.judge_direct(&answer, held.course.to) {
                    Judgement::Healthy => return Spoken::Healthy,
                    Judgement::Unhealthy(why) => Spoken::Unhealthy(why),
                    Judgement::NotYet(why) => Spoken::Inconclusive(why),
                },
                Err(inconclusive) => unasked(inconclusive.0),
            };
            if last {
                return spoken;
            }
            if self.to_stop().await {
                return Spoken::Stopped;
            }
            self.wait(&mut pause).await;
        }
        Spoken::Stopped
    }

    /// Asks through the route until an answer speaks for or against the target, or the route has had its time.
    async fn through(&self, held: &Held<'_>, host: &Hostname, before: Option<Duration>) -> Spoken {
        let clock = &self.worker.ports().clock;
        let check = check(held, host, Via::Route);
        let started = clock.monotonic();
        let (mut against, mut pause) = (0, PAUSES.0);
        loop {
            let settled = clock.monotonic().since(started) >= held.gate.settle();
            let spoken = match self.worker.ports().probe.probe(&check).await {
                Ok(answer) => match held.gate.judge(&answer, held.course.to, before, settled) {
                    Judgement::Healthy => return Spoken::Healthy,
                    Judgement::Unhealthy(why) => {
                        against += 1;
                        Spoken::Unhealthy(why)
                    }
                    Judgement::NotYet(why) => Spoken::Inconclusive(why),
                },
                Err(inconclusive) => unasked(inconclusive.0),
            };
            let sure = matches!(spoken, Spoken::Unhealthy(_)) && against >= TRIES;
            let over = settled && !matches!(spoken, Spoken::Unhealthy(_));
            if sure || over {
                return spoken;
            }
            if self.to_stop().await {
                return Spoken::Stopped;
            }
            self.wait(&mut pause).await;
        }
    }

    /// How long an answer takes before the move, where the gate wants to know.
    async fn before(&self, held: &Held<'_>, host: &Hostname, via: Via) -> Result<Option<Duration>, Spoken> {
        if held.gate.latency().is_none() {
            return Ok(None);
        }
        let check = check(held, host, via);
        let mut pause = PAUSES.0;
        let mut tries = 1;
        loop {
            match self.worker.ports().probe.probe(&check).await {
                Ok(answer) => return Ok((answer.by != Some(held.course.to)).then_some(answer.took)),
                Err(inconclusive) if tries == TRIES => {
                    return Err(unasked(format!("before its move: {}", inconclusive.0)));
                }
                Err(_) => tries += 1,
            }
            if self.to_stop().await {
                return Err(Spoken::Stopped);
            }
            self.wait(&mut pause).await;
        }
    }

    /// The hostname that the site is asked by; `None` when it is gone.
    async fn host(&self, member: &RolloutMember) -> Result<Option<Hostname>, Lost> {
        let site = answered(self.worker, || self.worker.ports().store.site(&member.id)).await?;
        let ours = site.filter(|site| site.uid == member.uid);
        Ok(ours.map(|site| site.hostnames.canonical().clone()))
    }

    /// Points the route to a service that is ready, or with `None` leaves it where it is and keeps out whatever a lost
    /// owner has sent. `known` is the route as it was last confirmed; without it the cluster is asked.
    async fn place(&self, held: &Held<'_>, to: Option<Color>, known: Option<Routed>) -> Result<Placed, Lost> {
        let ports = self.worker.ports();
        let (member, mut known, mut sent) = (held.member, known, None);
        let mut missing = false;
        let mut pause = self.worker.settings().pause;
        let mut why = Why::unknown("whether the route was moved is unknown");
        for _ in 0..super::member::TRIES {
            let at = match known {
                Some(at) => at,
                None => match ports.cluster.route(member.uid).await {
                    Ok(Some(route)) => Routed { service: route.service, fence: route.fence },
                    Ok(None) if missing => return Ok(Placed::Refused),
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
                    Err(error) => return Ok(Placed::Unreachable(Why::from(&error))),
                },
            };
            if sent == Some(at) {
                return Ok(Placed::At(at));
            }
            if known.is_none() {
                self.still_owner(member, held.fence).await?;
            }
            let service = to.unwrap_or(at.service);
            if service != at.service {
                match ports.cluster.service(service).await {
                    Ok(view) if view.is_ready() || crate::bug!(RouteBeforeReady) => {}
                    Ok(_) if sent.is_none() => return Ok(Placed::NotReady),
                    Ok(_) => {
                        let message = format!("`{service}` is not ready");
                        return Ok(Placed::Unreachable(Why { code: ReasonCode::ServiceNotReady, message }));
                    }
                    Err(error) if error.is_retryable() => {
                        why = Why::from(&error);
                        self.sleep(&mut pause).await;
                        continue;
                    }
                    Err(error) => return Ok(Placed::Unreachable(Why::from(&error))),
                }
            }
            let next = Routed { service, fence: held.fence.over(at.fence) };
            let call = self.worker.lease().call(ports, next.fence)?;
            match ports.cluster.move_route(&call, member.uid, at.fence, service).await {
                Outcome::Applied(()) => return Ok(Placed::At(next)),
                Outcome::NotApplied(error) => match error.kind {
                    ErrorKind::Conflict => known = None,
                    ErrorKind::Throttled(asked) => {
                        why = Why::from(&error);
                        self.sleep_at_least(&mut pause, asked).await;
                    }
                    ErrorKind::Unavailable | ErrorKind::Full => {
                        why = Why::from(&error);
                        self.sleep(&mut pause).await;
                    }
                    ErrorKind::NotFound => return Ok(Placed::Refused),
                    // Nothing was applied, and nothing that was sent before is still under way.
                    ErrorKind::Invalid | ErrorKind::Foreign | ErrorKind::Exists | ErrorKind::Gone
                        if sent.is_none() =>
                    {
                        return Ok(Placed::Refused);
                    }
                    _ => return Ok(Placed::Unreachable(Why::from(&error))),
                },
                Outcome::Unknown(error) => {
                    why = Why::from(&error);
                    (sent, known) = (Some(next), None);
                    self.sleep(&mut pause).await;
                }
            }
        }
        Ok(Placed::Unreachable(why))
    }

    async fn wait(&self, pause: &mut Duration) {
        let clock = &self.worker.ports().clock;
        clock.sleep_until(clock.monotonic().after(*pause)).await;
        *pause = (*pause * 2).min(PAUSES.1);
    }
}

fn check(held: &Held<'_>, host: &Hostname, via: Via) -> ProbeRequest {
    ProbeRequest {
        uid: held.member.uid,
        host: host.clone(),
        via,
        path: held.gate.path().to_owned(),
        text: held.gate.text().map(str::to_owned),
        timeout: PATIENCE,
    }
}

fn unasked(why: String) -> Spoken {
    if crate::bug!(InconclusiveIsFailure) { Spoken::Unhealthy(why) } else { Spoken::Inconclusive(why) }
}
