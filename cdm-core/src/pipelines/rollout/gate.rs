//! One site of a rollout with a health gate: probed at the target, moved, probed through its route, and moved back if a
//! probe fails.
//!
//! The site's route is written more than once under one claim. Each write has a fence above the one that it expects: of
//! two writes that expect the same fence only one is applied, and a late write is rejected.

use std::time::Duration;

use super::member::{ClaimedSite, MemberResult, MoveContext, Placement};
use super::read_with_retry;
use crate::domain::operation::Move;
use crate::domain::rollout::{HealthGate, Judgement, MemberOutcome, ProbeResponse, RolloutMember};
use crate::domain::{Color, Hostname, Routed};
use crate::engine::{Backoff, Lost};
use crate::pipelines::route::{FenceRule, Readiness};
use crate::ports::{Inconclusive, ProbeRequest, Via};

/// How often a failed probe, and one without an answer, is repeated.
const TRIES: u32 = 3;
/// The timeout of one probe.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The first and the longest pause between two probes of a site.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));

/// The final result of the probes of a site.
enum GateResult {
    Healthy,
    Unhealthy(String),
    Inconclusive(String),
    /// The rollout stops before a conclusive probe.
    Stopped,
}

/// The probes of one claimed site.
struct Probes<'a> {
    context: &'a MoveContext<'a>,
    gate: &'a HealthGate,
    claimed: &'a ClaimedSite<'a>,
    host: Hostname,
}

