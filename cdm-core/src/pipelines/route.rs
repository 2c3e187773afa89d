//! Moves of a site's route: never to a service that is not ready, never over the write of a later owner.
//!
//! Single promotes, bulk rollouts and rollouts with a health gate move routes by the same protocol: read the route,
//! check that the caller still owns the site, write with the fence that was read, and classify the result. Each move
//! ends with a write of the caller's fence, also where the route points to the service already, so that a request which
//! an earlier attempt or an earlier owner sent cannot arrive afterwards.

use std::time::Duration;

use super::site;
use crate::domain::{Color, Fence, ReasonCode, Routed, SiteChange, Uid};
use crate::engine::{Change, StepContext, StepError, StepOutput, StepResult};
use crate::ports::{CallContext, ErrorKind, Outcome, PortError, Ports, RouteSpec, ServiceView};

/// How long the route of a live site may be absent from the cluster's view before its operation is parked.
const MISSING: Duration = Duration::from_secs(60);

/// The owner of a move: it can lose the site to another worker.
pub(super) trait RouteOwner {
    /// The error of an owner that has lost the site.
    type Error;

    /// Verifies in the store that the site is still owned.
    async fn still_owner(&self) -> Result<(), Self::Error>;

    /// Returns the context of one write.
    fn call(&self, fence: Fence) -> Result<CallContext, Self::Error>;
}

/// The fence of a move's writes.
#[derive(Clone, Copy, Debug)]
pub(super) enum FenceRule {
    /// The same fence for each write: a route that carries it was moved by this claim.
    Fixed(Fence),
    /// A higher fence for each write, for a claim that moves a route forth and back.
    Above(Fence),
}

impl FenceRule {
    const fn next(self, current: Fence) -> Fence {
        match self {
            Self::Fixed(fence) => fence,
            Self::Above(fence) => fence.over(current),
        }
    }
}

/// Whether the service is checked immediately before the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// The route moves only to a ready service.
    Check,
    /// The caller has checked the service for many sites at once.
    Checked,
}

/// A move of one site's route.
#[derive(Debug)]
pub(super) struct RouteMover<'a, O> {
    pub(super) ports: &'a Ports,
    /// The owner of the move.
    pub(super) owner: &'a O,
    pub(super) uid: Uid,
    /// The service that the route should point to. `None`: the route stays where it is, and only its fence is replaced.
    pub(super) to: Option<Color>,
    /// The fence of the writes.
    pub(super) fence: FenceRule,
    /// Whether the service is checked before the write.
    pub(super) readiness: Readiness,
    /// The fence that the site's record names. A route that carries it was not written by a later owner.
    pub(super) confirmed: Option<Fence>,
}

/// The result of one attempt.
#[derive(Debug)]
pub(super) enum RouteResult {
    /// The route points where it should, with this claim's fence.
    Moved(Routed),
    /// The service is not ready; nothing was written.
    NotReady(Color, ServiceView),
    /// The cluster's view has no route. It may lag.
    Missing,
    /// The route carries another fence than it was read with.
    Conflict(PortError),
    /// A backend does not serve the call for the moment; nothing was written.
    Busy(PortError),
    /// A backend could not be read, for a reason that a retry does not change, or denies the write.
    Unreachable(PortError),
    /// The cluster rejects the write; nothing was written.
    Rejected(PortError),
    /// The outcome of the write is unknown; it would leave the route like this.
    Unknown(PortError, Routed),
}

impl<O: RouteOwner> RouteMover<'_, O> {
    /// Makes one attempt. `known` is the route as it was last confirmed; without it the cluster is read. `sent` is the
    /// route as an earlier attempt of unknown outcome would have left it.
    pub(super) async fn attempt(
        &self,
        known: Option<Routed>,
        sent: Option<Routed>,
    ) -> Result<RouteResult, O::Error> {
        let cluster = &self.ports.cluster;
        let current = match known {
            Some(known) => known,
            None => match cluster.route(self.uid).await {
                Ok(Some(route)) => Routed { service: route.service, fence: route.fence },
                Ok(None) => return Ok(RouteResult::Missing),
                Err(error) if error.is_retryable() => return Ok(RouteResult::Busy(error)),
                Err(error) => return Ok(RouteResult::Unreachable(error)),
            },
        };
        let service = self.to.unwrap_or(current.service);
        let next = Routed { service, fence: self.fence.next(current.fence) };
        if current == next || sent == Some(current) {
            return Ok(RouteResult::Moved(current));
        }
        if known.is_none() && self.confirmed != Some(current.fence) {
            self.owner.still_owner().await?;
        }
        if self.readiness == Readiness::Check && service != current.service {
            match cluster.service(service).await {
                Ok(view) if view.is_ready() || crate::bug!(RouteBeforeReady) => {}
                Ok(view) => return Ok(RouteResult::NotReady(service, view)),
                Err(error) if error.is_retryable() => return Ok(RouteResult::Busy(error)),
                Err(error) => return Ok(RouteResult::Unreachable(error)),
            }
        }
        let call = self.owner.call(next.fence)?;
        let outcome = cluster.move_route(&call, self.uid, current.fence, service).await;
        if crate::bug!(RouteFenceIgnored)
            && matches!(&outcome, Outcome::NotApplied(error) if error.kind == ErrorKind::Conflict)
            && let Ok(Some(route)) = cluster.route(self.uid).await
        {
            let forced = cluster.move_route(&call, self.uid, route.fence, service).await;
            return Ok(classify(forced, next));
        }
        Ok(classify(outcome, next))
    }
}

