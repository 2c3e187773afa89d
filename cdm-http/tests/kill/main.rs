//! `kill -9` at random times while sites are created, provisioned, promoted and terminated: every accepted operation
//! ends as requested, nothing is created twice, and nothing is left over.
//!
//! `CDM_CAMPAIGNS=full` kills at least 200 times over at least 500 sites; otherwise a sample. `CDM_SEED` selects other
//! times.

mod checks;
mod clients;
mod rollouts;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cdm_testkit::campaign;
use cdm_testkit::ids::Rng;
use cdm_testkit::server::{QUICK, Server, begin, client, directory};
use clients::{RetryingClient, SharedState};
use reqwest::Method;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Number of concurrent clients.
const CLIENTS: usize = 16;
/// A kill occurs within this time after the server responds, in microseconds.
const SPAN: u64 = 250_000;
/// One start in this number is killed before the server responds.
const EARLY_KILL_RATIO: u64 = 6;

/// The amount of work, and the time limit.
#[derive(Clone, Copy, Debug)]
struct Plan {
    sites: usize,
    kills: usize,
    limit: Duration,
}

const SAMPLE: Plan = Plan { sites: 40, kills: 12, limit: Duration::from_secs(180) };
const FULL: Plan = Plan { sites: 500, kills: 200, limit: Duration::from_secs(1_200) };

/// What is known of the ended processes.
#[derive(Debug, Default)]
struct Processes {
    kills: usize,
    /// From the start of a process to its first response.
    starts: Vec<Duration>,
    logs: Vec<Arc<Mutex<String>>>,
    arguments: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_kills_lose_and_duplicate_nothing() {
    let plan = if campaign::full() { FULL } else { SAMPLE };
    let seed = campaign::seed();
    let dir = directory();
    let mut processes = Processes::default();
    let server = start(dir.path(), &mut processes).await;
    let (status, selected) = server.ask(Method::POST, "/services", Some(&json!({"selector": "green"}))).await;
    assert_eq!(status, 200, "{selected}");
    let (url, receiver) = watch::channel(server.url.clone());
    let shared = Arc::new(SharedState::new(plan.sites));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let mut patient = RetryingClient::new(number, client(), receiver.clone(), Arc::clone(&shared));
        clients.spawn(async move { patient.work().await });
    }
    drop(receiver);
    let run = run(&dir, plan, seed, server, &mut processes, (&url, &shared, &mut clients));
    let Ok(mut server) = tokio::time::timeout(plan.limit, run).await else {
        let log = processes.logs.last().map(|log| log.lock().expect("the log").clone()).unwrap_or_default();
        panic!("after {:?} and {} kills {shared:?} has not finished:\n{log}", plan.limit, processes.kills)
    };
    let end = checks::check(&mut server, dir.path(), &shared).await;
    assert!(end.route_writes <= processes.kills * CLIENTS, "{end:?} after {} kills", processes.kills);
    assert!(end.job_runs <= processes.kills * CLIENTS, "{end:?} after {} kills", processes.kills);
    let mut responses = std::mem::take(&mut *shared.responses.lock().expect("the responses"));
    responses.extend(processes.logs.iter().map(|log| log.lock().expect("the log").clone()));
    responses.push(processes.arguments.clone());
    checks::no_secret_in(dir.path(), &responses).await;
    print_result(seed, &shared, processes, &end);
}

/// Kills and starts the server until the clients are done; returns the last server.
async fn run(
    dir: &tempfile::TempDir,
    plan: Plan,
    seed: u64,
    mut server: Server,
    processes: &mut Processes,
    (url, shared, clients): (&watch::Sender<String>, &SharedState, &mut JoinSet<Result<(), String>>),
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
        // The kills are spread over the whole work.
        if processes.kills >= plan.kills || shared.begun() * plan.kills < processes.kills * plan.sites {
            continue;
        }
        server.kill();
        shared.killed(now());
        processes.kills += 1;
        while processes.kills < plan.kills && chance.below(EARLY_KILL_RATIO) == 0 {
            let mut child = begin(dir.path(), QUICK);
            let typical = processes.starts[processes.starts.len() / 2].as_micros() as u64;
            let span = Duration::from_micros(chance.below(typical.max(1)));
            let _ = tokio::time::timeout(span, std::future::pending::<()>()).await;
            child.kill().expect("a kill");
            child.wait().expect("an end");
            processes.kills += 1;
        }
        server = start(dir.path(), processes).await;
        url.send_replace(server.url.clone());
        if processes.kills >= plan.kills {
            shared.enough.store(true, Ordering::SeqCst);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a recovery takes is measured")]
fn now() -> Instant {
    Instant::now()
}

/// Starts a process, waits for its first response, and records its start time and log.
async fn start(dir: &Path, processes: &mut Processes) -> Server {
    let from = now();
    let server = tokio::task::block_in_place(|| Server::start(dir));
    processes.logs.push(Arc::clone(&server.log));
    let ready = server.client.get(format!("{}/readyz", server.url)).send().await.expect("a response");
    processes.starts.push(from.elapsed());
    processes.starts.sort_unstable();
    assert_eq!(ready.status(), 200, "{:?}", ready.text().await);
    processes.arguments.push_str(&server.arguments());
    server
}

#[expect(clippy::print_stdout, reason = "the campaign prints its result")]
fn print_result(seed: u64, shared: &SharedState, processes: Processes, end: &checks::FinalState) {
    let middle = |times: &[Duration]| times.get(times.len() / 2).copied().unwrap_or_default();
    let longest = |times: &[Duration]| times.last().copied().unwrap_or_default();
    let recoveries = shared.recoveries();
    println!(
        "campaign kill-9: {kills} kills, 0 failed, seed {seed}, {sites} sites, {operations} operations; start to first \
         response: median {:.0?}, longest {:.0?}; kill to first work at rest: median {:.0?}, longest {:.0?}; repeated: \
         {} route writes, {} jobs; {} parked by kills and retried; {} installations interrupted and recreated",
        middle(&processes.starts),
        longest(&processes.starts),
        middle(&recoveries),
        longest(&recoveries),
        end.route_writes,
        end.job_runs,
        shared.retried.load(Ordering::SeqCst),
        end.interrupted,
        kills = processes.kills,
        sites = end.sites,
        operations = end.operations,
    );
}
