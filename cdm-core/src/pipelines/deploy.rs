//! deploy: `PatchImage`, `WaitReady`, `PatchCanaryEnv`, `Hooks`. An image that does not get ready is taken back, by
//! putting the whole previous template in its place.

use async_trait::async_trait;

use super::draft::{self, Scope};
use super::{Platform, select};
use crate::domain::operation::{self, Hooks, Position, Previous, Slot};
use crate::domain::rollout::{Budget, RolloutKind, RolloutScope};
use crate::domain::{Code, Colour, ColourChange, HoldMode, Kind, Release, Selector, Status, Task, Verdict};
use crate::engine::{Change, Context, Done, Pipeline, Record, Stop};
use crate::ports::{ErrorKind, ImageWant, Outcome, PortError, Refused, ServiceView};

#[derive(Debug)]
pub(super) struct Deploy {
    platform: Platform,
}

fn colour<'a>(context: &Context<'a>) -> Result<&'a Colour, Stop> {
    match context.record {
        Record::Colour(colour) => Ok(colour),
        Record::Site(_) | Record::Fleet(_) => Err(Stop::Lost),
    }
}

fn task<'a>(context: &Context<'a>) -> Result<&'a operation::Deploy, Stop> {
    match &context.slot.task {
        Task::Deploy(deploy) => Ok(deploy),
        _ => Err(Stop::Lost),
    }
}

impl Deploy {
    pub(super) const fn new(platform: Platform) -> Self {
        Self { platform }
    }

    /// Keeps what runs, then sets the digest over exactly that.
    async fn patch_image(&self, context: &Context<'_>) -> Result<Done, Stop> {
        let deploy = task(context)?;
        let view = context.ports.cluster.service(deploy.selector).await?;
        let ours = view.fence.number == context.slot.number;
        if ours && view.digest == Some(deploy.digest) && view.fence.epoch == context.slot.epoch {
            return Ok(self.released(context, deploy));
        }
        match &deploy.previous {
            Some(previous) if ours || previous.fence == view.fence => {}
            // Not looked at yet, or changed since by someone else: what is there now is what is to be put back.
            Some(_) | None => {
                let replaced = ColourChange::Replaced {
                    previous: view.digest,
                    was_ready: view.is_ready(),
                    at: context.now,
                    by: context.slot.requested_by.clone(),
                    rolled_back: deploy.rolls_back,
                };
                let previous =
                    Previous { fence: view.fence, template: view.template.clone(), digest: view.digest };
                return Err(Stop::Note(vec![Change::Previous(previous), Change::Colour(replaced)]));
            }
        }
        if ours {
            context.still_owner().await?;
        }
        let want = ImageWant::Digest(deploy.digest);
        let call = context.call()?;
        context.ports.cluster.set_image(&call, deploy.selector, view.fence, &want).await.applied()?;
        Ok(self.released(context, deploy))
    }

    fn released(&self, context: &Context<'_>, deploy: &operation::Deploy) -> Done {
        Done::with(vec![Change::Colour(ColourChange::Released(Release {
            digest: deploy.digest,
            at: context.now,
            by: context.slot.requested_by.clone(),
            number: context.slot.number,
            verdict: Verdict::Unknown,
            reason: None,
            ready_at: None,
        }))])
    }

    async fn wait_ready(&self, context: &Context<'_>) -> Result<Done, Stop> {
        let deploy = task(context)?;
        let view = context.ports.cluster.service(deploy.selector).await?;
        let stale = view.fence.number != context.slot.number;
        if view.is_ready() && view.digest == Some(deploy.digest) && !stale {
            return Ok(Done::with(vec![Change::Colour(ColourChange::Ready(context.now))]));
        }
        if let Some(failure) = view.failure.as_ref().filter(|failure| failure.definite && !stale) {
            let message = failure.message.clone();
            if !failure.blames_image {
                return Err(Stop::Park(Code::ImageNotReady, message));
            }
            let verdict = ColourChange::Judged {
                digest: deploy.digest,
                verdict: Verdict::Bad,
                reason: message.clone(),
            };
            let known = colour(context)?.releases.iter().find(|release| release.digest == deploy.digest);
            let judged = known.is_some_and(|release| release.verdict == Verdict::Bad);
            let has_previous = deploy.previous.as_ref().is_some_and(|previous| previous.template.is_some());
            return Err(match (has_previous, judged) {
                (true, _) => Stop::Fail(Code::ImageNotReady, message, vec![Change::Colour(verdict)]),
                (false, false) => Stop::Note(vec![Change::Colour(verdict)]),
                (false, true) => Stop::Park(Code::ImageNotReady, message),
            });
        }
        Err(Stop::Wait {
            code: Code::RollingOut,
            message: progress(&view),
            patience: self.platform.image_patience,
            again: self.platform.look_again,
            changes: Vec::new(),
        })
    }

    async fn patch_canary_env(&self, context: &Context<'_>) -> Result<Done, Stop> {
        let deploy = task(context)?;
        let active = context.ports.cluster.canary().await?.map_or(Selector::Blue, |canary| canary.selector);
        if active == deploy.selector {
            select::patch_canary(context, deploy.selector, Some(deploy.digest)).await
        } else {
            Ok(Done::saying(format!("`{}` is not the active canary", deploy.selector)))
        }
    }

