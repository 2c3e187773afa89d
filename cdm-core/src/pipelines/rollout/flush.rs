//! A window's caches, flushed by one job, and by further ones for the sites that it failed for.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::select;

use super::driver::{Out, RolloutRun, flushable};
use super::member::Resolution;
use super::why::Why;
use crate::domain::rollout::{Control, MemberOutcome, Window};
use crate::domain::{Color, Direction, Fence, JobName, Uid};
use crate::engine::{Backoff, Lost, Worker};
use crate::pipelines::PipelineSettings;
use crate::ports::{
    ChangeCursor, Changed, ErrorKind, Job, JobFailure, JobKind, JobSpec, JobState, Outcome, PortError,
};

/// What the reason of a member begins with whose caches were not flushed after its move.
pub(crate) const NOT_FLUSHED: &str = "its caches were not flushed";

/// How soon a job is looked at after it was started; each later look is twice as far, up to the last.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LAST_LOOK: Duration = Duration::from_secs(1);
/// How many looks in a row the cluster may not answer before the rollout waits for it under a reason of its own.
const TROUBLES: u32 = 4;

/// The flush of a window. It has what it needs of the rollout, which goes on beside it.
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
    /// Why the last job failed for a site.
    why: BTreeMap<Uid, String>,
}

/// What came of a flush.
#[derive(Debug)]
pub(super) enum Flushed {
    /// It was done, but for these sites, which stay where they are and count as parked.
    But(Vec<Out>),
    /// The cluster runs no job for now, and why.
    Blocked(Why),
    /// The process wants to end; whoever comes next finds the job.
    Stopping,
}

impl<'a> RolloutRun<'a> {
    /// The flush of that window's sites, by the jobs of that round.
    pub(super) fn flush_of(&self, window: Window, round: u32) -> Flush<'a> {
        let flushable = self.members_of(window).filter(|(_, member)| flushable(member.outcome));
        Flush {
            worker: self.worker,
            settings: self.settings,
            fence: Fence::new(self.head.number, self.head.term),
            direction: self.head.direction,
            destination: self.head.destination(),
            start: window.start,
            round,
            sites: flushable.map(|(ordinal, member)| (ordinal, member.uid)).collect(),
            why: BTreeMap::new(),
        }
    }
}

