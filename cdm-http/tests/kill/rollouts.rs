//! `kill -9` in the middle of a rollout, at random times: no site is skipped, at most the sites in flight are moved
//! again, the counts are consistent at every read, and no wave begins before the previous one has ended.
//!
//! `CDM_CAMPAIGNS=full` moves 10,000 sites, and kills once at half and 20 times at random; otherwise a sample. Every
//! second killed rollout has a gate; before the kill it is paused, another image is deployed to its service, and it
//! continues with that image: each site has the digest with which it was moved.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use cdm_testkit::campaign;
use cdm_testkit::ids::Rng;
use futures_util::StreamExt;
use futures_util::stream;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::now;
use cdm_testkit::server::{Server, ServerMode, begin, directory, new_site};

/// The amount of work.
#[derive(Clone, Copy, Debug)]
struct Plan {
    sites: usize,
    kills: usize,
}

const SAMPLE: Plan = Plan { sites: 160, kills: 2 };
const FULL: Plan = Plan { sites: 10_000, kills: 20 };
/// Sites of a rollout in flight.
const CONCURRENT: u64 = 32;
/// Timeout of a rollout.
const ROLLOUT_TIMEOUT: Duration = Duration::from_secs(600);

/// How a rollout is killed.
#[derive(Clone, Copy, Debug)]
struct Kill {
    /// The fraction of the rollout that is done at the kill.
    at: f64,
    /// Whether the rollout has a gate, and continues with another image.
    gated: bool,
}

