//! Webhooks: a real server delivers to a real receiver, even if one of them is interrupted.

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

use cdm_testkit::server::{LISTEN_TIMEOUT, QUICK, Server, directory, new_site};

/// A received message.
struct ReceivedMessage {
    headers: HeaderMap,
    body: String,
}

impl ReceivedMessage {
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().expect("a header in ASCII")
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

struct ReceiverState {
    messages: UnboundedSender<ReceivedMessage>,
    count: AtomicUsize,
    /// The number of the message that is accepted and never answered.
    silent: usize,
}

async fn accept(State(receiver): State<Arc<ReceiverState>>, headers: HeaderMap, body: String) -> StatusCode {
    let number = receiver.count.fetch_add(1, Ordering::SeqCst) + 1;
    let _ = receiver.messages.send(ReceivedMessage { headers, body });
    if number == receiver.silent {
        std::future::pending::<()>().await;
    }
    StatusCode::NO_CONTENT
}

/// Starts a receiver on loopback; returns its address and the received messages.
async fn receiver(silent: usize) -> (String, UnboundedReceiver<ReceivedMessage>) {
    let (messages, incoming) = unbounded_channel();
    let receiver = Arc::new(ReceiverState { messages, count: AtomicUsize::new(0), silent });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = Router::new().fallback(accept).with_state(receiver);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (format!("http://{address}"), incoming)
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

async fn next(incoming: &mut UnboundedReceiver<ReceivedMessage>) -> ReceivedMessage {
    let next = tokio::time::timeout(LISTEN_TIMEOUT, incoming.recv()).await;
    next.expect("a message in time").expect("the receiver is running")
}

/// Returns the messages up to the success of the site's operation of that kind.
async fn receive_until_done(
    incoming: &mut UnboundedReceiver<ReceivedMessage>,
    operation: &str,
) -> Vec<ReceivedMessage> {
    let mut messages = Vec::new();
    loop {
        let next = next(incoming).await;
        let json = next.json();
        messages.push(next);
        if json["type"] == "operation.succeeded" && json["data"]["operation"] == operation {
            return messages;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_gets_the_events_of_the_feed_signed_and_in_order() {
    let dir = directory();
    let (url, mut incoming) = receiver(0).await;
    let server = Server::start_with(dir.path(), &configuration(&url));
    let (id, key) = hook(&server, &format!("{url}/cdm?a=b")).await;
    server.ask(Method::POST, "/sites/create", Some(&new_site("one"))).await;
    let last = server.done(Method::POST, "/sites/one/provision", None).await;
    let messages = receive_until_done(&mut incoming, last["id"].as_str().expect("an id")).await;
    let number = id.strip_prefix("webhook-").expect("a number");
    let mut positions = Vec::new();
    for message in &messages {
        let (id, at) = (message.header("webhook-id"), message.header("webhook-timestamp"));
        let seconds: u64 = at.parse().expect("seconds");
        let signed = key.sign(id, Timestamp::from_millis(seconds * 1_000), message.body.as_bytes());
        assert_eq!(message.header("webhook-signature"), signed);
        assert_eq!(message.header("content-type"), "application/json");
        positions.push(id.strip_prefix(&format!("msg-{number}-")).expect("an id").parse::<u64>().unwrap());
    }
    assert!(positions.windows(2).all(|pair| pair[0] < pair[1]), "{positions:?}");
    // The same events as in `/events`, with the same names.
    let events =
        server.client.get(format!("{}/events?after=0", server.url)).bearer_auth(cdm_testkit::server::ADMIN);
    let mut events = events.send().await.expect("a stream");
    let mut text = String::new();
    while text.matches("\ndata: {").count() < messages.len() {
        let chunk = events.chunk().await.expect("an open stream").expect("a chunk");
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    let event = text.lines().filter_map(|line| line.strip_prefix("data: "));
    for (event, message) in event.zip(&messages) {
        let (event, json) = (serde_json::from_str::<Value>(event).expect("JSON"), message.json());
        assert_eq!(json["timestamp"], event["at"]);
        for field in ["subject", "operation", "rollout", "what"] {
            assert_eq!(json["data"][field], event[field], "{field}");
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
async fn a_server_killed_before_a_response_repeats_the_message_and_loses_none() {
    let dir = directory();
    let (url, mut incoming) = receiver(5).await;
    let server = Server::start_with(dir.path(), &configuration(&url));
    let _ = hook(&server, &url).await;
    server.ask(Method::POST, "/sites/create", Some(&new_site("one"))).await;
    let (_, last) = server.ask(Method::POST, "/sites/one/provision", None).await;
    let mut messages = Vec::new();
    while messages.len() < 5 {
        messages.push(next(&mut incoming).await);
    }
    server.kill();
    let server = Server::start_with(dir.path(), &configuration(&url));
    messages.extend(receive_until_done(&mut incoming, last["id"].as_str().expect("an id")).await);
    let ids: Vec<&str> = messages.iter().map(|message| message.header("webhook-id")).collect();
    assert_eq!(ids[4], ids[5], "the message without a response is repeated with its id");
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len() - 1, "and no other: {ids:?}");
    assert_eq!(messages[0].json()["type"], "operation.queued");
    drop(server);
}
