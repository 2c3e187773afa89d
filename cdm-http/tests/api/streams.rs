//! Event streams: their frames, their ends and where they go on.

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

use crate::support::{Bed, new_site};

#[tokio::test]
async fn a_stream_of_an_operation_tells_all_and_ends() {
    let bed = Bed::new().await;
    bed.ask("POST /sites/create", Some(&new_site("rrr"))).await;
    let operation = bed.ask("POST /sites/rrr/provision", None).await.json();
    let id = operation["id"].as_str().expect("an id");
    let stream =
        bed.send(bed.request(Role::Viewer, &format!("GET /operations/{id}/events?after=0"), None)).await;
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

    let place =
        frames[0].lines().next().and_then(|line| line.strip_prefix("id: ")).expect("an id").to_owned();
    let mut request = bed.request(Role::Viewer, &format!("GET /operations/{id}/events"), None);
    request.headers_mut().insert("last-event-id", place.parse().expect("a value"));
    let rest = bed.send(request).await.text;
    assert!(rest.contains(frames[1]) && !rest.contains(frames[0]), "{place}: {rest}");
    assert_eq!(bed.ask("GET /events?after=x", None).await.status, 422);
    // What goes before it does not excuse it.
    let mut both = bed.request(Role::Viewer, &format!("GET /operations/{id}/events?after="), None);
    both.headers_mut().insert("last-event-id", place.parse().expect("a value"));
    assert_eq!(bed.send(both).await.json()["errors"][0]["field"], "after");
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let bed = Bed::new().await;
    let tokens = bed.ask("GET /tokens", None).await.json();
    let viewer =
        tokens["items"].as_array().and_then(|all| all.iter().find(|token| token["name"] == "viewer"));
    let path = format!("DELETE /tokens/{}", viewer.expect("a token")["id"].as_str().expect("an id"));
    let stream = bed.send(bed.request(Role::Viewer, "GET /events", None));
    let (stream, revoked) = futures_util::future::join(stream, bed.ask(&path, None)).await;
    assert_eq!((revoked.status.as_u16(), stream.status.as_u16()), (200, 200));
}

/// Opens a stream of everything that has happened, and takes nothing from it.
async fn unread(bed: &Bed, role: Role) -> (u16, Body) {
    let request = bed.request(role, "GET /events?after=0", None);
    let response = bed.router.clone().oneshot(request).await.expect("an answer");
    (response.status().as_u16(), response.into_body())
}

async fn text(body: Body) -> String {
    let bytes = body.collect().await.expect("a body that ends").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// A server with room for one stream, and with more events than a stream keeps for its reader.
async fn eventful() -> Bed {
    let bed = Bed::with(HttpSettings { streams: 1, ..HttpSettings::default() }).await;
    for number in 0..100 {
        let made = bed.ask("POST /sites/create", Some(&new_site(&format!("s{number}")))).await;
        assert_eq!(made.status, 201, "{}", made.text);
    }
    bed
}

/// Returns once the only seat is free again.
async fn until_free(bed: &Bed) {
    for _ in 0..100_000 {
        let (status, _) = unread(bed, Role::Admin).await;
        if status == 200 {
            return;
        }
        assert_eq!(status, 429);
        tokio::task::yield_now().await;
    }
    panic!("the seat is never free");
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_ended() {
    let bed = eventful().await;
    let since = bed.app.clock.monotonic();
    let (status, body) = unread(&bed, Role::Viewer).await;
    assert_eq!(status, 200);
    until_free(&bed).await;
    assert!(bed.app.clock.monotonic().since(since) >= Duration::from_secs(30));
    assert_eq!(text(body).await, "", "what waited for it is dropped");
}

#[tokio::test]
async fn a_revoked_token_sees_nothing_more_in_mid_stream() {
    let bed = eventful().await;
    let since = bed.app.clock.monotonic();
    let (status, body) = unread(&bed, Role::Viewer).await;
    assert_eq!(status, 200);
    let tokens = bed.ask("GET /tokens", None).await.json();
    let viewer =
        tokens["items"].as_array().and_then(|all| all.iter().find(|token| token["name"] == "viewer"));
    let path = format!("DELETE /tokens/{}", viewer.expect("a token")["id"].as_str().expect("an id"));
    assert_eq!(bed.ask(&path, None).await.status, 200);
    until_free(&bed).await;
    assert!(bed.app.clock.monotonic().since(since) < Duration::from_secs(30), "not only as a stalled reader");
    assert_eq!(text(body).await, "", "not even what waited for it");
}

#[tokio::test]
async fn an_idle_stream_ends_when_its_token_expires() {
    let bed = Bed::new().await;
    let name = Actor::parse("brief").expect("a name");
    let end = bed.app.clock.wall().after(Duration::from_secs(100));
    let new = NewToken { name: name.clone(), role: Role::Viewer, expiry: Expiry::At(end) };
    let made = bed.app.access.create(&manager::Request::by(name, Role::Admin), &new).await.expect("a token");
    let request = Request::get("/events");
    let request = request.header("authorization", format!("Bearer {}", made.1.expose_secret()));
    let stream = bed.send(request.body(Body::empty()).expect("a request")).await;
    assert_eq!(stream.status, 200);
    assert!(stream.text.contains(": alive\n\n"), "it lived until then: {}", stream.text);
    assert!(bed.app.clock.wall() >= end);
}
