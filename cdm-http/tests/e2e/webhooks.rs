//! Webhooks: a real server tells a real receiver, also when one of them ends in the middle.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use cdm_core::domain::Timestamp;
use cdm_core::domain::webhook::{SigningKey, Topic};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::server::{PATIENCE, QUICK, Server, directory, new_site};

/// A message as it came.
struct MemberOutcome {
    headers: HeaderMap,
    body: String,
}

impl MemberOutcome {
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().expect("a header in ASCII")
    }

    fn says(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

struct Door {
    came: UnboundedSender<MemberOutcome>,
    count: AtomicUsize,
    /// Which message is taken and never answered.
    silent: usize,
}

async fn take(State(door): State<Arc<Door>>, headers: HeaderMap, body: String) -> StatusCode {
    let number = door.count.fetch_add(1, Ordering::SeqCst) + 1;
    let _ = door.came.send(MemberOutcome { headers, body });
    if number == door.silent {
        std::future::pending::<()>().await;
    }
    StatusCode::NO_CONTENT
}

/// A receiver on loopback, and what comes to it.
async fn receiver(silent: usize) -> (String, UnboundedReceiver<MemberOutcome>) {
    let (came, coming) = unbounded_channel();
    let door = Arc::new(Door { came, count: AtomicUsize::new(0), silent });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = Router::new().fallback(take).with_state(door);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (format!("http://{address}"), coming)
}

fn configuration(receiver: &str) -> String {
    format!("{QUICK}[webhooks]\nallow = ['{receiver}']\n")
}

async fn hook(server: &Server, url: &str) -> (String, SigningKey) {
    let events: Vec<&str> = Topic::ALL.iter().map(|topic| topic.as_str()).collect();
    let body = json!({"url": url, "events": events});
    let (status, made) = server.ask(Method::POST, "/webhooks", Some(&body)).await;
    assert_eq!(status.as_u16(), 201, "{made}");
    let key = made["key"].as_str().expect("a key").to_owned();
    (made["id"].as_str().expect("an id").to_owned(), SigningKey::parse(key.into()).expect("a key"))
}

async fn next(coming: &mut UnboundedReceiver<MemberOutcome>) -> MemberOutcome {
    let next = tokio::time::timeout(PATIENCE, coming.recv()).await;
    next.expect("a message in time").expect("the receiver goes on")
}

/// What has come once the site's operation of that kind was told of as succeeded.
async fn until_done(coming: &mut UnboundedReceiver<MemberOutcome>, operation: &str) -> Vec<MemberOutcome> {
    let mut came = Vec::new();
    loop {
        let next = next(coming).await;
        let says = next.says();
        came.push(next);
        if says["type"] == "operation.succeeded" && says["data"]["operation"] == operation {
            return came;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_is_told_what_the_feed_tells_signed_and_in_order() {
    let dir = directory();
    let (place, mut coming) = receiver(0).await;
    let server = Server::start_with(dir.path(), &configuration(&place));
    let (id, key) = hook(&server, &format!("{place}/cdm?a=b")).await;
    server.ask(Method::POST, "/sites/create", Some(&new_site("one"))).await;
    let last = server.done(Method::POST, "/sites/one/provision", None).await;
    let came = until_done(&mut coming, last["id"].as_str().expect("an id")).await;
    let number = id.strip_prefix("webhook-").expect("a number");
    let mut places = Vec::new();
    for message in &came {
        let (id, at) = (message.header("webhook-id"), message.header("webhook-timestamp"));
        let seconds: u64 = at.parse().expect("seconds");
        let signed = key.sign(id, Timestamp::from_millis(seconds * 1_000), message.body.as_bytes());
        assert_eq!(message.header("webhook-signature"), signed);
        assert_eq!(message.header("content-type"), "application/json");
        places.push(id.strip_prefix(&format!("msg-{number}-")).expect("an id").parse::<u64>().unwrap());
    }
    assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "{places:?}");
    // What `/events` tells, under the same names.
    let events =
        server.client.get(format!("{}/events?after=0", server.url)).bearer_auth(super::server::ADMIN);
    let mut events = events.send().await.expect("a stream");
    let mut text = String::new();
    while text.matches("\ndata: {").count() < came.len() {
        let chunk = events.chunk().await.expect("a stream that goes on").expect("more of it");
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    let told = text.lines().filter_map(|line| line.strip_prefix("data: "));
    for (told, message) in told.zip(&came) {
        let (told, says) = (serde_json::from_str::<Value>(told).expect("JSON"), message.says());
        assert_eq!(says["timestamp"], told["at"]);
        for field in ["subject", "operation", "rollout", "what"] {
            assert_eq!(says["data"][field], told[field], "{field}");
        }
    }
    let shown = server.get("/webhooks").await;
    assert_eq!((&shown["items"][0]["state"], &shown["items"][0]["key"]), (&json!("active"), &Value::Null));
    for secret in [secrecy::ExposeSecret::expose_secret(key.text()), "cdm?a=b"] {
        let audit = server.get("/audit").await.to_string();
        assert!(!audit.contains(secret) && !server.log.lock().expect("the log").contains(secret));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_between_a_message_and_its_answer_sends_it_again_and_loses_none() {
    let dir = directory();
    let (place, mut coming) = receiver(5).await;
    let server = Server::start_with(dir.path(), &configuration(&place));
    let _ = hook(&server, &place).await;
    server.ask(Method::POST, "/sites/create", Some(&new_site("one"))).await;
    let (_, last) = server.ask(Method::POST, "/sites/one/provision", None).await;
    let mut came = Vec::new();
    while came.len() < 5 {
        came.push(next(&mut coming).await);
    }
    server.kill();
    let server = Server::start_with(dir.path(), &configuration(&place));
    came.extend(until_done(&mut coming, last["id"].as_str().expect("an id")).await);
    let ids: Vec<&str> = came.iter().map(|message| message.header("webhook-id")).collect();
    assert_eq!(ids[4], ids[5], "the one that was not answered comes again, under its id");
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len() - 1, "and no other: {ids:?}");
    assert_eq!(came[0].says()["type"], "operation.queued");
    drop(server);
}
