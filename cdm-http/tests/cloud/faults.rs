//! One spoiled request in a site's life, at every part in turn: the life goes its way all the same, and in the end
//! nothing is there twice and nothing is left.
//!
//! `CDM_CAMPAIGNS=full` plays 320 plans, otherwise 21; `CDM_SEED` draws others.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cdm_testkit::ids::Rng;
use cdm_testkit::proxy::Trouble;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::place::{NAMESPACE, Outside, Place};
use super::server::{ADMIN, Server, new_site};

/// How many platforms side by side, and how many plans are played on each.
const SAMPLE: (usize, usize) = (3, 7);
const FULL: (usize, usize) = (4, 80);

/// What can happen to a request of a part.
fn troubles(part: &str) -> Vec<Trouble> {
    let mut troubles =
        vec![Trouble::Refused, Trouble::LostAnswer, Trouble::Delay(Duration::from_millis(700))];
    if part != "mysql" {
        let failed = |status| Trouble::Answer(status, String::new());
        troubles.extend([failed(500), failed(503), failed(504), Trouble::Throttled]);
    }
    troubles
}

/// How often a client asks at most when it is told that a backend is out of reach.
const PATIENCE: usize = 50;

#[derive(Debug, Default)]
struct Tally {
    /// How often each trouble came to pass, by part.
    fired: BTreeMap<String, usize>,
    /// Plans whose request never came.
    idle: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "a campaign reads its size from the environment")]
async fn a_spoiled_request_spoils_no_life() {
    let full = std::env::var("CDM_CAMPAIGNS").is_ok_and(|value| value == "full");
    let (lanes, plans) = if full { FULL } else { SAMPLE };
    let seed = std::env::var("CDM_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(2026);
    let mut playing = JoinSet::new();
    for lane in 0..lanes {
        let Some(place) = Place::open().await else { return };
        playing.spawn(play(place, lane, plans, Rng::new(seed + lane as u64)));
    }
    let mut all = Tally::default();
    for tally in playing.join_all().await {
        all.idle += tally.idle;
        for (name, count) in tally.fired {
            *all.fired.entry(name).or_default() += count;
        }
    }
    tell(seed, &all);
}

/// Plays lives on a platform until so many plans came to pass.
async fn play(place: Place, lane: usize, plans: usize, mut chance: Rng) -> Tally {
    let server = tokio::task::block_in_place(|| place.serve());
    let (status, selected) = server.ask(Method::POST, "/services", Some(&json!({"selector": "green"}))).await;
    assert_eq!(status, 200, "{selected}");
    let before: BTreeMap<_, _> = place.proxies.iter().map(|(part, proxy)| (*part, proxy.asked())).collect();
    let mut uids = vec![live(&place, &server, &format!("l{lane}-calm"), Interlude::Nothing).await];
    let asked: BTreeMap<_, _> =
        place.proxies.iter().map(|(part, proxy)| (*part, proxy.asked() - before[part])).collect();
    let parts: Vec<&'static str> = place.proxies.keys().copied().collect();
    let (mut tally, mut number) = (Tally::default(), 0);
    uids.push(live(&place, &server, &format!("l{lane}-forgetful"), Interlude::Forgets).await);
    tally.fired.insert("kubernetes 410".to_owned(), 1);
    while tally.fired.values().sum::<usize>() < plans {
        let part = parts[number % parts.len()];
        let known = troubles(part);
        let trouble = known[chance.below(known.len() as u64) as usize].clone();
        number += 1;
        assert!(number < 4 * plans, "too many plans do not come to pass: {tally:?}");
        place.proxies[part].plan(chance.below(asked[part]), trouble.clone());
        uids.push(live(&place, &server, &format!("l{lane}-s{number}"), Interlude::Nothing).await);
        if place.proxies[part].fired() {
            *tally.fired.entry(format!("{part} {}", word(&trouble))).or_default() += 1;
        } else {
            tally.idle += 1;
        }
    }
    let there = tokio::task::block_in_place(|| place.outside());
    nothing_is_left(&there, &uids);
    tally
}

fn word(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Refused => "refused".to_owned(),
        Trouble::LostAnswer => "answer lost".to_owned(),
        Trouble::Delay(_) => "delayed".to_owned(),
        Trouble::Throttled => "throttled".to_owned(),
        Trouble::Answer(status, _) => status.to_string(),
    }
}

/// A client that asks again when a backend was out of reach: the same request, by its key.
#[derive(Debug)]
struct Patient<'a> {
    server: &'a Server,
    id: String,
    asked: AtomicUsize,
}

