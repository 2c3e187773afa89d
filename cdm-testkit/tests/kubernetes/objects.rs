//! Objects: what is stored, what is rejected, and the messages of rejections.

use serde_json::{Value, json};

use super::{MAPS, deployment, map, started};

fn reason(response: &Value) -> &str {
    assert_eq!(response["kind"], "Status", "{response}");
    response["reason"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn an_object_is_created_once_with_server_fields() {
    let (_api, client) = started().await;
    let (code, made) = client.post(MAPS, &map("one", json!({}), json!({"a": "1"}))).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["metadata"]["namespace"], "cdm");
    assert_eq!(made["metadata"]["creationTimestamp"], "2026-01-01T00:00:00Z");
    assert!(made["metadata"]["uid"].is_string() && made["metadata"]["resourceVersion"].is_string());
    let (code, again) = client.post(MAPS, &map("one", json!({}), json!({}))).await;
    assert_eq!((code, reason(&again)), (409, "AlreadyExists"));
    assert_eq!(again["message"], "configmaps \"one\" already exists");
    assert_eq!(client.get(&format!("{MAPS}/one")).await, (200, made));
    let (code, absent) = client.get(&format!("{MAPS}/two")).await;
    assert_eq!((code, reason(&absent)), (404, "NotFound"));
    assert_eq!(absent["message"], "configmaps \"two\" not found");
    let (code, nowhere) =
        client.post("/api/v1/namespaces/no/configmaps", &map("x", json!({}), json!({}))).await;
    assert_eq!((code, nowhere["message"].as_str()), (404, Some("namespaces \"no\" not found")));
}

#[tokio::test]
async fn a_stale_version_is_a_conflict() {
    let (_api, client) = started().await;
    let (_, first) = client.post(MAPS, &map("one", json!({}), json!({"a": "1"}))).await;
    let path = format!("{MAPS}/one");
    let mut second = first.clone();
    second["data"]["a"] = json!("2");
    let (code, second) = client.put(&path, &second).await;
    assert_eq!(code, 200);
    assert_ne!(first["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"]);
    let (code, stale) = client.put(&path, &first).await;
    assert_eq!((code, reason(&stale)), (409, "Conflict"));
    let mut other = second.clone();
    other["metadata"]["uid"] = json!("another");
    assert_eq!(client.put(&path, &other).await.0, 409);
    // Writing the stored object again changes nothing.
    assert_eq!(client.put(&path, &second).await, (200, second.clone()));
    let mut blind = second;
    blind["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
    blind["data"]["a"] = json!("3");
    assert_eq!(client.put(&path, &blind).await.0, 200);
}

#[tokio::test]
async fn a_generation_counts_spec_changes_and_the_status_is_separate() {
    let (_api, client) = started().await;
    let all = "/apis/apps/v1/namespaces/cdm/deployments";
    let (code, made) = client.post(all, &deployment("blue", 2, "site:1")).await;
    assert_eq!((code, &made["metadata"]["generation"]), (201, &json!(1)), "{made}");
    let path = format!("{all}/blue");
    let mut status = made.clone();
    status["status"] = json!({"replicas": 7});
    let (_, main) = client.put(&path, &status).await;
    assert_eq!(main["status"], Value::Null);
    status["metadata"]["resourceVersion"] = main["metadata"]["resourceVersion"].clone();
    status["spec"]["replicas"] = json!(9);
    let (code, apart) = client.put(&format!("{path}/status"), &status).await;
    assert_eq!((code, &apart["status"]["replicas"], &apart["spec"]["replicas"]), (200, &json!(7), &json!(2)));
    assert_eq!(apart["metadata"]["generation"], 1);
    let labeled = json!({"metadata": {"labels": {"x": "y"}}});
    let (_, labeled) = client.patch(&path, "merge-patch+json", &labeled).await;
    assert_eq!(labeled["metadata"]["generation"], 1);
    let scaled = json!({"spec": {"replicas": 3}});
    let (_, scaled) = client.patch(&path, "merge-patch+json", &scaled).await;
    assert_eq!(scaled["metadata"]["generation"], 2);
}

#[tokio::test]
async fn an_invalid_object_names_its_field() {
    let (_api, client) = started().await;
    let invalid = async |path: &str, object: Value, field: &str| {
        let (code, response) = client.post(path, &object).await;
        assert_eq!((code, reason(&response)), (422, "Invalid"), "{field}: {response}");
        let causes = response["details"]["causes"].as_array().cloned().unwrap_or_default();
        assert!(causes.iter().any(|cause| cause["field"] == field), "{field}: {response}");
    };
    invalid(MAPS, map("Upper", json!({}), json!({})), "metadata.name").await;
    invalid(MAPS, map("x", json!({"a": "b c"}), json!({})), "metadata.labels").await;
    invalid(MAPS, map("x", json!({"a": "b".repeat(64)}), json!({})), "metadata.labels").await;
    invalid(MAPS, map("x", json!({}), json!({"a/b": "1"})), "data[a/b]").await;
    invalid(MAPS, map("x", json!({}), json!({"a": "1".repeat(1 << 21)})), "data").await;
    let mut other = deployment("blue", 1, "site:1");
    other["spec"]["template"]["metadata"]["labels"]["app"] = json!("green");
    invalid("/apis/apps/v1/namespaces/cdm/deployments", other, "spec.template.metadata.labels").await;
    let jobs = "/apis/batch/v1/namespaces/cdm/jobs";
    let job = |name: &str, spec: Value| json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": {"spec": spec}}});
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "wp", "image": "site:1"}]});
    invalid(
        jobs,
        job("always", json!({"containers": pod["containers"]})),
        "spec.template.spec.restartPolicy",
    )
    .await;
    invalid(jobs, job(&"j".repeat(64), pod.clone()), "spec.template.metadata.labels").await;
    let mut mounted = pod.clone();
    mounted["containers"][0]["volumeMounts"] = json!([{"name": "no", "mountPath": "/x"}]);
    let field = "spec.template.spec.containers[0].volumeMounts[0].name";
    invalid(jobs, job("mounted", mounted), field).await;
    let (code, made) = client.post(jobs, &job("fine", pod)).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["spec"]["backoffLimit"], 6);
    assert_eq!(made["spec"]["template"]["metadata"]["labels"]["batch.kubernetes.io/job-name"], "fine");
    let image =
        json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "site:2"}]);
    let (code, response) = client.patch(&format!("{jobs}/fine"), "json-patch+json", &image).await;
    assert_eq!((code, reason(&response)), (422, "Invalid"));
    let ingress = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "x"},
        "spec": {"rules": [{"host": "a_b", "http": {"paths": [{"path": "/", "backend": {}}]}}]},
    });
    invalid("/apis/networking.k8s.io/v1/namespaces/cdm/ingresses", ingress, "spec.rules[0].host").await;
}

