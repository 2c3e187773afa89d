//! select: makes a service the active canary, with the image that it runs.

use crate::domain::{Color, Digest, OperationInput, OperationKind};
use crate::engine::{Cancel, Pipeline, Run, Step, StepContext, StepError, StepOutput, StepResult};

pub(super) const SELECT: Pipeline = Pipeline {
    kind: OperationKind::Select,
    version: 1,
    steps: &[Step {
        name: "PatchCanaryEnv",
        run: Run::new(|context| Box::pin(select(context))),
        undo: None,
        lock: None,
        cancel: Cancel::Refused,
    }],
};

async fn select(context: &StepContext<'_>) -> StepResult {
    let OperationInput::Select(color) = context.operation.input else { return Err(StepError::Lost) };
    let digest = context.ports.cluster.service(color).await?.digest;
    patch_canary(context, color, digest).await
}

/// Writes the state of the canary over the version that was just read.
pub(super) async fn patch_canary(
    context: &StepContext<'_>,
    color: Color,
    digest: Option<Digest>,
) -> StepResult {
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
