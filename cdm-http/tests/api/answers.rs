//! What is answered when all goes well.

use axum::http::HeaderValue;
use cdm_core::domain::Actor;
use cdm_core::domain::token::Role;
use tower::ServiceExt;

use crate::support::{Bed, digest, new_site};

#[tokio::test]
async fn a_site_lives_and_goes() {
    let bed = Bed::new().await;
    let made = bed.ask("POST /sites/create", Some(&new_site("rrr"))).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(made.headers["location"], "/sites/rrr");
    let site = made.json();
    assert_eq!((site["state"].as_str(), site["routedService"].is_null()), (Some("created"), true));
    assert!(
        site["createdAt"]
            .as_str()
            .is_some_and(|at| at.starts_with("2026-01-01T00:00:0") && at.ends_with('Z'))
    );
    let live = bed.ask("POST /sites/rrr/provision?wait=1m", None).await;
    assert_eq!(
        (live.status.as_u16(), live.json()["status"].as_str()),
        (200, Some("succeeded")),
        "{}",
        live.text
    );
    let id = live.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(live.headers["location"], format!("/operations/{id}"));
    assert_eq!(bed.ask(&format!("GET /operations/{id}/steps/Install/log"), None).await.status, 200);
    assert_eq!(bed.ask("PUT /sites/rrr/promote", None).await.status, 202);
    assert_eq!(bed.ask("GET /sites?q=rr&service=blue", None).await.json()["items"][0]["id"], "rrr");
    let audit = bed.ask("GET /audit?site=rrr&actor=admin", None).await.json();
    assert_eq!(audit["items"].as_array().map(Vec::len), Some(3), "{audit}");
    assert_eq!(audit["items"][0]["action"], "site.promote");
    let ready = bed.ask("GET /readyz", None).await;
    assert_eq!(ready.json()["backends"][0]["name"], "store");
    *bed.health.0.lock().expect("free") = Some("away".into());
    assert_eq!(bed.ask("GET /readyz", None).await.status, 503);
    let metrics = bed.ask("GET /metrics", None).await.text;
    assert!(
        metrics.contains(
            "cdm_http_requests_total{method=\"PUT\",route=\"/sites/{id}/promote\",status=\"202\"} 1"
        ),
        "{metrics}"
    );
    assert!(!metrics.contains("rrr"));
}

