//! Responses to successful requests.

use axum::http::HeaderValue;
use cdm_core::domain::Actor;
use cdm_core::domain::token::Role;
use tower::ServiceExt;

use crate::support::{TestEnv, digest, new_site};

#[tokio::test]
async fn a_site_is_created_changed_and_terminated() {
    let env = TestEnv::new().await;
    let made = env.ask("POST /sites/create", Some(&new_site("rrr"))).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(made.headers["location"], "/sites/rrr");
    let site = made.json();
    assert_eq!((site["state"].as_str(), site["routedService"].is_null()), (Some("created"), true));
    assert!(
        site["createdAt"]
            .as_str()
            .is_some_and(|at| at.starts_with("2026-01-01T00:00:0") && at.ends_with('Z'))
    );
    let live = env.ask("POST /sites/rrr/provision?wait=1m", None).await;
    assert_eq!(
        (live.status.as_u16(), live.json()["status"].as_str()),
        (200, Some("succeeded")),
        "{}",
        live.text
    );
    let id = live.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(live.headers["location"], format!("/operations/{id}"));
    assert_eq!(env.ask(&format!("GET /operations/{id}/steps/Install/log"), None).await.status, 200);
    assert_eq!(env.ask("PUT /sites/rrr/promote", None).await.status, 202);
    assert_eq!(env.ask("GET /sites?q=rr&service=blue", None).await.json()["items"][0]["id"], "rrr");
    let audit = env.ask("GET /audit?site=rrr&actor=admin", None).await.json();
    assert_eq!(audit["items"].as_array().map(Vec::len), Some(3), "{audit}");
    assert_eq!(audit["items"][0]["action"], "site.promote");
    let ready = env.ask("GET /readyz", None).await;
    assert_eq!(ready.json()["backends"][0]["name"], "store");
    *env.health.0.lock().expect("free") = Some("away".into());
    assert_eq!(env.ask("GET /readyz", None).await.status, 503);
    let metrics = env.ask("GET /metrics", None).await.text;
    assert!(
        metrics.contains(
            "cdm_http_requests_total{method=\"PUT\",route=\"/sites/{id}/promote\",status=\"202\"} 1"
        ),
        "{metrics}"
    );
    assert!(!metrics.contains("rrr"));
}

