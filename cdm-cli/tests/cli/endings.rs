//! Refusals: what is said, what is hinted, and the exit code.

use serde_json::json;

use crate::fake::{Fake, Setting, run, run_in};

const GET: &str = "GET /sites/shop";

#[tokio::test(start_paused = true)]
async fn statuses_have_exit_codes() {
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
        let ran = run(Fake::default().says(GET, status, json!({})), &["site", "get", "shop"]).await;
        assert_eq!(ran.exit.code(), code, "{status}: {}", ran.err);
        assert!(ran.err.starts_with("error: "), "{status}: {}", ran.err);
        assert_eq!(ran.out, "");
    }
}

#[tokio::test(start_paused = true)]
async fn codes_have_hints() {
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
        ("theme_missing", "put the theme into the image"),
        ("image_not_ready", "deploy a working digest"),
    ];
    for (code, hint) in cases {
        let problem = json!({
            "detail": "no", "code": code, "operation": "op-9", "rollout": "rollout-3", "running": "sha256:dd"
        });
        let ran = run(Fake::default().says(GET, 409, problem), &["site", "get", "shop"]).await;
        let last = ran.err.lines().last().unwrap();
        assert!(last.starts_with("hint: ") && last.contains(hint), "{code}: {}", ran.err);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_parked_is_not_waited_for() {
    let problem = json!({
        "detail": "no", "code": "operation_in_flight", "operation": "op-9", "operationStatus": "parked"
    });
    let ran = run(Fake::default().says(GET, 409, problem), &["site", "get", "shop"]).await;
    let last = ran.err.lines().last().unwrap();
    assert!(last.contains("cdm op retry op-9") && !last.contains("watch"), "{last}");
}

#[tokio::test(start_paused = true)]
async fn a_rollout_that_does_not_say_what_it_moves_is_not_asked_for() {
    for line in [&["services", "rollout"][..], &["services", "rollout", "--waves", "1,100%"]] {
        let ran = run(Fake::default(), line).await;
        assert_eq!(ran.exit.code(), 2, "{}", ran.err);
        assert!(ran.err.contains("nothing was started") && ran.err.contains("--dry-run"), "{}", ran.err);
    }
}

#[tokio::test(start_paused = true)]
async fn a_site_that_a_rollout_names_and_that_is_not_there_is_4() {
    let problem = json!({ "detail": "the site `nope` does not exist", "code": "unknown_sites" });
    let line = ["services", "rollout", "--promote", "--sites", "nope"];
    let ran = run(Fake::default().says("PUT /services", 422, problem), &line).await;
    assert_eq!(ran.exit.code(), 4, "{}", ran.err);
}

#[tokio::test(start_paused = true)]
async fn every_field_is_named_and_no_control_character_reaches_the_terminal() {
    let problem = json!({
        "title": "Invalid", "detail": "two fields are\u{1b}[2J wrong", "code": "invalid",
        "errors": [{ "field": "theme", "message": "is empty" }, { "field": "hostnames[1]", "message": "is an address" }]
    });
    let ran = run(Fake::default().says(GET, 422, problem), &["site", "get", "shop"]).await;
    assert!(
        ran.err.starts_with(
            "error: two fields are\u{fffd}[2J wrong\n  theme: is empty\n  hostnames[1]: is an address\n"
        ),
        "{}",
        ran.err
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_there() {
    let ran = run(Fake::default().silent(GET), &["site", "get", "shop"]).await;
    assert_eq!(ran.exit.code(), 8);
    assert!(
        ran.err.starts_with("error: http://fake does not answer: connection refused\nhint: "),
        "{}",
        ran.err
    );
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_goes_away_is_no_error() {
    let setting = Setting { closed: true, ..Setting::default() };
    let ran =
        run_in(Fake::default().says(GET, 200, json!({ "id": "shop" })), &["site", "get", "shop"], setting)
            .await;
    assert_eq!((ran.exit.code(), ran.err.as_str()), (0, ""));
}

#[tokio::test(start_paused = true)]
async fn the_doctor_tells_backends_and_token() {
    let backend = |name: &str| json!({ "name": name, "ready": true, "problem": null });
    let ready = json!({ "status": "ready", "backends": [backend("store"), backend("cluster")] });
    let well = Fake::default().says("GET /readyz", 200, ready.clone()).says("GET /services", 200, json!({}));
    let ran = run(well, &["doctor"]).await;
    assert_eq!(ran.exit.code(), 0, "{}", ran.err);
    assert!(
        ran.out.contains("store     true    -\n") && ran.out.contains("token:    accepted\n"),
        "{}",
        ran.out
    );

    let token = Fake::default().says("GET /readyz", 200, ready.clone()).says(
        "GET /services",
        401,
        json!({ "detail": "no such token", "code": "unauthorized" }),
    );
    let ran = run(token, &["doctor"]).await;
    assert_eq!(ran.exit.code(), 3);
    assert!(ran.out.contains("no such token") && ran.err.contains("CDM_TOKEN"), "{}{}", ran.out, ran.err);

    let ill = json!({ "status": "not_ready", "backends": [{ "name": "store", "ready": false, "problem": "locked" }] });
    let ill = Fake::default().says("GET /readyz", 503, ill).says("GET /services", 503, json!({}));
    let ran = run(ill, &["doctor"]).await;
    assert_eq!(ran.exit.code(), 8);
    assert!(ran.out.contains("store     false   locked\n"), "{}", ran.out);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_none_is_a_usage_error() {
    let ran = run(Fake::default(), &["local", "image", "d", "--failing"]).await;
    assert_eq!(ran.exit.code(), 2);
    assert!(ran.err.contains("64 hexadecimal digits"), "{}", ran.err);
}
