//! The router: forwards a request for any hostname to a ready pod of the service that its route points to.

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

use super::host::HostContext;
use super::http::{self, HttpResponse, MAX_BODY, RequestBody};
use super::pages::SERVICE;
use crate::domain::Color;

const ROUTE: HeaderName = HeaderName::from_static("x-cdm-route");

/// How long a pod may take to send the head of its response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// The headers that are not forwarded (RFC 9110, 7.6.1).
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

    /// Returns the ready pods, each time starting with the next one.
    fn round_robin(&self) -> Vec<SocketAddr> {
        let mut pods = self.pods.read().unwrap_or_else(PoisonError::into_inner).to_vec();
        if !pods.is_empty() {
            let offset = self.next.fetch_add(1, Ordering::Relaxed) % pods.len();
            pods.rotate_left(offset);
        }
        pods
    }
}

pub(super) async fn route(context: Arc<HostContext>, request: Request<Incoming>) -> HttpResponse {
    let Some((host, _)) = http::host(&request) else {
        return http::text(StatusCode::BAD_REQUEST, "the request has no host".to_owned());
    };
    let Some(target) = context.cluster.routes.find(&host) else {
        return http::text(StatusCode::NOT_FOUND, format!("the host `{host}` has no route"));
    };
    let service = selected_service(request.headers()).unwrap_or(target.service);
    let max = u64::try_from(MAX_BODY).unwrap_or(u64::MAX);
    let mut response = if request.body().size_hint().lower() > max {
        http::text(StatusCode::PAYLOAD_TOO_LARGE, format!("the body exceeds {MAX_BODY} bytes"))
    } else {
        let pods = context.endpoints(service).round_robin();
        if pods.is_empty() {
            let message = format!("no pod of the service `{service}` is ready");
            http::text(StatusCode::SERVICE_UNAVAILABLE, message)
        } else {
            forward(&context, &pods, request).await
        }
    };
    response.headers_mut().insert(ROUTE, HeaderValue::from(target.generation));
    // The pod adds the header of its service; a response of the router itself has none.
    response
}

/// Returns the service that a request selects by header, regardless of the route of its host: to probe a service before
/// a move.
fn selected_service(headers: &HeaderMap) -> Option<Color> {
    Color::parse(headers.get(SERVICE)?.to_str().ok()?).ok()
}

/// Forwards a request to the first of `pods` that responds. A request with a body is sent only once.
async fn forward(context: &HostContext, pods: &[SocketAddr], request: Request<Incoming>) -> HttpResponse {
    let (mut parts, body) = request.into_parts();
    remove_hop_by_hop(&mut parts.headers);
    parts.version = Version::HTTP_11;
    // An absolute request target overrides the Host header (RFC 9112, 3.2.2).
    if let Some(authority) = parts.uri.authority() {
        let Ok(host) = HeaderValue::from_str(authority.as_str()) else {
            return http::text(StatusCode::BAD_REQUEST, "the request has no host".to_owned());
        };
        parts.headers.insert(HOST, host);
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let repeatable = body.is_end_stream() && parts.method.is_safe();
    let mut body = (!body.is_end_stream()).then(|| Limited::new(body, MAX_BODY));
    for pod in pods {
        let Ok(uri) = format!("http://{pod}{path}").parse::<Uri>() else {
            return http::text(StatusCode::BAD_REQUEST, "the path of the request is invalid".to_owned());
        };
        parts.uri = uri;
        let sent: RequestBody = body.take().map_or_else(|| Either::Left(Empty::new()), Either::Right);
        let result = tokio::select! {
            result = context.http.request(Request::from_parts(parts.clone(), sent)) => result,
            () = context.cluster.pause(RESPONSE_TIMEOUT) => {
                return http::text(StatusCode::GATEWAY_TIMEOUT, "the pod did not respond in time".to_owned());
            }
        };
        match result {
            Ok(response) => {
                let mut response = response.map(Either::Right);
                remove_hop_by_hop(response.headers_mut());
                return response;
            }
            Err(error) if repeatable => {
                tracing::debug!(%error, %pod, "a pod did not respond; trying the next one")
            }
            Err(error) => {
                tracing::debug!(%error, %pod, "a pod did not respond");
                break;
            }
        }
    }
    http::text(StatusCode::BAD_GATEWAY, "the pod did not respond".to_owned())
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
