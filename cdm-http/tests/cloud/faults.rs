//! One failing request in the lifecycle of a site, at each backend in turn: the lifecycle succeeds nevertheless, and
//! in the end nothing is duplicated or left over.
//!
//! `CDM_CAMPAIGNS=full` runs 320 plans, otherwise 21; `CDM_SEED` selects other plans.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cdm_testkit::campaign;
use cdm_testkit::ids::Rng;
use cdm_testkit::proxy::{HttpFault, HttpResponse};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::platform::{NAMESPACE, Outside, Platform};
use cdm_testkit::server::{ADMIN, Server, new_site};

/// Number of platforms that run in parallel, and number of plans on each.
const SAMPLE: (usize, usize) = (3, 7);
const FULL: (usize, usize) = (4, 80);

/// Returns the faults that a request to a backend can have.
fn http_faults(part: &str) -> Vec<HttpFault> {
    let mut http_faults =
        vec![HttpFault::LoseRequest, HttpFault::LoseResponse, HttpFault::Delay(Duration::from_millis(700))];
    if part != "mysql" {
        let failed = |status| HttpFault::Respond(HttpResponse::json(status, "").retry_after(1));
        http_faults.extend([failed(500), failed(503), failed(504), HttpFault::Throttle]);
    }
    http_faults
}

/// Maximum number of requests of a client while a backend is reported as unavailable.
const MAX_REQUESTS: usize = 50;

#[derive(Debug, Default)]
struct Tally {
    /// How often each fault occurred, by backend.
    fired: BTreeMap<String, usize>,
    /// Plans whose request did not occur.
    idle: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_request_fails_no_lifecycle() {
    let full = campaign::full();
    let (lanes, plans) = if full { FULL } else { SAMPLE };
    let seed = campaign::seed();
    let mut playing = JoinSet::new();
    for index in 0..lanes {
        let Some(platform) = Platform::open().await else { return };
        playing.spawn(run_plans(platform, index, plans, Rng::new(seed + index as u64)));
    }
    let mut all = Tally::default();
    for tally in playing.join_all().await {
        all.idle += tally.idle;
        for (name, count) in tally.fired {
            *all.fired.entry(name).or_default() += count;
        }
    }
    print_result(seed, &all);
}

/// Runs lifecycles on a platform until this number of plans has occurred.
async fn run_plans(platform: Platform, index: usize, plans: usize, mut chance: Rng) -> Tally {
    let server = tokio::task::block_in_place(|| platform.start());
    let (status, selected) = server.ask(Method::POST, "/services", Some(&json!({"selector": "green"}))).await;
    assert_eq!(status, 200, "{selected}");
    let before: BTreeMap<_, _> =
        platform.proxies.iter().map(|(part, proxy)| (*part, proxy.request_count())).collect();
    let mut uids =
        vec![run_lifecycle(&platform, &server, &format!("l{index}-calm"), Interruption::Nothing).await];
    let requests: BTreeMap<_, _> =
        platform.proxies.iter().map(|(part, proxy)| (*part, proxy.request_count() - before[part])).collect();
    let parts: Vec<&'static str> = platform.proxies.keys().copied().collect();
    let (mut tally, mut number) = (Tally::default(), 0);
    uids.push(
        run_lifecycle(&platform, &server, &format!("l{index}-forgetful"), Interruption::HistoryDiscarded)
            .await,
    );
    tally.fired.insert("kubernetes 410".to_owned(), 1);
    while tally.fired.values().sum::<usize>() < plans {
        let part = parts[number % parts.len()];
        let known = http_faults(part);
        let http_fault = known[chance.below(known.len() as u64) as usize].clone();
        number += 1;
        assert!(number < 4 * plans, "too many plans do not occur: {tally:?}");
        platform.proxies[part].plan(chance.below(requests[part]), http_fault.clone());
        uids.push(
            run_lifecycle(&platform, &server, &format!("l{index}-s{number}"), Interruption::Nothing).await,
        );
        if platform.proxies[part].fired() {
            *tally.fired.entry(format!("{part} {}", fault_name(&http_fault))).or_default() += 1;
        } else {
            tally.idle += 1;
        }
    }
    let outside = tokio::task::block_in_place(|| platform.outside());
    nothing_is_left(&outside, &uids);
    tally
}

fn fault_name(http_fault: &HttpFault) -> String {
    match http_fault {
        HttpFault::LoseRequest => "request lost".to_owned(),
        HttpFault::LoseResponse => "response lost".to_owned(),
        HttpFault::Delay(_) => "delayed".to_owned(),
        HttpFault::Throttle => "throttled".to_owned(),
        HttpFault::Respond(response) => response.status().to_string(),
        HttpFault::Hold(_) => "held".to_owned(),
        HttpFault::NeverRespond => "without a response".to_owned(),
    }
}

/// A client that repeats a request when a backend was unavailable, with the same idempotency key.
#[derive(Debug)]
struct RetryingClient<'a> {
    server: &'a Server,
    id: String,
    request_count: AtomicUsize,
}

