//! An operation on the wire.

use cdm_core::domain::operation::{self, OperationParent};
use cdm_core::domain::{OperationInput, Subject};
use serde::Serialize;
use utoipa::ToSchema;

use super::words::{OperationKind, OperationStatus, ServiceName, StepState};
use super::{rollout, time};

/// What was asked for, how far it is, and how it ended.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// Its opaque name.
    pub id: String,
    /// Unique over the platform.
    pub number: u64,
    /// What it does.
    #[schema(value_type = OperationKind)]
    pub kind: String,
    /// The site that it is about.
    #[schema(required = true)]
    pub site: Option<String>,
    /// The service that it is about.
    #[schema(required = true, value_type = Option<ServiceName>)]
    pub service: Option<String>,
    /// The rollout that it belongs to, or that runs its hooks.
    #[schema(required = true)]
    pub rollout: Option<String>,
    /// The operation that it repeats.
    #[schema(required = true)]
    pub retry_of: Option<String>,
    /// The digest that a deploy sets; of a rollout's site the one that the service ran when the site was moved there, or
    /// asked there.
    #[schema(required = true)]
    pub digest: Option<String>,
    /// Where it is.
    #[schema(value_type = OperationStatus)]
    pub status: String,
    /// Its steps.
    pub steps: Vec<Step>,
    /// Why it waits, is parked or failed.
    #[schema(required = true)]
    pub reason: Option<Reason>,
    /// Whose request it was.
    pub requested_by: String,
    /// When it was accepted.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When a worker first had it.
    #[schema(required = true, format = DateTime)]
    pub started_at: Option<String>,
    /// When it ended.
    #[schema(required = true, format = DateTime)]
    pub finished_at: Option<String>,
}

/// One step.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Its name.
    pub name: String,
    /// Where it is.
    #[schema(value_type = StepState)]
    pub status: String,
    /// How often it was begun.
    pub attempts: u32,
    /// The job that does it.
    #[schema(required = true)]
    pub job: Option<String>,
    /// When it was begun.
    #[schema(required = true, format = DateTime)]
    pub started_at: Option<String>,
    /// When it was done.
    #[schema(required = true, format = DateTime)]
    pub finished_at: Option<String>,
    /// What there is to say.
    #[schema(required = true)]
    pub message: Option<String>,
}

/// Why something waits or is parked.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    /// The stable code.
    pub code: String,
    /// The particulars.
    pub message: String,
    /// Since when.
    #[schema(format = DateTime)]
    pub since: String,
    /// When it is given up, or tried again.
    #[schema(required = true, format = DateTime)]
    pub until: Option<String>,
    /// What clears it.
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
