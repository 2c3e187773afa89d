//! Makes stored data: brings a platform into the state of a scene, and keeps it with the answers of the API.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cdm_testkit::faults::CallSite;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::resume::{self, PATHS};
use super::stage::{Stage, pack, unpack};
use super::{people, rollouts, services, sites};

/// The scenes, by name; a fleet has one unfinished rollout that moves sites, and a service one operation, so that each of
/// their states needs a platform.
///
/// Not kept: a site that was moved and whose caches could not be flushed (`parked` in a rollout), because the local
/// cluster has no job that fails for one site; a rollout that waits for a backend (`retrying`, `throttled`, `denied`),
/// which waits as `service_not_ready` does, with another code; a rollout that has more than one window in a wave, which
/// takes more than 128 sites; an operation that another worker stopped in good order (`queued` with an owner before),
/// which is stored as a queued one.
pub(crate) const SCENES: &[&str] = &[
    "sites",
    "services-idle",
    "services-parked",
    "services-queued",
    "services-running",
    "services-waiting",
    "people",
    "rollouts-ended",
    "rollout-aborting",
    "rollout-accepted",
    "rollout-baking",
    "rollout-deploying",
    "rollout-digest-changed",
    "rollout-flushing",
    "rollout-frozen",
    "rollout-gate",
    "rollout-halted",
    "rollout-held",
    "rollout-hooks",
    "rollout-inconclusive",
    "rollout-moving",
    "rollout-not-ready",
    "rollout-paused",
    "rollout-pausing",
    "rollout-pending",
    "rollout-returning",
    "rollout-returning-pausing",
];

/// Brings a new platform into the state of a scene, and returns the process that it is left with.
pub(crate) async fn play(name: &str, stage: Stage) -> (Stage, BTreeMap<String, String>) {
    let mut secrets = BTreeMap::new();
    let stage = match name {
        "sites" => {
            sites::all(&stage).await;
            stage
        }
        "people" => {
            secrets = people::all(&stage).await;
            stage
        }
        _ if name.starts_with("services-") => {
            services::play(name, &stage).await;
            stage
        }
        _ => rollouts::play(name, stage).await,
    };
    (stage, secrets)
}

/// Makes a scene in a data directory.
pub(crate) async fn embedded(name: &'static str, to: PathBuf) {
    let to = to.join("embedded").join(name);
    let stage = Stage::open(tempfile::tempdir().expect("a directory"), "").await;
    let (stage, secrets) = play(name, stage).await;
    let answers = answers(&stage).await;
    let dir = keep(stage, &answers, &secrets, &to).await;
    pack(dir.path(), &to);
    ends(Stage::open(unpack(&to), "").await, &answers, &to).await;
}

/// Keeps the answers of the API and the secrets that were made, stops the process, and returns its directory.
pub(crate) async fn keep(
    stage: Stage,
    answers: &BTreeMap<String, Value>,
    secrets: &BTreeMap<String, String>,
    to: &Path,
) -> TempDir {
    let live = stage.process.ports().store.pending_work().await.expect("unfinished work");
    let dir = stage.close().await;
    // On one machine a worker's file without a lock means that the worker's process has ended.
    let workers = dir.path().join("data/workers");
    if workers.is_dir() {
        for owner in live.iter().filter_map(|item| item.owner.as_ref()) {
            std::fs::write(workers.join(format!("{owner}.lock")), "").expect("a worker's file");
        }
    }
    std::fs::create_dir_all(to).expect("a directory");
    write(answers, &to.join("answers.json"));
    if !secrets.is_empty() {
        write(secrets, &to.join("secrets.json"));
    }
    dir
}

/// Resumes the work of a scene, and keeps what it comes to.
pub(crate) async fn ends(stage: Stage, answers: &BTreeMap<String, Value>, to: &Path) {
    let ends = resume::resume(&stage, answers).await;
    write(&ends, &to.join("ends.json"));
    stage.close().await;
}

fn write<T: serde::Serialize>(map: &BTreeMap<String, T>, to: &Path) {
    let lines: Vec<String> =
        map.iter().map(|(key, value)| format!("{}:{}", json!(key), json!(value))).collect();
    std::fs::write(to, format!("{{\n{}\n}}\n", lines.join(",\n"))).expect("a file");
}

/// The answers of the API about everything that is stored.
pub(crate) async fn answers(stage: &Stage) -> BTreeMap<String, Value> {
    let mut answers = BTreeMap::new();
    for path in PATHS {
        answers.insert((*path).to_owned(), resume::answer(stage, path).await);
    }
    let items = |path: &str| answers[path]["items"].as_array().cloned().expect("a list");
    let mut further: Vec<String> = Vec::new();
    for rollout in items("/rollouts?limit=1000") {
        let id = rollout["id"].as_str().expect("an id");
        further.push(format!("/rollouts/{id}"));
        further.push(format!("/operations?rollout={id}&limit=1000"));
        if !matches!(rollout["status"].as_str(), Some("waiting" | "running")) {
            further.push(format!("/rollouts/{id}/events?after=0"));
        }
    }
    for (number, operation) in items("/operations?limit=1000").into_iter().enumerate() {
        let id = operation["id"].as_str().expect("an id");
        further.push(format!("/operations/{id}"));
        let steps = operation["steps"].as_array().expect("steps");
        let logged = steps.iter().filter(|step| step["job"].is_string()).take(1);
        further
            .extend(logged.map(|step| {
                format!("/operations/{id}/steps/{}/log", step["name"].as_str().expect("a name"))
            }));
        let ended = matches!(operation["status"].as_str(), Some("succeeded" | "failed" | "cancelled"));
        if ended && number < 10 {
            further.push(format!("/operations/{id}/events?after=0"));
        }
    }
    for site in items("/sites?limit=1000") {
        further.push(format!("/sites/{}", site["id"].as_str().expect("an id")));
    }
    for path in further {
        let answer = resume::answer(stage, &path).await;
        answers.insert(path, answer);
    }
    answers
}