impl RetryingClient<'_> {
    /// Returns the first response other than 503.
    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, String) {
        let key = format!("{}-{}", self.id, self.request_count.fetch_add(1, Ordering::Relaxed));
        for _ in 0..MAX_REQUESTS {
            let request = self.server.client.request(method.clone(), format!("{}{path}", self.server.url));
            let request = request.bearer_auth(ADMIN).header("idempotency-key", &key);
            let response = body.into_iter().fold(request, |request, body| request.json(body)).send().await;
            let response = response.expect("a response");
            if response.status() != StatusCode::SERVICE_UNAVAILABLE {
                return (response.status(), response.text().await.expect("a text"));
            }
        }
        panic!("{path}: still unavailable after {MAX_REQUESTS} requests");
    }

    async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
        let (status, text) = self.ask(method, path, body).await;
        (status, serde_json::from_str(&text).expect("JSON"))
    }

    /// Requests an operation, and waits for its success.
    async fn done(&self, method: Method, path: &str) {
        let (status, operation) = self.json(method, path, None).await;
        assert_eq!(status, 202, "{path}: {operation}");
        self.wait_until_at_rest(&operation).await;
    }

    async fn wait_until_at_rest(&self, operation: &Value) {
        let path = format!("/operations/{}", operation["id"].as_str().expect("an id"));
        // The stream ends when the operation is at rest, or when the store was unavailable for a moment.
        for _ in 0..MAX_REQUESTS {
            self.ask(Method::GET, &format!("{path}/events"), None).await;
            let (_, now) = self.json(Method::GET, &path, None).await;
            match now["status"].as_str() {
                Some("succeeded") => return,
                Some("queued" | "running" | "waiting") => {}
                _ => panic!("{now}"),
            }
        }
        panic!("{path} does not come to rest");
    }
}

/// An event while the server waits for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interruption {
    Nothing,
    /// Kubernetes discards its history: every watch gets 410, and so does a client that resumes at its position.
    HistoryDiscarded,
}

/// Runs the lifecycle of a site, and returns its uid.
async fn run_lifecycle(platform: &Platform, server: &Server, id: &str, interruption: Interruption) -> String {
    let client = RetryingClient { server, id: id.to_owned(), request_count: AtomicUsize::new(0) };
    let mut site = new_site(id);
    site["service"] = "blue".into();
    let (status, made) = client.json(Method::POST, "/sites/create?wait=60s", Some(&site)).await;
    assert!(matches!(status.as_u16(), 201 | 202), "{id}: {status} {made}");
    if status == 202 {
        client.wait_until_at_rest(&made).await;
    }
    let path = format!("/sites/{id}/provision");
    let (status, operation) = client.json(Method::POST, &path, None).await;
    assert_eq!(status, 202, "{path}: {operation}");
    if interruption == Interruption::HistoryDiscarded {
        platform.kubernetes.compact();
        platform.kubernetes.expire_watches();
    }
    client.wait_until_at_rest(&operation).await;
    client.done(Method::PUT, &format!("/sites/{id}/promote")).await;
    let (_, site) = client.json(Method::GET, &format!("/sites/{id}"), None).await;
    let uid = site["uid"].as_str().expect("a uid").to_owned();
    assert_eq!((&site["state"], &site["routedService"]), (&"active".into(), &"green".into()), "{site}");
    let of_uid = |object: &&Value| object.to_string().contains(&uid);
    let ingresses = platform.kubernetes.objects("ingresses", NAMESPACE);
    assert_eq!(ingresses.iter().filter(of_uid).count(), 1, "{id}");
    let jobs = platform.kubernetes.objects("jobs", NAMESPACE);
    let is_install = |job: &&Value| {
        job["metadata"]["name"].as_str().is_some_and(|name| name.starts_with(&format!("{id}-install-")))
    };
    assert_eq!(jobs.iter().filter(is_install).count(), 1, "{id}");
    client.done(Method::DELETE, &format!("/sites/{id}")).await;
    uid
}

fn nothing_is_left(outside: &Outside, uids: &[String]) {
    for uid in uids {
        let of_uid = |text: String| text.contains(uid);
        assert!(!of_uid(format!("{:?} {:?}", outside.databases, outside.users)), "{uid} has a database");
        let objects = format!("{:?} {:?} {:?}", outside.ingresses, outside.secrets, outside.jobs);
        assert!(!of_uid(objects), "{uid} has something in the cluster");
        let of_aws = format!("{} {}", outside.aws["objects"], outside.aws["secrets"]);
        assert!(!of_uid(of_aws), "{uid} has objects or secrets");
    }
    assert_eq!(
        outside.aws["deleting"].as_array().map(Vec::len),
        Some(2 * uids.len()),
        "in the recovery window"
    );
}

#[expect(clippy::print_stdout, reason = "the campaign prints its result")]
fn print_result(seed: u64, tally: &Tally) {
    let runs: usize = tally.fired.values().sum();
    println!(
        "campaign cloud-faults: {runs} runs, 0 failed, seed {seed}, {} plans whose request did not occur; {:?}",
        tally.idle, tally.fired
    );
}