#[tokio::test]
async fn a_selection_says_whether_it_changed_anything() {
    let bed = Bed::new().await;
    let first = bed.ask("POST /services", Some(r#"{"selector":"green"}"#)).await;
    assert_eq!(
        (first.status.as_u16(), first.json()["changed"].as_bool()),
        (200, Some(true)),
        "{}",
        first.text
    );
    let again = bed.ask("POST /services", Some(r#"{"selector":"green"}"#)).await.json();
    assert_eq!(
        (again["changed"].as_bool(), again["canary"]["selector"].as_str()),
        (Some(false), Some("green"))
    );
    let deploy = format!(r#"{{"imageTag":"{}","promote":"true"}}"#, digest('b'));
    assert_eq!(bed.ask("POST /services?wait=60", Some(&deploy)).await.json()["kind"], "deploy");
    let history = bed.ask("GET /services/green/history", None).await.json();
    assert_eq!(history["items"][0]["digest"], format!("sha256:{}", digest('b')));
    assert_eq!(bed.ask("POST /sites/create", Some(&new_site("rrr"))).await.status, 201);
    assert_eq!(bed.ask("POST /sites/rrr/provision?wait=1m", None).await.status, 200);
    let rollout = bed.ask("PUT /services", Some(r#"{"promote":"false","scope":"all"}"#)).await;
    assert_eq!(rollout.status, 202, "{}", rollout.text);
    let id = rollout.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(rollout.headers["location"], format!("/rollouts/{id}"));
    assert_eq!(rollout.json()["scope"], "all");
    let audit = bed.ask("GET /audit?limit=1", None).await.json();
    assert_eq!(audit["items"][0]["rollout"], id.as_str(), "{audit}");
    assert_eq!(bed.ask(&format!("GET /operations?rollout={id}"), None).await.status, 200);
    assert_eq!(bed.ask("GET /services", None).await.json()["services"]["blue"]["sites"], 0);
}

/// The scope is shown as it was asked for; of a deploy's hooks it is the service.
#[tokio::test]
async fn a_rollout_says_which_sites_it_was_asked_for() {
    let bed = Bed::new().await;
    assert_eq!(bed.ask("POST /sites/create", Some(&new_site("rrr"))).await.status, 201);
    assert_eq!(bed.ask("POST /sites/rrr/provision?wait=1m", None).await.status, 200);
    let cases = [
        (r#"{"promote":true}"#, r#""active""#),
        (r#"{"promote":true,"scope":"all"}"#, r#""all""#),
        (r#"{"promote":true,"scope":{"sites":["rrr"]}}"#, r#"{"sites":["rrr"]}"#),
    ];
    for (body, scope) in cases {
        let rollout = bed.ask("PUT /services", Some(body)).await.json();
        assert_eq!(rollout["scope"].to_string(), scope, "{rollout}");
        let path = format!("GET /rollouts/{}/events", rollout["id"].as_str().expect("an id"));
        assert_eq!(bed.ask(&path, None).await.status, 200);
    }
    let deploy = format!(r#"{{"imageTag":"{}"}}"#, digest('b'));
    let deployed = bed.ask("POST /services?wait=60", Some(&deploy)).await.json();
    let hooks = format!("GET /rollouts/{}", deployed["rollout"].as_str().expect("hooks"));
    assert_eq!(bed.ask(&hooks, None).await.json()["scope"], "blue");
}

/// A plan shows that there is nothing to start; the rollout itself is refused, and names who is not there.
#[tokio::test]
async fn a_rollout_of_nobody_is_planned_and_refused() {
    let bed = Bed::new().await;
    for (scope, code, field, warnings) in [
        (r#""all""#, "empty_plan", "scope", &["empty"][..]),
        (r#"{"sites":["nope"]}"#, "unknown_sites", "scope.sites", &["empty", "unknown_sites"]),
    ] {
        let body = |dry: &str| format!(r#"{{"promote":true,"scope":{scope}{dry}}}"#);
        let refused = bed.ask("PUT /services", Some(&body(""))).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (422, code), "{}", refused.text);
        assert_eq!(refused.json()["errors"][0]["field"], field, "{}", refused.text);
        let plan = bed.ask("PUT /services", Some(&body(r#","dryRun":true"#))).await.json();
        let told: Vec<_> =
            plan["warnings"].as_array().expect("warnings").iter().map(|it| &it["code"]).collect();
        assert_eq!(told, warnings, "{plan}");
    }
    assert_eq!(bed.ask("GET /rollouts", None).await.json()["items"], serde_json::json!([]));
}

/// The body of a rollback has nothing that must be said.
#[tokio::test]
async fn a_rollback_needs_no_body() {
    let bed = Bed::new().await;
    let refused = bed.ask("POST /services/rollback", None).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (409, "no_healthy_digest"));
}

#[tokio::test]
async fn lists_come_in_pages() {
    let bed = Bed::new().await;
    for id in ["aa", "bb", "cc"] {
        assert_eq!(bed.ask("POST /sites/create", Some(&new_site(id))).await.status, 201);
    }
    let page = bed.ask("GET /sites?limit=2", None).await.json();
    let next = page["next"].as_str().expect("a next");
    let rest = bed.ask(&format!("GET /sites?limit=2&cursor={next}"), None).await.json();
    assert_eq!((rest["items"][0]["id"].as_str(), rest["next"].is_null()), (Some("cc"), true));
    assert_eq!(bed.ask(&format!("GET /operations?cursor={next}"), None).await.status, 422);
}

#[tokio::test]
async fn a_key_repeats_the_first_answer() {
    let bed = Bed::new().await;
    let send = async |body: &str, key: &'static str| {
        let mut request = bed.request(Role::Operator, "POST /sites/create", Some(body));
        request.headers_mut().insert("idempotency-key", HeaderValue::from_static(key));
        bed.send(request).await
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
async fn a_request_keeps_its_id_if_that_is_fit() {
    let bed = Bed::new().await;
    for (given, kept) in [("mine-1", true), ("with space", false), ("", false)] {
        let mut request = bed.request(Role::Admin, "PUT /sites/none/promote", None);
        request.headers_mut().insert("x-request-id", HeaderValue::from_static(given));
        let answer = bed.send(request).await;
        assert_eq!(answer.headers["x-request-id"] == given, kept, "{given}");
        let audit = bed.ask("GET /audit?limit=1", None).await.json();
        assert_eq!(audit["items"][0]["requestId"], answer.headers["x-request-id"].to_str().expect("text"));
    }
}

#[tokio::test]
async fn a_token_is_shown_once_and_ends_at_once() {
    let bed = Bed::new().await;
    let made = bed.ask("POST /tokens", Some(r#"{"name":"bot","role":"viewer"}"#)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let text = made.json()["token"].as_str().expect("a text").to_owned();
    assert!(!bed.ask("GET /tokens", None).await.text.contains(&text));
    let ask = async || {
        let mut request = bed.request(Role::Admin, "GET /sites", None);
        request.headers_mut().insert("authorization", format!("Bearer {text}").parse().expect("a value"));
        bed.send(request).await.status.as_u16()
    };
    assert_eq!(ask().await, 200);
    let path = format!("DELETE /tokens/{}", made.json()["id"].as_str().expect("an id"));
    assert_eq!(bed.ask(&path, None).await.status, 200);
    assert_eq!(ask().await, 401);
}

#[tokio::test]
async fn a_caller_in_this_process_needs_no_token() {
    let bed = Bed::new().await;
    let router = cdm_http::local_router(bed.app.clone(), Actor::parse("cli").expect("a name"), Role::Admin);
    let request = axum::http::Request::builder().uri("/tokens").body(axum::body::Body::empty());
    let answer = router.oneshot(request.expect("a request")).await.expect("an answer");
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn answers_are_kept_by_no_cache_but_for_what_is_the_same_for_everyone() {
    let bed = Bed::new().await;
    for line in ["GET /sites", "GET /healthz", "GET /metrics", "GET /nowhere", "PATCH /sites"] {
        assert_eq!(bed.ask(line, None).await.headers["cache-control"], "no-store", "{line}");
    }
    assert_eq!(bed.ask("GET /openapi.json", None).await.headers["cache-control"], "no-cache");
}
