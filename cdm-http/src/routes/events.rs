//! Server-Sent Events.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cdm_core::domain::OperationId;
use cdm_core::domain::operation::Home;
use cdm_core::ports::FeedEvent;
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::mpsc;
use utoipa::IntoParams;

use super::rollouts::RolloutId;
use crate::api::event::{Event, Frame};
use crate::api::rollout;
use crate::app::{Server, Shared};
use crate::auth::{Pass, Viewer};
use crate::error::Refusal;
use crate::events::{Listener, Place};
use crate::input::{Params, Part};

/// How often a stream's token is looked at.
pub(crate) const CHECK: Duration = Duration::from_millis(900);
/// After how long a silent stream says that it lives.
pub(crate) const ALIVE: Duration = Duration::from_secs(15);

/// Where a stream begins.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct After {
    /// The id of the last event that was seen; with the present where it is left out. `Last-Event-ID` goes before it.
    #[param(pattern = "^(0|[1-9][0-9]{0,17})$", nullable = false)]
    after: Option<String>,
}

/// What a stream is about.
#[derive(Clone, Debug)]
enum About {
    All,
    Operation(OperationId),
    Rollout(u64),
}

impl About {
    fn has(&self, event: &FeedEvent) -> bool {
        match self {
            Self::All => true,
            Self::Operation(id) => event.operation.as_ref() == Some(id),
            Self::Rollout(number) => {
                let home = event.operation.as_ref().map(|id| &id.home);
                event.rollout == Some(*number) || matches!(home, Some(Home::Rollout(of, _)) if of == number)
            }
        }
    }

    /// The last event, once the subject rests. A failed look is no rest.
    async fn end(&self, server: &Server) -> Option<String> {
        let services = &server.app.services;
        let end = match self {
            Self::All => return None,
            Self::Operation(id) => {
                let status = services.operation(id).await.ok()?.slot.status;
                let end = serde_json::json!({"operation": id.to_string(), "rollout": null, "what": status.as_str()});
                status.rests().then_some(end)?
            }
            Self::Rollout(number) => {
                let status = services.get_rollout(*number).await.ok()?.status;
                let id = rollout::id(*number);
                let end = serde_json::json!({"operation": null, "rollout": id, "what": status.as_str()});
                (!status.runnable()).then_some(end)?
            }
        };
        Some(format!("event: end\ndata: {end}\n\n"))
    }
}

/// Follows everything.
///
/// The stream does not end by itself. Events come at least once, in order for each subject.
#[utoipa::path(get, path = "/events", operation_id = "followAll", tag = "events", params(After), responses(
    (status = 200, body = Frame, content_type = "text/event-stream")))]
pub(crate) async fn all(
    State(server): State<Shared>,
    Viewer(pass): Viewer,
    Params(after): Params<After>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    open(server, pass, &after, &headers, About::All).await
}

/// Follows an operation; ends once it rests.
#[utoipa::path(get, path = "/operations/{id}/events", operation_id = "followOperation", tag = "events", params(("id" = String, Path, description = "Which operation."), After),
    responses((status = 200, body = Frame, content_type = "text/event-stream")))]
pub(crate) async fn of_operation(
    State(server): State<Shared>,
    Viewer(pass): Viewer,
    Part(id): Part<OperationId>,
    Params(after): Params<After>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    server.app.services.operation(&id).await?;
    open(server, pass, &after, &headers, About::Operation(id)).await
}

/// Follows a rollout; ends once it rests.
#[utoipa::path(get, path = "/rollouts/{id}/events", operation_id = "followRollout", tag = "events", params(("id" = String, Path, description = "Which rollout."), After),
    responses((status = 200, body = Frame, content_type = "text/event-stream")))]
pub(crate) async fn of_rollout(
    State(server): State<Shared>,
    Viewer(pass): Viewer,
    Part(id): Part<RolloutId>,
    Params(after): Params<After>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    server.app.services.get_rollout(id.0).await?;
    open(server, pass, &after, &headers, About::Rollout(id.0)).await
}

