//! A colour's record: what runs on it, what ran, and who may change it now.

use std::collections::BTreeSet;
use std::time::Duration;

use super::operation::{OperationInput, OperationState};
use super::{Actor, Color, Digest, Freeze, Timestamp};

/// How long a digest is ready before that alone speaks for it.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(300);

/// One of the two services as CDM keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Which one.
    pub color: Color,
    /// The deploy at work.
    pub operation: Option<OperationState>,
    /// Who relies on it as it is, or is changing it.
    pub lock: ServiceLock,
    /// The digest that was set last, or put back.
    pub running: Option<Digest>,
    /// What was deployed, newest first, at most [`Service::HISTORY`].
    pub releases: Vec<Release>,
    /// Raised by every write.
    pub version: u64,
}

/// Who relies on a colour, or is changing it. Moves share it; a deploy takes it alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceLock {
    /// The deploy that has it alone.
    pub deploy: Option<u64>,
    /// The operations and rollouts that point routes to it.
    pub moves: BTreeSet<u64>,
}

/// How a hold is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockMode {
    /// With other moves.
    Shared,
    /// Alone.
    Exclusive,
}

impl ServiceLock {
    /// Takes the hold for `number`; `false` when it has to wait. Taking it twice is taking it once.
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

    /// Lets go of whatever `number` has.
    pub fn release(&mut self, number: u64) {
        self.moves.remove(&number);
        if self.deploy == Some(number) {
            self.deploy = None;
        }
    }
}

/// One deploy of a digest to a colour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The image.
    pub digest: Digest,
    /// When it was set.
    pub at: Timestamp,
    /// Who asked.
    pub by: Actor,
    /// The operation that set it.
    pub number: u64,
    /// What is known of the digest.
    pub verdict: Verdict,
    /// Why, where there is something to say.
    pub reason: Option<String>,
    /// Since when every pod of it has been available.
    pub ready_at: Option<Timestamp>,
}

impl Release {
    /// A digest that nobody told of: it ran when a deploy came to replace it.
    fn found(digest: Digest, at: Timestamp, by: &Actor) -> Self {
        let reason = Some("found running; deployed by someone else".to_owned());
        Self { digest, at, by: by.clone(), number: 0, verdict: Verdict::Unknown, reason, ready_at: None }
    }
}

/// What is known of a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Not long enough in use.
    Unknown,
    /// It was fully ready and nothing was held against it, or a person said so.
    Healthy,
    /// It ran, and was rolled back; only a person says more of it.
    RolledBack,
    /// It crashed, failed its readiness, was absent or halted a rollout, or a person said so.
    Bad,
}

impl Verdict {
    /// The word that users see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::RolledBack => "rolled_back",
            Self::Bad => "bad",
        }
    }
}

/// What a finished step changes in a colour's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceChange {
    /// Another digest takes the place of the one that runs, which was ready at that moment or not.
    Replaced {
        /// The digest that ran.
        previous: Option<Digest>,
        /// Whether all its pods were ready.
        was_ready: bool,
        /// When.
        at: Timestamp,
        /// By whose deploy.
        by: Actor,
        /// Whether that deploy is a rollback.
        rolled_back: bool,
    },
    /// The digest was set.
    Released(Release),
    /// What ran before the newest release was put back.
    Restored(Option<Digest>),
    /// The newest release got ready.
    Ready(Timestamp),
    /// A verdict on a digest.
    Judged {
        /// Which.
        digest: Digest,
        /// What.
        verdict: Verdict,
        /// Why.
        reason: String,
    },
}

impl Service {
    /// How many releases are kept.
    pub const HISTORY: usize = 100;

    /// A colour on which nothing was deployed yet.
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

