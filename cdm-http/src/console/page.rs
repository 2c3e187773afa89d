//! A page around what it shows, and the same again whenever that changes.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use cdm_core::ports::{Clock, FeedEvent};

use super::guard::{Visit, Visitor, Wish};
use super::{assets, shape};
use crate::app::{Server, Shared};
use crate::error::Refusal;
use crate::events::Listener;
use crate::outlet::{Closed, Holder, Outlet, channel, once};

/// How soon after a look the next one is made, at the earliest,
const PACE: Duration = Duration::from_millis(250);
/// and at the latest: pods come and go, and time passes, without an event.
const AGAIN: Duration = Duration::from_secs(2);

/// A place in the navigation.
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
    /// Those that have a link.
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

/// What a page shows.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) title: String,
    pub(crate) section: Section,
    /// What stays: headings, filters, forms.
    pub(crate) head: String,
    /// What changes by itself.
    pub(crate) body: String,
}

impl View {
    /// A view of which nothing changes by itself.
    pub(crate) fn still(title: impl Into<String>, section: Section, head: String) -> Self {
        Self { title: title.into(), section, head, body: String::new() }
    }
}

#[derive(Template)]
#[template(path = "page.html")]
struct Page<'a> {
    view: &'a View,
    visitor: Option<&'a Visitor>,
    /// Where the part that changes comes from; empty where nothing does.
    live: &'a str,
}

#[derive(Template)]
#[template(path = "live.html")]
struct Live<'a> {
    live: &'a str,
    body: &'a str,
}

/// A template as text.
pub(crate) fn rendered(template: &impl Template) -> Result<String, Refusal> {
    template.render().map_err(|_| Refusal::internal())
}

/// A page that does not change by itself.
pub(crate) fn page(status: StatusCode, visitor: Option<&Visitor>, view: &View) -> Result<Response, Refusal> {
    whole(status, visitor, view, "")
}

fn whole(
    status: StatusCode,
    visitor: Option<&Visitor>,
    view: &View,
    live: &str,
) -> Result<Response, Refusal> {
    let page = Page { view, visitor, live };
    Ok((status, Html(rendered(&page)?)).into_response())
}

