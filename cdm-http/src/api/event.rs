//! An event on the wire: what `data:` holds.

use cdm_core::ports::FeedEvent;
use serde::Serialize;
use utoipa::ToSchema;

use super::{rollout, time};

/// Something that happened.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Event {
    /// When.
    #[schema(format = DateTime)]
    pub at: String,
    /// Whom it is about: `site-<id>`, `service-<selector>` or `fleet`.
    #[schema(required = true)]
    pub subject: Option<String>,
    /// The operation.
    #[schema(required = true)]
    pub operation: Option<String>,
    /// The rollout.
    #[schema(required = true)]
    pub rollout: Option<String>,
    /// What: a status's word, or `step` with the step's name.
    pub what: String,
}

impl From<&FeedEvent> for Event {
    fn from(event: &FeedEvent) -> Self {
        Self {
            at: time(event.at),
            subject: event.subject.as_ref().map(ToString::to_string),
            operation: event.operation.as_ref().map(ToString::to_string),
            rollout: event.rollout.map(rollout::id),
            what: event.what.clone(),
        }
    }
}
