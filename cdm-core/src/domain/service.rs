//! A service's record: its running digest, its releases, and the lock that controls changes.

use std::collections::BTreeSet;
use std::time::Duration;

use super::operation::{OperationInput, OperationState};
use super::{Actor, Color, Digest, Freeze, Timestamp};

/// How long a digest has to be ready before it counts as healthy without any other evidence.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(300);

/// The record of one of the two services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The color that identifies the service.
    pub color: Color,
    /// The deploy in progress or parked.
    pub operation: Option<OperationState>,
    /// The operations and rollouts that rely on the service's current image or are changing it.
    pub lock: ServiceLock,
    /// The digest that was last set or restored.
    pub running: Option<Digest>,
    /// The releases, newest first, at most [`Service::HISTORY`].
    pub releases: Vec<Release>,
    /// The version of the record, raised by every write.
    pub version: u64,
}

/// A lock on a service. Moves share the lock; a deploy holds it exclusively.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceLock {
    /// The number of the deploy that holds the lock exclusively.
    pub deploy: Option<u64>,
    /// The numbers of the operations and rollouts that move routes to the service.
    pub moves: BTreeSet<u64>,
}

/// The mode in which a lock is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockMode {
    /// Shared with other moves.
    Shared,
    /// Exclusive, for a deploy.
    Exclusive,
}

impl ServiceLock {
    /// Acquires the lock for `number`. Returns `false` if the caller has to wait. Acquiring a held lock again has no
    /// effect.
    pub fn acquire(&mut self, number: u64, mode: LockMode) -> bool {
        if crate::bug!(HoldIgnored) {
            return true;
        }
        match mode {
            LockMode::Shared if self.deploy.is_none() => {
                self.moves.insert(number);
                true
            }
            LockMode::Exclusive
                if self.moves.is_empty() && self.deploy.is_none_or(|holder| holder == number) =>
            {
                self.deploy = Some(number);
                true
            }
            LockMode::Shared | LockMode::Exclusive => false,
        }
    }

    /// Releases every lock that `number` holds.
    pub fn release(&mut self, number: u64) {
        self.moves.remove(&number);
        if self.deploy == Some(number) {
            self.deploy = None;
        }
    }
}

/// One deploy of a digest to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The digest of the deployed image.
    pub digest: Digest,
    /// When the digest was set.
    pub at: Timestamp,
    /// The actor that requested the deploy.
    pub by: Actor,
    /// The number of the operation that set the digest; 0 for a digest that CDM found running.
    pub number: u64,
    /// The verdict on the digest.
    pub verdict: Verdict,
    /// Why the digest has this verdict, if a reason is known.
    pub reason: Option<String>,
    /// When every pod of the digest became available; `None` if that has not happened.
    pub ready_at: Option<Timestamp>,
}

impl Release {
    /// Creates the release of a digest that CDM did not deploy: it was running when a deploy replaced it.
    fn found(digest: Digest, at: Timestamp, by: &Actor) -> Self {
        let reason = Some("found running; not deployed by CDM".to_owned());
        Self { digest, at, by: by.clone(), number: 0, verdict: Verdict::Unknown, reason, ready_at: None }
    }
}

/// The verdict on a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The digest was not in use long enough.
    Unknown,
    /// The digest was fully ready and has no known problem, or a user marked it as healthy.
    Healthy,
    /// The digest ran and was rolled back. Only a user changes this verdict.
    RolledBack,
    /// The digest crashed, failed its readiness check, did not exist or halted a rollout, or a user marked it as bad.
    Bad,
}

impl Verdict {
    /// Returns the verdict as the API spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::RolledBack => "rolled_back",
            Self::Bad => "bad",
        }
    }
}

/// The change that a finished step makes to a service's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceChange {
    /// Another digest replaces the running one.
    Replaced {
        /// The digest that was running.
        previous: Option<Digest>,
        /// Whether all pods of that digest were ready.
        was_ready: bool,
        /// When that digest was replaced.
        at: Timestamp,
        /// The actor of the deploy that replaces it.
        by: Actor,
        /// Whether that deploy is a rollback.
        rolled_back: bool,
    },
    /// The digest of this release was set.
    Released(Release),
    /// The digest that ran before the newest release was restored.
    Restored(Option<Digest>),
    /// Every pod of the newest release became available at this time.
    Ready(Timestamp),
    /// A digest received a verdict.
    Judged {
        /// The digest that the verdict is about.
        digest: Digest,
        /// The verdict on the digest.
        verdict: Verdict,
        /// Why the digest has this verdict.
        reason: String,
    },
}

impl Service {
    /// The maximum number of releases that are kept.
    pub const HISTORY: usize = 100;

    /// Creates the record of a service without releases.
    pub fn new(color: Color) -> Self {
        Self {
            color,
            operation: None,
            lock: ServiceLock::default(),
            running: None,
            releases: Vec::new(),
            version: 0,
        }
    }

