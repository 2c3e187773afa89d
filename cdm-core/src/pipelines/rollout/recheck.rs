//! The check whether the reason of a waiting rollout persists.

use crate::domain::rollout::WaitReason;
use crate::domain::{Direction, LockMode, ReasonCode, Rollout, RolloutKind, RolloutStatus, Timestamp};
use crate::engine::{NextPoll, Worker};
use crate::pipelines::PipelineSettings;
use crate::ports::{ErrorKind, PortError, WorkItem};

/// Returns the reason of a wait for a backend that returned this error.
pub(super) fn wait_reason(error: &PortError) -> WaitReason {
    let code = match error.kind {
        ErrorKind::Denied => ReasonCode::Denied,
        ErrorKind::Throttled(_) => ReasonCode::Throttled,
        _ => ReasonCode::Retrying,
    };
    WaitReason { code, message: error.to_string() }
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
    if rollout.direction() == Direction::Rollback {
        return recheck_readiness(worker, settings, rollout, now).await;
    }
    let reason = rollout.reason.as_ref()?;
    if reason.until.is_some_and(|until| until <= now) {
        return None;
    }
    let (ports, destination) = (worker.ports(), rollout.destination());
    let persists = match reason.code {
        ReasonCode::Deploying => match rollout.awaited_deploy() {
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
        code if WaitReason::is_of_backend(code) => match ports.cluster.service(destination).await {
            Ok(_) => false,
            Err(error) => wait_reason(&error) == WaitReason { code, message: reason.message.clone() },
        },
        _ => false,
    };
    let backend = WaitReason::is_of_backend(reason.code);
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
    let since = rollout.waiting_since.filter(|_| rollout.spec.kind == RolloutKind::Promote)?;
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
