//! Operations in API responses.

use cdm_core::domain::operation::{self, OperationParent};
use cdm_core::domain::{OperationInput, Subject};
use serde::Serialize;
use utoipa::ToSchema;

use super::enums::{OperationKind, OperationStatus, ServiceName, StepState};
use super::{rollout, time};

/// An operation: a request that is processed in steps.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// The opaque id of the operation.
    pub id: String,
    /// The number of the operation, unique in the platform.
    pub number: u64,
    /// The kind of the operation.
    #[schema(value_type = OperationKind)]
    pub kind: String,
    /// The site that the operation runs on; null for other operations.
    #[schema(required = true)]
    pub site: Option<String>,
    /// The service that the operation changes or moves the site to.
    #[schema(required = true, value_type = Option<ServiceName>)]
    pub service: Option<String>,
    /// The rollout that contains the operation, or that runs the hooks of a deploy.
    #[schema(required = true)]
    pub rollout: Option<String>,
    /// The operation that this operation repeats.
    #[schema(required = true)]
    pub retry_of: Option<String>,
    /// The digest that a deploy sets. For a site of a rollout, the digest that the service ran when the site was moved to
    /// the service, or checked there.
    #[schema(required = true)]
    pub digest: Option<String>,
    /// The status of the operation.
    #[schema(value_type = OperationStatus)]
    pub status: String,
    /// The steps of the operation, in the order in which they run.
    pub steps: Vec<Step>,
    /// Why the operation waits, is parked or has failed.
    #[schema(required = true)]
    pub reason: Option<Reason>,
    /// The actor who requested the operation.
    pub requested_by: String,
    /// When the operation was accepted.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When a worker first claimed the operation.
    #[schema(required = true, format = DateTime)]
    pub started_at: Option<String>,
    /// When the operation ended.
    #[schema(required = true, format = DateTime)]
    pub finished_at: Option<String>,
}

/// A step of an operation.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// The name of the step.
    pub name: String,
    /// The status of the step.
    #[schema(value_type = StepState)]
    pub status: String,
    /// How often the step was started.
    pub attempts: u32,
    /// The name of the job that runs the step.
    #[schema(required = true)]
    pub job: Option<String>,
    /// When the step was started.
    #[schema(required = true, format = DateTime)]
    pub started_at: Option<String>,
    /// When the step was finished.
    #[schema(required = true, format = DateTime)]
    pub finished_at: Option<String>,
    /// A message about the step, such as its last error.
    #[schema(required = true)]
    pub message: Option<String>,
}

/// Why an operation or a rollout waits, is parked, paused or halted, or has failed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    /// A stable code, for programs.
    pub code: String,
    /// The details, for people. The text may change.
    pub message: String,
    /// When the reason first applied.
    #[schema(format = DateTime)]
    pub since: String,
    /// When the wait times out, or when the next attempt starts.
    #[schema(required = true, format = DateTime)]
    pub until: Option<String>,
    /// What clears the reason.
    pub clears: String,
}

impl From<&cdm_core::domain::Reason> for Reason {
    fn from(reason: &cdm_core::domain::Reason) -> Self {
        Self {
            code: reason.code.to_string(),
            message: reason.message.clone(),
            since: time(reason.since),
            until: reason.until.map(time),
            clears: reason.code.clears().to_owned(),
        }
    }
}

impl From<&operation::Step> for Step {
    fn from(step: &operation::Step) -> Self {
        Self {
            name: step.name.to_string(),
            status: step.status.as_str().to_owned(),
            attempts: step.attempts,
            job: step.job.clone(),
            started_at: step.started_at.map(time),
            finished_at: step.finished_at.map(time),
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
            Subject::Site(site) => Some(site.to_string()),
            Subject::Service(_) | Subject::Fleet => None,
        };
        Self {
            id: operation.id.to_string(),
            number: operation.id.number,
            kind: state.input.kind().to_string(),
            site,
            service: service.map(|service| service.to_string()),
            rollout: number.map(rollout::id),
            retry_of: state.retry_of.as_ref().map(ToString::to_string),
            digest: digest.map(|digest| digest.to_string()),
            status: state.status.to_string(),
            steps: state.steps.iter().map(Step::from).collect(),
            reason: state.reason.as_ref().map(Reason::from),
            requested_by: state.requested_by.to_string(),
            created_at: time(state.created_at),
            started_at: state.started_at.map(time),
            finished_at: operation.finished_at.map(time),
        }
    }
}
