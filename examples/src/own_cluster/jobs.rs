//! Jobs: each runs once, for a while, in the image that its service ran when it was started.

use std::collections::BTreeMap;
use std::time::Duration;

use cdm_core::domain::{JobName, MonotonicTime, Uid};
use cdm_core::ports::{Job, JobFailure, JobSpec, JobState};

use super::Image;

/// How long a job runs.
const TAKES: Duration = Duration::from_secs(2);

/// Every job that was started and not removed since.
#[derive(Debug, Default)]
pub(super) struct Jobs(BTreeMap<JobName, Run>);

#[derive(Debug)]
struct Run {
    /// The one site it belongs to; none for a batch, which goes on when one of its sites is released.
    owner: Option<Uid>,
    word: &'static str,
    image: Image,
    ends: MonotonicTime,
}

impl Jobs {
    /// Starts a job, and answers when it will end.
    pub(super) fn start(&mut self, spec: &JobSpec, image: Image, now: MonotonicTime) -> MonotonicTime {
        let ends = now.after(TAKES);
        let run = Run { owner: spec.kind.uid(), word: spec.kind.word(), image, ends };
        self.0.insert(spec.name.clone(), run);
        ends
    }

    /// Whose the job of that name is; `None` where there is none.
    pub(super) fn owner(&self, name: &JobName) -> Option<Option<Uid>> {
        self.0.get(name).map(|run| run.owner)
    }

    /// The jobs of a uid.
    pub(super) fn of(&self, uid: Uid) -> impl Iterator<Item = &JobName> {
        self.0.iter().filter(move |(_, run)| run.owner == Some(uid)).map(|(name, _)| name)
    }

    /// Removes the jobs of a uid, and answers which.
    pub(super) fn remove_of(&mut self, uid: Uid) -> Vec<JobName> {
        self.0.extract_if(.., |_, run| run.owner == Some(uid)).map(|(name, _)| name).collect()
    }

    /// A job as it is now.
    pub(super) fn view(&self, name: &JobName, now: MonotonicTime) -> Option<Job> {
        let run = self.0.get(name)?;
        let (state, said) = if now < run.ends {
            (JobState::Running, "started")
        } else if let Some(complaint) = run.image.complaint() {
            let message = complaint.to_owned();
            (JobState::Failed { message, cause: JobFailure::Other }, complaint)
        } else {
            (JobState::Succeeded { failed: Vec::new() }, "done")
        };
        Some(Job { log: format!("{}: {said}", run.word), state })
    }
}
