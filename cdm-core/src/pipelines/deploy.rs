//! deploy: `PatchImage`, `WaitReady`, `PatchCanaryEnv`, `Hooks`. An image that does not get ready is taken back, by
//! putting the whole previous template in its place.

use async_trait::async_trait;

use super::draft::{self, Scope};
use super::{PipelineSettings, select};
use crate::domain::operation::{self, Hooks, OperationState, Position, Previous};
use crate::domain::rollout::{Budget, RolloutKind, RolloutScope};
use crate::domain::{
    Color, LockMode, OperationInput, OperationKind, ReasonCode, Release, Service, ServiceChange, Status,
    Verdict,
};
use crate::engine::{Change, Pipeline, Record, StepContext, StepError, StepOutput};
use crate::ports::{ErrorKind, ImageWant, Outcome, PortError, ServiceView, WriteError};

#[derive(Debug)]
pub(super) struct Deploy {
    platform: PipelineSettings,
}

fn service<'a>(context: &StepContext<'a>) -> Result<&'a Service, StepError> {
    match context.record {
        Record::Service(service) => Ok(service),
        Record::Site(_) | Record::Fleet(_) => Err(StepError::Lost),
    }
}

fn task<'a>(context: &StepContext<'a>) -> Result<&'a operation::Deploy, StepError> {
    match &context.operation.input {
        OperationInput::Deploy(deploy) => Ok(deploy),
        _ => Err(StepError::Lost),
    }
}

impl Deploy {
    pub(super) const fn new(platform: PipelineSettings) -> Self {
        Self { platform }
    }

