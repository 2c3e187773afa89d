//! The flush of the caches of a window: by one job, and by further jobs for the sites for which it failed.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::select;

use super::recheck::wait_reason;
use crate::domain::rollout::{Control, PendingFlush, WaitReason};
use crate::domain::{Color, Direction, Fence, JobName, Rollout, Uid};
use crate::engine::{Backoff, Lost, Worker};
use crate::pipelines::PipelineSettings;
use crate::ports::{
    ChangeCursor, Changed, ErrorKind, Job, JobFailure, JobKind, JobSpec, JobState, Outcome, PortError,
};

/// The start of the reason of a site whose caches were not flushed after its move. Stored reasons are compared with it.
pub(crate) const NOT_FLUSHED: &str = "its caches were not flushed";

/// The pause before the first poll of a job. Each later pause is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The number of consecutive polls that may fail before the rollout waits for the cluster.
const MAX_FAILED_POLLS: u32 = 4;

/// The flush of a window. It contains a copy of the data that it needs, since the rollout changes in parallel.
#[derive(Debug)]
pub(super) struct Flush<'a> {
    worker: &'a Worker,
    settings: &'a PipelineSettings,
    fence: Fence,
    direction: Direction,
    destination: Color,
    start: u32,
    round: u32,
    sites: Vec<(u32, Uid)>,
    /// By site: the reason why the last job failed for it.
    why: BTreeMap<Uid, String>,
}

/// The result of a flush.
#[derive(Debug)]
pub(super) enum FlushResult {
    /// The flush has ended. It failed for these sites, with the reason, which stay where they are and count as parked.
    Finished(Vec<(u32, Option<String>)>),
    /// The cluster runs no job at present, for this reason.
    Blocked(WaitReason),
    /// The process stops. The next owner adopts the job.
    Stopping,
}

impl<'a> Flush<'a> {
    /// Creates the flush of these sites by the jobs of this round.
    pub(super) fn new(
        worker: &'a Worker,
        settings: &'a PipelineSettings,
        rollout: &Rollout,
        pending: PendingFlush,
        sites: Vec<(u32, Uid)>,
    ) -> Self {
        Self {
            worker,
            settings,
            fence: Fence::new(rollout.number, rollout.term.into()),
            direction: rollout.direction(),
            destination: rollout.destination(),
            start: pending.window.start,
            round: pending.round,
            sites,
            why: BTreeMap::new(),
        }
    }

    /// Runs the jobs. Sites for which a job failed are repeated in a further job, up to `job_tries` jobs in all. A later
    /// owner uses the same names in the same order, and adopts the jobs that exist.
    pub(super) async fn run(mut self) -> Result<FlushResult, Lost> {
        let clock = &self.worker.ports().clock;
        let started = clock.monotonic();
        let mut pauses = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut cursor = self.latest_cursor().await;
        let tries = self.settings.job_tries.max(1);
        let (mut attempt, mut failed_polls) = (1, 0);
        while !self.sites.is_empty() {
            let waited = clock.monotonic().since(started);
            let name = self.name((self.round - 1) * tries + attempt);
            let state = match self.poll(&name).await? {
                Ok(state) => {
                    failed_polls = 0;
                    state
                }
                Err(error) => {
                    failed_polls += 1;
                    if failed_polls == MAX_FAILED_POLLS || error.kind == ErrorKind::Denied {
                        return Ok(FlushResult::Blocked(wait_reason(&error)));
                    }
                    None
                }
            };
            let failed: Vec<(Uid, String)> = match state {
                // The output of the job lists the failed sites; the seeded bug trusts the exit code.
                Some(JobState::Succeeded { failed }) if crate::bug!(ExitProvesFlush) => failed
                    .into_iter()
                    .filter(|(_, why)| JobFailure::of_output(why) != JobFailure::EndedEarly)
                    .collect(),
                Some(JobState::Succeeded { failed }) => failed,
                Some(JobState::Failed { message, .. }) => {
                    self.with_reason(&format!("the job `{name}` failed: {message}"))
                }
                Some(JobState::Running) | None if self.worker.stopping() => return Ok(FlushResult::Stopping),
                Some(JobState::Running) | None if self.is_aborted().await => break,
                Some(JobState::Running) | None if waited < self.settings.job_timeout => {
                    self.wait_for_job(&name, &mut cursor, pauses.next_pause()).await;
                    continue;
                }
                Some(JobState::Running) | None => {
                    attempt = tries;
                    let waited = waited.as_secs();
                    self.with_reason(&format!("the job `{name}` has not ended after {waited} s"))
                }
            };
            self.why = failed.into_iter().collect();
            self.sites.retain(|(_, uid)| self.why.contains_key(uid));
            if attempt == tries {
                let parked = self.sites.iter().map(|(ordinal, uid)| {
                    let why = self.why.get(uid).map(|why| format!("{NOT_FLUSHED}: {why}"));
                    (*ordinal, why)
                });
                return Ok(FlushResult::Finished(parked.collect()));
            }
            attempt += 1;
        }
        Ok(FlushResult::Finished(Vec::new()))
    }

