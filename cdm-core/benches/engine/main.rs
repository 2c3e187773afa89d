//! The cost of the engine: per step, compared to a bare loop that makes the same calls, and as a fleet grows.
//!
//! Prints tables and asserts no limits: `cargo bench -p cdm-core --bench engine`. `docs/performance.md` explains the
//! columns.
#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program that measures and prints"
)]

mod codec;
mod platform;
mod tap;

use std::process::Command;

use cdm_core::domain::Color;
use cdm_testkit::measure::{self, Elapsed, Rounds, time};

use platform::{Fakes, Platform, Single};
use tap::{Counts, Recorder, Request, Trace, counts};

/// Measured rounds of each measurement; one warm-up round precedes them.
const ROUNDS: usize = 7;
/// Rounds of the slowest measurement: growing fleets on fakes that encode and decode.
const SLOW_ROUNDS: usize = 3;
/// Sites of the rollout whose cost per step is measured.
const BULK: u32 = 10_000;
/// Single operations in a round, and how many of them are accepted at once: as many as a worker runs concurrently.
const SINGLES: u32 = 2_048;
const CONCURRENCY: u32 = 64;
/// Fleet sizes whose costs per site are compared.
const SIZES: [u32; 4] = [100, 1_000, 10_000, 100_000];
/// Cost of encoding and decoding a call with the leanest codec, in nanoseconds.
const LEAN_CODEC_NS: f64 = 5_000.0;
/// Minimum number of site moves in a round, so that a small fleet is moved many times.
const MIN_MOVES: u32 = 10_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, sites] = arguments.as_slice()
        && word == "memory"
        && let Ok(sites) = sites.parse()
    {
        return memory_of(sites);
    }
    println!("Times are CPU times of this thread; medians [minimum–maximum] of {ROUNDS} rounds.\n");
    steps();
    growth();
    memory();
}

/// The work of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    Single(Single),
    Rollout,
}

impl Load {
    const fn name(self) -> &'static str {
        match self {
            Self::Single(Single::Upgrade) => "upgrade",
            Self::Single(Single::Promote) => "promote",
            Self::Rollout => "rollout, promote",
        }
    }
}

/// Three equal platforms: one records the engine's calls, one times the engine, one times the bare loop.
struct Comparison {
    load: Load,
    sites: u32,
    recorder: Platform,
    engine: Platform,
    bare: Platform,
    to: Color,
    rounds: usize,
    counts: Counts,
    engine_ns: Rounds,
    bare_ns: Rounds,
    engine_wall_ns: Rounds,
}

impl Comparison {
    fn new(load: Load, sites: u32, fakes: Fakes) -> Self {
        Self {
            load,
            sites,
            recorder: Platform::new(sites, Fakes::InMemory, Some(Recorder::default())),
            engine: Platform::new(sites, fakes, None),
            bare: Platform::new(sites, fakes, None),
            to: Color::Blue,
            rounds: 0,
            counts: Counts::new(),
            engine_ns: Rounds::default(),
            bare_ns: Rounds::default(),
            engine_wall_ns: Rounds::default(),
        }
    }

