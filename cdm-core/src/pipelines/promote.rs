//! promote: `PatchIngress`, `PatchService`, `FlushCaches`. A cancelled one moves the route back first.

use async_trait::async_trait;

use super::route::{Missing, point};
use super::upgrade::{course, flush_caches, patch_service};
use super::{PipelineSettings, at_work};
use crate::domain::operation::{OperationState, Position};
use crate::domain::{Color, LockMode, OperationKind};
use crate::engine::{Pipeline, StepContext, StepError, StepOutput};

#[derive(Debug)]
pub(super) struct Promote {
    platform: PipelineSettings,
}

impl Promote {
    pub(super) const fn new(platform: PipelineSettings) -> Self {
        Self { platform }
    }
}

#[async_trait]
impl Pipeline for Promote {
    fn kind(&self) -> OperationKind {
        OperationKind::Promote
    }

    fn version(&self) -> u32 {
        1
    }

    fn steps(&self) -> &'static [&'static str] {
        &["PatchIngress", "PatchService", "FlushCaches"]
    }

    fn undo(&self) -> &'static [&'static str] {
        &["PatchIngress", "PatchService"]
    }

    fn cancellable(&self, _: usize) -> bool {
        true
    }

    fn lock(&self, operation: &OperationState) -> Option<(Color, LockMode)> {
        let course = course(operation).ok()?;
        match operation.position {
            Position::Forward(0) if at_work(operation) => Some((course.to, LockMode::Shared)),
            Position::Undo(0, _) if at_work(operation) => Some((course.routed, LockMode::Shared)),
            Position::Forward(_) | Position::Undo(..) => None,
        }
    }

    async fn attempt(&self, context: &StepContext<'_>, at: Position) -> Result<StepOutput, StepError> {
        let course = course(context.operation)?;
        match at {
            Position::Forward(0) => point(context, &self.platform, course.to, Missing::Park).await,
            Position::Forward(1) => Ok(patch_service(course.to)),
            Position::Forward(_) => flush_caches(context, &self.platform).await,
            Position::Undo(0, _) if crate::bug!(UndoLeavesRoute) => Ok(StepOutput::default()),
            Position::Undo(0, _) => point(context, &self.platform, course.routed, Missing::Park).await,
            Position::Undo(..) => Ok(patch_service(course.from)),
        }
    }
}
