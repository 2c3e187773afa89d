//! Deployments: how a rollout progresses, stops and fails.

use std::time::Duration;

use cdm_testkit::kubernetes::{ImageBehavior, KubernetesApi};
use serde_json::{Value, json};

use super::client::Client;
use super::{deployment, started};

const ALL: &str = "/apis/apps/v1/namespaces/cdm/deployments";
const BLUE: &str = "/apis/apps/v1/namespaces/cdm/deployments/blue";
const FIRST: &str = "site@sha256:1111111111111111111111111111111111111111111111111111111111111111";
const SECOND: &str = "site@sha256:2222222222222222222222222222222222222222222222222222222222222222";

/// Starts a server with a Deployment `blue` of three ready pods of the first image.
async fn running() -> (KubernetesApi, Client) {
    let (api, client) = started().await;
    let (code, made) = client.post(ALL, &deployment("blue", 3, FIRST)).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made.get("status"), None, "nothing happens before time passes");
    api.advance(Duration::from_secs(5));
    (api, client)
}

async fn set_image(client: &Client, image: &str) {
    let patch = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": image}]);
    assert_eq!(client.patch(BLUE, "json-patch+json", &patch).await.0, 200);
}

/// Returns the updated, ready, available and total pods in the status.
fn counts(object: &Value) -> [i64; 4] {
    ["updatedReplicas", "readyReplicas", "availableReplicas", "replicas"]
        .map(|name| object["status"][name].as_i64().unwrap_or(0))
}

fn condition<'a>(object: &'a Value, name: &str) -> (&'a str, &'a str) {
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = conditions.iter().find(|one| one["type"] == name);
    found.map_or(("", ""), |one| (one["status"].as_str().unwrap_or(""), one["reason"].as_str().unwrap_or("")))
}

fn pods(api: &KubernetesApi) -> Vec<Value> {
    api.objects("pods", "cdm")
}

#[tokio::test]
async fn pods_become_ready_over_time() {
    let (api, client) = running().await;
    let blue = client.get(BLUE).await.1;
    assert_eq!(counts(&blue), [3, 3, 3, 3]);
    assert_eq!(blue["status"]["observedGeneration"], blue["metadata"]["generation"]);
    assert_eq!(condition(&blue, "Available"), ("True", "MinimumReplicasAvailable"));
    assert_eq!(condition(&blue, "Progressing"), ("True", "NewReplicaSetAvailable"));
    for pod in pods(&api) {
        assert_eq!(pod["status"]["phase"], "Running");
        assert_eq!(pod["status"]["containerStatuses"][0]["imageID"], FIRST);
        assert_eq!(pod["metadata"]["labels"]["app"], "blue");
        assert_eq!(condition(&pod, "Ready").0, "True");
    }
}

