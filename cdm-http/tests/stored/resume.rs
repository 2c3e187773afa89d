//! Demands on stored data: what the API answers about it, and what its work comes to.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::make::digest;
use super::people;
use super::stage::Stage;

/// The lists that the API has, and a plan. A path with a body is that of a `PUT`, which changes nothing.
pub(crate) const PATHS: &[&str] = &[
    "/sites?limit=1000",
    "/operations?limit=1000",
    "/rollouts?limit=1000",
    "/audit?limit=1000",
    "/services",
    "/services/blue/history",
    "/services/green/history",
    "/freezes",
    "/webhooks",
    "/tokens",
    "/users",
    "/events?after=0",
    r#"/services {"dryRun":true,"promote":true,"scope":"all","waves":["1","100%"]}"#,
];

/// How often unfinished work is read, and the pause in between.
const LOOKS: usize = 600;
const PAUSE: Duration = Duration::from_millis(150);

/// Fields that are not stored: they follow from the pods, the clock or the code of the moment.
const NOT_STORED: [&str; 6] = ["clears", "planHash", "updated", "ready", "available", "sessions"];

/// The answer to one of [`PATHS`], or to another read.
pub(crate) async fn answer(stage: &Stage, path: &str) -> Value {
    if let Some((path, body)) = path.split_once(' ') {
        return stage.done(&format!("PUT {path}"), serde_json::from_str(body).ok()).await;
    }
    if path.ends_with("/log") {
        let (status, _) = stage.ask(&format!("GET {path}"), None).await;
        return json!(status.as_u16());
    }
    match path.split_once("events?after=0") {
        None => stage.get(path).await,
        Some(("/", _)) => {
            let last = stage.process.manager().last_event().await.expect("the store");
            if last.is_none() { json!([]) } else { stage.frames(path, last).await }
        }
        Some(_) => stage.frames(path, None).await,
    }
}

/// Demands that the data is answered as it was when it was stored, and that all work ends as it did.
pub(crate) async fn check(stage: Stage, stored: &Path) {
    let answers: BTreeMap<String, Value> = read(stored, "answers.json");
    let mut differences = Vec::new();
    for (path, before) in &answers {
        kept(path, before, &answer(&stage, path).await, &mut differences);
    }
    assert!(differences.is_empty(), "{}:\n{}", stored.display(), differences.join("\n"));
    people::check(&stage, stored).await;
    let ends = resume(&stage, &answers).await;
    let wanted: BTreeMap<String, Value> = read(stored, "ends.json");
    for (name, wanted) in &wanted {
        let end = ends.get(name).unwrap_or_else(|| panic!("{}: {name} is gone", stored.display()));
        assert!(agrees(wanted, end), "{}: {name} ended as {end}, not as {wanted}", stored.display());
    }
    assert_eq!(ends.len(), wanted.len(), "{}", stored.display());
    stage.close().await;
}

/// Whether an end is the stored one. Of a list, only the beginning may be stored: the rest depends on the order in which
/// operations happened to run.
fn agrees(wanted: &Value, end: &Value) -> bool {
    match (wanted, end) {
        (Value::Array(wanted), Value::Array(end)) => end.starts_with(wanted),
        _ => wanted == end,
    }
}

