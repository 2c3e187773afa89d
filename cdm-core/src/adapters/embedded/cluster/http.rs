//! HTTP/1.1 on loopback: a listener that passes requests to a handler, a client, and the types of bodies.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{Either, Empty, Full, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use crate::ports::Clock;

/// A response: a text, or the body of another response.
pub(super) type HttpResponse = Response<Either<Full<Bytes>, Incoming>>;
/// The body of a forwarded request: empty, or the client's body up to a limit.
pub(super) type RequestBody = Either<Empty<Bytes>, Limited<Incoming>>;
/// A client for pods, which keeps connections open between requests.
pub(super) type HttpClient = Client<HttpConnector, RequestBody>;

/// Maximum size of a request's body, in bytes.
pub(super) const MAX_BODY: usize = 16 << 20;
/// Maximum size of a request's head, in bytes.
const MAX_HEAD: usize = 64 << 10;
/// Maximum number of headers.
const MAX_HEADERS: usize = 100;
/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum number of connections that one listener serves at a time.
pub(super) const MAX_CONNECTIONS: usize = 1024;
/// Pause after a failed accept, for example when file descriptors have run out.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// The number of requests in progress.
#[derive(Clone, Debug, Default)]
pub(super) struct ActiveRequests(Arc<AtomicUsize>);

impl ActiveRequests {
    pub(super) fn is_idle(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }

    fn enter(&self) -> ActiveGuard {
        self.0.fetch_add(1, Ordering::AcqRel);
        ActiveGuard(Arc::clone(&self.0))
    }
}

struct ActiveGuard(Arc<AtomicUsize>);

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The open connections without a request, the longest idle first. At the limit, the longest idle connection is closed
/// for a new one, so that idle connections cannot block new ones.
#[derive(Clone, Debug, Default)]
struct Idle(Arc<Mutex<IdleConnections>>);

#[derive(Debug, Default)]
struct IdleConnections {
    last: u64,
    by_age: BTreeMap<u64, Arc<Notify>>,
    /// Whether a new connection waits for one of these to close.
    close_next: bool,
}

impl Idle {
    fn lock(&self) -> MutexGuard<'_, IdleConnections> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the connection that is idle the longest, if there is one.
    fn close_longest(&self) {
        if let Some((_, close)) = self.lock().by_age.pop_first() {
            close.notify_one();
        }
    }

    /// Closes the connection that is idle the longest; if none is idle, the next one that becomes idle.
    fn close_one(&self) {
        let mut idle = self.lock();
        match idle.by_age.pop_first() {
            Some((_, close)) => close.notify_one(),
            None => idle.close_next = true,
        }
    }

    fn cancel_close(&self) {
        self.lock().close_next = false;
    }

    /// Adds an idle connection; returns its number.
    fn add(&self, close: &Arc<Notify>) -> u64 {
        let mut idle = self.lock();
        idle.last += 1;
        let number = idle.last;
        if std::mem::take(&mut idle.close_next) {
            close.notify_one();
        } else {
            idle.by_age.insert(number, Arc::clone(close));
        }
        number
    }

    fn remove(&self, number: u64) {
        self.lock().by_age.remove(&number);
    }
}

/// An open connection. HTTP/1.1 has one request at a time on a connection.
struct Connection {
    idle: Idle,
    close: Arc<Notify>,
    /// The number of the connection in the idle list; 0 while it has a request.
    number: AtomicU64,
}

impl Connection {
    fn new(idle: Idle) -> Arc<Self> {
        let close = Arc::default();
        let number = AtomicU64::new(idle.add(&close));
        Arc::new(Self { idle, close, number })
    }

    fn has_request(&self) -> bool {
        self.number.load(Ordering::Acquire) == 0
    }

    /// Marks that a request has arrived, until the guard is dropped.
    fn begin(self: &Arc<Self>, active: &ActiveRequests) -> OpenRequest {
        self.idle.remove(self.number.swap(0, Ordering::AcqRel));
        OpenRequest { connection: Arc::clone(self), _active: active.enter() }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.idle.remove(self.number.load(Ordering::Acquire));
    }
}

/// A request whose response is not sent yet.
struct OpenRequest {
    connection: Arc<Connection>,
    _active: ActiveGuard,
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.number.store(connection.idle.add(&connection.close), Ordering::Release);
    }
}

/// The body of a response. It keeps the request open until it is sent.
struct OpenBody<B> {
    body: B,
    _request: OpenRequest,
}

impl<B: Body + Unpin> Body for OpenBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Creates a client for pods.
pub(super) fn client() -> HttpClient {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(Duration::from_secs(2)));
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(20))
        .build(connector)
}

/// Serves connections, at most the given number at a time, until the future is dropped, which closes them.
pub(super) async fn serve<F, A>(
    (listener, connections): (TcpListener, usize),
    clock: Arc<dyn Clock>,
    active: ActiveRequests,
    handler: F,
) where
    F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = HttpResponse> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(connections));
    let (idle, mut connections) = (Idle::default(), JoinSet::new());
    loop {
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "accepting a connection failed");
                idle.close_longest();
                clock.sleep_until(clock.monotonic().after(ACCEPT_RETRY_INTERVAL)).await;
                continue;
            }
        };
        let permit = match Arc::clone(&permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                idle.close_one();
                let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
                idle.cancel_close();
                permit
            }
        };
        // Responses are small; a failure here only delays them a little.
        drop(stream.set_nodelay(true));
        let (handler, active, connection) = (handler.clone(), active.clone(), Connection::new(idle.clone()));
        connections.spawn(async move {
            let opened = Arc::clone(&connection);
            let service = service_fn(move |request| {
                let (request, response_future) = (opened.begin(&active), handler(request));
                async move {
                    let response = response_future.await;
                    Ok::<_, std::convert::Infallible>(
                        response.map(|body| OpenBody { body, _request: request }),
                    )
                }
            });
            let mut serving = pin!(
                http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .max_buf_size(MAX_HEAD)
                    .max_headers(MAX_HEADERS)
                    .serve_connection(TokioIo::new(stream), service)
            );
            let mut ended = tokio::select! {
                ended = serving.as_mut() => ended,
                () = connection.close.notified() => Ok(()),
            };
            // A request that arrived in the meantime is answered first.
            if ended.is_ok() && connection.has_request() {
                serving.as_mut().graceful_shutdown();
                ended = serving.await;
            }
            if let Err(error) = ended {
                tracing::trace!(%error, "a connection ended early");
            }
            drop(permit);
        });
    }
}

pub(super) fn text(status: StatusCode, text: String) -> HttpResponse {
    with_type(status, "text/plain; charset=utf-8", text + "\n")
}

pub(super) fn html(status: StatusCode, page: String) -> HttpResponse {
    with_type(status, "text/html; charset=utf-8", page)
}

fn with_type(status: StatusCode, kind: &'static str, body: String) -> HttpResponse {
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(body))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Returns the host of a request, in lower case and without a port, and the port.
pub(super) fn host<B>(request: &Request<B>) -> Option<(String, Option<u16>)> {
    let authority = match request.uri().authority() {
        Some(authority) => authority.clone(),
        None => request.headers().get(hyper::header::HOST)?.to_str().ok()?.parse().ok()?,
    };
    let host = authority.host().to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host).to_owned();
    (!host.is_empty()).then_some((host, authority.port_u16()))
}
