//! Makes stored data: a platform on which every kind of operation was left in every status, and a rollout in its middle.

use std::collections::BTreeMap;
use std::path::Path;

use cdm_core::adapters::embedded::{ImageSpec, Readiness};
use cdm_core::domain::Digest;
use cdm_testkit::faults::{CallSite, Fault};
use serde_json::{Value, json};

use super::resume::PATHS;
use super::stage::{Stage, copy};

/// Kinds of a site's operations, each with the call that goes wrong.
const KINDS: [(&str, &str); 5] = [
    ("create", "secrets.create"),
    ("provision", "databases.ensure"),
    ("upgrade", "cluster.run_job"),
    ("promote", "cluster.move_route"),
    ("terminate", "databases.remove"),
];

/// The statuses that a fault leaves an operation in.
const FAULTS: [(&str, Fault); 3] =
    [("running", Fault::CrashBefore), ("waiting", Fault::Transient), ("parked", Fault::Permanent)];

/// A data directory.
pub(crate) async fn embedded(to: &Path) {
    let stage = Stage::open(tempfile::tempdir().expect("a directory"), "").await;
    let answers = story(&stage).await;
    keep(stage, &answers, to).await;
}

/// Keeps a directory and the API's answers about it.
pub(crate) async fn keep(stage: Stage, answers: &BTreeMap<String, Value>, to: &Path) {
    let live = stage.process.ports().store.pending_work().await.expect("what is at work");
    let dir = stage.close().await;
    // On one machine the file of a worker that nobody has locked says that its process has ended.
    let workers = dir.path().join("data/workers");
    if workers.is_dir() {
        for owner in live.iter().filter_map(|item| item.owner.as_ref()) {
            std::fs::write(workers.join(format!("{owner}.lock")), "").expect("a worker's file");
        }
    }
    copy(&dir.path().join("data"), &to.join("data"));
    let lines: Vec<String> =
        answers.iter().map(|(path, answer)| format!("{}:{answer}", json!(path))).collect();
    std::fs::write(to.join("answers.json"), format!("{{\n{}\n}}\n", lines.join(",\n"))).expect("answers");
}

/// Brings a new platform there, and answers what its API then shows.
pub(crate) async fn story(stage: &Stage) -> BTreeMap<String, Value> {
    // Green gets an image, becomes the canary, and takes some sites over.
    for site in ["first", "second", "third", "fourth"] {
        live(stage, site, "blue").await;
    }
    deploy(stage, "green", 'a').await;
    select(stage, "green").await;
    rollout(stage).await;
    stage.run().await;
    // One that is aborted while it is paused.
    for site in ["fifth", "sixth"] {
        live(stage, site, "blue").await;
    }
    let aborted = rollout(stage).await;
    for verb in ["pause", "abort"] {
        let (status, answer) = stage.ask(&format!("POST /rollouts/{aborted}/{verb}"), None).await;
        assert!(status.is_success(), "{verb}: {answer}");
    }
    stage.run().await;
    // A deploy that fails, and is undone.
    let broken = ImageSpec { readiness: Readiness::Never, ..ImageSpec::default() };
    let cluster = stage.process.local_cluster().expect("the local cluster");
    cluster.declare(Digest::parse(&digest('f')).expect("a digest"), broken).await.expect("an image");
    deploy(stage, "green", 'f').await;
    for (kind, call) in KINDS {
        statuses(stage, kind, call).await;
    }
    // A rollout whose worker dies before its third site moves, after one of the same size that came through.
    for site in ["m1", "m2", "m3", "m4", "m5", "m6"] {
        live(stage, site, "blue").await;
    }
    let whole = rollout(stage).await;
    let trace = stage.trace().await;
    assert_eq!(stage.get(&format!("/rollouts/{whole}")).await["status"], "succeeded");
    for site in ["n1", "n2", "n3", "n4", "n5", "n6"] {
        live(stage, site, "blue").await;
    }
    let middle = rollout(stage).await;
    stage.fail(nth(&trace, "cluster.move_route", 2), Fault::CrashBefore).await;
    assert_eq!(stage.get(&format!("/rollouts/{middle}")).await["status"], "running");
    // A deploy that is parked, people, a receiver, a freeze, and what nobody has begun yet.
    parked_deploy(stage).await;
    surroundings(stage).await;
    for (kind, _) in KINDS {
        begin(stage, kind, &format!("queued-{kind}"), Ready::Made).await;
    }
    answers(stage).await
}

