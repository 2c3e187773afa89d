//! Routes of event streams (Server-Sent Events).

use std::pin::pin;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{Response, sse};
use cdm_core::domain::OperationId;
use cdm_core::domain::operation::OperationParent;
use cdm_core::ports::FeedEvent;
use futures_util::future::select;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::api;
use crate::api::RolloutId;
use crate::api::event::{EndOfStream, Event, Frame, FrameKind};
use crate::app::{AppState, SharedState};
use crate::auth::{PresentedToken, StreamCaller};
use crate::error::ApiError;
use crate::events::{EventCursor, EventReader};
use crate::extract::{Numbered, PathParam, QueryParams};
use crate::stream::{CHECK_INTERVAL, Closed, EventWriter, KEEP_ALIVE, Subscriber, channel};

/// The start of a stream.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct After {
    /// The id of the last received event; the stream starts after it. Without it, the stream starts with the next event.
    /// `Last-Event-ID` takes precedence.
    #[param(pattern = "^(0|[1-9][0-9]{0,17})$", nullable = false)]
    after: Option<String>,
}

/// The subject of a stream.
#[derive(Clone, Debug)]
enum StreamSubject {
    All,
    Operation(OperationId),
    Rollout(u64),
}

impl StreamSubject {
    fn contains(&self, event: &FeedEvent) -> bool {
        match self {
            Self::All => true,
            Self::Operation(id) => event.operation.as_ref() == Some(id),
            Self::Rollout(number) => {
                let parent = event.operation.as_ref().map(|id| &id.parent);
                event.rollout == Some(*number)
                    || matches!(parent, Some(OperationParent::Rollout(of, _)) if of == number)
            }
        }
    }

    /// Returns the last event of the stream once the operation has ended or is parked, or the rollout has ended, halted or
    /// paused. If the store does not respond, the stream continues.
    async fn end(&self, server: &AppState) -> Option<sse::Event> {
        let manager = &server.app.manager;
        let end = match self {
            Self::All => return None,
            Self::Operation(id) => {
                let status = manager.operation(id).await.ok()?.state.status;
                let operation = Some(api::OperationId::from(id));
                let end = EndOfStream { operation, rollout: None, what: status.to_string() };
                status.is_settled().then_some(end)?
            }
            Self::Rollout(number) => {
                let status = manager.get_rollout(*number).await.ok()?.status;
                let rollout = Some(RolloutId::from_number(*number));
                let end = EndOfStream { operation: None, rollout, what: status.as_str().to_owned() };
                (!status.runnable()).then_some(end)?
            }
        };
        let data = serde_json::to_string(&end).unwrap_or_default();
        Some(sse::Event::default().event(FrameKind::End.as_str()).data(data))
    }
}

/// Streams the events of the whole platform.
///
/// The stream does not end by itself. Each event is sent at least once, and the events of one subject in order.
#[utoipa::path(get, path = "/events", operation_id = "followAll", tag = "events", params(After), responses(
    (status = 200, body = Frame, content_type = "text/event-stream")))]
pub(crate) async fn all(
    State(server): State<SharedState>,
    caller: StreamCaller,
    QueryParams(after): QueryParams<After>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    open(server, caller, &after, &headers, StreamSubject::All).await
}

/// Streams the events of an operation, until it ends or is parked.
#[utoipa::path(get, path = "/operations/{id}/events", operation_id = "followOperation", tag = "events", params(("id" = String, Path, description = "The id of the operation."), After),
    responses((status = 200, body = Frame, content_type = "text/event-stream")))]
pub(crate) async fn of_operation(
    State(server): State<SharedState>,
    caller: StreamCaller,
    PathParam(id): PathParam<OperationId>,
    QueryParams(after): QueryParams<After>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    server.app.manager.operation(&id).await?;
    open(server, caller, &after, &headers, StreamSubject::Operation(id)).await
}

