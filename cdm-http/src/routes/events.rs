//! Server-Sent Events.

use std::pin::pin;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use cdm_core::domain::OperationId;
use cdm_core::domain::operation::OperationParent;
use cdm_core::ports::FeedEvent;
use futures_util::future::select;
use serde::Deserialize;
use utoipa::IntoParams;

use super::rollouts::RolloutId;
use crate::api::event::{Event, Frame};
use crate::api::rollout;
use crate::app::{Server, Shared};
use crate::auth::{Pass, Viewer};
use crate::error::Refusal;
use crate::events::{Listener, Place};
use crate::input::{Params, Part};
use crate::outlet::{ALIVE, CHECK, Closed, Holder, Outlet, channel};

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
                let parent = event.operation.as_ref().map(|id| &id.parent);
                event.rollout == Some(*number)
                    || matches!(parent, Some(OperationParent::Rollout(of, _)) if of == number)
            }
        }
    }

    /// The last event, once the subject rests. A failed look is no rest.
    async fn end(&self, server: &Server) -> Option<String> {
        let services = &server.app.manager;
        let end = match self {
            Self::All => return None,
            Self::Operation(id) => {
                let status = services.operation(id).await.ok()?.state.status;
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
    viewer: Viewer,
    Params(after): Params<After>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    open(server, viewer, &after, &headers, About::All).await
}

/// Follows an operation; ends once it rests.
#[utoipa::path(get, path = "/operations/{id}/events", operation_id = "followOperation", tag = "events", params(("id" = String, Path, description = "Which operation."), After),
    responses((status = 200, body = Frame, content_type = "text/event-stream")))]
pub(crate) async fn of_operation(
    State(server): State<Shared>,
    viewer: Viewer,
    Part(id): Part<OperationId>,
    Params(after): Params<After>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    server.app.manager.operation(&id).await?;
    open(server, viewer, &after, &headers, About::Operation(id)).await
}

/// Follows a rollout; ends once it rests.
#[utoipa::path(get, path = "/rollouts/{id}/events", operation_id = "followRollout", tag = "events", params(("id" = String, Path, description = "Which rollout."), After),
    responses((status = 200, body = Frame, content_type = "text/event-stream")))]
pub(crate) async fn of_rollout(
    State(server): State<Shared>,
    viewer: Viewer,
    Part(id): Part<RolloutId>,
    Params(after): Params<After>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    server.app.manager.get_rollout(id.0).await?;
    open(server, viewer, &after, &headers, About::Rollout(id.0)).await
}

async fn open(
    server: Shared,
    viewer: Viewer,
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
    let seat = server.seats.take(&viewer.actor, viewer.address).ok_or_else(|| Refusal::too_many(ALIVE))?;
    let listener = server.hub.listen(place).await?;
    let (feed, response) = channel(64);
    tokio::spawn(async move {
        let gauge = server.metrics.stream();
        // However it ends, there is nobody left to say it to.
        let _ = follow(&server, &mut feed.outlet(&server, viewer.pass), listener, &about).await;
        drop((gauge, seat));
    });
    Ok(response)
}

impl Holder for Option<Pass> {
    async fn serves(&self, server: &Server) -> bool {
        match self {
            Some(pass) => !matches!(pass.look(server).await, Ok(None)),
            None => true,
        }
    }
}

/// Sends what the feed has until the outlet closes or the subject rests.
async fn follow(
    server: &Server,
    outlet: &mut Outlet<'_, Option<Pass>>,
    mut listener: Listener,
    about: &About,
) -> Result<(), Closed> {
    outlet.send(": open\n\n".to_owned()).await?;
    loop {
        // The subject is looked at again without news, too: a look may have failed.
        let look = server.app.clock.sleep_until(server.app.clock.monotonic().after(CHECK));
        let news = async { drop(select(pin!(listener.news()), look).await) };
        outlet.wait(news).await?;
        let end = about.end(server).await;
        send(&mut listener, about, outlet).await?;
        if let Some(end) = end {
            return outlet.send(end).await;
        }
        outlet.keep_alive().await?;
    }
}

/// Sends all that is new.
async fn send(
    listener: &mut Listener,
    about: &About,
    outlet: &mut Outlet<'_, Option<Pass>>,
) -> Result<(), Closed> {
    loop {
        let Ok(events) = listener.read().await else {
            listener.again();
            return Ok(());
        };
        if events.is_empty() {
            return Ok(());
        }
        outlet.check().await?;
        for (place, event) in events.iter().filter(|(_, event)| about.has(event)) {
            outlet.send(frame(*place, event)).await?;
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
