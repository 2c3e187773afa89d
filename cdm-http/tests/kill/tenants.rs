//! Clients that ask a server which is killed and started again, until it has answered.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::{Client, Method};
use serde_json::Value;
use tokio::sync::watch;

use super::server::{ADMIN, new_site};

/// How long a client waits before it asks again, unless another server starts first.
const AGAIN: Duration = Duration::from_millis(100);
/// How long one request may take: longer than the server lets one.
const PATIENCE: Duration = Duration::from_secs(100);

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Board {
    /// At least so many sites.
    sites: usize,
    next: AtomicUsize,
    /// Sites whose life is under way.
    at_work: Mutex<BTreeSet<usize>>,
    /// Whether there were kills enough.
    pub(crate) enough: AtomicBool,
    /// The last kill after which nothing was seen at rest yet, and how long it took after the others.
    kill: Mutex<Option<Instant>>,
    recoveries: Mutex<Vec<Duration>>,
    /// How often an operation was parked because its workers ended again and again.
    pub(crate) retried: AtomicUsize,
    /// Every answer.
    pub(crate) said: Mutex<Vec<String>>,
}

impl Board {
    pub(crate) fn new(sites: usize) -> Self {
        Self {
            sites,
            next: AtomicUsize::new(0),
            at_work: Mutex::default(),
            enough: AtomicBool::new(false),
            kill: Mutex::default(),
            recoveries: Mutex::default(),
            retried: AtomicUsize::new(0),
            said: Mutex::default(),
        }
    }

    /// How many sites were begun with.
    pub(crate) fn begun(&self) -> usize {
        self.next.load(Ordering::SeqCst)
    }

    /// A kill. If nothing came to rest since the one before, that one's time goes on.
    pub(crate) fn killed(&self, at: Instant) {
        self.kill.lock().expect("the kill").get_or_insert(at);
    }

    fn seen_at_rest(&self) {
        if let Some(kill) = self.kill.lock().expect("the kill").take() {
            self.recoveries.lock().expect("the recoveries").push(kill.elapsed());
        }
    }

    /// From each kill to the first work that was seen at rest, in order of length.
    pub(crate) fn recoveries(&self) -> Vec<Duration> {
        let mut recoveries = self.recoveries.lock().expect("the recoveries").clone();
        recoveries.sort_unstable();
        recoveries
    }

    /// The next site to begin with; none once there were sites and kills enough.
    fn next(&self) -> Option<usize> {
        let wanted = !self.enough.load(Ordering::SeqCst) || self.begun() < self.sites;
        wanted.then(|| self.next.fetch_add(1, Ordering::SeqCst))
    }
}

/// Whether a site is terminated in the end.
pub(crate) const fn ends(number: usize) -> bool {
    number.is_multiple_of(4)
}

/// A client.
#[derive(Debug)]
pub(crate) struct Patient {
    client: Client,
    url: watch::Receiver<String>,
    board: Arc<Board>,
    name: usize,
    /// Counts requests, so that each has a key of its own.
    asked: usize,
}

impl Patient {
    pub(crate) fn new(name: usize, client: Client, url: watch::Receiver<String>, board: Arc<Board>) -> Self {
        Self { client, url, board, name, asked: 0 }
    }

    /// One site's life after another's.
    pub(crate) async fn work(&mut self) -> Result<(), String> {
        while let Some(number) = self.board.next() {
            self.board.at_work.lock().expect("the sites").insert(number);
            self.live(number).await?;
            self.board.at_work.lock().expect("the sites").remove(&number);
        }
        Ok(())
    }

    async fn live(&mut self, number: usize) -> Result<(), String> {
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

    /// Asks for work until it is done. Every repetition carries the same key, so it is the same request.
    async fn done(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<(), String> {
        let (key, path) = (self.key(), format!("{path}?wait=20s"));
        loop {
            let (status, answer) = self.ask(&key, &method, &path, body).await;
            let reason = &answer["reason"]["code"];
            match (status, answer["status"].as_str()) {
                // A site, or an operation.
                (201, None) | (200, Some("succeeded")) => {}
                // What was under way at kill after kill is put before a human, who has it go on.
                (200 | 202, Some("parked")) if reason == "attempts_exhausted" => {
                    self.board.retried.fetch_add(1, Ordering::SeqCst);
                    self.retry(answer["id"].as_str().unwrap_or_default()).await?;
                    continue;
                }
                (202, Some("queued" | "running" | "waiting")) => continue,
                _ => return Err(format!("{method} {path}: {status} {answer}")),
            }
            self.board.seen_at_rest();
            return Ok(());
        }
    }

    async fn retry(&mut self, operation: &str) -> Result<(), String> {
        let (key, path) = (self.key(), format!("/operations/{operation}/retry"));
        let (status, answer) = self.ask(&key, &Method::POST, &path, None).await;
        if status == 202 { Ok(()) } else { Err(format!("{path}: {status} {answer}")) }
    }

    fn key(&mut self) -> String {
        self.asked += 1;
        format!("{}-{}", self.name, self.asked)
    }

    /// The first answer that is one: not that of a server which is gone, starting, or asked too often.
    async fn ask(&mut self, key: &str, method: &Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        loop {
            let url = self.url.borrow_and_update().clone();
            let request = self.client.request(method.clone(), format!("{url}{path}")).bearer_auth(ADMIN);
            let request = request.header("idempotency-key", key);
            let request = body.into_iter().fold(request, |request, body| request.json(body));
            if let Ok(answer) = request.timeout(PATIENCE).send().await {
                let status = answer.status().as_u16();
                if let Ok(text) = answer.text().await {
                    let value = serde_json::from_str(&text).unwrap_or(Value::Null);
                    self.board.said.lock().expect("what was said").push(text);
                    if !matches!(status, 429 | 503) {
                        return (status, value);
                    }
                }
            }
            if *self.url.borrow() == url {
                let _ = tokio::time::timeout(AGAIN, self.url.changed()).await;
            }
        }
    }
}
