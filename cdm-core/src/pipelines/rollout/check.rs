//! The check before further sites move: requests of users, freezes, and the destination.

use std::time::Duration;

use super::read_with_retry;
use super::recheck::wait_reason;
use crate::domain::rollout::{Control, Interruption, WaitReason};
use crate::domain::{Color, Digest, Direction, Freeze, MonotonicTime, ReasonCode, Rollout, RolloutKind};
use crate::engine::{Lost, Worker};
use crate::ports::ServiceView;

/// The interval at which an owner reads requests and freezes while sites move.
pub(super) const CONTROL_INTERVAL: Duration = Duration::from_secs(1);

/// A check, with a copy of the data that it needs, since the rollout changes in parallel.
#[derive(Debug)]
pub(super) struct Check<'a> {
    worker: &'a Worker,
    number: u64,
    kind: RolloutKind,
    direction: Direction,
    destination: Color,
    wanted: Option<Digest>,
    control: Option<Control>,
    /// Whether requests are read.
    reads_control: bool,
    /// Whether freezes are read.
    reads_freezes: bool,
}

/// The result of a check.
#[derive(Debug)]
pub(super) struct Checked {
    /// The reason why no further site may move.
    pub(super) interruption: Option<Interruption>,
    /// The requested pause or abort.
    pub(super) control: Option<Control>,
    /// The freezes, if they were read.
    pub(super) freezes: Option<Vec<Freeze>>,
    /// The digest that the target runs. `None` on a rollback.
    pub(super) digest: Option<Digest>,
}

impl<'a> Check<'a> {
    /// Creates a check of the destination alone.
    pub(super) fn of_destination(worker: &'a Worker, rollout: &Rollout) -> Self {
        Self {
            worker,
            number: rollout.number,
            kind: rollout.spec.kind,
            direction: rollout.direction(),
            destination: rollout.destination(),
            wanted: rollout.wanted(),
            control: rollout.control,
            reads_control: false,
            reads_freezes: false,
        }
    }

    /// Adds requests and freezes to the check, if they were not read at all, or not within the last interval.
    pub(super) fn with_requests(mut self, read_at: Option<MonotonicTime>, now: MonotonicTime) -> Self {
        let due = read_at.is_none_or(|at| now.since(at) >= CONTROL_INTERVAL);
        self.reads_control = due && read_at.is_some() && self.control.is_none();
        self.reads_freezes = due && self.kind.moves() && self.direction == Direction::Forward;
        self
    }

    /// Returns whether the check reads requests or freezes.
    pub(super) const fn reads_requests(&self) -> bool {
        self.reads_control || self.reads_freezes
    }

    pub(super) async fn run(mut self) -> Result<Checked, Lost> {
        let ports = self.worker.ports();
        if self.reads_control
            && let Ok(Some(rollout)) = ports.store.rollout(self.number).await
        {
            self.control = rollout.control;
        }
        let (mut freezes, mut frozen) = (None, None);
        if self.reads_freezes {
            let fleet = read_with_retry(self.worker, || ports.store.fleet()).await?;
            frozen = fleet.frozen(ports.clock.wall()).cloned().filter(|_| self.control.is_none());
            freezes = Some(fleet.freezes);
        }
        let mut digest = None;
        let interruption = if self.worker.stopping() {
            Some(Interruption::Stopping)
        } else if self.control.is_some() && !crate::bug!(PauseForgotten) {
            Some(Interruption::ControlRequested)
        } else if let Some(freeze) = frozen {
            Some(Interruption::Frozen(freeze))
        } else {
            self.check_destination(&mut digest).await
        };
        Ok(Checked { interruption, control: self.control, freezes, digest })
    }

    /// Checks the destination before sites move there. On the way forward the destination must run the wanted digest.
    /// While routes move, the rollout holds the lock of the destination, so that no deploy changes the digest between
    /// this check and a move.
    async fn check_destination(&self, digest: &mut Option<Digest>) -> Option<Interruption> {
        let (forward, promotes) = (self.direction == Direction::Forward, self.kind == RolloutKind::Promote);
        if !self.kind.moves() || !(forward || promotes) {
            return None;
        }
        let destination = self.destination;
        let wanted = self.wanted.filter(|_| forward && !crate::bug!(WindowIgnoresDigest));
        let view: ServiceView = match self.worker.ports().cluster.service(destination).await {
            Ok(view) => view,
            Err(error) => return Some(Interruption::ClusterUnavailable(wait_reason(&error))),
        };
        if wanted.is_some() && view.digest != wanted {
            return Some(Interruption::DigestChanged(digest_changed(destination, wanted, view.digest)));
        }
        if promotes && !view.is_ready() && !crate::bug!(RouteBeforeReady) {
            return Some(Interruption::NotReady(not_ready(destination)));
        }
        *digest = view.digest.filter(|_| forward);
        None
    }
}

/// The target runs another digest than the wanted one.
fn digest_changed(target: Color, wanted: Option<Digest>, running: Option<Digest>) -> WaitReason {
    let format =
        |digest: Option<Digest>| digest.map_or_else(|| "none".to_owned(), |digest| digest.to_string());
    let message = format!("`{target}` runs `{}`; the rollout is for `{}`", format(running), format(wanted));
    WaitReason { code: ReasonCode::DigestChanged, message }
}

/// The destination is not ready.
pub(super) fn not_ready(destination: Color) -> WaitReason {
    WaitReason { code: ReasonCode::ServiceNotReady, message: format!("`{destination}` is not ready") }
}