    /// Writes what a step changed.
    pub fn apply(&mut self, change: &ServiceChange) {
        match change {
            ServiceChange::Replaced { previous, was_ready, at, by, rolled_back } => {
                let known = |digest: &Digest| self.releases.iter().any(|release| release.digest == *digest);
                if let Some(digest) = previous.filter(|digest| !known(digest)) {
                    self.releases.insert(0, Release::found(digest, *at, by));
                }
                for release in &mut self.releases {
                    let replaced = Some(release.digest) == *previous;
                    let condemned = release.verdict == Verdict::Bad || crate::bug!(RolledBackIsHealthy);
                    if replaced && *rolled_back && !condemned {
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
                // What is known of a digest holds for each of its releases.
                let known = self.releases.iter().find(|known| known.digest == release.digest);
                let mut release = release.clone();
                self.running = Some(release.digest);
                let holds =
                    |known: &&Release| matches!(known.verdict, Verdict::Healthy | Verdict::RolledBack);
                if let Some(known) = known.filter(holds) {
                    release.verdict = known.verdict;
                    release.reason.clone_from(&known.reason);
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

    /// Takes the running digest for healthy once it has been ready for [`HEALTHY_AFTER`] and is so now.
    pub fn ripen(&mut self, ready: bool, now: Timestamp) {
        let ripe = |release: &&Release| {
            let long = release.ready_at.is_some_and(|at| now.since(at) >= HEALTHY_AFTER);
            Some(release.digest) == self.running && release.verdict == Verdict::Unknown && long
        };
        if let Some(digest) = self.releases.iter().find(ripe).map(|release| release.digest).filter(|_| ready)
        {
            self.judge(&digest, Verdict::Healthy, "ready for five minutes, and now");
        }
    }

    /// Writes to every release of the digest that it is bad; one that nobody told of is kept with that.
    pub fn condemn(&mut self, digest: &Digest, at: Timestamp, by: &Actor, reason: &str) {
        if self.releases.iter().all(|release| release.digest != *digest) {
            self.releases.insert(0, Release::found(*digest, at, by));
            self.releases.truncate(Self::HISTORY);
        }
        self.judge(digest, Verdict::Bad, reason);
    }

    /// Why the digest is bad, where it is.
    pub fn condemned(&self, digest: &Digest) -> Option<&Release> {
        let bad = |release: &&Release| release.digest == *digest && release.verdict == Verdict::Bad;
        self.releases.iter().find(bad)
    }

    /// Writes a verdict to every release of the digest.
    pub fn judge(&mut self, digest: &Digest, verdict: Verdict, reason: &str) {
        for release in self.releases.iter_mut().filter(|release| release.digest == *digest) {
            release.verdict = verdict;
            release.reason = Some(reason.to_owned());
        }
    }

    /// The deploy at work.
    pub fn deploying(&self) -> Option<u64> {
        self.operation
            .as_ref()
            .filter(|operation| matches!(operation.input, OperationInput::Deploy(_)))
            .map(|operation| operation.number)
    }
}

/// Chooses the digest that a rollback of `own` takes: the newest healthy one, other than the one that runs, of its own
/// history, then of the other colour's; never one that is bad, or was rolled back, anywhere.
pub fn rollback_choice(own: &Service, other: &Service, running: Option<Digest>) -> Option<Digest> {
    let bad = |digest: &Digest| {
        let mut all = own.releases.iter().chain(&other.releases);
        let speaks_against =
            |release: &Release| matches!(release.verdict, Verdict::Bad | Verdict::RolledBack);
        all.any(|release| release.digest == *digest && speaks_against(release))
    };
    own.releases
        .iter()
        .chain(&other.releases)
        .filter(|release| release.verdict == Verdict::Healthy || crate::bug!(RollbackTakesAny))
        .map(|release| release.digest)
        .find(|digest| Some(*digest) != running && (!bad(digest) || crate::bug!(RollbackTakesAny)))
}

/// The platform's own record: which operation changes the canary, which rollout moves sites.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// The select at work.
    pub operation: Option<OperationState>,
    /// The unfinished rollout that moves sites.
    pub rollout: Option<u64>,
    /// The highest number of a rollout that moved sites: the next has a higher one, whoever drew it and when, because
    /// sites tell a lost owner's grant by it.
    pub newest: u64,
    /// What stops moves.
    pub freezes: Vec<Freeze>,
    /// Raised by every write.
    pub version: u64,
}
