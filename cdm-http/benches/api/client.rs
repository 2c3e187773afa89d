//! The client of every arm: open connections, each of which sends its next request as soon as it has a response.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Builder;

use crate::measure::{of_all_threads, of_this_thread, percentile};

/// The requests of a run, and their target.
#[derive(Clone)]
pub(crate) struct RequestPlan {
    pub(crate) address: SocketAddr,
    pub(crate) header: &'static str,
    pub(crate) token: String,
    pub(crate) method: Method,
    /// Path and body of the nth request.
    pub(crate) line: Arc<dyn Fn(usize) -> (String, String) + Send + Sync>,
    /// The expected status of each response.
    pub(crate) status: StatusCode,
}

/// The results of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Responses per second.
    pub(crate) rate: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// Microseconds of CPU per response, of every thread except the client's.
    pub(crate) server_us: f64,
    /// Total bytes of the bodies.
    pub(crate) bytes: usize,
}

/// Sends `requests` requests over this number of connections, from the client's own thread and runtime.
pub(crate) fn load(plan: &RequestPlan, connections: usize, requests: usize) -> Load {
    let client = std::thread::scope(|scope| scope.spawn(|| drive(plan, connections, requests)).join());
    client.unwrap_or_else(|_| panic!("the client stopped"))
}

fn drive(plan: &RequestPlan, connections: usize, requests: usize) -> Load {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
    runtime.block_on(async {
        let open = join_all((0..connections).map(|_| connect(plan.address))).await;
        let next = Arc::new(AtomicUsize::new(0));
        let (all, own, since) = (of_all_threads(), of_this_thread(), Instant::now());
        let senders = open.into_iter().map(|connection| {
            let (plan, next) = (plan.clone(), Arc::clone(&next));
            tokio::spawn(async move { send_all(connection, &plan, &next, requests).await })
        });
        let responses = join_all(senders.collect::<Vec<_>>()).await;
        let wall = since.elapsed();
        let (own, all) = (of_this_thread().saturating_sub(own), of_all_threads().saturating_sub(all));
        let (mut took, mut bytes) = (Vec::with_capacity(requests), 0);
        for responses in responses {
            let (times, length) = responses.unwrap_or_else(|error| panic!("a connection: {error}"));
            took.extend(times);
            bytes += length;
        }
        took.sort_unstable();
        Load {
            rate: requests as f64 / wall.as_secs_f64(),
            p50: percentile(&took, 0.5),
            p99: percentile(&took, 0.99),
            server_us: all.saturating_sub(own).as_secs_f64() * 1e6 / requests as f64,
            bytes,
        }
    })
}

type Connection = SendRequest<Full<Bytes>>;

async fn connect(address: SocketAddr) -> Connection {
    let stream = TcpStream::connect(address).await.unwrap_or_else(|error| panic!("no connection: {error}"));
    let _ = stream.set_nodelay(true);
    let handshake = handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.unwrap_or_else(|error| panic!("no connection: {error}"));
    tokio::spawn(connection);
    sender
}

/// Sends requests as long as any remain; returns the duration of each, and the total bytes of the responses.
async fn send_all(
    mut on: Connection,
    plan: &RequestPlan,
    next: &AtomicUsize,
    requests: usize,
) -> (Vec<Duration>, usize) {
    let (mut took, mut bytes) = (Vec::new(), 0);
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        if n >= requests {
            return (took, bytes);
        }
        let since = Instant::now();
        bytes += send(&mut on, plan, n).await.len();
        took.push(since.elapsed());
    }
}

async fn send(on: &mut Connection, plan: &RequestPlan, n: usize) -> Bytes {
    let (path, body) = (plan.line)(n);
    let mut request = Request::builder().method(plan.method.clone()).uri(path).header("host", "localhost");
    request = request.header(plan.header, &plan.token);
    if !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    let request = request.body(Full::from(body)).unwrap_or_else(|error| panic!("no request: {error}"));
    on.ready().await.unwrap_or_else(|error| panic!("the connection has ended: {error}"));
    let response = on.send_request(request).await.unwrap_or_else(|error| panic!("no response: {error}"));
    let status = response.status();
    let body = response.into_body().collect().await.unwrap_or_else(|error| panic!("no body: {error}"));
    let body = body.to_bytes();
    assert_eq!(status, plan.status, "{}", String::from_utf8_lossy(&body));
    body
}

/// Returns the body of one response.
pub(crate) async fn send_one(plan: &RequestPlan, n: usize) -> Bytes {
    send(&mut connect(plan.address).await, plan, n).await
}
