//! How much may happen while nothing progresses: writes of one record, and calls of all ports.
//!
//! A loop that spins breaks no other invariant: what it does is right each time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use cdm_core::domain::operation::Position;
use cdm_core::domain::{MonotonicTime, OperationState, Rollout};

/// How often a record may be written within [`SPAN`] while its operation is at the same step, or its rollout at the same
/// sites: a wait is stored when its reason changes, and where a step needs a hold, twice for each attempt.
const WRITES: usize = 24;
const SPAN: Duration = Duration::from_secs(60);
/// How many calls may be made while nothing progresses: so many at once, and so many for each second.
const CALLS: u64 = 3_000;
const CALLS_A_SECOND: u64 = 8;

/// What was written, and how far it had come.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Operation(u64, Position, u32),
    Rollout(u64, u32, u32, u32),
}

/// Watches over one log.
#[derive(Debug, Default)]
pub(super) struct Progress {
    writes: BTreeMap<u64, (Stage, VecDeque<MonotonicTime>)>,
    calls: u64,
    since: Option<MonotonicTime>,
}

impl Progress {
    /// An operation's record was written; answers what is wrong with that.
    pub(super) fn operation(&mut self, operation: &OperationState, now: MonotonicTime) -> Option<String> {
        self.written(
            operation.number,
            Stage::Operation(operation.number, operation.position, operation.job),
            now,
        )
    }

    /// A rollout was written.
    pub(super) fn rollout(&mut self, rollout: &Rollout, now: MonotonicTime) -> Option<String> {
        let resolved = rollout.counts().resolved();
        let stage = Stage::Rollout(rollout.number, rollout.window.start, resolved, rollout.rollback_end);
        self.written(rollout.number, stage, now)
    }

    fn written(&mut self, number: u64, stage: Stage, now: MonotonicTime) -> Option<String> {
        let known = self.writes.get_mut(&number).filter(|(known, _)| *known == stage);
        let Some((known, at)) = known else {
            self.writes.insert(number, (stage, VecDeque::from([now])));
            self.progressed(now);
            return None;
        };
        at.push_back(now);
        while at.front().is_some_and(|first| now.since(*first) > SPAN) {
            at.pop_front();
        }
        (at.len() > WRITES).then(|| {
            let span = SPAN.as_secs();
            let writes = at.len();
            at.clear();
            format!("{writes} writes within {span} s of {known:?}, which does not progress")
        })
    }

    /// Something progressed.
    pub(super) fn progressed(&mut self, now: MonotonicTime) {
        (self.calls, self.since) = (0, Some(now));
    }

    /// A call was made.
    pub(super) fn called(&mut self, now: MonotonicTime) -> Option<String> {
        self.calls += 1;
        let since = *self.since.get_or_insert(now);
        let allowed = CALLS + CALLS_A_SECOND * now.since(since).as_secs();
        (self.calls > allowed).then(|| {
            let text = format!(
                "{} calls in {} s in which nothing progressed",
                self.calls,
                now.since(since).as_secs()
            );
            self.progressed(now);
            text
        })
    }
}
