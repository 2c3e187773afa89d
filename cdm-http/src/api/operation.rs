//! Operations in API responses.

use std::fmt;

use cdm_core::domain::operation::{self, OperationParent, Status, TerminalStatus};
use cdm_core::domain::{self, OperationInput, Subject};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::{ActorName, Digest, OperationId, RolloutId, ServiceName, SiteId, Time, wire_enum};

wire_enum! {
    /// The kind of an operation.
    pub enum OperationKind from domain::OperationKind {
        /// Records a site and stores its credentials.
        Create = "create" (domain::OperationKind::Create),
        /// Makes a created site live.
        Provision = "provision" (domain::OperationKind::Provision),
        /// Assigns a site to the active canary.
        Upgrade = "upgrade" (domain::OperationKind::Upgrade),
        /// Moves a site and its route to the active canary.
        Promote = "promote" (domain::OperationKind::Promote),
        /// Deletes a site and its data.
        Terminate = "terminate" (domain::OperationKind::Terminate),
        /// Deploys an image to a service.
        Deploy = "deploy" (domain::OperationKind::Deploy),
        /// Selects the active canary.
        Select = "select" (domain::OperationKind::Select),
    }
}

wire_enum! {
    /// The status of an operation; `parked` needs a user.
    pub enum OperationStatus from Status {
        /// No worker has claimed the operation yet.
        Queued = "queued" (Status::Queued),
        /// A worker runs a step.
        Running = "running" (Status::Running),
        /// The operation waits for a condition or for its next attempt.
        Waiting = "waiting" (Status::Waiting),
        /// The operation needs a user.
        Parked = "parked" (Status::Parked),
        /// Every step has finished.
        Succeeded = "succeeded" (Status::Ended(TerminalStatus::Succeeded)),
        /// No step took effect, or every step that has an undo was undone.
        Failed = "failed" (Status::Ended(TerminalStatus::Failed)),
        /// The operation was canceled.
        Cancelled = "cancelled" (Status::Ended(TerminalStatus::Cancelled)),
    }
}

wire_enum! {
    /// The status of a step.
    pub enum StepStatus from operation::StepStatus {
        /// The step was not started.
        Pending = "pending" (operation::StepStatus::Pending),
        /// The step is running, or waits for its next attempt.
        Running = "running" (operation::StepStatus::Running),
        /// The step has finished, with its result stored.
        Succeeded = "succeeded" (operation::StepStatus::Succeeded),
        /// The step cannot finish, so the operation is undone.
        Failed = "failed" (operation::StepStatus::Failed),
        /// The step was not necessary.
        Skipped = "skipped" (operation::StepStatus::Skipped),
    }
}

impl StepStatus {
    /// Returns whether the step needs no further attempt and did not fail.
    pub const fn is_done(&self) -> bool {
        matches!(self, Self::Succeeded | Self::Skipped)
    }

    /// Returns whether the step is the current one: it is running or has failed.
    pub const fn is_current(&self) -> bool {
        matches!(self, Self::Running | Self::Failed)
    }
}

/// An operation: a request that is processed in steps.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// The opaque id of the operation.
    pub id: OperationId,
    /// The number of the operation, unique in the platform.
    pub number: u64,
    /// The kind of the operation.
    pub kind: OperationKind,
    /// The site that the operation runs on; null for other operations.
    #[schema(required = true)]
    pub site: Option<SiteId>,
    /// The service that the operation changes or moves the site to.
    #[schema(required = true)]
    pub service: Option<ServiceName>,
    /// The rollout that contains the operation, or that runs the hooks of a deploy.
    #[schema(required = true)]
    pub rollout: Option<RolloutId>,
    /// The operation that this operation repeats.
    #[schema(required = true)]
    pub retry_of: Option<OperationId>,
    /// The digest that a deploy sets. For a site of a rollout, the digest that the service ran when the site was moved to
    /// the service, or checked there.
    #[schema(required = true)]
    pub digest: Option<Digest>,
    /// The status of the operation.
    pub status: OperationStatus,
    /// The steps of the operation, in the order in which they run.
    pub steps: Vec<Step>,
    /// Why the operation waits, is parked or has failed.
    #[schema(required = true)]
    pub reason: Option<Reason>,
    /// The actor who requested the operation.
    pub requested_by: ActorName,
    /// When the operation was accepted.
    pub created_at: Time,
    /// When a worker first claimed the operation.
    #[schema(required = true)]
    pub started_at: Option<Time>,
    /// When the operation ended.
    #[schema(required = true)]
    pub finished_at: Option<Time>,
}

