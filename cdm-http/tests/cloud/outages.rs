//! Every backend fails for more requests than a step may have attempts. The operation waits with the backend's last
//! error, nothing is parked, no attempt is counted, and the operation ends as requested once the backend is back.
//!
//! An outage is counted in requests, and the server's configuration keeps the pauses between retries short: the test
//! waits for responses, never for time. `CDM_CAMPAIGNS=full` runs every failure of every backend, otherwise one each;
//! `CDM_SEED` selects others.

use std::collections::BTreeSet;

use cdm_testkit::campaign;
use cdm_testkit::ids::Rng;
use cdm_testkit::proxy::{HttpFault, HttpResponse};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::platform::Platform;
use cdm_testkit::server::{Server, new_site};

/// More than the eight attempts of a step. The server's watches also send requests to Kubernetes, and use up a part.
const REQUESTS: &[(&str, u64)] = &[("aws", 14), ("dynamodb", 14), ("kubernetes", 30), ("mysql", 14)];
/// Maximum number of requests of a client until an operation has ended, each of which waits up to two seconds.
const MAX_POLLS: usize = 60;
/// Short pauses, and one request for each call.
const CONFIGURATION: &[(&str, &str)] =
    &[("CDM_RETRY_PAUSE_MS", "20"), ("CDM_RETRY_LONGEST_PAUSE_MS", "200"), ("AWS_MAX_ATTEMPTS", "1")];

fn http_faults(backend: &str) -> Vec<HttpFault> {
    let respond = |status| HttpFault::Respond(HttpResponse::json(status, "").retry_after(1));
    match backend {
        "mysql" => vec![HttpFault::LoseRequest],
        "dynamodb" => vec![HttpFault::LoseRequest, HttpFault::Throttle],
        _ => vec![HttpFault::LoseRequest, HttpFault::Throttle, respond(403), respond(503)],
    }
}

/// Sends the request until the server responds, because the server's own store may be unavailable.
async fn send_until_response(
    server: &Server,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> (StatusCode, Value) {
    for _ in 0..MAX_POLLS {
        let (status, value) = server.ask(method.clone(), path, body).await;
        if !status.is_server_error() {
            return (status, value);
        }
    }
    panic!("{path}: still no response after {MAX_POLLS} requests");
}

/// Provisions a site through an outage, and returns the reason codes that a client saw.
async fn provision(
    platform: &Platform,
    server: &Server,
    id: &str,
    backend: &str,
    http_fault: &HttpFault,
) -> BTreeSet<String> {
    let (status, made) =
        send_until_response(server, Method::POST, "/sites/create?wait=60s", Some(&new_site(id))).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let requests = REQUESTS.iter().find(|(name, _)| *name == backend).expect("a backend").1;
    let provision = format!("/sites/{id}/provision");
    // The store is required to accept the request; the other backends fail from the first call of the operation on.
    let begin = || platform.proxies[backend].outage(requests, http_fault.clone());
    if backend != "dynamodb" {
        begin();
    }
    let (status, operation) = send_until_response(server, Method::POST, &provision, None).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{operation}");
    if backend == "dynamodb" {
        begin();
    }
    let path = format!("/operations/{}?wait=2s", operation["id"].as_str().expect("an id"));
    let (mut codes, mut last) = (BTreeSet::new(), json!(null));
    for _ in 0..MAX_POLLS {
        (_, last) = send_until_response(server, Method::GET, &path, None).await;
        assert_ne!(last["status"], "parked", "{last}");
        if last["status"] == "succeeded" {
            break;
        }
        codes.extend(last["reason"]["code"].as_str().map(str::to_owned));
    }
    let remaining = platform.proxies[backend].outage_remaining();
    assert_eq!(last["status"], "succeeded", "{remaining} requests of the outage left: {last}");
    assert_eq!(remaining, 0, "the operation was done before the outage was over: {last}");
    // A server that cannot renew its lease may take over its own work, which counts as an attempt.
    let steps = last["steps"].as_array().expect("steps");
    assert!(backend == "dynamodb" || steps.iter().all(|step| step["attempts"] == 1), "{last}");
    codes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "the campaign prints its result")]
async fn an_outage_longer_than_all_attempts_is_awaited() {
    let Some(platform) = Platform::open().await else { return };
    let full = campaign::full();
    let seed = campaign::seed();
    let mut chance = Rng::new(seed);
    let server = tokio::task::block_in_place(|| platform.start_with(CONFIGURATION));
    let (mut runs, mut seen) = (0, BTreeSet::new());
    for (backend, _) in REQUESTS {
        let mut http_faults = http_faults(backend);
        if !full {
            http_faults = vec![http_faults.swap_remove(chance.below(http_faults.len() as u64) as usize)];
        }
        for http_fault in http_faults {
            runs += 1;
            seen.extend(provision(&platform, &server, &format!("away-{runs}"), backend, &http_fault).await);
        }
    }
    println!("campaign cloud-outages: {runs} runs, 0 failed, 0 parked, seed {seed}; reasons seen: {seen:?}");
}
