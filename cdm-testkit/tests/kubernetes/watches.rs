//! Watches: their events, the order of events, and how watches end.

use std::time::Duration;

use serde_json::json;

use super::{MAPS, map, started};

#[tokio::test]
async fn a_watch_sends_the_changes_after_its_version() {
    let (_api, client) = started().await;
    client.post(MAPS, &map("before", json!({}), json!({}))).await;
    let (_, list) = client.get(MAPS).await;
    let version = list["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let mut watch = client.watch(&format!("{MAPS}?watch=true&resourceVersion={version}")).await;
    client.post(MAPS, &map("one", json!({}), json!({}))).await;
    let changed = json!({"data": {"a": "1"}});
    client.patch(&format!("{MAPS}/one"), "merge-patch+json", &changed).await;
    client.delete(&format!("{MAPS}/one")).await;
    let mut versions = vec![version.parse::<u64>().expect("a number")];
    for kind in ["ADDED", "MODIFIED", "DELETED"] {
        let (event_type, name, version) = watch.next_summary().await;
        assert_eq!((event_type.as_str(), name.as_str()), (kind, "one"));
        versions.push(version.parse().expect("a number"));
    }
    assert!(versions.is_sorted_by(|one, next| one < next), "{versions:?}");
    let mut whole = client.watch(&format!("{MAPS}?watch=1")).await;
    assert_eq!(whole.next_summary().await.1, "before");
}

#[tokio::test]
async fn an_object_starts_and_stops_matching() {
    let (_api, client) = started().await;
    let mut watch = client.watch(&format!("{MAPS}?watch=true&labelSelector=on%3Dyes")).await;
    client.post(MAPS, &map("one", json!({}), json!({}))).await;
    for on in ["yes", "no"] {
        let patch = json!({"metadata": {"labels": {"on": on}}});
        client.patch(&format!("{MAPS}/one"), "merge-patch+json", &patch).await;
    }
    assert_eq!(watch.next_summary().await.0, "ADDED");
    assert_eq!(watch.next_summary().await.0, "DELETED");
}

#[tokio::test]
async fn a_bookmark_has_the_current_version() {
    let (api, client) = started().await;
    let mut watch =
        client.watch(&format!("{MAPS}?watch=true&allowWatchBookmarks=true&timeoutSeconds=90")).await;
    let secrets = "/api/v1/namespaces/cdm/secrets";
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
    let (_, made) = client.post(secrets, &secret).await;
    api.send_bookmarks();
    let (kind, name, version) = watch.next_summary().await;
    assert_eq!((kind.as_str(), name.as_str()), ("BOOKMARK", ""));
    assert_eq!(Some(version.as_str()), made["metadata"]["resourceVersion"].as_str());
    // A watch that reaches its timeout ends normally, after a last bookmark.
    api.advance(Duration::from_secs(90));
    assert_eq!(watch.next_summary().await.0, "BOOKMARK");
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_watch_from_a_discarded_version_expires() {
    let (api, client) = started().await;
    client.post(MAPS, &map("one", json!({}), json!({}))).await;
    api.compact();
    let mut watch = client.watch(&format!("{MAPS}?watch=true&resourceVersion=1")).await;
    let event = watch.event().await;
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(event["object"]["reason"], "Expired");
    assert!(watch.next().await.is_none());
    let mut running = client.watch(&format!("{MAPS}?watch=true")).await;
    running.event().await;
    api.expire_watches();
    assert_eq!(running.event().await["object"]["code"], 410);
}

#[tokio::test]
async fn a_watch_may_break() {
    let (api, client) = started().await;
    client.post(MAPS, &map("one", json!({}), json!({}))).await;
    let mut watch = client.watch(&format!("{MAPS}?watch=true")).await;
    watch.event().await;
    api.drop_watches();
    assert!(watch.next().await.is_some_and(|next| next.is_err()));
    let mut watch = client.watch(&format!("{MAPS}?watch=true")).await;
    watch.event().await;
    api.stop();
    assert!(watch.next().await.is_some_and(|next| next.is_err()));
    assert!(client.send("GET", MAPS, "application/json", "").await.is_err());
}

#[tokio::test]
async fn a_watch_may_begin_with_the_current_objects() {
    let (_api, client) = started().await;
    client.post(MAPS, &map("one", json!({}), json!({}))).await;
    let query =
        "watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut watch = client.watch(&format!("{MAPS}?{query}")).await;
    assert_eq!(watch.next_summary().await.0, "ADDED");
    let end = watch.event().await;
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
}
