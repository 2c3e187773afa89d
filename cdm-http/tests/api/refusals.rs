//! Rejected requests and their errors.

use axum::body::Body;
use axum::http::Request;
use cdm_core::domain::token::Role;
use cdm_http::HttpSettings;

use crate::support::{TestEnv, digest, new_site};

/// Every guarded route with the minimum role that may use it.
const ROUTES: [(&str, Role); 44] = [
    ("POST /sites/create", Role::Operator),
    ("GET /sites", Role::Viewer),
    ("GET /sites/rrr", Role::Viewer),
    ("POST /sites/rrr/provision", Role::Operator),
    ("PUT /sites/rrr/upgrade", Role::Operator),
    ("PUT /sites/rrr/promote", Role::Operator),
    ("DELETE /sites/rrr", Role::Admin),
    ("GET /services", Role::Viewer),
    ("POST /services", Role::Admin),
    ("PUT /services", Role::Operator),
    ("POST /services/rollback", Role::Admin),
    ("GET /services/blue/history", Role::Viewer),
    ("POST /services/history/0", Role::Admin),
    ("GET /operations", Role::Viewer),
    ("GET /operations/op-1-fleet", Role::Viewer),
    ("GET /operations/op-1-fleet/steps/X/log", Role::Viewer),
    ("POST /operations/op-1-fleet/retry", Role::Operator),
    ("POST /operations/op-1-fleet/cancel", Role::Operator),
    ("GET /operations/op-1-fleet/events", Role::Viewer),
    ("GET /rollouts", Role::Viewer),
    ("GET /rollouts/rollout-1", Role::Viewer),
    ("POST /rollouts/rollout-1/pause", Role::Operator),
    ("POST /rollouts/rollout-1/resume", Role::Operator),
    ("POST /rollouts/rollout-1/abort", Role::Operator),
    ("POST /rollouts/rollout-1/retry", Role::Operator),
    ("GET /rollouts/rollout-1/events", Role::Viewer),
    ("GET /audit", Role::Viewer),
    ("GET /audit?limit=1", Role::Viewer),
    ("GET /metrics", Role::Viewer),
    ("GET /freezes", Role::Viewer),
    ("POST /freezes", Role::Admin),
    ("DELETE /freezes/freeze-0", Role::Admin),
    ("GET /webhooks", Role::Admin),
    ("POST /webhooks", Role::Admin),
    ("DELETE /webhooks/webhook-0", Role::Admin),
    ("GET /users", Role::Admin),
    ("POST /users", Role::Admin),
    ("PUT /users/ada", Role::Admin),
    ("DELETE /users/ada", Role::Admin),
    ("DELETE /users/ada/sessions", Role::Admin),
    ("GET /tokens", Role::Admin),
    ("POST /tokens", Role::Admin),
    ("DELETE /tokens/0", Role::Admin),
    ("GET /tokens?limit=2", Role::Admin),
];

#[tokio::test]
async fn each_route_requires_its_role() {
    let env = TestEnv::new().await;
    for (line, least) in ROUTES {
        for role in Role::ALL {
            let response = env.send(env.request(role, line, None)).await;
            let refused = response.status.as_u16() == 403;
            assert_eq!(refused, role < least, "{line} as {role}: {}", response.text);
            if refused {
                assert_eq!(response.code(), "forbidden");
                assert!(response.text.contains(&format!("`{least}`")), "{}", response.text);
            }
        }
        let (method, path) = line.split_once(' ').expect("a line");
        let bare = Request::builder().method(method).uri(path).body(Body::empty()).expect("a request");
        let response = env.send(bare).await;
        assert!([401, 429].contains(&response.status.as_u16()), "{line}: {}", response.status);
    }
}

