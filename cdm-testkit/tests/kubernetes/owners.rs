//! Owner references: dependents are deleted with their owner, which is identified by its uid alone.

use std::time::Duration;

use serde_json::{Value, json};

use super::{MAPS, map, started};

fn owned(name: &str, owner: &Value) -> Value {
    let mut object = map(name, json!({}), json!({}));
    object["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
        "blockOwnerDeletion": true,
    }]);
    object
}

#[tokio::test]
async fn dependents_are_deleted_with_their_owner() {
    let (api, client) = started().await;
    let (_, anchor) = client.post(MAPS, &map("anchor", json!({}), json!({}))).await;
    client.post(MAPS, &owned("child", &anchor)).await;
    api.advance(Duration::from_secs(1));
    assert_eq!(client.get(&format!("{MAPS}/child")).await.0, 200);
    client.delete(&format!("{MAPS}/anchor")).await;
    api.advance(Duration::ZERO);
    assert_eq!(client.get(&format!("{MAPS}/child")).await.0, 404);
    // A new object with the same name is another owner.
    client.post(MAPS, &map("anchor", json!({}), json!({}))).await;
    assert_eq!(client.post(MAPS, &owned("late", &anchor)).await.0, 201);
    api.advance(Duration::ZERO);
    assert_eq!(client.get(&format!("{MAPS}/late")).await.0, 404);
    assert_eq!(client.get(&format!("{MAPS}/anchor")).await.0, 200);
}

#[tokio::test]
async fn a_foreground_deletion_waits_and_an_orphan_stays() {
    let (api, client) = started().await;
    let (_, anchor) = client.post(MAPS, &map("anchor", json!({}), json!({}))).await;
    let mut child = owned("child", &anchor);
    child["metadata"]["finalizers"] = json!(["cdm.example/hold"]);
    client.post(MAPS, &child).await;
    let (code, leaving) = client.delete(&format!("{MAPS}/anchor?propagationPolicy=Foreground")).await;
    assert_eq!((code, &leaving["metadata"]["finalizers"]), (200, &json!(["foregroundDeletion"])));
    api.advance(Duration::from_secs(1));
    assert_eq!(client.get(&format!("{MAPS}/anchor")).await.0, 200);
    let freed = json!({"metadata": {"finalizers": null}});
    client.patch(&format!("{MAPS}/child"), "merge-patch+json", &freed).await;
    api.advance(Duration::from_secs(1));
    assert_eq!(
        (client.get(&format!("{MAPS}/child")).await.0, client.get(&format!("{MAPS}/anchor")).await.0),
        (404, 404)
    );
    let (_, anchor) = client.post(MAPS, &map("anchor", json!({}), json!({}))).await;
    client.post(MAPS, &owned("child", &anchor)).await;
    client.delete(&format!("{MAPS}/anchor?propagationPolicy=Orphan")).await;
    api.advance(Duration::from_secs(1));
    assert_eq!(client.get(&format!("{MAPS}/anchor")).await.0, 404);
    let (code, child) = client.get(&format!("{MAPS}/child")).await;
    assert_eq!((code, child["metadata"].get("ownerReferences")), (200, None));
}

#[tokio::test]
async fn a_namespace_is_deleted_with_its_objects() {
    let (api, client) = started().await;
    let place = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}});
    assert_eq!(client.post("/api/v1/namespaces", &place).await.0, 201);
    let maps = "/api/v1/namespaces/other/configmaps";
    assert_eq!(client.post(maps, &map("one", json!({}), json!({}))).await.0, 201);
    let (code, leaving) = client.delete("/api/v1/namespaces/other").await;
    assert_eq!((code, &leaving["status"]["phase"]), (200, &json!("Terminating")));
    assert_eq!(client.post(maps, &map("two", json!({}), json!({}))).await.0, 403);
    api.advance(Duration::from_secs(1));
    assert_eq!(client.get("/api/v1/namespaces/other").await.0, 404);
    assert_eq!(client.get(&format!("{maps}/one")).await.0, 404);
}

#[tokio::test]
async fn a_clock_advances_the_server() {
    use std::sync::Arc;

    use cdm_testkit::clock::SimClock;
    use cdm_testkit::kubernetes::{KubernetesApi, Pace, Settings};

    let clock = SimClock::new();
    let settings = Settings { pace: Pace::Clock(Arc::new(clock.clone())), ..Settings::default() };
    let api = KubernetesApi::start(settings).await.expect("a server");
    let begun = api.now();
    for _ in 0..10 {
        clock.advance(Duration::from_millis(500));
        tokio::task::yield_now().await;
    }
    // The last ticks may not have been processed yet.
    assert!(api.now().since(begun) >= Duration::from_secs(4), "{}", api.now());
}
