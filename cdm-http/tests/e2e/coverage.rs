//! Completeness: each route was requested with success, and each code of docs/errors.md was provoked.

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use cdm_testkit::server::{ADMIN, Server, directory, new_site};

/// Codes that cannot be provoked from outside, with the reason.
const INTERNAL_ONLY: [(&str, &str); 8] = [
    ("contended", "the record must change between read and write of one request, eight times in a row"),
    ("backend_denied", "the embedded backends deny no request"),
    ("storage_full", "the disk that the tests run on has space; `tests/e2e/storage.rs` fills a separate one"),
    ("unavailable", "the embedded store answers as long as the server does"),
    ("outcome_unknown", "a response of the store must be lost; the campaigns of cdm-core cover this"),
    ("timed_out", "no request of an embedded server takes 90 s"),
    ("busy", "more passwords must wait at once than the queue holds; tests of cdm-http fill it"),
    ("not_ready", "the server must be shutting down; tests/e2e/shutdown.rs covers this"),
];

fn id(value: &Value) -> &str {
    value["id"].as_str().unwrap_or_else(|| panic!("no id in {value}"))
}

/// Requests everything once, in an order in which every request succeeds.
async fn request_everything(server: &Server) {
    let get = async |path: &str| {
        let response = server.ask_as(Some(ADMIN), Method::GET, path, None).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response
    };
    for path in ["/healthz", "/readyz", "/openapi.json", "/metrics", "/services", "/events", "/sites"] {
        get(path).await;
    }
    for site in ["one", "two"] {
        assert_eq!(
            server.ask(Method::POST, "/sites/create", Some(&new_site(site))).await.0,
            StatusCode::CREATED
        );
    }
    let provisioned = server.done(Method::POST, "/sites/one/provision", None).await;
    get(&format!("/operations/{}/steps/Install/log", id(&provisioned))).await;
    server.wait_until_at_rest(&format!("/operations/{}", id(&provisioned))).await;
    server.ask(Method::POST, "/services", Some(&json!({"selector": "green"}))).await;
    server.done(Method::POST, "/services", Some(&json!({"imageTag": "a".repeat(64)}))).await;
    server.done(Method::PUT, "/sites/one/upgrade", None).await;
    server.done(Method::PUT, "/sites/one/promote", None).await;
    server.done(Method::POST, "/services/rollback", Some(&json!({}))).await;
    get("/services/green/history").await;
    let mark = json!({"verdict": "healthy", "reason": "it serves"});
    let path = format!("/services/history/{}", "a".repeat(64));
    assert_eq!(server.ask(Method::POST, &path, Some(&mark)).await.0, StatusCode::OK);
    get("/sites/one").await;

    // The pods take a while to start, and the rollout waits for them.
    let body = json!({"promote": true, "imageTag": "c".repeat(64)});
    let (status, rollout) = server.ask(Method::PUT, "/services", Some(&body)).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{rollout}");
    let path = format!("/rollouts/{}", id(&rollout));
    assert_eq!(server.ask(Method::POST, &format!("{path}/pause"), None).await.0, StatusCode::ACCEPTED);
    assert_eq!(server.wait_until_at_rest(&path).await["status"], "paused");
    assert_eq!(server.ask(Method::POST, &format!("{path}/resume"), None).await.0, StatusCode::ACCEPTED);
    assert_eq!(server.ask(Method::POST, &format!("{path}/abort"), None).await.0, StatusCode::ACCEPTED);
    assert_eq!(server.wait_until_at_rest(&path).await["status"], "aborted");
    let deploy =
        server.wait_until_at_rest(&format!("/operations/{}", rollout["after"].as_str().unwrap())).await;
    assert_eq!(deploy["status"], "succeeded", "{deploy}");
    get(&format!("/operations?rollout={}", id(&rollout))).await;
    assert_eq!(server.ask(Method::POST, &format!("{path}/retry"), None).await.0, StatusCode::ACCEPTED);
    get("/rollouts").await;

    let (_, begun) = server.ask(Method::POST, "/sites/two/provision", None).await;
    let path = format!("/operations/{}", id(&begun));
    assert_eq!(server.ask(Method::POST, &format!("{path}/cancel"), None).await.0, StatusCode::ACCEPTED);
    assert_eq!(server.wait_until_at_rest(&path).await["status"], "cancelled");
    assert_eq!(server.ask(Method::POST, &format!("{path}/retry"), None).await.0, StatusCode::ACCEPTED);
    let frozen = json!({"reason": "the sale of the year", "sites": ["one"]});
    let (status, freeze) = server.ask(Method::POST, "/freezes", Some(&frozen)).await;
    assert_eq!((status, &freeze["sites"]), (StatusCode::CREATED, &json!(["one"])), "{freeze}");
    get("/freezes").await;
    let path = format!("/freezes/{}", id(&freeze));
    assert_eq!(server.ask(Method::DELETE, &path, None).await.0, StatusCode::OK);
    let hook = json!({"url": "https://hooks.example.com/cdm", "events": ["rollout.halted"]});
    let (status, hook) = server.ask(Method::POST, "/webhooks", Some(&hook)).await;
    assert_eq!((status, &hook["state"]), (StatusCode::CREATED, &json!("active")), "{hook}");
    get("/webhooks").await;
    let path = format!("/webhooks/{}", id(&hook));
    assert_eq!(server.ask(Method::DELETE, &path, None).await.0, StatusCode::OK);
    let user = json!({"name": "ada", "role": "viewer", "password": "correct horse battery"});
    let (status, user) = server.ask(Method::POST, "/users", Some(&user)).await;
    assert_eq!((status, &user["actor"]), (StatusCode::CREATED, &json!("user:ada")), "{user}");
    get("/users").await;
    let role = json!({"role": "operator"});
    assert_eq!(server.ask(Method::PUT, "/users/ada", Some(&role)).await.1["role"], "operator");
    assert_eq!(server.ask(Method::DELETE, "/users/ada/sessions", None).await.0, StatusCode::OK);
    assert_eq!(server.ask(Method::DELETE, "/users/ada", None).await.0, StatusCode::OK);
    let (token, _) = server.token("viewer").await;
    get("/tokens").await;
    assert_eq!(server.ask(Method::DELETE, &format!("/tokens/{token}"), None).await.0, StatusCode::OK);
    get("/audit").await;
    server.done(Method::DELETE, "/sites/one", None).await;
    for path in ["/operations", "/metrics"] {
        get(path).await;
    }
}

