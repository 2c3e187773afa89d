//! HTTP/1.1 on loopback: a listener that hands requests on, and the shapes of bodies.

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

/// The open connections without a request, the one that has waited longest first. At the limit it makes way for a new
/// connection, so that silent ones keep nobody out.
#[derive(Clone, Debug, Default)]
struct Idle(Arc<Mutex<IdleConnections>>);

#[derive(Debug, Default)]
struct IdleConnections {
    last: u64,
    by_age: BTreeMap<u64, Arc<Notify>>,
    /// A new connection waits for one of these to close.
    wanted: bool,
}

impl Idle {
    fn lock(&self) -> MutexGuard<'_, IdleConnections> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the connection that has waited longest, where one waits.
    fn close_longest(&self) {
        if let Some((_, close)) = self.lock().by_age.pop_first() {
            close.notify_one();
        }
    }

    /// The same; where none waits, the next one that would wait is closed.
    fn make_room(&self) {
        let mut idle = self.lock();
        match idle.by_age.pop_first() {
            Some((_, close)) => close.notify_one(),
            None => idle.wanted = true,
        }
    }

    fn room_was_found(&self) {
        self.lock().wanted = false;
    }

    /// The connection's number until it has a request.
    fn add(&self, close: &Arc<Notify>) -> u64 {
        let mut idle = self.lock();
        idle.last += 1;
        let number = idle.last;
        if std::mem::take(&mut idle.wanted) {
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

/// An open connection; HTTP/1.1 has one request on it at a time.
struct Connection {
    idle: Idle,
    close: Arc<Notify>,
    /// Its number among the idle ones; 0 while it has a request.
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

    /// A request has come, and is there until the guard is dropped.
    fn begin(self: &Arc<Self>, busy: &Busy) -> OpenRequest {
        self.idle.remove(self.number.swap(0, Ordering::AcqRel));
        OpenRequest { connection: Arc::clone(self), _busy: busy.enter() }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.idle.remove(self.number.load(Ordering::Acquire));
    }
}

/// A request whose answer is not sent yet.
struct OpenRequest {
    connection: Arc<Connection>,
    _busy: Guard,
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.number.store(connection.idle.add(&connection.close), Ordering::Release);
    }
}

/// The body of an answer, which keeps the request open until it is sent.
struct Sending<B> {
    body: B,
    _request: OpenRequest,
}

impl<B: Body + Unpin> Body for Sending<B> {
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
    let (idle, mut connections) = (Idle::default(), JoinSet::new());
    loop {
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                idle.close_longest();
                clock.sleep_until(clock.monotonic().after(REST)).await;
                continue;
            }
        };
        let permit = match Arc::clone(&room).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                idle.make_room();
                let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
                idle.room_was_found();
                permit
            }
        };
        // Answers are small; whether they go out a little later is all that this changes.
        drop(stream.set_nodelay(true));
        let (answer, busy, connection) = (answer.clone(), busy.clone(), Connection::new(idle.clone()));
        connections.spawn(async move {
            let opened = Arc::clone(&connection);
            let service = service_fn(move |request| {
                let (request, answered) = (opened.begin(&busy), answer(request));
                async move {
                    let answer = answered.await;
                    Ok::<_, std::convert::Infallible>(answer.map(|body| Sending { body, _request: request }))
                }
            });
            let mut serving = pin!(
                http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_PATIENCE)
                    .max_buf_size(MOST_HEAD)
                    .max_headers(MOST_HEADERS)
                    .serve_connection(TokioIo::new(stream), service)
            );
            let mut ended = tokio::select! {
                ended = serving.as_mut() => ended,
                () = connection.close.notified() => Ok(()),
            };
            // A request that came in the meantime is answered first.
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
