//! What a bulk promote costs: CDM's engine with its real adapters, a raw client that sends the same requests, and a
//! script of `kubectl` and `aws`; and what an idle fleet asks for. The servers count what they are asked.
//!
//! Prints tables and demands nothing: `tests/parts cargo bench -p cdm-core --features cloud --bench bulk`. What the
//! columns mean is written in `docs/performance.md`.
#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a program that measures and prints"
)]

mod engine;
#[path = "../engine/measure.rs"]
#[allow(dead_code, reason = "shared with the other benchmark, which measures threads and memory too")]
mod measure;
mod raw;
mod script;
mod servers;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cdm_core::domain::Color;

use engine::{Engine, Made};
use measure::Rounds;
use raw::Raw;
use servers::{Counts, Servers};

/// Rounds, besides the first, which only warms up.
const ROUNDS: usize = 5;
/// Sites that are moved in a round.
const SITES: u32 = 1_000;
/// Sites that the script moves in a round.
const BY_SCRIPT: u32 = 8;
/// Sites in each job of the raw client's.
const BATCH: usize = 256;
/// What is compared; all with the raw client, which moves and flushes.
const ARMS: [&str; 4] = ["CDM", "raw client", "the same without flushes", "script"];
/// Sites whose caches are flushed: whole windows of a rollout.
const FLUSHED: u32 = 512;
/// Sites that idle.
const IDLE: u32 = 10_000;
/// How long they are watched.
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

/// Where DynamoDB is.
fn dynoxide() -> Option<String> {
    let address = std::env::var("CDM_TEST_DYNOXIDE").ok().filter(|address| !address.is_empty());
    if address.is_none() {
        eprintln!("skipped: CDM_TEST_DYNOXIDE names no server; put tests/parts before the command");
    }
    address
}

/// What a round of an arm took.
#[derive(Debug, Default)]
struct Arm {
    /// Sites in a second.
    rate: Rounds,
    /// Microseconds of a processor a site, of this process, or of the script's.
    cpu: Rounds,
    /// Requests a site, by server and what was asked.
    counts: BTreeMap<String, f64>,
}

async fn promote() {
    let Some(dynamodb) = dynoxide() else { return };
    let servers: [Servers; 2] = [Servers::start(&dynamodb), Servers::start(&dynamodb)];
    let engine = Engine::new(&servers[0], SITES, Made::Routed).await;
    let mut raw = Raw::new(&servers[1]).await;
    // The raw client has sites of its own, made by the same adapters.
    let flusher = Engine::new(&servers[1], SITES, Made::Routed).await;
    raw.adopt(&flusher);
    let mut to = Color::Green;
    let [mut ours, mut same, mut bare, mut scripted] = <[Arm; 4]>::default();
    for round in 0..=ROUNDS {
        engine.aim(to).await;
        let by_engine = async || {
            let taken = taken(&servers[0], SITES, engine.promote()).await;
            engine.assert_moved(to).await;
            taken
        };
        let mut by_raw = async || {
            // The last ones cannot be flushed before they are moved; which the others are does not matter here.
            let (first, last) = flusher.sites.split_at(flusher.sites.len() - BATCH);
            let both = async {
                futures_util::join!(raw.promote(to.other()), flusher.flush(first, BATCH, 20));
                flusher.flush(last, BATCH, 20).await;
            };
            let with_flushes = taken(&servers[1], SITES, both).await;
            (with_flushes, taken(&servers[1], SITES, raw.promote(to)).await)
        };
        let (one, (all, other)) = if round % 2 == 0 {
            let one = by_engine().await;
            (one, by_raw().await)
        } else {
            let other = by_raw().await;
            (by_engine().await, other)
        };
        // The first sites of the raw client's, back and forth, so that it finds them where it left them.
        let back = script::there_and_back(&servers[1], &mut raw, to, BY_SCRIPT);
        if round > 0 {
            ours.keep(one);
            same.keep(all);
            bare.keep(other);
            if let Some(back) = back {
                scripted.keep(back);
            }
        }
        to = to.other();
    }
    tell([&ours, &same, &bare, &scripted]);
}

/// A round: sites in a second, microseconds of a processor a site, requests a site.
type Round = (f64, f64, BTreeMap<String, f64>);

async fn taken(servers: &Servers, sites: u32, work: impl Future<Output = ()>) -> Round {
    servers.forget();
    let (begun, cpu) = (Instant::now(), cpu(Whose::Mine));
    work.await;
    let took = (begun.elapsed(), self::cpu(Whose::Mine) - cpu);
    round(took, sites, &servers.counts())
}

