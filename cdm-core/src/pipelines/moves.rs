//! Moves of a site to another service: upgrade changes the record alone, promote also the route.

use super::route::{self, Missing};
use super::{jobs, site};
use crate::domain::operation::{Move, OperationState};
use crate::domain::{Color, OperationInput, OperationKind, ReasonCode, SiteChange};
use crate::engine::{
    Cancel, Change, Lock, Pipeline, Run, Step, StepContext, StepError, StepOutput, StepResult, Undo,
};
use crate::ports::JobKind;

/// Assigns a site to another service. Its route stays where it is.
pub(crate) const UPGRADE: Pipeline =
    Pipeline { kind: OperationKind::Upgrade, version: 1, steps: &[PATCH_SERVICE, FLUSH_CACHES] };

/// Moves a site's route to another service, and assigns the site to it. A canceled one moves the route back first.
pub(crate) const PROMOTE: Pipeline = Pipeline {
    kind: OperationKind::Promote,
    version: 1,
    steps: &[
        Step {
            name: "PatchIngress",
            run: Run::new(|context| Box::pin(move_route(context))),
            undo: Some(Undo {
                name: "PatchIngress",
                run: Run::new(|context| Box::pin(move_route_back(context))),
                lock: Some(Lock::shared(|operation| Some(course(operation).ok()?.routed))),
            }),
            lock: Some(Lock::shared(|operation| Some(course(operation).ok()?.to))),
            cancel: Cancel::Allowed,
        },
        PATCH_SERVICE,
        FLUSH_CACHES,
    ],
};

const PATCH_SERVICE: Step = Step {
    name: "PatchService",
    run: Run::new(|context| Box::pin(async { Ok(assign(course(context.operation)?.to)) })),
    undo: Some(Undo {
        name: "PatchService",
        run: Run::new(|context| Box::pin(async { Ok(assign(course(context.operation)?.from)) })),
        lock: None,
    }),
    lock: None,
    cancel: Cancel::Allowed,
};

const FLUSH_CACHES: Step = Step {
    name: "FlushCaches",
    run: Run::new(|context| Box::pin(flush_caches(context))),
    undo: None,
    lock: None,
    cancel: Cancel::Allowed,
};

/// Returns the origin and the target of a move.
fn course(operation: &OperationState) -> Result<Move, StepError> {
    match operation.input {
        OperationInput::Upgrade(course) | OperationInput::Promote(course) => Ok(course),
        OperationInput::Create
        | OperationInput::Provision(_)
        | OperationInput::Terminate
        | OperationInput::Deploy(_)
        | OperationInput::Select(_) => Err(StepError::Lost),
    }
}

async fn move_route(context: &StepContext<'_>) -> StepResult {
    route::point(context, course(context.operation)?.to, Missing::Park).await
}

async fn move_route_back(context: &StepContext<'_>) -> StepResult {
    if crate::bug!(UndoLeavesRoute) {
        return Ok(StepOutput::default());
    }
    route::point(context, course(context.operation)?.routed, Missing::Park).await
}

/// Changes the service in the record, and nothing else.
fn assign(service: Color) -> StepOutput {
    StepOutput::with(vec![Change::Site(SiteChange::Serve(service))])
}

/// Flushes the site's caches in the image that serves the site.
async fn flush_caches(context: &StepContext<'_>) -> StepResult {
    let site = site(context)?;
    let service = site.routed_service().unwrap_or(site.service);
    let kind = JobKind::FlushCaches { uids: vec![site.uid] };
    jobs::job_step(context, kind, service, ReasonCode::CacheFlushFailed).await
}
