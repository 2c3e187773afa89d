//! Audit entries of rejected requests: they name the caller, and their number is bounded.

use axum::body::Body;
use axum::http::Request;
use cdm_core::domain::Role;
use cdm_core::manager::Span;
use serde_json::Value;

use crate::console::sign_in;
use crate::support::TestEnv;

async fn entries(env: &TestEnv) -> Vec<Value> {
    let response = env.ask("GET /audit?limit=1000", None).await;
    response.json()["items"].as_array().expect("entries").clone()
}

fn of(entry: &Value) -> (&str, &str, &str, &str) {
    let text = |name: &str| entry[name].as_str().unwrap_or_default();
    (text("actor"), text("action"), text("target"), text("outcome"))
}

#[tokio::test]
async fn an_audit_entry_names_the_caller_and_the_request() {
    let env = TestEnv::new().await;
    let bare = Request::delete("/sites/rrr").body(Body::empty()).expect("a request");
    assert_eq!(env.send(bare).await.status, 401);
    assert_eq!(of(&entries(&env).await[0]), ("anonymous", "site.delete", "rrr", "unauthorized"));

    assert_eq!(env.send(env.request(Role::Operator, "DELETE /sites/rrr", None)).await.status, 403);
    assert_eq!(of(&entries(&env).await[0]), ("operator", "site.delete", "rrr", "forbidden"));

    assert_eq!(env.send(env.request(Role::Viewer, "GET /tokens", None)).await.status, 403);
    assert_eq!(of(&entries(&env).await[0]), ("viewer", "token.read", "/tokens", "forbidden"));

    // The owner of the token is known, although the token is revoked.
    let made = env.ask("POST /tokens", Some(r#"{"name":"former","role":"admin"}"#)).await.json();
    let (id, text) = (made["id"].as_str().expect("an id"), made["token"].as_str().expect("a token"));
    assert_eq!(env.ask(&format!("DELETE /tokens/{id}"), None).await.status, 200);
    let late = Request::get("/sites").header("authorization", format!("Bearer {text}"));
    assert_eq!(env.send(late.body(Body::empty()).expect("a request")).await.status, 401);
    assert_eq!(of(&entries(&env).await[0]), ("former", "read", "/sites", "unauthorized"));

    let ada = sign_in(&env, "ada", Role::Operator).await;
    let form = Request::post("/console/sites/rrr/terminate")
        .header("host", "127.0.0.1:8080")
        .header("cookie", &ada.cookie)
        .header("sec-fetch-site", "same-origin")
        .header("content-type", "application/x-www-form-urlencoded");
    let form = form.body(Body::from(format!("csrf={}", ada.csrf))).expect("a request");
    assert_eq!(env.send(form).await.status, 403);
    assert_eq!(of(&entries(&env).await[0]), ("user:ada", "site.delete", "rrr", "forbidden"));
}

/// The required role depends on stored state: the manager rejects the request, and writes one entry.
#[tokio::test]
async fn a_rejected_retry_has_one_entry() {
    let env = TestEnv::idle(cdm_http::HttpSettings::default()).await;
    let started = env.ask("POST /services", Some(&format!(r#"{{"imageTag":"{}"}}"#, "b".repeat(64)))).await;
    let id = started.json()["id"].as_str().expect("an id").to_owned();
    let before = entries(&env).await.len();
    let line = format!("POST /operations/{id}/cancel");
    assert_eq!(env.send(env.request(Role::Operator, &line, None)).await.status, 403);
    let all = entries(&env).await;
    assert_eq!(all.len(), before + 1);
    assert_eq!(of(&all[0]), ("operator", "operation.cancel", id.as_str(), "forbidden"));
}

#[tokio::test]
async fn repeated_rejections_are_summarized() {
    // The clock does not advance, so all requests are within one minute.
    let env = TestEnv::with_stopped_clock(cdm_http::HttpSettings::default()).await;
    let before = entries(&env).await.len();
    let mut refused = 0;
    for number in 0..200 {
        let response =
            env.send(env.request(Role::Admin, &format!("DELETE /sites/none-{number}"), None)).await;
        refused += u64::from(response.status == 404);
    }
    assert!(refused > 100, "{refused}");
    let all = entries(&env).await;
    let written = all.len() - before;
    assert_eq!(written, 30, "of {refused} rejections");
    env.app.manager.count_refusals(Span::Present).await;
    let last = &entries(&env).await[0];
    assert_eq!((of(last).0, last["count"].as_u64()), ("admin", Some(refused - 30)));
    assert!(all[0].get("count").is_none(), "an entry of one rejection has no count");
}
