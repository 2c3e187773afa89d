//! Patches: JSON patches with `test`, merge patches, strategic merge patches and server-side apply.

use serde_json::{Value, json};

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
    let (code, response) = client.patch(&path, "json-patch+json", &moved("6")).await;
    assert_eq!((code, &response["reason"], &response["details"]), (422, &json!("Invalid"), &json!({})));
    assert_eq!(client.get(&path).await.1["data"]["to"], "blue");
    let (code, response) = client.patch(&path, "json-patch+json", &moved("7")).await;
    assert_eq!((code, &response["data"]["to"]), (200, &json!("green")));
    let (code, _) = client.patch(&format!("{MAPS}/none"), "json-patch+json", &moved("7")).await;
    assert_eq!(code, 404);
}

#[tokio::test]
async fn a_merge_patch_checks_its_version() {
    let (_api, client) = started().await;
    let (_, made) = client.post(MAPS, &map("one", json!({}), json!({"a": "1", "b": "2"}))).await;
    let path = format!("{MAPS}/one");
    let version = made["metadata"]["resourceVersion"].clone();
    let patch = json!({"metadata": {"resourceVersion": version}, "data": {"a": null, "c": "3"}});
    let (code, patched) = client.patch(&path, "merge-patch+json", &patch).await;
    assert_eq!((code, &patched["data"]), (200, &json!({"b": "2", "c": "3"})));
    let (code, response) = client.patch(&path, "merge-patch+json", &patch).await;
    assert_eq!((code, &response["reason"]), (409, &json!("Conflict")));
    let (code, response) = client.patch(&path, "octet-stream", &patch).await;
    assert_eq!((code, &response["reason"]), (415, &json!("UnsupportedMediaType")));
}

#[tokio::test]
async fn a_strategic_patch_merges_containers_by_name() {
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

#[tokio::test]
async fn an_apply_keeps_fields_of_other_owners() {
    let (_api, client) = started().await;
    let path =
        |manager: &str| format!("/apis/apps/v1/namespaces/cdm/deployments/blue?fieldManager={manager}");
    let apply =
        async |manager: &str, object: &Value| client.patch(&path(manager), "apply-patch+yaml", object).await;
    let (code, made) = apply("people", &deployment("blue", 2, "site:1")).await;
    assert_eq!(code, 201, "{made}");
    let mut image = deployment("blue", 2, "site:2");
    image["spec"] = json!({"template": {"spec": {"containers": [{"name": "web", "image": "site:2"}]}}});
    let (code, refused) = apply("cdm", &image).await;
    assert_eq!((code, &refused["reason"]), (409, &json!("Conflict")));
    let cause = &refused["details"]["causes"][0];
    assert_eq!(cause["reason"], "FieldManagerConflict");
    assert_eq!(cause["field"], ".spec.template.spec.containers[name=\"web\"].image");
    let (code, taken) =
        client.patch(&format!("{}&force=true", path("cdm")), "apply-patch+yaml", &image).await;
    let container = |object: &Value| object["spec"]["template"]["spec"]["containers"][0].clone();
    assert_eq!(
        (code, &container(&taken)["image"], &taken["spec"]["replicas"]),
        (200, &json!("site:2"), &json!(2))
    );
    // A field that was applied before and is not applied now is removed, and nothing else.
    let mut more = image.clone();
    let list = json!([{"name": "web", "image": "site:2"}, {"name": "proxy", "image": "proxy:1"}]);
    more["spec"]["template"]["spec"]["containers"] = list;
    more["metadata"]["labels"] = json!({"x": "y"});
    let (_, two) = apply("cdm", &more).await;
    assert_eq!(two["spec"]["template"]["spec"]["containers"].as_array().map(Vec::len), Some(2));
    let (_, one) = apply("cdm", &image).await;
    assert_eq!(one["spec"]["template"]["spec"]["containers"].as_array().map(Vec::len), Some(1));
    assert_eq!((one["metadata"].get("labels"), &container(&one)["image"]), (None, &json!("site:2")));
    // Applying the same object again changes nothing; a plain write takes over the fields that it changes.
    assert_eq!(apply("cdm", &image).await, (200, one.clone()));
    let scaled = json!({"spec": {"replicas": 5}});
    client.patch("/apis/apps/v1/namespaces/cdm/deployments/blue", "merge-patch+json", &scaled).await;
    let (code, refused) = apply("people", &deployment("blue", 2, "site:2")).await;
    assert_eq!((code, &refused["details"]["causes"][0]["field"]), (409, &json!(".spec.replicas")));
    assert!(
        refused["message"].as_str().is_some_and(|message| message.contains("conflict with \"plain\"")),
        "{refused}"
    );
    let (code, _) =
        client.patch("/apis/apps/v1/namespaces/cdm/deployments/blue", "apply-patch+yaml", &image).await;
    assert_eq!(code, 422, "an apply requires a field manager");
}

#[tokio::test]
async fn fields_from_before_the_first_apply_have_an_owner() {
    let (_api, client) = started().await;
    client.post(MAPS, &map("one", json!({}), json!({"a": "1", "b": "2"}))).await;
    let path = format!("{MAPS}/one?fieldManager=cdm");
    let (code, refused) =
        client.patch(&path, "apply-patch+yaml", &map("one", json!({}), json!({"a": "9"}))).await;
    assert_eq!((code, &refused["details"]["causes"][0]["field"]), (409, &json!(".data.a")));
    let (code, kept) =
        client.patch(&path, "apply-patch+yaml", &map("one", json!({}), json!({"c": "3"}))).await;
    assert_eq!((code, &kept["data"]), (200, &json!({"a": "1", "b": "2", "c": "3"})));
    let (_, gone) = client.patch(&path, "apply-patch+yaml", &map("one", json!({}), json!({}))).await;
    assert_eq!(gone["data"], json!({"a": "1", "b": "2"}));
}
