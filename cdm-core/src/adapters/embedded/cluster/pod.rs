//! A pod: a listener of its own on loopback, with its image baked in.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Either, Empty, Limited};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::host::World;
use super::http::{self, Answer, Busy, MOST_BODY};
use super::images::Readiness;
use super::pages;
use crate::domain::{Color, Digest, MonotonicTime};

/// Where a pod's readiness is asked for.
pub(super) const READY_PATH: &str = "/-/ready";

/// How long a readiness check may take.
const PROBE: Duration = Duration::from_secs(1);

/// A pod; it ends when it is dropped.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) template: String,
    pub(super) address: SocketAddr,
    /// What its last readiness check has come to.
    pub(super) ready: Result<(), String>,
    pub(super) busy: Busy,
    _listener: JoinSet<()>,
}

/// What a pod is made with.
#[derive(Clone, Debug)]
pub(super) struct PodSpec {
    pub(super) name: String,
    pub(super) service: Color,
    pub(super) digest: Digest,
    pub(super) template: String,
    /// How long it takes to get ready.
    pub(super) start: Duration,
}

impl Pod {
    pub(super) async fn start(world: &Arc<World>, spec: PodSpec) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let started = world.cluster.clock.monotonic().after(spec.start);
        let busy = Busy::default();
        let PodSpec { name, service, digest, template, .. } = spec;
        let (inside, clock) = (Arc::clone(world), Arc::clone(&world.cluster.clock));
        let answer = move |request| answer(Arc::clone(&inside), service, digest, started, request);
        let mut tasks = JoinSet::new();
        tasks.spawn(http::serve((listener, http::MOST_CONNECTIONS), clock, busy.clone(), answer));
        let ready = Err("has not been asked yet".to_owned());
        Ok(Self { name, template, address, ready, busy, _listener: tasks })
    }

    /// Asks the pod whether it is ready, over its own listener.
    pub(super) async fn probe(&mut self, world: &World) {
        let uri = format!("http://{}{READY_PATH}", self.address);
        let Ok(request) = Request::get(uri).body(Either::Left(Empty::new())) else { return };
        let status = tokio::select! {
            answer = world.http.request(request) => match answer {
                Ok(answer) => Ok(answer.status()),
                Err(error) => Err(format!("Readiness probe failed: {error}")),
            },
            () = world.cluster.pause(PROBE) => Err("Readiness probe failed: no answer in time".to_owned()),
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

async fn answer(
    world: Arc<World>,
    service: Color,
    digest: Digest,
    started: MonotonicTime,
    request: Request<Incoming>,
) -> Answer {
    if request.uri().path() == READY_PATH {
        let never = world.cluster.images().of(digest).readiness == Readiness::Never;
        return if never || world.cluster.clock.monotonic() < started {
            http::text(StatusCode::SERVICE_UNAVAILABLE, "not ready".to_owned())
        } else {
            http::text(StatusCode::OK, "ready".to_owned())
        };
    }
    let answer = pages::answer(&world, service, digest, &request).await;
    // A body is taken in and left unread, so that its sender hears the answer.
    let mut body = Limited::new(request.into_body(), MOST_BODY);
    while let Some(Ok(_)) = body.frame().await {}
    answer
}