pub(crate) fn digest(letter: char) -> String {
    letter.to_string().repeat(64)
}

/// The number of a call in a trace: the call of that name that has `number` such calls before it.
pub(crate) fn nth(trace: &[CallSite], name: &str, number: usize) -> usize {
    let calls: Vec<usize> =
        trace.iter().enumerate().filter(|(_, call)| call.name == name).map(|(at, _)| at).collect();
    *calls.get(number).unwrap_or_else(|| panic!("`{name}` is called {} times: {trace:?}", calls.len()))
}

fn site(id: &str, service: &str, name: &str) -> Value {
    json!({"id": id, "theme": "plain", "hostnames": [format!("{id}.example.org")], "name": format!("{name} {id}"),
        "canonicalHostname": format!("{id}.example.org"), "service": service})
}

/// Sends a request to create a site, which a worker makes later.
pub(crate) async fn create(stage: &Stage, id: &str, service: &str) {
    create_named(stage, id, service, "Site").await;
}

/// The same, with the first word of the site's title.
pub(crate) async fn create_named(stage: &Stage, id: &str, service: &str, name: &str) {
    // Without a worker the answer takes ten seconds; the request is stored before.
    let mut asked = std::pin::pin!(stage.ask("POST /sites/create", Some(site(id, service, name))));
    for _ in 0..500 {
        let span = std::time::Duration::from_millis(20);
        if let Ok((status, answer)) = tokio::time::timeout(span, &mut asked).await {
            assert!(status.is_success(), "{id}: {answer}");
            return;
        }
        if stage.ask(&format!("GET /sites/{id}"), None).await.0.is_success() {
            return;
        }
    }
    panic!("{id} is not accepted");
}

/// Creates and provisions sites on a service.
pub(crate) async fn live(stage: &Stage, ids: &[&str], service: &str) {
    for id in ids {
        // The health gate of a scene looks for the word `Site`.
        let name = if *id == "s3" { "Plot" } else { "Site" };
        create_named(stage, id, service, name).await;
    }
    stage.run().await;
    for id in ids {
        stage.accepted(&format!("POST /sites/{id}/provision"), None).await;
    }
    stage.run().await;
    for id in ids {
        assert_eq!(stage.get(&format!("/sites/{id}")).await["state"], "active", "{id}");
    }
}

/// Deploys an image to its end.
pub(crate) async fn deploy(stage: &Stage, service: &str, letter: char) -> String {
    let id = begin_deploy(stage, service, letter).await;
    stage.until(&format!("/operations/{id}"), rests).await;
    id
}

/// Sends a request to deploy an image.
pub(crate) async fn begin_deploy(stage: &Stage, service: &str, letter: char) -> String {
    stage.accepted("POST /services", Some(json!({"imageTag": digest(letter), "service": service}))).await
}

/// Whether an operation has ended or is parked.
pub(crate) fn rests(operation: &Value) -> bool {
    !matches!(operation["status"].as_str(), Some("queued" | "running" | "waiting"))
}

/// Makes a service the active canary.
pub(crate) async fn select(stage: &Stage, service: &str) {
    begin_select(stage, service).await;
    stage.run().await;
    assert_eq!(stage.get("/services").await["canary"]["selector"], service);
}

/// Sends a request to make a service the active canary, and returns its operation.
pub(crate) async fn begin_select(stage: &Stage, service: &str) -> String {
    let newest = async || {
        let selects = stage.get("/operations?kind=select&limit=1").await;
        selects["items"][0]["id"].as_str().map(str::to_owned)
    };
    let before = newest().await;
    // Without a worker the answer takes ten seconds; the request is stored before.
    let mut asked = std::pin::pin!(stage.ask("POST /services", Some(json!({"selector": service}))));
    for _ in 0..100 {
        let _ = tokio::time::timeout(std::time::Duration::from_millis(50), &mut asked).await;
        let now = newest().await;
        if let Some(now) = now.filter(|now| before.as_ref() != Some(now)) {
            return now;
        }
    }
    panic!("the select of {service} is not accepted");
}

/// Demands the status of an operation.
pub(crate) async fn demand(stage: &Stage, operation: &str, wanted: &str) {
    let operation = stage.get(&format!("/operations/{operation}")).await;
    assert_eq!(operation["status"], wanted, "{operation}");
}