fn read<T: serde::de::DeserializeOwned>(stored: &Path, name: &str) -> T {
    let path = stored.join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs all work to its end, and returns what it came to. What waits for a person is helped once: a parked operation is
/// retried, a paused or halted rollout is resumed, on the digest that its target runs, a service that is not ready gets
/// another image, and a freeze of all sites is removed.
pub(crate) async fn resume(stage: &Stage, answers: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    stage.process.work();
    let items = |path: &str| answers[path]["items"].as_array().cloned().expect("a list");
    let mut ends = BTreeMap::new();
    for freeze in stage.get("/freezes").await["items"].as_array().expect("a list") {
        if freeze["sites"].is_null() {
            stage.done(&format!("DELETE /freezes/{}", word(freeze, "id")), None).await;
        }
    }
    for rollout in items("/rollouts?limit=1000") {
        if rollout["reason"]["code"] == "service_not_ready" {
            // A worker may be checking the service for the rollout, which excludes a deploy until the rollout is paused.
            rested(stage, &format!("/rollouts/{}", word(&rollout, "id"))).await;
            let deploy = json!({"imageTag": digest('b'), "service": rollout["service"]});
            let deploy = stage.accepted("POST /services", Some(deploy)).await;
            rested(stage, &format!("/operations/{deploy}")).await;
        }
    }
    for operation in items("/operations?limit=1000") {
        let path = format!("/operations/{}", word(&operation, "id"));
        if word(&rested(stage, &path).await, "status") == "parked" {
            stage.done(&format!("POST {path}/retry"), None).await;
        }
        let end = rested(stage, &path).await;
        ends.insert(path, end["status"].clone());
    }
    for rollout in items("/rollouts?limit=1000") {
        let path = format!("/rollouts/{}", word(&rollout, "id"));
        let mut end = rested(stage, &path).await;
        for _ in 0..3 {
            let changed = end["reason"]["code"] == "digest_changed";
            if !changed && !matches!(word(&end, "status"), "paused" | "halted") {
                break;
            }
            let (resume, mut answer) = (format!("POST {path}/resume"), Value::Null);
            if !changed {
                (_, answer) = stage.ask(&resume, Some(json!({}))).await;
            }
            // Long after it was stored, a rollout that waits is paused.
            if changed || answer["code"] == "digest_changed" {
                let service = format!("/services/{}/history", word(&end, "service"));
                let runs = stage.get(&service).await["items"][0]["digest"].clone();
                stage.done(&resume, Some(json!({"acceptDigest": runs}))).await;
            }
            end = rested(stage, &path).await;
        }
        let counts = ["status", "succeeded", "failed", "skipped", "parked"].map(|name| end[name].clone());
        ends.insert(path, counts.into_iter().collect());
    }
    for site in stage.get("/sites?limit=1000").await["items"].as_array().expect("a list") {
        let stands = ["state", "service", "routedService"].map(|name| site[name].clone());
        ends.insert(format!("/sites/{}", word(site, "id")), stands.into_iter().collect());
    }
    ends
}

/// Whether everything of `before` is in `now`: an object may have more fields; a list has the same items.
fn kept(at: &str, before: &Value, now: &Value, differences: &mut Vec<String>) {
    match (before, now) {
        (Value::Object(before), Value::Object(now)) => {
            for (name, value) in before {
                let at = format!("{at} {name}");
                match now.get(name) {
                    _ if NOT_STORED.contains(&name.as_str()) || grown(before, name, now) => {}
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

type Fields = serde_json::Map<String, Value>;

/// Whether a field is known to say more than it did.
fn grown(before: &Fields, name: &str, now: &Fields) -> bool {
    let member = before.get("id").and_then(Value::as_str).is_some_and(|id| id.contains("-rollout-"));
    match name {
        // Version 147c3c5 did not say why a site was skipped; its outcome was stored, and says it.
        "reason" if before[name].is_null() && before.get("status") == Some(&"cancelled".into()) => true,
        // Why a site of a rollout is not where the rollout wanted it follows from its outcome where nothing else is stored.
        "reason" if member => before[name]["code"] == now[name]["code"],
        // A digest ripens: its service was ready for long enough.
        "verdict" | "reason" if before.get("verdict") == Some(&"unknown".into()) => {
            now.get("verdict") == Some(&"healthy".into())
        }
        // Warnings are texts, and whether pods are ready depends on the moment.
        "warnings" => true,
        _ => false,
    }
}

fn word<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("`{name}` of {value}"))
}

/// An operation or a rollout, once nothing happens to it any more without a person.
async fn rested(stage: &Stage, path: &str) -> Value {
    let clock = &stage.process.ports().clock;
    for _ in 0..LOOKS {
        let answer = stage.get(path).await;
        let waits_for_person = answer["reason"]["code"] == "digest_changed" && answer["status"] == "waiting";
        if waits_for_person || !matches!(word(&answer, "status"), "queued" | "running" | "waiting") {
            return answer;
        }
        clock.sleep_until(clock.monotonic().after(PAUSE)).await;
    }
    panic!("{path} does not end: {}", stage.get(path).await);
}
