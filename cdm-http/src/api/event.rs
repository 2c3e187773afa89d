//! Events in event streams: the JSON of `data:`.

use cdm_core::ports::FeedEvent;
use serde::Serialize;
use utoipa::ToSchema;

use super::{rollout, time};

/// An event: a change of an operation, a rollout or a site.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Event {
    /// When the change happened.
    #[schema(format = DateTime)]
    pub at: String,
    /// The object of the event: `site-<id>`, `service-<selector>` or `fleet`.
    #[schema(required = true)]
    pub subject: Option<String>,
    /// The id of the operation; null if the event concerns no operation.
    #[schema(required = true)]
    pub operation: Option<String>,
    /// The id of the rollout; null if the event concerns no rollout.
    #[schema(required = true)]
    pub rollout: Option<String>,
    /// The change: a status, or `step` with the name of the step.
    pub what: String,
}

/// One frame of a stream. Lines that start with a colon only keep the connection alive.
#[derive(Debug, Serialize, ToSchema)]
pub struct Frame {
    /// The position in the feed, for `Last-Event-ID`; absent in the frame `end`.
    pub id: Option<String>,
    /// The kind of the event's object; `end` if the operation or rollout of the stream has ended or waits for a user.
    pub event: FrameKind,
    /// An `Event` as JSON; in the frame `end` only its `operation`, `rollout` and `what`.
    #[schema(content_media_type = "application/json")]
    pub data: String,
}

/// The kind of a frame.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FrameKind {
    /// An event of an operation.
    Operation,
    /// An event of a rollout, or of one of its operations.
    Rollout,
    /// An event of a site.
    Site,
    /// The last frame of a stream whose operation or rollout has ended or waits for a user.
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
