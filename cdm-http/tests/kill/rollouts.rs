//! `kill -9` in the middle of a rollout, at random instants: no site is skipped, at most those that were in flight are
//! moved again, the counts agree whenever someone looks, and no wave begins before the one before has ended.
//!
//! `CDM_CAMPAIGNS=full` moves 10,000 sites, once at half and 20 times at random; otherwise a sample. Every second rollout
//! that is killed has a gate; before it is killed it is paused, another image is deployed to its service, and it goes on
//! with that: each site has the digest that it was moved on.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use cdm_testkit::ids::Rng;
use futures_util::StreamExt;
use futures_util::stream;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::now;
use super::server::{Server, Serves, begin, directory, new_site};

/// How much there is to be done.
#[derive(Clone, Copy, Debug)]
struct Plan {
    sites: usize,
    kills: usize,
}

const SAMPLE: Plan = Plan { sites: 160, kills: 2 };
const FULL: Plan = Plan { sites: 10_000, kills: 20 };
/// Sites of a rollout in flight.
const CONCURRENT: u64 = 32;
/// How long a rollout may take.
const LONG: Duration = Duration::from_secs(600);

/// How a rollout is killed.
#[derive(Clone, Copy, Debug)]
struct Kill {
    /// When so much of it is done.
    at: f64,
    /// Whether it asks each site, and comes to move sites on another image.
    gated: bool,
}

/// What a rollout was, seen from outside.
#[derive(Debug)]
struct Seen {
    took: Duration,
    /// Routes that were written more than once.
    repeated: u64,
    looks: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "a campaign reads its size from the environment")]
