//! HTTP: from a request to what is asked, and from an answer to a response.

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
use super::ask::Ask;
use super::faults::{self, Moment, Trouble};
use super::kinds::discovery;
use super::refusal::Refusal;
use super::state::Answer;

/// Before a token in an address.
pub(super) const AS: &str = "as";
const MOST_BYTES: usize = 3 << 20;

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Answers one request; an error ends the connection without an answer.
pub(super) async fn respond(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>, io::Error> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().trim_matches('/').to_owned();
    let mut parts: Vec<&str> = path.split('/').collect();
    let mut token = bearer(&head.headers);
    if parts[0] == AS && parts.len() > 2 {
        token = parts[1];
        parts.drain(..2);
    }
    if ["healthz", "readyz", "livez"].contains(&parts[0]) {
        return Ok(plain(200, "ok"));
    }
    let Some(user) = shared.lock().user(token).cloned() else { return Ok(refused(&Refusal::unauthorized())) };
    let mut ask = match Ask::read(&head.method, &parts, head.uri.query().unwrap_or_default()) {
        Ok(Some(ask)) => ask,
        Ok(None) => {
            return Ok(discovery(&parts)
                .map_or_else(|| plain(404, "404 page not found\n"), |found| object(200, &found)));
        }
        Err(refusal) => return Ok(refused(&refusal)),
    };
    ask.agent = text(&head.headers, header::USER_AGENT).to_owned();
    ask.content_type = text(&head.headers, header::CONTENT_TYPE).to_owned();
    match Limited::new(body, MOST_BYTES).collect().await {
        Ok(whole) => ask.body = whole.to_bytes(),
        Err(_) => {
            return Ok(refused(&Refusal::new(
                413,
                "RequestEntityTooLarge",
                "Request entity too large: limit is 3145728",
            )));
        }
    }
    let request = faults::Request {
        user: user.name().to_owned(),
        verb: ask.verb.to_owned(),
        resource: ask.resource(),
        namespace: ask.namespace.clone(),
        name: if ask.verb == "create" { ask.created() } else { ask.name.clone() },
        code: 0,
    };
    let (number, trouble) = shared.lock().ledger.heard(request);
    if let Some((Moment::Before, trouble)) = trouble
        && let Some(answer) = suffer(&shared, trouble).await?
    {
        shared.lock().ledger.answered(number, answer.status().as_u16());
        return Ok(answer);
    }
    let served = shared.lock().serve(&user, &ask);
    shared.changed.send_modify(|turn| *turn += 1);
    if let Some((Moment::After, trouble)) = trouble
        && let Some(answer) = suffer(&shared, trouble).await?
    {
        shared.lock().ledger.answered(number, answer.status().as_u16());
        return Ok(answer);
    }
    let answer = match served {
        Ok(Answer::Object(code, answer)) => object(code, &answer),
        Ok(Answer::Text(log)) => plain(200, &log),
        Ok(Answer::Watch(start)) => {
            let frames = stream::unfold(start.follow(&shared), |mut watch| async move {
                watch.next().await.map(|frame| (frame, watch))
            });
            json_of(200, StreamBody::new(frames).boxed_unsync())
        }
        Ok(Answer::Warned(answer, warning)) => {
            let mut answer = object(200, &answer);
            if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{warning}\"")) {
                answer.headers_mut().insert(header::WARNING, value);
            }
            answer
        }
        Err(refusal) => refused(&refusal),
    };
    shared.lock().ledger.answered(number, answer.status().as_u16());
    Ok(answer)
}

/// Lets a trouble happen; answers what is answered instead, nothing when the request goes on.
async fn suffer(shared: &Shared, trouble: Trouble) -> Result<Option<Response<Body>>, io::Error> {
    match trouble {
        Trouble::Answer(code, retry_after) => Ok(Some(refused(&Refusal::of_code(code, retry_after)))),
        Trouble::Compaction => {
            shared.edit(|state| state.store.forget());
            Ok(None)
        }
        Trouble::Reset => Err(io::Error::new(io::ErrorKind::ConnectionReset, "the answer is lost")),
        Trouble::Delay(span) => {
            let until = shared.lock().now.after(span);
            let mut changed = shared.changed.subscribe();
            // The server's clock wakes whoever waits for it; without a server there is nothing to wait for.
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

fn plain(code: u16, said: &str) -> Response<Body> {
    let mut response = with_code(code, whole(Bytes::copy_from_slice(said.as_bytes())));
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

fn refused(refusal: &Refusal) -> Response<Body> {
    let mut response = object(refusal.code, &refusal.status());
    if let Some(seconds) = refusal.retry_after {
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
