//! The page frame, and the stream that sends the changing part of a page again.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::sse::Event;
use axum::response::{Html, IntoResponse, Response};
use cdm_core::ports::{Clock, FeedEvent};

use super::session::{CurrentUser, PageRequest, ResponseMode};
use super::{assets, format};
use crate::api::problem::FieldError;
use crate::api::{OperationId, RolloutId};
use crate::app::{AppState, SharedState};
use crate::error::ApiError;
use crate::events::EventReader;
use crate::stream::{Closed, EventWriter, Subscriber, channel, complete};

/// The shortest interval between two renderings for a stream.
const MIN_REFRESH: Duration = Duration::from_millis(250);
/// How long a page waits before it reconnects to a stream that was refused.
const RETRY_INTERVAL: Duration = Duration::from_secs(15);
/// The longest interval between two renderings for a stream: pods and ages change without an event.
const MAX_REFRESH: Duration = Duration::from_secs(2);

/// A section of the navigation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Services,
    Sites,
    Rollouts,
    Operations,
    Audit,
    None,
}

impl Section {
    /// The sections with a link in the navigation.
    pub(crate) const LINKED: [Self; 5] =
        [Self::Services, Self::Sites, Self::Rollouts, Self::Operations, Self::Audit];

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Services => "Services",
            Self::Sites => "Sites",
            Self::Rollouts => "Rollouts",
            Self::Operations => "Operations",
            Self::Audit => "Audit",
            Self::None => "",
        }
    }

    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Services => "/console/services",
            Self::Sites => "/console/sites",
            Self::Rollouts => "/console/rollouts",
            Self::Operations => "/console/operations",
            Self::Audit => "/console/audit",
            Self::None => "/console",
        }
    }
}

/// The content of a page.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) title: String,
    pub(crate) section: Section,
    /// The constant part, as HTML: headings, filters, forms.
    pub(crate) head: String,
    /// The part that is rendered again for a stream, as HTML.
    pub(crate) body: String,
}

impl View {
    /// Returns a view without a changing part.
    pub(crate) fn fixed(title: impl Into<String>, section: Section, head: String) -> Self {
        Self { title: title.into(), section, head, body: String::new() }
    }
}

#[derive(Template)]
#[template(path = "page.html")]
struct Page<'a> {
    view: &'a View,
    current_user: Option<&'a CurrentUser>,
    /// The URI of the stream of the changing part; empty if the page has none.
    live: &'a str,
}

#[derive(Template)]
#[template(path = "live.html")]
struct Live<'a> {
    live: &'a str,
    body: &'a str,
}

pub(crate) fn render(template: &impl Template) -> Result<String, ApiError> {
    template.render().map_err(|_| ApiError::internal())
}

/// Renders a page without a changing part.
pub(crate) fn page(
    status: StatusCode,
    current_user: Option<&CurrentUser>,
    view: &View,
) -> Result<Response, ApiError> {
    full_page(status, current_user, view, "")
}

fn full_page(
    status: StatusCode,
    current_user: Option<&CurrentUser>,
    view: &View,
    live: &str,
) -> Result<Response, ApiError> {
    let page = Page { view, current_user, live };
    Ok((status, Html(render(&page)?)).into_response())
}

