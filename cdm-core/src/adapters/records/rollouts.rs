//! Rollouts and the pages of their members.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_with::{DeserializeAs, DisplayFromStr, DurationSeconds, FromInto, SerializeAs, serde_as};

use super::mirror;
use super::operations::ReasonDef;
use super::text::{Millis, Text};
use crate::domain::rollout::{
    Budget, Control, Counts, HealthGate, MemberFailure, MemberOutcome, PendingFlush, Progress,
    ProgressSample, Rollout, RolloutKind, RolloutMember, RolloutPage, RolloutPhase, RolloutScope,
    RolloutSpec, RolloutStatus, Wave, WaveTarget, Window,
};
use crate::domain::{
    Actor, ClaimToken, Color, Digest, Direction, NameError, OperationId, Reason, SiteId, Term, Timestamp,
    Uid, WorkerId,
};

/// The stored form of a rollout: the fields of its specification, its phase and its progress in one object.
#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RolloutDef {
    number: u64,
    #[serde_as(as = "RolloutKindDef")]
    kind: RolloutKind,
    #[serde_as(as = "Text")]
    target: Color,
    #[serde_as(as = "Option<DisplayFromStr>")]
    digest: Option<Digest>,
    /// Missing in records of older versions, where no other digest could be accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde_as(as = "Option<DisplayFromStr>")]
    accepted_digest: Option<Digest>,
    /// Missing in records of older versions; the default is the scope of a request without one.
    #[serde(default)]
    #[serde_as(as = "ScopeDef")]
    scope: RolloutScope,
    #[serde_as(as = "Vec<WaveDef>")]
    waves: Vec<Wave>,
    max_concurrent: u32,
    #[serde_as(as = "BudgetDef")]
    budget: Budget,
    #[serde(rename = "autoReturn")]
    auto_rollback: bool,
    #[serde(default)]
    #[serde_as(as = "Option<HealthGateDef>")]
    gate: Option<HealthGate>,
    /// In seconds.
    #[serde(default)]
    #[serde_as(as = "DurationSeconds<u64>")]
    bake: Duration,
    #[serde_as(as = "RolloutStatusDef")]
    status: RolloutStatus,
    #[serde_as(as = "Option<ControlDef>")]
    control: Option<Control>,
    #[serde_as(as = "Option<Text>")]
    owner: Option<WorkerId>,
    #[serde_as(as = "FromInto<u64>")]
    term: Term,
    #[serde_as(as = "DirectionDef")]
    #[serde(rename = "leg")]
    direction: Direction,
    #[serde_as(as = "WindowDef")]
    window: Window,
    #[serde(rename = "forgiven")]
    acknowledged_failures: u32,
    #[serde(default)]
    unhealthy: u32,
    #[serde(default)]
    in_place: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde_as(as = "Vec<MemberFailureDef>")]
    failures: Vec<MemberFailure>,
    #[serde(default)]
    #[serde_as(as = "Option<Millis>")]
    baking: Option<Timestamp>,
    #[serde(default)]
    #[serde(rename = "condemned")]
    image_rejected: bool,
    #[serde(default)]
    #[serde_as(as = "Option<Text>")]
    rollback: Option<OperationId>,
    #[serde(rename = "reached")]
    rollback_end: u32,
    #[serde(rename = "unsettled")]
    needs_recovery: bool,
    job: u32,
    first_number: u64,
    total: u32,
    #[serde_as(as = "Option<Text>")]
    after: Option<OperationId>,
    #[serde_as(as = "Option<Text>")]
    #[serde(rename = "holds")]
    locked_color: Option<Color>,
    flushing: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde_as(as = "Option<PendingFlushDef>")]
    #[serde(rename = "trailing")]
    pending_flush: Option<PendingFlush>,
    #[serde(default)]
    flush_from: u32,
    #[serde(default)]
    #[serde_as(as = "Vec<ProgressSampleDef>")]
    #[serde(rename = "marks")]
    samples: Vec<ProgressSample>,
    #[serde_as(as = "Option<ReasonDef>")]
    reason: Option<Reason>,
    #[serde_as(as = "Option<Millis>")]
    waiting_since: Option<Timestamp>,
    #[serde_as(as = "Option<Millis>")]
    #[serde(rename = "wake")]
    next_poll_at: Option<Timestamp>,
    retry_of: Option<u64>,
    #[serde_as(as = "DisplayFromStr")]
    requested_by: Actor,
    #[serde_as(as = "Millis")]
    created_at: Timestamp,
    #[serde_as(as = "Option<Millis>")]
    started_at: Option<Timestamp>,
    #[serde_as(as = "Option<Millis>")]
    finished_at: Option<Timestamp>,
    version: u64,
}
impl SerializeAs<Rollout> for RolloutDef {
    fn serialize_as<S: Serializer>(rollout: &Rollout, to: S) -> Result<S::Ok, S::Error> {
        Self::from(rollout.clone()).serialize(to)
    }
}

