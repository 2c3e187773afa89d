//! Each part away for more requests than a step may make attempts: the operation waits with the part's last error, and
//! ends as asked; no attempt is counted, and nothing is parked. The outages are counted in requests, and the pauses
//! between them are short by the server's configuration, so that no test waits for time to pass.

use cdm_testkit::proxy::Trouble;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::place::Place;
use super::server::{Server, new_site};

/// More than the attempts of a step; Kubernetes is asked by watches besides.
const REQUESTS: &[(&str, u64)] = &[("aws", 14), ("dynamodb", 14), ("kubernetes", 60), ("mysql", 14)];
/// How often the operation is asked for.
const LOOKS: usize = 60;

fn troubles(part: &str) -> Vec<Trouble> {
    let answer = |status| Trouble::Answer(status, String::new());
    match part {
        "mysql" => vec![Trouble::Refused],
        "dynamodb" => vec![Trouble::Refused, Trouble::Throttled],
        _ => vec![Trouble::Refused, Trouble::Throttled, answer(403), answer(503)],
    }
}

/// Asks until the server, whose store may be out of reach, has an answer.
async fn patiently(server: &Server, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
    for _ in 0..LOOKS {
        let (status, value) = server.ask(method.clone(), path, body).await;
        if !status.is_server_error() {
            return (status, value);
        }
    }
    panic!("{path}: no answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_is_away_for_longer_than_all_attempts_is_waited_for() {
    let Some(place) = Place::open().await else { return };
    let pauses = [("CDM_RETRY_PAUSE_MS", "20"), ("CDM_RETRY_LONGEST_PAUSE_MS", "200")];
    let server = tokio::task::block_in_place(|| place.serve_with(&pauses));
    let mut number = 0;
    for (part, requests) in REQUESTS {
        for trouble in troubles(part) {
            number += 1;
            let id = format!("away-{number}");
            let plan = format!("{part} {trouble:?}");
            let (status, made) =
                patiently(&server, Method::POST, "/sites/create?wait=60s", Some(&new_site(&id))).await;
            assert_eq!(status, StatusCode::CREATED, "{plan}: {made}");
            let path = format!("/sites/{id}/provision");
            let (status, operation) = patiently(&server, Method::POST, &path, None).await;
            assert_eq!(status, StatusCode::ACCEPTED, "{plan}: {operation}");
            place.proxies[part].outage(*requests, trouble.clone());
            let path = format!("/operations/{}?wait=2s", operation["id"].as_str().expect("an id"));
            let mut waited = Vec::new();
            let mut done = json!(null);
            for _ in 0..LOOKS {
                let (_, now) = patiently(&server, Method::GET, &path, None).await;
                assert_ne!(now["status"], "parked", "{plan}: {now}");
                if now["status"] == "succeeded" {
                    done = now;
                    break;
                }
                waited.push(now["reason"]["code"].clone());
            }
            assert_eq!(done["status"], "succeeded", "{plan}: {waited:?}");
            assert_eq!(place.proxies[part].outage_left(), 0, "{plan}: the outage was not over");
            let attempts =
                done["steps"].as_array().expect("steps").iter().map(|step| step["attempts"].clone());
            let attempts: Vec<Value> = attempts.collect();
            // A server that cannot renew its lease may lose its work to itself, which counts.
            let lost = *part == "dynamodb";
            assert!(lost || attempts.iter().all(|attempts| *attempts == 1), "{plan}: {attempts:?}");
        }
    }
}
