//! A pod: a listener on loopback that serves one image.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Either, Empty, Limited};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::host::HostContext;
use super::http::{self, ActiveRequests, HttpResponse, MAX_BODY};
use super::images::Readiness;
use super::pages;
use crate::domain::{Color, Digest, MonotonicTime};

/// The path of the readiness check.
pub(super) const READY_PATH: &str = "/-/ready";

/// Timeout of a readiness check.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// A running pod. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) template: String,
    pub(super) address: SocketAddr,
    /// The result of its last readiness check.
    pub(super) ready: Result<(), String>,
    pub(super) active: ActiveRequests,
    _listener: JoinSet<()>,
}

/// The parameters of a new pod.
#[derive(Clone, Debug)]
pub(super) struct PodSpec {
    pub(super) name: String,
    pub(super) service: Color,
    pub(super) digest: Digest,
    pub(super) template: String,
    /// How long the pod takes to become ready.
    pub(super) start: Duration,
}

impl Pod {
    pub(super) async fn start(context: &Arc<HostContext>, spec: PodSpec) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let started = context.cluster.clock.monotonic().after(spec.start);
        let active = ActiveRequests::default();
        let PodSpec { name, service, digest, template, .. } = spec;
        let (shared, clock) = (Arc::clone(context), Arc::clone(&context.cluster.clock));
        let handler = move |request| respond(Arc::clone(&shared), service, digest, started, request);
        let mut tasks = JoinSet::new();
        tasks.spawn(http::serve((listener, http::MAX_CONNECTIONS), clock, active.clone(), handler));
        let ready = Err("has not been probed yet".to_owned());
        Ok(Self { name, template, address, ready, active, _listener: tasks })
    }

    /// Probes the readiness of the pod over its listener.
    pub(super) async fn probe(&mut self, context: &HostContext) {
        let uri = format!("http://{}{READY_PATH}", self.address);
        let Ok(request) = Request::get(uri).body(Either::Left(Empty::new())) else { return };
        let status = tokio::select! {
            response = context.http.request(request) => match response {
                Ok(response) => Ok(response.status()),
                Err(error) => Err(format!("Readiness probe failed: {error}")),
            },
            () = context.cluster.pause(PROBE_TIMEOUT) => Err("Readiness probe failed: no response in time".to_owned()),
        };
        self.ready = match status {
            Ok(status) if status.is_success() => Ok(()),
            Ok(status) => {
                Err(format!("Readiness probe failed: HTTP probe failed with statuscode: {}", status.as_u16()))
            }
            Err(message) => Err(message),
        };
    }
}

async fn respond(
    context: Arc<HostContext>,
    service: Color,
    digest: Digest,
    started: MonotonicTime,
    request: Request<Incoming>,
) -> HttpResponse {
    if request.uri().path() == READY_PATH {
        let never = context.cluster.images().of(digest).readiness == Readiness::Never;
        return if never || context.cluster.clock.monotonic() < started {
            http::text(StatusCode::SERVICE_UNAVAILABLE, "not ready".to_owned())
        } else {
            http::text(StatusCode::OK, "ready".to_owned())
        };
    }
    let response = pages::respond(&context, service, digest, &request).await;
    // The body is read to its end and discarded, so that the client receives the response.
    let mut body = Limited::new(request.into_body(), MAX_BODY);
    while let Some(Ok(_)) = body.frame().await {}
    response
}