#[tokio::test]
async fn every_operation_of_the_document_was_requested_with_success() {
    let dir = directory();
    let server = Server::start_slow(dir.path());
    request_everything(&server).await;
    // The metrics of the server count its responses.
    let metrics = server.ask_as(Some(ADMIN), Method::GET, "/metrics", None).await.text().await.unwrap();
    let document = server.get("/openapi.json").await;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let labels = format!("method=\"{}\",route=\"{path}\",status=\"2", method.to_uppercase());
            assert!(metrics.contains(&labels), "{method} {path} was never answered with success:\n{metrics}");
        }
    }
}

/// Returns the codes of both tables: the first backquoted word of each row.
fn codes() -> BTreeSet<String> {
    let text = include_str!("../../../docs/errors.md");
    let (before, after) = text.split_once("## What the REST server adds").unwrap();
    let (added, _) = after.split_once("\n## ").unwrap();
    let rows = before.lines().chain(added.lines()).filter_map(|line| line.strip_prefix("| `"));
    let firsts = rows.filter_map(|row| row.split(" |").next().map(|first| first.replace('`', "")));
    firsts.flat_map(|first| first.split(", ").map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[tokio::test]
async fn every_documented_code_was_provoked_or_is_explained() {
    let dir = directory();
    let server = Server::start_slow(dir.path());
    let (_, operator) = server.token("operator").await;
    let mut provoked = BTreeSet::new();
    let mut record =
        |problem: &Value| provoked.insert(problem["code"].as_str().unwrap_or_default().to_owned());
    let site = new_site("one");
    server.ask(Method::POST, "/sites/create", Some(&site)).await;
    let mut taken = new_site("other");
    taken["hostnames"] = site["hostnames"].clone();
    taken["canonicalHostname"] = site["canonicalHostname"].clone();
    for id in ["first", "second"] {
        server.ask(Method::POST, "/sites/create", Some(&new_site(id))).await;
        server.done(Method::POST, &format!("/sites/{id}/provision"), None).await;
    }
    // The rollout bakes after its first site for as long as the test runs.
    let baking = json!({"promote": true, "waves": ["1", "100%"], "bake": 3600});
    let token = json!({"name": "twice", "role": "viewer"});
    let user = json!({"name": "twice", "role": "viewer", "password": "correct horse battery"});
    let cases = [
        (Method::GET, "/sites/unknown", None),
        (Method::POST, "/sites/create", Some(site)),
        (Method::POST, "/sites/create", Some(taken)),
        (Method::PUT, "/sites/one/promote", None),
        (Method::POST, "/services/rollback", Some(json!({}))),
        (Method::POST, "/tokens", Some(token.clone())),
        (Method::POST, "/tokens", Some(token)),
        (Method::POST, "/users", Some(user.clone())),
        (Method::POST, "/users", Some(user)),
        (Method::GET, "/sites?limit=0", None),
        (Method::PATCH, "/sites", None),
        (Method::PUT, "/services", Some(json!({"promote": true, "planHash": "0".repeat(64)}))),
        (Method::POST, "/freezes", Some(json!({"reason": "a launch", "sites": ["one"]}))),
        (Method::PUT, "/sites/one/promote", None),
        (Method::POST, "/services", Some(json!({"imageTag": "dev"}))),
        (Method::PUT, "/services", Some(json!({"promote": true, "scope": {"sites": ["unknown"]}}))),
        (Method::PUT, "/services", Some(json!({"promote": true, "scope": "inactive"}))),
        // In both pairs the first request is accepted, and still running when the second is sent.
        (Method::PUT, "/services", Some(baking)),
        (Method::PUT, "/services", Some(json!({"promote": true}))),
        (Method::POST, "/sites/one/provision", None),
        (Method::POST, "/sites/one/provision", None),
    ];
    for (method, path, body) in cases {
        record(&server.ask(method, path, body.as_ref()).await.1);
    }
    let rollouts = server.get("/rollouts?limit=1").await;
    let path = format!("/rollouts/{}", id(&rollouts["items"][0]));
    server.ask(Method::POST, &format!("{path}/pause"), None).await;
    assert_eq!(server.wait_until_at_rest(&path).await["status"], "paused");
    server.done(Method::POST, "/services", Some(&json!({"imageTag": "d".repeat(64)}))).await;
    let bad = json!({"verdict": "bad", "reason": "it is slow"});
    server.ask(Method::POST, &format!("/services/history/{}", "d".repeat(64)), Some(&bad)).await;
    let accept = json!({"acceptDigest": "d".repeat(64)});
    for body in [None, Some(&accept)] {
        record(&server.ask(Method::POST, &format!("{path}/resume"), body).await.1);
    }
    let send = |key: &'static str, kind: &'static str, body: Vec<u8>| {
        let request = server.client.post(format!("{}/sites/create", server.url)).bearer_auth(ADMIN);
        request.header("idempotency-key", key).header("content-type", kind).body(body).send()
    };
    let json_kind = "application/json";
    let two = |name: &str| serde_json::to_vec(&new_site(name)).unwrap();
    for (key, kind, body) in [
        ("1", json_kind, two("two")),
        ("1", json_kind, two("three")),
        ("2", json_kind, b"{".to_vec()),
        ("3", json_kind, vec![b' '; 65 * 1024]),
        ("4", "text/plain", b"{}".to_vec()),
    ] {
        record(&send(key, kind, body).await.unwrap().json().await.unwrap());
    }
    let ask = async |token: &str, path: &str| -> Value {
        server.ask_as(Some(token), Method::DELETE, path, None).await.json().await.unwrap()
    };
    record(&ask(&operator, "/sites/one").await);
    for _ in 0..40 {
        record(&ask("cdm_unknown", "/sites/one").await);
    }
    record(&server.raw("GET /sites HTTP/1.1\r\nconnection: close\r\n\r\n"));
    provoked.remove("");
    let within: BTreeSet<String> = INTERNAL_ONLY.iter().map(|(code, _)| (*code).to_owned()).collect();
    assert!(provoked.is_disjoint(&within), "provoked from outside: {provoked:?}");
    let all: BTreeSet<String> = provoked.union(&within).cloned().collect();
    let known = codes();
    assert_eq!(all, known, "left: provoked or explained; right: docs/errors.md");
}
