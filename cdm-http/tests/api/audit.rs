//! What the audit keeps of refusals: who was refused, and never more than a bound.

use axum::body::Body;
use axum::http::Request;
use cdm_core::domain::Role;
use cdm_core::manager::Span;
use serde_json::Value;

use crate::console::sign_in;
use crate::support::Bed;

async fn entries(bed: &Bed) -> Vec<Value> {
    let answer = bed.ask("GET /audit?limit=1000", None).await;
    answer.json()["items"].as_array().expect("entries").clone()
}

fn of(entry: &Value) -> (&str, &str, &str, &str) {
    let text = |name: &str| entry[name].as_str().unwrap_or_default();
    (text("actor"), text("action"), text("target"), text("outcome"))
}

#[tokio::test]
async fn a_refusal_names_who_asked_for_what() {
    let bed = Bed::new().await;
    let bare = Request::delete("/sites/rrr").body(Body::empty()).expect("a request");
    assert_eq!(bed.send(bare).await.status, 401);
    assert_eq!(of(&entries(&bed).await[0]), ("anonymous", "site.delete", "rrr", "unauthorized"));

    assert_eq!(bed.send(bed.request(Role::Operator, "DELETE /sites/rrr", None)).await.status, 403);
    assert_eq!(of(&entries(&bed).await[0]), ("operator", "site.delete", "rrr", "forbidden"));

    assert_eq!(bed.send(bed.request(Role::Viewer, "GET /tokens", None)).await.status, 403);
    assert_eq!(of(&entries(&bed).await[0]), ("viewer", "token.read", "/tokens", "forbidden"));

    // Whose token it was is known, though it serves no more.
    let made = bed.ask("POST /tokens", Some(r#"{"name":"former","role":"admin"}"#)).await.json();
    let (id, text) = (made["id"].as_str().expect("an id"), made["token"].as_str().expect("a token"));
    assert_eq!(bed.ask(&format!("DELETE /tokens/{id}"), None).await.status, 200);
    let late = Request::get("/sites").header("authorization", format!("Bearer {text}"));
    assert_eq!(bed.send(late.body(Body::empty()).expect("a request")).await.status, 401);
    assert_eq!(of(&entries(&bed).await[0]), ("former", "read", "/sites", "unauthorized"));

    let ada = sign_in(&bed, "ada", Role::Operator).await;
    let form = Request::post("/console/sites/rrr/terminate")
        .header("host", "127.0.0.1:8080")
        .header("cookie", &ada.cookie)
        .header("sec-fetch-site", "same-origin")
        .header("content-type", "application/x-www-form-urlencoded");
    let form = form.body(Body::from(format!("csrf={}", ada.csrf))).expect("a request");
    assert_eq!(bed.send(form).await.status, 403);
    assert_eq!(of(&entries(&bed).await[0]), ("user:ada", "site.delete", "rrr", "forbidden"));
}

/// The role depends on what is stored: the refusal is the services', and is kept once.
#[tokio::test]
async fn a_refused_retry_has_one_entry() {
    let bed = Bed::idle(cdm_http::HttpSettings::default()).await;
    let started = bed.ask("POST /services", Some(&format!(r#"{{"imageTag":"{}"}}"#, "b".repeat(64)))).await;
    let id = started.json()["id"].as_str().expect("an id").to_owned();
    let before = entries(&bed).await.len();
    let line = format!("POST /operations/{id}/cancel");
    assert_eq!(bed.send(bed.request(Role::Operator, &line, None)).await.status, 403);
    let all = entries(&bed).await;
    assert_eq!(all.len(), before + 1);
    assert_eq!(of(&all[0]), ("operator", "operation.cancel", id.as_str(), "forbidden"));
}

#[tokio::test]
async fn refusals_without_end_do_not_fill_the_audit() {
    // No time passes: all of it is within one minute.
    let bed = Bed::still(cdm_http::HttpSettings::default()).await;
    let before = entries(&bed).await.len();
    let mut refused = 0;
    for number in 0..200 {
        let answer = bed.send(bed.request(Role::Admin, &format!("DELETE /sites/none-{number}"), None)).await;
        refused += u64::from(answer.status == 404);
    }
    assert!(refused > 100, "{refused}");
    let all = entries(&bed).await;
    let written = all.len() - before;
    assert_eq!(written, 30, "of {refused} refusals");
    bed.app.manager.count_refusals(Span::Present).await;
    let last = &entries(&bed).await[0];
    assert_eq!((of(last).0, last["count"].as_u64()), ("admin", Some(refused - 30)));
    assert!(all[0].get("count").is_none(), "an entry of one refusal has no number");
}
