//! Event streams: their frames, their ends and where they go on.

use cdm_core::domain::token::Role;

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
