//! Clients that repeat each request to a server that is killed and restarted, until they get a response.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::{Client, Method};
use serde_json::Value;
use tokio::sync::watch;

use cdm_testkit::server::{ADMIN, new_site};

/// How long a client waits before it repeats a request, unless another server starts first.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// Timeout of one request; longer than the request timeout of the server.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(100);

/// State that all clients share.
#[derive(Debug)]
pub(crate) struct SharedState {
    /// Minimum number of sites.
    sites: usize,
    next: AtomicUsize,
    /// Sites whose lifecycle is in progress.
    in_progress: Mutex<BTreeSet<usize>>,
    /// Whether the planned number of kills is reached.
    pub(crate) enough: AtomicBool,
    /// The last kill after which no work was observed at rest yet; and the recovery times of the earlier kills.
    kill: Mutex<Option<Instant>>,
    recoveries: Mutex<Vec<Duration>>,
    /// How often an operation was parked because its workers ended repeatedly.
    pub(crate) retried: AtomicUsize,
    /// All response bodies.
    pub(crate) responses: Mutex<Vec<String>>,
}

impl SharedState {
    pub(crate) fn new(sites: usize) -> Self {
        Self {
            sites,
            next: AtomicUsize::new(0),
            in_progress: Mutex::default(),
            enough: AtomicBool::new(false),
            kill: Mutex::default(),
            recoveries: Mutex::default(),
            retried: AtomicUsize::new(0),
            responses: Mutex::default(),
        }
    }

    /// Returns the number of sites whose lifecycle has begun.
    pub(crate) fn begun(&self) -> usize {
        self.next.load(Ordering::SeqCst)
    }

    /// Records a kill. If no work came to rest since the previous kill, the measurement of that kill continues.
    pub(crate) fn killed(&self, at: Instant) {
        self.kill.lock().expect("the kill").get_or_insert(at);
    }

    fn seen_at_rest(&self) {
        if let Some(kill) = self.kill.lock().expect("the kill").take() {
            self.recoveries.lock().expect("the recoveries").push(kill.elapsed());
        }
    }

    /// Returns the times from each kill to the first work observed at rest, sorted.
    pub(crate) fn recoveries(&self) -> Vec<Duration> {
        let mut recoveries = self.recoveries.lock().expect("the recoveries").clone();
        recoveries.sort_unstable();
        recoveries
    }

    /// Returns the next site to begin with; `None` once there are enough sites and kills.
    fn next(&self) -> Option<usize> {
        let wanted = !self.enough.load(Ordering::SeqCst) || self.begun() < self.sites;
        wanted.then(|| self.next.fetch_add(1, Ordering::SeqCst))
    }
}

/// Returns whether a site is terminated at the end.
pub(crate) const fn ends(number: usize) -> bool {
    number.is_multiple_of(4)
}

/// A client.
#[derive(Debug)]
pub(crate) struct RetryingClient {
    client: Client,
    url: watch::Receiver<String>,
    shared: Arc<SharedState>,
    name: usize,
    /// Number of requests, so that each has its own idempotency key.
    request_count: usize,
}

impl RetryingClient {
    pub(crate) fn new(
        name: usize,
        client: Client,
        url: watch::Receiver<String>,
        shared: Arc<SharedState>,
    ) -> Self {
        Self { client, url, shared, name, request_count: 0 }
    }

    /// Runs the lifecycles of sites one after another.
    pub(crate) async fn work(&mut self) -> Result<(), String> {
        while let Some(number) = self.shared.next() {
            self.shared.in_progress.lock().expect("the sites").insert(number);
            self.run_lifecycle(number).await?;
            self.shared.in_progress.lock().expect("the sites").remove(&number);
        }
        Ok(())
    }

    async fn run_lifecycle(&mut self, number: usize) -> Result<(), String> {
        let id = format!("s{number}");
        let mut site = new_site(&id);
        site["service"] = "blue".into();
        self.done(Method::POST, "/sites/create", Some(&site)).await?;
        self.done(Method::POST, &format!("/sites/{id}/provision"), None).await?;
        self.done(Method::PUT, &format!("/sites/{id}/promote"), None).await?;
        if ends(number) {
            self.done(Method::DELETE, &format!("/sites/{id}"), None).await?;
        }
        Ok(())
    }

    /// Repeats a request until the work is done. Every repetition has the same key, so it is the same request.
    async fn done(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<(), String> {
        let (key, path) = (self.key(), format!("{path}?wait=20s"));
        loop {
            let (status, response) = self.ask(&key, &method, &path, body).await;
            let reason = &response["reason"]["code"];
            match (status, response["status"].as_str()) {
                // A created site, or a succeeded operation.
                (201, None) | (200, Some("succeeded")) => {}
                // An operation, or an installation, that was interrupted by several kills is parked for an operator, who
                // retries it.
                (200 | 202, Some("parked"))
                    if reason == "attempts_exhausted" || reason == "install_incomplete" =>
                {
                    self.shared.retried.fetch_add(1, Ordering::SeqCst);
                    self.retry(response["id"].as_str().unwrap_or_default()).await?;
                    continue;
                }
                (202, Some("queued" | "running" | "waiting")) => continue,
                _ => return Err(format!("{method} {path}: {status} {response}")),
            }
            self.shared.seen_at_rest();
            return Ok(());
        }
    }

    async fn retry(&mut self, operation: &str) -> Result<(), String> {
        let (key, path) = (self.key(), format!("/operations/{operation}/retry"));
        let (status, response) = self.ask(&key, &Method::POST, &path, None).await;
        if status == 202 { Ok(()) } else { Err(format!("{path}: {status} {response}")) }
    }

    fn key(&mut self) -> String {
        self.request_count += 1;
        format!("{}-{}", self.name, self.request_count)
    }

    /// Returns the first valid response: not one of a server that is ending, starting or rate limited.
    async fn ask(&mut self, key: &str, method: &Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        loop {
            let url = self.url.borrow_and_update().clone();
            let request = self.client.request(method.clone(), format!("{url}{path}")).bearer_auth(ADMIN);
            let request = request.header("idempotency-key", key);
            let request = body.into_iter().fold(request, |request, body| request.json(body));
            if let Ok(response) = request.timeout(REQUEST_TIMEOUT).send().await {
                let status = response.status().as_u16();
                if let Ok(text) = response.text().await {
                    let value = serde_json::from_str(&text).unwrap_or(Value::Null);
                    self.shared.responses.lock().expect("the responses").push(text);
                    if !matches!(status, 429 | 503) {
                        return (status, value);
                    }
                }
            }
            if *self.url.borrow() == url {
                let _ = tokio::time::timeout(RETRY_DELAY, self.url.changed()).await;
            }
        }
    }
}
