//! terminate: removes a site for good. The end of the operation deletes the record and releases its hostnames.
//!
//! Data is deleted only after the route is gone. Each step is final for the site's uid, which is never used again: the
//! backends refuse a late call of an earlier operation.

use super::{create, site};
use crate::domain::{OperationKind, SiteChange};
use crate::engine::{Cancel, Change, Pipeline, Run, Step, StepContext, StepError, StepOutput, StepResult};
use crate::ports::{ErrorKind, PortError};

pub(super) const TERMINATE: Pipeline = Pipeline {
    kind: OperationKind::Terminate,
    version: 1,
    steps: &[
        step("RemoveIngress", Run::new(|context| Box::pin(remove_ingress(context)))),
        step("DropDatabase", Run::new(|context| Box::pin(drop_database(context)))),
        step("DeleteObjects", Run::new(|context| Box::pin(delete_objects(context)))),
        step("DeleteSecrets", Run::new(|context| Box::pin(create::delete_secrets(context)))),
    ],
};

const fn step(name: &'static str, run: Run) -> Step {
    Step { name, run, undo: None, lock: None, cancel: Cancel::Refused }
}

/// How many pages one attempt deletes. The deletion of a large site has step boundaries between them.
const PAGES: usize = 10;

async fn remove_ingress(context: &StepContext<'_>) -> StepResult {
    if crate::bug!(DataBeforeRoute) && context.operation.forward() == Some(0) {
        return remove_database(context).await;
    }
    context.ports.cluster.release(&context.call()?, site(context)?.uid).await.applied()?;
    Ok(StepOutput::with(vec![Change::Site(SiteChange::Unrouted)]))
}

async fn drop_database(context: &StepContext<'_>) -> StepResult {
    if crate::bug!(DataBeforeRoute) {
        return remove_ingress(context).await;
    }
    remove_database(context).await
}

async fn remove_database(context: &StepContext<'_>) -> StepResult {
    context.ports.databases.remove(&context.call()?, site(context)?.uid).await.applied()?;
    Ok(StepOutput::default())
}

async fn delete_objects(context: &StepContext<'_>) -> StepResult {
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
