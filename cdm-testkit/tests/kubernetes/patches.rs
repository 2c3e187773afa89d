//! Patches: JSON with `test`, merge, strategic merge.

use serde_json::json;

use super::{MAPS, deployment, map, started};

#[tokio::test]
async fn a_json_patch_tests_before_it_writes() {
    let (_api, client) = started().await;
    let mut fenced = map("one", json!({}), json!({"to": "blue"}));
    fenced["metadata"]["annotations"] = json!({"cdm/fence": "7"});
    client.post(MAPS, &fenced).await;
    let path = format!("{MAPS}/one");
    let moved = |fence: &str| {
        json!([
            {"op": "test", "path": "/metadata/annotations/cdm~1fence", "value": fence},
            {"op": "replace", "path": "/metadata/annotations/cdm~1fence", "value": "8"},
            {"op": "replace", "path": "/data/to", "value": "green"},
        ])
    };
    let (code, answer) = client.patch(&path, "json-patch+json", &moved("6")).await;
    assert_eq!((code, &answer["reason"], &answer["details"]), (422, &json!("Invalid"), &json!({})));
    assert_eq!(client.get(&path).await.1["data"]["to"], "blue");
    let (code, answer) = client.patch(&path, "json-patch+json", &moved("7")).await;
    assert_eq!((code, &answer["data"]["to"]), (200, &json!("green")));
    let (code, _) = client.patch(&format!("{MAPS}/none"), "json-patch+json", &moved("7")).await;
    assert_eq!(code, 404);
}

#[tokio::test]
async fn a_merge_patch_keeps_to_a_version_that_it_names() {
    let (_api, client) = started().await;
    let (_, made) = client.post(MAPS, &map("one", json!({}), json!({"a": "1", "b": "2"}))).await;
    let path = format!("{MAPS}/one");
    let version = made["metadata"]["resourceVersion"].clone();
    let patch = json!({"metadata": {"resourceVersion": version}, "data": {"a": null, "c": "3"}});
    let (code, patched) = client.patch(&path, "merge-patch+json", &patch).await;
    assert_eq!((code, &patched["data"]), (200, &json!({"b": "2", "c": "3"})));
    let (code, answer) = client.patch(&path, "merge-patch+json", &patch).await;
    assert_eq!((code, &answer["reason"]), (409, &json!("Conflict")));
    let (code, answer) = client.patch(&path, "octet-stream", &patch).await;
    assert_eq!((code, &answer["reason"]), (415, &json!("UnsupportedMediaType")));
}

#[tokio::test]
async fn a_strategic_patch_finds_a_container_by_its_name() {
    let (_api, client) = started().await;
    let all = "/apis/apps/v1/namespaces/cdm/deployments";
    let mut two = deployment("blue", 1, "site:1");
    let containers = two["spec"]["template"]["spec"]["containers"].as_array_mut().expect("containers");
    containers.push(json!({"name": "proxy", "image": "proxy:1"}));
    client.post(all, &two).await;
    let patch =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "proxy", "image": "proxy:2"}]}}}});
    let (code, patched) = client.patch(&format!("{all}/blue"), "strategic-merge-patch+json", &patch).await;
    let containers = &patched["spec"]["template"]["spec"]["containers"];
    assert_eq!(
        (code, &containers[0]["image"], &containers[1]["image"]),
        (200, &json!("site:1"), &json!("proxy:2"))
    );
}
