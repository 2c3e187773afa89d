//! Rollouts and the pages of their lists.

use serde::{Deserialize, Serialize};
use serde_with::{DisplayFromStr, serde_as};

use super::mirror;
use super::operations::ReasonDef;
use super::text::{Millis, Text};
use crate::domain::rollout::{
    Budget, Control, Outcome, Rollout, RolloutKind, RolloutMember, RolloutPage, RolloutScope, RolloutStatus,
    Tally, Wave, Window,
};
use crate::domain::{
    Actor, Digest, Grant, Leg, OperationId, Reason, Selector, SiteId, Timestamp, Uid, WorkerId,
};

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Rollout", rename_all = "camelCase")]
pub(crate) struct RolloutDef {
    number: u64,
    #[serde_as(as = "RolloutKindDef")]
    kind: RolloutKind,
    #[serde_as(as = "Text")]
    target: Selector,
    #[serde_as(as = "Option<DisplayFromStr>")]
    digest: Option<Digest>,
    /// Records of before it was kept have none: what a request without one means.
    #[serde(default)]
    #[serde_as(as = "ScopeDef")]
    scope: RolloutScope,
    #[serde_as(as = "Vec<WaveDef>")]
    waves: Vec<Wave>,
    max_concurrent: u32,
    #[serde_as(as = "BudgetDef")]
    budget: Budget,
    auto_return: bool,
    #[serde_as(as = "RolloutStatusDef")]
    status: RolloutStatus,
    #[serde_as(as = "Option<ControlDef>")]
    control: Option<Control>,
    #[serde_as(as = "Option<Text>")]
    owner: Option<WorkerId>,
    term: u64,
    #[serde_as(as = "LegDef")]
    leg: Leg,
    #[serde_as(as = "WindowDef")]
    window: Window,
    forgiven: u32,
    reached: u32,
    unsettled: bool,
    job: u32,
    first_number: u64,
    total: u32,
    #[serde_as(as = "Option<Text>")]
    after: Option<OperationId>,
    #[serde_as(as = "Option<Text>")]
    holds: Option<Selector>,
    flushing: bool,
    #[serde_as(as = "Option<ReasonDef>")]
    reason: Option<Reason>,
    #[serde_as(as = "Option<Millis>")]
    waiting_since: Option<Timestamp>,
    #[serde_as(as = "Option<Millis>")]
    wake: Option<Timestamp>,
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
    #[serde_as(as = "Option<OutcomeDef>")]
    outcome: Option<Outcome>,
}
mirror!(RolloutMemberDef, RolloutMember);

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
    Service(#[serde_as(as = "Text")] Selector),
    Sites(#[serde_as(as = "Vec<DisplayFromStr>")] Vec<SiteId>),
}
mirror!(ScopeDef, RolloutScope);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Wave", rename_all = "camelCase")]
struct WaveDef {
    name: String,
    end: u32,
    #[serde_as(as = "TallyDef")]
    tally: Tally,
}
mirror!(WaveDef, Wave);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Tally", rename_all = "camelCase")]
struct TallyDef {
    succeeded: u32,
    failed: u32,
    skipped: u32,
    parked: u32,
}
mirror!(TallyDef, Tally);

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
#[serde(remote = "Grant", rename_all = "camelCase")]
pub(crate) struct GrantDef {
    rollout: u64,
    #[serde_as(as = "LegDef")]
    leg: Leg,
    term: u64,
}
mirror!(GrantDef, Grant);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Leg", rename_all = "camelCase")]
pub(crate) enum LegDef {
    Out,
    Back,
}
mirror!(LegDef, Leg);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Outcome", rename_all = "camelCase")]
pub(crate) enum OutcomeDef {
    Moved,
    InPlace,
    Failed,
    Returned,
    SkippedGone,
    SkippedInactive,
    SkippedBusy,
    Parked,
}
mirror!(OutcomeDef, Outcome);

#[cfg(test)]
mod tests {
    use super::super::{decode, encode};
    use super::*;

    /// As it was written before a rollout kept its scope.
    const OLD: &str = r#"{"format":1,"record":{"number":7,"kind":"promote","target":"green","digest":null,"waves":[],
        "maxConcurrent":64,"budget":{"count":0},"autoReturn":false,"status":"waiting","control":null,"owner":null,
        "term":0,"leg":"out","window":{"start":0,"end":0},"forgiven":0,"reached":0,"unsettled":false,"job":1,
        "firstNumber":8,"total":0,"after":null,"holds":null,"flushing":false,"reason":null,"waitingSince":null,
        "wake":null,"retryOf":null,"requestedBy":"someone","createdAt":0,"startedAt":null,"finishedAt":null,
        "version":1}}"#;

    #[test]
    fn a_scope_is_kept_and_an_old_record_has_the_usual_one() {
        let mut rollout: Rollout = decode(OLD).unwrap();
        assert_eq!(rollout.scope, RolloutScope::Active);
        let sites = vec![SiteId::parse("rrr").unwrap()];
        for scope in [
            RolloutScope::Active,
            RolloutScope::Inactive,
            RolloutScope::All,
            RolloutScope::Service(Selector::Blue),
            RolloutScope::Sites(sites),
        ] {
            rollout.scope = scope;
            assert_eq!(decode::<Rollout>(&encode(&rollout).unwrap()).unwrap(), rollout);
        }
    }
}
