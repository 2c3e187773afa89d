//! The client of every arm: connections that stay open, each asking again as soon as it was answered.

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

/// What is asked, of whom.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) address: SocketAddr,
    pub(crate) header: &'static str,
    pub(crate) token: String,
    pub(crate) method: Method,
    /// Path and body of the nth request.
    pub(crate) line: Arc<dyn Fn(usize) -> (String, String) + Send + Sync>,
    /// The answer that counts as one.
    pub(crate) status: StatusCode,
}

/// How it went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Answers a second.
    pub(crate) rate: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// Microseconds of processor time for an answer, of every thread but the client's.
    pub(crate) server_us: f64,
    /// Bytes of all bodies.
    pub(crate) bytes: usize,
}

/// Asks `requests` times over so many connections, from a thread and a runtime of the client's own.
pub(crate) fn load(asked: &Asked, connections: usize, requests: usize) -> Load {
    let client = std::thread::scope(|scope| scope.spawn(|| drive(asked, connections, requests)).join());
    client.unwrap_or_else(|_| panic!("the client stopped"))
}

fn drive(asked: &Asked, connections: usize, requests: usize) -> Load {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
    runtime.block_on(async {
        let open = join_all((0..connections).map(|_| connect(asked.address))).await;
        let next = Arc::new(AtomicUsize::new(0));
        let (all, own, since) = (of_all_threads(), of_this_thread(), Instant::now());
        let asking = open.into_iter().map(|connection| {
            let (asked, next) = (asked.clone(), Arc::clone(&next));
            tokio::spawn(async move { ask_on(connection, &asked, &next, requests).await })
        });
        let answers = join_all(asking.collect::<Vec<_>>()).await;
        let wall = since.elapsed();
        let (own, all) = (of_this_thread().saturating_sub(own), of_all_threads().saturating_sub(all));
        let (mut took, mut bytes) = (Vec::with_capacity(requests), 0);
        for answers in answers {
            let (times, length) = answers.unwrap_or_else(|error| panic!("a connection: {error}"));
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
    let hands = handshake(TokioIo::new(stream)).await;
    let (sender, connection) = hands.unwrap_or_else(|error| panic!("no connection: {error}"));
    tokio::spawn(connection);
    sender
}

/// Asks as long as requests are left; how long each took, and the bytes of the answers.
async fn ask_on(
    mut on: Connection,
    asked: &Asked,
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
        bytes += ask(&mut on, asked, n).await.len();
        took.push(since.elapsed());
    }
}

async fn ask(on: &mut Connection, asked: &Asked, n: usize) -> Bytes {
    let (path, body) = (asked.line)(n);
    let mut request = Request::builder().method(asked.method.clone()).uri(path).header("host", "localhost");
    request = request.header(asked.header, &asked.token);
    if !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    let request = request.body(Full::from(body)).unwrap_or_else(|error| panic!("no request: {error}"));
    on.ready().await.unwrap_or_else(|error| panic!("the connection has ended: {error}"));
    let answer = on.send_request(request).await.unwrap_or_else(|error| panic!("no answer: {error}"));
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap_or_else(|error| panic!("no body: {error}"));
    let body = body.to_bytes();
    assert_eq!(status, asked.status, "{}", String::from_utf8_lossy(&body));
    body
}

/// One answer's body.
pub(crate) async fn once(asked: &Asked, n: usize) -> Bytes {
    ask(&mut connect(asked.address).await, asked, n).await
}