impl<'de> DeserializeAs<'de, Rollout> for RolloutDef {
    fn deserialize_as<D: Deserializer<'de>>(from: D) -> Result<Rollout, D::Error> {
        Self::deserialize(from)?.rollout().map_err(serde::de::Error::custom)
    }
}

impl From<Rollout> for RolloutDef {
    fn from(rollout: Rollout) -> Self {
        let Rollout { spec, phase, .. } = rollout;
        let Progress { window, flush_from, pending_flush, round } = phase.progress();
        Self {
            number: rollout.number,
            kind: spec.kind,
            target: rollout.target,
            digest: spec.digest,
            accepted_digest: rollout.accepted_digest,
            scope: spec.scope,
            waves: rollout.waves,
            max_concurrent: spec.max_concurrent,
            budget: spec.budget,
            auto_rollback: spec.auto_rollback,
            gate: spec.gate,
            bake: spec.bake,
            status: rollout.status,
            control: rollout.control,
            owner: rollout.owner,
            term: rollout.term,
            direction: phase.direction(),
            window,
            acknowledged_failures: rollout.acknowledged_failures,
            unhealthy: rollout.unhealthy,
            in_place: rollout.in_place,
            failures: rollout.failures,
            baking: match phase {
                RolloutPhase::Baking { until, .. } => Some(until),
                _ => None,
            },
            image_rejected: rollout.image_rejected,
            rollback: rollout.rollback,
            rollback_end: match phase {
                RolloutPhase::RollingBack { end, .. } => end,
                _ => 0,
            },
            needs_recovery: rollout.needs_recovery,
            job: round,
            first_number: rollout.first_number,
            total: rollout.total,
            flushing: phase.is_flushing(),
            after: match phase {
                RolloutPhase::Deploying(deploy) => Some(deploy),
                _ => None,
            },
            locked_color: rollout.locked_color,
            pending_flush,
            flush_from,
            samples: rollout.samples,
            reason: rollout.reason,
            waiting_since: rollout.waiting_since,
            next_poll_at: rollout.next_poll_at,
            retry_of: rollout.retry_of,
            requested_by: rollout.requested_by,
            created_at: rollout.created_at,
            started_at: rollout.started_at,
            finished_at: rollout.finished_at,
            version: rollout.version,
        }
    }
}

impl RolloutDef {
    /// Returns the progress. In records of older versions the flush of the window itself is not stored as a pending one.
    const fn progress(&self) -> Progress {
        let (window, round) = (self.window, self.job);
        let mut progress =
            Progress { window, flush_from: self.flush_from, pending_flush: self.pending_flush, round };
        if self.flushing && progress.pending_flush.is_none() {
            let range = Window { start: self.flush_from, end: window.end };
            progress.pending_flush = Some(PendingFlush { window: range, round });
            progress.flush_from = window.start;
            progress.round = if window.start == self.flush_from { round + 1 } else { 1 };
        }
        progress
    }

    fn phase(&self) -> RolloutPhase {
        let progress = self.progress();
        // In records of older versions the end of the last bake time stays after the bake time.
        let begins_wave = self.waves.iter().any(|wave| wave.end == self.window.start);
        let untouched =
            self.waves.iter().map(|wave| wave.counts.resolved()).sum::<u32>() == self.window.start;
        match (&self.after, self.direction, self.baking) {
            (Some(deploy), ..) => RolloutPhase::Deploying(deploy.clone()),
            (None, Direction::Rollback, _) => {
                RolloutPhase::RollingBack { end: self.rollback_end, flushing: self.flushing, progress }
            }
            (None, Direction::Forward, _) if self.flushing => RolloutPhase::Flushing(progress),
            (None, Direction::Forward, Some(until)) if begins_wave && untouched => {
                RolloutPhase::Baking { until, progress }
            }
            (None, Direction::Forward, _) => RolloutPhase::Moving(progress),
        }
    }

