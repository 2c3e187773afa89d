//! Outages: a port does not serve for a while, in one of several ways.

use std::time::Duration;

use cdm_core::domain::MonotonicTime;

use super::fault::Fault;

/// How a port fails during an outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutageKind {
    /// The backend has stopped: each call hangs, then fails with an unknown outcome and no effect.
    Stopped,
    /// The backend refuses connections.
    Refused,
    /// The backend throttles every call, with `Retry-After: 1`.
    Throttled,
    /// The backend denies every call.
    Denied,
    /// Every call takes 3 seconds, and takes effect.
    Slow,
    /// The backend serves reads, and rejects every change with a conflict.
    Conflict,
}

impl OutageKind {
    /// All kinds in which the port does not serve normally, without [`OutageKind::Conflict`].
    pub const ALL: [Self; 5] = [Self::Stopped, Self::Refused, Self::Throttled, Self::Denied, Self::Slow];

    /// Returns the duration of a call, and its fault if the call has no effect.
    pub(super) const fn of_call(self) -> (Duration, Option<Fault>) {
        match self {
            Self::Stopped => (HANG_DURATION, Some(Fault::LostCall)),
            Self::Refused => (Duration::ZERO, Some(Fault::Transient)),
            Self::Throttled => (Duration::ZERO, Some(Fault::Throttled)),
            Self::Denied => (Duration::ZERO, Some(Fault::Permanent)),
            Self::Slow => (SLOW_DURATION, None),
            Self::Conflict => (Duration::ZERO, Some(Fault::Conflict)),
        }
    }
}

/// Duration of a call without a response.
const HANG_DURATION: Duration = Duration::from_secs(8);
/// Duration of a slow call.
const SLOW_DURATION: Duration = Duration::from_secs(3);

/// A planned outage of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Name of the port, such as `store`, or of one call, such as `store.write`.
    pub port: &'static str,
    /// How the port fails.
    pub kind: OutageKind,
    /// Ordinal of the port's call with which the outage begins.
    pub from: usize,
    /// Duration of the outage.
    pub lasts: Duration,
    /// Ordinal of the call within the outage at which the process crashes, if any.
    pub crash: Option<usize>,
}

/// The state of a planned outage.
#[derive(Clone, Copy, Debug)]
pub(super) struct ActiveOutage {
    outage: Outage,
    calls: usize,
    until: Option<MonotonicTime>,
    pub(super) during: usize,
}

/// What an outage does to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutageEffect {
    /// The outage does not affect the call.
    Unaffected,
    /// The process crashes before the call.
    Crash,
    /// The call takes this long, and then has this fault, or its normal effect if the fault is `None`.
    Fail(Duration, Option<Fault>),
}

impl ActiveOutage {
    pub(super) const fn new(outage: Outage) -> Self {
        Self { outage, calls: 0, until: None, during: 0 }
    }

    /// Returns whether the outage has begun.
    pub(super) const fn began(&self) -> bool {
        self.until.is_some()
    }

    /// Counts a call, and decides what happens to it.
    pub(super) fn call(&mut self, name: &str, now: MonotonicTime) -> OutageEffect {
        let port = self.outage.port;
        if name != port && name.split('.').next() != Some(port) {
            return OutageEffect::Unaffected;
        }
        let at = self.calls;
        self.calls += 1;
        if self.until.is_none() && at >= self.outage.from {
            self.until = Some(now.after(self.outage.lasts));
        }
        if self.until.is_none_or(|until| now >= until) {
            return OutageEffect::Unaffected;
        }
        self.during += 1;
        if self.outage.crash == Some(self.during - 1) {
            return OutageEffect::Crash;
        }
        let (takes, fault) = self.outage.kind.of_call();
        OutageEffect::Fail(takes, fault)
    }
}
