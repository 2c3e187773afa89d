//! Why a rollout waits for a backend, and whether that is still so.

use std::time::Duration;

use crate::domain::{
    Color, Digest, Direction, LockMode, ReasonCode, Rollout, RolloutKind, RolloutStatus, Timestamp,
};
use crate::engine::{NextPoll, Worker};
use crate::pipelines::PipelineSettings;
use crate::ports::{ErrorKind, PortError, WorkItem};

/// Why a rollout waits, in the words of its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Why {
    pub(super) code: ReasonCode,
    pub(super) message: String,
}

impl From<&PortError> for Why {
    fn from(error: &PortError) -> Self {
        Self { code: code(error), message: error.to_string() }
    }
}

impl Why {
    /// The target runs another digest than sites may move on.
    pub(super) fn changed(target: Color, wanted: Option<Digest>, runs: Option<Digest>) -> Self {
        let named =
            |digest: Option<Digest>| digest.map_or_else(|| "none".to_owned(), |digest| digest.to_string());
        let message = format!("`{target}` runs `{}`; the rollout is for `{}`", named(runs), named(wanted));
        Self { code: ReasonCode::DigestChanged, message }
    }

    /// An earlier attempt's outcome is unknown.
    pub(super) fn unknown(message: &str) -> Self {
        Self { code: ReasonCode::Retrying, message: message.to_owned() }
    }
}

/// The code for such an error.
const fn code(error: &PortError) -> ReasonCode {
    match error.kind {
        ErrorKind::Denied => ReasonCode::Denied,
        ErrorKind::Throttled(_) => ReasonCode::Throttled,
        _ => ReasonCode::Retrying,
    }
}

/// Whether a code says that a backend keeps something from going on.
pub(super) const fn is_of_backend(code: ReasonCode) -> bool {
    matches!(code, ReasonCode::Retrying | ReasonCode::Throttled | ReasonCode::Denied)
}

/// After how long a rollout that waits for a backend is looked at again: as long as it has waited, between a worker's
/// scan and its longest pause.
pub(super) fn growing(worker: &Worker, since: Option<Timestamp>, now: Timestamp) -> Duration {
    let settings = worker.settings();
    let waited = since.map_or(Duration::ZERO, |since| now.since(since));
    waited.clamp(settings.scan.min(settings.longest_pause), settings.longest_pause)
}

/// Looks whether what the rollout waits for is still so. As long as it is, the rollout is not claimed and nothing is
/// written; answers when it is looked at again.
pub(super) async fn still(
    worker: &Worker,
    settings: &PipelineSettings,
    head: &Rollout,
    now: Timestamp,
) -> Option<NextPoll> {
    if head.status != RolloutStatus::Waiting || head.control.is_some() {
        return None;
    }
    if head.direction == Direction::Rollback {
        return still_unready(worker, settings, head, now).await;
    }
    let reason = head.reason.as_ref()?;
    if reason.until.is_some_and(|until| until <= now) {
        return None;
    }
    let (ports, destination) = (worker.ports(), head.destination());
    let still = match reason.code {
        ReasonCode::Deploying => match &head.after {
            Some(deploy) => matches!(ports.store.history(deploy).await, Ok(None) | Err(_)),
            None => false,
        },
        ReasonCode::ServiceNotReady => {
            ports.cluster.service(destination).await.is_ok_and(|view| !view.is_ready())
        }
        ReasonCode::DigestChanged => match ports.cluster.service(destination).await {
            Ok(view) => view.digest != head.wanted(),
            Err(_) => true,
        },
        ReasonCode::ServiceLocked => match ports.store.service(destination).await {
            Ok(mut service) => !service.lock.acquire(head.number, LockMode::Shared),
            Err(_) => true,
        },
        code if is_of_backend(code) => match ports.cluster.service(destination).await {
            Ok(_) => false,
            Err(error) => Why::from(&error) == Why { code, message: reason.message.clone() },
        },
        _ => false,
    };
    let backend = is_of_backend(reason.code);
    let tries = if backend { worker.tries(&WorkItem::Rollout(head.number)) + 1 } else { 0 };
    still.then(|| later(worker, tries))
}

/// The same on the way back, where the reason is why the rollout goes back.
async fn still_unready(
    worker: &Worker,
    settings: &PipelineSettings,
    head: &Rollout,
    now: Timestamp,
) -> Option<NextPoll> {
    let since = head.waiting_since.filter(|_| head.kind == RolloutKind::Promote)?;
    if now >= since.after(settings.ready_timeout) {
        return None;
    }
    match worker.ports().cluster.service(head.destination()).await {
        Ok(view) if view.is_ready() => None,
        Ok(_) => Some(later(worker, 0)),
        Err(_) => Some(later(worker, worker.tries(&WorkItem::Rollout(head.number)) + 1)),
    }
}

fn later(worker: &Worker, tries: u32) -> NextPoll {
    let scan = worker.settings().scan;
    let pause = if tries > 0 { worker.pause("cluster", tries, None).max(scan) } else { scan };
    NextPoll { at: worker.ports().clock.monotonic().after(pause), tries, news: tries == 0 }
}
