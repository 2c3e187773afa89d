//! What every request goes through: its id, its log line, its count, its time limit, and the body of its refusal.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{Extensions, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cdm_core::domain::Actor;
use futures_util::future::{Either, select};

use crate::app::Shared;
use crate::client::Client;
use crate::console;
use crate::error::{PROBLEM_JSON, Refusal};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A year, as OWASP ASVS 5.0, 3.4.1 asks for.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000; includeSubDomains");
/// Characters of a request's id.
const LONGEST_ID: usize = 128;

/// The id of a request: the caller's own where it is fit to be repeated.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

/// Who asks, for the line of the access log; said by what finds it out, further inside.
#[derive(Clone, Debug, Default)]
pub(crate) struct AccessLog(Arc<OnceLock<Actor>>);

impl AccessLog {
    /// Names the actor of the request that these extensions are of.
    pub(crate) fn name(extensions: &Extensions, actor: &Actor) {
        if let Some(log) = extensions.get::<Self>() {
            // The first name stays.
            let _ = log.0.set(actor.clone());
        }
    }
}

/// Makes ids for requests that bring none.
#[derive(Debug)]
pub(crate) struct Ids {
    head: u64,
    next: AtomicU64,
}

impl Ids {
    pub(crate) fn new() -> Self {
        // The hasher's seed is random for each process and each use.
        Self { head: RandomState::new().build_hasher().finish(), next: AtomicU64::new(1) }
    }

    /// Makes a key for a form that is sent once.
    pub(crate) fn key(&self) -> String {
        format!("form-{}-{:x}", self.next(), RandomState::new().build_hasher().finish())
    }

    fn next(&self) -> String {
        format!("{:016x}-{:x}", self.head, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// Gives the request its id, counts and logs it, and writes the body of a refusal.
pub(crate) async fn finish(State(server): State<Shared>, mut request: Request, next: Next) -> Response {
    let given = request.headers().get(&REQUEST_ID).and_then(|value| value.to_str().ok());
    let fit =
        |id: &&str| (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    let id = given.filter(fit).map_or_else(|| server.ids.next(), str::to_owned);
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("unmatched", MatchedPath::as_str).to_owned();
    let method = known(request.method());
    let page = console::is_page(request.uri().path());
    // A browser would keep it for all ports of a loopback name, and other programs serve these.
    let hsts = Client::found(request.extensions()).has_tls() && !console::is_loopback(request.headers());
    let (address, log) = (Client::found(request.extensions()).address, AccessLog::default());
    request.extensions_mut().insert(RequestId(id.clone()));
    request.extensions_mut().insert(log.clone());

    let clock = &server.app.clock;
    let (since, running) = (clock.monotonic(), server.metrics.begin());
    let mut response = refused(next.run(request).await, &id, page);
    drop(running);
    let took = clock.monotonic().since(since);
    let status = response.status().as_u16();
    server.metrics.answered(method, &route, status, took);
    let actor = log.0.get().map(Actor::as_str);
    let address = address.map(tracing::field::display);
    tracing::info!(request_id = %id, actor, address, method, route, status, took_ms = took.as_millis(), "answered");
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, value);
    }
    // A browser takes an answer for what it says it is.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // An answer is kept by no cache unless its route says otherwise.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if hsts {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
    }
    response
}

/// Methods as labels; a caller cannot make new ones up.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}

/// Writes the body of a refusal, also of one that a library made: a problem, or a page where people look.
fn refused(mut response: Response, id: &str, page: bool) -> Response {
    let status = response.status();
    let refusal = response.extensions_mut().remove::<Refusal>();
    let bare = (status.is_client_error() || status.is_server_error()).then(|| Refusal::of_status(status));
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let ours = kind.is_some_and(|kind| kind == "application/json" || kind.starts_with("text/html"));
    let Some(mut refusal) = refusal.or_else(|| bare.filter(|_| !ours)) else { return response };
    if page && let Some(shown) = console::refusal(&refusal, id) {
        return shown;
    }
    id.clone_into(&mut refusal.problem.request_id);
    let body = serde_json::to_vec(&refusal.problem).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    *response.body_mut() = Body::from(body);
    response
}

/// Ends a request that takes too long.
pub(crate) async fn in_time(State(server): State<Shared>, request: Request, next: Next) -> Response {
    let until = server.app.clock.monotonic().after(server.app.settings.timeout);
    let late = server.app.clock.sleep_until(until);
    match select(std::pin::pin!(next.run(request)), late).await {
        Either::Left((response, _)) => response,
        Either::Right(((), _)) => Refusal::timed_out().into_response(),
    }
}

/// The answer to a panic; what it said goes to the log alone.
pub(crate) fn panicked(what: Box<dyn std::any::Any + Send + 'static>) -> Response {
    let text = what.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| what.downcast_ref::<&'static str>().copied()).unwrap_or("of no text");
    tracing::error!(panic = text, "a handler panicked");
    Refusal::of_status(StatusCode::INTERNAL_SERVER_ERROR).into_response()
}
