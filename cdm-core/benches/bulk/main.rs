//! The cost of a bulk promote: CDM's engine with its real adapters, a raw client that sends the same requests, and a
//! script of `kubectl` and `aws`; also the requests of an idle fleet. The servers count the requests.
//!
//! Prints tables and asserts no limits: `tests/parts cargo bench -p cdm-core --features cloud --bench bulk`.
//! `docs/performance.md` explains the columns.
#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a program that measures and prints"
)]

mod engine;
mod raw;
mod script;
mod servers;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cdm_core::domain::Color;
use cdm_testkit::measure::Rounds;

use engine::{Engine, SiteSetup};
use raw::RawClient;
use servers::{Counts, Servers};

/// Measured rounds; one warm-up round precedes them.
const ROUNDS: usize = 5;
/// Sites moved in each round.
const SITES: u32 = 1_000;
/// Sites that the script moves in each round.
const BY_SCRIPT: u32 = 8;
/// Sites in each flush job of the raw client.
const BATCH: usize = 256;
/// The measured arms; each is compared to the raw client, which moves and flushes.
const ARMS: [&str; 4] = ["CDM", "raw client", "the same without flushes", "script"];
/// Sites whose caches are flushed; a multiple of the window size of a rollout.
const FLUSHED: u32 = 512;
/// Sites of the idle fleet.
const IDLE: u32 = 10_000;
/// How long the idle fleet is measured.
const MINUTE: Duration = Duration::from_secs(60);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["servers", dynamodb] => runtime.block_on(servers::serve(dynamodb)),
        ["flush"] => runtime.block_on(flush()),
        ["idle"] => runtime.block_on(idle()),
        ["promote"] => runtime.block_on(promote()),
        _ => runtime.block_on(async {
            promote().await;
            flush().await;
            idle().await;
        }),
    }
}

/// Returns the address of DynamoDB.
fn dynoxide() -> Option<String> {
    let address = std::env::var("CDM_TEST_DYNOXIDE").ok().filter(|address| !address.is_empty());
    if address.is_none() {
        eprintln!("skipped: CDM_TEST_DYNOXIDE names no server; put tests/parts before the command");
    }
    address
}

/// The measurements of one arm.
#[derive(Debug, Default)]
struct Arm {
    /// Sites per second.
    rate: Rounds,
    /// Microseconds of CPU per site, of this process or of the script's processes.
    cpu: Rounds,
    /// Requests per site, by server and request type.
    counts: BTreeMap<String, f64>,
}

async fn promote() {
    let Some(dynamodb) = dynoxide() else { return };
    let servers: [Servers; 2] = [Servers::start(&dynamodb), Servers::start(&dynamodb)];
    let engine = Engine::new(&servers[0], SITES, SiteSetup::WithRoute).await;
    let mut raw = RawClient::new(&servers[1]).await;
    // The raw client has its own sites, created by the same adapters.
    let flusher = Engine::new(&servers[1], SITES, SiteSetup::WithRoute).await;
    raw.adopt(&flusher);
    let mut to = Color::Green;
    let [mut engine_arm, mut raw_arm, mut no_flush_arm, mut script_arm] = <[Arm; 4]>::default();
    for round in 0..=ROUNDS {
        engine.set_canary(to).await;
        let by_engine = async || {
            let result = measure_arm(&servers[0], SITES, engine.promote()).await;
            engine.assert_moved(to).await;
            result
        };
        let mut by_raw = async || {
            // The last sites cannot be flushed before they are moved; for this measurement it does not matter which
            // sites the others are.
            let (first, last) = flusher.sites.split_at(flusher.sites.len() - BATCH);
            let both = async {
                futures_util::join!(raw.promote(to.other()), flusher.flush(first, BATCH, 20));
                flusher.flush(last, BATCH, 20).await;
            };
            let with_flushes = measure_arm(&servers[1], SITES, both).await;
            (with_flushes, measure_arm(&servers[1], SITES, raw.promote(to)).await)
        };
        let (one, (all, other)) = if round % 2 == 0 {
            let one = by_engine().await;
            (one, by_raw().await)
        } else {
            let other = by_raw().await;
            (by_engine().await, other)
        };
        // The script moves the raw client's first sites to the other service and back, so that the raw client finds
        // them unchanged.
        let back = script::round_trip(&servers[1], &mut raw, to, BY_SCRIPT);
        if round > 0 {
            engine_arm.record(one);
            raw_arm.record(all);
            no_flush_arm.record(other);
            if let Some(back) = back {
                script_arm.record(back);
            }
        }
        to = to.other();
    }
    print_table([&engine_arm, &raw_arm, &no_flush_arm, &script_arm]);
}

/// One round: sites per second, microseconds of CPU per site, and requests per site.
type Round = (f64, f64, BTreeMap<String, f64>);

async fn measure_arm(servers: &Servers, sites: u32, work: impl Future<Output = ()>) -> Round {
    servers.reset();
    let (begun, cpu) = (Instant::now(), cpu(CpuOwner::ThisProcess));
    work.await;
    let took = (begun.elapsed(), self::cpu(CpuOwner::ThisProcess) - cpu);
    round(took, sites, &servers.counts())
}

