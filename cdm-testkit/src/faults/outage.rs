//! Outages: for a while a port does not serve, in one of the ways in which backends do not.

use std::time::Duration;

use cdm_core::domain::MonotonicTime;

use super::gate::Fault;

/// How a port does not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutageKind {
    /// It is stopped: no call has an effect or an answer before its time is over.
    Stopped,
    /// It refuses connections.
    Refused,
    /// It asks for fewer calls, with a `Retry-After` of a second.
    Throttled,
    /// It denies every call.
    Denied,
    /// Every call takes long, and has its effect.
    Slow,
    /// It serves, and refuses every change for a conflict.
    Conflict,
}

impl OutageKind {
    /// All in which it does not serve.
    pub const ALL: [Self; 5] = [Self::Stopped, Self::Refused, Self::Throttled, Self::Denied, Self::Slow];

    /// How long a call takes, and what it comes to where it has no effect.
    pub(super) const fn of_call(self) -> (Duration, Option<Fault>) {
        match self {
            Self::Stopped => (CALL, Some(Fault::LostCall)),
            Self::Refused => (Duration::ZERO, Some(Fault::Transient)),
            Self::Throttled => (Duration::ZERO, Some(Fault::Throttled)),
            Self::Denied => (Duration::ZERO, Some(Fault::Permanent)),
            Self::Slow => (SLOW, None),
            Self::Conflict => (Duration::ZERO, Some(Fault::Conflict)),
        }
    }
}

/// How long a call that is not answered takes.
const CALL: Duration = Duration::from_secs(8);
/// How long a slow one takes.
const SLOW: Duration = Duration::from_secs(3);

/// A port that does not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Its name, as calls begin with it; or that of one of its calls.
    pub port: &'static str,
    /// How.
    pub kind: OutageKind,
    /// With which of the port's calls it begins.
    pub from: usize,
    /// How long it lasts.
    pub lasts: Duration,
    /// With which of the port's calls in it the process dies, where it does.
    pub crash: Option<usize>,
}

/// How an outage goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    outage: Outage,
    calls: usize,
    until: Option<MonotonicTime>,
    pub(super) during: usize,
}

/// What becomes of a call in an outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing out of the ordinary.
    Nothing,
    /// The process dies before it.
    Crash,
    /// It takes so long, and then comes to that, or to what it does.
    Trouble(Duration, Option<Fault>),
}

impl Course {
    pub(super) const fn new(outage: Outage) -> Self {
        Self { outage, calls: 0, until: None, during: 0 }
    }

    /// Whether it has begun.
    pub(super) const fn began(&self) -> bool {
        self.until.is_some()
    }

    /// Counts a call.
    pub(super) fn call(&mut self, name: &str, now: MonotonicTime) -> Fate {
        let port = self.outage.port;
        if name != port && name.split('.').next() != Some(port) {
            return Fate::Nothing;
        }
        let at = self.calls;
        self.calls += 1;
        if self.until.is_none() && at >= self.outage.from {
            self.until = Some(now.after(self.outage.lasts));
        }
        if self.until.is_none_or(|until| now >= until) {
            return Fate::Nothing;
        }
        self.during += 1;
        if self.outage.crash == Some(self.during - 1) {
            return Fate::Crash;
        }
        let (takes, fault) = self.outage.kind.of_call();
        Fate::Trouble(takes, fault)
    }
}
