//! Two servers on one platform: what one leaves behind when it is killed or stands still, the other brings to its end,
//! and what stood still changes nothing afterwards.

use reqwest::Method;
use serde_json::{Value, json};

use super::place::Place;
use super::server::{Server, new_site};

const SITES: usize = 6;

async fn begin(server: &Server, method: Method, path: &str) -> String {
    let (status, operation) = server.ask(method, path, None).await;
    assert_eq!(status, 202, "{path}: {operation}");
    format!("/operations/{}", operation["id"].as_str().expect("an id"))
}

/// Asks for the provision of every site, and answers the operations.
async fn begin_all(server: &Server) -> Vec<String> {
    let mut begun = Vec::new();
    for number in 0..SITES {
        let (status, site) =
            server.ask(Method::POST, "/sites/create", Some(&new_site(&format!("s{number}")))).await;
        assert_eq!(status, 201, "{site}");
        begun.push(begin(server, Method::POST, &format!("/sites/s{number}/provision")).await);
    }
    begun
}

/// Each site has one of everything, and there is nothing else.
async fn one_of_each(place: &Place, server: &Server, operations: &[String]) {
    for path in operations {
        let ended = server.rested(path).await;
        assert_eq!(ended["status"], "succeeded", "{ended}");
    }
    let there = tokio::task::block_in_place(|| place.outside());
    let mine: Vec<String> = {
        let sites = server.get("/sites?limit=100").await;
        let items = sites["items"].as_array().expect("sites").clone();
        items.iter().map(|site| site["database"]["name"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(mine.len(), SITES);
    assert!(
        mine.iter().all(|name| there.databases.contains(name) && there.users.contains(name)),
        "{there:?}"
    );
    assert_eq!(there.ingresses.len(), SITES);
    let installs = |job: &&Value| job["metadata"]["name"].as_str().unwrap_or_default().contains("-install-");
    assert_eq!(there.jobs.iter().filter(installs).count(), SITES, "one installation each");
    assert_eq!(there.aws["secrets"].as_object().expect("secrets").len(), 2 * SITES);
}

async fn selected(server: &Server) {
    let (status, answer) = server.ask(Method::POST, "/services", Some(&json!({"selector": "blue"}))).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_server_leaves_its_neighbour_finishes() {
    let Some(place) = Place::open().await else { return };
    let (first, second) = tokio::task::block_in_place(|| (place.serve(), place.serve()));
    selected(&first).await;
    let operations = begin_all(&first).await;
    tokio::task::block_in_place(|| first.kill());
    one_of_each(&place, &second, &operations).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stood_still_past_its_lease_changes_nothing() {
    let Some(place) = Place::open().await else { return };
    let (first, second) = tokio::task::block_in_place(|| (place.serve(), place.serve()));
    selected(&first).await;
    let operations = begin_all(&first).await;
    first.signal("-STOP");
    for path in &operations {
        let ended = second.rested(path).await;
        assert_eq!(ended["status"], "succeeded", "{ended}");
    }
    // Sites that a successor has ended, while the first one still believes in them.
    let ended = begin(&second, Method::DELETE, "/sites/s0").await;
    assert_eq!(second.rested(&ended).await["status"], "succeeded");
    let (_, again) = second.ask(Method::POST, "/sites/create", Some(&new_site("s0"))).await;
    let provisioned = begin(&second, Method::POST, "/sites/s0/provision").await;
    assert_eq!(second.rested(&provisioned).await["status"], "succeeded", "{again}");
    first.signal("-CONT");
    // It answers again once it has looked at its own lease.
    assert_eq!(first.get("/readyz").await["status"], "ready");
    one_of_each(&place, &second, &operations).await;
}