fn round((wall, cpu): (Duration, Duration), sites: u32, counts: &Counts) -> Round {
    let sites = f64::from(sites);
    let counts = counts.iter().map(|(asked, many)| (asked.clone(), *many as f64 / sites)).collect();
    (sites / wall.as_secs_f64(), cpu.as_secs_f64() * 1e6 / sites, counts)
}

impl Arm {
    fn keep(&mut self, (rate, cpu, counts): Round) {
        self.rate.push(rate);
        self.cpu.push(cpu);
        self.counts = counts;
    }
}

/// Whose time on a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// This process's.
    Mine,
    /// That of processes that it started and that have ended.
    Children,
}

fn cpu(whose: Whose) -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<i64> = after_name.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    // The state is no number; `utime` is the 12th of the fields after it.
    let at = if whose == Whose::Mine { 10 } else { 12 };
    let ticks = fields.iter().skip(at).take(2).sum::<i64>();
    Duration::from_millis(u64::try_from(ticks).unwrap_or_default() * 10)
}

fn tell(arms: [&Arm; 4]) {
    println!("## Bulk promote\n");
    println!("{SITES} sites a round ({BY_SCRIPT} by the script), 64 at once (8), {ROUNDS} rounds.\n");
    println!("| arm | sites a second | of the raw client's | processor, µs a site | of the raw client's |");
    println!("|---|---|---|---|---|");
    let [_, bare, ..] = arms;
    for (name, arm) in ARMS.into_iter().zip(arms).filter(|(_, arm)| !arm.counts.is_empty()) {
        let of = |mine: &Rounds, raw: &Rounds| mine.with(raw, |mine, raw| mine / raw);
        let (rate, cpu) = (of(&arm.rate, &bare.rate), of(&arm.cpu, &bare.cpu));
        println!("| {name} | {:.1} | {rate:.4} | {:.0} | {cpu:.2} |", arm.rate, arm.cpu);
    }
    println!("\nRequests a site, counted by the servers in the last round:\n");
    println!("| asked | {} |\n|---|---|---|---|---|", ARMS.join(" | "));
    let asked: std::collections::BTreeSet<&String> = arms.iter().flat_map(|arm| arm.counts.keys()).collect();
    for asked in asked {
        let of =
            |arm: &Arm| arm.counts.get(asked).map_or_else(|| "0".to_owned(), |many| format!("{many:.4}"));
        println!("| {asked} | {} |", arms.map(of).join(" | "));
    }
    println!();
}

/// What a controller manager does in a second by its usual settings: one-pod Jobs, and pods of an Indexed Job.
/// `docs/performance.md` says where that was measured.
const CONTROLLER: (f64, f64) = (3.4, 10.0);

async fn flush() {
    let Some(dynamodb) = dynoxide() else { return };
    let servers = Servers::start(&dynamodb);
    let engine = Engine::new(&servers, FLUSHED, Made::Routed).await;
    println!("## Caches of {FLUSHED} sites\n");
    println!(
        "| how | Jobs | pods | requests | a site | the controller's time, s |\n|---|---|---|---|---|---|"
    );
    let window = 128;
    for (how, sites, operations) in [
        ("a Job for each site", 1, 1),
        ("Indexed Jobs, a site a pod", window, 1),
        ("20 sites a pod", window, 20),
    ] {
        servers.forget();
        engine.flush(&engine.sites, sites, operations).await;
        let counts = servers.counts();
        let jobs = counts.get("Kubernetes: create jobs").copied().unwrap_or_default();
        let requests: u64 =
            counts.iter().filter(|(asked, _)| asked.starts_with("Kubernetes")).map(|(_, many)| many).sum();
        let of_window = u32::try_from(sites).expect("a few").div_ceil(operations);
        let pods = FLUSHED / u32::try_from(sites).expect("a few") * of_window;
        let time = if sites == 1 { f64::from(pods) / CONTROLLER.0 } else { f64::from(pods) / CONTROLLER.1 };
        let each = requests as f64 / f64::from(FLUSHED);
        println!("| {how} | {jobs} | {pods} | {requests} | {each:.3} | {time:.1} |");
    }
    println!();
}

async fn idle() {
    let Some(dynamodb) = dynoxide() else { return };
    let servers = Servers::start(&dynamodb);
    let engine = Engine::new(&servers, IDLE, Made::Recorded).await;
    println!("## An idle fleet of {IDLE} sites, one worker, {} seconds\n", MINUTE.as_secs());
    println!("| asked | times |\n|---|---|");
    // What a worker looks at once when it starts is not idling.
    engine.idle(MINUTE / 12).await;
    servers.forget();
    engine.idle(MINUTE).await;
    for (asked, many) in servers.counts() {
        println!("| {asked} | {many} |");
    }
}