/// Streams the events of a rollout, until it ends, halts or is paused.
#[utoipa::path(get, path = "/rollouts/{id}/events", operation_id = "followRollout", tag = "events", params(("id" = String, Path, description = "The id of the rollout."), After),
    responses((status = 200, body = Frame, content_type = "text/event-stream")))]
pub(crate) async fn of_rollout(
    State(server): State<SharedState>,
    caller: StreamCaller,
    PathParam(rollout): PathParam<Numbered<RolloutId>>,
    QueryParams(after): QueryParams<After>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    server.app.manager.get_rollout(rollout.number).await?;
    open(server, caller, &after, &headers, StreamSubject::Rollout(rollout.number)).await
}

async fn open(
    server: SharedState,
    caller: StreamCaller,
    after: &After,
    headers: &HeaderMap,
    subject: StreamSubject,
) -> Result<Response, ApiError> {
    let last = headers.get("last-event-id").map(|id| ("Last-Event-ID", id.to_str().unwrap_or("?")));
    let after = after.after.as_deref().map(|after| ("after", after));
    let parse = |(field, text)| {
        EventCursor::parse(text).ok_or_else(|| ApiError::field(field, "this is not the id of an event"))
    };
    // An invalid value is rejected even if the other value takes precedence.
    let (last, after) = (last.map(parse).transpose()?, after.map(parse).transpose()?);
    let cursor = last.or(after);
    let permit = server.stream_permits.acquire(&caller.actor, caller.address);
    let permit = permit.ok_or_else(|| ApiError::too_many(KEEP_ALIVE))?;
    let reader = server.hub.reader(cursor).await?;
    let (sender, response) = channel(64);
    tokio::spawn(async move {
        let gauge = server.metrics.stream();
        // The stream is closed in every case, so there is no error to report.
        let _ = copy_events(&server, &mut sender.writer(&server, caller.presented), reader, &subject).await;
        drop((gauge, permit));
    });
    Ok(response)
}

impl Subscriber for Option<PresentedToken> {
    async fn is_authorized(&self, server: &AppState) -> bool {
        match self {
            Some(presented) => !matches!(presented.validate(server).await, Ok(None)),
            None => true,
        }
    }
}

/// Sends the events of the subject until the stream is closed or the subject ends.
async fn copy_events(
    server: &AppState,
    writer: &mut EventWriter<'_, Option<PresentedToken>>,
    mut reader: EventReader,
    subject: &StreamSubject,
) -> Result<(), Closed> {
    writer.send(sse::Event::default().comment("open")).await?;
    loop {
        // The subject is also checked without new events, since an earlier check may have failed.
        let timeout = server.app.clock.sleep_until(server.app.clock.monotonic().after(CHECK_INTERVAL));
        let next = async { drop(select(pin!(reader.changed()), timeout).await) };
        writer.wait(next).await?;
        let end = subject.end(server).await;
        send_new_events(&mut reader, subject, writer).await?;
        if let Some(end) = end {
            return writer.send(end).await;
        }
        writer.keep_alive().await?;
    }
}

async fn send_new_events(
    reader: &mut EventReader,
    subject: &StreamSubject,
    writer: &mut EventWriter<'_, Option<PresentedToken>>,
) -> Result<(), Closed> {
    loop {
        let Ok(events) = reader.read().await else {
            reader.recheck();
            return Ok(());
        };
        if events.is_empty() {
            return Ok(());
        }
        writer.check().await?;
        for (cursor, event) in events.iter().filter(|(_, event)| subject.contains(event)) {
            writer.send(encode(*cursor, event)).await?;
        }
    }
}

fn encode(cursor: EventCursor, event: &FeedEvent) -> sse::Event {
    let kind = match (event.rollout, &event.operation) {
        (Some(_), _) => FrameKind::Rollout,
        (None, Some(_)) => FrameKind::Operation,
        (None, None) => FrameKind::Site,
    };
    let data = serde_json::to_string(&Event::from(event)).unwrap_or_default();
    sse::Event::default().id(cursor.to_string()).event(kind.as_str()).data(data)
}
