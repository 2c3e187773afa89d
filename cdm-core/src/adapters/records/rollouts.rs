//! Rollouts and the pages of their members.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_with::{DeserializeAs, DisplayFromStr, DurationSeconds, SerializeAs, serde_as};

use super::mirror;
use super::operations::ReasonDef;
use super::text::{Millis, Text};
use crate::domain::rollout::{
    Budget, Control, Counts, HealthGate, MemberFailure, MemberOutcome, PendingFlush, ProgressSample, Rollout,
    RolloutKind, RolloutMember, RolloutPage, RolloutScope, RolloutStatus, Wave, Window,
};
use crate::domain::{
    Actor, ClaimToken, Color, Digest, Direction, NameError, OperationId, Reason, SiteId, Timestamp, Uid,
    WorkerId,
};

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Rollout", rename_all = "camelCase")]
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
    term: u64,
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
mirror!(RolloutDef, Rollout);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "PendingFlush")]
struct PendingFlushDef {
    #[serde_as(as = "WindowDef")]
    window: Window,
    job: u32,
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
    term: u64,
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
        assert_eq!(rollout.scope, RolloutScope::Active);
        let sites = vec![SiteId::parse("rrr").unwrap()];
        for scope in [
            RolloutScope::Active,
            RolloutScope::Inactive,
            RolloutScope::All,
            RolloutScope::Service(Color::Blue),
            RolloutScope::Sites(sites),
        ] {
            rollout.scope = scope;
            assert_eq!(decode::<Rollout>(&encode(&rollout).unwrap()).unwrap(), rollout);
        }
    }
}
