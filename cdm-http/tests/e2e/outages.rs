//! An unavailable backend: waiting operations report it, cause few requests, and resume by themselves.

use std::path::Path;

use futures_util::StreamExt;
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;

use cdm_testkit::server::{ADMIN, Server, directory, new_site};

/// Makes the site databases unavailable: replaces their directory by a file.
fn make_unavailable(data: &Path) {
    let databases = data.join("databases");
    if databases.exists() {
        std::fs::rename(&databases, data.join("databases.away")).expect("the databases are moved away");
    }
    std::fs::write(&databases, "no directory").expect("a file instead of the directory");
}

fn make_available(data: &Path) {
    let (databases, away) = (data.join("databases"), data.join("databases.away"));
    std::fs::remove_file(&databases).expect("the file is removed");
    if away.exists() {
        std::fs::rename(&away, &databases).expect("the databases are back");
    } else {
        std::fs::create_dir(&databases).expect("the databases are back");
    }
}

/// Returns the feed entries of an operation until it succeeds.
async fn feed_entries(feed: Response, operation: &str) -> Vec<String> {
    let (mut seen, mut chunks) = (String::new(), feed.bytes_stream());
    loop {
        let data = seen.lines().filter_map(|line| line.strip_prefix("data:"));
        let events = data.filter_map(|data| serde_json::from_str::<Value>(data).ok());
        let feed_entries = events.filter(|event| event["operation"] == operation);
        let feed_entries: Vec<String> =
            feed_entries.filter_map(|event| event["what"].as_str().map(str::to_owned)).collect();
        if feed_entries.iter().any(|entry| entry == "succeeded") {
            return feed_entries;
        }
        let chunk = chunks.next().await.expect("more of the feed").expect("a chunk");
        seen.push_str(&String::from_utf8_lossy(&chunk));
    }
}

async fn create(server: &Server, id: &str) {
    let (status, site) = server.ask(Method::POST, "/sites/create", Some(&new_site(id))).await;
    assert_eq!(status, StatusCode::CREATED, "{site}");
}

#[tokio::test]
async fn a_provision_waits_for_unavailable_databases_and_then_succeeds() {
    let dir = directory();
    let data = dir.path().join("data");
    let mut server = Server::start(dir.path());
    create(&server, "rrr").await;
    make_unavailable(&data);
    let feed = server.ask_as(Some(ADMIN), Method::GET, "/events", None).await;

    // Several attempts are made in this time.
    let (_, operation) = server.ask(Method::POST, "/sites/rrr/provision?wait=4s", None).await;
    let id = operation["id"].as_str().expect("an id").to_owned();
    let reason = &operation["reason"];
    assert_eq!(
        (&operation["status"], &reason["code"]),
        (&"waiting".into(), &"retrying".into()),
        "{operation}"
    );
    assert!(reason["message"].as_str().is_some_and(|message| message.contains("databases")), "{reason}");
    assert_eq!(operation["steps"][0]["attempts"], 1, "an outage does not count as an attempt: {operation}");

    make_available(&data);
    let done = server.wait_until_at_rest(&format!("/operations/{id}")).await;
    assert_eq!(done["status"], "succeeded", "{done}");
    let feed_entries = feed_entries(feed, &id).await;
    let before = feed_entries.iter().take_while(|entry| !entry.starts_with("step CreateDatabase"));
    let wait_count = before.filter(|entry| *entry == "waiting").count();
    assert_eq!(wait_count, 1, "one wait for all attempts: {feed_entries:?}");
    assert_eq!(server.page("rrr.example.com").await.status(), StatusCode::OK);

    // Work is also handed over during an outage.
    create(&server, "sss").await;
    make_unavailable(&data);
    let (_, operation) = server.ask(Method::POST, "/sites/sss/provision?wait=1s", None).await;
    assert_eq!(operation["status"], "waiting", "{operation}");
    assert!(server.terminate().success());
    make_available(&data);
    let server = Server::start(dir.path());
    let path = format!("/operations/{}", operation["id"].as_str().expect("an id"));
    let done = server.wait_until_at_rest(&path).await;
    assert_eq!(done["status"], "succeeded", "{done}");
}
