//! Event streams: they resume, they end with their subject, and with the token of whoever listens.

use futures_util::StreamExt;
use reqwest::{Method, StatusCode};
use tokio::io::AsyncWriteExt;

use super::server::{ADMIN, Server, directory, new_site};

/// Reads a stream until `enough` of it was seen; answers all that came. An end of the stream is enough.
async fn read(answer: reqwest::Response, enough: impl Fn(&str) -> bool) -> String {
    let mut seen = String::new();
    let mut chunks = answer.bytes_stream();
    while !enough(&seen) {
        match chunks.next().await {
            Some(Ok(bytes)) => seen.push_str(&String::from_utf8_lossy(&bytes)),
            Some(Err(_)) | None => break,
        }
    }
    seen
}

fn ids(stream: &str) -> Vec<&str> {
    stream.lines().filter_map(|line| line.strip_prefix("id:")).map(str::trim).collect()
}

#[tokio::test]
async fn a_stream_resumes_where_it_was_cut_and_an_operations_ends_with_it() {
    let dir = directory();
    let server = Server::start(dir.path());
    server.ask(Method::POST, "/sites/create", Some(&new_site("one"))).await;
    let feed = server.ask_as(Some(ADMIN), Method::GET, "/events", None).await;
    assert!(feed.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
    let operation = server.done(Method::POST, "/sites/one/provision", None).await;
    let whole = read(feed, |seen| ids(seen).len() >= 5).await;
    let all = ids(&whole);
    let rest = server.client.get(format!("{}/events", server.url)).bearer_auth(ADMIN);
    let rest = rest.header("last-event-id", all[1]).send().await.unwrap();
    let rest = read(rest, |seen| ids(seen).len() >= all.len() - 2).await;
    assert_eq!(ids(&rest)[..all.len() - 2], all[2..], "{rest}");
    let path = format!("/operations/{}/events", operation["id"].as_str().unwrap());
    let ended = server.ask_as(Some(ADMIN), Method::GET, &path, None).await;
    assert!(read(ended, |_| false).await.contains("event: end"));
}

#[tokio::test]
async fn a_token_that_is_revoked_takes_its_stream_with_it() {
    let dir = directory();
    let server = Server::start(dir.path());
    let (id, viewer) = server.token("viewer").await;
    let stream = server.ask_as(Some(&viewer), Method::GET, "/events", None).await;
    assert_eq!(stream.status(), StatusCode::OK);
    let (revoked, _) = server.ask(Method::DELETE, &format!("/tokens/{id}"), None).await;
    assert_eq!(revoked, StatusCode::OK);
    // It ends by itself; else the test does not.
    read(stream, |_| false).await;
    let refused = server.ask_as(Some(&viewer), Method::GET, "/sites", None).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_client_that_goes_away_harms_nobody() {
    let dir = directory();
    let server = Server::start(dir.path());
    server.ask(Method::POST, "/sites/create", Some(&new_site("one"))).await;
    let address = server.url.trim_start_matches("http://").to_owned();
    for _ in 0..20 {
        // The client is gone before the answer.
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
    let operation = server.rested(&format!("/operations/{id}")).await;
    assert_eq!(operation["status"], "succeeded", "done without anyone waiting: {operation}");
}
