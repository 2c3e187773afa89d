//! The router: takes requests for all hostnames and hands each to a ready pod of the service that its route points to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http_body_util::{Either, Empty, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Request, StatusCode, Uri, Version};

use super::host::World;
use super::http::{self, Answer, MOST_BODY, Sent};
use super::pages::SERVICE;
use crate::domain::Color;

const ROUTE: HeaderName = HeaderName::from_static("x-cdm-route");

/// How long a pod may take over the head of its answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is between two neighbours and not handed on (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] =
    [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// The ready pods of a service.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    pods: RwLock<Arc<[SocketAddr]>>,
    next: AtomicUsize,
}

impl Endpoints {
    pub(super) fn set(&self, pods: Vec<SocketAddr>) {
        *self.pods.write().unwrap_or_else(PoisonError::into_inner) = pods.into();
    }

    /// Every ready pod, each time beginning with another.
    fn in_turn(&self) -> Vec<SocketAddr> {
        let mut pods = self.pods.read().unwrap_or_else(PoisonError::into_inner).to_vec();
        if !pods.is_empty() {
            let turn = self.next.fetch_add(1, Ordering::Relaxed) % pods.len();
            pods.rotate_left(turn);
        }
        pods
    }
}

/// Answers one request.
pub(super) async fn route(world: Arc<World>, request: Request<Incoming>) -> Answer {
    let Some((host, _)) = http::host(&request) else {
        return http::text(StatusCode::BAD_REQUEST, "the request names no host".to_owned());
    };
    let Some(leads) = world.cluster.routes.find(&host) else {
        return http::text(StatusCode::NOT_FOUND, format!("no route leads from the host `{host}`"));
    };
    let service = asked_for(request.headers()).unwrap_or(leads.service);
    let most = u64::try_from(MOST_BODY).unwrap_or(u64::MAX);
    let mut answer = if request.body().size_hint().lower() > most {
        http::text(StatusCode::PAYLOAD_TOO_LARGE, format!("a body has at most {MOST_BODY} bytes"))
    } else {
        let pods = world.endpoints(service).in_turn();
        if pods.is_empty() {
            let message = format!("no pod of the service `{service}` is ready");
            http::text(StatusCode::SERVICE_UNAVAILABLE, message)
        } else {
            forward(&world, &pods, request).await
        }
    };
    answer.headers_mut().insert(ROUTE, HeaderValue::from(leads.generation));
    // Which service an answer is from, the pod says itself: the router's own answers, for want of a pod, are from none.
    answer
}

/// The service that a request asks for by name, wherever the route of its host leads: for a look before a move.
fn asked_for(headers: &HeaderMap) -> Option<Color> {
    Color::parse(headers.get(SERVICE)?.to_str().ok()?).ok()
}

/// Hands a request to the first of `pods` that takes it; one with a body is handed on once.
async fn forward(world: &World, pods: &[SocketAddr], request: Request<Incoming>) -> Answer {
    let (mut parts, body) = request.into_parts();
    remove_hop_by_hop(&mut parts.headers);
    parts.version = Version::HTTP_11;
    // A target in absolute form says the host, whatever the header says (RFC 9112, 3.2.2).
    if let Some(authority) = parts.uri.authority() {
        let Ok(host) = HeaderValue::from_str(authority.as_str()) else {
            return http::text(StatusCode::BAD_REQUEST, "the request names no host".to_owned());
        };
        parts.headers.insert(HOST, host);
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let repeatable = body.is_end_stream() && parts.method.is_safe();
    let mut body = (!body.is_end_stream()).then(|| Limited::new(body, MOST_BODY));
    for pod in pods {
        let Ok(uri) = format!("http://{pod}{path}").parse::<Uri>() else {
            return http::text(StatusCode::BAD_REQUEST, "the request's path is none".to_owned());
        };
        parts.uri = uri;
        let sent: Sent = body.take().map_or_else(|| Either::Left(Empty::new()), Either::Right);
        let answered = tokio::select! {
            answered = world.http.request(Request::from_parts(parts.clone(), sent)) => answered,
            () = world.cluster.pause(PATIENCE) => {
                return http::text(StatusCode::GATEWAY_TIMEOUT, "the pod did not answer in time".to_owned());
            }
        };
        match answered {
            Ok(answer) => {
                let mut answer = answer.map(Either::Right);
                remove_hop_by_hop(answer.headers_mut());
                return answer;
            }
            Err(error) if repeatable => {
                tracing::debug!(%error, %pod, "a pod did not answer; the next one is asked")
            }
            Err(error) => {
                tracing::debug!(%error, %pod, "a pod did not answer");
                break;
            }
        }
    }
    http::text(StatusCode::BAD_GATEWAY, "the pod did not answer".to_owned())
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&listed) {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}