#[tokio::test]
async fn a_new_image_replaces_pods_within_the_limits() {
    let (api, client) = running().await;
    set_image(&client, SECOND).await;
    let unseen = client.get(BLUE).await.1;
    assert_ne!(unseen["status"]["observedGeneration"], unseen["metadata"]["generation"]);
    let mut seen = Vec::new();
    for _ in 0..40 {
        api.advance(Duration::from_millis(500));
        let blue = client.get(BLUE).await.1;
        let [updated, ready, available, all] = counts(&blue);
        assert!(all <= 4 && available >= 3 && ready >= 3, "{blue}");
        seen.push((updated, all));
    }
    assert!(seen.contains(&(1, 4)), "one at a time, by default: {seen:?}");
    assert_eq!(counts(&client.get(BLUE).await.1), [3, 3, 3, 3]);
    let images: Vec<Value> =
        pods(&api).iter().map(|pod| pod["status"]["containerStatuses"][0]["imageID"].clone()).collect();
    assert_eq!(images, [json!(SECOND), json!(SECOND), json!(SECOND)]);
    assert_eq!(api.objects("replicasets", "cdm").len(), 2);
    // The previous template uses its ReplicaSet again.
    set_image(&client, FIRST).await;
    api.advance(Duration::from_secs(30));
    assert_eq!(counts(&client.get(BLUE).await.1), [3, 3, 3, 3]);
    assert_eq!(api.objects("replicasets", "cdm").len(), 2);
    let blue = client.get(BLUE).await.1;
    assert_eq!(blue["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3");
}

#[tokio::test]
async fn a_bad_image_stops_a_rollout_until_its_deadline() {
    for (behavior, reason, expected) in [
        (ImageBehavior::Missing, "ImagePullBackOff", "Back-off pulling image"),
        (ImageBehavior::PullRejected, "ImagePullBackOff", "Back-off pulling image"),
        (ImageBehavior::Crashing, "CrashLoopBackOff", "back-off restarting"),
        (ImageBehavior::NeverReady, "", ""),
        (ImageBehavior::Unschedulable, "", ""),
    ] {
        let (api, client) = running().await;
        api.set_image_behavior(SECOND, behavior);
        set_image(&client, SECOND).await;
        api.advance(Duration::from_secs(20));
        let blue = client.get(BLUE).await.1;
        assert_eq!(counts(&blue), [1, 3, 3, 4], "{behavior:?}: the old pods stay");
        assert_eq!(condition(&blue, "Progressing"), ("True", "ReplicaSetUpdated"), "{behavior:?}");
        let all = pods(&api);
        let bad = all.iter().find(|pod| pod["spec"]["containers"][0]["image"] == SECOND).expect("a pod");
        let waiting = &bad["status"]["containerStatuses"][0]["state"]["waiting"];
        assert_eq!(waiting["reason"].as_str().unwrap_or(""), reason, "{behavior:?}");
        assert!(waiting["message"].as_str().unwrap_or("").contains(expected), "{behavior:?}: {waiting}");
        if behavior == ImageBehavior::Unschedulable {
            assert_eq!(condition(bad, "PodScheduled"), ("False", "Unschedulable"));
        } else {
            assert_eq!(condition(bad, "Ready").0, "False", "{behavior:?}");
        }
        api.advance(Duration::from_secs(600));
        let blue = client.get(BLUE).await.1;
        assert_eq!(condition(&blue, "Progressing"), ("False", "ProgressDeadlineExceeded"), "{behavior:?}");
        assert_eq!(condition(&blue, "Available").0, "True", "{behavior:?}");
        // A repaired image completes the rollout.
        api.set_image_behavior(SECOND, ImageBehavior::Healthy);
        api.advance(Duration::from_secs(400));
        let blue = client.get(BLUE).await.1;
        assert_eq!(counts(&blue), [3, 3, 3, 3], "{behavior:?}");
        assert_eq!(condition(&blue, "Progressing"), ("True", "NewReplicaSetAvailable"), "{behavior:?}");
    }
}

#[tokio::test]
async fn a_failed_pull_has_a_reason() {
    for (behavior, expected) in
        [(ImageBehavior::Missing, "NotFound"), (ImageBehavior::PullRejected, "429 Too Many Requests")]
    {
        let (api, client) = running().await;
        api.set_image_behavior(SECOND, behavior);
        set_image(&client, SECOND).await;
        api.advance(Duration::from_secs(2));
        let waiting: Vec<Value> = pods(&api)
            .iter()
            .map(|pod| pod["status"]["containerStatuses"][0]["state"]["waiting"].clone())
            .filter(Value::is_object)
            .collect();
        assert_eq!(waiting.len(), 1);
        assert_eq!(waiting[0]["reason"], "ErrImagePull");
        assert!(
            waiting[0]["message"].as_str().is_some_and(|message| message.contains(expected)),
            "{waiting:?}"
        );
    }
}

#[tokio::test]
async fn ready_pods_may_become_unready() {
    let (api, client) = running().await;
    api.set_image_behavior(FIRST, ImageBehavior::NeverReady);
    api.advance(Duration::from_secs(1));
    let blue = client.get(BLUE).await.1;
    assert_eq!(counts(&blue), [3, 0, 0, 3]);
    assert_eq!(condition(&blue, "Available"), ("False", "MinimumReplicasUnavailable"));
}

#[tokio::test]
async fn availability_waits_for_min_ready_seconds() {
    let (api, client) = started().await;
    let mut patient = deployment("blue", 1, FIRST);
    patient["spec"]["minReadySeconds"] = json!(10);
    client.post(ALL, &patient).await;
    api.advance(Duration::from_secs(3));
    assert_eq!(counts(&client.get(BLUE).await.1), [1, 1, 0, 1]);
    api.advance(Duration::from_secs(10));
    assert_eq!(counts(&client.get(BLUE).await.1), [1, 1, 1, 1]);
}

#[tokio::test]
async fn a_deployment_scales_and_replaces_a_deleted_pod() {
    let (api, client) = running().await;
    let scaled = json!({"spec": {"replicas": 1}});
    client.patch(BLUE, "merge-patch+json", &scaled).await;
    api.advance(Duration::from_secs(5));
    assert_eq!((counts(&client.get(BLUE).await.1), pods(&api).len()), ([1, 1, 1, 1], 1));
    let name = pods(&api)[0]["metadata"]["name"].as_str().expect("a name").to_owned();
    let (code, leaving) = client.delete(&format!("/api/v1/namespaces/cdm/pods/{name}")).await;
    assert_eq!(code, 200);
    assert!(leaving["metadata"]["deletionTimestamp"].is_string(), "{leaving}");
    api.advance(Duration::from_secs(5));
    assert_eq!(pods(&api).len(), 1);
    assert_ne!(pods(&api)[0]["metadata"]["name"], name.as_str());
    client.delete(BLUE).await;
    api.advance(Duration::from_secs(5));
    assert_eq!((pods(&api).len(), api.objects("replicasets", "cdm").len()), (0, 0));
}