impl Patient<'_> {
    /// The first answer that is one.
    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, String) {
        let key = format!("{}-{}", self.id, self.asked.fetch_add(1, Ordering::Relaxed));
        for _ in 0..PATIENCE {
            let request = self.server.client.request(method.clone(), format!("{}{path}", self.server.url));
            let request = request.bearer_auth(ADMIN).header("idempotency-key", &key);
            let answer = body.into_iter().fold(request, |request, body| request.json(body)).send().await;
            let answer = answer.expect("an answer");
            if answer.status() != StatusCode::SERVICE_UNAVAILABLE {
                return (answer.status(), answer.text().await.expect("a text"));
            }
        }
        panic!("{path}: still out of reach after {PATIENCE} requests");
    }

    async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
        let (status, text) = self.ask(method, path, body).await;
        (status, serde_json::from_str(&text).expect("JSON"))
    }

    /// Asks for work, and sees it succeed.
    async fn done(&self, method: Method, path: &str) {
        let (status, operation) = self.json(method, path, None).await;
        assert_eq!(status, 202, "{path}: {operation}");
        self.rest(&operation).await;
    }

    async fn rest(&self, operation: &Value) {
        let path = format!("/operations/{}", operation["id"].as_str().expect("an id"));
        // The stream ends when the operation rests, or when the store was out of reach for a moment.
        for _ in 0..PATIENCE {
            self.ask(Method::GET, &format!("{path}/events"), None).await;
            let (_, now) = self.json(Method::GET, &path, None).await;
            match now["status"].as_str() {
                Some("succeeded") => return,
                Some("queued" | "running" | "waiting") => {}
                _ => panic!("{now}"),
            }
        }
        panic!("{path} does not come to rest");
    }
}

/// What happens while a job is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interlude {
    Nothing,
    /// Kubernetes forgets its past: every watch is told that it is too old (410), and so is whoever goes on from there.
    Forgets,
}

/// A site's whole life; answers its uid.
async fn live(place: &Place, server: &Server, id: &str, interlude: Interlude) -> String {
    let patient = Patient { server, id: id.to_owned(), asked: AtomicUsize::new(0) };
    let mut site = new_site(id);
    site["service"] = "blue".into();
    let (status, made) = patient.json(Method::POST, "/sites/create?wait=60s", Some(&site)).await;
    assert!(matches!(status.as_u16(), 201 | 202), "{id}: {status} {made}");
    if status == 202 {
        patient.rest(&made).await;
    }
    let path = format!("/sites/{id}/provision");
    let (status, operation) = patient.json(Method::POST, &path, None).await;
    assert_eq!(status, 202, "{path}: {operation}");
    if interlude == Interlude::Forgets {
        place.kubernetes.compact();
        place.kubernetes.expire_watches();
    }
    patient.rest(&operation).await;
    patient.done(Method::PUT, &format!("/sites/{id}/promote")).await;
    let (_, site) = patient.json(Method::GET, &format!("/sites/{id}"), None).await;
    let uid = site["uid"].as_str().expect("a uid").to_owned();
    assert_eq!((&site["state"], &site["routedService"]), (&"active".into(), &"green".into()), "{site}");
    let of_uid = |object: &&Value| object.to_string().contains(&uid);
    let ingresses = place.kubernetes.objects("ingresses", NAMESPACE);
    assert_eq!(ingresses.iter().filter(of_uid).count(), 1, "{id}");
    let jobs = place.kubernetes.objects("jobs", NAMESPACE);
    let is_install = |job: &&Value| {
        job["metadata"]["name"].as_str().is_some_and(|name| name.starts_with(&format!("{id}-install-")))
    };
    assert_eq!(jobs.iter().filter(is_install).count(), 1, "{id}");
    patient.done(Method::DELETE, &format!("/sites/{id}")).await;
    uid
}

fn nothing_is_left(there: &Outside, uids: &[String]) {
    for uid in uids {
        let of_uid = |text: String| text.contains(uid);
        assert!(!of_uid(format!("{:?} {:?}", there.databases, there.users)), "{uid} has a database");
        let objects = format!("{:?} {:?} {:?}", there.ingresses, there.secrets, there.jobs);
        assert!(!of_uid(objects), "{uid} has something in the cluster");
        let of_aws = format!("{} {}", there.aws["objects"], there.aws["secrets"]);
        assert!(!of_uid(of_aws), "{uid} has objects or secrets");
    }
    assert_eq!(
        there.aws["deleting"].as_array().map(Vec::len),
        Some(2 * uids.len()),
        "in the recovery window"
    );
}

#[expect(clippy::print_stdout, reason = "a campaign's line is its result")]
fn tell(seed: u64, tally: &Tally) {
    let runs: usize = tally.fired.values().sum();
    println!(
        "campaign cloud-faults: {runs} runs, 0 failed, seed {seed}, {} plans whose request never came; {:?}",
        tally.idle, tally.fired
    );
}