    /// Applies the change of a finished step.
    pub fn apply(&mut self, change: &ServiceChange) {
        match change {
            ServiceChange::Replaced { previous, was_ready, at, by, rolled_back } => {
                let is_listed =
                    |digest: &Digest| self.releases.iter().any(|release| release.digest == *digest);
                if let Some(digest) = previous.filter(|digest| !is_listed(digest)) {
                    self.releases.insert(0, Release::found(digest, *at, by));
                }
                for release in &mut self.releases {
                    let replaced = Some(release.digest) == *previous;
                    let bad = release.verdict == Verdict::Bad || crate::bug!(RolledBackIsHealthy);
                    if replaced && *rolled_back && !bad {
                        release.verdict = Verdict::RolledBack;
                        release.reason = Some(format!("rolled back by {by}"));
                    }
                    if replaced && *was_ready && release.verdict == Verdict::Unknown {
                        release.verdict = Verdict::Healthy;
                        release.reason = Some("ready when it was replaced".to_owned());
                    }
                }
            }
            ServiceChange::Released(release) => {
                if self.releases.first().is_some_and(|newest| newest.number == release.number) {
                    return;
                }
                // A verdict applies to every release of its digest.
                let earlier = self.releases.iter().find(|earlier| earlier.digest == release.digest);
                let mut release = release.clone();
                self.running = Some(release.digest);
                let is_lasting =
                    |earlier: &&Release| matches!(earlier.verdict, Verdict::Healthy | Verdict::RolledBack);
                if let Some(earlier) = earlier.filter(is_lasting) {
                    release.verdict = earlier.verdict;
                    release.reason.clone_from(&earlier.reason);
                }
                self.releases.insert(0, release);
                self.releases.truncate(Self::HISTORY);
            }
            ServiceChange::Restored(digest) => self.running = *digest,
            ServiceChange::Ready(at) => {
                if let Some(newest) = self.releases.first_mut() {
                    newest.ready_at = Some(*at);
                }
            }
            ServiceChange::Judged { digest, verdict, reason } => self.judge(digest, *verdict, reason),
        }
    }

    /// Marks the running digest as healthy if it has been ready for [`HEALTHY_AFTER`] and is ready now.
    pub fn confirm_healthy(&mut self, ready: bool, now: Timestamp) {
        let is_due = |release: &&Release| {
            let long = release.ready_at.is_some_and(|at| now.since(at) >= HEALTHY_AFTER);
            Some(release.digest) == self.running && release.verdict == Verdict::Unknown && long
        };
        if let Some(digest) =
            self.releases.iter().find(is_due).map(|release| release.digest).filter(|_| ready)
        {
            self.judge(&digest, Verdict::Healthy, "ready for five minutes, and now");
        }
    }

    /// Marks every release of the digest as bad. A digest without a release gets one.
    pub fn condemn(&mut self, digest: &Digest, at: Timestamp, by: &Actor, reason: &str) {
        if self.releases.iter().all(|release| release.digest != *digest) {
            self.releases.insert(0, Release::found(*digest, at, by));
            self.releases.truncate(Self::HISTORY);
        }
        self.judge(digest, Verdict::Bad, reason);
    }

    /// Returns a release of the digest whose verdict is bad, if there is one.
    pub fn bad_release(&self, digest: &Digest) -> Option<&Release> {
        let bad = |release: &&Release| release.digest == *digest && release.verdict == Verdict::Bad;
        self.releases.iter().find(bad)
    }

    /// Sets the verdict of every release of the digest.
    pub fn judge(&mut self, digest: &Digest, verdict: Verdict, reason: &str) {
        for release in self.releases.iter_mut().filter(|release| release.digest == *digest) {
            release.verdict = verdict;
            release.reason = Some(reason.to_owned());
        }
    }

    /// Returns the number of the deploy in progress or parked.
    pub fn deploying(&self) -> Option<u64> {
        self.operation
            .as_ref()
            .filter(|operation| matches!(operation.input, OperationInput::Deploy(_)))
            .map(|operation| operation.number)
    }
}

/// Returns the digest that a rollback of `own` deploys: the newest healthy digest other than the running one, first
/// from the service's own releases, then from the other service's. A digest that is bad or was rolled back on either
/// service is never chosen.
pub fn rollback_choice(own: &Service, other: &Service, running: Option<Digest>) -> Option<Digest> {
    let bad = |digest: &Digest| {
        let mut all = own.releases.iter().chain(&other.releases);
        let is_rejected = |release: &Release| matches!(release.verdict, Verdict::Bad | Verdict::RolledBack);
        all.any(|release| release.digest == *digest && is_rejected(release))
    };
    own.releases
        .iter()
        .chain(&other.releases)
        .filter(|release| release.verdict == Verdict::Healthy || crate::bug!(RollbackTakesAny))
        .map(|release| release.digest)
        .find(|digest| Some(*digest) != running && (!bad(digest) || crate::bug!(RollbackTakesAny)))
}

/// The platform's record: the operation that changes the canary, the rollout that moves sites, and the freezes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// The select operation in progress or parked.
    pub operation: Option<OperationState>,
    /// The number of the unfinished rollout that moves sites.
    pub rollout: Option<u64>,
    /// The highest number of a rollout that moved sites. The next rollout has a higher number, because sites use the
    /// number to reject the claim tokens of an earlier rollout.
    pub newest: u64,
    /// The freezes, including those that have ended but were not removed yet.
    pub freezes: Vec<Freeze>,
    /// The version of the record, raised by every write.
    pub version: u64,
}
