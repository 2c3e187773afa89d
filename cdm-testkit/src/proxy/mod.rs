//! A loopback proxy between a program and a server, or in place of a server. The proxy counts and records requests, and
//! injects faults into the requests that a test selects: by number, by operation, or all during an outage.

mod http;
mod message;
mod stream;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cdm_core::ports::Clock;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use http::HttpServer;
pub use message::{HttpRequest, HttpResponse};

/// The fault that a request encounters. A [`Proxy::stream`] closes the connection for the variants with a response, and
/// for [`HttpFault::NeverRespond`].
#[derive(Clone, Debug)]
pub enum HttpFault {
    /// The connection closes before the request is forwarded.
    LoseRequest,
    /// The request is forwarded, and the connection closes before the response arrives.
    LoseResponse,
    /// The request is forwarded after this delay.
    Delay(Duration),
    /// The request is forwarded when the semaphore has a permit.
    Hold(Arc<Semaphore>),
    /// The request is forwarded, and no response is sent; the connection stays open.
    NeverRespond,
    /// The request is not forwarded; the proxy sends this response.
    Respond(HttpResponse),
    /// The request is not forwarded; the proxy sends the throttling error of AWS or Kubernetes.
    Throttle,
}

/// The number of a planned fault's request, counted like [`State::requests`], and the fault.
type Planned = (u64, HttpFault);

/// Counters, records and faults of a proxy.
#[derive(Debug, Default)]
struct State {
    requests: u64,
    /// The number of requests that change something.
    changes: u64,
    planned: Option<Planned>,
    /// How many of the next requests encounter the fault.
    outage: Option<(u64, HttpFault)>,
    /// The faults of the next requests of an operation, in order.
    by_operation: Vec<(String, HttpFault)>,
    /// The requests since they were last taken; `None` if they are not recorded.
    recorded: Option<Vec<HttpRequest>>,
}

/// What the connections of a proxy share with its tests.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Signals that a request arrived.
    arrivals: watch::Sender<()>,
}

