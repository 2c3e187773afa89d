//! The number of requests in the lifecycle of a site, counted by the proxies in front of the backends. Modifying
//! requests are part of the work; some of the other requests are from the client that polls for the result.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::json;

use super::platform::Platform;
use cdm_testkit::server::{Server, new_site};

/// Number of measured lifecycles; the median is printed. Heartbeats of a worker occur in few of them.
const LIVES: usize = 9;

/// Requests of each backend so far, or in one phase of a lifecycle: all, and those that modify something.
type Count = BTreeMap<&'static str, (u64, u64)>;

fn count_requests(platform: &Platform) -> Count {
    platform
        .proxies
        .iter()
        .map(|(backend, proxy)| (*backend, (proxy.request_count(), proxy.changes())))
        .collect()
}

fn since(before: &Count, now: &Count) -> Count {
    let difference = |(backend, (all, changes)): (&&'static str, &(u64, u64))| {
        (*backend, (all - before[backend].0, changes - before[backend].1))
    };
    now.iter().map(difference).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_requests_of_a_lifecycle_are_counted() {
    let Some(platform) = Platform::open().await else { return };
    let server = tokio::task::block_in_place(|| platform.start());
    let (status, selected) = server.ask(Method::POST, "/services", Some(&json!({"selector": "green"}))).await;
    assert_eq!(status, 200, "{selected}");
    let mut lives: BTreeMap<&'static str, Vec<Count>> = BTreeMap::new();
    for number in 0..LIVES {
        for (piece, count) in run_lifecycle(&platform, &server, &format!("s{number}")).await {
            lives.entry(piece).or_default().push(count);
        }
    }
    for (piece, counts) in lives {
        print_result(piece, &counts);
    }
}

/// Runs one lifecycle, and returns the requests of each phase.
async fn run_lifecycle(platform: &Platform, server: &Server, id: &str) -> Vec<(&'static str, Count)> {
    let mut site = new_site(id);
    site["service"] = "blue".into();
    let mut before = count_requests(platform);
    let mut pieces = Vec::new();
    let mut piece = |name| {
        let now = count_requests(platform);
        pieces.push((name, since(&before, &now)));
        before = now;
    };
    let (status, made) = server.ask(Method::POST, "/sites/create", Some(&site)).await;
    assert_eq!(status, 201, "{made}");
    piece("create");
    server.done(Method::POST, &format!("/sites/{id}/provision"), None).await;
    piece("provision");
    server.done(Method::PUT, &format!("/sites/{id}/promote"), None).await;
    piece("promote");
    server.done(Method::DELETE, &format!("/sites/{id}"), None).await;
    piece("terminate");
    pieces
}

#[expect(clippy::print_stdout, reason = "the campaign prints the measured costs")]
fn print_result(piece: &str, counts: &[Count]) {
    let middle = |mut of_part: Vec<u64>| {
        of_part.sort_unstable();
        of_part[of_part.len() / 2]
    };
    let parts: Vec<String> = counts[0]
        .keys()
        .map(|backend| {
            let all = middle(counts.iter().map(|count| count[backend].0).collect());
            let changes = middle(counts.iter().map(|count| count[backend].1).collect());
            // The proxy does not parse the protocol of MariaDB.
            if *backend == "mysql" {
                format!("{backend} {all}")
            } else {
                format!("{backend} {all} ({changes} change something)")
            }
        })
        .collect();
    println!("campaign cloud-costs: {LIVES} runs, 0 failed, requests of a {piece}: {}", parts.join(", "));
}
