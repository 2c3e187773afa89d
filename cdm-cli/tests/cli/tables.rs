//! Lists and objects, as tables and as JSON or YAML.

use serde_json::{Value, json};

use crate::fake::{FakeServer, Setting, run, run_in};
use crate::samples;

fn site(id: &str) -> Value {
    samples::site(json!({ "id": id, "createdAt": "2029-12-31T23:55:00.000Z" }))
}

fn page(ids: std::ops::Range<u32>, next: Option<&str>) -> Value {
    json!({ "items": ids.map(|id| site(&format!("s{id}"))).collect::<Vec<_>>(), "next": next })
}

#[tokio::test(start_paused = true)]
async fn a_list_is_printed_as_a_table() {
    let fake = || {
        FakeServer::default().responds("GET /sites", 200, json!({ "items": [site("shop")], "next": null }))
    };
    let result = run(fake(), &["site", "list"]).await;
    assert_eq!(
        result.out,
        "ID     STATE    SERVICE   ROUTED   HOSTNAME    THEME   OPERATION   AGE\n\
         shop   active   blue      green    a.example   t       -           5m\n"
    );
    let narrow = Setting { width: Some(50), ..Setting::default() };
    let result = run_in(fake(), &["site", "list"], narrow).await;
    assert!(result.out.lines().all(|line| line.chars().count() <= 50), "{}", result.out);
}

#[tokio::test(start_paused = true)]
async fn json_and_yaml_contain_the_servers_response() {
    let fake = || {
        FakeServer::default().responds("GET /sites", 200, json!({ "items": [site("shop")], "next": null }))
    };
    let result = run(fake(), &["site", "list", "-o", "json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&result.out).unwrap(), json!({ "items": [site("shop")] }));
    let result = run(fake(), &["site", "list", "-o", "yaml"]).await;
    assert_eq!(serde_norway::from_str::<Value>(&result.out).unwrap(), json!({ "items": [site("shop")] }));
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_prints_a_note_on_standard_error() {
    let fake = || FakeServer::default().responds("GET /sites", 200, json!({ "items": [], "next": null }));
    let result = run(fake(), &["site", "list"]).await;
    assert_eq!((result.out.as_str(), result.err.as_str()), ("", "no sites\n"));
    let result = run(fake(), &["site", "list", "-o", "json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&result.out).unwrap(), json!({ "items": [] }));
}

#[tokio::test(start_paused = true)]
async fn lists_follow_cursors_up_to_the_limit() {
    let fake = || {
        FakeServer::default().responds("GET /sites", 200, page(0..3, Some("c/1"))).responds(
            "GET /sites",
            200,
            page(3..6, Some("c2")),
        )
    };
    let result = run(fake(), &["site", "list", "--limit", "5", "-o", "json"]).await;
    assert_eq!(result.fake.requests(), ["GET /sites?limit=5", "GET /sites?limit=2&cursor=c%2F1"]);
    let printed: Value = serde_json::from_str(&result.out).unwrap();
    assert_eq!(printed["items"].as_array().unwrap().len(), 5);
    assert!(result.err.contains("there are more"), "{}", result.err);

    let result =
        run(fake().responds("GET /sites", 200, page(6..7, None)), &["site", "list", "--all", "-o", "json"])
            .await;
    let printed: Value = serde_json::from_str(&result.out).unwrap();
    assert_eq!((printed["items"].as_array().unwrap().len(), result.err.as_str()), (7, ""));

    let circle = FakeServer::default().responds("GET /sites", 200, page(0..3, Some("c")));
    assert_eq!(run(circle, &["site", "list", "--all"]).await.exit.code(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_operation_shows_its_steps() {
    let operation = samples::operation(json!({
        "status": "parked", "reason": samples::reason("job_failed", "exit 1"), "createdAt": "2029-12-31T00:00:00Z",
        "steps": [
            { "name": "Install", "status": "succeeded", "attempts": 1, "job": "shop-install-1",
              "startedAt": "2029-12-31T00:00:00Z", "finishedAt": "2029-12-31T00:01:30Z", "message": null },
            { "name": "Ingress", "status": "running", "attempts": 2, "message": "again" }
        ]
    }));
    let result =
        run(FakeServer::default().responds("GET /operations/op-1", 200, operation), &["op", "get", "op-1"])
            .await;
    for part in
        ["reason:", "job_failed: exit 1\n", "2029-12-31T00:00:00Z (24h)", "shop-install-1", "90s", "again"]
    {
        assert!(result.out.contains(part), "{part} in {}", result.out);
    }
    assert!(!result.out.contains("rollout"), "{}", result.out);
}

#[tokio::test(start_paused = true)]
async fn services_show_the_canary() {
    let services = samples::services(json!({
        "services": {
            "blue": { "image": "r@sha256:a", "desired": 2, "ready": 2, "updated": 2, "available": 2, "sites": 5, "verdict": "healthy" },
            "green": { "image": "r@sha256:b", "desired": 2, "ready": 1, "updated": 2, "available": 1, "sites": 0, "verdict": "unknown" }
        }
    }));
    let result =
        run(FakeServer::default().responds("GET /services", 200, services), &["services", "show"]).await;
    assert_eq!(
        result.out,
        "SERVICE   CANARY   READY   UPDATED   AVAILABLE   SITES   VERDICT   OPERATION   IMAGE\n\
         blue      -        2/2     2         2           5       healthy   -           r@sha256:a\n\
         green     active   1/2     2         1           0       unknown   -           r@sha256:b\n"
    );
}

/// A newer server sends values and fields that this version does not know.
#[tokio::test(start_paused = true)]
async fn unknown_values_and_fields_are_printed() {
    let operation = || {
        let steps = json!([samples::step("Install", "delayed")]);
        samples::operation(json!({
            "kind": "archive", "status": "suspended", "service": "red", "steps": steps, "priority": "high",
            "reason": samples::reason("moon_phase", "not tonight")
        }))
    };
    let fake = || FakeServer::default().responds("GET /operations/op-1", 200, operation());
    let table = run(fake(), &["op", "get", "op-1"]).await;
    for part in ["suspended", "archive", "red", "delayed", "moon_phase: not tonight", "priority:", "high"] {
        assert!(table.out.contains(part), "{part} in {}", table.out);
    }
    let json = run(fake(), &["op", "get", "op-1", "-o", "json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&json.out).unwrap(), operation());
    let fake = FakeServer::default().responds(
        "GET /operations",
        200,
        json!({ "items": [operation()], "next": null }),
    );
    let list = run(fake, &["op", "list"]).await;
    assert!(list.out.contains("suspended") && list.out.contains("moon_phase"), "{}", list.out);
}

#[tokio::test(start_paused = true)]
async fn an_object_of_another_form_is_an_error() {
    let fake = FakeServer::default().responds("GET /sites/shop", 200, json!({ "name": "not a site" }));
    let result = run(fake, &["site", "get", "shop"]).await;
    assert_eq!(result.exit.code(), 1);
    assert!(
        result.err.starts_with("error: the server's response is invalid: missing field"),
        "{}",
        result.err
    );
}
