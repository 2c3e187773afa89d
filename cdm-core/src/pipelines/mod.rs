//! What is done to a site, a colour and a fleet: one file per pipeline.
//!
//! Every step looks first and acts on what is missing, so that it can be begun again after a crash at any point of it.

mod create;
mod deploy;
mod draft;
mod jobs;
mod promote;
mod provision;
mod rollout;
mod route;
mod select;
mod terminate;
mod upgrade;

pub(crate) use draft::candidates;
pub use draft::{NewRollout, Scope, membership};
pub(crate) use rollout::NOT_FLUSHED;
pub use rollout::Rollouts;

use std::time::Duration;

use crate::domain::Site;
use crate::domain::operation::OperationState;
use crate::engine::{Record, Registry, StepContext, StepError, StepTimeouts};

/// What the pipelines have to know of the platform.
#[derive(Clone, Debug)]
pub struct PipelineSettings {
    /// The WordPress administrator's name on new sites.
    pub admin_user: String,
    /// The WordPress administrator's address on new sites.
    pub admin_email: String,
    /// How long a job may take before its operation is parked.
    pub job_patience: Duration,
    /// How many jobs may fail in a step before its operation is parked.
    pub job_tries: u32,
    /// How long an operation waits for a service to be ready before it is parked.
    pub ready_patience: Duration,
    /// How long an image may take to get ready where the platform does not give up by itself.
    pub image_patience: Duration,
    /// How often something that waits is looked at where no news comes.
    pub poll_interval: Duration,
    /// How long steps wait for a backend that does not serve them.
    pub timeout: StepTimeouts,
}

impl Default for PipelineSettings {
    fn default() -> Self {
        Self {
            admin_user: "admin".to_owned(),
            admin_email: "admin@example.com".to_owned(),
            job_patience: Duration::from_secs(900),
            job_tries: 3,
            ready_patience: Duration::from_secs(900),
            image_patience: Duration::from_secs(900),
            poll_interval: Duration::from_secs(5),
            timeout: StepTimeouts::default(),
        }
    }
}

/// Every pipeline that this version knows.
pub fn registry(platform: &PipelineSettings) -> Registry {
    Registry::new(vec![
        Box::new(create::Create::new(platform.clone())),
        Box::new(provision::Provision::new(platform.clone())),
        Box::new(upgrade::Upgrade::new(platform.clone())),
        Box::new(promote::Promote::new(platform.clone())),
        Box::new(terminate::Terminate),
        Box::new(deploy::Deploy::new(platform.clone())),
        Box::new(select::Select),
    ])
    .with_timeouts(platform.timeout.clone())
}

/// The site that a site's pipeline works on.
fn site<'a>(context: &StepContext<'a>) -> Result<&'a Site, StepError> {
    match context.record {
        Record::Site(site) => Ok(site),
        Record::Service(_) | Record::Fleet(_) => Err(StepError::Lost),
    }
}

/// Whether the operation waits neither for a person nor for anything else.
fn at_work(operation: &OperationState) -> bool {
    operation.status == crate::domain::Status::Running
}
