//! The reasons why a rollout waits, and the check whether a reason persists.

use std::time::Duration;

use crate::domain::{
    Color, Digest, Direction, LockMode, ReasonCode, Rollout, RolloutKind, RolloutStatus, Timestamp,
};
use crate::engine::{NextPoll, Worker};
use crate::pipelines::PipelineSettings;
use crate::ports::{ErrorKind, PortError, WorkItem};

/// The reason why a rollout waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WaitReason {
    pub(super) code: ReasonCode,
    pub(super) message: String,
}

impl From<&PortError> for WaitReason {
    fn from(error: &PortError) -> Self {
        Self { code: code(error), message: error.to_string() }
    }
}

impl WaitReason {
    /// The target runs another digest than the wanted one.
    pub(super) fn changed(target: Color, wanted: Option<Digest>, running: Option<Digest>) -> Self {
        let format =
            |digest: Option<Digest>| digest.map_or_else(|| "none".to_owned(), |digest| digest.to_string());
        let message =
            format!("`{target}` runs `{}`; the rollout is for `{}`", format(running), format(wanted));
        Self { code: ReasonCode::DigestChanged, message }
    }

    /// The outcome of an earlier attempt is unknown.
    pub(super) fn unknown(message: &str) -> Self {
        Self { code: ReasonCode::Retrying, message: message.to_owned() }
    }
}

/// Returns the reason code of an error.
const fn code(error: &PortError) -> ReasonCode {
    match error.kind {
        ErrorKind::Denied => ReasonCode::Denied,
        ErrorKind::Throttled(_) => ReasonCode::Throttled,
        _ => ReasonCode::Retrying,
    }
}

/// Returns whether the code is of a wait for a backend.
pub(super) const fn is_of_backend(code: ReasonCode) -> bool {
    matches!(code, ReasonCode::Retrying | ReasonCode::Throttled | ReasonCode::Denied)
}

/// Returns the pause before the next poll of a rollout that waits for a backend: the time that it has waited already,
/// but at least the scan interval and at most the longest pause of the worker.
pub(super) fn growing_pause(worker: &Worker, since: Option<Timestamp>, now: Timestamp) -> Duration {
    let settings = worker.settings();
    let waited = since.map_or(Duration::ZERO, |since| now.since(since));
    waited.clamp(settings.scan.min(settings.longest_pause), settings.longest_pause)
}

/// Checks whether the reason of a waiting rollout persists. While it does, the rollout is not claimed and nothing is
/// written; returns the next poll then.
pub(super) async fn recheck(
    worker: &Worker,
    settings: &PipelineSettings,
    rollout: &Rollout,
    now: Timestamp,
) -> Option<NextPoll> {
    if rollout.status != RolloutStatus::Waiting || rollout.control.is_some() {
        return None;
    }
    if rollout.direction == Direction::Rollback {
        return recheck_readiness(worker, settings, rollout, now).await;
    }
    let reason = rollout.reason.as_ref()?;
    if reason.until.is_some_and(|until| until <= now) {
        return None;
    }
    let (ports, destination) = (worker.ports(), rollout.destination());
    let persists = match reason.code {
        ReasonCode::Deploying => match &rollout.after {
            Some(deploy) => matches!(ports.store.history(deploy).await, Ok(None) | Err(_)),
            None => false,
        },
        ReasonCode::ServiceNotReady => {
            ports.cluster.service(destination).await.is_ok_and(|view| !view.is_ready())
        }
        ReasonCode::DigestChanged => match ports.cluster.service(destination).await {
            Ok(view) => view.digest != rollout.wanted(),
            Err(_) => true,
        },
        ReasonCode::ServiceLocked => match ports.store.service(destination).await {
            Ok(mut service) => !service.lock.acquire(rollout.number, LockMode::Shared),
            Err(_) => true,
        },
        code if is_of_backend(code) => match ports.cluster.service(destination).await {
            Ok(_) => false,
            Err(error) => WaitReason::from(&error) == WaitReason { code, message: reason.message.clone() },
        },
        _ => false,
    };
    let backend = is_of_backend(reason.code);
    let tries = if backend { worker.tries(&WorkItem::Rollout(rollout.number)) + 1 } else { 0 };
    persists.then(|| poll_later(worker, tries))
}

/// Checks the destination of a rollback, whose reason is the one of the rollback.
async fn recheck_readiness(
    worker: &Worker,
    settings: &PipelineSettings,
    rollout: &Rollout,
    now: Timestamp,
) -> Option<NextPoll> {
    let since = rollout.waiting_since.filter(|_| rollout.kind == RolloutKind::Promote)?;
    if now >= since.after(settings.ready_timeout) {
        return None;
    }
    match worker.ports().cluster.service(rollout.destination()).await {
        Ok(view) if view.is_ready() => None,
        Ok(_) => Some(poll_later(worker, 0)),
        Err(_) => Some(poll_later(worker, worker.tries(&WorkItem::Rollout(rollout.number)) + 1)),
    }
}

fn poll_later(worker: &Worker, tries: u32) -> NextPoll {
    let scan = worker.settings().scan;
    let pause = if tries > 0 { worker.pause("cluster", tries, None).max(scan) } else { scan };
    NextPoll { at: worker.ports().clock.monotonic().after(pause), tries, on_change: tries == 0 }
}
