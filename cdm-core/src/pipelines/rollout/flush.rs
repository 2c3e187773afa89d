//! The window's caches, flushed by one job.

use std::time::Duration;

use super::member::code;
use super::owner::{Out, Owner, flushable};
use crate::domain::rollout::{Control, Outcome as MemberOutcome};
use crate::domain::{Code, JobName, Uid};
use crate::engine::Lost;
use crate::ports::{ErrorKind, Job, JobKind, JobSpec, JobState, Outcome};

/// How soon a job is looked at after it was started; each later look is twice as far, up to the last.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LAST_LOOK: Duration = Duration::from_secs(1);

impl Owner<'_> {
    /// Flushes the caches of the window's sites. Those whose flush failed are tried again by themselves; a site that fails
    /// as often as a job may stays where it is and is counted as parked.
    ///
    /// Answers the code of what keeps it from being done, where that is no job's failure.
    pub(super) async fn flush(&mut self) -> Result<Option<Code>, Lost> {
        let mut sites: Vec<(u32, Uid)> = {
            let flushable = self.members().filter(|(_, member)| flushable(member.outcome));
            flushable.map(|(ordinal, member)| (ordinal, member.uid)).collect()
        };
        if sites.is_empty() {
            return Ok(None);
        }
        let started = self.worker.ports().clock.monotonic();
        let mut pause = FIRST_LOOK;
        loop {
            let waited = self.worker.ports().clock.monotonic().since(started);
            let state = match self.flush_job(&sites).await? {
                Ok(state) => state,
                Err(code) => return Ok(Some(code)),
            };
            let again = !self.head.job.is_multiple_of(self.platform.job_tries.max(1));
            let failed = match state {
                Some(JobState::Succeeded { failed }) if again && !failed.is_empty() => {
                    sites.retain(|(_, uid)| failed.iter().any(|(of, _)| of == uid));
                    self.next_job().await?;
                    continue;
                }
                Some(JobState::Succeeded { failed }) => failed.into_iter().map(|(uid, _)| uid).collect(),
                Some(JobState::Failed { .. }) if again => {
                    self.next_job().await?;
                    continue;
                }
                Some(JobState::Failed { .. }) => sites.iter().map(|(_, uid)| *uid).collect(),
                Some(JobState::Running) | None if self.aborted().await => Vec::new(),
                Some(JobState::Running) | None if waited < self.platform.job_patience => {
                    let clock = &self.worker.ports().clock;
                    clock.sleep_until(clock.monotonic().after(pause)).await;
                    pause = (pause * 2).min(LAST_LOOK);
                    continue;
                }
                Some(JobState::Running) | None => sites.iter().map(|(_, uid)| *uid).collect(),
            };
            let parked: Vec<Out> = sites
                .iter()
                .filter(|(_, uid)| failed.contains(uid))
                .map(|(ordinal, _)| (*ordinal, MemberOutcome::Parked, None))
                .collect();
            if !parked.is_empty() {
                self.write_outcomes(&parked, None).await?;
            }
            return Ok(None);
        }
    }

    /// Another job has the window's next try. An owner that comes after this one and finds that job has the sites that
    /// it was for; one that does not find it flushes the whole window again, which does no harm.
    async fn next_job(&mut self) -> Result<(), Lost> {
        self.commit(Vec::new(), |head| {
            head.job += 1;
            true
        })
        .await
    }

    /// One look at the window's job, which is started where it is not there.
    async fn flush_job(&self, sites: &[(u32, Uid)]) -> Result<Result<Option<JobState>, Code>, Lost> {
        let name =
            JobName::of_window("flush-caches", self.head.number, self.head.window.start, self.flush_number());
        let cluster = &self.worker.ports().cluster;
        match cluster.job(&name).await {
            Ok(Some(Job { state, .. })) => return Ok(Ok(Some(state))),
            Ok(None) => {}
            Err(error) if error.is_retryable() => return Ok(Ok(None)),
            Err(error) => return Ok(Err(code(&error))),
        }
        let kind = JobKind::FlushCaches { uids: sites.iter().map(|(_, uid)| *uid).collect() };
        let spec = JobSpec { name, service: self.head.destination(), kind };
        match cluster.run_job(&self.call()?, &spec).await {
            Outcome::Applied(()) => Ok(Ok(Some(JobState::Running))),
            Outcome::NotApplied(error) if error.kind == ErrorKind::Exists || error.is_retryable() => {
                Ok(Ok(None))
            }
            Outcome::NotApplied(error) if error.kind == ErrorKind::Denied => Ok(Err(Code::Denied)),
            Outcome::NotApplied(error) => {
                Ok(Ok(Some(JobState::Failed { message: error.to_string(), theme_missing: false })))
            }
            Outcome::Unknown(_) => Ok(Ok(None)),
        }
    }

    /// Both legs flush the same windows, under names of their own.
    fn flush_number(&self) -> u32 {
        match self.head.leg {
            crate::domain::Leg::Out => self.head.job,
            crate::domain::Leg::Back => 1_000 + self.head.job,
        }
    }

    /// Whether the flush is not worth waiting for any more.
    async fn aborted(&self) -> bool {
        let head = self.worker.ports().store.rollout(self.head.number).await;
        matches!(head, Ok(Some(head)) if head.control == Some(Control::Abort))
    }
}
