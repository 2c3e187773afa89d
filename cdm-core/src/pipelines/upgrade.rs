//! upgrade: `PatchService`, `FlushCaches`. The record changes its service, the route stays where it is.

use async_trait::async_trait;

use super::{PipelineSettings, jobs, site};
use crate::domain::operation::{Move, OperationState, Position};
use crate::domain::{Color, LockMode, OperationInput, OperationKind, ReasonCode, SiteChange};
use crate::engine::{Change, Pipeline, StepContext, StepError, StepOutput};
use crate::ports::JobKind;

#[derive(Debug)]
pub(super) struct Upgrade {
    platform: PipelineSettings,
}

impl Upgrade {
    pub(super) const fn new(platform: PipelineSettings) -> Self {
        Self { platform }
    }
}

/// From where to where a moving site goes.
pub(super) fn course(operation: &OperationState) -> Result<Move, StepError> {
    match operation.input {
        OperationInput::Upgrade(course) | OperationInput::Promote(course) => Ok(course),
        OperationInput::Create
        | OperationInput::Provision(_)
        | OperationInput::Terminate
        | OperationInput::Deploy(_)
        | OperationInput::Select(_) => Err(StepError::Lost),
    }
}

/// The record's service becomes `service`: a change of the record and nothing else.
pub(super) fn patch_service(service: Color) -> StepOutput {
    StepOutput::with(vec![Change::Site(SiteChange::Serve(service))])
}

/// Flushes the site's caches in the image that serves it.
pub(super) async fn flush_caches(
    context: &StepContext<'_>,
    platform: &PipelineSettings,
) -> Result<StepOutput, StepError> {
    let site = site(context)?;
    let service = site.routed_service().unwrap_or(site.service);
    let kind = JobKind::FlushCaches { uids: vec![site.uid] };
    jobs::job_step(context, platform, kind, service, ReasonCode::CacheFlushFailed).await
}

#[async_trait]
impl Pipeline for Upgrade {
    fn kind(&self) -> OperationKind {
        OperationKind::Upgrade
    }

    fn version(&self) -> u32 {
        1
    }

    fn steps(&self) -> &'static [&'static str] {
        &["PatchService", "FlushCaches"]
    }

    fn undo(&self) -> &'static [&'static str] {
        &["PatchService"]
    }

    fn cancellable(&self, _: usize) -> bool {
        true
    }

    fn lock(&self, _: &OperationState) -> Option<(Color, LockMode)> {
        None
    }

    async fn attempt(&self, context: &StepContext<'_>, at: Position) -> Result<StepOutput, StepError> {
        let course = course(context.operation)?;
        match at {
            Position::Forward(0) => Ok(patch_service(course.to)),
            Position::Forward(_) => flush_caches(context, &self.platform).await,
            Position::Undo(..) => Ok(patch_service(course.from)),
        }
    }
}
