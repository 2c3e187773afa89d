//! An HTTP proxy in front of a server. It counts requests, and can drop them, delay them, or drop their responses.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// The fault that a request gets.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The request is served, and its response is lost.
    LoseResponse,
    /// The request does not reach the server.
    LoseRequest,
    /// The request is delayed until the semaphore has a permit.
    Delay(Arc<Semaphore>),
    /// The request is not served; this response is returned.
    Respond(u16, String),
}

#[derive(Debug, Default)]
struct State {
    /// The requested operations.
    log: Vec<String>,
    /// The faults of the next requests, by operation.
    faults: VecDeque<(&'static str, Fault)>,
    /// The fault of the request after this number of others, of any operation.
    nth: Option<(usize, Fault)>,
}

/// The proxy; clones share its state.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
    /// Signals that a request arrived.
    arrivals: watch::Sender<()>,
}

impl Proxy {
    /// Starts a proxy to `upstream`, `http://host:port`.
    pub(crate) async fn to(upstream: &str) -> Self {
        let upstream = upstream.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let proxy = Self { address, state: Arc::default(), arrivals: watch::Sender::new(()) };
        let served = proxy.clone();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (served, upstream) = (served.clone(), upstream.clone());
                serving.spawn(async move { served.serve(client, &upstream).await });
            }
        });
        accepting.detach_all();
        proxy
    }

    /// Sets the fault of the next request of that operation.
    pub(crate) fn next(&self, operation: &'static str, fault: Fault) {
        self.state().faults.push_back((operation, fault));
    }

    /// Sets the fault of the request after `others` requests of any operation.
    pub(crate) fn after(&self, others: usize, fault: Fault) {
        self.state().nth = Some((others, fault));
    }

    /// Returns whether a fault is still pending.
    pub(crate) fn is_armed(&self) -> bool {
        let state = self.state();
        state.nth.is_some() || !state.faults.is_empty()
    }

    /// Returns the operations that were requested since the last call of this function.
    pub(crate) fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state().log)
    }

    /// Waits until that operation is requested.
    pub(crate) async fn until(&self, operation: &str) {
        let mut arrivals = self.arrivals.subscribe();
        while !self.state().log.iter().any(|requested| requested == operation) {
            arrivals.changed().await.expect("the proxy runs");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_fault(&self, operation: &str) -> Option<Fault> {
        let mut state = self.state();
        state.log.push(operation.to_owned());
        let _ = self.arrivals.send(());
        if let Some((others, fault)) = state.nth.take() {
            match others.checked_sub(1) {
                None => return Some(fault),
                Some(others) => state.nth = Some((others, fault)),
            }
        }
        let at = state.faults.iter().position(|(wanted, _)| *wanted == operation)?;
        state.faults.remove(at).map(|(_, fault)| fault)
    }

    /// Serves one request on a connection, and closes the connection.
    async fn serve(&self, mut client: TcpStream, upstream: &str) -> Option<()> {
        let (request, operation) = request(&mut client).await?;
        let fault = self.take_fault(&operation);
        match &fault {
            Some(Fault::LoseRequest) => return None,
            Some(Fault::Delay(until)) => until.acquire().await.ok()?.forget(),
            Some(Fault::Respond(status, body)) => {
                let head =
                    format!("HTTP/1.1 {status} Injected\r\nContent-Type: application/x-amz-json-1.0\r\n");
                let length = format!("Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                return client.write_all(format!("{head}{length}{body}").as_bytes()).await.ok();
            }
            Some(Fault::LoseResponse) | None => {}
        }
        let mut server = TcpStream::connect(upstream).await.ok()?;
        server.write_all(&request).await.ok()?;
        let mut response = Vec::new();
        server.read_to_end(&mut response).await.ok()?;
        if !matches!(fault, Some(Fault::LoseResponse)) {
            client.write_all(&closing(&response)).await.ok()?;
        }
        Some(())
    }
}

/// Reads one request, adds `Connection: close`, and returns it with its operation.
async fn request(client: &mut TcpStream) -> Option<(Vec<u8>, String)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if client.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let length: usize = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while bytes.len() < end + length {
        if client.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let operation = header("x-amz-target").unwrap_or_default();
    let operation = operation.rsplit('.').next().unwrap_or_default().to_owned();
    Some((closing(&bytes), operation))
}

/// Adds `Connection: close` to a message.
fn closing(message: &[u8]) -> Vec<u8> {
    let Some(line) = message.windows(2).position(|window| window == b"\r\n") else { return message.to_vec() };
    [&message[..line], b"\r\nConnection: close", &message[line..]].concat()
}
