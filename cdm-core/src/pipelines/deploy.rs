//! deploy: sets an image on a service. If the image does not get ready, the previous template is restored as a whole.

use super::new_rollout::{self, Scope};
use super::select;
use crate::domain::operation::{self, Hooks, OperationState, Previous};
use crate::domain::rollout::{Budget, RolloutKind, RolloutScope, RolloutSpec};
use crate::domain::{
    Color, OperationInput, OperationKind, ReasonCode, Release, Service, ServiceChange, Verdict,
};
use crate::engine::{
    Cancel, Change, Lock, Pipeline, Record, Run, Step, StepContext, StepError, StepOutput, StepResult, Undo,
};
use crate::ports::{ErrorKind, ImageWant, Outcome, PortError, ServiceView, WriteError};

/// Until the image is ready, the service is locked and the deploy can be canceled; a later rollback is a separate
/// deploy.
pub(super) const DEPLOY: Pipeline = Pipeline {
    kind: OperationKind::Deploy,
    version: 1,
    steps: &[
        Step {
            name: "PatchImage",
            run: Run::new(|context| Box::pin(patch_image(context))),
            undo: Some(Undo {
                name: "RestoreImage",
                run: Run::new(|context| Box::pin(restore_image(context))),
                lock: Some(Lock::exclusive(color)),
            }),
            lock: Some(Lock::exclusive(color)),
            cancel: Cancel::Allowed,
        },
        Step {
            name: "WaitReady",
            run: Run::new(|context| Box::pin(wait_ready(context))),
            undo: None,
            lock: Some(Lock::exclusive(color)),
            cancel: Cancel::Allowed,
        },
        Step {
            name: "PatchCanaryEnv",
            run: Run::new(|context| Box::pin(patch_canary_env(context))),
            undo: None,
            lock: None,
            cancel: Cancel::Refused,
        },
        Step {
            name: HOOKS,
            run: Run::new(|context| Box::pin(hooks(context))),
            undo: None,
            lock: None,
            cancel: Cancel::Refused,
        },
    ],
};

/// The step that a deploy of a rollout skips, since the rollout does the same.
pub(super) const HOOKS: &str = "Hooks";

fn color(operation: &OperationState) -> Option<Color> {
    match &operation.input {
        OperationInput::Deploy(deploy) => Some(deploy.color),
        _ => None,
    }
}

fn service<'a>(context: &StepContext<'a>) -> Result<&'a Service, StepError> {
    match context.record {
        Record::Service(service) => Ok(service),
        Record::Site(_) | Record::Fleet(_) => Err(StepError::Lost),
    }
}

fn input<'a>(context: &StepContext<'a>) -> Result<&'a operation::Deploy, StepError> {
    match &context.operation.input {
        OperationInput::Deploy(deploy) => Ok(deploy),
        _ => Err(StepError::Lost),
    }
}

/// Stores the present state of the service, then sets the digest, provided that the state has not changed since.
async fn patch_image(context: &StepContext<'_>) -> StepResult {
    let deploy = input(context)?;
    let view = context.ports.cluster.service(deploy.color).await?;
    let ours = view.fence.number == context.operation.number;
    if ours && view.digest == Some(deploy.digest) && view.fence.epoch == context.operation.epoch {
        return Ok(released(context, deploy));
    }
    match &deploy.previous {
        Some(previous) if ours || previous.fence == view.fence => {}
        // Not read yet, or changed since by another writer: a failed deploy restores the present state.
        Some(_) | None => {
            let replaced = ServiceChange::Replaced {
                previous: view.digest,
                was_ready: view.is_ready(),
                at: context.now,
                by: context.operation.requested_by.clone(),
                rolled_back: deploy.rolls_back,
            };
            let previous =
                Previous { fence: view.fence, template: view.template.clone(), digest: view.digest };
            return Err(StepError::PersistAndRetry(vec![
                Change::Previous(previous),
                Change::Service(replaced),
            ]));
        }
    }
    if ours {
        context.still_owner().await?;
    }
    let intent = ImageWant::Digest(deploy.digest);
    let call = context.call()?;
    context.ports.cluster.set_image(&call, deploy.color, view.fence, &intent).await.applied()?;
    Ok(released(context, deploy))
}

fn released(context: &StepContext<'_>, deploy: &operation::Deploy) -> StepOutput {
    StepOutput::with(vec![Change::Service(ServiceChange::Released(Release {
        digest: deploy.digest,
        at: context.now,
        by: context.operation.requested_by.clone(),
        number: context.operation.number,
        verdict: Verdict::Unknown,
        reason: None,
        ready_at: None,
    }))])
}

async fn wait_ready(context: &StepContext<'_>) -> StepResult {
    let deploy = input(context)?;
    let view = context.ports.cluster.service(deploy.color).await?;
    let stale = view.fence.number != context.operation.number;
    if view.is_ready() && view.digest == Some(deploy.digest) && !stale {
        return Ok(StepOutput::with(vec![Change::Service(ServiceChange::Ready(context.now))]));
    }
    if let Some(failure) = view.failure.as_ref().filter(|failure| failure.definite && !stale) {
        let message = failure.message.clone();
        if !failure.blames_image {
            return Err(StepError::Park(ReasonCode::ImageNotReady, message));
        }
        let verdict =
            ServiceChange::Judged { digest: deploy.digest, verdict: Verdict::Bad, reason: message.clone() };
        let known = service(context)?.releases.iter().find(|release| release.digest == deploy.digest);
        let judged = known.is_some_and(|release| release.verdict == Verdict::Bad);
        let has_previous = deploy.previous.as_ref().is_some_and(|previous| previous.template.is_some());
        return Err(match (has_previous, judged) {
            (true, _) => StepError::Fail(ReasonCode::ImageNotReady, message, vec![Change::Service(verdict)]),
            (false, false) => StepError::PersistAndRetry(vec![Change::Service(verdict)]),
            (false, true) => StepError::Park(ReasonCode::ImageNotReady, message),
        });
    }
    Err(StepError::Wait {
        code: ReasonCode::RollingOut,
        message: progress(&view),
        timeout: context.settings.image_timeout,
        again: context.settings.poll_interval,
        changes: Vec::new(),
    })
}

