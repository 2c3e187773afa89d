//! Event streams: their frames, their ends, and their resumption.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use cdm_core::domain::Actor;
use cdm_core::domain::token::Role;
use cdm_core::manager::{self, Expiry, NewToken};
use cdm_http::HttpSettings;
use http_body_util::BodyExt;
use secrecy::ExposeSecret;
use tower::ServiceExt;

use crate::support::{TestEnv, new_site};

#[tokio::test]
async fn a_stream_of_an_operation_contains_all_events_and_ends() {
    let env = TestEnv::new().await;
    env.ask("POST /sites/create", Some(&new_site("rrr"))).await;
    let operation = env.ask("POST /sites/rrr/provision", None).await.json();
    let id = operation["id"].as_str().expect("an id");
    let stream =
        env.send(env.request(Role::Viewer, &format!("GET /operations/{id}/events?after=0"), None)).await;
    assert_eq!(stream.headers["content-type"], "text/event-stream");
    assert_eq!(stream.headers["cache-control"], "no-store");
    assert_eq!(stream.headers["x-accel-buffering"], "no");
    let frames: Vec<&str> = stream.text.split("\n\n").filter(|frame| frame.starts_with("id: ")).collect();
    assert!(frames.len() > 2, "{}", stream.text);
    assert!(
        frames.iter().all(|frame| frame.contains("\nevent: operation\ndata: {\"at\":") && frame.contains(id))
    );
    let end =
        format!("event: end\ndata: {{\"operation\":\"{id}\",\"rollout\":null,\"what\":\"succeeded\"}}\n\n");
    assert!(stream.text.ends_with(&end), "{}", stream.text);

    let last_event_id =
        frames[0].lines().next().and_then(|line| line.strip_prefix("id: ")).expect("an id").to_owned();
    let mut request = env.request(Role::Viewer, &format!("GET /operations/{id}/events"), None);
    request.headers_mut().insert("last-event-id", last_event_id.parse().expect("a value"));
    let resumed = env.send(request).await.text;
    assert!(resumed.contains(frames[1]) && !resumed.contains(frames[0]), "{last_event_id}: {resumed}");
    assert_eq!(env.ask("GET /events?after=x", None).await.status, 422);
    // A preceding query parameter does not replace the header.
    let mut both = env.request(Role::Viewer, &format!("GET /operations/{id}/events?after="), None);
    both.headers_mut().insert("last-event-id", last_event_id.parse().expect("a value"));
    assert_eq!(env.send(both).await.json()["errors"][0]["field"], "after");
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let env = TestEnv::new().await;
    let tokens = env.ask("GET /tokens", None).await.json();
    let viewer =
        tokens["items"].as_array().and_then(|all| all.iter().find(|token| token["name"] == "viewer"));
    let path = format!("DELETE /tokens/{}", viewer.expect("a token")["id"].as_str().expect("an id"));
    let stream = env.send(env.request(Role::Viewer, "GET /events", None));
    let (stream, revoked) = futures_util::future::join(stream, env.ask(&path, None)).await;
    assert_eq!((revoked.status.as_u16(), stream.status.as_u16()), (200, 200));
}

/// Opens a stream of all past events, and does not read it.
async fn unread(env: &TestEnv, role: Role) -> (u16, Body) {
    let request = env.request(role, "GET /events?after=0", None);
    let response = env.router.clone().oneshot(request).await.expect("a response");
    (response.status().as_u16(), response.into_body())
}

async fn text(body: Body) -> String {
    let bytes = body.collect().await.expect("a body that ends").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Starts a server that permits one stream, with more events than a stream buffers for its reader.
async fn env_with_many_events() -> TestEnv {
    let env = TestEnv::with(HttpSettings { streams: 1, ..HttpSettings::default() }).await;
    for number in 0..100 {
        let made = env.ask("POST /sites/create", Some(&new_site(&format!("s{number}")))).await;
        assert_eq!(made.status, 201, "{}", made.text);
    }
    env
}

/// Waits until the only stream permit is available again.
async fn wait_for_permit(env: &TestEnv) {
    for _ in 0..100_000 {
        let (status, _) = unread(env, Role::Admin).await;
        if status == 200 {
            return;
        }
        assert_eq!(status, 429);
        tokio::task::yield_now().await;
    }
    panic!("the stream permit is never released");
}

#[tokio::test]
async fn a_stalled_reader_is_disconnected() {
    let env = env_with_many_events().await;
    let since = env.app.clock.monotonic();
    let (status, body) = unread(&env, Role::Viewer).await;
    assert_eq!(status, 200);
    wait_for_permit(&env).await;
    assert!(env.app.clock.monotonic().since(since) >= Duration::from_secs(30));
    assert_eq!(text(body).await, "", "the buffered events are dropped");
}

#[tokio::test]
async fn a_revoked_token_receives_no_further_event() {
    let env = env_with_many_events().await;
    let since = env.app.clock.monotonic();
    let (status, body) = unread(&env, Role::Viewer).await;
    assert_eq!(status, 200);
    let tokens = env.ask("GET /tokens", None).await.json();
    let viewer =
        tokens["items"].as_array().and_then(|all| all.iter().find(|token| token["name"] == "viewer"));
    let path = format!("DELETE /tokens/{}", viewer.expect("a token")["id"].as_str().expect("an id"));
    assert_eq!(env.ask(&path, None).await.status, 200);
    wait_for_permit(&env).await;
    assert!(
        env.app.clock.monotonic().since(since) < Duration::from_secs(30),
        "the stream did not end as a stalled reader"
    );
    assert_eq!(text(body).await, "", "the buffered events are dropped");
}

#[tokio::test]
async fn an_idle_stream_ends_when_its_token_expires() {
    let env = TestEnv::new().await;
    let name = Actor::parse("brief").expect("a name");
    let end = env.app.clock.wall().after(Duration::from_secs(100));
    let new = NewToken { name: name.clone(), role: Role::Viewer, expiry: Expiry::At(end) };
    let made = env.app.access.create(&manager::Request::by(name, Role::Admin), &new).await.expect("a token");
    let request = Request::get("/events");
    let request = request.header("authorization", format!("Bearer {}", made.1.expose_secret()));
    let stream = env.send(request.body(Body::empty()).expect("a request")).await;
    assert_eq!(stream.status, 200);
    assert!(stream.text.contains(": alive\n\n"), "the stream was open until then: {}", stream.text);
    assert!(env.app.clock.wall() >= end);
}