#[tokio::test]
async fn a_secret_is_base64_and_string_data_is_write_only() {
    let (_api, client) = started().await;
    let path = "/api/v1/namespaces/cdm/secrets";
    let secret =
        |data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": data});
    let (code, response) = client.post(path, &secret(json!({"a": "not base64"}))).await;
    assert_eq!((code, reason(&response)), (400, "BadRequest"));
    let mut plain = secret(json!({"a": "Zm9v"}));
    plain["stringData"] = json!({"b": "foo"});
    let (code, made) = client.post(path, &plain).await;
    assert_eq!(
        (code, &made["data"], &made["type"]),
        (201, &json!({"a": "Zm9v", "b": "Zm9v"}), &json!("Opaque"))
    );
    assert_eq!(made.get("stringData"), None);
}

#[tokio::test]
async fn a_delete_checks_its_preconditions() {
    let (_api, client) = started().await;
    let (_, made) = client.post(MAPS, &map("one", json!({}), json!({}))).await;
    let path = format!("{MAPS}/one");
    let only = |part: &str, value: &Value| json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {part: value}});
    for part in ["uid", "resourceVersion"] {
        let (code, response) = client.request("DELETE", &path, &only(part, &json!("77"))).await;
        assert_eq!((code, reason(&response)), (409, "Conflict"));
    }
    let (code, response) = client.request("DELETE", &path, &only("uid", &made["metadata"]["uid"])).await;
    assert_eq!(
        (code, &response["status"], &response["details"]["uid"]),
        (200, &json!("Success"), &made["metadata"]["uid"])
    );
    assert_eq!(client.delete(&path).await.0, 404);
}

#[tokio::test]
async fn a_finalizer_delays_a_deletion() {
    let (_api, client) = started().await;
    let mut blocked = map("held", json!({}), json!({}));
    blocked["metadata"]["finalizers"] = json!(["cdm.example/hold"]);
    client.post(MAPS, &blocked).await;
    let path = format!("{MAPS}/held");
    let (code, leaving) = client.delete(&path).await;
    assert_eq!(code, 200);
    assert_eq!(leaving["metadata"]["deletionTimestamp"], "2026-01-01T00:00:00Z");
    assert_eq!(client.get(&path).await.0, 200);
    let freed = json!({"metadata": {"finalizers": null}});
    assert_eq!(client.patch(&path, "merge-patch+json", &freed).await.0, 200);
    assert_eq!(client.get(&path).await.0, 404);
}

