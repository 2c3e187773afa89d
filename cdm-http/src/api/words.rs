//! Closed sets of words, as the OpenAPI document lists them: made from the domain's own lists, so that none is forgotten.

use cdm_core::domain::operation::{StepStatus, TerminalStatus};
use cdm_core::domain::rollout::{Change, MemberOutcome};
use cdm_core::domain::service::Verdict;
use cdm_core::domain::webhook::Topic;
use cdm_core::domain::{self, Color, Role, RolloutKind, Status};
use serde::Serialize;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// Every status of an operation.
pub(crate) const STATUSES: [Status; 7] = [
    Status::Queued,
    Status::Running,
    Status::Waiting,
    Status::Parked,
    Status::Ended(TerminalStatus::Succeeded),
    Status::Ended(TerminalStatus::Failed),
    Status::Ended(TerminalStatus::Cancelled),
];

const STEPS: [StepStatus; 5] = [
    StepStatus::Pending,
    StepStatus::Running,
    StepStatus::Succeeded,
    StepStatus::Failed,
    StepStatus::Skipped,
];

const ROLLOUTS: [RolloutKind; 3] = [RolloutKind::Upgrade, RolloutKind::Promote, RolloutKind::Flush];

/// What a rollout does to each of its sites, in a word.
pub(crate) const fn rollout_kind(kind: RolloutKind) -> &'static str {
    match kind {
        RolloutKind::Upgrade => "upgrade",
        RolloutKind::Promote => "promote",
        RolloutKind::Flush => "flush",
    }
}

const OUTCOMES: [MemberOutcome; 9] = [
    MemberOutcome::Failed,
    MemberOutcome::Unhealthy,
    MemberOutcome::UnhealthyInPlace,
    MemberOutcome::Returned,
    MemberOutcome::Parked,
    MemberOutcome::SkippedGone,
    MemberOutcome::SkippedInactive,
    MemberOutcome::SkippedBusy,
    MemberOutcome::SkippedFrozen,
];

/// How a site came out, in a word.
pub(crate) const fn outcome(outcome: MemberOutcome) -> &'static str {
    outcome.as_str()
}

const CHANGES: [Change; 4] = [Change::Move, Change::InPlace, Change::Busy, Change::Frozen];

const VERDICTS: [Verdict; 4] = [Verdict::Unknown, Verdict::Healthy, Verdict::RolledBack, Verdict::Bad];

fn schema(description: &str, words: Vec<&'static str>) -> RefOr<Schema> {
    let object = ObjectBuilder::new().schema_type(Type::String).description(Some(description));
    object.enum_values(Some(words)).into()
}

macro_rules! words {
    ($($name:ident: $said:literal, $words:expr;)*) => {
        $(
            #[doc = $said]
            #[derive(Clone, Copy, Debug, Serialize)]
            pub struct $name(pub &'static str);

            impl PartialSchema for $name {
                fn schema() -> RefOr<Schema> {
                    schema($said, $words)
                }
            }

            impl ToSchema for $name {}
        )*
    };
}

words! {
    ServiceName: "One of the two services.", Color::ALL.iter().map(|one| one.as_str()).collect();
    SiteState: "Where a site is in its life.", domain::State::ALL.iter().map(|one| one.as_str()).collect();
    OperationKind: "What an operation does.", domain::OperationKind::ALL.iter().map(|one| one.as_str()).collect();
    OperationStatus: "Where an operation is; `parked` waits for a person.", STATUSES.iter().map(|one| one.as_str()).collect();
    StepState: "Where a step is.", STEPS.iter().map(|one| one.as_str()).collect();
    RolloutWord: "What a rollout does to each of its sites; `flush` flushes caches only: the hooks of a deploy.",
        ROLLOUTS.into_iter().map(rollout_kind).collect();
    ScopeName: "Which sites: those on the active canary, those on the other service, all; or, for the hooks of a deploy, those on the service that is named.",
        ["active", "inactive", "all"].into_iter().chain(Color::ALL.iter().map(|one| one.as_str())).collect();
    RolloutStatus: "Where a rollout is; `paused` and `halted` can be resumed.", domain::RolloutStatus::ALL.iter().map(|one| one.as_str()).collect();
    ChangeWord: "What would happen to a site.", CHANGES.into_iter().map(super::plan::change).collect();
    OutcomeWord: "How a site came out badly, or why nothing was done to it.", OUTCOMES.into_iter().map(outcome).collect();
    VerdictWord: "What is known of a digest; `rolled_back` stays until a person marks it.", VERDICTS.iter().map(|one| one.as_str()).collect();
    TopicName: "A kind of message.", Topic::ALL.iter().map(|one| one.as_str()).collect();
    WebhookState: "How a webhook stands; `failing` is tried again, `stopped` is not.", vec!["active", "failing", "stopped"];
    RoleName: "What a token may do; each role may do what the one before it may.", Role::ALL.iter().map(|one| one.as_str()).collect();
}

/// The names of both services.
pub(crate) fn service_names() -> impl Iterator<Item = &'static str> {
    Color::ALL.iter().map(|one| one.as_str())
}
