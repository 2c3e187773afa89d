//! Limits on activity without progress: writes of one record, and calls of all ports.
//!
//! A busy loop violates no other invariant, since each of its iterations is correct.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use cdm_core::domain::operation::Position;
use cdm_core::domain::rollout::Window;
use cdm_core::domain::{Direction, MonotonicTime, OperationState, Rollout};

/// Maximum writes of one record within [`WINDOW`] while its operation is at the same step, or its rollout at the
/// same sites. A wait is stored when its reason changes, and a step that needs a lock writes twice per attempt. An owner
/// that takes over begins with short pauses again, so that the limit is about twice the writes of one owner.
const MAX_WRITES: usize = 32;
const WINDOW: Duration = Duration::from_secs(60);
/// Maximum port calls without progress: a fixed number, plus a number for each second.
const MAX_CALLS: u64 = 3_000;
const CALLS_PER_SECOND: u64 = 8;

/// A written record, and how far its operation or rollout was.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Operation(u64, Position, u32),
    Rollout(u64, Window, u32, Direction),
}

/// Tracks the progress in one effect log.
#[derive(Debug, Default)]
pub(super) struct Progress {
    writes: BTreeMap<u64, (Stage, VecDeque<MonotonicTime>)>,
    calls: u64,
    since: Option<MonotonicTime>,
}

impl Progress {
    /// Records a write of an operation; returns the violation, if any.
    pub(super) fn operation(&mut self, operation: &OperationState, now: MonotonicTime) -> Option<String> {
        self.record_write(
            operation.number,
            Stage::Operation(operation.number, operation.position, operation.job),
            now,
        )
    }

    /// Records a write of a rollout; returns the violation, if any.
    pub(super) fn rollout(&mut self, rollout: &Rollout, now: MonotonicTime) -> Option<String> {
        let resolved = rollout.counts().resolved();
        let stage = Stage::Rollout(rollout.number, rollout.window(), resolved, rollout.direction());
        self.record_write(rollout.number, stage, now)
    }

    fn record_write(&mut self, number: u64, stage: Stage, now: MonotonicTime) -> Option<String> {
        let previous = self.writes.get_mut(&number).filter(|(previous, _)| *previous == stage);
        let Some((previous, at)) = previous else {
            self.writes.insert(number, (stage, VecDeque::from([now])));
            self.reset(now);
            return None;
        };
        at.push_back(now);
        while at.front().is_some_and(|first| now.since(*first) > WINDOW) {
            at.pop_front();
        }
        (at.len() > MAX_WRITES).then(|| {
            let span = WINDOW.as_secs();
            let writes = at.len();
            at.clear();
            format!("{writes} writes within {span} s of {previous:?}, which makes no progress")
        })
    }

    /// Records that the process has made progress, which resets the limits of calls.
    pub(super) fn reset(&mut self, now: MonotonicTime) {
        (self.calls, self.since) = (0, Some(now));
    }

    /// Records a port call; returns the violation, if any.
    pub(super) fn record_call(&mut self, now: MonotonicTime) -> Option<String> {
        self.calls += 1;
        let since = *self.since.get_or_insert(now);
        let allowed = MAX_CALLS + CALLS_PER_SECOND * now.since(since).as_secs();
        (self.calls > allowed).then(|| {
            let text = format!("{} calls in {} s without progress", self.calls, now.since(since).as_secs());
            self.reset(now);
            text
        })
    }
}
