//! terminate: `RemoveIngress`, `DropDatabase`, `DeleteObjects`, `DeleteSecrets`; then the record goes, and with it the
//! claims on its hostnames.
//!
//! Data goes only after the route is gone. Every step is final for the site's uid, which is never used again: what a
//! late call of an earlier operation brings comes to nothing.

use async_trait::async_trait;

use super::{create, site};
use crate::domain::operation::{OperationState, Position};
use crate::domain::{Color, LockMode, OperationKind, SiteChange};
use crate::engine::{Change, Pipeline, StepContext, StepError, StepOutput};
use crate::ports::{ErrorKind, PortError};

#[derive(Debug)]
pub(super) struct Terminate;

/// How many pages one attempt deletes, so that a large site's deletion has step boundaries.
const PAGES: usize = 10;

async fn remove_ingress(context: &StepContext<'_>) -> Result<StepOutput, StepError> {
    context.ports.cluster.release(&context.call()?, site(context)?.uid).await.applied()?;
    Ok(StepOutput::with(vec![Change::Site(SiteChange::Unrouted)]))
}

async fn drop_database(context: &StepContext<'_>) -> Result<StepOutput, StepError> {
    context.ports.databases.remove(&context.call()?, site(context)?.uid).await.applied()?;
    Ok(StepOutput::default())
}

async fn delete_objects(context: &StepContext<'_>) -> Result<StepOutput, StepError> {
    let prefix = site(context)?.prefix();
    for _ in 0..PAGES {
        let page = context.ports.objects.page(&prefix, None).await?;
        if page.keys.is_empty() {
            return Ok(StepOutput::default());
        }
        let (half, ignored) = (crate::bug!(HalfDeletePage), crate::bug!(DeleteErrorsIgnored));
        let keys = if half { &page.keys[..page.keys.len() / 2] } else { &page.keys };
        let refused = context.ports.objects.delete(&context.call()?, &prefix, keys).await.applied()?;
        if ignored || (half && !page.more) {
            return Ok(StepOutput::default());
        }
        if let Some((key, why)) = refused.into_iter().next() {
            let message = format!("`{key}` was not deleted: {why}");
            return Err(StepError::Retry(PortError::new("objects", ErrorKind::Unavailable, message)));
        }
    }
    Err(StepError::PersistAndRetry(Vec::new()))
}

#[async_trait]
impl Pipeline for Terminate {
    fn kind(&self) -> OperationKind {
        OperationKind::Terminate
    }

    fn version(&self) -> u32 {
        1
    }

    fn steps(&self) -> &'static [&'static str] {
        &["RemoveIngress", "DropDatabase", "DeleteObjects", "DeleteSecrets"]
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

    async fn attempt(&self, context: &StepContext<'_>, at: Position) -> Result<StepOutput, StepError> {
        let Position::Forward(step) = at else { return Ok(StepOutput::default()) };
        if crate::bug!(DataBeforeRoute) {
            return match step {
                0 => drop_database(context).await,
                1 => remove_ingress(context).await,
                2 => delete_objects(context).await,
                _ => create::delete_secrets(context).await,
            };
        }
        match step {
            0 => remove_ingress(context).await,
            1 => drop_database(context).await,
            2 => delete_objects(context).await,
            _ => create::delete_secrets(context).await,
        }
    }
}
