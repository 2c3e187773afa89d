//! Rejected requests: messages, hints and exit codes.

use serde_json::json;

use crate::fake::{FakeServer, Setting, run, run_in};
use crate::samples;

const GET: &str = "GET /sites/shop";

#[tokio::test(start_paused = true)]
async fn statuses_map_to_exit_codes() {
    let cases = [
        (400, 2),
        (401, 3),
        (403, 3),
        (404, 4),
        (409, 5),
        (413, 2),
        (422, 2),
        (500, 1),
        (502, 8),
        (503, 8),
        (302, 1),
    ];
    for (status, code) in cases {
        let result =
            run(FakeServer::default().responds(GET, status, json!({})), &["site", "get", "shop"]).await;
        assert_eq!(result.exit.code(), code, "{status}: {}", result.err);
        assert!(result.err.starts_with("error: "), "{status}: {}", result.err);
        assert_eq!(result.out, "");
    }
}

#[tokio::test(start_paused = true)]
async fn error_codes_have_hints() {
    let cases = [
        ("operation_in_flight", "cdm op watch op-9"),
        ("rollout_in_flight", "cdm rollout abort rollout-3"),
        ("unauthorized", "CDM_TOKEN"),
        ("not_found", "cdm site list"),
        ("forbidden", "role"),
        ("hostname_taken", "another hostname"),
        ("digest_changed", "cdm rollout resume ID --accept-digest sha256:dd"),
        ("bad_digest", "--force"),
        ("unknown_sites", "cdm site list --all"),
        ("empty_plan", "--dry-run"),
        ("no_healthy_digest", "cdm services mark"),
        ("site_exists", "another id"),
        ("unavailable", "cdm doctor"),
        ("outcome_unknown", "--idempotency-key"),
        ("backend_denied", "grant"),
        ("theme_missing", "add the theme to the image"),
        ("image_not_ready", "deploy a working digest"),
    ];
    for (code, hint) in cases {
        let problem = json!({
            "detail": "no", "code": code, "operation": "op-9", "rollout": "rollout-3", "running": "sha256:dd"
        });
        let result = run(FakeServer::default().responds(GET, 409, problem), &["site", "get", "shop"]).await;
        let last = result.err.lines().last().unwrap();
        assert!(last.starts_with("hint: ") && last.contains(hint), "{code}: {}", result.err);
    }
}

#[tokio::test(start_paused = true)]
async fn a_parked_operation_has_the_hint_to_retry() {
    let problem = json!({
        "detail": "no", "code": "operation_in_flight", "operation": "op-9", "operationStatus": "parked"
    });
    let result = run(FakeServer::default().responds(GET, 409, problem), &["site", "get", "shop"]).await;
    let last = result.err.lines().last().unwrap();
    assert!(last.contains("cdm op retry op-9") && !last.contains("watch"), "{last}");
}

#[tokio::test(start_paused = true)]
async fn a_rollout_without_sites_or_action_is_not_requested() {
    for line in [&["services", "rollout"][..], &["services", "rollout", "--waves", "1,100%"]] {
        let result = run(FakeServer::default(), line).await;
        assert_eq!(result.exit.code(), 2, "{}", result.err);
        assert!(
            result.err.contains("nothing was started") && result.err.contains("--dry-run"),
            "{}",
            result.err
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_site_in_a_rollout_is_4() {
    let problem = json!({ "detail": "the site `nope` does not exist", "code": "unknown_sites" });
    let line = ["services", "rollout", "--promote", "--sites", "nope"];
    let result = run(FakeServer::default().responds("PUT /services", 422, problem), &line).await;
    assert_eq!(result.exit.code(), 4, "{}", result.err);
}

#[tokio::test(start_paused = true)]
async fn invalid_fields_are_printed_without_control_characters() {
    let problem = json!({
        "title": "Invalid", "detail": "two fields are\u{1b}[2J wrong", "code": "invalid",
        "errors": [{ "field": "theme", "message": "is empty" }, { "field": "hostnames[1]", "message": "is an address" }]
    });
    let result = run(FakeServer::default().responds(GET, 422, problem), &["site", "get", "shop"]).await;
    assert!(
        result.err.starts_with(
            "error: two fields are\u{fffd}[2J wrong\n  theme: is empty\n  hostnames[1]: is an address\n"
        ),
        "{}",
        result.err
    );
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_server_is_8() {
    let result = run(FakeServer::default().silent(GET), &["site", "get", "shop"]).await;
    assert_eq!(result.exit.code(), 8);
    assert!(
        result.err.starts_with("error: `http://fake` does not respond: connection refused\nhint: "),
        "{}",
        result.err
    );
}

#[tokio::test(start_paused = true)]
async fn a_closed_output_is_not_an_error() {
    let setting = Setting { closed: true, ..Setting::default() };
    let result = run_in(
        FakeServer::default().responds(GET, 200, samples::site(json!({}))),
        &["site", "get", "shop"],
        setting,
    )
    .await;
    assert_eq!((result.exit.code(), result.err.as_str()), (0, ""));
}

#[tokio::test(start_paused = true)]
async fn the_doctor_reports_backends_and_token() {
    let backend = |name: &str| json!({ "name": name, "ready": true, "problem": null });
    let ready = json!({ "status": "ready", "backends": [backend("store"), backend("cluster")] });
    let well = FakeServer::default().responds("GET /readyz", 200, ready.clone()).responds(
        "GET /services",
        200,
        samples::services(json!({})),
    );
    let result = run(well, &["doctor"]).await;
    assert_eq!(result.exit.code(), 0, "{}", result.err);
    assert!(
        result.out.contains("store     true    -\n") && result.out.contains("token:    accepted\n"),
        "{}",
        result.out
    );

    let token = FakeServer::default().responds("GET /readyz", 200, ready.clone()).responds(
        "GET /services",
        401,
        json!({ "detail": "no such token", "code": "unauthorized" }),
    );
    let result = run(token, &["doctor"]).await;
    assert_eq!(result.exit.code(), 3);
    assert!(
        result.out.contains("no such token") && result.err.contains("CDM_TOKEN"),
        "{}{}",
        result.out,
        result.err
    );

    let ill = json!({ "status": "not_ready", "backends": [{ "name": "store", "ready": false, "problem": "locked" }] });
    let ill =
        FakeServer::default().responds("GET /readyz", 503, ill).responds("GET /services", 503, json!({}));
    let result = run(ill, &["doctor"]).await;
    assert_eq!(result.exit.code(), 8);
    assert!(result.out.contains("store     false   locked\n"), "{}", result.out);
}

#[tokio::test(start_paused = true)]
async fn an_invalid_image_is_a_usage_error() {
    let result = run(FakeServer::default(), &["local", "image", "d", "--failing"]).await;
    assert_eq!(result.exit.code(), 2);
    assert!(result.err.contains("64 hexadecimal digits"), "{}", result.err);
}