async fn a_rollout_that_is_killed_in_the_middle_skips_nobody_and_repeats_what_was_in_flight() {
    let plan = if std::env::var("CDM_CAMPAIGNS").is_ok_and(|value| value == "full") { FULL } else { SAMPLE };
    let seed = std::env::var("CDM_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(2026);
    let dir = directory();
    let server = start(dir.path());
    fleet(&server, plan.sites).await;
    let mut chance = Rng::new(seed);
    let whole = moved(server, dir.path(), plan, "green", None).await;
    let mut killed = Vec::new();
    for kill in 0..=plan.kills {
        // The first comes at half.
        let at = if kill == 0 { 0.5 } else { chance.below(950) as f64 / 1_000.0 };
        let server = start(dir.path());
        let target = if kill % 2 == 0 { "blue" } else { "green" };
        let gated = kill % 2 == 1;
        // Before the last wave is under way, so that there are sites for the other image.
        let at = if gated { at / 10.0 } else { at };
        killed.push(moved(server, dir.path(), plan, target, Some(Kill { at, gated })).await);
    }
    let server = start(dir.path());
    let target = if plan.kills % 2 == 0 { "green" } else { "blue" };
    let (latency, late) = aborted(&server, plan, target).await;
    tell(seed, plan, &whole, &killed, (latency, late));
}

/// Asks for everyone to be moved to `target`, and aborts when a third is: how long it takes until the rollout has ended,
/// and how many sites came over meanwhile.
async fn aborted(server: &Server, plan: Plan, target: &str) -> (Duration, u64) {
    let select = json!({"selector": target});
    assert_eq!(server.ask(Method::POST, "/services", Some(&select)).await.0, StatusCode::OK);
    let body = json!({"promote": true, "scope": "inactive", "maxConcurrent": CONCURRENT});
    let (_, rollout) = server.ask(Method::PUT, "/services", Some(&body)).await;
    let path = format!("/rollouts/{}", rollout["id"].as_str().expect("an id"));
    let done = |rollout: &Value| rollout["succeeded"].as_u64().expect("a count");
    let before = loop {
        let now = server.get(&path).await;
        if done(&now) * 3 >= plan.sites as u64 {
            break done(&now);
        }
    };
    let asked = now();
    let (status, told) = server.ask(Method::POST, &format!("{path}/abort"), None).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{told}");
    loop {
        let now = server.get(&path).await;
        agrees(&now);
        if now["status"] == "aborted" {
            let late = done(&now) - before;
            // What was granted before may come over, and nothing after it.
            assert!(late <= 2 * 128, "{late} came over after the abort");
            return (asked.elapsed(), late);
        }
        assert!(asked.elapsed() < LONG, "{now}");
    }
}

/// Pods and jobs that take milliseconds, and no limit of requests for who looks all the time.
const SETTINGS: &str = "[local]\npod_start_ms = 20\nprogress_deadline_ms = 1500\njob_ms = 5\n[limits]\nrate = 1000000\nburst = 1000000\n";

fn start(dir: &Path) -> Server {
    tokio::task::block_in_place(|| Server::listen(begin(dir, SETTINGS), Serves::ApiAndSites))
}

/// Creates and provisions so many sites on blue.
async fn fleet(server: &Server, sites: usize) {
    let all = stream::iter(0..sites).map(|n| async move {
        let id = format!("s{n:05}");
        let (status, told) = server.ask(Method::POST, "/sites/create?wait=60s", Some(&new_site(&id))).await;
        assert_eq!(status, StatusCode::CREATED, "{told}");
        let path = format!("/sites/{id}/provision?wait=60s");
        let (_, told) = server.ask(Method::POST, &path, None).await;
        assert_eq!(told["status"], "succeeded", "{told}");
    });
    all.buffer_unordered(24).collect::<Vec<()>>().await;
}

/// The site's page; a server that has just started has no pods for a moment.
async fn once_it_is_served(server: &Server, host: &str) -> reqwest::Response {
    let begun = now();
    loop {
        let page = server.page(host).await;
        if page.status() != StatusCode::SERVICE_UNAVAILABLE {
            return page;
        }
        assert!(begun.elapsed() < LONG, "{host} is not served");
        tokio::task::yield_now().await;
    }
}

/// The number of the last write of each site's route, by the router's own count.
async fn generations(server: &Server, sites: usize, service: &str) -> Vec<u64> {
    let all = stream::iter(0..sites).map(|n| async move {
        let page = once_it_is_served(server, &format!("s{n:05}.example.com")).await;
        let header = |name: &str| page.headers()[name].to_str().expect("a text").to_owned();
        assert_eq!((page.status(), header("x-cdm-service").as_str()), (StatusCode::OK, service), "s{n:05}");
        header("x-cdm-route").parse::<u64>().expect("a number")
    });
    all.buffered(24).collect().await
}

/// Moves everyone to `target`; the server may be killed on the way. Ends the server.
async fn moved(mut server: Server, dir: &Path, plan: Plan, target: &str, kill: Option<Kill>) -> Seen {
    let at = kill.map(|kill| kill.at);
    let from = if target == "green" { "blue" } else { "green" };
    let before = generations(&server, plan.sites, from).await;
    let select = json!({"selector": target});
    assert_eq!(server.ask(Method::POST, "/services", Some(&select)).await.0, StatusCode::OK);
    let mut body = json!({"promote": true, "scope": "inactive", "waves": ["1%", "10%", "100%"],
        "maxConcurrent": CONCURRENT});
    if kill.is_some_and(|kill| kill.gated) {
        body["gate"] = json!({"path": "/"});
    }
    let begun = now();
    let (status, rollout) = server.ask(Method::PUT, "/services", Some(&body)).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{rollout}");
    let path = format!("/rollouts/{}", rollout["id"].as_str().expect("an id"));
    let (mut looks, mut dead) = (0, at.is_none());
    let mut images = vec![rollout["digest"].clone()];
    let ended = loop {
        let now = server.get(&path).await;
        agrees(&now);
        looks += 1;
        if !dead || at.is_none() {
            // A visitor of whichever site: a live site never loses its route.
            let page = server.page(&format!("s{:05}.example.com", looks % plan.sites)).await;
            assert_eq!(page.status(), StatusCode::OK, "{now}");
        }
        let done = now["succeeded"].as_u64().unwrap_or(0) as f64;
        if !dead && done >= at.unwrap_or(1.0) * plan.sites as f64 {
            if kill.is_some_and(|kill| kill.gated) {
                images.push(another_image(&server, &path, target).await);
            }
            server.kill();
            dead = true;
            server = start(dir);
            continue;
        }
        let status = now["status"].as_str().unwrap_or_default();
        if !["waiting", "running"].contains(&status) {
            break now;
        }
        assert!(begun.elapsed() < LONG, "{now}");
        tokio::task::yield_now().await;
    };
    let took = begun.elapsed();
    assert_eq!((&ended["status"], &ended["succeeded"]), (&"succeeded".into(), &plan.sites.into()), "{ended}");
    let after = generations(&server, plan.sites, target).await;
    assert!(before.iter().zip(&after).all(|(before, after)| before < after), "a route was not written");
    moved_on(&server, &ended, &images).await;
    // The router counts all writes of routes in one row.
    let newest = |all: &[u64]| all.iter().copied().max().unwrap_or_default();
    let repeated = newest(&after) - newest(&before) - plan.sites as u64;
    // A gate that a pause cuts short puts its site's route back.
    let gated = kill.is_some_and(|kill| kill.gated);
    let most = if gated { 4 * CONCURRENT } else { CONCURRENT };
    assert!(repeated <= if at.is_some() { most } else { 0 }, "{repeated} repeated");
    let sites = server.get("/sites?limit=1000").await;
    for site in sites["items"].as_array().expect("sites") {
        assert_eq!((&site["service"], &site["operation"]), (&target.into(), &Value::Null), "{site}");
    }
    server.kill();
    Seen { took, repeated, looks }
}

/// The rollout is paused, another image gets onto its service, and it goes on with that one.
async fn another_image(server: &Server, path: &str, target: &str) -> Value {
    let running = server.get(path).await["digest"].to_string();
    let image = if running.contains("eee") { "f" } else { "e" }.repeat(64);
    let (status, told) = server.ask(Method::POST, &format!("{path}/pause"), None).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{told}");
    let begun = now();
    while server.get(path).await["status"] != "paused" {
        assert!(begun.elapsed() < LONG, "it does not pause");
        tokio::task::yield_now().await;
    }
    let deploy = json!({"imageTag": image, "service": target});
    let (_, told) = server.ask(Method::POST, "/services?wait=60s", Some(&deploy)).await;
    assert_eq!(told["status"], "succeeded", "{told}");
    let resume = format!("{path}/resume");
    let (status, told) = server.ask(Method::POST, &resume, None).await;
    assert_eq!((status, &told["code"]), (StatusCode::CONFLICT, &"digest_changed".into()), "{told}");
    let accept = json!({"acceptDigest": told["running"]});
    let (status, resumed) = server.ask(Method::POST, &resume, Some(&accept)).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{resumed}");
    told["running"].clone()
}

/// Each site was moved on one of these images, and on each of them some were.
async fn moved_on(server: &Server, rollout: &Value, images: &[Value]) {
    let mut path = format!("/operations?limit=1000&rollout={}", rollout["id"].as_str().expect("an id"));
    let mut seen = BTreeSet::new();
    loop {
        let page = server.get(&path).await;
        seen.extend(page["items"].as_array().expect("a list").iter().map(|it| it["digest"].to_string()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!(
            "/operations?limit=1000&rollout={}&cursor={next}",
            rollout["id"].as_str().expect("an id")
        );
    }
    let known: BTreeSet<_> = images.iter().map(ToString::to_string).collect();
    let last = images.last().map(ToString::to_string).unwrap_or_default();
    assert!(seen.is_subset(&known) && seen.contains(&last), "{seen:?} of {images:?}");
}

/// `TotalsAgree` and `WaveBound`, as they show.
fn agrees(rollout: &Value) {
    let count = |of: &Value, key: &str| of[key].as_u64().unwrap_or_else(|| panic!("{rollout}"));
    let sum = |of: &Value| {
        ["succeeded", "failed", "running", "pending", "skipped", "parked"]
            .map(|key| count(of, key))
            .iter()
            .sum::<u64>()
    };
    let waves = rollout["waves"].as_array().expect("waves");
    assert_eq!(sum(rollout), count(rollout, "total"), "{rollout}");
    let mut open = false;
    for wave in waves {
        assert_eq!(sum(wave), count(wave, "total"), "{rollout}");
        let begun = count(wave, "total") > count(wave, "pending");
        assert!(!(open && begun), "a wave began before the one before had ended: {rollout}");
        open |= count(wave, "pending") + count(wave, "running") > 0;
    }
}

#[expect(clippy::print_stdout, reason = "a campaign's line is its result")]
fn tell(seed: u64, plan: Plan, whole: &Seen, killed: &[Seen], (abort, late): (Duration, u64)) {
    let ratio = |seen: &Seen| seen.took.as_secs_f64() / whole.took.as_secs_f64();
    let repeated: Vec<u64> = killed.iter().map(|seen| seen.repeated).collect();
    let looks: usize = killed.iter().map(|seen| seen.looks).sum::<usize>() + whole.looks;
    let mut ratios: Vec<f64> = killed.iter().skip(1).map(ratio).collect();
    ratios.sort_by(f64::total_cmp);
    println!(
        "campaign kill-9-rollouts: {} kills, 0 failed, seed {seed}, {} sites; uninterrupted {:.2?}; killed at half {:.2} \
         of that, at random median {:.2}, most {:.2}; repeated route writes {repeated:?}; {looks} looks; an abort took {abort:.0?}, and {late} sites came over meanwhile",
        killed.len(),
        plan.sites,
        whole.took,
        killed.first().map_or(0.0, ratio),
        ratios.get(ratios.len() / 2).copied().unwrap_or_default(),
        ratios.last().copied().unwrap_or_default(),
    );
}
