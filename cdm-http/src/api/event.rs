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

/// One frame of a stream. Lines that begin with a colon only show that the stream lives.
#[derive(Debug, Serialize, ToSchema)]
pub struct Frame {
    /// Its place in the feed, for `Last-Event-ID`; the last frame of a stream that ends has none.
    pub id: Option<String>,
    /// What it is about; `end` says that the stream's subject rests.
    pub event: FrameKind,
    /// JSON: an `Event`; of `end` only its `operation`, `rollout` and `what`.
    #[schema(content_media_type = "application/json")]
    pub data: String,
}

/// What a frame is about.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FrameKind {
    /// An operation.
    Operation,
    /// A rollout, or one of its operations.
    Rollout,
    /// A site.
    Site,
    /// The end of the stream's subject.
    End,
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