#[tokio::test]
async fn a_selection_reports_whether_it_changed_anything() {
    let env = TestEnv::new().await;
    let first = env.ask("POST /services", Some(r#"{"selector":"green"}"#)).await;
    assert_eq!(
        (first.status.as_u16(), first.json()["changed"].as_bool()),
        (200, Some(true)),
        "{}",
        first.text
    );
    let again = env.ask("POST /services", Some(r#"{"selector":"green"}"#)).await.json();
    assert_eq!(
        (again["changed"].as_bool(), again["canary"]["selector"].as_str()),
        (Some(false), Some("green"))
    );
    let deploy = format!(r#"{{"imageTag":"{}","promote":"true"}}"#, digest('b'));
    assert_eq!(env.ask("POST /services?wait=60", Some(&deploy)).await.json()["kind"], "deploy");
    let history = env.ask("GET /services/green/history", None).await.json();
    assert_eq!(history["items"][0]["digest"], format!("sha256:{}", digest('b')));
    assert_eq!(env.ask("POST /sites/create", Some(&new_site("rrr"))).await.status, 201);
    assert_eq!(env.ask("POST /sites/rrr/provision?wait=1m", None).await.status, 200);
    let rollout = env.ask("PUT /services", Some(r#"{"promote":"false","scope":"all"}"#)).await;
    assert_eq!(rollout.status, 202, "{}", rollout.text);
    let id = rollout.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(rollout.headers["location"], format!("/rollouts/{id}"));
    assert_eq!(rollout.json()["scope"], "all");
    let audit = env.ask("GET /audit?limit=1", None).await.json();
    assert_eq!(audit["items"][0]["rollout"], id.as_str(), "{audit}");
    assert_eq!(env.ask(&format!("GET /operations?rollout={id}"), None).await.status, 200);
    assert_eq!(env.ask("GET /services", None).await.json()["services"]["blue"]["sites"], 0);
}

/// The scope is returned as it was requested; the scope of a deploy's hooks is the service.
#[tokio::test]
async fn a_rollout_returns_its_requested_scope() {
    let env = TestEnv::new().await;
    assert_eq!(env.ask("POST /sites/create", Some(&new_site("rrr"))).await.status, 201);
    assert_eq!(env.ask("POST /sites/rrr/provision?wait=1m", None).await.status, 200);
    let cases = [
        (r#"{"promote":true}"#, r#""active""#),
        (r#"{"promote":true,"scope":"all"}"#, r#""all""#),
        (r#"{"promote":true,"scope":{"sites":["rrr"]}}"#, r#"{"sites":["rrr"]}"#),
    ];
    for (body, scope) in cases {
        let rollout = env.ask("PUT /services", Some(body)).await.json();
        assert_eq!(rollout["scope"].to_string(), scope, "{rollout}");
        let path = format!("GET /rollouts/{}/events", rollout["id"].as_str().expect("an id"));
        assert_eq!(env.ask(&path, None).await.status, 200);
    }
    let deploy = format!(r#"{{"imageTag":"{}"}}"#, digest('b'));
    let deployed = env.ask("POST /services?wait=60", Some(&deploy)).await.json();
    let hooks = format!("GET /rollouts/{}", deployed["rollout"].as_str().expect("hooks"));
    assert_eq!(env.ask(&hooks, None).await.json()["scope"], "blue");
}

/// A plan reports that there is nothing to start; the rollout itself is rejected, and names the missing sites.
#[tokio::test]
async fn a_rollout_without_sites_is_planned_and_rejected() {
    let env = TestEnv::new().await;
    for (scope, code, field, warnings) in [
        (r#""all""#, "empty_plan", "scope", &["empty"][..]),
        (r#"{"sites":["nope"]}"#, "unknown_sites", "scope.sites", &["empty", "unknown_sites"]),
    ] {
        let body = |dry: &str| format!(r#"{{"promote":true,"scope":{scope}{dry}}}"#);
        let refused = env.ask("PUT /services", Some(&body(""))).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (422, code), "{}", refused.text);
        assert_eq!(refused.json()["errors"][0]["field"], field, "{}", refused.text);
        let plan = env.ask("PUT /services", Some(&body(r#","dryRun":true"#))).await.json();
        let warning_codes: Vec<_> =
            plan["warnings"].as_array().expect("warnings").iter().map(|it| &it["code"]).collect();
        assert_eq!(warning_codes, warnings, "{plan}");
    }
    assert_eq!(env.ask("GET /rollouts", None).await.json()["items"], serde_json::json!([]));
}

/// The body of a rollback has no required field.
#[tokio::test]
async fn a_rollback_needs_no_body() {
    let env = TestEnv::new().await;
    let refused = env.ask("POST /services/rollback", None).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (409, "no_healthy_digest"));
}

#[tokio::test]
async fn lists_are_paginated() {
    let env = TestEnv::new().await;
    for id in ["aa", "bb", "cc"] {
        assert_eq!(env.ask("POST /sites/create", Some(&new_site(id))).await.status, 201);
    }
    let page = env.ask("GET /sites?limit=2", None).await.json();
    let next = page["next"].as_str().expect("a next");
    let next_page = env.ask(&format!("GET /sites?limit=2&cursor={next}"), None).await.json();
    assert_eq!((next_page["items"][0]["id"].as_str(), next_page["next"].is_null()), (Some("cc"), true));
    assert_eq!(env.ask(&format!("GET /operations?cursor={next}"), None).await.status, 422);
}

#[tokio::test]
async fn a_repeated_key_returns_the_first_response() {
    let env = TestEnv::new().await;
    let send = async |body: &str, key: &'static str| {
        let mut request = env.request(Role::Operator, "POST /sites/create", Some(body));
        request.headers_mut().insert("idempotency-key", HeaderValue::from_static(key));
        env.send(request).await
    };
    let first = send(&new_site("rrr"), "k1").await;
    let again = send(&new_site("rrr"), "k1").await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 201));
    assert_eq!(first.text, again.text);
    let other = send(&new_site("sss"), "k1").await;
    assert_eq!((other.status.as_u16(), other.code().as_str()), (422, "idempotency_key_reused"));
    assert_eq!(send(&new_site("sss"), "a b").await.json()["errors"][0]["field"], "Idempotency-Key");
}

#[tokio::test]
async fn a_request_keeps_a_valid_id() {
    let env = TestEnv::new().await;
    for (sent, kept) in [("mine-1", true), ("with space", false), ("", false)] {
        let mut request = env.request(Role::Admin, "PUT /sites/none/promote", None);
        request.headers_mut().insert("x-request-id", HeaderValue::from_static(sent));
        let response = env.send(request).await;
        assert_eq!(response.headers["x-request-id"] == sent, kept, "{sent}");
        let audit = env.ask("GET /audit?limit=1", None).await.json();
        assert_eq!(audit["items"][0]["requestId"], response.headers["x-request-id"].to_str().expect("text"));
    }
}

#[tokio::test]
async fn a_token_is_shown_once_and_revoked_immediately() {
    let env = TestEnv::new().await;
    let made = env.ask("POST /tokens", Some(r#"{"name":"bot","role":"viewer"}"#)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let text = made.json()["token"].as_str().expect("a text").to_owned();
    assert!(!env.ask("GET /tokens", None).await.text.contains(&text));
    let ask = async || {
        let mut request = env.request(Role::Admin, "GET /sites", None);
        request.headers_mut().insert("authorization", format!("Bearer {text}").parse().expect("a value"));
        env.send(request).await.status.as_u16()
    };
    assert_eq!(ask().await, 200);
    let path = format!("DELETE /tokens/{}", made.json()["id"].as_str().expect("an id"));
    assert_eq!(env.ask(&path, None).await.status, 200);
    assert_eq!(ask().await, 401);
}

#[tokio::test]
async fn a_caller_in_this_process_needs_no_token() {
    let env = TestEnv::new().await;
    let router = cdm_http::local_router(env.app.clone(), Actor::parse("cli").expect("a name"), Role::Admin);
    let request = axum::http::Request::builder().uri("/tokens").body(axum::body::Body::empty());
    let response = router.oneshot(request.expect("a request")).await.expect("a response");
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn responses_are_not_cached_except_for_public_ones() {
    let env = TestEnv::new().await;
    for line in ["GET /sites", "GET /healthz", "GET /metrics", "GET /nowhere", "PATCH /sites"] {
        assert_eq!(env.ask(line, None).await.headers["cache-control"], "no-store", "{line}");
    }
    assert_eq!(env.ask("GET /openapi.json", None).await.headers["cache-control"], "no-cache");
}
