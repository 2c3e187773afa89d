//! What stored data has to show, and to come to.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::stage::Stage;

/// Lists of everything that is stored.
pub(crate) const PATHS: &[&str] = &[
    "/sites?limit=1000",
    "/operations?limit=1000",
    "/rollouts?limit=1000",
    "/audit?limit=1000",
    "/services/blue/history",
    "/services/green/history",
    "/freezes",
    "/webhooks",
    "/tokens",
    "/users",
];

/// How often something that is at work is looked at, and how long in all.
const LOOKS: usize = 1_200;
const PAUSE: Duration = Duration::from_millis(50);

/// Demands that the data shows what it showed when it was written, and that all work comes to its end.
pub(crate) async fn check(stage: Stage, stored: &Path) {
    let text = std::fs::read_to_string(stored.join("answers.json")).expect("answers");
    let answers: BTreeMap<String, Value> = serde_json::from_str(&text).expect("answers");
    let mut differences = Vec::new();
    for (path, before) in &answers {
        kept(path, before, &stage.get(path).await, &mut differences);
    }
    assert!(differences.is_empty(), "{}:\n{}", stored.display(), differences.join("\n"));

    stage.process.work();
    let items = answers["/operations?limit=1000"]["items"].as_array().expect("a list");
    for operation in items {
        let (id, was) = (word(operation, "id"), word(operation, "status"));
        let mut now = rested(&stage, &format!("/operations/{id}")).await;
        if now == "parked" {
            stage.accepted(&format!("POST /operations/{id}/retry"), None).await;
            now = rested(&stage, &format!("/operations/{id}")).await;
        }
        let wanted = match was {
            "failed" | "cancelled" => was,
            _ => "succeeded",
        };
        assert_eq!(
            now,
            wanted,
            "{}: {id} was {was}: {}",
            stored.display(),
            stage.get(&format!("/operations/{id}")).await
        );
    }
    let rollouts = answers["/rollouts?limit=1000"]["items"].as_array().expect("a list");
    for rollout in rollouts {
        let (id, was) = (word(rollout, "id"), word(rollout, "status"));
        let wanted = if was == "aborted" { was } else { "succeeded" };
        assert_eq!(rested(&stage, &format!("/rollouts/{id}")).await, wanted, "{}: {id}", stored.display());
    }
    let sites = stage.get("/sites?limit=1000").await;
    for site in sites["items"].as_array().expect("a list") {
        let (id, state) = (word(site, "id"), word(site, "state"));
        assert!(matches!(state, "active" | "created"), "{}: {id} is {state}", stored.display());
        assert!(!id.ends_with("-terminate") || id.starts_with("cancelled-"), "{id} is still there");
    }
    stage.close().await;
}

/// Whether everything of `before` is in `now`: an object may have got further fields, and a list no further items.
fn kept(at: &str, before: &Value, now: &Value, differences: &mut Vec<String>) {
    match (before, now) {
        (Value::Object(before), Value::Object(now)) => {
            for (name, value) in before {
                // Why a site was skipped was not told then; it is told from the outcome that was kept.
                if name == "reason" && value.is_null() && before.get("status") == Some(&"cancelled".into()) {
                    continue;
                }
                let at = format!("{at} {name}");
                match now.get(name) {
                    Some(now) => kept(&at, value, now, differences),
                    None => differences.push(format!("{at} is gone")),
                }
            }
        }
        (Value::Array(before), Value::Array(now)) if before.len() == now.len() => {
            for (index, (before, now)) in before.iter().zip(now).enumerate() {
                kept(&format!("{at}[{index}]"), before, now, differences);
            }
        }
        _ if before == now => {}
        _ => differences.push(format!("{at} was {before}, is {now}")),
    }
}

fn word<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("`{name}` of {value}"))
}

/// The status of an operation or a rollout, once nothing happens to it any more.
async fn rested(stage: &Stage, path: &str) -> String {
    let clock = &stage.process.ports().clock;
    for _ in 0..LOOKS {
        let answer = stage.get(path).await;
        let status = word(&answer, "status");
        if !matches!(status, "queued" | "running" | "waiting") {
            return status.to_owned();
        }
        clock.sleep_until(clock.monotonic().after(PAUSE)).await;
    }
    panic!("{path} does not come to rest: {}", stage.get(path).await);
}
