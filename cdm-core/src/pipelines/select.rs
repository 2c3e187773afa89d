//! select: `PatchCanaryEnv`. A colour becomes the active canary service, with the image that it runs.

use async_trait::async_trait;

use crate::domain::operation::{Position, Slot};
use crate::domain::{Digest, HoldMode, Kind, Selector, Task};
use crate::engine::{Context, Done, Pipeline, Stop};

#[derive(Debug)]
pub(super) struct Select;

/// Writes the canary's state, over the version that was just read.
pub(super) async fn patch_canary(
    context: &Context<'_>,
    selector: Selector,
    digest: Option<Digest>,
) -> Result<Done, Stop> {
    let cluster = &context.ports.cluster;
    let canary = cluster.canary().await?;
    if let Some(canary) = &canary
        && (canary.selector, canary.digest) == (selector, digest)
    {
        return Ok(Done::default());
    }
    let version = canary.map(|canary| canary.version);
    cluster.set_canary(&context.call()?, version.as_ref(), selector, digest).await.applied()?;
    Ok(Done::default())
}

#[async_trait]
impl Pipeline for Select {
    fn kind(&self) -> Kind {
        Kind::Select
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

    fn hold(&self, _: &Slot) -> Option<(Selector, HoldMode)> {
        None
    }

    async fn attempt(&self, context: &Context<'_>, _: Position) -> Result<Done, Stop> {
        let Task::Select(selector) = context.slot.task else { return Err(Stop::Lost) };
        let digest = context.ports.cluster.service(selector).await?.digest;
        patch_canary(context, selector, digest).await
    }
}
