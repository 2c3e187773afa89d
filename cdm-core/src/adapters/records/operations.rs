//! Operations and their states, audit entries, events, idempotency records and tokens.

use std::borrow::Cow;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_with::{DisplayFromStr, FromInto, serde_as};

use super::mirror;
use super::rollouts::DirectionDef;
use super::text::{Millis, Text};
use crate::domain::operation::{
    Deploy, Hooks, Member, Move, Operation, OperationInput, OperationState, Position, Previous, Status, Step,
    StepStatus, Subject, TerminalStatus,
};
use crate::domain::{
    Actor, AuditEntry, Color, Digest, Direction, Epoch, Fence, Fingerprint, IdempotencyKey, OperationId,
    Reason, ReasonCode, Role, SiteId, Template, Term, Timestamp, Token, TokenHash, Uid, WorkerId,
};
use crate::ports::{FeedEvent, IdempotencyRecord};

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Operation", rename_all = "camelCase")]
pub(crate) struct OperationDef {
    #[serde_as(as = "Text")]
    id: OperationId,
    #[serde_as(as = "SubjectDef")]
    subject: Subject,
    #[serde_as(as = "OperationStateDef")]
    #[serde(rename = "slot")]
    state: OperationState,
    #[serde_as(as = "Option<Millis>")]
    finished_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde_as(as = "Option<DisplayFromStr>")]
    digest: Option<Digest>,
}
mirror!(OperationDef, Operation);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "OperationState", rename_all = "camelCase")]
pub(crate) struct OperationStateDef {
    number: u64,
    #[serde_as(as = "OperationInputDef")]
    #[serde(rename = "task")]
    input: OperationInput,
    pipeline: u32,
    #[serde_as(as = "FromInto<u64>")]
    epoch: Epoch,
    #[serde_as(as = "Option<Text>")]
    owner: Option<WorkerId>,
    #[serde_as(as = "StatusDef")]
    status: Status,
    #[serde_as(as = "PositionDef")]
    position: Position,
    attempts: u32,
    job: u32,
    #[serde_as(as = "Option<Millis>")]
    #[serde(rename = "wake")]
    next_poll_at: Option<Timestamp>,
    #[serde_as(as = "Option<Millis>")]
    waiting_since: Option<Timestamp>,
    /// Missing in states of older versions.
    #[serde_as(as = "Option<Millis>")]
    #[serde(default)]
    trouble_since: Option<Timestamp>,
    #[serde_as(as = "Option<ReasonDef>")]
    reason: Option<Reason>,
    cancel: bool,
    #[serde_as(as = "Option<Text>")]
    #[serde(rename = "holds")]
    locked_color: Option<Color>,
    #[serde_as(as = "Option<MemberDef>")]
    member: Option<Member>,
    #[serde_as(as = "Vec<StepDef>")]
    steps: Vec<Step>,
    #[serde_as(as = "DisplayFromStr")]
    requested_by: Actor,
    #[serde_as(as = "Option<Text>")]
    retry_of: Option<OperationId>,
    #[serde_as(as = "Millis")]
    created_at: Timestamp,
    #[serde_as(as = "Option<Millis>")]
    started_at: Option<Timestamp>,
}
mirror!(OperationStateDef, OperationState);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Subject", rename_all = "camelCase")]
enum SubjectDef {
    Site(#[serde_as(as = "DisplayFromStr")] SiteId),
    #[serde(rename = "colour")]
    Service(#[serde_as(as = "Text")] Color),
    Fleet,
}
mirror!(SubjectDef, Subject);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "OperationInput", rename_all = "camelCase")]
enum OperationInputDef {
    Create,
    Provision(#[serde_as(as = "Text")] Color),
    Upgrade(#[serde_as(as = "MoveDef")] Move),
    Promote(#[serde_as(as = "MoveDef")] Move),
    Terminate,
    Deploy(#[serde_as(as = "Box<DeployDef>")] Box<Deploy>),
    Select(#[serde_as(as = "Text")] Color),
}
mirror!(OperationInputDef, OperationInput);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Move", rename_all = "camelCase")]
pub(crate) struct MoveDef {
    #[serde_as(as = "Text")]
    from: Color,
    #[serde_as(as = "Text")]
    to: Color,
    #[serde_as(as = "Text")]
    routed: Color,
}
mirror!(MoveDef, Move);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Deploy", rename_all = "camelCase")]
struct DeployDef {
    #[serde_as(as = "Text")]
    #[serde(rename = "selector")]
    color: Color,
    #[serde_as(as = "DisplayFromStr")]
    digest: Digest,
    promote: bool,
    #[serde_as(as = "HooksDef")]
    hooks: Hooks,
    #[serde_as(as = "Option<PreviousDef>")]
    previous: Option<Previous>,
    rollout: Option<u64>,
    /// Not stored by older versions.
    #[serde(default, skip_serializing_if = "is_false")]
    rolls_back: bool,
}
mirror!(DeployDef, Deploy);

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a field by reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Hooks", rename_all = "camelCase")]
enum HooksDef {
    Run,
    Skip,
}
mirror!(HooksDef, Hooks);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Previous", rename_all = "camelCase")]
struct PreviousDef {
    #[serde_as(as = "FenceDef")]
    fence: Fence,
    #[serde_as(as = "Option<Text>")]
    template: Option<Template>,
    #[serde_as(as = "Option<DisplayFromStr>")]
    digest: Option<Digest>,
}
mirror!(PreviousDef, Previous);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Fence")]
pub(crate) struct FenceDef {
    number: u64,
    #[serde_as(as = "FromInto<u64>")]
    epoch: Epoch,
}
mirror!(FenceDef, Fence);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Status", rename_all = "camelCase")]
enum StatusDef {
    Queued,
    Running,
    Waiting,
    Parked,
    Ended(#[serde_as(as = "TerminalStatusDef")] TerminalStatus),
}
mirror!(StatusDef, Status);

#[derive(Serialize, Deserialize)]
#[serde(remote = "TerminalStatus", rename_all = "camelCase")]
enum TerminalStatusDef {
    Succeeded,
    Failed,
    Cancelled,
}
mirror!(TerminalStatusDef, TerminalStatus);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Position", rename_all = "camelCase")]
enum PositionDef {
    Forward(usize),
    Undo(usize, #[serde_as(as = "TerminalStatusDef")] TerminalStatus),
}
mirror!(PositionDef, Position);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Member", rename_all = "camelCase")]
struct MemberDef {
    rollout: u64,
    ordinal: u32,
    #[serde_as(as = "DirectionDef")]
    #[serde(rename = "leg")]
    direction: Direction,
    #[serde_as(as = "FromInto<u64>")]
    term: Term,
}
mirror!(MemberDef, Member);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Step", rename_all = "camelCase")]
struct StepDef {
    name: Cow<'static, str>,
    #[serde_as(as = "StepStatusDef")]
    status: StepStatus,
    attempts: u32,
    job: Option<String>,
    log: Option<String>,
    #[serde_as(as = "Option<Millis>")]
    started_at: Option<Timestamp>,
    #[serde_as(as = "Option<Millis>")]
    finished_at: Option<Timestamp>,
    message: Option<String>,
}
mirror!(StepDef, Step);

#[derive(Serialize, Deserialize)]
#[serde(remote = "StepStatus", rename_all = "camelCase")]
enum StepStatusDef {
    Pending,
    Running,
    Succeeded,
    Failed,
    Skipped,
}
mirror!(StepStatusDef, StepStatus);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Reason", rename_all = "camelCase")]
pub(crate) struct ReasonDef {
    #[serde_as(as = "ReasonCodeDef")]
    code: ReasonCode,
    message: String,
    #[serde_as(as = "Millis")]
    since: Timestamp,
    #[serde_as(as = "Option<Millis>")]
    until: Option<Timestamp>,
}
mirror!(ReasonDef, Reason);

#[derive(Serialize, Deserialize)]
#[serde(remote = "ReasonCode", rename_all = "snake_case")]
enum ReasonCodeDef {
    AttemptsExhausted,
    #[serde(rename = "colour_held")]
    ServiceLocked,
    CacheFlushFailed,
    DeadlineExceeded,
    DigestChanged,
    Denied,
    Baking,
    BudgetExceeded,
    Frozen,
    GateFailed,
    GateInconclusive,
    Foreign,
    Deploying,
    ImageNotReady,
    JobFailed,
    JobRunning,
    MoveFailed,
    Paused,
    Retrying,
    ServiceNotReady,
    SiteBusy,
    SiteGone,
    SiteInactive,
    ThemeMissing,
    RunsAsRoot,
    #[serde(rename = "wordpress_not_found")]
    WordPressNotFound,
    ParentThemeMissing,
    StylesheetMissing,
    DatabaseRefused,
    EmailRefused,
    InstallIncomplete,
    Throttled,
    RollingOut,
    Invalid,
}
mirror!(ReasonCodeDef, ReasonCode);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "AuditEntry", rename_all = "camelCase")]
pub(crate) struct AuditEntryDef {
    #[serde_as(as = "Millis")]
    at: Timestamp,
    #[serde_as(as = "DisplayFromStr")]
    actor: Actor,
    action: Cow<'static, str>,
    target: String,
    request_id: Option<String>,
    outcome: Cow<'static, str>,
    #[serde_as(as = "Option<Text>")]
    operation: Option<OperationId>,
    /// Missing in entries of older versions.
    #[serde(default)]
    rollout: Option<u64>,
    #[serde_as(as = "Option<DisplayFromStr>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    count: u64,
}

const fn one() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a field by reference")]
const fn is_one(count: &u64) -> bool {
    *count == 1
}
mirror!(AuditEntryDef, AuditEntry);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "FeedEvent", rename_all = "camelCase")]
pub(crate) struct FeedEventDef {
    #[serde_as(as = "Millis")]
    at: Timestamp,
    #[serde_as(as = "Option<SubjectDef>")]
    subject: Option<Subject>,
    #[serde_as(as = "Option<Text>")]
    operation: Option<OperationId>,
    rollout: Option<u64>,
    what: String,
}
mirror!(FeedEventDef, FeedEvent);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "IdempotencyRecord", rename_all = "camelCase")]
pub(crate) struct IdempotencyRecordDef {
    #[serde_as(as = "DisplayFromStr")]
    actor: Actor,
    #[serde_as(as = "DisplayFromStr")]
    key: IdempotencyKey,
    #[serde(flatten, with = "fingerprint")]
    fingerprint: Fingerprint,
    answer: String,
    #[serde_as(as = "Millis")]
    at: Timestamp,
}
mirror!(IdempotencyRecordDef, IdempotencyRecord);

/// Stores a fingerprint as `request`. Older versions require the number `fingerprint` and compare it with their own:
/// for them, a request of this version is always another request. Their records have only the number, which equals no
/// fingerprint of this version.
mod fingerprint {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::domain::Fingerprint;

