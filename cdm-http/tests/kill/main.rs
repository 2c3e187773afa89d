//! `kill -9` at random instants while sites are created, provisioned, promoted and terminated: whatever was accepted
//! comes to rest as it was asked, nothing is made twice, and nothing is left behind.
//!
//! `CDM_CAMPAIGNS=full` kills at least 200 times over at least 500 sites; otherwise a sample. `CDM_SEED` draws other
//! instants.

mod checks;
mod rollouts;
#[path = "../e2e/server.rs"]
#[allow(dead_code, reason = "the other tests of the server ask it for more")]
mod server;
mod tenants;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cdm_testkit::ids::Rng;
use reqwest::Method;
use serde_json::json;
use server::{QUICK, Server, begin, client, directory};
use tenants::{Board, Patient};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How many clients ask at once.
const CLIENTS: usize = 16;
/// A kill comes at an instant of this time after the server answers, in microseconds.
const SPAN: u64 = 250_000;
/// One start in so many is killed before it answers.
const STILLBORN: u64 = 6;

/// How much there is to be done, and for how long at most.
#[derive(Clone, Copy, Debug)]
struct Plan {
    sites: usize,
    kills: usize,
    limit: Duration,
}

const SAMPLE: Plan = Plan { sites: 40, kills: 12, limit: Duration::from_secs(180) };
const FULL: Plan = Plan { sites: 500, kills: 200, limit: Duration::from_secs(1_200) };

/// What there was to see of the processes that are gone.
#[derive(Debug, Default)]
struct Past {
    kills: usize,
    /// From the start of a process to its first answer.
    starts: Vec<Duration>,
    logs: Vec<Arc<Mutex<String>>>,
    arguments: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "a campaign reads its size from the environment")]
async fn a_server_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    let plan = if std::env::var("CDM_CAMPAIGNS").is_ok_and(|value| value == "full") { FULL } else { SAMPLE };
    let seed = std::env::var("CDM_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(2026);
    let dir = directory();
    let mut past = Past::default();
    let server = start(dir.path(), &mut past).await;
    let (status, selected) = server.ask(Method::POST, "/services", Some(&json!({"selector": "green"}))).await;
    assert_eq!(status, 200, "{selected}");
    let (url, receiver) = watch::channel(server.url.clone());
    let board = Arc::new(Board::new(plan.sites));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let mut patient = Patient::new(number, client(), receiver.clone(), Arc::clone(&board));
        clients.spawn(async move { patient.work().await });
    }
    drop(receiver);
    let play = play(&dir, plan, seed, server, &mut past, (&url, &board, &mut clients));
    let Ok(mut server) = tokio::time::timeout(plan.limit, play).await else {
        let log = past.logs.last().map(|log| log.lock().expect("the log").clone()).unwrap_or_default();
        panic!("after {:?} and {} kills {board:?} has not come to its end:\n{log}", plan.limit, past.kills)
    };
    let end = checks::at_rest(&mut server, dir.path(), &board).await;
    assert!(end.route_writes <= past.kills * CLIENTS, "{end:?} after {} kills", past.kills);
    assert!(end.job_runs <= past.kills * CLIENTS, "{end:?} after {} kills", past.kills);
    let mut said = std::mem::take(&mut *board.said.lock().expect("what was said"));
    said.extend(past.logs.iter().map(|log| log.lock().expect("the log").clone()));
    said.push(past.arguments.clone());
    checks::no_secret_in(dir.path(), &said).await;
    tell(seed, &board, past, &end);
}

/// Kills and starts until the clients are done; answers the last server.
async fn play(
    dir: &tempfile::TempDir,
    plan: Plan,
    seed: u64,
    mut server: Server,
    past: &mut Past,
    (url, board, clients): (&watch::Sender<String>, &Board, &mut JoinSet<Result<(), String>>),
) -> Server {
    let mut chance = Rng::new(seed);
    loop {
        let span = Duration::from_micros(chance.below(SPAN));
        match tokio::time::timeout(span, clients.join_next()).await {
            Ok(Some(ended)) => {
                let log = || server.log.lock().expect("the log").clone();
                ended.expect("a client does not panic").unwrap_or_else(|why| panic!("{why}\n{}", log()));
                continue;
            }
            Ok(None) => return server,
            Err(_) => {}
        }
        // Kills are spread over the whole work.
        if past.kills >= plan.kills || board.begun() * plan.kills < past.kills * plan.sites {
            continue;
        }
        server.kill();
        board.killed(now());
        past.kills += 1;
        while past.kills < plan.kills && chance.below(STILLBORN) == 0 {
            let mut child = begin(dir.path(), QUICK);
            let typical = past.starts[past.starts.len() / 2].as_micros() as u64;
            let span = Duration::from_micros(chance.below(typical.max(1)));
            let _ = tokio::time::timeout(span, std::future::pending::<()>()).await;
            child.kill().expect("a kill");
            child.wait().expect("an end");
            past.kills += 1;
        }
        server = start(dir.path(), past).await;
        url.send_replace(server.url.clone());
        if past.kills >= plan.kills {
            board.enough.store(true, Ordering::SeqCst);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a recovery takes is measured")]
fn now() -> Instant {
    Instant::now()
}

/// Starts a process, waits for its first answer, and keeps what there is to see of it.
async fn start(dir: &Path, past: &mut Past) -> Server {
    let from = now();
    let server = tokio::task::block_in_place(|| Server::start(dir));
    past.logs.push(Arc::clone(&server.log));
    let ready = server.client.get(format!("{}/readyz", server.url)).send().await.expect("an answer");
    past.starts.push(from.elapsed());
    past.starts.sort_unstable();
    assert_eq!(ready.status(), 200, "{:?}", ready.text().await);
    past.arguments.push_str(&server.arguments());
    server
}

#[expect(clippy::print_stdout, reason = "a campaign's line is its result")]
fn tell(seed: u64, board: &Board, past: Past, end: &checks::End) {
    let middle = |times: &[Duration]| times.get(times.len() / 2).copied().unwrap_or_default();
    let longest = |times: &[Duration]| times.last().copied().unwrap_or_default();
    let rests = board.recoveries();
    println!(
        "campaign kill-9: {kills} kills, 0 failed, seed {seed}, {sites} sites, {operations} operations; start to first \
         answer: median {:.0?}, longest {:.0?}; kill to first work at rest: median {:.0?}, longest {:.0?}; repeated: \
         {} route writes, {} jobs; {} parked by kills and retried; {} installations cut short and made anew",
        middle(&past.starts),
        longest(&past.starts),
        middle(&rests),
        longest(&rests),
        end.route_writes,
        end.job_runs,
        board.retried.load(Ordering::SeqCst),
        end.cut,
        kills = past.kills,
        sites = end.sites,
        operations = end.operations,
    );
}