    /// Moves every site to the other service, `passes` times, alternating between the engine and the bare loop.
    fn round(&mut self, passes: u32) {
        let (mut engine, mut bare) = (Elapsed::default(), Elapsed::default());
        self.counts.clear();
        for pass in 0..passes {
            self.to = self.to.other();
            for platform in [&self.recorder, &self.engine, &self.bare] {
                platform.set_canary(self.to);
            }
            let batches: Vec<std::ops::Range<u32>> = match self.load {
                Load::Rollout => std::iter::once(0..self.sites).collect(),
                Load::Single(_) => {
                    (0..self.sites / CONCURRENCY).map(|n| n * CONCURRENCY..(n + 1) * CONCURRENCY).collect()
                }
            };
            for (index, batch) in batches.into_iter().enumerate() {
                for platform in [&self.recorder, &self.engine, &self.bare] {
                    match self.load {
                        Load::Rollout => drop(platform.accept_rollout()),
                        Load::Single(single) => platform.accept_singles(single, batch.clone()),
                    }
                }
                self.recorder.work();
                let trace: Trace = self.recorder.recorded();
                for (request, count) in counts(&trace) {
                    *self.counts.entry(request).or_default() += count;
                }
                let engine_first = (self.rounds + pass as usize + index).is_multiple_of(2);
                if engine_first {
                    engine += time(|| self.engine.work()).0;
                }
                bare += time(|| self.bare.replay(&trace)).0;
                if !engine_first {
                    engine += time(|| self.engine.work()).0;
                }
            }
        }
        let routed = if self.load == Load::Single(Single::Upgrade) { Color::Blue } else { self.to };
        self.engine.assert_moved(self.to, routed);
        self.engine.assert_same(&self.bare);
        self.rounds += 1;
        if self.rounds > 1 {
            let moved = f64::from(self.sites) * f64::from(passes);
            for count in self.counts.values_mut() {
                *count *= 1_000_000;
                *count /= u64::from(self.sites) * u64::from(passes);
            }
            self.engine_ns.push(engine.cpu.as_secs_f64() * 1e9 / moved);
            self.bare_ns.push(bare.cpu.as_secs_f64() * 1e9 / moved);
            self.engine_wall_ns.push(engine.wall.as_secs_f64() * 1e9 / moved);
        }
    }

    /// Returns the requests per site.
    fn per_site(&self, counted: impl Fn(Request) -> bool) -> f64 {
        let found = self.counts.iter().filter(|(request, _)| counted(**request));
        found.fold(0.0, |sum, (_, millionths)| sum + *millionths as f64 / 1e6)
    }

    fn own_ns(&self) -> Rounds {
        self.engine_ns.with(&self.bare_ns, |engine, bare| engine - bare)
    }
}

fn steps() {
    let loads = [Load::Single(Single::Upgrade), Load::Single(Single::Promote), Load::Rollout];
    let sites = |load| if load == Load::Rollout { BULK } else { SINGLES };
    let trios = |fakes| loads.map(|load| Comparison::new(load, sites(load), fakes));
    let (mut free, mut encoding) = (trios(Fakes::InMemory), trios(Fakes::Encoding));
    for _ in 0..=ROUNDS {
        for trio in free.iter_mut().chain(&mut encoding) {
            trio.round(1);
        }
    }
    println!("(a) Fakes without cost: ns per site, and the engine's own ns per step; target 1000 per step\n");
    println!("| operation | steps | reads | engine | bare loop | engine's own | own per step |");
    println!("|---|---|---|---|---|---|---|");
    for trio in &free {
        let steps = trio.per_site(Request::is_step);
        println!(
            "| {} | {steps:.3} | {:.3} | {} | {} | {} | {} |",
            trio.load.name(),
            trio.per_site(|request| !request.is_step() && request != Request::Heartbeat),
            trio.engine_ns,
            trio.bare_ns,
            trio.own_ns(),
            trio.own_ns().each(|own| own / steps),
        );
    }
    println!("\n(b) Fakes that encode and decode: ns per site; ratio of the rates, target 0.80\n");
    println!(
        "| operation | calls | engine | bare loop | ratio | coding per call | ratio at {LEAN_CODEC_NS} ns |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (trio, free) in encoding.iter().zip(&free) {
        let calls = trio.per_site(|_| true);
        println!(
            "| {} | {calls:.3} | {} | {} | {:.3} | {} | {:.3} |",
            trio.load.name(),
            trio.engine_ns,
            trio.bare_ns,
            trio.bare_ns.with(&trio.engine_ns, |bare, engine| bare / engine),
            trio.bare_ns.with(&free.bare_ns, |encoding, free| (encoding - free) / calls),
            free.bare_ns.with(&free.engine_ns, |bare, engine| {
                (bare + calls * LEAN_CODEC_NS) / (engine + calls * LEAN_CODEC_NS)
            }),
        );
    }
    println!();
}

