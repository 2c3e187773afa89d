//! Rejected requests: no request, however malformed, gets a 5xx status.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use cdm_testkit::server::{ADMIN, Server, directory, new_site};

/// Requests beyond a role are rejected with 403; permitted requests are not.
#[tokio::test]
async fn every_route_requires_its_role() {
    let dir = directory();
    let server = Server::start(dir.path());
    let (_, viewer) = server.token("viewer").await;
    let (_, operator) = server.token("operator").await;
    let api = server.client.get(format!("{}/openapi.json", server.url)).send().await.unwrap();
    let api: Value = api.json().await.unwrap();
    let mut checked = 0;
    for (path, item) in api["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Ok(method) = Method::from_bytes(method.to_uppercase().as_bytes()) else { continue };
            let open = ["/healthz", "/readyz", "/openapi.json"].contains(&path.as_str());
            assert!(operation["responses"].is_object());
            if open || path == "/events" {
                continue;
            }
            let path = path.replace("{digest}", &"a".repeat(64)).replace("{selector}", "blue");
            let path = path.replace(['{', '}'], "");
            let none = server.ask_as(None, method.clone(), &path, None).await.status();
            let wrong = server.ask_as(Some("cdm_unknown"), method.clone(), &path, None).await.status();
            // Too many wrong tokens from one address are rejected with 429.
            let refusals = [StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS];
            assert!(refusals.contains(&none) && refusals.contains(&wrong), "{method} {path}: {none} {wrong}");
            assert!(checked > 5 || none == StatusCode::UNAUTHORIZED, "{method} {path}: {none}");
            let as_viewer = server.ask_as(Some(&viewer), method.clone(), &path, None).await.status();
            let as_operator = server.ask_as(Some(&operator), method.clone(), &path, None).await.status();
            let closed = ["/tokens", "/users", "/webhooks"].iter().any(|closed| path.starts_with(closed));
            let admins = closed
                || method == Method::DELETE
                || (path == "/freezes" && method == Method::POST)
                || path.starts_with("/services/history")
                || path == "/services/rollback"
                || (path == "/services" && method == Method::POST);
            let reads = method == Method::GET && !closed;
            assert_eq!(as_viewer == StatusCode::FORBIDDEN, !reads, "viewer: {method} {path}: {as_viewer}");
            assert_eq!(
                as_operator == StatusCode::FORBIDDEN,
                admins,
                "operator: {method} {path}: {as_operator}"
            );
            assert!(!as_viewer.is_server_error() && !as_operator.is_server_error());
            checked += 1;
        }
    }
    assert!(checked >= 25, "only {checked} routes checked");
}

