//! Jobs: each runs once, for a fixed time, with the image that its service had at the start.

use std::collections::BTreeMap;
use std::time::Duration;

use cdm_core::domain::{JobName, MonotonicTime, Uid};
use cdm_core::ports::{Job, JobFailure, JobSpec, JobState};

use super::Image;

const JOB_DURATION: Duration = Duration::from_secs(2);

/// All jobs that were started and not removed.
#[derive(Debug, Default)]
pub(super) struct Jobs(BTreeMap<JobName, Run>);

#[derive(Debug)]
struct Run {
    /// The site that owns the job; `None` for a batch, which continues when one of its sites is released.
    owner: Option<Uid>,
    word: &'static str,
    image: Image,
    ends: MonotonicTime,
}

impl Jobs {
    /// Starts a job, and returns the time at which it will end.
    pub(super) fn start(&mut self, spec: &JobSpec, image: Image, now: MonotonicTime) -> MonotonicTime {
        let ends = now.after(JOB_DURATION);
        let run = Run { owner: spec.kind.uid(), word: spec.kind.word(), image, ends };
        self.0.insert(spec.name.clone(), run);
        ends
    }

    /// Returns the owner of the job with this name; `None` if there is no such job.
    pub(super) fn owner(&self, name: &JobName) -> Option<Option<Uid>> {
        self.0.get(name).map(|run| run.owner)
    }

    pub(super) fn of(&self, uid: Uid) -> impl Iterator<Item = &JobName> {
        self.0.iter().filter(move |(_, run)| run.owner == Some(uid)).map(|(name, _)| name)
    }

    /// Removes the jobs of a uid, and returns their names.
    pub(super) fn remove_of(&mut self, uid: Uid) -> Vec<JobName> {
        self.0.extract_if(.., |_, run| run.owner == Some(uid)).map(|(name, _)| name).collect()
    }

    /// Returns the current state of a job.
    pub(super) fn view(&self, name: &JobName, now: MonotonicTime) -> Option<Job> {
        let run = self.0.get(name)?;
        let (state, line) = if now < run.ends {
            (JobState::Running, "started")
        } else if let Some(failure_message) = run.image.failure_message() {
            let message = failure_message.to_owned();
            (JobState::Failed { message, cause: JobFailure::Other }, failure_message)
        } else {
            (JobState::Succeeded { failed: Vec::new() }, "done")
        };
        Some(Job { log: format!("{}: {line}", run.word), state })
    }
}
