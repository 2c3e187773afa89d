//! terminate: `RemoveIngress`, `DropDatabase`, `DeleteObjects`, `DeleteSecrets`; then the record goes, and with it the
//! claims on its hostnames.
//!
//! Data goes only after the route is gone. Every step is final for the site's uid, which is never used again: what a
//! late call of an earlier operation brings comes to nothing.

use async_trait::async_trait;

use super::{create, site};
use crate::domain::operation::{Position, Slot};
use crate::domain::{HoldMode, Kind, Selector, SiteChange};
use crate::engine::{Change, Context, Done, Pipeline, Stop};
use crate::ports::{ErrorKind, PortError};

#[derive(Debug)]
pub(super) struct Terminate;

/// How many pages one attempt deletes, so that a large site's deletion has step boundaries.
const PAGES: usize = 10;

async fn remove_ingress(context: &Context<'_>) -> Result<Done, Stop> {
    context.ports.cluster.release(&context.call()?, site(context)?.uid).await.applied()?;
    Ok(Done::with(vec![Change::Site(SiteChange::Unrouted)]))
}

async fn drop_database(context: &Context<'_>) -> Result<Done, Stop> {
    context.ports.databases.remove(&context.call()?, site(context)?.uid).await.applied()?;
    Ok(Done::default())
}

async fn delete_objects(context: &Context<'_>) -> Result<Done, Stop> {
    let prefix = site(context)?.prefix();
    for _ in 0..PAGES {
        let page = context.ports.objects.page(&prefix, None).await?;
        if page.keys.is_empty() {
            return Ok(Done::default());
        }
        let (half, ignored) = (crate::bug!(HalfDeletePage), crate::bug!(DeleteErrorsIgnored));
        let keys = if half { &page.keys[..page.keys.len() / 2] } else { &page.keys };
        let refused = context.ports.objects.delete(&context.call()?, &prefix, keys).await.applied()?;
        if ignored || (half && !page.more) {
            return Ok(Done::default());
        }
        if let Some((key, why)) = refused.into_iter().next() {
            let message = format!("`{key}` was not deleted: {why}");
            return Err(Stop::Again(PortError::new("objects", ErrorKind::Unavailable, message)));
        }
    }
    Err(Stop::Note(Vec::new()))
}

#[async_trait]
impl Pipeline for Terminate {
    fn kind(&self) -> Kind {
        Kind::Terminate
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

    fn hold(&self, _: &Slot) -> Option<(Selector, HoldMode)> {
        None
    }

    async fn attempt(&self, context: &Context<'_>, at: Position) -> Result<Done, Stop> {
        let Position::Forward(step) = at else { return Ok(Done::default()) };
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