/// Classifies the outcome of a write that would leave the route like `next`.
fn classify(outcome: Outcome<()>, next: Routed) -> RouteResult {
    match outcome {
        Outcome::Applied(()) => RouteResult::Moved(next),
        Outcome::Unknown(error) => RouteResult::Unknown(error, next),
        Outcome::NotApplied(error) => match error.kind {
            ErrorKind::Conflict => RouteResult::Conflict(error),
            ErrorKind::Throttled(_) | ErrorKind::Unavailable | ErrorKind::Full => RouteResult::Busy(error),
            ErrorKind::Denied => RouteResult::Unreachable(error),
            ErrorKind::NotFound
            | ErrorKind::Exists
            | ErrorKind::Foreign
            | ErrorKind::Gone
            | ErrorKind::Invalid => RouteResult::Rejected(error),
        },
    }
}

impl RouteOwner for StepContext<'_> {
    type Error = StepError;

    async fn still_owner(&self) -> Result<(), StepError> {
        StepContext::still_owner(self).await
    }

    fn call(&self, _: Fence) -> Result<CallContext, StepError> {
        StepContext::call(self)
    }
}

/// The reaction of a step to a route that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// The route is created.
    Create,
    /// A live site has a route; one that stays absent is left to a person.
    Park,
}

/// Makes one attempt at pointing the site's route to `to`.
pub(super) async fn point(context: &StepContext<'_>, to: Color, missing: Missing) -> StepResult {
    let site = site(context)?;
    let fence = context.operation.fence();
    let mover = RouteMover {
        ports: context.ports,
        owner: context,
        uid: site.uid,
        to: Some(to),
        fence: FenceRule::Fixed(fence),
        readiness: Readiness::Check,
        confirmed: site.route.map(|route| route.fence),
    };
    let routed = match mover.attempt(None, None).await? {
        RouteResult::Moved(routed) => routed,
        RouteResult::NotReady(service, view) => return Err(not_ready(context, service, view)),
        RouteResult::Missing if missing == Missing::Create => create(context, to).await?,
        // The view may lag: only a route that stays absent is left to a person.
        RouteResult::Missing => {
            return Err(StepError::Wait {
                code: ReasonCode::Retrying,
                message: format!("the cluster shows no route of `{}`", site.id),
                timeout: MISSING,
                again: context.settings.poll_interval,
                changes: Vec::new(),
            });
        }
        RouteResult::Conflict(error)
        | RouteResult::Busy(error)
        | RouteResult::Unreachable(error)
        | RouteResult::Rejected(error) => return Err(error.into()),
        RouteResult::Unknown(error, _) => {
            Outcome::<(), _>::Unknown(error).applied()?;
            return Err(StepError::Lost);
        }
    };
    Ok(StepOutput::with(vec![Change::Site(SiteChange::Routed(routed))]))
}

/// Creates the site's route.
async fn create(context: &StepContext<'_>, to: Color) -> Result<Routed, StepError> {
    let (site, cluster) = (site(context)?, &context.ports.cluster);
    let view = cluster.service(to).await?;
    if !view.is_ready() && !crate::bug!(RouteBeforeReady) {
        return Err(not_ready(context, to, view));
    }
    let (hostnames, id) = (site.hostnames.clone(), site.id.clone());
    let spec = RouteSpec { uid: site.uid, site: id, hostnames, service: to };
    match cluster.put_route(&context.call()?, &spec).await {
        // The route exists, and a later attempt sees it.
        Outcome::NotApplied(error) if error.kind == ErrorKind::Exists => {
            Err(StepError::Retry(PortError { kind: ErrorKind::Conflict, ..error }))
        }
        outcome => {
            outcome.applied()?;
            Ok(Routed { service: to, fence: context.operation.fence() })
        }
    }
}

fn not_ready(context: &StepContext<'_>, service: Color, view: ServiceView) -> StepError {
    let why = view.failure.map_or_else(String::new, |failure| format!(": {}", failure.message));
    StepError::Wait {
        code: ReasonCode::ServiceNotReady,
        message: format!("`{service}` has {} of {} pods available{why}", view.available, view.desired),
        timeout: context.settings.ready_timeout,
        again: context.settings.poll_interval,
        changes: Vec::new(),
    }
}
