//! Pointing a site's route: never to a service that is not ready, never over someone who came later.

use std::time::Duration;

use super::{PipelineSettings, site};
use crate::domain::{Color, Fence, ReasonCode, Routed, SiteChange};
use crate::engine::{Change, StepContext, StepError, StepOutput};
use crate::ports::{ErrorKind, Outcome, PortError, RouteSpec};

/// How long a live site's route may be out of sight.
const MISSING: Duration = Duration::from_secs(60);

/// Whether a route may be pointed to a service that is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// A route that is not there is created.
    Create,
    /// A live site has a route; that it is gone is for a person to judge.
    Park,
}

/// Makes one attempt at pointing the site's route to `to`.
///
/// It ends with a write of this operation's fence in any case, also where the route points to `to` already: so what
/// an earlier attempt or an earlier owner sent, and nobody heard of again, cannot arrive afterwards.
pub(super) async fn point(
    context: &StepContext<'_>,
    platform: &PipelineSettings,
    to: Color,
    missing: Missing,
) -> Result<StepOutput, StepError> {
    let site = site(context)?;
    let cluster = &context.ports.cluster;
    let fence = context.operation.fence();
    let done = |fence: Fence| {
        StepOutput::with(vec![Change::Site(SiteChange::Routed(Routed { service: to, fence }))])
    };
    match cluster.route(site.uid).await? {
        Some(route) if route.service == to && route.fence == fence => Ok(done(fence)),
        Some(route) => {
            if site.route.is_none_or(|confirmed| confirmed.fence != route.fence) {
                context.still_owner().await?;
            }
            if route.service != to {
                await_ready(context, platform, to).await?;
            }
            let call = context.call()?;
            let outcome = cluster.move_route(&call, site.uid, route.fence, to).await;
            if crate::bug!(RouteFenceIgnored)
                && matches!(&outcome, Outcome::NotApplied(error) if error.kind == ErrorKind::Conflict)
                && let Some(route) = cluster.route(site.uid).await?
            {
                cluster.move_route(&call, site.uid, route.fence, to).await.applied()?;
                return Ok(done(fence));
            }
            outcome.applied()?;
            Ok(done(fence))
        }
        // The view may lag; only a route that stays away is for a person to judge.
        None if missing == Missing::Park => Err(StepError::Wait {
            code: ReasonCode::Retrying,
            message: format!("the route of `{}` is not to be seen", site.id),
            timeout: MISSING,
            again: platform.poll_interval,
            changes: Vec::new(),
        }),
        None => {
            await_ready(context, platform, to).await?;
            let spec = RouteSpec {
                uid: site.uid,
                site: site.id.clone(),
                hostnames: site.hostnames.clone(),
                service: to,
            };
            match cluster.put_route(&context.call()?, &spec).await {
                // It was there after all; a later attempt sees it.
                Outcome::NotApplied(error) if error.kind == ErrorKind::Exists => {
                    Err(StepError::Retry(PortError { kind: ErrorKind::Conflict, ..error }))
                }
                outcome => outcome.applied().map(|()| done(fence)),
            }
        }
    }
}

/// The look immediately before the write.
async fn await_ready(
    context: &StepContext<'_>,
    platform: &PipelineSettings,
    to: Color,
) -> Result<(), StepError> {
    let view = context.ports.cluster.service(to).await?;
    if view.is_ready() || crate::bug!(RouteBeforeReady) {
        return Ok(());
    }
    let why = view.failure.map_or_else(String::new, |failure| format!(": {}", failure.message));
    Err(StepError::Wait {
        code: ReasonCode::ServiceNotReady,
        message: format!("`{to}` has {} of {} pods available{why}", view.available, view.desired),
        timeout: platform.ready_patience,
        again: platform.poll_interval,
        changes: Vec::new(),
    })
}