impl MoveContext<'_> {
    /// Moves a claimed site through the health gate. `confirmed` is the route in the site's record.
    pub(super) async fn move_through_gate(
        &self,
        gate: &HealthGate,
        claimed: &ClaimedSite<'_>,
        confirmed: Option<Routed>,
    ) -> Result<MemberResult, Lost> {
        let Some(confirmed) = confirmed else {
            return self.fail(claimed, MemberOutcome::Failed, None, "the site has no route".to_owned()).await;
        };
        let at = if self.is_first(claimed) {
            confirmed
        } else {
            match self.place_above(claimed, None, None).await? {
                Placement::At(at) => at,
                other => return self.not_placed(claimed, confirmed, other).await,
            }
        };
        let Some(host) = self.host(claimed.member).await? else {
            return self.untouched(claimed, at, MemberResult::FencedOff).await;
        };
        let probes = Probes { context: self, gate, claimed, host };
        let Move { routed: origin, to, .. } = claimed.course;
        if at.service == to {
            let result = match (self.stops, origin == to) {
                (true, _) => GateResult::Stopped,
                (false, true) => probes.through_route(None).await,
                (false, false) => match probes.latency_before(Via::Service(origin)).await {
                    Ok(before) => probes.through_route(before).await,
                    Err(result) => result,
                },
            };
            return self.conclude(claimed, at, result).await;
        }
        if self.stops {
            return self.untouched(claimed, at, MemberResult::FencedOff).await;
        }
        let direct = probes.at_target().await;
        let before = match self.of_running_digest(direct, to).await {
            GateResult::Healthy => probes.latency_before(Via::Route).await,
            result => Err(result),
        };
        let before = match before {
            Ok(before) => before,
            Err(GateResult::Unhealthy(why)) => {
                let why = format!("probed before the move: {why}");
                return self.fail(claimed, MemberOutcome::Unhealthy, Some(at), why).await;
            }
            Err(GateResult::Inconclusive(why)) => {
                return self.untouched(claimed, at, MemberResult::Inconclusive(why)).await;
            }
            Err(GateResult::Healthy | GateResult::Stopped) => {
                return self.untouched(claimed, at, MemberResult::FencedOff).await;
            }
        };
        let at = match self.place_above(claimed, Some(to), Some(at)).await? {
            Placement::At(at) => at,
            other => return self.not_placed(claimed, at, other).await,
        };
        let result = probes.through_route(before).await;
        self.conclude(claimed, at, result).await
    }

    /// Resolves a site whose route points to the target, by the result of its probes.
    async fn conclude(
        &self,
        claimed: &ClaimedSite<'_>,
        at: Routed,
        result: GateResult,
    ) -> Result<MemberResult, Lost> {
        let Move { from, to, routed: origin } = claimed.course;
        let in_place = origin == to;
        let result = self.of_running_digest(result, to).await;
        let why = match &result {
            GateResult::Healthy => {
                let moved = from != to || !in_place;
                let outcome = if moved { MemberOutcome::Moved } else { MemberOutcome::InPlace };
                self.release(claimed, Some(outcome), Some(to), Some(at)).await?;
                return Ok(self.resolved(outcome, None));
            }
            GateResult::Unhealthy(why) | GateResult::Inconclusive(why) => why.clone(),
            GateResult::Stopped => "the rollout stopped before a conclusive probe".to_owned(),
        };
        let failed = matches!(result, GateResult::Unhealthy(_));
        if in_place && failed {
            return self.fail(claimed, MemberOutcome::UnhealthyInPlace, Some(at), why).await;
        }
        if failed && crate::bug!(UnhealthyStays) {
            self.release(claimed, Some(MemberOutcome::Returned), Some(to), Some(at)).await?;
            return Ok(self.resolved(MemberOutcome::Returned, Some(why)));
        }
        let back = if in_place {
            at
        } else {
            match self.place_above(claimed, Some(origin), Some(at)).await? {
                Placement::At(back) => back,
                Placement::Unreachable(why) => return Ok(MemberResult::Unreachable(why)),
                Placement::NotReady | Placement::Refused => {
                    let why = format!("{why}; the route could not be moved back to `{origin}`");
                    self.release(claimed, Some(MemberOutcome::Parked), Some(to), Some(at)).await?;
                    return Ok(self.resolved(MemberOutcome::Parked, Some(why)));
                }
            }
        };
        match result {
            GateResult::Unhealthy(_) => self.fail(claimed, MemberOutcome::Returned, Some(back), why).await,
            GateResult::Inconclusive(_) => {
                self.untouched(claimed, back, MemberResult::Inconclusive(why)).await
            }
            GateResult::Healthy | GateResult::Stopped => {
                self.untouched(claimed, back, MemberResult::FencedOff).await
            }
        }
    }

    /// Moves a claimed site's route to a ready service, with a fence above the present one.
    async fn place_above(
        &self,
        claimed: &ClaimedSite<'_>,
        to: Option<Color>,
        known: Option<Routed>,
    ) -> Result<Placement, Lost> {
        self.place(claimed, to, known, FenceRule::Above(claimed.fence), Readiness::Check).await
    }

    /// Releases the site with an outcome that leaves the service in its record unchanged.
    async fn fail(
        &self,
        claimed: &ClaimedSite<'_>,
        outcome: MemberOutcome,
        at: Option<Routed>,
        why: String,
    ) -> Result<MemberResult, Lost> {
        self.release(claimed, Some(outcome), None, at).await?;
        Ok(self.resolved(outcome, Some(why)))
    }

    /// Releases the site without an outcome, for a later turn.
    async fn untouched(
        &self,
        claimed: &ClaimedSite<'_>,
        at: Routed,
        result: MemberResult,
    ) -> Result<MemberResult, Lost> {
        self.release(claimed, None, None, Some(at)).await?;
        Ok(result)
    }

    /// Resolves a site whose route could not be moved.
    async fn not_placed(
        &self,
        claimed: &ClaimedSite<'_>,
        at: Routed,
        placement: Placement,
    ) -> Result<MemberResult, Lost> {
        match placement {
            Placement::At(at) => self.untouched(claimed, at, MemberResult::FencedOff).await,
            Placement::NotReady => self.untouched(claimed, at, MemberResult::NotReady).await,
            Placement::Refused => {
                let why = "the cluster did not move the route".to_owned();
                self.fail(claimed, MemberOutcome::Failed, None, why).await
            }
            Placement::Unreachable(why) => Ok(MemberResult::Unreachable(why)),
        }
    }

    /// Keeps a failed probe only if the target still runs the digest that it ran before. Otherwise the answering image
    /// is unknown, and the site is probed again on the next one.
    async fn of_running_digest(&self, result: GateResult, to: Color) -> GateResult {
        let known = self.running().is_some();
        if !matches!(result, GateResult::Unhealthy(_)) || !known || crate::bug!(WindowIgnoresDigest) {
            return result;
        }
        match self.worker.ports().cluster.service(to).await {
            Ok(view) if view.digest == self.running() => result,
            Ok(_) => GateResult::Stopped,
            Err(error) => GateResult::Inconclusive(format!("the digest of `{to}` is unknown: {error}")),
        }
    }

    /// Returns the hostname for the probes; `None` when the site no longer exists.
    async fn host(&self, member: &RolloutMember) -> Result<Option<Hostname>, Lost> {
        let site = read_with_retry(self.worker, || self.worker.ports().store.site(&member.id)).await?;
        let ours = site.filter(|site| site.uid == member.uid);
        Ok(ours.map(|site| site.hostnames.canonical().clone()))
    }
}

