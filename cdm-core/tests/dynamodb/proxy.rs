//! A way to a server on which requests are counted, and can be kept from arriving, held up, or robbed of their answers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// What becomes of a request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// It is served, and its answer lost.
    LoseAnswer,
    /// It does not arrive.
    LoseRequest,
    /// It arrives when the semaphore has a permit.
    Hold(Arc<Semaphore>),
    /// It is answered by this, and not served.
    Answer(u16, String),
}

#[derive(Debug, Default)]
struct State {
    /// The operations that were asked for.
    log: Vec<String>,
    /// What meets the next request of an operation.
    faults: VecDeque<(&'static str, Fault)>,
    /// What meets a request of any, after so many others.
    later: Option<(usize, Fault)>,
}

/// The way; clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
    /// That something was asked for.
    news: watch::Sender<()>,
}

impl Proxy {
    /// A way to `upstream`, `http://host:port`.
    pub(crate) async fn to(upstream: &str) -> Self {
        let upstream = upstream.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let proxy = Self { address, state: Arc::default(), news: watch::Sender::new(()) };
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

    /// The next request of that operation meets a fault.
    pub(crate) fn next(&self, operation: &'static str, fault: Fault) {
        self.state().faults.push_back((operation, fault));
    }

    /// The request after so many others meets a fault, whatever it asks for.
    pub(crate) fn after(&self, others: usize, fault: Fault) {
        self.state().later = Some((others, fault));
    }

    /// Whether a fault is still to come.
    pub(crate) fn is_armed(&self) -> bool {
        let state = self.state();
        state.later.is_some() || !state.faults.is_empty()
    }

    /// The operations that were asked for since this was asked last.
    pub(crate) fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.state().log)
    }

    /// Returns once that operation was asked for.
    pub(crate) async fn until(&self, operation: &str) {
        let mut news = self.news.subscribe();
        while !self.state().log.iter().any(|seen| seen == operation) {
            news.changed().await.expect("the proxy lives");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrives(&self, operation: &str) -> Option<Fault> {
        let mut state = self.state();
        state.log.push(operation.to_owned());
        let _ = self.news.send(());
        if let Some((others, fault)) = state.later.take() {
            match others.checked_sub(1) {
                None => return Some(fault),
                Some(others) => state.later = Some((others, fault)),
            }
        }
        let at = state.faults.iter().position(|(wanted, _)| *wanted == operation)?;
        state.faults.remove(at).map(|(_, fault)| fault)
    }

    /// One request on a connection, which ends with it.
    async fn serve(&self, mut client: TcpStream, upstream: &str) -> Option<()> {
        let (request, operation) = request(&mut client).await?;
        let fault = self.arrives(&operation);
        match &fault {
            Some(Fault::LoseRequest) => return None,
            Some(Fault::Hold(until)) => until.acquire().await.ok()?.forget(),
            Some(Fault::Answer(status, body)) => {
                let head = format!("HTTP/1.1 {status} Told\r\nContent-Type: application/x-amz-json-1.0\r\n");
                let length = format!("Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                return client.write_all(format!("{head}{length}{body}").as_bytes()).await.ok();
            }
            Some(Fault::LoseAnswer) | None => {}
        }
        let mut server = TcpStream::connect(upstream).await.ok()?;
        server.write_all(&request).await.ok()?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).await.ok()?;
        if !matches!(fault, Some(Fault::LoseAnswer)) {
            client.write_all(&closing(&answer)).await.ok()?;
        }
        Some(())
    }
}

/// Reads one request, asks for the connection to be closed after it, and tells which operation it is.
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

/// A message that says that the connection ends with it.
fn closing(message: &[u8]) -> Vec<u8> {
    let Some(line) = message.windows(2).position(|window| window == b"\r\n") else { return message.to_vec() };
    [&message[..line], b"\r\nConnection: close", &message[line..]].concat()
}
