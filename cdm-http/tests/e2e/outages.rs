//! A backend that is away: what waits for it says so, costs next to nothing, and goes on by itself.

use std::path::Path;

use futures_util::StreamExt;
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;

use super::server::{ADMIN, Server, directory, new_site};

/// The sites' databases go away: a file is where their directory was.
fn take_away(data: &Path) {
    let databases = data.join("databases");
    if databases.exists() {
        std::fs::rename(&databases, data.join("databases.away")).expect("the databases go away");
    }
    std::fs::write(&databases, "no directory").expect("a file in their place");
}

fn bring_back(data: &Path) {
    let (databases, away) = (data.join("databases"), data.join("databases.away"));
    std::fs::remove_file(&databases).expect("the file goes");
    if away.exists() {
        std::fs::rename(&away, &databases).expect("the databases are back");
    } else {
        std::fs::create_dir(&databases).expect("the databases are back");
    }
}

/// What the feed says of an operation until it succeeds.
async fn words(feed: Response, operation: &str) -> Vec<String> {
    let (mut seen, mut chunks) = (String::new(), feed.bytes_stream());
    loop {
        let data = seen.lines().filter_map(|line| line.strip_prefix("data:"));
        let events = data.filter_map(|data| serde_json::from_str::<Value>(data).ok());
        let words = events.filter(|event| event["operation"] == operation);
        let words: Vec<String> =
            words.filter_map(|event| event["what"].as_str().map(str::to_owned)).collect();
        if words.iter().any(|word| word == "succeeded") {
            return words;
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
async fn a_provision_waits_while_the_databases_are_away_and_is_done_when_they_are_back() {
    let dir = directory();
    let data = dir.path().join("data");
    let mut server = Server::start(dir.path());
    create(&server, "rrr").await;
    take_away(&data);
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
    assert_eq!(operation["steps"][0]["attempts"], 1, "an outage is no attempt: {operation}");

    bring_back(&data);
    let done = server.rested(&format!("/operations/{id}")).await;
    assert_eq!(done["status"], "succeeded", "{done}");
    let words = words(feed, &id).await;
    let before = words.iter().take_while(|word| !word.starts_with("step CreateDatabase"));
    let waits = before.filter(|word| *word == "waiting").count();
    assert_eq!(waits, 1, "one wait, however often the databases were asked: {words:?}");
    assert_eq!(server.page("rrr.example.com").await.status(), StatusCode::OK);

    // Work is given back in an outage, too.
    create(&server, "sss").await;
    take_away(&data);
    let (_, operation) = server.ask(Method::POST, "/sites/sss/provision?wait=1s", None).await;
    assert_eq!(operation["status"], "waiting", "{operation}");
    assert!(server.terminate().success());
    bring_back(&data);
    let server = Server::start(dir.path());
    let path = format!("/operations/{}", operation["id"].as_str().expect("an id"));
    let done = server.rested(&path).await;
    assert_eq!(done["status"], "succeeded", "{done}");
}
