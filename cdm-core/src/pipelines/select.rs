//! select: `PatchCanaryEnv`. A colour becomes the active canary service, with the image that it runs.

use async_trait::async_trait;

use crate::domain::operation::{OperationState, Position};
use crate::domain::{Color, Digest, LockMode, OperationInput, OperationKind};
use crate::engine::{Pipeline, StepContext, StepError, StepOutput};

#[derive(Debug)]
pub(super) struct Select;

/// Writes the canary's state, over the version that was just read.
pub(super) async fn patch_canary(
    context: &StepContext<'_>,
    color: Color,
    digest: Option<Digest>,
) -> Result<StepOutput, StepError> {
    let cluster = &context.ports.cluster;
    let canary = cluster.canary().await?;
    if let Some(canary) = &canary
        && (canary.color, canary.digest) == (color, digest)
    {
        return Ok(StepOutput::default());
    }
    let version = canary.map(|canary| canary.version);
    cluster.set_canary(&context.call()?, version.as_ref(), color, digest).await.applied()?;
    Ok(StepOutput::default())
}

#[async_trait]
impl Pipeline for Select {
    fn kind(&self) -> OperationKind {
        OperationKind::Select
    }

    fn version(&self) -> u32 {
        1
    }

    fn steps(&self) -> &'static [&'static str] {
        &["PatchCanaryEnv"]
    }

    fn undo(&self) -> &'static [&'static str] {
        &[]
    }

    fn cancellable(&self, _: usize) -> bool {
        false
    }

    fn lock(&self, _: &OperationState) -> Option<(Color, LockMode)> {
        None
    }

    async fn attempt(&self, context: &StepContext<'_>, _: Position) -> Result<StepOutput, StepError> {
        let OperationInput::Select(color) = context.operation.input else { return Err(StepError::Lost) };
        let digest = context.ports.cluster.service(color).await?.digest;
        patch_canary(context, color, digest).await
    }
}