/// What the API shows of all that is stored.
async fn answers(stage: &Stage) -> BTreeMap<String, Value> {
    let mut answers = BTreeMap::new();
    for path in PATHS {
        answers.insert((*path).to_owned(), stage.get(path).await);
    }
    let ids = |path: &str| -> Vec<String> {
        let items = answers[path]["items"].as_array().expect("a list");
        items.iter().map(|item| item["id"].as_str().expect("an id").to_owned()).collect()
    };
    let mut further: Vec<String> = Vec::new();
    for id in ids("/rollouts?limit=1000") {
        further.push(format!("/rollouts/{id}"));
        further.push(format!("/operations?rollout={id}&limit=1000"));
    }
    further.extend(ids("/operations?limit=1000").iter().map(|id| format!("/operations/{id}")));
    for path in further {
        let answer = stage.get(&path).await;
        answers.insert(path, answer);
    }
    answers
}

fn digest(letter: char) -> String {
    letter.to_string().repeat(64)
}

/// Where the call of that name stands in a trace; the first is number 0.
fn nth(trace: &[CallSite], name: &str, number: usize) -> usize {
    let calls: Vec<usize> =
        trace.iter().enumerate().filter(|(_, call)| call.name == name).map(|(at, _)| at).collect();
    *calls.get(number).unwrap_or_else(|| panic!("`{name}` is called {} times: {trace:?}", calls.len()))
}

fn site(id: &str, service: &str) -> Value {
    json!({"id": id, "theme": "plain", "hostnames": [format!("{id}.example.org")], "name": format!("Site {id}"),
        "canonicalHostname": format!("{id}.example.org"), "service": service})
}

/// Asks for a site; it is made once a worker looks.
async fn create(stage: &Stage, id: &str, service: &str) {
    // The answer comes after ten seconds where nobody works; the request is stored before.
    let mut asked = std::pin::pin!(stage.ask("POST /sites/create", Some(site(id, service))));
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

async fn live(stage: &Stage, id: &str, service: &str) {
    create(stage, id, service).await;
    stage.run().await;
    stage.accepted(&format!("POST /sites/{id}/provision"), None).await;
    stage.run().await;
    assert_eq!(stage.get(&format!("/sites/{id}")).await["state"], "active", "{id}");
}

async fn deploy(stage: &Stage, service: &str, letter: char) {
    let body = json!({"imageTag": digest(letter), "service": service});
    stage.accepted("POST /services", Some(body)).await;
    stage.run().await;
}

async fn select(stage: &Stage, service: &str) {
    let mut asked = std::pin::pin!(stage.ask("POST /services", Some(json!({"selector": service}))));
    for _ in 0..100 {
        let span = std::time::Duration::from_millis(50);
        if let Ok((status, answer)) = tokio::time::timeout(span, &mut asked).await {
            assert!(status.is_success(), "{answer}");
            return;
        }
        stage.run().await;
    }
    panic!("nobody selects {service}");
}

async fn rollout(stage: &Stage) -> String {
    let body =
        json!({"promote": true, "scope": "inactive", "waves": ["1", "50%", "100%"], "maxConcurrent": 2});
    stage.accepted("PUT /services", Some(body)).await
}

/// How far a site is before an operation of it begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ready {
    /// The site is made first.
    No,
    /// It is there, where the kind wants one.
    Made,
}