#[tokio::test]
async fn a_list_is_filtered_by_labels_and_names() {
    let (_api, client) = started().await;
    for (name, labels) in [
        ("a", json!({"app": "blue", "tier": "x"})),
        ("b", json!({"app": "green"})),
        ("c", json!({"tier": "y"})),
    ] {
        client.post(MAPS, &map(name, labels, json!({}))).await;
    }
    let names = async |query: &str| {
        let (code, list) = client.get(&format!("{MAPS}?{query}")).await;
        assert_eq!((code, &list["kind"]), (200, &json!("ConfigMapList")), "{query}: {list}");
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap_or("?").to_owned())
            .collect::<String>()
    };
    for (query, found) in [
        ("", "abc"),
        ("labelSelector=app%3Dblue", "a"),
        ("labelSelector=app!=blue", "bc"),
        ("labelSelector=app+in+(blue,green)", "ab"),
        ("labelSelector=app%20notin%20(blue)", "bc"),
        ("labelSelector=app", "ab"),
        ("labelSelector=!app", "c"),
        ("labelSelector=app%20in%20(blue,green),tier", "a"),
        ("fieldSelector=metadata.name=b", "b"),
        ("fieldSelector=metadata.name!=b&labelSelector=app", "a"),
    ] {
        assert_eq!(names(query).await, found, "{query}");
    }
    let (code, response) = client.get(&format!("{MAPS}?fieldSelector=data.x=1")).await;
    assert_eq!((code, reason(&response)), (400, "BadRequest"));
    let (code, _) = client.delete(&format!("{MAPS}?labelSelector=app")).await;
    assert_eq!((code, names("").await.as_str()), (200, "c"));
}

#[tokio::test]
async fn pages_show_one_version_until_it_expires() {
    let (api, client) = started().await;
    for name in ["a", "b", "c", "d", "e"] {
        client.post(MAPS, &map(name, json!({}), json!({}))).await;
    }
    let page = async |query: &str| client.get(&format!("{MAPS}?limit=2{query}")).await;
    let names = |list: &Value| {
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap_or("?").to_owned())
            .collect::<String>()
    };
    let (_, first) = page("").await;
    assert_eq!((names(&first).as_str(), &first["metadata"]["remainingItemCount"]), ("ab", &json!(3)));
    client.delete(&format!("{MAPS}/c")).await;
    client.post(MAPS, &map("cc", json!({}), json!({}))).await;
    let token = first["metadata"]["continue"].as_str().expect("a token").to_owned();
    let (_, second) = page(&format!("&continue={token}")).await;
    assert_eq!(names(&second), "cd");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let token = second["metadata"]["continue"].as_str().expect("a token").to_owned();
    let (_, third) = page(&format!("&continue={token}")).await;
    assert_eq!((names(&third).as_str(), third["metadata"].get("continue")), ("e", None));
    api.compact();
    let (code, old) = page(&format!("&continue={token}")).await;
    assert_eq!((code, reason(&old)), (410, "Expired"));
}

#[tokio::test]
async fn discovery_lists_the_kinds() {
    let (_api, client) = started().await;
    assert_eq!(client.get("/version").await.1["major"], "1");
    assert_eq!(client.get("/api").await.1["versions"], json!(["v1"]));
    let (_, groups) = client.get("/apis").await;
    let groups = groups["groups"].as_array().cloned().unwrap_or_default();
    for group in groups.iter().filter_map(|group| group["preferredVersion"]["groupVersion"].as_str()) {
        let (code, list) = client.get(&format!("/apis/{group}")).await;
        assert_eq!((code, &list["kind"]), (200, &json!("APIResourceList")), "{group}");
    }
    assert_eq!(groups.len(), 5);
    let (_, core) = client.get("/api/v1").await;
    let names: Vec<&str> =
        core["resources"].as_array().into_iter().flatten().filter_map(|one| one["name"].as_str()).collect();
    assert!(names.contains(&"pods/log") && names.contains(&"configmaps"), "{names:?}");
    assert_eq!(client.get("/apis/none/v1/things").await.0, 404);
    assert_eq!(client.post(&format!("{MAPS}/one"), &json!({})).await.0, 405);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let (api, client) = started().await;
    let (code, made) = client.post(&format!("{MAPS}?dryRun=All"), &map("one", json!({}), json!({}))).await;
    assert_eq!((code, &made["metadata"]["name"]), (201, &json!("one")));
    assert_eq!(api.object("configmaps", "cdm", "one"), None);
}