fn round((wall, cpu): (Duration, Duration), sites: u32, counts: &Counts) -> Round {
    let sites = f64::from(sites);
    let counts = counts.iter().map(|(request, count)| (request.clone(), *count as f64 / sites)).collect();
    (sites / wall.as_secs_f64(), cpu.as_secs_f64() * 1e6 / sites, counts)
}

impl Arm {
    fn record(&mut self, (rate, cpu, counts): Round) {
        self.rate.push(rate);
        self.cpu.push(cpu);
        self.counts = counts;
    }
}

/// Whose CPU time is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CpuOwner {
    /// This process.
    ThisProcess,
    /// Child processes that have ended.
    Children,
}

fn cpu(whose: CpuOwner) -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<i64> = after_name.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    // The process state is not a number; `utime` is the 12th field after it.
    let at = if whose == CpuOwner::ThisProcess { 10 } else { 12 };
    let ticks = fields.iter().skip(at).take(2).sum::<i64>();
    Duration::from_millis(u64::try_from(ticks).unwrap_or_default() * 10)
}

fn print_table(arms: [&Arm; 4]) {
    println!("## Bulk promote\n");
    println!("{SITES} sites per round ({BY_SCRIPT} for the script), 64 concurrent (8), {ROUNDS} rounds.\n");
    println!(
        "| arm | sites per second | relative to the raw client | CPU, µs per site | relative to the raw client |"
    );
    println!("|---|---|---|---|---|");
    let [_, raw, ..] = arms;
    for (name, arm) in ARMS.into_iter().zip(arms).filter(|(_, arm)| !arm.counts.is_empty()) {
        let of = |arm: &Rounds, raw: &Rounds| arm.with(raw, |arm, raw| arm / raw);
        let (rate, cpu) = (of(&arm.rate, &raw.rate), of(&arm.cpu, &raw.cpu));
        println!("| {name} | {:.1} | {rate:.4} | {:.0} | {cpu:.2} |", arm.rate, arm.cpu);
    }
    println!("\nRequests per site, counted by the servers in the last round:\n");
    println!("| request | {} |\n|---|---|---|---|---|", ARMS.join(" | "));
    let requests: std::collections::BTreeSet<&String> =
        arms.iter().flat_map(|arm| arm.counts.keys()).collect();
    for request in requests {
        let of =
            |arm: &Arm| arm.counts.get(request).map_or_else(|| "0".to_owned(), |count| format!("{count:.4}"));
        println!("| {request} | {} |", arms.map(of).join(" | "));
    }
    println!();
}

/// What a controller manager processes per second with its default settings: one-pod Jobs, and pods of an Indexed Job.
/// `docs/performance.md` states where that was measured.
const CONTROLLER: (f64, f64) = (3.4, 10.0);

async fn flush() {
    let Some(dynamodb) = dynoxide() else { return };
    let servers = Servers::start(&dynamodb);
    let engine = Engine::new(&servers, FLUSHED, SiteSetup::WithRoute).await;
    println!("## Caches of {FLUSHED} sites\n");
    println!("| mode | Jobs | pods | requests | per site | controller time, s |\n|---|---|---|---|---|---|");
    let window = 128;
    for (how, sites, slots_per_pod) in [
        ("one Job per site", 1, 1),
        ("Indexed Jobs, one site per pod", window, 1),
        ("20 sites per pod", window, 20),
    ] {
        servers.reset();
        engine.flush(&engine.sites, sites, slots_per_pod).await;
        let counts = servers.counts();
        let jobs = counts.get("Kubernetes: create jobs").copied().unwrap_or_default();
        let requests: u64 = counts
            .iter()
            .filter(|(request, _)| request.starts_with("Kubernetes"))
            .map(|(_, count)| count)
            .sum();
        let of_window = u32::try_from(sites).expect("a small number").div_ceil(slots_per_pod);
        let pods = FLUSHED / u32::try_from(sites).expect("a small number") * of_window;
        let time = if sites == 1 { f64::from(pods) / CONTROLLER.0 } else { f64::from(pods) / CONTROLLER.1 };
        let each = requests as f64 / f64::from(FLUSHED);
        println!("| {how} | {jobs} | {pods} | {requests} | {each:.3} | {time:.1} |");
    }
    println!();
}

async fn idle() {
    let Some(dynamodb) = dynoxide() else { return };
    let servers = Servers::start(&dynamodb);
    let engine = Engine::new(&servers, IDLE, SiteSetup::RecordOnly).await;
    println!("## An idle fleet of {IDLE} sites, one worker, {} seconds\n", MINUTE.as_secs());
    println!("| request | count |\n|---|---|");
    // The worker's reads at startup are not part of idling.
    engine.idle(MINUTE / 12).await;
    servers.reset();
    engine.idle(MINUTE).await;
    for (request, count) in servers.counts() {
        println!("| {request} | {count} |");
    }
}