/// What has to be there before an operation of that kind.
async fn prepare(stage: &Stage, kind: &str, id: &str) {
    match kind {
        "create" => {}
        "provision" => {
            create(stage, id, "blue").await;
            stage.run().await;
        }
        _ => live(stage, id, "blue").await,
    }
}

/// Asks for an operation, and answers its id.
async fn begin(stage: &Stage, kind: &str, id: &str, ready: Ready) -> String {
    let kind_site = match ready {
        Ready::No => {
            prepare(stage, kind, id).await;
            id.to_owned()
        }
        // No worker may run any more: sites that were made for it are taken.
        Ready::Made if kind == "create" => id.to_owned(),
        Ready::Made => format!("spare-{kind}"),
    };
    match kind {
        "create" => {
            create(stage, &kind_site, "blue").await;
            let operation = stage.get(&format!("/sites/{kind_site}")).await;
            operation["operation"].as_str().expect("an operation").to_owned()
        }
        "provision" => stage.accepted(&format!("POST /sites/{kind_site}/provision"), None).await,
        "terminate" => stage.accepted(&format!("DELETE /sites/{kind_site}"), None).await,
        _ => stage.accepted(&format!("PUT /sites/{kind_site}/{kind}"), None).await,
    }
}

/// Leaves an operation of the kind in every status but `queued`, which is asked for at last.
async fn statuses(stage: &Stage, kind: &str, call: &str) {
    if kind != "create" {
        prepare(stage, kind, &format!("spare-{kind}")).await;
    }
    let done = begin(stage, kind, &format!("done-{kind}"), Ready::No).await;
    let trace = stage.trace().await;
    assert_eq!(status(stage, &done).await, "succeeded", "{kind}");
    // Cancelled before it was begun.
    let cancelled = begin(stage, kind, &format!("cancelled-{kind}"), Ready::No).await;
    stage.accepted(&format!("POST /operations/{cancelled}/cancel"), None).await;
    stage.run().await;
    assert_eq!(status(stage, &cancelled).await, "cancelled", "{kind}");
    for (word, fault) in FAULTS {
        let id = begin(stage, kind, &format!("{word}-{kind}"), Ready::No).await;
        stage.fail(nth(&trace, call, 0), fault).await;
        assert_eq!(status(stage, &id).await, word, "{kind}");
    }
}

async fn status(stage: &Stage, operation: &str) -> String {
    stage.get(&format!("/operations/{operation}")).await["status"].as_str().expect("a status").to_owned()
}

/// A deploy to blue that the cluster refuses, after one that it takes.
async fn parked_deploy(stage: &Stage) {
    let body = |letter| Some(json!({"imageTag": digest(letter), "service": "blue"}));
    stage.accepted("POST /services", body('b')).await;
    let trace = stage.trace().await;
    let id = stage.accepted("POST /services", body('c')).await;
    stage.fail(nth(&trace, "cluster.set_image", 0), Fault::Permanent).await;
    assert_eq!(status(stage, &id).await, "parked");
}

/// People, a token, a receiver, a freeze, and a verdict.
async fn surroundings(stage: &Stage) {
    let requests = [
        ("POST /users", json!({"name": "ada", "role": "admin", "password": "lantern-orbit-quilt"})),
        ("POST /users", json!({"name": "vic", "role": "viewer", "password": "harbor-velvet-onyx"})),
        ("POST /tokens", json!({"name": "pipeline", "role": "operator"})),
        ("POST /webhooks", json!({"url": "https://hooks.example.com/cdm"})),
        ("POST /freezes", json!({"reason": "an audit", "sites": ["first"]})),
        (
            &format!("POST /services/history/{}", digest('a')),
            json!({"verdict": "healthy", "reason": "looked at"}),
        ),
    ];
    for (line, body) in requests {
        let (status, answer) = stage.ask(line, Some(body)).await;
        assert!(status.is_success(), "{line}: {status} {answer}");
    }
}