    fn rollout(self) -> Result<Rollout, NameError> {
        let phase = self.phase();
        let targets = self.waves.iter().map(|wave| WaveTarget::parse(&wave.name));
        Ok(Rollout {
            number: self.number,
            spec: RolloutSpec {
                kind: self.kind,
                digest: self.digest,
                scope: self.scope,
                waves: targets.collect::<Result<_, _>>()?,
                max_concurrent: self.max_concurrent,
                budget: self.budget,
                auto_rollback: self.auto_rollback,
                gate: self.gate,
                bake: self.bake,
            },
            target: self.target,
            accepted_digest: self.accepted_digest,
            waves: self.waves,
            status: self.status,
            phase,
            control: self.control,
            owner: self.owner,
            term: self.term,
            needs_recovery: self.needs_recovery,
            acknowledged_failures: self.acknowledged_failures,
            unhealthy: self.unhealthy,
            in_place: self.in_place,
            failures: self.failures,
            image_rejected: self.image_rejected,
            rollback: self.rollback,
            first_number: self.first_number,
            total: self.total,
            locked_color: self.locked_color,
            samples: self.samples,
            reason: self.reason,
            waiting_since: self.waiting_since,
            next_poll_at: self.next_poll_at,
            retry_of: self.retry_of,
            requested_by: self.requested_by,
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            version: self.version,
        })
    }
}

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "PendingFlush")]
struct PendingFlushDef {
    #[serde_as(as = "WindowDef")]
    window: Window,
    #[serde(rename = "job")]
    round: u32,
}
mirror!(PendingFlushDef, PendingFlush);

/// A gate. Decoding checks its values again.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HealthGateDef {
    path: String,
    status: u16,
    contains: Option<String>,
    /// In thousandths of the reference latency.
    latency: Option<u32>,
    /// In seconds.
    settle: u64,
}

impl HealthGateDef {
    fn gate(&self) -> Result<HealthGate, NameError> {
        let mut gate = HealthGate::new(&self.path)?
            .with_status(self.status)?
            .with_settle(Duration::from_secs(self.settle))?;
        if let Some(text) = &self.contains {
            gate = gate.with_text(text)?;
        }
        self.latency.map_or(Ok(gate.clone()), |latency| gate.with_latency(latency))
    }
}

impl SerializeAs<HealthGate> for HealthGateDef {
    fn serialize_as<S: Serializer>(gate: &HealthGate, to: S) -> Result<S::Ok, S::Error> {
        let kept = Self {
            path: gate.path().to_owned(),
            status: gate.status(),
            contains: gate.text().map(str::to_owned),
            latency: gate.latency(),
            settle: gate.settle().as_secs(),
        };
        kept.serialize(to)
    }
}

impl<'de> DeserializeAs<'de, HealthGate> for HealthGateDef {
    fn deserialize_as<D: Deserializer<'de>>(from: D) -> Result<HealthGate, D::Error> {
        Self::deserialize(from)?.gate().map_err(serde::de::Error::custom)
    }
}

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "RolloutPage", rename_all = "camelCase")]
pub(crate) struct RolloutPageDef {
    rollout: u64,
    page: u32,
    #[serde_as(as = "Vec<RolloutMemberDef>")]
    members: Vec<RolloutMember>,
}
mirror!(RolloutPageDef, RolloutPage);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "RolloutMember", rename_all = "camelCase")]
struct RolloutMemberDef {
    #[serde_as(as = "DisplayFromStr")]
    id: SiteId,
    #[serde_as(as = "DisplayFromStr")]
    uid: Uid,
    #[serde_as(as = "Option<MemberOutcomeDef>")]
    outcome: Option<MemberOutcome>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// Missing in pages of older versions, where the digest is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde_as(as = "Option<DisplayFromStr>")]
    digest: Option<Digest>,
}
mirror!(RolloutMemberDef, RolloutMember);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "MemberFailure", rename_all = "camelCase")]
struct MemberFailureDef {
    #[serde_as(as = "DisplayFromStr")]
    site: SiteId,
    #[serde_as(as = "MemberOutcomeDef")]
    outcome: MemberOutcome,
    why: Option<String>,
}
mirror!(MemberFailureDef, MemberFailure);