async fn patch_canary_env(context: &StepContext<'_>) -> StepResult {
    let deploy = input(context)?;
    let active = context.ports.cluster.canary().await?.map_or(Color::Blue, |canary| canary.color);
    if active == deploy.color {
        select::patch_canary(context, deploy.color, Some(deploy.digest)).await
    } else {
        Ok(StepOutput::message(format!("`{}` is not the active canary", deploy.color)))
    }
}

/// Starts the rollout that runs the hooks. The deploy ends once the rollout has started: a rollout that halts must not
/// block the next deploy to this service, which can contain the fix.
async fn hooks(context: &StepContext<'_>) -> StepResult {
    let deploy = input(context)?;
    if deploy.hooks == Hooks::Skip {
        return Ok(StepOutput::message("left to the rollout that requested this deploy"));
    }
    let store = &context.ports.store;
    if let Some(number) = deploy.rollout
        && store.rollout(number).await?.is_some()
    {
        return Ok(StepOutput::message(format!("rollout {number}")));
    }
    let members = new_rollout::membership(context.ports, &Scope::Service(deploy.color)).await?;
    if members.is_empty() {
        return Ok(StepOutput::message("no site on this service"));
    }
    let Some(number) = deploy.rollout else { return Err(allocate_rollout(context).await) };
    let kind = if deploy.promote { RolloutKind::Promote } else { RolloutKind::Flush };
    let first_number = match store.allocate_ids(&context.call()?, new_rollout::count(&members)).await {
        Outcome::Applied(first) => first,
        Outcome::NotApplied(error) | Outcome::Unknown(error) => return Err(store_error(&error)),
    };
    let rollout = new_rollout::NewRollout {
        number,
        spec: RolloutSpec {
            kind,
            digest: Some(deploy.digest),
            scope: RolloutScope::Service(deploy.color),
            budget: Budget::Percent(100),
            ..RolloutSpec::default()
        },
        target: deploy.color,
        members,
        after: None,
        retry_of: None,
        first_number,
        requested_by: context.operation.requested_by.clone(),
        now: context.now,
    };
    let (pages, mut batch) =
        rollout.batches().map_err(|error| StepError::Park(ReasonCode::Invalid, error.to_string()))?;
    if kind.moves() {
        let fleet = store.fleet().await?;
        if let Some(other) = fleet.rollout.filter(|other| *other != number) {
            return Err(StepError::Wait {
                code: ReasonCode::ServiceLocked,
                message: format!("rollout {other} is moving sites"),
                timeout: std::time::Duration::from_secs(86_400),
                again: context.settings.poll_interval,
                changes: Vec::new(),
            });
        }
        // Another rollout has ended since the number was allocated. Sites would reject the claims of a lower number.
        if number < fleet.newest {
            return Err(allocate_rollout(context).await);
        }
        let marked = crate::domain::Fleet { rollout: Some(number), newest: number, ..fleet };
        batch.writes.push(crate::ports::Mutation::Fleet(Box::new(marked)));
    }
    for batch in pages.iter().chain([&batch]) {
        match store.write(&context.call()?, batch).await {
            Outcome::Applied(()) => {}
            Outcome::NotApplied(error) | Outcome::Unknown(error) => return Err(store_error(&error)),
        }
    }
    Ok(StepOutput::message(format!("rollout {number}")))
}

async fn restore_image(context: &StepContext<'_>) -> StepResult {
    let deploy = input(context)?;
    let Some(previous) = &deploy.previous else { return Ok(StepOutput::default()) };
    let Some(template) = previous.template.clone().filter(|_| !crate::bug!(FailedImageStays)) else {
        return Ok(StepOutput::default());
    };
    let view = context.ports.cluster.service(deploy.color).await?;
    if view.fence != context.operation.fence() {
        context.still_owner().await?;
        let intent = ImageWant::Template(template);
        let call = context.call()?;
        context.ports.cluster.set_image(&call, deploy.color, view.fence, &intent).await.applied()?;
    }
    Ok(StepOutput::with(vec![Change::Service(ServiceChange::Restored(previous.digest))]))
}

/// Allocates the number of the rollout that runs the hooks. The number is stored before it is used.
async fn allocate_rollout(context: &StepContext<'_>) -> StepError {
    let call = match context.call() {
        Ok(call) => call,
        Err(error) => return error,
    };
    match context.ports.store.allocate_ids(&call, 1).await {
        Outcome::Applied(number) => StepError::PersistAndRetry(vec![Change::Rollout(number)]),
        Outcome::NotApplied(error) | Outcome::Unknown(error) => store_error(&error),
    }
}

fn progress(view: &ServiceView) -> String {
    let why = view.failure.as_ref().map_or_else(String::new, |failure| format!(": {}", failure.message));
    format!("{} of {} pods updated, {} available{why}", view.updated, view.desired, view.available)
}

/// Returns the error of a step whose write failed: the step is attempted again.
fn store_error(error: &WriteError) -> StepError {
    match error {
        WriteError::Store(error) => StepError::from(error.clone()),
        other => StepError::Retry(PortError::new("store", ErrorKind::Conflict, other.to_string())),
    }
}