    /// Starts the rollout that runs the hooks. The deploy ends with its start: a rollout that halts must not keep the
    /// next deploy, which may be the one that mends it, from this colour.
    async fn hooks(&self, context: &Context<'_>) -> Result<Done, Stop> {
        let deploy = task(context)?;
        if deploy.hooks == Hooks::Skip {
            return Ok(Done::saying("left to the rollout that asked for this deploy"));
        }
        let store = &context.ports.store;
        if let Some(number) = deploy.rollout
            && store.rollout(number).await?.is_some()
        {
            return Ok(Done::saying(format!("rollout {number}")));
        }
        let members = draft::membership(context.ports, &Scope::Service(deploy.selector)).await?;
        if members.is_empty() {
            return Ok(Done::saying("no site on this service"));
        }
        let Some(number) = deploy.rollout else { return Err(draw_rollout(context).await) };
        let kind = if deploy.promote { RolloutKind::Promote } else { RolloutKind::Flush };
        let first_number = match store.numbers(&context.call()?, draft::count(&members)).await {
            Outcome::Applied(first) => first,
            Outcome::NotApplied(refused) | Outcome::Unknown(refused) => return Err(store_stop(&refused)),
        };
        let draft = draft::Draft {
            gate: None,
            bake: std::time::Duration::ZERO,
            number,
            kind,
            target: deploy.selector,
            digest: Some(deploy.digest),
            scope: RolloutScope::Service(deploy.selector),
            members,
            waves: Vec::new(),
            max_concurrent: draft::MAX_CONCURRENT,
            budget: Budget::Percent(100),
            auto_return: false,
            after: None,
            retry_of: None,
            first_number,
            requested_by: context.slot.requested_by.clone(),
            now: context.now,
        };
        let (pages, mut batch) =
            draft.batches().map_err(|error| Stop::Park(Code::Invalid, error.to_string()))?;
        if kind.moves() {
            let fleet = store.fleet().await?;
            if let Some(other) = fleet.rollout.filter(|other| *other != number) {
                return Err(Stop::Wait {
                    code: Code::ColourHeld,
                    message: format!("rollout {other} moves sites"),
                    patience: std::time::Duration::from_secs(86_400),
                    again: self.platform.look_again,
                    changes: Vec::new(),
                });
            }
            // Another has come and gone since the number was drawn, and sites would take this one's grants for older.
            if number < fleet.newest {
                return Err(draw_rollout(context).await);
            }
            let marked = crate::domain::Fleet { rollout: Some(number), newest: number, ..fleet };
            batch.writes.push(crate::ports::Write::Fleet(Box::new(marked)));
        }
        for batch in pages.iter().chain([&batch]) {
            match store.write(&context.call()?, batch).await {
                Outcome::Applied(()) => {}
                Outcome::NotApplied(refused) | Outcome::Unknown(refused) => return Err(store_stop(&refused)),
            }
        }
        Ok(Done::saying(format!("rollout {number}")))
    }

    async fn restore_image(&self, context: &Context<'_>) -> Result<Done, Stop> {
        let deploy = task(context)?;
        let Some(previous) = &deploy.previous else { return Ok(Done::default()) };
        let Some(template) = previous.template.clone().filter(|_| !crate::bug!(FailedImageStays)) else {
            return Ok(Done::default());
        };
        let view = context.ports.cluster.service(deploy.selector).await?;
        if view.fence != context.slot.fence() {
            context.still_owner().await?;
            let want = ImageWant::Template(template);
            let call = context.call()?;
            context.ports.cluster.set_image(&call, deploy.selector, view.fence, &want).await.applied()?;
        }
        Ok(Done::with(vec![Change::Colour(ColourChange::Restored(previous.digest))]))
    }
}

/// Draws the number of the rollout that runs the hooks, and has it written down before it is used.
async fn draw_rollout(context: &Context<'_>) -> Stop {
    let call = match context.call() {
        Ok(call) => call,
        Err(stop) => return stop,
    };
    match context.ports.store.numbers(&call, 1).await {
        Outcome::Applied(number) => Stop::Note(vec![Change::Rollout(number)]),
        Outcome::NotApplied(refused) | Outcome::Unknown(refused) => store_stop(&refused),
    }
}

fn progress(view: &ServiceView) -> String {
    let why = view.failure.as_ref().map_or_else(String::new, |failure| format!(": {}", failure.message));
    format!("{} of {} pods updated, {} available{why}", view.updated, view.desired, view.available)
}

/// What a store's refusal means inside a step: it is looked at again.
fn store_stop(refused: &Refused) -> Stop {
    match refused {
        Refused::Store(error) => Stop::from(error.clone()),
        other => Stop::Again(PortError::new("store", ErrorKind::Conflict, other.to_string())),
    }
}

#[async_trait]
impl Pipeline for Deploy {
    fn kind(&self) -> Kind {
        Kind::Deploy
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

    fn hold(&self, slot: &Slot) -> Option<(Selector, HoldMode)> {
        let Task::Deploy(deploy) = &slot.task else { return None };
        let changing = matches!(slot.position, Position::Forward(0 | 1) | Position::Undo(0, _));
        let going = matches!(slot.status, Status::Running | Status::Waiting);
        // An operation that waits for this very hold does not have it.
        let waits =
            slot.reason.as_ref().is_some_and(|reason| reason.code == Code::ColourHeld) && !going_on(slot);
        (changing && going && !waits).then_some((deploy.selector, HoldMode::Alone))
    }

    async fn attempt(&self, context: &Context<'_>, at: Position) -> Result<Done, Stop> {
        match at {
            Position::Forward(0) => self.patch_image(context).await,
            Position::Forward(1) => self.wait_ready(context).await,
            Position::Forward(2) => self.patch_canary_env(context).await,
            Position::Forward(_) => self.hooks(context).await,
            Position::Undo(..) => self.restore_image(context).await,
        }
    }
}

fn going_on(slot: &Slot) -> bool {
    slot.status == Status::Running
}