    /// Keeps what runs, then sets the digest over exactly that.
    async fn patch_image(&self, context: &StepContext<'_>) -> Result<StepOutput, StepError> {
        let deploy = task(context)?;
        let view = context.ports.cluster.service(deploy.color).await?;
        let ours = view.fence.number == context.operation.number;
        if ours && view.digest == Some(deploy.digest) && view.fence.epoch == context.operation.epoch {
            return Ok(self.released(context, deploy));
        }
        match &deploy.previous {
            Some(previous) if ours || previous.fence == view.fence => {}
            // Not looked at yet, or changed since by someone else: what is there now is what is to be put back.
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
        Ok(self.released(context, deploy))
    }

    fn released(&self, context: &StepContext<'_>, deploy: &operation::Deploy) -> StepOutput {
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

    async fn wait_ready(&self, context: &StepContext<'_>) -> Result<StepOutput, StepError> {
        let deploy = task(context)?;
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
            let verdict = ServiceChange::Judged {
                digest: deploy.digest,
                verdict: Verdict::Bad,
                reason: message.clone(),
            };
            let known = service(context)?.releases.iter().find(|release| release.digest == deploy.digest);
            let judged = known.is_some_and(|release| release.verdict == Verdict::Bad);
            let has_previous = deploy.previous.as_ref().is_some_and(|previous| previous.template.is_some());
            return Err(match (has_previous, judged) {
                (true, _) => {
                    StepError::Fail(ReasonCode::ImageNotReady, message, vec![Change::Service(verdict)])
                }
                (false, false) => StepError::PersistAndRetry(vec![Change::Service(verdict)]),
                (false, true) => StepError::Park(ReasonCode::ImageNotReady, message),
            });
        }
        Err(StepError::Wait {
            code: ReasonCode::RollingOut,
            message: progress(&view),
            timeout: self.platform.image_patience,
            again: self.platform.poll_interval,
            changes: Vec::new(),
        })
    }

    async fn patch_canary_env(&self, context: &StepContext<'_>) -> Result<StepOutput, StepError> {
        let deploy = task(context)?;
        let active = context.ports.cluster.canary().await?.map_or(Color::Blue, |canary| canary.color);
        if active == deploy.color {
            select::patch_canary(context, deploy.color, Some(deploy.digest)).await
        } else {
            Ok(StepOutput::saying(format!("`{}` is not the active canary", deploy.color)))
        }
    }

    /// Starts the rollout that runs the hooks. The deploy ends with its start: a rollout that halts must not keep the
    /// next deploy, which may be the one that mends it, from this colour.
    async fn hooks(&self, context: &StepContext<'_>) -> Result<StepOutput, StepError> {
        let deploy = task(context)?;
        if deploy.hooks == Hooks::Skip {
            return Ok(StepOutput::saying("left to the rollout that asked for this deploy"));
        }
        let store = &context.ports.store;
        if let Some(number) = deploy.rollout
            && store.rollout(number).await?.is_some()
        {
            return Ok(StepOutput::saying(format!("rollout {number}")));
        }
        let members = draft::membership(context.ports, &Scope::Service(deploy.color)).await?;
        if members.is_empty() {
            return Ok(StepOutput::saying("no site on this service"));
        }
        let Some(number) = deploy.rollout else { return Err(draw_rollout(context).await) };
        let kind = if deploy.promote { RolloutKind::Promote } else { RolloutKind::Flush };
        let first_number = match store.allocate_ids(&context.call()?, draft::count(&members)).await {
            Outcome::Applied(first) => first,
            Outcome::NotApplied(refused) | Outcome::Unknown(refused) => return Err(store_stop(&refused)),
        };
        let draft = draft::NewRollout {
            gate: None,
            bake: std::time::Duration::ZERO,
            number,
            kind,
            target: deploy.color,
            digest: Some(deploy.digest),
            scope: RolloutScope::Service(deploy.color),
            members,
            waves: Vec::new(),
            max_concurrent: draft::MAX_CONCURRENT,
            budget: Budget::Percent(100),
            auto_rollback: false,
            after: None,
            retry_of: None,
            first_number,
            requested_by: context.operation.requested_by.clone(),
            now: context.now,
        };
        let (pages, mut batch) =
            draft.batches().map_err(|error| StepError::Park(ReasonCode::Invalid, error.to_string()))?;
        if kind.moves() {
            let fleet = store.fleet().await?;
            if let Some(other) = fleet.rollout.filter(|other| *other != number) {
                return Err(StepError::Wait {
                    code: ReasonCode::ServiceLocked,
                    message: format!("rollout {other} moves sites"),
                    timeout: std::time::Duration::from_secs(86_400),
                    again: self.platform.poll_interval,
                    changes: Vec::new(),
                });
            }
            // Another has come and gone since the number was drawn, and sites would take this one's grants for older.
            if number < fleet.newest {
                return Err(draw_rollout(context).await);
            }
            let marked = crate::domain::Fleet { rollout: Some(number), newest: number, ..fleet };
            batch.writes.push(crate::ports::Mutation::Fleet(Box::new(marked)));
        }
        for batch in pages.iter().chain([&batch]) {
            match store.write(&context.call()?, batch).await {
                Outcome::Applied(()) => {}
                Outcome::NotApplied(refused) | Outcome::Unknown(refused) => return Err(store_stop(&refused)),
            }
        }
        Ok(StepOutput::saying(format!("rollout {number}")))
    }

    async fn restore_image(&self, context: &StepContext<'_>) -> Result<StepOutput, StepError> {
        let deploy = task(context)?;
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
}

/// Draws the number of the rollout that runs the hooks, and has it written down before it is used.
async fn draw_rollout(context: &StepContext<'_>) -> StepError {
    let call = match context.call() {
        Ok(call) => call,
        Err(stop) => return stop,
    };
    match context.ports.store.allocate_ids(&call, 1).await {
        Outcome::Applied(number) => StepError::PersistAndRetry(vec![Change::Rollout(number)]),
        Outcome::NotApplied(refused) | Outcome::Unknown(refused) => store_stop(&refused),
    }
}

fn progress(view: &ServiceView) -> String {
    let why = view.failure.as_ref().map_or_else(String::new, |failure| format!(": {}", failure.message));
    format!("{} of {} pods updated, {} available{why}", view.updated, view.desired, view.available)
}

/// What a store's refusal means inside a step: it is looked at again.
fn store_stop(refused: &WriteError) -> StepError {
    match refused {
        WriteError::Store(error) => StepError::from(error.clone()),
        other => StepError::Retry(PortError::new("store", ErrorKind::Conflict, other.to_string())),
    }
}

#[async_trait]
impl Pipeline for Deploy {
    fn kind(&self) -> OperationKind {
        OperationKind::Deploy
    }

    fn version(&self) -> u32 {
        1
    }

    fn steps(&self) -> &'static [&'static str] {
        &["PatchImage", "WaitReady", "PatchCanaryEnv", "Hooks"]
    }

    fn undo(&self) -> &'static [&'static str] {
        &["RestoreImage"]
    }

    /// Until the image is ready; afterwards a rollback is a deploy of its own.
    fn cancellable(&self, step: usize) -> bool {
        step < 2
    }

    fn lock(&self, operation: &OperationState) -> Option<(Color, LockMode)> {
        let OperationInput::Deploy(deploy) = &operation.input else { return None };
        let changing = matches!(operation.position, Position::Forward(0 | 1) | Position::Undo(0, _));
        let going = matches!(operation.status, Status::Running | Status::Waiting);
        // An operation that waits for this very hold does not have it.
        let waits = operation.reason.as_ref().is_some_and(|reason| reason.code == ReasonCode::ServiceLocked)
            && !going_on(operation);
        (changing && going && !waits).then_some((deploy.color, LockMode::Exclusive))
    }

    async fn attempt(&self, context: &StepContext<'_>, at: Position) -> Result<StepOutput, StepError> {
        match at {
            Position::Forward(0) => self.patch_image(context).await,
            Position::Forward(1) => self.wait_ready(context).await,
            Position::Forward(2) => self.patch_canary_env(context).await,
            Position::Forward(_) => self.hooks(context).await,
            Position::Undo(..) => self.restore_image(context).await,
        }
    }
}

fn going_on(operation: &OperationState) -> bool {
    operation.status == Status::Running
}
