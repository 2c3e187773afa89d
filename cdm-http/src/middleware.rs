//! Middleware of every request: request id, access log, metrics, timeout, and the body of error responses.

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::future::{Either, select};

use crate::app::SharedState;
use crate::client::Client;
use crate::console;
use crate::error::{ApiError, PROBLEM_JSON};
use crate::request_id::{AccessLog, RequestId};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// One year, as OWASP ASVS 5.0, 3.4.1 requires.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000; includeSubDomains");
/// The maximum length of a request id, in characters.
const MAX_ID_LENGTH: usize = 128;

/// Assigns the request id, records metrics and the access log line, and writes the body of an error response.
pub(crate) async fn finish(State(server): State<SharedState>, mut request: Request, next: Next) -> Response {
    let header = request.headers().get(&REQUEST_ID).and_then(|value| value.to_str().ok());
    let valid =
        |id: &&str| (1..=MAX_ID_LENGTH).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    let id = header.filter(valid).map_or_else(|| server.request_ids.next(), str::to_owned);
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("unmatched", MatchedPath::as_str).to_owned();
    let method = method_label(request.method());
    let page = console::is_page(request.uri().path());
    // A browser would apply HSTS to all ports of a loopback name, where other programs may listen.
    let hsts =
        Client::from_extensions(request.extensions()).has_tls() && !console::is_loopback(request.headers());
    let (address, log) = (Client::from_extensions(request.extensions()).address, AccessLog::default());
    request.extensions_mut().insert(RequestId(id.clone()));
    request.extensions_mut().insert(log.clone());

    let clock = &server.app.clock;
    let (started, running) = (clock.monotonic(), server.metrics.begin());
    let mut response = with_problem_body(next.run(request).await, &id, page);
    drop(running);
    let took = clock.monotonic().since(started);
    let status = response.status().as_u16();
    server.metrics.record_response(method, &route, status, took);
    let actor = log.actor();
    let address = address.map(tracing::field::display);
    tracing::info!(request_id = %id, actor, address, method, route, status, took_ms = took.as_millis(), "answered");
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, value);
    }
    // Browsers must not guess the content type.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Responses are not cached unless their route sets the header.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if hsts {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
    }
    response
}

/// Returns the method as a metric label. Unknown methods share one label, so callers cannot create new time series.
fn method_label(method: &Method) -> &'static str {
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

/// Writes the body of an error response, including errors of libraries: a problem document, or a page in the console.
fn with_problem_body(mut response: Response, id: &str, page: bool) -> Response {
    let status = response.status();
    let error = response.extensions_mut().remove::<ApiError>();
    let bare = (status.is_client_error() || status.is_server_error()).then(|| ApiError::of_status(status));
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let ours = kind.is_some_and(|kind| kind == "application/json" || kind.starts_with("text/html"));
    let Some(mut error) = error.or_else(|| bare.filter(|_| !ours)) else { return response };
    if page && let Some(response) = console::error_page(&error, id) {
        return response;
    }
    id.clone_into(&mut error.problem.request_id);
    let body = serde_json::to_vec(&error.problem).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    *response.body_mut() = Body::from(body);
    response
}

/// Cancels a request that exceeds the timeout, and returns `timed_out`.
pub(crate) async fn enforce_timeout(
    State(server): State<SharedState>,
    request: Request,
    next: Next,
) -> Response {
    let until = server.app.clock.monotonic().after(server.app.settings.timeout);
    let timeout = server.app.clock.sleep_until(until);
    match select(std::pin::pin!(next.run(request)), timeout).await {
        Either::Left((response, _)) => response,
        Either::Right(((), _)) => ApiError::timed_out().into_response(),
    }
}

/// Returns the response to a panic. The panic message is only logged.
pub(crate) fn handle_panic(payload: Box<dyn std::any::Any + Send + 'static>) -> Response {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&'static str>().copied()).unwrap_or("no message");
    tracing::error!(panic = text, "a handler panicked");
    ApiError::of_status(StatusCode::INTERNAL_SERVER_ERROR).into_response()
}
