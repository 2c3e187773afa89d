//! Jobs of the cluster in memory: how they fare by the clock, and what an installation leaves.

use cdm_core::domain::{Color, MonotonicTime, Uid};
use cdm_core::ports::{Job, JobFailure, JobState};

use super::script::JobScript;
use crate::installation::{Installation, Installing};

/// What becomes of a job that installs, and then looks for the address and the administrator.
pub(super) fn installed(done: Option<(Installing, Installation)>) -> JobState {
    let failed = |message: &str, cause| JobState::Failed { message: message.to_owned(), cause };
    match done {
        None => failed("Error establishing a database connection.", JobFailure::DatabaseRefused),
        Some((Installing::Cut, _)) => failed("`install` ended with 137", JobFailure::Other),
        Some((Installing::Unavailable, _)) => {
            failed(Installation::UNAVAILABLE, JobFailure::InstallIncomplete)
        }
        Some((Installing::Whole | Installing::Already, contents)) if contents.is_complete() => {
            JobState::Succeeded { failed: Vec::new() }
        }
        Some((Installing::Whole | Installing::Already, _)) => {
            failed("Could not get 'cdm_installed' option. Does it exist?", JobFailure::InstallIncomplete)
        }
    }
}

/// A job that was started.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) owner: Option<Uid>,
    pub(super) service: Color,
    pub(super) word: &'static str,
    pub(super) since: MonotonicTime,
    pub(super) script: JobScript,
    /// Whether it has credentials that were put into the cluster for it.
    pub(super) credentials: bool,
}

impl Run {
    pub(super) fn ends(&self) -> Option<MonotonicTime> {
        (self.script.result != JobState::Running).then(|| self.since.after(self.script.takes))
    }

    pub(super) fn state(&self, now: MonotonicTime) -> JobState {
        match self.ends() {
            Some(end) if end <= now => self.script.result.clone(),
            Some(_) | None => JobState::Running,
        }
    }

    /// Removes the credentials of a job that has ended.
    pub(super) fn forget(&mut self, now: MonotonicTime) {
        self.credentials &= self.state(now) == JobState::Running;
    }

    pub(super) fn view(&self, now: MonotonicTime) -> Job {
        let state = self.state(now);
        let word = match state {
            JobState::Running => "started",
            JobState::Succeeded { .. } => "done",
            JobState::Failed { .. } => "failed",
        };
        Job { log: format!("{}: {word}", self.word), state }
    }
}