impl Probes<'_> {
    async fn send(&self, via: Via) -> Result<ProbeResponse, Inconclusive> {
        let request = ProbeRequest {
            uid: self.claimed.member.uid,
            host: self.host.clone(),
            via,
            path: self.gate.path().to_owned(),
            text: self.gate.text().map(str::to_owned),
            timeout: TIMEOUT,
        };
        self.context.worker.ports().probe.probe(&request).await
    }

    /// Probes the target directly, before the move.
    async fn at_target(&self) -> GateResult {
        let to = self.claimed.course.to;
        let mut pauses = PAUSES;
        for last in (0..TRIES).map(|attempt| attempt + 1 == TRIES) {
            let result = match self.send(Via::Service(to)).await {
                Ok(response) => match self.gate.judge_direct(&response, to) {
                    Judgement::Healthy => return GateResult::Healthy,
                    Judgement::Unhealthy(why) => GateResult::Unhealthy(why),
                    Judgement::NotYet(why) => GateResult::Inconclusive(why),
                },
                Err(inconclusive) => no_answer(inconclusive.0),
            };
            if last {
                return result;
            }
            if self.context.should_stop().await {
                return GateResult::Stopped;
            }
            self.wait(&mut pauses).await;
        }
        GateResult::Stopped
    }

    /// Probes the site through its route until a response is conclusive, or the settle time of the route is over.
    async fn through_route(&self, before: Option<Duration>) -> GateResult {
        let clock = &self.context.worker.ports().clock;
        let started = clock.monotonic();
        let (mut failures, mut pauses) = (0, PAUSES);
        loop {
            let settled = clock.monotonic().since(started) >= self.gate.settle();
            let result = match self.send(Via::Route).await {
                Ok(response) => match self.gate.judge(&response, self.claimed.course.to, before, settled) {
                    Judgement::Healthy => return GateResult::Healthy,
                    Judgement::Unhealthy(why) => {
                        failures += 1;
                        GateResult::Unhealthy(why)
                    }
                    Judgement::NotYet(why) => GateResult::Inconclusive(why),
                },
                Err(inconclusive) => no_answer(inconclusive.0),
            };
            let unhealthy = matches!(result, GateResult::Unhealthy(_));
            if (unhealthy && failures >= TRIES) || (!unhealthy && settled) {
                return result;
            }
            if self.context.should_stop().await {
                return GateResult::Stopped;
            }
            self.wait(&mut pauses).await;
        }
    }

    /// Measures the latency before the move, if the gate compares it.
    async fn latency_before(&self, via: Via) -> Result<Option<Duration>, GateResult> {
        if self.gate.latency().is_none() {
            return Ok(None);
        }
        let mut pauses = PAUSES;
        let mut tries = 1;
        loop {
            match self.send(via).await {
                Ok(response) => {
                    let from_target = response.by == Some(self.claimed.course.to);
                    return Ok((!from_target).then_some(response.took));
                }
                Err(inconclusive) if tries == TRIES => {
                    return Err(no_answer(format!("before the move: {}", inconclusive.0)));
                }
                Err(_) => tries += 1,
            }
            if self.context.should_stop().await {
                return Err(GateResult::Stopped);
            }
            self.wait(&mut pauses).await;
        }
    }

    async fn wait(&self, pauses: &mut Backoff) {
        pauses.wait(&*self.context.worker.ports().clock).await;
    }
}

fn no_answer(why: String) -> GateResult {
    if crate::bug!(InconclusiveIsFailure) {
        GateResult::Unhealthy(why)
    } else {
        GateResult::Inconclusive(why)
    }
}
