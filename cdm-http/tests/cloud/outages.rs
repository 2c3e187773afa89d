//! Every backend fails for more requests than a step may have attempts. The operation waits with the backend's last
//! error, nothing is parked, no attempt is counted, and the operation ends as requested once the backend is back.
//!
//! An outage is counted in requests, and the server's configuration keeps the pauses between retries short: the test
//! waits for answers, never for time. `CDM_CAMPAIGNS=full` plays every failure of every backend, otherwise one each;
//! `CDM_SEED` draws others.

use std::collections::BTreeSet;

use cdm_testkit::ids::Rng;
use cdm_testkit::proxy::Trouble;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::place::Place;
use super::server::{Server, new_site};

/// More than the eight attempts of a step. The server's watches ask Kubernetes as well, and use up a part.
const REQUESTS: &[(&str, u64)] = &[("aws", 14), ("dynamodb", 14), ("kubernetes", 30), ("mysql", 14)];
/// How often a client asks at most until an operation has ended, each time for up to two seconds.
const LOOKS: usize = 60;
/// Short pauses, and one request for each call.
const CONFIGURATION: &[(&str, &str)] =
    &[("CDM_RETRY_PAUSE_MS", "20"), ("CDM_RETRY_LONGEST_PAUSE_MS", "200"), ("AWS_MAX_ATTEMPTS", "1")];

fn troubles(part: &str) -> Vec<Trouble> {
    let answer = |status| Trouble::Answer(status, String::new());
    match part {
        "mysql" => vec![Trouble::Refused],
        "dynamodb" => vec![Trouble::Refused, Trouble::Throttled],
        _ => vec![Trouble::Refused, Trouble::Throttled, answer(403), answer(503)],
    }
}

/// Sends the request until the server, whose own store may be out of reach, answers it.
async fn patiently(server: &Server, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
    for _ in 0..LOOKS {
        let (status, value) = server.ask(method.clone(), path, body).await;
        if !status.is_server_error() {
            return (status, value);
        }
    }
    panic!("{path}: still no answer after {LOOKS} requests");
}

/// Provisions a site through an outage; the codes of the reasons that a client saw.
async fn provision(
    place: &Place,
    server: &Server,
    id: &str,
    part: &str,
    trouble: &Trouble,
) -> BTreeSet<String> {
    let (status, made) = patiently(server, Method::POST, "/sites/create?wait=60s", Some(&new_site(id))).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let requests = REQUESTS.iter().find(|(name, _)| *name == part).expect("a backend").1;
    let provision = format!("/sites/{id}/provision");
    // The store is needed to accept the request at all; the others fail from the operation's first call on.
    let begin = || place.proxies[part].outage(requests, trouble.clone());
    if part != "dynamodb" {
        begin();
    }
    let (status, operation) = patiently(server, Method::POST, &provision, None).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{operation}");
    if part == "dynamodb" {
        begin();
    }
    let path = format!("/operations/{}?wait=2s", operation["id"].as_str().expect("an id"));
    let (mut codes, mut last) = (BTreeSet::new(), json!(null));
    for _ in 0..LOOKS {
        (_, last) = patiently(server, Method::GET, &path, None).await;
        assert_ne!(last["status"], "parked", "{last}");
        if last["status"] == "succeeded" {
            break;
        }
        codes.extend(last["reason"]["code"].as_str().map(str::to_owned));
    }
    let left = place.proxies[part].outage_left();
    assert_eq!(last["status"], "succeeded", "{left} requests of the outage left: {last}");
    assert_eq!(left, 0, "the operation was done before the outage was over: {last}");
    // A server that cannot renew its lease may lose its work to itself, and that counts.
    let steps = last["steps"].as_array().expect("steps");
    assert!(part == "dynamodb" || steps.iter().all(|step| step["attempts"] == 1), "{last}");
    codes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "a campaign's line is its result")]
#[expect(clippy::disallowed_methods, reason = "a campaign reads its size from the environment")]
async fn a_backend_that_is_away_for_longer_than_all_attempts_is_waited_for() {
    let Some(place) = Place::open().await else { return };
    let full = std::env::var("CDM_CAMPAIGNS").is_ok_and(|value| value == "full");
    let seed = std::env::var("CDM_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(2026);
    let mut chance = Rng::new(seed);
    let server = tokio::task::block_in_place(|| place.serve_with(CONFIGURATION));
    let (mut runs, mut seen) = (0, BTreeSet::new());
    for (part, _) in REQUESTS {
        let mut troubles = troubles(part);
        if !full {
            troubles = vec![troubles.swap_remove(chance.below(troubles.len() as u64) as usize)];
        }
        for trouble in troubles {
            runs += 1;
            seen.extend(provision(&place, &server, &format!("away-{runs}"), part, &trouble).await);
        }
    }
    println!("campaign cloud-outages: {runs} runs, 0 failed, 0 parked, seed {seed}; reasons seen: {seen:?}");
}
