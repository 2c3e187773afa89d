//! What an operation does to a site, a service or the fleet: one table of steps per kind of operation.
//!
//! Each step reads first and writes what is missing, so that it can start again after a crash at any point.

mod create;
mod deploy;
mod jobs;
mod moves;
mod new_rollout;
mod provision;
mod rollout;
mod route;
mod select;
mod terminate;

pub(crate) use moves::{PROMOTE, UPGRADE};
pub(crate) use new_rollout::candidates;
pub use new_rollout::{NewRollout, Scope, membership};
pub use rollout::Rollouts;
pub(crate) use rollout::{NOT_FLUSHED, member_steps};

use crate::domain::Site;
pub use crate::engine::PipelineSettings;
use crate::engine::{Record, Registry, StepContext, StepError};

/// Creates the registry of every pipeline that this version supports.
pub fn registry(settings: &PipelineSettings) -> Registry {
    let pipelines = vec![
        create::CREATE,
        provision::PROVISION,
        UPGRADE,
        PROMOTE,
        terminate::TERMINATE,
        deploy::DEPLOY,
        select::SELECT,
    ];
    Registry::new(pipelines, settings.clone())
}

/// Returns the site whose record contains the operation.
fn site<'a>(context: &StepContext<'a>) -> Result<&'a Site, StepError> {
    match context.record {
        Record::Site(site) => Ok(site),
        Record::Service(_) | Record::Fleet(_) => Err(StepError::Lost),
    }
}
