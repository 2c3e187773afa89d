//! A loopback proxy between a program and a real service. The proxy counts requests and injects a fault into
//! the request that a plan selects.

mod http;
mod stream;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cdm_core::ports::Clock;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The fault that a request encounters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpFault {
    /// The connection closes before the request is forwarded.
    Refused,
    /// The request is forwarded, and the connection closes before the response arrives.
    LostAnswer,
    /// The request is forwarded after this delay.
    Delay(Duration),
    /// The request is not forwarded; the proxy responds with this status and body. In a [`Proxy::stream`], this
    /// is [`HttpFault::Refused`].
    Respond(u16, String),
    /// The request is not forwarded; the proxy responds with the throttling error of AWS or Kubernetes. In a
    /// [`Proxy::stream`], this is [`HttpFault::Refused`].
    Throttled,
}

/// Counters and planned faults of a proxy.
#[derive(Debug, Default)]
struct ProxyState {
    requests: u64,
    /// The number of requests that change something.
    changes: u64,
    /// The ordinal of a request, counted like `requests`, and its fault.
    planned: Option<(u64, HttpFault)>,
    /// How many of the next requests encounter the fault.
    outage: Option<(u64, HttpFault)>,
}

/// A fault-injecting proxy on loopback, which stops when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<Mutex<ProxyState>>,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy of the HTTP server at `host:port`.
    ///
    /// # Errors
    /// Returns an error if no port is available.
    pub async fn http(upstream: String, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let (address, state) = (listener.local_addr()?, Arc::<Mutex<ProxyState>>::default());
        let serving = tokio::spawn(http::serve(listener, upstream, Arc::clone(&state), clock));
        Ok(Self { address, state, serving })
    }

    /// Starts a proxy of any server at `host:port` whose client sends first. Each chunk that the client sends
    /// counts as a request.
    ///
    /// # Errors
    /// Returns an error if no port is available.
    pub async fn stream(upstream: String, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let (address, state) = (listener.local_addr()?, Arc::<Mutex<ProxyState>>::default());
        let serving = tokio::spawn(stream::serve(listener, upstream, Arc::clone(&state), clock));
        Ok(Self { address, state, serving })
    }

    /// Returns the `host:port` of the proxy.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Injects a fault into the request after the next `more` requests. Replaces an earlier plan.
    pub fn plan(&self, more: u64, fault: HttpFault) {
        let mut state = lock(&self.state);
        state.planned = Some((state.requests + more, fault));
    }

    /// Injects a fault into each of the next `requests` requests. The outage is counted in requests, so no test
    /// waits for time to pass.
    pub fn outage(&self, requests: u64, fault: HttpFault) {
        lock(&self.state).outage = Some((requests, fault)).filter(|_| requests > 0);
    }

    /// Returns the number of requests until the outage ends.
    pub fn outage_remaining(&self) -> u64 {
        lock(&self.state).outage.as_ref().map_or(0, |(remaining, _)| *remaining)
    }

    /// Removes the plan, and returns whether its fault was injected.
    pub fn fired(&self) -> bool {
        lock(&self.state).planned.take().is_none()
    }

    /// Returns the number of requests that change something: by method, or by operation name for DynamoDB and
    /// Secrets Manager. The count of a [`Proxy::stream`] is always 0.
    pub fn changes(&self) -> u64 {
        lock(&self.state).changes
    }

    /// Returns the number of requests.
    pub fn request_count(&self) -> u64 {
        lock(&self.state).requests
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

fn lock(state: &Mutex<ProxyState>) -> MutexGuard<'_, ProxyState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts a request, and returns the fault to inject into it.
fn take_fault(state: &Mutex<ProxyState>) -> Option<HttpFault> {
    let mut state = lock(state);
    let number = state.requests;
    state.requests += 1;
    if let Some((remaining, fault)) = state.outage.take() {
        state.outage = Some((remaining - 1, fault.clone())).filter(|(remaining, _)| *remaining > 0);
        return Some(fault);
    }
    state.planned.take_if(|(planned, _)| *planned == number).map(|(_, fault)| fault)
}
