//! What a test says beforehand of how pods and jobs of a fake cluster fare.

use std::time::Duration;

use cdm_core::ports::{JobState, PodFailure};

/// How pods of a digest fare, counted from the moment a service is given it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageScript {
    /// When all of them are available; `None` for never.
    pub ready_after: Option<Duration>,
    /// When something begins to keep them from it, for good, and what.
    pub failure: Option<(Duration, PodFailure)>,
}

impl Default for ImageScript {
    /// Ready after 10 seconds.
    fn default() -> Self {
        Self { ready_after: Some(Duration::from_secs(10)), failure: None }
    }
}

/// How a job fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobScript {
    /// How long it runs.
    pub takes: Duration,
    /// What becomes of it then; [`JobState::Running`] for one that never ends.
    pub result: JobState,
}

impl Default for JobScript {
    /// Done after 3 seconds, with no site left out.
    fn default() -> Self {
        Self { takes: Duration::from_secs(3), result: JobState::Succeeded { failed: Vec::new() } }
    }
}