    /// Returns the cursor after the present changes in the cluster.
    async fn latest_cursor(&self) -> ChangeCursor {
        let now = self.worker.ports().cluster.changes(ChangeCursor::default(), Duration::ZERO).await;
        now.map(|(_, cursor)| cursor).unwrap_or_default()
    }

    /// Waits until the job changes, but not longer than the pause.
    async fn wait_for_job(&self, name: &JobName, cursor: &mut ChangeCursor, pause: Duration) {
        let ports = self.worker.ports();
        let timer = ports.clock.sleep_until(ports.clock.monotonic().after(pause));
        let change = async {
            let response = ports.cluster.changes(*cursor, pause).await;
            if let Ok((changed, next)) = response {
                *cursor = next;
                let concerns_job = |one: &Changed| match one {
                    Changed::Job(of) => of == name,
                    Changed::Anything => true,
                    Changed::Service(_) => false,
                };
                if changed.iter().any(concerns_job) {
                    return;
                }
            }
            std::future::pending().await
        };
        select(Box::pin(change), timer).await;
    }

    /// Returns every remaining site with the same reason.
    fn with_reason(&self, why: &str) -> Vec<(Uid, String)> {
        self.uids().into_iter().map(|uid| (uid, why.to_owned())).collect()
    }

    fn uids(&self) -> Vec<Uid> {
        self.sites.iter().map(|(_, uid)| *uid).collect()
    }

    /// Returns the name of the job of this number. The two directions flush the same windows, under different names.
    fn name(&self, number: u32) -> JobName {
        let number = match self.direction {
            Direction::Forward => number,
            Direction::Rollback => 1_000 + number,
        };
        JobName::of_window("flush-caches", self.fence.number, self.start, number)
    }

    /// Reads a job, and starts it if it does not exist.
    async fn poll(&self, name: &JobName) -> Result<Result<Option<JobState>, PortError>, Lost> {
        let cluster = &self.worker.ports().cluster;
        match cluster.job(name).await {
            Ok(Some(Job { state, .. })) => return Ok(Ok(Some(state))),
            Ok(None) => {}
            Err(error) => return Ok(Err(error)),
        }
        let kind = JobKind::FlushCaches { uids: self.uids() };
        let spec = JobSpec { name: name.clone(), service: self.destination, kind };
        let call = self.worker.lease().call(self.worker.ports(), self.fence)?;
        match cluster.run_job(&call, &spec).await {
            Outcome::Applied(()) => Ok(Ok(Some(JobState::Running))),
            // The job exists, and a later poll reads it.
            Outcome::NotApplied(error) if error.kind == ErrorKind::Exists => Ok(Ok(None)),
            Outcome::NotApplied(error) if error.is_retryable() || error.kind == ErrorKind::Denied => {
                Ok(Err(error))
            }
            Outcome::NotApplied(error) => {
                Ok(Ok(Some(JobState::Failed { message: error.to_string(), cause: JobFailure::Other })))
            }
            Outcome::Unknown(error) => Ok(Err(error)),
        }
    }

    /// Returns whether an abort was requested, which does not wait for a flush.
    async fn is_aborted(&self) -> bool {
        let rollout = self.worker.ports().store.rollout(self.fence.number).await;
        matches!(rollout, Ok(Some(rollout)) if rollout.control == Some(Control::Abort))
    }
}