fn growth() {
    for (fakes, rounds, title) in [
        (Fakes::InMemory, ROUNDS, "fakes without cost"),
        (Fakes::Encoding, SLOW_ROUNDS, "fakes that encode and decode"),
    ] {
        let mut trios = SIZES.map(|sites| Comparison::new(Load::Rollout, sites, fakes));
        for round in 0..=rounds {
            let passes = |sites: u32| (MIN_MOVES / sites).max(1);
            if round % 2 == 0 {
                trios.iter_mut().for_each(|trio| trio.round(passes(trio.sites)));
            } else {
                trios.iter_mut().rev().for_each(|trio| trio.round(passes(trio.sites)));
            }
        }
        let [_, base, ..] = &trios;
        if fakes == Fakes::InMemory {
            println!("(c) Requests per site of a rollout, promote; targets: store writes 2.2, cluster 1.1\n");
            println!(
                "| sites | claims | completes | other writes | beats | store reads | route patches | jobs | job reads \
                 | service reads | route reads |"
            );
            println!("|---|---|---|---|---|---|---|---|---|---|---|");
            for trio in &trios {
                let of = |request| trio.per_site(|other| other == request);
                println!(
                    "| {} | {:.4} | {:.4} | {:.4} | {:.4} | {:.4} | {:.4} | {:.4} | {:.4} | {:.4} | {:.4} |",
                    trio.sites,
                    of(Request::Claim),
                    of(Request::ReleaseClaim),
                    of(Request::Write),
                    of(Request::Heartbeat),
                    of(Request::StoreRead),
                    of(Request::Route),
                    of(Request::Job),
                    of(Request::JobRead),
                    of(Request::ServiceRead),
                    of(Request::RouteRead),
                );
            }
            println!();
        }
        println!(
            "(c) ns per site of a rollout, promote, {title}, {rounds} rounds; target: 1.10 relative to 1000 sites\n"
        );
        println!(
            "| sites | engine, wall | engine | vs 1000 | bare loop | vs 1000 | engine's own | vs 1000 |"
        );
        println!("|---|---|---|---|---|---|---|---|");
        for trio in &trios {
            let ratio = |own: &Rounds, base: &Rounds| own.with(base, |own, base| own / base);
            println!(
                "| {} | {} | {} | {:.2} | {} | {:.2} | {} | {:.2} |",
                trio.sites,
                trio.engine_wall_ns,
                trio.engine_ns,
                ratio(&trio.engine_ns, &base.engine_ns),
                trio.bare_ns,
                ratio(&trio.bare_ns, &base.bare_ns),
                trio.own_ns(),
                ratio(&trio.own_ns(), &base.own_ns()),
            );
        }
        println!();
    }
}

/// Measures each fleet in a separate process, so that no fleet reuses memory of another.
fn memory() {
    println!("(c) Resident memory, MB; target: 16 MB more at 100000 sites than at 1000\n");
    println!("| sites | fakes before | accepting, peak | after accepting | driving, peak | after driving |");
    println!("|---|---|---|---|---|---|");
    for sites in SIZES {
        let program =
            std::env::current_exe().unwrap_or_else(|error| panic!("the path of this program: {error}"));
        let output = Command::new(program).args(["memory", &sites.to_string()]).output();
        match output {
            Ok(output) => print!("{}", String::from_utf8_lossy(&output.stdout)),
            Err(error) => println!("| {sites} | not measured: {error} |"),
        }
    }
}

fn memory_of(sites: u32) {
    let platform = Platform::new(sites, Fakes::InMemory, None);
    platform.set_canary(Color::Green);
    let measured = || -> Option<[f64; 5]> {
        let megabytes = |more: u64, less: u64| more.saturating_sub(less) as f64 / 1024.0;
        let (before, _) = measure::reset_peak().then(measure::resident_kb)??;
        platform.accept_rollout();
        let (accepted, peak) = measure::resident_kb()?;
        let (accepting, kept) = (megabytes(peak, before), megabytes(accepted, before));
        measure::reset_peak().then_some(())?;
        platform.work();
        let (after, peak) = measure::resident_kb()?;
        Some([megabytes(before, 0), accepting, kept, megabytes(peak, accepted), megabytes(after, accepted)])
    };
    match measured() {
        Some([before, accepting, kept, driving, remaining]) => {
            println!(
                "| {sites} | {before:.1} | {accepting:.1} | {kept:.1} | {driving:.1} | {remaining:.1} |"
            );
        }
        None => println!("| {sites} | not reported by this system |"),
    }
    platform.assert_moved(Color::Green, Color::Green);
}
