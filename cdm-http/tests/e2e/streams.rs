//! Event streams: they resume, and end with their subject and with the token of the client.

use futures_util::StreamExt;
use reqwest::{Method, StatusCode};
use tokio::io::AsyncWriteExt;

use cdm_testkit::server::{ADMIN, Server, directory, new_site};

/// Reads a stream until `enough` is satisfied or the stream ends; returns everything received.
async fn read(response: reqwest::Response, enough: impl Fn(&str) -> bool) -> String {
    let mut received = String::new();
    let mut chunks = response.bytes_stream();
    while !enough(&received) {
        match chunks.next().await {
            Some(Ok(bytes)) => received.push_str(&String::from_utf8_lossy(&bytes)),
            Some(Err(_)) | None => break,
        }
    }
    received
}

fn ids(stream: &str) -> Vec<&str> {
    stream.lines().filter_map(|line| line.strip_prefix("id:")).map(str::trim).collect()
}

#[tokio::test]
async fn a_stream_resumes_at_its_position_and_a_stream_of_an_operation_ends() {
    let dir = directory();
    let server = Server::start(dir.path());
    server.ask(Method::POST, "/sites/create", Some(&new_site("one"))).await;
    let feed = server.ask_as(Some(ADMIN), Method::GET, "/events", None).await;
    assert!(feed.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
    let operation = server.done(Method::POST, "/sites/one/provision", None).await;
    let whole = read(feed, |received| ids(received).len() >= 5).await;
    let all = ids(&whole);
    let resumed = server.client.get(format!("{}/events", server.url)).bearer_auth(ADMIN);
    let resumed = resumed.header("last-event-id", all[1]).send().await.unwrap();
    let resumed = read(resumed, |received| ids(received).len() >= all.len() - 2).await;
    assert_eq!(ids(&resumed)[..all.len() - 2], all[2..], "{resumed}");
    let path = format!("/operations/{}/events", operation["id"].as_str().unwrap());
    let ended = server.ask_as(Some(ADMIN), Method::GET, &path, None).await;
    assert!(read(ended, |_| false).await.contains("event: end"));
}

#[tokio::test]
async fn revoking_a_token_ends_its_stream() {
    let dir = directory();
    let server = Server::start(dir.path());
    let (id, viewer) = server.token("viewer").await;
    let stream = server.ask_as(Some(&viewer), Method::GET, "/events", None).await;
    assert_eq!(stream.status(), StatusCode::OK);
    let (revoked, _) = server.ask(Method::DELETE, &format!("/tokens/{id}"), None).await;
    assert_eq!(revoked, StatusCode::OK);
    // The read returns because the stream ends by itself.
    read(stream, |_| false).await;
    let refused = server.ask_as(Some(&viewer), Method::GET, "/sites", None).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_disconnected_client_has_no_effect_on_its_operation() {
    let dir = directory();
    let server = Server::start(dir.path());
    server.ask(Method::POST, "/sites/create", Some(&new_site("one"))).await;
    let address = server.url.trim_start_matches("http://").to_owned();
    for _ in 0..20 {
        // The client disconnects before the response.
        let mut connection = tokio::net::TcpStream::connect(&address).await.unwrap();
        let request = format!(
            "POST /sites/one/provision?wait=30s HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {ADMIN}\r\n\r\n"
        );
        connection.write_all(request.as_bytes()).await.unwrap();
    }
    let (status, refused) = server.ask(Method::POST, "/sites/one/provision", None).await;
    assert!(status == StatusCode::ACCEPTED || status == StatusCode::CONFLICT, "{refused}");
    let operations = server.get("/operations?site=one&kind=provision").await;
    let id = operations["items"][0]["id"].as_str().unwrap().to_owned();
    let operation = server.wait_until_at_rest(&format!("/operations/{id}")).await;
    assert_eq!(
        operation["status"], "succeeded",
        "the operation finishes without a waiting client: {operation}"
    );
}
