//! Events in event streams: the JSON of `data:`.

use cdm_core::ports::FeedEvent;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{OperationId, RolloutId, SubjectId, Time};

/// An event: a change of an operation, a rollout or a site.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// When the change happened.
    pub at: Time,
    /// The object of the event: `site-<id>`, `service-<selector>` or `fleet`.
    #[schema(required = true)]
    pub subject: Option<SubjectId>,
    /// The id of the operation; null if the event concerns no operation.
    #[schema(required = true)]
    pub operation: Option<OperationId>,
    /// The id of the rollout; null if the event concerns no rollout.
    #[schema(required = true)]
    pub rollout: Option<RolloutId>,
    /// The change: a status, or `step` with the name of the step.
    pub what: String,
}

/// One frame of a stream. Lines that start with a colon only keep the connection alive.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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

impl FrameKind {
    /// Returns the value of the field `event:`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operation => "operation",
            Self::Rollout => "rollout",
            Self::Site => "site",
            Self::End => "end",
        }
    }
}

/// The `data` of the last frame of a stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EndOfStream {
    /// The operation of the stream; null for the stream of a rollout.
    pub operation: Option<OperationId>,
    /// The rollout of the stream; null for the stream of an operation.
    pub rollout: Option<RolloutId>,
    /// The status of the operation or rollout.
    pub what: String,
}

impl From<&FeedEvent> for Event {
    fn from(event: &FeedEvent) -> Self {
        Self {
            at: event.at.into(),
            subject: event.subject.as_ref().map(SubjectId::from),
            operation: event.operation.as_ref().map(OperationId::from),
            rollout: event.rollout.map(RolloutId::from_number),
            what: event.what.clone(),
        }
    }
}
