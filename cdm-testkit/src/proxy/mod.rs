//! A proxy on loopback between a program and a real part: it counts what is asked, and spoils the request that a plan
//! names.

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

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The connection breaks, and the part never hears of it.
    Refused,
    /// The part does as it was asked, and the connection breaks before the answer is through.
    LostAnswer,
    /// The part hears of it so much later.
    Delay(Duration),
    /// The part never hears of it, and the proxy answers with this status and body. Where no HTTP is spoken this is
    /// [`Trouble::Refused`].
    Answer(u16, String),
    /// Likewise, with what AWS or Kubernetes say when they are asked too often.
    Throttled,
}

/// What a proxy has seen and shall do.
#[derive(Debug, Default)]
struct Ledger {
    asked: u64,
    /// Those among them that change something.
    changes: u64,
    /// The request, counted like `asked`, and what happens to it.
    planned: Option<(u64, Trouble)>,
    /// How many of the next requests meet a trouble.
    outage: Option<(u64, Trouble)>,
}

/// A proxy, which ends when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    ledger: Arc<Mutex<Ledger>>,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// In front of an HTTP server at `host:port`.
    ///
    /// # Errors
    /// When no port is to be had.
    pub async fn http(upstream: String, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let (address, ledger) = (listener.local_addr()?, Arc::<Mutex<Ledger>>::default());
        let serving = tokio::spawn(http::serve(listener, upstream, Arc::clone(&ledger), clock));
        Ok(Self { address, ledger, serving })
    }

    /// In front of any server at `host:port` that waits for a request before it says more; what its client sends in one
    /// piece counts as a request.
    ///
    /// # Errors
    /// When no port is to be had.
    pub async fn stream(upstream: String, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let (address, ledger) = (listener.local_addr()?, Arc::<Mutex<Ledger>>::default());
        let serving = tokio::spawn(stream::serve(listener, upstream, Arc::clone(&ledger), clock));
        Ok(Self { address, ledger, serving })
    }

    /// `host:port` of the proxy.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Spoils the request that comes after `more` others from now on; an earlier plan is forgotten.
    pub fn plan(&self, more: u64, trouble: Trouble) {
        let mut ledger = enter(&self.ledger);
        ledger.planned = Some((ledger.asked + more, trouble));
    }

    /// Spoils the next so many requests: an outage, counted in requests, so that no test waits for time to pass.
    pub fn outage(&self, requests: u64, trouble: Trouble) {
        enter(&self.ledger).outage = Some((requests, trouble)).filter(|_| requests > 0);
    }

    /// How many requests of the outage are still to come.
    pub fn outage_left(&self) -> u64 {
        enter(&self.ledger).outage.as_ref().map_or(0, |(left, _)| *left)
    }

    /// Forgets the plan; whether it had come to pass.
    pub fn fired(&self) -> bool {
        enter(&self.ledger).planned.take().is_none()
    }

    /// How many requests there were that change something: by their method, and for DynamoDB and Secrets Manager by the
    /// operation that they name. Where no HTTP is spoken this is none.
    pub fn changes(&self) -> u64 {
        enter(&self.ledger).changes
    }

    /// How many requests there were.
    pub fn asked(&self) -> u64 {
        enter(&self.ledger).asked
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

fn enter(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts a request; what is to happen to it.
fn next(ledger: &Mutex<Ledger>) -> Option<Trouble> {
    let mut ledger = enter(ledger);
    let number = ledger.asked;
    ledger.asked += 1;
    if let Some((left, trouble)) = ledger.outage.take() {
        ledger.outage = Some((left - 1, trouble.clone())).filter(|(left, _)| *left > 0);
        return Some(trouble);
    }
    ledger.planned.take_if(|(planned, _)| *planned == number).map(|(_, trouble)| trouble)
}