/// A step of an operation.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// The name of the step.
    pub name: String,
    /// The status of the step.
    pub status: StepStatus,
    /// How often the step was started.
    pub attempts: u32,
    /// The name of the job that runs the step.
    #[schema(required = true)]
    pub job: Option<String>,
    /// When the step was started.
    #[schema(required = true)]
    pub started_at: Option<Time>,
    /// When the step was finished.
    #[schema(required = true)]
    pub finished_at: Option<Time>,
    /// A message about the step, such as its last error.
    #[schema(required = true)]
    pub message: Option<String>,
}

/// Why an operation or a rollout waits, is parked, paused or halted, or has failed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    /// A stable code, for programs.
    pub code: ReasonCode,
    /// The details, for people. The text may change.
    pub message: String,
    /// When the reason first applied.
    pub since: Time,
    /// When the wait times out, or when the next attempt starts.
    #[schema(required = true)]
    pub until: Option<Time>,
    /// What clears the reason.
    pub clears: String,
}

/// The stable code of a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReasonCode {
    /// A code that this version defines.
    Known(domain::ReasonCode),
    /// A code that this version does not define; only a newer server sends it.
    Other(String),
}

impl ReasonCode {
    /// Returns the code as text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(code) => code.as_str(),
            Self::Other(text) => text,
        }
    }

    /// Returns whether the code is `digest_changed`: the service runs another digest than the rollout's.
    pub fn is_digest_changed(&self) -> bool {
        *self == Self::Known(domain::ReasonCode::DigestChanged)
    }
}

impl From<&str> for ReasonCode {
    fn from(text: &str) -> Self {
        let known = domain::ReasonCode::ALL.into_iter().find(|code| code.as_str() == text);
        known.map_or_else(|| Self::Other(text.to_owned()), Self::Known)
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for ReasonCode {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ReasonCode {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Self::from(String::deserialize(from)?.as_str()))
    }
}

impl PartialSchema for ReasonCode {
    /// The schema is a string without a list of values, since a new code is not a change of the API.
    fn schema() -> RefOr<Schema> {
        let object = ObjectBuilder::new().schema_type(Type::String);
        object.description(Some("A stable code, for programs.")).into()
    }
}

impl ToSchema for ReasonCode {}

impl From<&domain::Reason> for Reason {
    fn from(reason: &domain::Reason) -> Self {
        Self {
            code: ReasonCode::Known(reason.code),
            message: reason.message.clone(),
            since: reason.since.into(),
            until: reason.until.map(Time),
            clears: reason.code.clears().to_owned(),
        }
    }
}

impl From<&operation::Step> for Step {
    fn from(step: &operation::Step) -> Self {
        Self {
            name: step.name.to_string(),
            status: step.status.into(),
            attempts: step.attempts,
            job: step.job.clone(),
            started_at: step.started_at.map(Time),
            finished_at: step.finished_at.map(Time),
            message: step.message.clone(),
        }
    }
}

impl From<&operation::Operation> for Operation {
    fn from(operation: &operation::Operation) -> Self {
        let state = &operation.state;
        let (service, hooks) = match &state.input {
            OperationInput::Create | OperationInput::Terminate => (None, None),
            OperationInput::Provision(service) | OperationInput::Select(service) => (Some(*service), None),
            OperationInput::Upgrade(course) | OperationInput::Promote(course) => (Some(course.to), None),
            OperationInput::Deploy(deploy) => (Some(deploy.color), deploy.rollout),
        };
        let digest = match &state.input {
            OperationInput::Deploy(deploy) => Some(deploy.digest),
            _ => operation.digest,
        };
        let number = match operation.id.parent {
            OperationParent::Rollout(number, _) => Some(number),
            OperationParent::Subject(_) => hooks,
        };
        let site = match &operation.subject {
            Subject::Site(site) => Some(SiteId::from(site)),
            Subject::Service(_) | Subject::Fleet => None,
        };
        Self {
            id: OperationId::from(&operation.id),
            number: operation.id.number,
            kind: state.input.kind().into(),
            site,
            service: service.map(ServiceName::from),
            rollout: number.map(RolloutId::from_number),
            retry_of: state.retry_of.as_ref().map(OperationId::from),
            digest: digest.as_ref().map(Digest::from),
            status: state.status.into(),
            steps: state.steps.iter().map(Step::from).collect(),
            reason: state.reason.as_ref().map(Reason::from),
            requested_by: ActorName::from(&state.requested_by),
            created_at: state.created_at.into(),
            started_at: state.started_at.map(Time),
            finished_at: operation.finished_at.map(Time),
        }
    }
}