impl Shared {
    fn new(recorded: Option<Vec<HttpRequest>>) -> Arc<Self> {
        let state = Mutex::new(State { recorded, ..State::default() });
        Arc::new(Self { state, arrivals: watch::Sender::new(()) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts and records an HTTP request, and returns the fault to inject into it.
    fn request_fault(&self, request: &HttpRequest) -> Option<HttpFault> {
        let mut state = self.state();
        state.changes += u64::from(request.changes_something());
        if let Some(recorded) = &mut state.recorded {
            recorded.push(request.clone());
        }
        let fault = state.counted_fault().or_else(|| {
            let operation = request.operation();
            let index = state.by_operation.iter().position(|(planned, _)| *planned == operation)?;
            Some(state.by_operation.remove(index).1)
        });
        drop(state);
        self.arrivals.send_replace(());
        fault
    }

    /// Counts a chunk of a stream, and returns the fault to inject into it.
    fn chunk_fault(&self) -> Option<HttpFault> {
        self.state().counted_fault()
    }
}

impl State {
    /// Counts a request, and returns the fault that an outage or the plan has for its number.
    fn counted_fault(&mut self) -> Option<HttpFault> {
        let number = self.requests;
        self.requests += 1;
        if let Some((remaining, fault)) = self.outage.take() {
            self.outage = Some((remaining - 1, fault.clone())).filter(|(remaining, _)| *remaining > 0);
            return Some(fault);
        }
        self.planned.take_if(|(planned, _)| *planned == number).map(|(_, fault)| fault)
    }
}

/// A fault-injecting proxy on loopback, which stops when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy of the HTTP server at `upstream`, `host:port` or `http://host:port`. Counts requests, and does not
    /// record them.
    ///
    /// # Errors
    /// Returns an error if no port is available.
    pub async fn http(upstream: &str, clock: Arc<dyn Clock>) -> io::Result<Self> {
        Self::start(Shared::new(None), HttpServer::forwarding(upstream, clock)).await
    }

    /// Starts a proxy of the HTTP server at `upstream` that records requests.
    ///
    /// # Errors
    /// Returns an error if no port is available.
    pub async fn recording(upstream: &str, clock: Arc<dyn Clock>) -> io::Result<Self> {
        Self::start(Shared::new(Some(Vec::new())), HttpServer::forwarding(upstream, clock)).await
    }

    /// Starts a proxy of the HTTP server at `upstream` that records requests, and sends the response of `intercept` instead
    /// of forwarding a request for which there is one.
    ///
    /// # Errors
    /// Returns an error if no port is available.
    pub async fn intercepting(
        upstream: &str,
        clock: Arc<dyn Clock>,
        intercept: impl Fn(&HttpRequest) -> Option<HttpResponse> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let server = HttpServer::forwarding(upstream, clock).with_handler(intercept);
        Self::start(Shared::new(Some(Vec::new())), server).await
    }

    /// Starts a server that records requests and responds by a function.
    ///
    /// # Errors
    /// Returns an error if no port is available.
    pub async fn stub(
        clock: Arc<dyn Clock>,
        respond: impl Fn(&HttpRequest) -> HttpResponse + Send + Sync + 'static,
    ) -> io::Result<Self> {
        // The function responds to every request, so nothing is forwarded.
        let server = HttpServer::forwarding("", clock).with_handler(move |request| Some(respond(request)));
        Self::start(Shared::new(Some(Vec::new())), server).await
    }

    async fn start(shared: Arc<Shared>, server: HttpServer) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(server.serve(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, serving })
    }

    /// Starts a proxy of any server at `host:port` whose client sends first. Each chunk that the client sends
    /// counts as a request.
    ///
    /// # Errors
    /// Returns an error if no port is available.
    pub async fn stream(upstream: String, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let (address, shared) = (listener.local_addr()?, Shared::new(None));
        let serving = tokio::spawn(stream::serve(listener, upstream, Arc::clone(&shared), clock));
        Ok(Self { address, shared, serving })
    }

    /// Returns the `host:port` of the proxy.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Returns the `http://host:port` of the proxy.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Injects a fault into the request after the next `more` requests. Replaces an earlier plan.
    pub fn plan(&self, more: u64, fault: HttpFault) {
        let mut state = self.shared.state();
        state.planned = Some((state.requests + more, fault));
    }

    /// Removes the plan, and returns whether its fault was injected.
    pub fn fired(&self) -> bool {
        self.shared.state().planned.take().is_none()
    }

    /// Injects a fault into the next request of an operation, see [`HttpRequest::operation`]. Several faults of an
    /// operation are injected into its next requests, in order.
    pub fn next(&self, operation: &str, fault: HttpFault) {
        self.shared.state().by_operation.push((operation.to_owned(), fault));
    }

    /// Injects a fault into each of the next `requests` requests. The outage is counted in requests, so no test
    /// waits for time to pass.
    pub fn outage(&self, requests: u64, fault: HttpFault) {
        self.shared.state().outage = Some((requests, fault)).filter(|_| requests > 0);
    }

    /// Returns the number of requests until the outage ends.
    pub fn outage_remaining(&self) -> u64 {
        self.shared.state().outage.as_ref().map_or(0, |(remaining, _)| *remaining)
    }

    /// Returns the number of requests that change something, see [`HttpRequest::changes_something`]. The count of a
    /// [`Proxy::stream`] is always 0.
    pub fn changes(&self) -> u64 {
        self.shared.state().changes
    }

    /// Returns the number of requests.
    pub fn request_count(&self) -> u64 {
        self.shared.state().requests
    }

    /// Returns the recorded requests since the last call of this function or of [`Proxy::take_operations`].
    pub fn take_requests(&self) -> Vec<HttpRequest> {
        self.shared.state().recorded.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Returns the operations of these requests.
    pub fn take_operations(&self) -> Vec<String> {
        self.take_requests().iter().map(HttpRequest::operation).collect()
    }

    /// Waits until a request of this operation was recorded and not taken yet.
    pub async fn until(&self, operation: &str) {
        let mut arrivals = self.shared.arrivals.subscribe();
        let is_recorded = || {
            let state = self.shared.state();
            state.recorded.iter().flatten().any(|request| request.operation() == operation)
        };
        // The sender lives as long as this proxy.
        while !is_recorded() && arrivals.changed().await.is_ok() {}
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