async fn open(
    server: Shared,
    pass: Option<Pass>,
    after: &After,
    headers: &HeaderMap,
    about: About,
) -> Result<Response, Refusal> {
    let last = headers.get("last-event-id").map(|id| ("Last-Event-ID", id.to_str().unwrap_or("?")));
    let after = after.after.as_deref().map(|after| ("after", after));
    let parse =
        |(field, text)| Place::parse(text).ok_or_else(|| Refusal::field(field, "this is no id of an event"));
    // Both are judged, though one goes before the other.
    let (last, after) = (last.map(parse).transpose()?, after.map(parse).transpose()?);
    let place = last.or(after);
    let seat = Seat::take(&server)?;
    let listener = server.hub.listen(place).await?;
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        let gauge = server.metrics.stream();
        follow(&server, pass.as_ref(), listener, &about, &sender).await;
        drop((gauge, seat));
    });
    Ok(streamed(receiver))
}

/// What comes out of the channel, as a stream of events.
pub(crate) fn streamed(receiver: mpsc::Receiver<String>) -> Response {
    let frames = stream::unfold(receiver, |mut receiver| async {
        let frame = receiver.recv().await?;
        Some((Ok::<_, Infallible>(Bytes::from(frame)), receiver))
    });
    let headers = [
        (header::CONTENT_TYPE.as_str(), "text/event-stream"),
        (header::CACHE_CONTROL.as_str(), "no-store"),
        ("x-accel-buffering", "no"),
    ];
    (StatusCode::OK, headers, Body::from_stream(frames)).into_response()
}

/// One of the streams that may be open.
pub(crate) struct Seat(Arc<std::sync::atomic::AtomicUsize>);

impl Seat {
    pub(crate) fn take(server: &Server) -> Result<Self, Refusal> {
        let before = server.streams.fetch_add(1, Ordering::SeqCst);
        let seat = Self(Arc::clone(&server.streams));
        if before >= server.app.settings.streams { Err(Refusal::too_many(ALIVE)) } else { Ok(seat) }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Sends what the feed has until the listener goes, the server stops, the token serves no more or the subject rests.
async fn follow(
    server: &Server,
    pass: Option<&Pass>,
    mut listener: Listener,
    about: &About,
    sender: &mpsc::Sender<String>,
) {
    let clock = &server.app.clock;
    let mut spoke = clock.monotonic();
    let mut checked = spoke;
    if sender.send(": open\n\n".to_owned()).await.is_err() {
        return;
    }
    loop {
        tokio::select! {
            () = sender.closed() => return,
            () = server.stopping.cancelled() => return,
            () = listener.news() => {}
            () = clock.sleep_until(checked.after(CHECK)) => {}
        }
        if clock.monotonic().since(checked) >= CHECK {
            checked = clock.monotonic();
            // That the store does not answer says nothing about the token.
            if let Some(pass) = pass
                && matches!(pass.look(server).await, Ok(None))
            {
                return;
            }
        }
        let end = about.end(server).await;
        let sent = send(&mut listener, about, sender).await;
        match sent {
            Some(0) => {}
            Some(_) => spoke = clock.monotonic(),
            None => return,
        }
        if let Some(end) = end {
            let _ = sender.send(end).await;
            return;
        }
        if clock.monotonic().since(spoke) >= ALIVE {
            spoke = clock.monotonic();
            if sender.try_send(": alive\n\n".to_owned()).is_err() {
                return;
            }
        }
    }
}

/// Sends all that is new; how many frames. `None` when nobody takes them.
async fn send(listener: &mut Listener, about: &About, sender: &mpsc::Sender<String>) -> Option<usize> {
    let mut count = 0;
    loop {
        let Ok(events) = listener.read().await else {
            listener.again();
            return Some(count);
        };
        if events.is_empty() {
            return Some(count);
        }
        for (place, event) in events.iter().filter(|(_, event)| about.has(event)) {
            count += 1;
            sender.send(frame(*place, event)).await.ok()?;
        }
    }
}

fn frame(place: Place, event: &FeedEvent) -> String {
    let kind = match (event.rollout, &event.operation) {
        (Some(_), _) => "rollout",
        (None, Some(_)) => "operation",
        (None, None) => "site",
    };
    let data = serde_json::to_string(&Event::from(event)).unwrap_or_default();
    format!("id: {place}\nevent: {kind}\ndata: {data}\n\n")
}
