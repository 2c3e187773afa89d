//! The cost of a durable write, compared to commits of a bare SQLite file.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use serde_json::json;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use tokio::runtime::Runtime;

use crate::arms::{self, Arm};
use crate::client::{RequestPlan, load};
use crate::measure::{Rounds, must};
use crate::{SLOW_ROUNDS, directory};

/// Requests in flight.
const IN_FLIGHT: usize = 16;
/// Sites of a round.
const SITES: usize = 96;
/// Commits of a round.
const COMMITS: usize = 400;
/// How long the jobs of the local cluster take: the default, and almost nothing.
const JOBS: [Duration; 2] = [Duration::from_millis(150), Duration::from_millis(1)];

/// Prints the table of writes.
pub(crate) fn measure(runtime: &Runtime) {
    println!(
        "\n(c) Writes: {SITES} sites a round, {IN_FLIGHT} requests in flight; {SLOW_ROUNDS} rounds; a commit of a bare SQLite \
         file on the same disk (one row, `synchronous=FULL`) for comparison\n"
    );
    println!(
        "| job duration, ms | measurement | per second | relative to commits | wall time per site, ms |"
    );
    println!("|---|---|---|---|---|");
    for job in JOBS {
        measure_with_jobs(runtime, job);
    }
}

fn measure_with_jobs(runtime: &Runtime, job: Duration) {
    let dir = directory();
    let process = runtime.block_on(arms::open(&arms::config(&dir.path().join("data"), job)));
    let raw = runtime.block_on(raw(&dir.path().join("raw.db")));
    let arm = runtime.block_on(async {
        process.work();
        arms::complete(&process).await
    });
    let (mut commits, mut creates, mut provisions) =
        (Rounds::default(), Rounds::default(), Rounds::default());
    let next_site = Arc::new(AtomicUsize::new(0));
    for round in 0..=SLOW_ROUNDS {
        let begin = next_site.fetch_add(SITES, Ordering::Relaxed);
        let rates = [
            runtime.block_on(commit(&raw)),
            load(&create(&arm, begin), IN_FLIGHT, SITES).rate,
            load(&provision(&arm, begin), IN_FLIGHT, SITES).rate,
        ];
        if round > 0 {
            for (rounds, rate) in [&mut commits, &mut creates, &mut provisions].into_iter().zip(rates) {
                rounds.push(rate);
            }
        }
    }
    let job = job.as_millis();
    println!("| {job} | bare commit | {commits} | 1 | {:.2} |", commits.with(&commits, |rate, _| 1e3 / rate));
    for (name, rates) in [
        ("`POST /sites/create` until created", &creates),
        ("`POST /sites/{id}/provision` until active", &provisions),
    ] {
        println!(
            "| {job} | {name} | {rates:.1} | {:.3} | {:.2} |",
            rates.with(&commits, |rate, commits| rate / commits),
            rates.with(rates, |rate, _| 1e3 / rate),
        );
    }
    runtime.block_on(process.stop(Duration::from_secs(5)));
}

fn create(arm: &Arm, begin: usize) -> RequestPlan {
    let body = |id: String| {
        let host = format!("{id}.example.org");
        json!({"id": id, "name": "A site", "theme": "plain", "hostnames": [host], "canonicalHostname": host})
    };
    RequestPlan {
        address: arm.address,
        header: arm.header,
        token: arm.token.clone(),
        method: Method::POST,
        line: Arc::new(move |n| ("/sites/create".to_owned(), body(arms::id(begin + n)).to_string())),
        status: StatusCode::CREATED,
    }
}

fn provision(arm: &Arm, begin: usize) -> RequestPlan {
    RequestPlan {
        line: Arc::new(move |n| {
            (format!("/sites/{}/provision?wait=60s", arms::id(begin + n)), String::new())
        }),
        status: StatusCode::OK,
        ..create(arm, begin)
    }
}

/// Creates a file with one table, configured as the platform's own file.
async fn raw(path: &Path) -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let pool = must("a file", SqlitePoolOptions::new().max_connections(1).connect_with(options).await);
    let made = sqlx::query("CREATE TABLE rows (n INTEGER PRIMARY KEY, body TEXT NOT NULL)");
    must("a table", made.execute(&pool).await);
    pool
}

/// Commits one row at a time, and returns the number per second.
async fn commit(pool: &SqlitePool) -> f64 {
    let body = "x".repeat(1_000);
    let since = Instant::now();
    for _ in 0..COMMITS {
        let insert = sqlx::query("INSERT INTO rows (body) VALUES (?)").bind(&body).execute(pool).await;
        must("a row", insert);
    }
    COMMITS as f64 / since.elapsed().as_secs_f64()
}
