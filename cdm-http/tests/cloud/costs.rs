//! How many requests a site's life costs, counted before the parts themselves. Those that change something are the
//! work's; of the others, some are those of the client that waits for it.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::json;

use super::place::Place;
use super::server::{Server, new_site};

/// How many lives are counted; the middle one is told. A worker's signs of life fall into few of them.
const LIVES: usize = 9;

/// Requests of each part so far, or of a piece of a life: all, and those that change something.
type Count = BTreeMap<&'static str, (u64, u64)>;

fn asked(place: &Place) -> Count {
    place.proxies.iter().map(|(part, proxy)| (*part, (proxy.asked(), proxy.changes()))).collect()
}

fn since(before: &Count, now: &Count) -> Count {
    let difference = |(part, (all, changes)): (&&'static str, &(u64, u64))| {
        (*part, (all - before[part].0, changes - before[part].1))
    };
    now.iter().map(difference).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_life_costs_is_told() {
    let Some(place) = Place::open().await else { return };
    let server = tokio::task::block_in_place(|| place.serve());
    let (status, selected) = server.ask(Method::POST, "/services", Some(&json!({"selector": "green"}))).await;
    assert_eq!(status, 200, "{selected}");
    let mut lives: BTreeMap<&'static str, Vec<Count>> = BTreeMap::new();
    for number in 0..LIVES {
        for (piece, count) in live(&place, &server, &format!("s{number}")).await {
            lives.entry(piece).or_default().push(count);
        }
    }
    for (piece, counts) in lives {
        tell(piece, &counts);
    }
}

/// A life, piece by piece.
async fn live(place: &Place, server: &Server, id: &str) -> Vec<(&'static str, Count)> {
    let mut site = new_site(id);
    site["service"] = "blue".into();
    let mut before = asked(place);
    let mut pieces = Vec::new();
    let mut piece = |name| {
        let now = asked(place);
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

#[expect(clippy::print_stdout, reason = "what it costs is the result")]
fn tell(piece: &str, counts: &[Count]) {
    let middle = |mut of_part: Vec<u64>| {
        of_part.sort_unstable();
        of_part[of_part.len() / 2]
    };
    let parts: Vec<String> = counts[0]
        .keys()
        .map(|part| {
            let all = middle(counts.iter().map(|count| count[part].0).collect());
            let changes = middle(counts.iter().map(|count| count[part].1).collect());
            // What MariaDB is asked is not looked into.
            if *part == "mysql" {
                format!("{part} {all}")
            } else {
                format!("{part} {all} ({changes} change something)")
            }
        })
        .collect();
    println!("campaign cloud-costs: {LIVES} runs, 0 failed, requests of a {piece}: {}", parts.join(", "));
}
