//! Watches: what is told, in which order, and how they end.

use std::time::Duration;

use serde_json::json;

use super::{MAPS, map, started};

#[tokio::test]
async fn a_watch_tells_what_happens_after_its_version() {
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
        let (told, name, version) = watch.told().await;
        assert_eq!((told.as_str(), name.as_str()), (kind, "one"));
        versions.push(version.parse().expect("a number"));
    }
    assert!(versions.is_sorted_by(|one, next| one < next), "{versions:?}");
    let mut whole = client.watch(&format!("{MAPS}?watch=1")).await;
    assert_eq!(whole.told().await.1, "before");
}

#[tokio::test]
async fn an_object_enters_and_leaves_what_is_selected() {
    let (_api, client) = started().await;
    let mut watch = client.watch(&format!("{MAPS}?watch=true&labelSelector=on%3Dyes")).await;
    client.post(MAPS, &map("one", json!({}), json!({}))).await;
    for on in ["yes", "no"] {
        let patch = json!({"metadata": {"labels": {"on": on}}});
        client.patch(&format!("{MAPS}/one"), "merge-patch+json", &patch).await;
    }
    assert_eq!(watch.told().await.0, "ADDED");
    assert_eq!(watch.told().await.0, "DELETED");
}

#[tokio::test]
async fn a_bookmark_tells_a_version_to_go_on_from() {
    let (api, client) = started().await;
    let mut watch =
        client.watch(&format!("{MAPS}?watch=true&allowWatchBookmarks=true&timeoutSeconds=90")).await;
    let secrets = "/api/v1/namespaces/cdm/secrets";
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
    let (_, made) = client.post(secrets, &secret).await;
    api.send_bookmarks();
    let (kind, name, version) = watch.told().await;
    assert_eq!((kind.as_str(), name.as_str()), ("BOOKMARK", ""));
    assert_eq!(Some(version.as_str()), made["metadata"]["resourceVersion"].as_str());
    // With its time, the watch ends in order, and says once more where it stood.
    api.advance(Duration::from_secs(90));
    assert_eq!(watch.told().await.0, "BOOKMARK");
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_watch_from_a_forgotten_version_is_told_so() {
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
async fn a_watch_may_break_off() {
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
async fn a_watch_may_begin_with_what_is_there() {
    let (_api, client) = started().await;
    client.post(MAPS, &map("one", json!({}), json!({}))).await;
    let query =
        "watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut watch = client.watch(&format!("{MAPS}?{query}")).await;
    assert_eq!(watch.told().await.0, "ADDED");
    let end = watch.event().await;
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
}