impl Flush<'_> {
    /// Flushes. Those whose flush failed are tried again by themselves, as often as a job may fail. An owner that comes
    /// after this one goes through the same jobs in the same order, and finds those that were there.
    pub(super) async fn run(mut self) -> Result<Flushed, Lost> {
        let clock = &self.worker.ports().clock;
        let started = clock.monotonic();
        let mut pauses = Backoff::new(FIRST_LOOK, LAST_LOOK);
        let mut mark = self.mark().await;
        let tries = self.settings.job_tries.max(1);
        let (mut attempt, mut troubles) = (1, 0);
        while !self.sites.is_empty() {
            let waited = clock.monotonic().since(started);
            let name = self.name((self.round - 1) * tries + attempt);
            let state = match self.look(&name).await? {
                Ok(state) => {
                    troubles = 0;
                    state
                }
                Err(error) => {
                    troubles += 1;
                    if troubles == TROUBLES || error.kind == ErrorKind::Denied {
                        return Ok(Flushed::Blocked(Why::from(&error)));
                    }
                    None
                }
            };
            let failed: Vec<(Uid, String)> = match state {
                // What the product judges by; the seeded bug trusts the end of the job.
                Some(JobState::Succeeded { failed }) if crate::bug!(ExitProvesFlush) => failed
                    .into_iter()
                    .filter(|(_, why)| JobFailure::of_output(why) != JobFailure::EndedEarly)
                    .collect(),
                Some(JobState::Succeeded { failed }) => failed,
                Some(JobState::Failed { message, .. }) => {
                    self.all_for(&format!("the job `{name}` failed: {message}"))
                }
                Some(JobState::Running) | None if self.worker.stopping() => return Ok(Flushed::Stopping),
                Some(JobState::Running) | None if self.aborted().await => break,
                Some(JobState::Running) | None if waited < self.settings.job_timeout => {
                    self.news(&name, &mut mark, pauses.next_pause()).await;
                    continue;
                }
                Some(JobState::Running) | None => {
                    attempt = tries;
                    let waited = waited.as_secs();
                    self.all_for(&format!("the job `{name}` has not ended after {waited} s"))
                }
            };
            self.why = failed.into_iter().collect();
            self.sites.retain(|(_, uid)| self.why.contains_key(uid));
            if attempt == tries {
                let parked = self.sites.iter().map(|(ordinal, uid)| {
                    let why = self.why.get(uid).map(|why| format!("{NOT_FLUSHED}: {why}"));
                    let came = Resolution { outcome: MemberOutcome::Parked, why, digest: None };
                    Out { ordinal: *ordinal, came }
                });
                return Ok(Flushed::But(parked.collect()));
            }
            attempt += 1;
        }
        Ok(Flushed::But(Vec::new()))
    }

    /// From where on the cluster's news is of interest.
    async fn mark(&self) -> ChangeCursor {
        let now = self.worker.ports().cluster.changes(ChangeCursor::default(), Duration::ZERO).await;
        now.map(|(_, mark)| mark).unwrap_or_default()
    }

    /// Returns when the job has changed, or after the pause.
    async fn news(&self, name: &JobName, mark: &mut ChangeCursor, pause: Duration) {
        let ports = self.worker.ports();
        let timer = ports.clock.sleep_until(ports.clock.monotonic().after(pause));
        let news = async {
            let heard = ports.cluster.changes(*mark, pause).await;
            if let Ok((changed, next)) = heard {
                *mark = next;
                let it = |one: &Changed| match one {
                    Changed::Job(of) => of == name,
                    Changed::Anything => true,
                    Changed::Service(_) => false,
                };
                if changed.iter().any(it) {
                    return;
                }
            }
            std::future::pending().await
        };
        select(Box::pin(news), timer).await;
    }

    /// Every site that is still to be flushed, with the one reason.
    fn all_for(&self, why: &str) -> Vec<(Uid, String)> {
        self.all().into_iter().map(|uid| (uid, why.to_owned())).collect()
    }

    fn all(&self) -> Vec<Uid> {
        self.sites.iter().map(|(_, uid)| *uid).collect()
    }

    /// The job of that number. Both legs flush the same windows, under names of their own.
    fn name(&self, number: u32) -> JobName {
        let number = match self.direction {
            Direction::Forward => number,
            Direction::Rollback => 1_000 + number,
        };
        JobName::of_window("flush-caches", self.fence.number, self.start, number)
    }

    /// One look at a job, which is started where it is not there.
    async fn look(&self, name: &JobName) -> Result<Result<Option<JobState>, PortError>, Lost> {
        let cluster = &self.worker.ports().cluster;
        match cluster.job(name).await {
            Ok(Some(Job { state, .. })) => return Ok(Ok(Some(state))),
            Ok(None) => {}
            Err(error) => return Ok(Err(error)),
        }
        let kind = JobKind::FlushCaches { uids: self.all() };
        let spec = JobSpec { name: name.clone(), service: self.destination, kind };
        let call = self.worker.lease().call(self.worker.ports(), self.fence)?;
        match cluster.run_job(&call, &spec).await {
            Outcome::Applied(()) => Ok(Ok(Some(JobState::Running))),
            // It was there after all; a later look sees it.
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

    /// Whether the flush is not worth waiting for any more.
    async fn aborted(&self) -> bool {
        let head = self.worker.ports().store.rollout(self.fence.number).await;
        matches!(head, Ok(Some(head)) if head.control == Some(Control::Abort))
    }
}
