//! The request that each command sends.

use serde_json::{Value, json};

use crate::fake::{FakeServer, Setting, run, run_in};
use crate::samples;

const DIGEST: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn operation() -> Value {
    samples::operation(json!({}))
}

fn rollout() -> Value {
    samples::rollout(json!({}))
}

#[tokio::test(start_paused = true)]
async fn work_is_requested_by_method_path_and_body() {
    let deploy = format!(r#"POST /services {{"imageTag":"{DIGEST}"}}"#);
    let deploy_to = format!(r#"POST /services {{"imageTag":"{DIGEST}","promote":true,"service":"green"}}"#);
    let accept = format!(r#"POST /rollouts/rollout-1/resume {{"acceptDigest":"{DIGEST}"}}"#);
    let insist = format!(r#"POST /rollouts/rollout-1/resume {{"acceptDigest":"{DIGEST}","force":true}}"#);
    let cases: [(&[&str], &str); 22] = [
        (&["site", "provision", "shop"], "POST /sites/shop/provision"),
        (&["site", "upgrade", "shop"], "PUT /sites/shop/upgrade"),
        (&["site", "promote", "shop"], "PUT /sites/shop/promote"),
        (&["site", "delete", "shop", "--confirm", "shop"], "DELETE /sites/shop"),
        (&["services", "deploy", DIGEST], &deploy),
        (&["services", "deploy", DIGEST, "--promote", "--service", "green"], &deploy_to),
        (&["services", "rollback"], "POST /services/rollback {}"),
        (&["services", "rollback", "--service", "blue"], r#"POST /services/rollback {"service":"blue"}"#),
        (
            &["services", "rollout", "--scope", "active"],
            r#"PUT /services {"promote":false,"scope":"active"}"#,
        ),
        (
            &[
                "services",
                "rollout",
                "--promote",
                "--bake",
                "10m",
                "--gate-path",
                "/up",
                "--gate-status",
                "204",
            ],
            r#"PUT /services {"bake":600,"gate":{"path":"/up","status":204},"promote":true}"#,
        ),
        (
            &["services", "rollout", "--promote", "--sites", "a,b", "--waves", "1,10%,100%"],
            r#"PUT /services {"promote":true,"scope":{"sites":["a","b"]},"waves":["1","10%","100%"]}"#,
        ),
        (
            &["services", "rollout", "--scope", "all", "--max-concurrent", "8", "--failure-budget", "2"],
            r#"PUT /services {"failureBudget":2,"maxConcurrent":8,"promote":false,"scope":"all"}"#,
        ),
        (
            &["services", "rollout", "--promote", "--failure-budget", "2%", "--auto-rollback"],
            r#"PUT /services {"autoRollback":true,"failureBudget":"2%","promote":true}"#,
        ),
        (&["op", "retry", "op-1"], "POST /operations/op-1/retry"),
        (&["op", "retry", "op-1", "--force"], "POST /operations/op-1/retry?force=true"),
        (&["rollout", "resume", "rollout-1", "--accept-digest", DIGEST], &accept),
        (&["rollout", "resume", "rollout-1", "--accept-digest", DIGEST, "--force"], &insist),
        (&["rollout", "retry", "rollout-1", "--force"], "POST /rollouts/rollout-1/retry?force=true"),
        (&["op", "cancel", "op-1"], "POST /operations/op-1/cancel"),
        (&["rollout", "resume", "rollout-1"], "POST /rollouts/rollout-1/resume"),
        (&["rollout", "abort", "rollout-1"], "POST /rollouts/rollout-1/abort"),
        (&["rollout", "retry", "rollout-1"], "POST /rollouts/rollout-1/retry"),
    ];
    for (line, expected) in cases {
        let what = expected.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let of_rollout = what.contains("rollouts/") || what.starts_with("PUT /services");
        let result = run(
            FakeServer::default().responds(&what, 202, if of_rollout { rollout() } else { operation() }),
            line,
        )
        .await;
        assert_eq!(result.fake.requests(), [expected], "{line:?}: {}", result.err);
    }
}

#[tokio::test(start_paused = true)]
async fn reads_are_requested_by_path_and_filters() {
    let cases: [(&[&str], &str); 15] = [
        // For a table, the command reads the freezes as well.
        (&["site", "get", "shop", "-o", "json"], "GET /sites/shop"),
        (&["site", "get", "../x y", "-o", "json"], "GET /sites/..%2Fx%20y"),
        (
            &["site", "list", "--service", "green", "--state", "active", "-s", "sh&p", "--drifted"],
            "GET /sites?service=green&state=active&q=sh%26p&drifted=true&limit=100",
        ),
        (&["services", "show"], "GET /services"),
        (&["services", "history", "blue"], "GET /services/blue/history"),
        (&["rollout", "list", "--limit", "3"], "GET /rollouts?limit=3"),
        (&["rollout", "get", "rollout-1"], "GET /rollouts/rollout-1"),
        (
            &["op", "list", "--status", "parked", "--rollout", "r"],
            "GET /operations?status=parked&rollout=r&limit=100",
        ),
        (&["op", "get", "op-1"], "GET /operations/op-1"),
        (&["freeze", "list"], "GET /freezes"),
        (&["webhook", "list"], "GET /webhooks"),
        (&["user", "list"], "GET /users"),
        (&["token", "list", "--all"], "GET /tokens?limit=500"),
        (
            &["audit", "--actor", "ci", "--since", "2029-01-01T00:00:00Z"],
            "GET /audit?actor=ci&since=2029-01-01T00%3A00%3A00Z&limit=100",
        ),
        (&["op", "log", "op-1", "Install"], "GET /operations/op-1/steps/Install/log"),
    ];
    for (line, expected) in cases {
        let what = expected.split('?').next().unwrap();
        let response = match what {
            "GET /services" => samples::services(json!({})),
            site if site.starts_with("GET /sites/") => samples::site(json!({})),
            "GET /rollouts/rollout-1" => rollout(),
            "GET /operations/op-1" => operation(),
            _ => json!({ "items": [], "next": null }),
        };
        let result = run(FakeServer::default().responds(what, 200, response), line).await;
        assert_eq!(result.fake.requests(), [expected], "{line:?}");
        assert_eq!(result.exit.code(), 0, "{line:?}: {}", result.err);
    }
}

#[tokio::test(start_paused = true)]
async fn small_changes_complete_at_once() {
    let mark = format!(r#"POST /services/history/{DIGEST} {{"reason":"loses uploads","verdict":"bad"}}"#);
    let cases: [(&[&str], u16, &str); 14] = [
        (&["services", "select", "green"], 200, r#"POST /services {"selector":"green"}"#),
        (&["services", "mark", DIGEST, "bad", "--reason", "loses uploads"], 200, &mark),
        (&["rollout", "pause", "rollout-1"], 202, "POST /rollouts/rollout-1/pause"),
        (&["token", "revoke", "t-1"], 200, "DELETE /tokens/t-1"),
        (
            &["user", "create", "grace@example.com", "--role", "viewer", "--no-password"],
            201,
            r#"POST /users {"name":"grace@example.com","role":"viewer"}"#,
        ),
        (&["user", "role", "ada", "admin"], 200, r#"PUT /users/ada {"role":"admin"}"#),
        (&["user", "sign-out", "b@c.example"], 200, "DELETE /users/b%40c.example/sessions"),
        (&["user", "reset-second-factor", "ada"], 200, r#"PUT /users/ada {"secondFactor":"none"}"#),
        (&["user", "unbind", "ada"], 200, r#"PUT /users/ada {"identity":"none"}"#),
        (&["user", "remove", "ada"], 200, "DELETE /users/ada"),
        (
            &["webhook", "create", "https://a.b/c", "--events", "rollout.halted,operation.parked"],
            201,
            r#"POST /webhooks {"events":["rollout.halted","operation.parked"],"url":"https://a.b/c"}"#,
        ),
        (&["webhook", "remove", "webhook-7"], 200, "DELETE /webhooks/webhook-7"),
        (
            &["token", "create", "ci", "--role", "viewer", "--no-expiry"],
            201,
            r#"POST /tokens {"expiresAt":"never","name":"ci","role":"viewer"}"#,
        ),
        (
            &["token", "create", "ci", "--role", "operator", "--expires-in", "24h"],
            201,
            r#"POST /tokens {"expiresAt":"2030-01-02T00:00:00Z","name":"ci","role":"operator"}"#,
        ),
    ];
    for (line, status, expected) in cases {
        let what = expected.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let (method, path) = what.split_once(' ').expect("a method and a path");
        let response = match (method, path.split('/').nth(1).expect("a resource")) {
            ("POST", "services") if path == "/services" => samples::selected(),
            ("POST", "services") => json!({ "items": [] }),
            (_, "rollouts") => rollout(),
            (_, "tokens") => samples::token(json!({ "token": "once" })),
            (_, "users") => samples::user(json!({})),
            ("DELETE", _) => json!({ "id": "webhook-7" }),
            (_, "webhooks") => samples::webhook(json!({ "key": "whsec_a" })),
            other => panic!("no response to {other:?}"),
        };
        let result = run(FakeServer::default().responds(&what, status, response), line).await;
        assert_eq!(result.fake.requests(), [expected], "{line:?}");
        assert_eq!(result.exit.code(), 0, "{line:?}: {}", result.err);
    }
}

/// A password is typed twice, or read from a file; it is never an argument, and never printed.
#[tokio::test(start_paused = true)]
async fn a_password_is_prompted_for_or_read() {
    const SECRET: &str = "correct horse";
    let line = ["user", "create", "ada", "--role", "viewer"];
    let fake = || FakeServer::default().responds("POST /users", 201, samples::user(json!({})));
    let expected = format!(r#"POST /users {{"name":"ada","password":"{SECRET}","role":"viewer"}}"#);
    let typed = |types| Setting { types, ..Setting::default() };
    let result = run_in(fake(), &line, typed(Some("correct horse\ncorrect horse\n"))).await;
    assert_eq!((result.exit.code(), result.fake.requests()), (0, vec![expected.clone()]), "{}", result.err);
    assert!(!result.out.contains(SECRET) && !result.err.contains(SECRET), "{} {}", result.out, result.err);
    for types in [Some("correct horse\ncorrect hose\n"), None] {
        let result = run_in(fake(), &line, typed(types)).await;
        assert_eq!((result.exit.code(), result.fake.requests().len()), (2, 0), "{types:?}: {}", result.err);
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("password");
    std::fs::write(&file, "correct horse\r\n").expect("a file");
    let line = [line.as_slice(), &["--password-file", file.to_str().expect("a path")]].concat();
    let result = run(fake(), &line).await;
    assert_eq!((result.exit.code(), result.fake.requests()), (0, vec![expected]), "{}", result.err);
}

#[tokio::test(start_paused = true)]
async fn a_site_is_created_with_defaults_and_a_key() {
    let line = [
        "site",
        "create",
        "shop",
        "--theme",
        "t",
        "--hostname",
        "a.example,b.example",
        "--idempotency-key",
        "k",
    ];
    let result = run(
        FakeServer::default().responds(
            "POST /sites/create",
            201,
            samples::site(json!({ "state": "created" })),
        ),
        &line,
    )
    .await;
    let body = r#"{"canonicalHostname":"a.example","hostnames":["a.example","b.example"],"id":"shop","name":"shop","theme":"t"}"#;
    assert_eq!(result.fake.requests(), [format!("POST /sites/create {body}")]);
    assert_eq!(result.fake.headers(), [("idempotency-key", "k".to_owned())]);
    assert!(result.out.contains("created"), "{}", result.out);
}

#[tokio::test(start_paused = true)]
async fn only_a_new_token_is_on_standard_output() {
    let fake =
        FakeServer::default().responds("POST /tokens", 201, samples::token(json!({ "token": "s3cret" })));
    let result = run(fake, &["token", "create", "ci", "--role", "viewer"]).await;
    assert_eq!(result.out, "s3cret\n");
    assert!(!result.err.contains("s3cret"));
}

#[tokio::test(start_paused = true)]
async fn a_deletion_requires_the_id() {
    let scripted = || FakeServer::default().responds("DELETE /sites/shop", 202, operation());
    let typed = |types| Setting { types, ..Setting::default() };

    let piped = run(scripted(), &["site", "delete", "shop"]).await;
    assert_eq!((piped.exit.code(), piped.fake.requests().len()), (2, 0));
    assert!(piped.err.contains("--confirm shop"), "{}", piped.err);

    let wrong = run(scripted(), &["site", "delete", "shop", "--confirm", "ship"]).await;
    assert_eq!((wrong.exit.code(), wrong.fake.requests().len()), (2, 0));

    for (types, code, requests) in [("shop\n", 0, 1), ("yes\n", 2, 0), ("", 2, 0)] {
        let result = run_in(scripted(), &["site", "delete", "shop"], typed(Some(types))).await;
        assert_eq!((result.exit.code(), result.fake.requests().len()), (code, requests), "typed {types:?}");
        assert!(result.err.contains("Type its id"), "{}", result.err);
    }
}
