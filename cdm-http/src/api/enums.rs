//! Enumerations of the OpenAPI document. Their values come from the domain types, so the document is always complete.

use cdm_core::domain::operation::{StepStatus, TerminalStatus};
use cdm_core::domain::rollout::{Change, MemberOutcome};
use cdm_core::domain::service::Verdict;
use cdm_core::domain::webhook::Topic;
use cdm_core::domain::{self, Color, Role, RolloutKind, Status};
use serde::Serialize;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// All statuses of an operation.
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

/// Returns the wire name of a kind of rollout.
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

/// Returns the wire name of the result for a site.
pub(crate) const fn outcome(outcome: MemberOutcome) -> &'static str {
    outcome.as_str()
}

const CHANGES: [Change; 4] = [Change::Move, Change::InPlace, Change::Busy, Change::Frozen];

const VERDICTS: [Verdict; 4] = [Verdict::Unknown, Verdict::Healthy, Verdict::RolledBack, Verdict::Bad];

fn schema(description: &str, values: Vec<&'static str>) -> RefOr<Schema> {
    let object = ObjectBuilder::new().schema_type(Type::String).description(Some(description));
    object.enum_values(Some(values)).into()
}

macro_rules! enums {
    ($($name:ident: $description:literal, $values:expr;)*) => {
        $(
            #[doc = $description]
            #[derive(Clone, Copy, Debug, Serialize)]
            pub struct $name(pub &'static str);

            impl PartialSchema for $name {
                fn schema() -> RefOr<Schema> {
                    schema($description, $values)
                }
            }

            impl ToSchema for $name {}
        )*
    };
}

enums! {
    ServiceName: "One of the two services.", Color::ALL.iter().map(|value| value.as_str()).collect();
    SiteState: "The lifecycle state of a site.", domain::State::ALL.iter().map(|value| value.as_str()).collect();
    OperationKind: "The kind of an operation.", domain::OperationKind::ALL.iter().map(|value| value.as_str()).collect();
    OperationStatus: "The status of an operation; `parked` needs a user.", STATUSES.iter().map(|value| value.as_str()).collect();
    StepState: "The status of a step.", STEPS.iter().map(|value| value.as_str()).collect();
    RolloutWord: "What a rollout does with each site; `flush` only flushes caches, as the hook of a deploy.",
        ROLLOUTS.into_iter().map(rollout_kind).collect();
    ScopeName: "The sites of a rollout: `active` for the sites on the active canary, `inactive` for the sites on the other service, or `all`; for the hooks of a deploy, the name of a service for the sites on it.",
        ["active", "inactive", "all"].into_iter().chain(Color::ALL.iter().map(|value| value.as_str())).collect();
    RolloutStatus: "The status of a rollout; `paused` and `halted` rollouts can be resumed.", domain::RolloutStatus::ALL.iter().map(|value| value.as_str()).collect();
    ChangeWord: "What a rollout would do with a site.", CHANGES.into_iter().map(super::plan::change).collect();
    OutcomeWord: "How a site failed, or why it was skipped.", OUTCOMES.into_iter().map(outcome).collect();
    VerdictWord: "The verdict on a digest; `rolled_back` stays until a user sets another verdict.", VERDICTS.iter().map(|value| value.as_str()).collect();
    TopicName: "A kind of event that webhooks send.", Topic::ALL.iter().map(|value| value.as_str()).collect();
    WebhookState: "The delivery state of a webhook; `failing` is retried, `stopped` is not.", vec!["active", "failing", "stopped"];
    RoleName: "The role of a token or a user; each role includes the permissions of the roles before it.", Role::ALL.iter().map(|value| value.as_str()).collect();
}

/// Returns the names of both services.
pub(crate) fn service_names() -> impl Iterator<Item = &'static str> {
    Color::ALL.iter().map(|value| value.as_str())
}