/// The API accepts an image in the form in which it returns it, wherever an image is specified.
#[tokio::test]
async fn an_image_is_accepted_in_the_form_that_is_returned() {
    let repository = Some("registry.example:5000/wp".to_owned());
    let env = TestEnv::with(HttpSettings { repository, ..HttpSettings::default() }).await;
    let shown = format!("registry.example:5000/wp@sha256:{}", digest('b'));
    let tagged = shown.replace("/wp@", "/wp:6.8@");
    let accepted = env.ask("POST /services", Some(&format!(r#"{{"imageTag":"{tagged}"}}"#))).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    let plan = format!(r#"{{"promote":true,"dryRun":true,"imageTag":"{shown}"}}"#);
    let planned = env.ask("PUT /services", Some(&plan)).await;
    assert_eq!(planned.status, 200, "{}", planned.text);
    let path = shown.replace('/', "%2F");
    let mark = format!("POST /services/history/{path}");
    let marked = env.ask(&mark, Some(r#"{"verdict":"bad","reason":"a test"}"#)).await;
    assert!([200, 404].contains(&marked.status.as_u16()), "{}", marked.text);
    let elsewhere = format!(r#"{{"imageTag":"wordpress@sha256:{}"}}"#, digest('b'));
    let refused = env.ask("POST /services", Some(&elsewhere)).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (422, "invalid"));
    let expected = "the image belongs to the repository `wordpress`, but this platform deploys only from `registry.example:5000/wp`";
    assert!(refused.text.contains(expected), "{}", refused.text);
}

/// Operators may start rollouts; a request that names an image may deploy it, which requires an administrator.
#[tokio::test]
async fn an_operator_may_start_a_rollout_but_not_deploy_an_image() {
    let env = TestEnv::new().await;
    let named = format!(r#"{{"promote":true,"imageTag":"{}"}}"#, digest('a'));
    let refused = env.send(env.request(Role::Operator, "PUT /services", Some(&named))).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (403, "forbidden"));
    assert!(refused.text.contains("`admin`"), "{}", refused.text);
    assert_eq!(env.ask("POST /sites/create", Some(&new_site("rrr"))).await.status, 201);
    assert_eq!(env.ask("POST /sites/rrr/provision?wait=1m", None).await.status, 200);
    let plain = env.request(Role::Operator, "PUT /services", Some(r#"{"promote":true}"#));
    assert_eq!(env.send(plain).await.status, 202);
    assert_eq!(env.ask("GET /rollouts", None).await.json()["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn invalid_input_is_reported_with_its_field() {
    let env = TestEnv::new().await;
    let site = new_site("rrr");
    let cases = [
        ("POST /sites/create", "{", 400, "malformed_json", None),
        ("POST /sites/create", "[]", 422, "invalid", Some("body")),
        ("POST /services/rollback", "null", 422, "invalid", Some("body")),
        ("POST /sites/create", &site.replace("\"rrr\"", "\"R--r\""), 422, "invalid", Some("id")),
        ("POST /sites/create", &site.replace("\"plain\"", "7"), 422, "invalid", Some("theme")),
        ("POST /sites/create", &site.replace("\"name\"", "\"nam\""), 422, "invalid", Some("nam")),
        ("POST /sites/create?wait=61s", &site, 422, "invalid", Some("wait")),
        ("POST /sites/create?wait=", &site, 422, "invalid", Some("wait")),
        ("POST /services", "{}", 422, "invalid", Some("selector")),
        ("POST /services", r#"{"selector":"red"}"#, 422, "invalid", Some("selector")),
        ("POST /services", r#"{"selector":"blue","promote":true}"#, 422, "invalid", Some("promote")),
        ("POST /services", r#"{"imageTag":"dev"}"#, 422, "tags_not_allowed", Some("imageTag")),
        ("POST /services", r#"{"imageTag":"wordpress:6.8"}"#, 422, "tags_not_allowed", Some("imageTag")),
        ("POST /services", r#"{"imageTag":"wordpress@sha256:ab"}"#, 422, "invalid", Some("imageTag")),
        (
            "POST /sites/create",
            &site.replace("[\"rrr.example.org\"", "[\"rrr.example.org\", \"https://b.example.org/\""),
            422,
            "invalid",
            Some("hostnames[1]"),
        ),
        ("PUT /services", r#"{"promote":true,"bake":86401}"#, 422, "invalid", Some("bake")),
        ("PUT /services", r#"{"promote":true,"gate":{"path":"up"}}"#, 422, "invalid", Some("gate")),
        ("PUT /services", r#"{"promote":true,"planHash":"abc"}"#, 422, "invalid", Some("planHash")),
        ("POST /freezes", r#"{"reason":" "}"#, 422, "invalid", Some("reason")),
        ("POST /freezes", r#"{"reason":"x","sites":[]}"#, 422, "invalid", Some("sites")),
        (
            "POST /freezes",
            r#"{"reason":"x","expiresAt":"2001-01-01T00:00:00Z"}"#,
            422,
            "invalid",
            Some("expiresAt"),
        ),
        ("POST /webhooks", r#"{"url":"https://127.0.0.1/"}"#, 422, "invalid", Some("url")),
        ("POST /webhooks", r#"{"url":"https://a.b/","events":[]}"#, 422, "invalid", Some("events")),
        ("POST /webhooks", r#"{"url":"https://a.b/","events":["sites"]}"#, 422, "invalid", Some("events")),
        ("PUT /services", r#"{"promote":false,"gate":{"path":"/"}}"#, 422, "invalid", Some("gate")),
        (
            "PUT /services",
            r#"{"promote":true,"gate":{"path":"/","body":""}}"#,
            422,
            "invalid",
            Some("gate.body"),
        ),
        ("PUT /services", r#"{"promote":"yes"}"#, 422, "invalid", Some("promote")),
        ("PUT /services", r#"{"promote":true,"waves":["10%"]}"#, 422, "invalid", Some("waves")),
        ("PUT /services", r#"{"promote":true,"maxConcurrent":0}"#, 422, "invalid", Some("maxConcurrent")),
        ("PUT /services", r#"{"promote":true,"failureBudget":"x"}"#, 422, "invalid", Some("failureBudget")),
        (
            "PUT /services",
            r#"{"promote":true,"failureBudget":1000001}"#,
            422,
            "invalid",
            Some("failureBudget"),
        ),
        ("POST /tokens", r#"{"name":"x","role":"root"}"#, 422, "invalid", Some("role")),
        ("POST /tokens", r#"{"name":"user:x","role":"viewer"}"#, 422, "invalid", Some("name")),
        (
            "POST /users",
            r#"{"name":"Ada","role":"viewer","password":"correct horse"}"#,
            422,
            "invalid",
            Some("name"),
        ),
        (
            "POST /users",
            r#"{"name":"ada","role":"viewer","password":"short"}"#,
            422,
            "invalid",
            Some("password"),
        ),
        ("PUT /users/ada", "{}", 422, "invalid", Some("role")),
        ("PUT /users/ada", r#"{"role":"admin"}"#, 404, "not_found", None),
        ("DELETE /users/ada", "", 404, "not_found", None),
        ("GET /sites?limit=0", "", 422, "invalid", Some("limit")),
        ("GET /sites?cursor=zz", "", 422, "invalid", Some("cursor")),
        ("GET /sites?colour=blue", "", 422, "invalid", Some("colour")),
        ("GET /sites/Nope", "", 422, "invalid", Some("id")),
        ("GET /sites/nope", "", 404, "not_found", None),
        ("GET /operations/nope", "", 404, "not_found", None),
        ("GET /nope", "", 404, "not_found", None),
        ("PATCH /sites", "", 405, "method_not_allowed", None),
    ];
    for (line, body, status, code, field) in cases {
        let response = env.ask(line, (!body.is_empty()).then_some(body)).await;
        assert_eq!(
            (response.status.as_u16(), response.code().as_str()),
            (status, code),
            "{line} {body} {}",
            response.text
        );
        assert_eq!(response.headers["content-type"], "application/problem+json");
        let problem = response.json();
        assert_eq!(problem["type"], format!("/errors/{code}"));
        assert_eq!(problem["requestId"], response.headers["x-request-id"].to_str().expect("text"));
        if let Some(field) = field {
            assert_eq!(problem["errors"][0]["field"], field, "{line} {body} {}", response.text);
        }
        assert_eq!(status == 405, response.headers.contains_key("allow"), "{line}");
    }
}

#[tokio::test]
async fn a_body_must_be_json_with_a_content_type_and_a_limited_size() {
    let env = TestEnv::with(HttpSettings { body: 200, ..HttpSettings::default() }).await;
    let long = format!("{{\"id\":\"{}\"}}", "x".repeat(300));
    assert_eq!(env.ask("POST /sites/create", Some(&long)).await.status, 413);
    let mut text = env.request(Role::Admin, "POST /sites/create", Some("{}"));
    text.headers_mut().insert("content-type", "text/plain".parse().expect("a value"));
    assert_eq!(env.send(text).await.status, 415);
}

#[tokio::test]
async fn conflicts_name_the_conflicting_object() {
    let env = TestEnv::new().await;
    assert_eq!(env.ask("POST /sites/create", Some(&new_site("rrr"))).await.status, 201);
    let again = env.ask("POST /sites/create", Some(&new_site("rrr"))).await;
    assert_eq!((again.status.as_u16(), again.code().as_str()), (409, "site_exists"));
    let promote = env.ask("PUT /sites/rrr/promote", None).await;
    assert_eq!((promote.status.as_u16(), promote.code().as_str()), (409, "illegal_transition"));
    let mark = r#"{"verdict":"bad","reason":"no"}"#;
    let unknown = env.ask(&format!("POST /services/history/{}", digest('f')), Some(mark)).await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn requests_per_token_and_failures_per_address_are_limited() {
    let few = std::num::NonZeroU32::MIN;
    let env =
        TestEnv::with(HttpSettings { rate: few, burst: few, failures: few, ..HttpSettings::default() }).await;
    assert_eq!(env.ask("GET /sites", None).await.status, 200);
    let limited = env.ask("GET /sites", None).await;
    assert_eq!((limited.status.as_u16(), limited.code().as_str()), (429, "rate_limited"));
    assert!(limited.headers.contains_key("retry-after"));
    let bare = || Request::builder().uri("/sites").body(Body::empty()).expect("a request");
    let first = env.send(bare()).await;
    assert_eq!((first.status.as_u16(), first.code().as_str()), (401, "unauthorized"));
    assert!(first.headers.contains_key("www-authenticate"));
    assert_eq!(env.send(bare()).await.status, 429);
}