    #[derive(Serialize, Deserialize)]
    struct Stored {
        fingerprint: u64,
        #[serde(default)]
        request: Option<String>,
    }

    pub(super) fn serialize<S: Serializer>(value: &Fingerprint, to: S) -> Result<S::Ok, S::Error> {
        let digits = value.as_str().split(':').next_back().and_then(|hash| hash.get(..16));
        let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        Stored { fingerprint: number.unwrap_or_default(), request: Some(value.as_str().to_owned()) }
            .serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Fingerprint, D::Error> {
        let stored = Stored::deserialize(from)?;
        Ok(Fingerprint::stored(stored.request.unwrap_or_else(|| stored.fingerprint.to_string())))
    }
}

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Token", rename_all = "camelCase")]
pub(crate) struct TokenDef {
    #[serde_as(as = "DisplayFromStr")]
    id: Uid,
    #[serde_as(as = "DisplayFromStr")]
    name: Actor,
    #[serde_as(as = "Text")]
    role: Role,
    #[serde_as(as = "Text")]
    hash: TokenHash,
    loopback_only: bool,
    #[serde_as(as = "DisplayFromStr")]
    created_by: Actor,
    #[serde_as(as = "Millis")]
    created_at: Timestamp,
    #[serde_as(as = "Option<Millis>")]
    expires_at: Option<Timestamp>,
    #[serde_as(as = "Option<Millis>")]
    revoked_at: Option<Timestamp>,
}
mirror!(TokenDef, Token);
