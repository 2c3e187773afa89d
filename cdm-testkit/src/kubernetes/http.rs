//! HTTP: parses requests, injects faults and writes responses.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{HeaderMap, Request, Response};
use serde_json::Value;

use super::Shared;
use super::faults::{self, FaultKind, FaultTiming};
use super::kinds::discovery;
use super::request::ApiRequest;
use super::state::Reply;
use super::status_error::StatusError;

/// Path segment before a token in the URL.
pub(super) const TOKEN_PATH: &str = "as";
const MAX_BODY_BYTES: usize = 3 << 20;

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Handles one request. An error closes the connection without a response.
pub(super) async fn respond(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>, io::Error> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().trim_matches('/').to_owned();
    let mut parts: Vec<&str> = path.split('/').collect();
    let mut token = bearer(&head.headers);
    if parts[0] == TOKEN_PATH && parts.len() > 2 {
        token = parts[1];
        parts.drain(..2);
    }
    if ["healthz", "readyz", "livez"].contains(&parts[0]) {
        return Ok(plain(200, "ok"));
    }
    let Some(user) = shared.lock().user(token).cloned() else {
        return Ok(error_response(&StatusError::unauthorized()));
    };
    let mut api_request = match ApiRequest::parse(&head.method, &parts, head.uri.query().unwrap_or_default())
    {
        Ok(Some(api_request)) => api_request,
        Ok(None) => {
            return Ok(discovery(&parts)
                .map_or_else(|| plain(404, "404 page not found\n"), |found| object(200, &found)));
        }
        Err(error) => return Ok(error_response(&error)),
    };
    api_request.agent = text(&head.headers, header::USER_AGENT).to_owned();
    api_request.content_type = text(&head.headers, header::CONTENT_TYPE).to_owned();
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(whole) => api_request.body = whole.to_bytes(),
        Err(_) => {
            return Ok(error_response(&StatusError::new(
                413,
                "RequestEntityTooLarge",
                "Request entity too large: limit is 3145728",
            )));
        }
    }
    let request = faults::Request {
        user: user.name().to_owned(),
        verb: api_request.verb.to_owned(),
        resource: api_request.resource(),
        namespace: api_request.namespace.clone(),
        name: if api_request.verb == "create" { api_request.created() } else { api_request.name.clone() },
        code: 0,
    };
    let (number, fault) = shared.lock().request_log.record(request);
    if let Some((FaultTiming::Before, fault)) = fault
        && let Some(response) = inject(&shared, fault).await?
    {
        shared.lock().request_log.record_code(number, response.status().as_u16());
        return Ok(response);
    }
    let served = shared.lock().serve(&user, &api_request);
    shared.changed.send_modify(|revision| *revision += 1);
    if let Some((FaultTiming::After, fault)) = fault
        && let Some(response) = inject(&shared, fault).await?
    {
        shared.lock().request_log.record_code(number, response.status().as_u16());
        return Ok(response);
    }
    let response = match served {
        Ok(Reply::Object(code, response)) => object(code, &response),
        Ok(Reply::Text(log)) => plain(200, &log),
        Ok(Reply::Watch(start)) => {
            let frames = stream::unfold(start.follow(&shared), |mut watch| async move {
                watch.next().await.map(|frame| (frame, watch))
            });
            json_of(200, StreamBody::new(frames).boxed_unsync())
        }
        Ok(Reply::Warned(response, warning)) => {
            let mut response = object(200, &response);
            if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{warning}\"")) {
                response.headers_mut().insert(header::WARNING, value);
            }
            response
        }
        Err(error) => error_response(&error),
    };
    shared.lock().request_log.record_code(number, response.status().as_u16());
    Ok(response)
}

/// Injects a fault. Returns the response to send instead, or `None` if the request continues.
async fn inject(shared: &Shared, fault: FaultKind) -> Result<Option<Response<Body>>, io::Error> {
    match fault {
        FaultKind::Respond(code, retry_after) => {
            Ok(Some(error_response(&StatusError::of_code(code, retry_after))))
        }
        FaultKind::Compaction => {
            shared.edit(|state| state.store.forget());
            Ok(None)
        }
        FaultKind::Reset => Err(io::Error::new(io::ErrorKind::ConnectionReset, "the response is lost")),
        FaultKind::Delay(span) => {
            let until = shared.lock().now.after(span);
            let mut changed = shared.changed.subscribe();
            // The server's clock wakes this wait. If the server is gone, the wait fails.
            let waited = changed.wait_for(|_| shared.lock().now >= until).await.map(drop);
            waited.map(|()| None).map_err(io::Error::other)
        }
    }
}

fn bearer(headers: &HeaderMap) -> &str {
    text(headers, header::AUTHORIZATION).strip_prefix("Bearer ").unwrap_or_default().trim()
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn plain(code: u16, body: &str) -> Response<Body> {
    let mut response = with_code(code, whole(Bytes::copy_from_slice(body.as_bytes())));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn object(code: u16, object: &Value) -> Response<Body> {
    json_of(code, whole(Bytes::from(object.to_string())))
}

fn json_of(code: u16, body: Body) -> Response<Body> {
    let mut response = with_code(code, body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn error_response(error: &StatusError) -> Response<Body> {
    let mut response = object(error.code, &error.status());
    if let Some(seconds) = error.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn with_code(code: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() =
        hyper::StatusCode::from_u16(code).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    response
}
