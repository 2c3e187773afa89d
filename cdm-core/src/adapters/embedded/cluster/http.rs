//! HTTP/1.1 on loopback: a listener that hands requests on, and the shapes of bodies.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::{Either, Empty, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::ports::Clock;

/// What is sent back: a text, or what another sent.
pub(super) type Answer = Response<Either<Full<Bytes>, Incoming>>;
/// What is sent on: nothing, or what a client sends, up to a limit.
pub(super) type Sent = Either<Empty<Bytes>, Limited<Incoming>>;
/// Connections to pods, kept open between requests.
pub(super) type Http = Client<HttpConnector, Sent>;

/// Most bytes of a request's body.
pub(super) const MOST_BODY: usize = 16 << 20;
/// Most bytes of a request's head.
const MOST_HEAD: usize = 64 << 10;
/// Most headers.
const MOST_HEADERS: usize = 100;
/// How long a client may take over its head.
const HEAD_PATIENCE: Duration = Duration::from_secs(15);
/// Connections that one listener serves at a time, at most.
pub(super) const MOST_CONNECTIONS: usize = 1024;
/// How long a listener rests after it could not accept, as when descriptors have run out.
const REST: Duration = Duration::from_millis(50);

/// How many requests are being answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Busy(Arc<AtomicUsize>);

impl Busy {
    pub(super) fn is_idle(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }

    fn enter(&self) -> Guard {
        self.0.fetch_add(1, Ordering::AcqRel);
        Guard(Arc::clone(&self.0))
    }
}

struct Guard(Arc<AtomicUsize>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A client for pods.
pub(super) fn client() -> Http {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(Duration::from_secs(2)));
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(20))
        .build(connector)
}

/// Serves every connection, so many at a time, until it is dropped, and all of them with it.
pub(super) async fn serve<F, A>(
    (listener, connections): (TcpListener, usize),
    clock: Arc<dyn Clock>,
    busy: Busy,
    answer: F,
) where
    F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(connections));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                clock.sleep_until(clock.monotonic().after(REST)).await;
                continue;
            }
        };
        // Answers are small; whether they go out a little later is all that this changes.
        drop(stream.set_nodelay(true));
        let (answer, busy) = (answer.clone(), busy.clone());
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let (answered, guard) = (answer(request), busy.enter());
                async move {
                    let answer = answered.await;
                    drop(guard);
                    Ok::<_, std::convert::Infallible>(answer)
                }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_PATIENCE)
                .max_buf_size(MOST_HEAD)
                .max_headers(MOST_HEADERS)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::trace!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
}

/// A short text.
pub(super) fn text(status: StatusCode, text: String) -> Answer {
    with_type(status, "text/plain; charset=utf-8", text + "\n")
}

/// A page.
pub(super) fn html(status: StatusCode, page: String) -> Answer {
    with_type(status, "text/html; charset=utf-8", page)
}

fn with_type(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(Bytes::from(body))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// The host that a request is for: in lower case, without a port; and the port.
pub(super) fn host<B>(request: &Request<B>) -> Option<(String, Option<u16>)> {
    let authority = match request.uri().authority() {
        Some(authority) => authority.clone(),
        None => request.headers().get(hyper::header::HOST)?.to_str().ok()?.parse().ok()?,
    };
    let host = authority.host().to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host).to_owned();
    (!host.is_empty()).then_some((host, authority.port_u16()))
}