/// Renders a page with a changing part: the complete page, the changing part, or a stream of the changing part, as the
/// request accepts. A stream renders the part again after each event for which `affects` returns `true`.
pub(crate) async fn live<F, Fut, A>(
    server: SharedState,
    request: PageRequest,
    affects: A,
    build: F,
) -> Result<Response, ApiError>
where
    F: Fn(SharedState, Arc<CurrentUser>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<View, ApiError>> + Send,
    A: Fn(&FeedEvent) -> bool + Send + Sync + 'static,
{
    let PageRequest { current_user, mode, uri, address } = request;
    if mode == ResponseMode::Stream {
        let Some(seat) = server.stream_permits.acquire(&current_user.name.actor(), address) else {
            return Ok(retry_later());
        };
        // The stream listens before the first rendering, so no event is missed: an event between the two is part of the
        // first rendering, or causes the next one.
        let listener = server.hub.reader(None).await?;
        let (feed, response) = channel(4);
        tokio::spawn(async move {
            let gauge = server.metrics.stream();
            let mut outlet = feed.writer(&server, Arc::clone(&current_user));
            // The client is gone or was already notified, so the outcome is ignored.
            let _ = send_updates(&server, current_user, listener, (affects, build), &mut outlet).await;
            drop((gauge, seat));
        });
        return Ok(response);
    }
    let view = build(SharedState::clone(&server), Arc::clone(&current_user)).await?;
    let mut response = match mode {
        ResponseMode::Page | ResponseMode::Stream => {
            full_page(StatusCode::OK, Some(&current_user), &view, &uri)?
        }
        ResponseMode::Fragment => Html(render(&Live { live: &uri, body: &view.body })?).into_response(),
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("HX-Request, Accept"));
    Ok(response)
}

impl Subscriber for Arc<CurrentUser> {
    async fn is_authorized(&self, server: &AppState) -> bool {
        !matches!(self.reload(server).await, Ok(None))
    }

    fn final_events(&self) -> Vec<Event> {
        signed_out_events()
    }
}

/// Sends the body after each change, until the outlet closes.
async fn send_updates<F, Fut, A>(
    server: &SharedState,
    current_user: Arc<CurrentUser>,
    mut listener: EventReader,
    (affects, build): (A, F),
    outlet: &mut EventWriter<'_, Arc<CurrentUser>>,
) -> Result<(), Closed>
where
    F: Fn(SharedState, Arc<CurrentUser>) -> Fut,
    Fut: Future<Output = Result<View, ApiError>>,
    A: Fn(&FeedEvent) -> bool,
{
    let clock = Arc::clone(&server.app.clock);
    let mut last = String::new();
    loop {
        // The user's role may have changed. If the store does not respond, the role at the start of the stream applies.
        let current_user = match current_user.reload(server).await {
            Ok(Some(reloaded)) => Arc::new(reloaded),
            Ok(None) => return outlet.close_unauthorized(),
            Err(_) => Arc::clone(&current_user),
        };
        let body = match build(SharedState::clone(server), current_user).await {
            Ok(view) => view.body,
            Err(error) => error_note(&error.problem.detail),
        };
        if body == last {
            outlet.keep_alive().await?;
        } else {
            outlet.send(replacement(&body)).await?;
            last = body;
        }
        outlet.wait(next_update(&mut listener, &affects, &clock)).await?;
    }
}

/// Returns after an event that affects the page, or after [`MAX_REFRESH`]; never before [`MIN_REFRESH`].
async fn next_update<A: Fn(&FeedEvent) -> bool>(
    listener: &mut EventReader,
    affects: &A,
    clock: &Arc<dyn Clock>,
) {
    let rendered = clock.monotonic();
    clock.sleep_until(rendered.after(MIN_REFRESH)).await;
    let timeout = clock.sleep_until(rendered.after(MAX_REFRESH));
    let event = async {
        loop {
            listener.changed().await;
            while let Ok(events) = listener.read().await
                && !events.is_empty()
            {
                if events.iter().any(|(_, event)| affects(event)) {
                    // The next rendering covers later events too.
                    listener.recheck();
                    return;
                }
            }
        }
    };
    futures_util::future::select(std::pin::pin!(timeout), std::pin::pin!(event)).await;
}

/// Returns an event with HTML that the page swaps in.
fn replacement(html: &str) -> Event {
    Event::default().data(html.strip_suffix('\n').unwrap_or(html))
}

/// Returns the last events of the stream of an ended session, after which the page does not reconnect.
fn signed_out_events() -> Vec<Event> {
    let note = "<p class=\"note bad\" role=\"status\">You are signed out. <a href=\"/console/sign-in\">Sign in \
                again</a> to continue.</p>";
    vec![replacement(note), Event::default().event("gone").data("gone")]
}

/// Redirects a browser that requested a fragment to a complete page.
pub(crate) fn client_redirect(to: &str) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert("hx-redirect", to);
    }
    response
}

/// Returns a stream without content, over the limit or after an error: the page keeps its content and reconnects after
/// [`RETRY_INTERVAL`].
pub(crate) fn retry_later() -> Response {
    complete(vec![Event::default().retry(RETRY_INTERVAL).event("later").data("later")])
}

/// Returns the stream of an ended session.
pub(crate) fn signed_out_stream() -> Response {
    complete(signed_out_events())
}

/// Returns the note that replaces the changing part if it cannot be rendered; the next rendering may succeed.
fn error_note(detail: &str) -> String {
    format!("<p class=\"note bad\" role=\"status\">{}</p>", format::escape(&format::sentence(detail)))
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    status: u16,
    title: &'a str,
    detail: &'a str,
    request_id: &'a str,
    errors: &'a [FieldError],
    operation: Option<&'a OperationId>,
    rollout: Option<&'a RolloutId>,
}

/// Renders an error as a page.
pub(crate) fn error_page(
    current_user: Option<&CurrentUser>,
    error: &ApiError,
    request_id: &str,
) -> Option<Response> {
    let problem = &error.problem;
    let head = ErrorPage {
        status: problem.status,
        title: &problem.title,
        detail: &problem.detail,
        request_id,
        errors: &problem.errors,
        operation: problem.operation.as_ref(),
        rollout: problem.rollout.as_ref(),
    };
    let view = View::fixed(problem.title.clone(), Section::None, render(&head).ok()?);
    page(error.status, current_user, &view).ok()
}