#[tokio::test]
async fn errors_describe_invalid_requests() {
    let dir = directory();
    let server = Server::start(dir.path());
    let problem = async |method: Method, path: &str, body: Value| {
        let (status, problem) = server.ask(method, path, Some(&body)).await;
        (status.as_u16(), problem["code"].as_str().unwrap_or_default().to_owned())
    };
    let mut unknown = new_site("one");
    unknown["colour"] = json!("blue");
    assert_eq!(problem(Method::POST, "/sites/create", unknown).await, (422, "invalid".into()));
    let mut bad = new_site("one");
    bad["id"] = json!("Not an id");
    let (status, refused) = server.ask(Method::POST, "/sites/create", Some(&bad)).await;
    assert_eq!((status.as_u16(), &refused["errors"][0]["field"]), (422, &"id".into()), "{refused}");
    assert_eq!(refused["requestId"].as_str().map(str::is_empty), Some(false));
    let services = "/services";
    let both = json!({"selector": "blue", "imageTag": "a".repeat(64)});
    assert_eq!(problem(Method::POST, services, both).await, (422, "invalid".into()));
    assert_eq!(problem(Method::POST, services, json!({})).await, (422, "invalid".into()));
    assert_eq!(problem(Method::POST, services, json!({"promote": true})).await, (422, "invalid".into()));
    let gate = json!({"promote": false, "gate": {"path": "/"}});
    assert_eq!(problem(Method::PUT, services, gate).await, (422, "invalid".into()));
    let planned = json!({"promote": true, "planHash": "0".repeat(64)});
    assert_eq!(problem(Method::PUT, services, planned).await, (409, "plan_changed".into()));
    let rollback = problem(Method::POST, "/services/rollback", json!({})).await;
    assert_eq!(rollback, (409, "no_healthy_digest".into()));
    for path in ["/sites/unknown", "/operations/op-1-fleet", "/rollouts/rollout-9", "/nowhere"] {
        assert_eq!(server.ask(Method::GET, path, None).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    server.ask(Method::POST, "/sites/create", Some(&new_site("one"))).await;
    let promote = server.ask(Method::PUT, "/sites/one/promote", None).await;
    assert_eq!((promote.0.as_u16(), &promote.1["code"]), (409, &"illegal_transition".into()));
    let again = problem(Method::POST, "/sites/create", new_site("one")).await;
    assert_eq!(again, (409, "site_exists".into()));
    for wait in ["61s", "-1", "soon", "99999999999999999999s"] {
        let path = format!("/sites/one/provision?wait={wait}");
        assert_eq!(server.ask(Method::POST, &path, None).await.0.as_u16(), 422, "{wait}");
    }
}

#[tokio::test]
async fn large_bodies_wrong_methods_and_wrong_types_are_rejected() {
    let dir = directory();
    let server = Server::start(dir.path());
    let send = |method: Method, path: &str| {
        server.client.request(method, format!("{}{path}", server.url)).bearer_auth(ADMIN)
    };
    let large = send(Method::POST, "/sites/create").header("content-type", "application/json");
    let large = large.body("x".repeat(65 * 1024)).send().await.unwrap();
    assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let malformed = send(Method::POST, "/sites/create").header("content-type", "application/json");
    assert_eq!(malformed.body("{").send().await.unwrap().status(), StatusCode::BAD_REQUEST);
    let plain = send(Method::POST, "/sites/create").header("content-type", "text/plain").body("{}");
    assert_eq!(plain.send().await.unwrap().status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let patched = send(Method::PATCH, "/sites").send().await.unwrap();
    assert_eq!(patched.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert!(patched.headers().contains_key("allow"));
}

/// A thousand requests of seeded random content.
#[tokio::test]
async fn a_thousand_malformed_requests_get_no_5xx() {
    let dir = directory();
    let server = Server::start(dir.path());
    let mut chance = cdm_testkit::ids::Rng::new(2026);
    let paths =
        ["/sites/create", "/services", "/services/rollback", "/tokens", "/sites/x/provision", "/sites"];
    let pieces =
        ["{", "}", "[", "]", "\"id\"", ":", ",", "null", "1e999", "\u{0}", "\"\\ud800\"", "true", "é", " "];
    let methods = [Method::POST, Method::PUT, Method::DELETE, Method::GET];
    for round in 0..1_000 {
        let mut pick = |n: usize| chance.below(n as u64) as usize;
        let body: String = (0..pick(12)).map(|_| pieces[pick(pieces.len())]).collect();
        let method = methods[pick(methods.len())].clone();
        let path = format!(
            "{}?{}={}",
            paths[pick(paths.len())],
            ["wait", "limit", "cursor", "%00"][pick(4)],
            pick(99)
        );
        let request =
            server.client.request(method.clone(), format!("{}{path}", server.url)).bearer_auth(ADMIN);
        let response =
            request.header("content-type", "application/json").body(body.clone()).send().await.unwrap();
        let status = response.status();
        assert!(!status.is_server_error(), "round {round}: {method} {path} {body:?}: {status}");
    }
    assert_eq!(server.ask(Method::GET, "/healthz", None).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_key_replays_its_response_and_is_rejected_for_another_request() {
    let dir = directory();
    let server = Server::start(dir.path());
    let send = |body: Value| {
        let request = server.client.post(format!("{}/sites/create", server.url)).bearer_auth(ADMIN);
        request.header("idempotency-key", "once").json(&body).send()
    };
    let first: Value = send(new_site("one")).await.unwrap().json().await.unwrap();
    let again = send(new_site("one")).await.unwrap();
    assert_eq!(again.status(), StatusCode::CREATED);
    assert_eq!(again.json::<Value>().await.unwrap()["uid"], first["uid"]);
    assert_eq!(send(new_site("two")).await.unwrap().status(), StatusCode::UNPROCESSABLE_ENTITY);
}

/// The audit log names the rejected caller and its address.
#[tokio::test]
async fn a_rejection_is_audited_with_the_address_of_the_client() {
    let dir = directory();
    let server = Server::start(dir.path());
    let (_, operator) = server.token("operator").await;
    let ask =
        async |token: Option<&str>| server.ask_as(token, Method::DELETE, "/sites/rrr", None).await.status();
    assert_eq!(ask(None).await, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(Some(&operator)).await, StatusCode::FORBIDDEN);
    let audit = server.get("/audit?limit=2").await;
    for (entry, outcome) in audit["items"].as_array().unwrap().iter().zip(["forbidden", "unauthorized"]) {
        let found = (&entry["outcome"], &entry["action"], &entry["target"], &entry["address"]);
        let text = |text: &str| json!(text);
        assert_eq!(
            found,
            (&text(outcome), &text("site.delete"), &text("rrr"), &text("127.0.0.1")),
            "{entry}"
        );
    }
    assert_eq!(audit["items"][1]["actor"], "anonymous");
}