/// A page whose body is made anew whenever an event is `about` it: as a whole, as that part alone, or as a stream of it.
pub(crate) async fn live<F, Fut, A>(
    server: Shared,
    visit: Visit,
    about: A,
    make: F,
) -> Result<Response, Refusal>
where
    F: Fn(Shared, Arc<Visitor>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<View, Refusal>> + Send,
    A: Fn(&FeedEvent) -> bool + Send + Sync + 'static,
{
    let Visit { visitor, wish, here, from } = visit;
    if wish == Wish::Stream {
        let Some(seat) = server.seats.take(&visitor.name.actor(), from) else { return Ok(later()) };
        // From here on nothing is missed: what comes between this and the first look is seen by it, or after it.
        let listener = server.hub.listen(None).await?;
        let (feed, response) = channel(4);
        tokio::spawn(async move {
            let gauge = server.metrics.stream();
            let mut outlet = feed.outlet(&server, Arc::clone(&visitor));
            // However it ends, there is nobody left to say it to.
            let _ = follow(&server, visitor, listener, (about, make), &mut outlet).await;
            drop((gauge, seat));
        });
        return Ok(response);
    }
    let view = make(Shared::clone(&server), Arc::clone(&visitor)).await?;
    let mut response = match wish {
        Wish::Page | Wish::Stream => whole(StatusCode::OK, Some(&visitor), &view, &here)?,
        Wish::Part => Html(rendered(&Live { live: &here, body: &view.body })?).into_response(),
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("HX-Request, Accept"));
    Ok(response)
}

impl Holder for Arc<Visitor> {
    async fn serves(&self, server: &Server) -> bool {
        !matches!(self.again(server).await, Ok(None))
    }

    fn last_words(&self) -> Option<String> {
        Some(goodbye())
    }
}

/// Sends the body whenever it is another one, until the outlet closes.
async fn follow<F, Fut, A>(
    server: &Shared,
    visitor: Arc<Visitor>,
    mut listener: Listener,
    (about, make): (A, F),
    outlet: &mut Outlet<'_, Arc<Visitor>>,
) -> Result<(), Closed>
where
    F: Fn(Shared, Arc<Visitor>) -> Fut,
    Fut: Future<Output = Result<View, Refusal>>,
    A: Fn(&FeedEvent) -> bool,
{
    let clock = Arc::clone(&server.app.clock);
    let mut last = String::new();
    loop {
        // Their role may be another one by now. That the store does not answer says nothing about it.
        let visitor = match visitor.again(server).await {
            Ok(Some(now)) => Arc::new(now),
            Ok(None) => return outlet.refuse(),
            Err(_) => Arc::clone(&visitor),
        };
        let body = match make(Shared::clone(server), visitor).await {
            Ok(view) => view.body,
            Err(refusal) => trouble(&refusal.problem.detail),
        };
        if body == last {
            outlet.keep_alive().await?;
        } else {
            outlet.send(frame(&body)).await?;
            last = body;
        }
        outlet.wait(news(&mut listener, &about, &clock)).await?;
    }
}

/// Returns when there is something new, or time to look again.
async fn news<A: Fn(&FeedEvent) -> bool>(listener: &mut Listener, about: &A, clock: &Arc<dyn Clock>) {
    let looked = clock.monotonic();
    clock.sleep_until(looked.after(PACE)).await;
    let late = clock.sleep_until(looked.after(AGAIN));
    let heard = async {
        loop {
            listener.news().await;
            while let Ok(events) = listener.read().await
                && !events.is_empty()
            {
                if events.iter().any(|(_, event)| about(event)) {
                    // What follows is seen by the same look.
                    listener.again();
                    return;
                }
            }
        }
    };
    futures_util::future::select(std::pin::pin!(late), std::pin::pin!(heard)).await;
}

/// A message that is swapped in.
fn frame(html: &str) -> String {
    let lines: String = html.lines().map(|line| format!("data: {line}\n")).collect();
    format!("{lines}\n")
}

/// The last message of a session's stream, after which the page does not ask again.
fn goodbye() -> String {
    let told = "<p class=\"note bad\" role=\"status\">You are signed out. <a href=\"/console/sign-in\">Sign in \
                again</a> to go on.</p>";
    format!("{}event: gone\ndata: \n\n", frame(told))
}

/// Sends a browser that asked for a part of a page to a whole one.
pub(crate) fn led(to: &str) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert("hx-redirect", to);
    }
    response
}

/// A stream that cannot be now: the page stays as it is, and asks again later.
pub(crate) fn later() -> Response {
    once("retry: 15000\nevent: later\ndata: \n\n".to_owned())
}

/// A stream for somebody who is not signed in any more.
pub(crate) fn signed_out() -> Response {
    once(goodbye())
}

/// Says within a page what went wrong with it; the next look may be better.
fn trouble(detail: &str) -> String {
    format!("<p class=\"note bad\" role=\"status\">{}</p>", shape::escaped(&shape::sentence(detail)))
}

#[derive(Template)]
#[template(path = "refused.html")]
struct Refused<'a> {
    status: u16,
    title: &'a str,
    detail: &'a str,
    request_id: &'a str,
    errors: &'a [crate::error::FieldError],
    operation: Option<&'a str>,
    rollout: Option<&'a str>,
}

/// A refusal as people see it.
pub(crate) fn refused(visitor: Option<&Visitor>, refusal: &Refusal, request_id: &str) -> Option<Response> {
    let problem = &refusal.problem;
    let head = Refused {
        status: problem.status,
        title: &problem.title,
        detail: &problem.detail,
        request_id,
        errors: &problem.errors,
        operation: problem.operation.as_deref(),
        rollout: problem.rollout.as_deref(),
    };
    let view = View::still(problem.title.clone(), Section::None, rendered(&head).ok()?);
    page(refusal.status, visitor, &view).ok()
}