/// The result of a rollout, observed from outside.
#[derive(Debug)]
struct RolloutResult {
    took: Duration,
    /// Routes that were written more than once.
    repeated: u64,
    polls: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_rollout_skips_no_site_and_repeats_only_sites_in_flight() {
    let plan = if campaign::full() { FULL } else { SAMPLE };
    let seed = campaign::seed();
    let dir = directory();
    let server = start(dir.path());
    fleet(&server, plan.sites).await;
    let mut chance = Rng::new(seed);
    let uninterrupted = move_sites(server, dir.path(), plan, "green", None).await;
    let mut killed = Vec::new();
    for kill in 0..=plan.kills {
        // The first kill is at half.
        let at = if kill == 0 { 0.5 } else { chance.below(950) as f64 / 1_000.0 };
        let server = start(dir.path());
        let target = if kill % 2 == 0 { "blue" } else { "green" };
        let gated = kill % 2 == 1;
        // Before the last wave begins, so that sites remain for the other image.
        let at = if gated { at / 10.0 } else { at };
        killed.push(move_sites(server, dir.path(), plan, target, Some(Kill { at, gated })).await);
    }
    let server = start(dir.path());
    let target = if plan.kills % 2 == 0 { "green" } else { "blue" };
    let (latency, late) = abort_rollout(&server, plan, target).await;
    print_result(seed, plan, &uninterrupted, &killed, (latency, late));
}

/// Starts a rollout of all sites to `target`, and aborts it at a third; returns how long the abort took, and how many
/// sites were moved meanwhile.
async fn abort_rollout(server: &Server, plan: Plan, target: &str) -> (Duration, u64) {
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
    let aborted_at = now();
    let (status, response) = server.ask(Method::POST, &format!("{path}/abort"), None).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{response}");
    loop {
        let now = server.get(&path).await;
        assert_consistent(&now);
        if now["status"] == "aborted" {
            let late = done(&now) - before;
            // Sites that were granted before the abort may still be moved, and no others.
            assert!(late <= 2 * 128, "{late} were moved after the abort");
            return (aborted_at.elapsed(), late);
        }
        assert!(aborted_at.elapsed() < ROLLOUT_TIMEOUT, "{now}");
    }
}

/// Pods and jobs that take milliseconds, and no request limit for a client that polls continuously.
const SETTINGS: &str = "[local]\npod_start_ms = 20\nprogress_deadline_ms = 1500\njob_ms = 5\n[limits]\nrate = 1000000\nburst = 1000000\n";

fn start(dir: &Path) -> Server {
    tokio::task::block_in_place(|| Server::listen(begin(dir, SETTINGS), ServerMode::ApiAndSites))
}

/// Creates and provisions this number of sites on blue.
async fn fleet(server: &Server, sites: usize) {
    let all = stream::iter(0..sites).map(|n| async move {
        let id = format!("s{n:05}");
        let (status, response) =
            server.ask(Method::POST, "/sites/create?wait=60s", Some(&new_site(&id))).await;
        assert_eq!(status, StatusCode::CREATED, "{response}");
        let path = format!("/sites/{id}/provision?wait=60s");
        let (_, response) = server.ask(Method::POST, &path, None).await;
        assert_eq!(response["status"], "succeeded", "{response}");
    });
    all.buffer_unordered(24).collect::<Vec<()>>().await;
}

/// Returns the site's page; a server that has just started has no pods for a moment.
async fn wait_for_page(server: &Server, host: &str) -> reqwest::Response {
    let begun = now();
    loop {
        let page = server.page(host).await;
        if page.status() != StatusCode::SERVICE_UNAVAILABLE {
            return page;
        }
        assert!(begun.elapsed() < ROLLOUT_TIMEOUT, "{host} is not served");
        tokio::task::yield_now().await;
    }
}

/// Returns the number of the last write of each site's route, as counted by the router.
async fn generations(server: &Server, sites: usize, service: &str) -> Vec<u64> {
    let all = stream::iter(0..sites).map(|n| async move {
        let page = wait_for_page(server, &format!("s{n:05}.example.com")).await;
        let header = |name: &str| page.headers()[name].to_str().expect("a text").to_owned();
        assert_eq!((page.status(), header("x-cdm-service").as_str()), (StatusCode::OK, service), "s{n:05}");
        header("x-cdm-route").parse::<u64>().expect("a number")
    });
    all.buffered(24).collect().await
}

/// Moves all sites to `target`; the server may be killed during the rollout. Stops the server at the end.
async fn move_sites(
    mut server: Server,
    dir: &Path,
    plan: Plan,
    target: &str,
    kill: Option<Kill>,
) -> RolloutResult {
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
    let (mut polls, mut killed_already) = (0, at.is_none());
    let mut images = vec![rollout["digest"].clone()];
    let ended = loop {
        let now = server.get(&path).await;
        assert_consistent(&now);
        polls += 1;
        if !killed_already || at.is_none() {
            // A request to one of the sites: an active site never loses its route.
            let page = server.page(&format!("s{:05}.example.com", polls % plan.sites)).await;
            assert_eq!(page.status(), StatusCode::OK, "{now}");
        }
        let done = now["succeeded"].as_u64().unwrap_or(0) as f64;
        if !killed_already && done >= at.unwrap_or(1.0) * plan.sites as f64 {
            if kill.is_some_and(|kill| kill.gated) {
                images.push(deploy_another_image(&server, &path, target).await);
            }
            server.kill();
            killed_already = true;
            server = start(dir);
            continue;
        }
        let status = now["status"].as_str().unwrap_or_default();
        if !["waiting", "running"].contains(&status) {
            break now;
        }
        assert!(begun.elapsed() < ROLLOUT_TIMEOUT, "{now}");
        tokio::task::yield_now().await;
    };
    let took = begun.elapsed();
    assert_eq!((&ended["status"], &ended["succeeded"]), (&"succeeded".into(), &plan.sites.into()), "{ended}");
    let after = generations(&server, plan.sites, target).await;
    assert!(before.iter().zip(&after).all(|(before, after)| before < after), "a route was not written");
    assert_moved_with(&server, &ended, &images).await;
    // The router counts all writes of routes in one sequence.
    let newest = |all: &[u64]| all.iter().copied().max().unwrap_or_default();
    let repeated = newest(&after) - newest(&before) - plan.sites as u64;
    // A gate that a pause interrupts restores its site's route.
    let gated = kill.is_some_and(|kill| kill.gated);
    let most = if gated { 4 * CONCURRENT } else { CONCURRENT };
    assert!(repeated <= if at.is_some() { most } else { 0 }, "{repeated} repeated");
    let sites = server.get("/sites?limit=1000").await;
    for site in sites["items"].as_array().expect("sites") {
        assert_eq!((&site["service"], &site["operation"]), (&target.into(), &Value::Null), "{site}");
    }
    server.kill();
    RolloutResult { took, repeated, polls }
}

/// Pauses the rollout, deploys another image to its service, and resumes with that image.
async fn deploy_another_image(server: &Server, path: &str, target: &str) -> Value {
    let running = server.get(path).await["digest"].to_string();
    let image = if running.contains("eee") { "f" } else { "e" }.repeat(64);
    let (status, response) = server.ask(Method::POST, &format!("{path}/pause"), None).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{response}");
    let begun = now();
    while server.get(path).await["status"] != "paused" {
        assert!(begun.elapsed() < ROLLOUT_TIMEOUT, "the rollout does not pause");
        tokio::task::yield_now().await;
    }
    let deploy = json!({"imageTag": image, "service": target});
    let (_, response) = server.ask(Method::POST, "/services?wait=60s", Some(&deploy)).await;
    assert_eq!(response["status"], "succeeded", "{response}");
    let resume = format!("{path}/resume");
    let (status, response) = server.ask(Method::POST, &resume, None).await;
    assert_eq!((status, &response["code"]), (StatusCode::CONFLICT, &"digest_changed".into()), "{response}");
    let accept = json!({"acceptDigest": response["running"]});
    let (status, resumed) = server.ask(Method::POST, &resume, Some(&accept)).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{resumed}");
    response["running"].clone()
}

/// Asserts that each site was moved with one of these images, and that each image was used.
async fn assert_moved_with(server: &Server, rollout: &Value, images: &[Value]) {
    let mut path = format!("/operations?limit=1000&rollout={}", rollout["id"].as_str().expect("an id"));
    let mut digests = BTreeSet::new();
    loop {
        let page = server.get(&path).await;
        digests.extend(page["items"].as_array().expect("a list").iter().map(|it| it["digest"].to_string()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!(
            "/operations?limit=1000&rollout={}&cursor={next}",
            rollout["id"].as_str().expect("an id")
        );
    }
    let known: BTreeSet<_> = images.iter().map(ToString::to_string).collect();
    let last = images.last().map(ToString::to_string).unwrap_or_default();
    assert!(digests.is_subset(&known) && digests.contains(&last), "{digests:?} of {images:?}");
}

/// Asserts the invariants `TotalsAgree` and `WaveBound`, as visible in the API.
fn assert_consistent(rollout: &Value) {
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
        assert!(!(open && begun), "a wave began before the previous one had ended: {rollout}");
        open |= count(wave, "pending") + count(wave, "running") > 0;
    }
}

#[expect(clippy::print_stdout, reason = "the campaign prints its result")]
fn print_result(
    seed: u64,
    plan: Plan,
    uninterrupted: &RolloutResult,
    killed: &[RolloutResult],
    (abort, late): (Duration, u64),
) {
    let ratio = |digests: &RolloutResult| digests.took.as_secs_f64() / uninterrupted.took.as_secs_f64();
    let repeated: Vec<u64> = killed.iter().map(|digests| digests.repeated).collect();
    let polls: usize = killed.iter().map(|digests| digests.polls).sum::<usize>() + uninterrupted.polls;
    let mut ratios: Vec<f64> = killed.iter().skip(1).map(ratio).collect();
    ratios.sort_by(f64::total_cmp);
    println!(
        "campaign kill-9-rollouts: {} kills, 0 failed, seed {seed}, {} sites; uninterrupted {:.2?}; killed at half {:.2} \
         of that, at random median {:.2}, most {:.2}; repeated route writes {repeated:?}; {polls} looks; an abort took {abort:.0?}, and {late} sites were moved meanwhile",
        killed.len(),
        plan.sites,
        uninterrupted.took,
        killed.first().map_or(0.0, ratio),
        ratios.get(ratios.len() / 2).copied().unwrap_or_default(),
        ratios.last().copied().unwrap_or_default(),
    );
}