#[derive(Serialize, Deserialize)]
#[serde(remote = "RolloutKind", rename_all = "camelCase")]
enum RolloutKindDef {
    Upgrade,
    Promote,
    Flush,
}
mirror!(RolloutKindDef, RolloutKind);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "RolloutScope", rename_all = "camelCase")]
enum ScopeDef {
    Active,
    Inactive,
    All,
    Service(#[serde_as(as = "Text")] Color),
    Sites(#[serde_as(as = "Vec<DisplayFromStr>")] Vec<SiteId>),
}
mirror!(ScopeDef, RolloutScope);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Wave", rename_all = "camelCase")]
struct WaveDef {
    name: String,
    end: u32,
    #[serde_as(as = "CountsDef")]
    #[serde(rename = "tally")]
    counts: Counts,
}
mirror!(WaveDef, Wave);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "ProgressSample", rename_all = "camelCase")]
struct ProgressSampleDef {
    #[serde_as(as = "Millis")]
    at: Timestamp,
    succeeded: u32,
    failed: u32,
}
mirror!(ProgressSampleDef, ProgressSample);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Counts", rename_all = "camelCase")]
struct CountsDef {
    succeeded: u32,
    failed: u32,
    skipped: u32,
    parked: u32,
}
mirror!(CountsDef, Counts);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Budget", rename_all = "camelCase")]
enum BudgetDef {
    Count(u32),
    Percent(u8),
}
mirror!(BudgetDef, Budget);

#[derive(Serialize, Deserialize)]
#[serde(remote = "RolloutStatus", rename_all = "camelCase")]
enum RolloutStatusDef {
    Waiting,
    Running,
    Paused,
    Halted,
    Aborted,
    Succeeded,
    Failed,
}
mirror!(RolloutStatusDef, RolloutStatus);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Control", rename_all = "camelCase")]
enum ControlDef {
    Pause,
    Abort,
}
mirror!(ControlDef, Control);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Window", rename_all = "camelCase")]
struct WindowDef {
    start: u32,
    end: u32,
}
mirror!(WindowDef, Window);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "ClaimToken", rename_all = "camelCase")]
pub(crate) struct ClaimTokenDef {
    rollout: u64,
    #[serde_as(as = "DirectionDef")]
    #[serde(rename = "leg")]
    direction: Direction,
    #[serde_as(as = "FromInto<u64>")]
    term: Term,
}
mirror!(ClaimTokenDef, ClaimToken);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Direction", rename_all = "camelCase")]
pub(crate) enum DirectionDef {
    #[serde(rename = "out")]
    Forward,
    #[serde(rename = "back")]
    Rollback,
}
mirror!(DirectionDef, Direction);

#[derive(Serialize, Deserialize)]
#[serde(remote = "MemberOutcome", rename_all = "camelCase")]
pub(crate) enum MemberOutcomeDef {
    Moved,
    InPlace,
    Failed,
    Unhealthy,
    UnhealthyInPlace,
    Returned,
    SkippedGone,
    SkippedInactive,
    SkippedBusy,
    SkippedFrozen,
    Parked,
}
mirror!(MemberOutcomeDef, MemberOutcome);

#[cfg(test)]
mod tests {
    use super::super::{decode, encode};
    use super::*;

    /// A record of a version that did not store the scope.
    const OLD: &str = r#"{"format":1,"record":{"number":7,"kind":"promote","target":"green","digest":null,"waves":[],
        "maxConcurrent":64,"budget":{"count":0},"autoReturn":false,"status":"waiting","control":null,"owner":null,
        "term":0,"leg":"out","window":{"start":0,"end":0},"forgiven":0,"reached":0,"unsettled":false,"job":1,
        "firstNumber":8,"total":0,"after":null,"holds":null,"flushing":false,"reason":null,"waitingSince":null,
        "wake":null,"retryOf":null,"requestedBy":"someone","createdAt":0,"startedAt":null,"finishedAt":null,
        "version":1}}"#;

    #[test]
    fn a_scope_is_stored_and_an_old_record_has_the_default() {
        let mut rollout: Rollout = decode(OLD).unwrap();
        assert_eq!(rollout.spec.scope, RolloutScope::Active);
        let sites = vec![SiteId::parse("rrr").unwrap()];
        for scope in [
            RolloutScope::Active,
            RolloutScope::Inactive,
            RolloutScope::All,
            RolloutScope::Service(Color::Blue),
            RolloutScope::Sites(sites),
        ] {
            rollout.spec.scope = scope;
            assert_eq!(decode::<Rollout>(&encode(&rollout).unwrap()).unwrap(), rollout);
        }
    }
}
