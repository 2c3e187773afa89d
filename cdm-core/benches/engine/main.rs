//! What the engine costs: per step, against a bare loop that makes the same calls, and as a fleet grows.
//!
//! Prints tables and demands nothing: `cargo bench -p cdm-core --bench engine`. What the columns mean is written in
//! `docs/performance.md`.
#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program that measures and prints"
)]

mod codec;
mod measure;
mod platform;
mod tap;

use std::process::Command;

use cdm_core::domain::Color;

use measure::{Rounds, Took, time};
use platform::{Fakes, Platform, Single};
use tap::{Counts, Recorder, Request, Trace, counts};

/// Rounds of each measure, besides the first, which only warms up.
const ROUNDS: usize = 7;
/// Rounds of the slowest measure: fleets that grow, on fakes that encode and decode.
const FEW: usize = 3;
/// The rollout whose cost per step is taken.
const BULK: u32 = 10_000;
/// Single operations in a round, and how many of them are accepted at once: as many as a worker runs side by side.
const SINGLES: u32 = 2_048;
const AT_ONCE: u32 = 64;
/// The fleets whose costs per site are compared.
const SIZES: [u32; 4] = [100, 1_000, 10_000, 100_000];
/// What a call's coding would cost with the leanest codec, in nanoseconds.
const LIGHT: f64 = 5_000.0;
/// Sites that a fleet moves in a round at the least, so that a small one is moved many times.
const LEAST: u32 = 10_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, sites] = arguments.as_slice()
        && word == "memory"
        && let Ok(sites) = sites.parse()
    {
        return memory_of(sites);
    }
    println!("Times are of this thread on a processor; medians [least–most] of {ROUNDS} rounds.\n");
    steps();
    growth();
    memory();
}

/// What is done in a round.
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

/// Three platforms alike: on one the engine's calls are recorded, on one the engine is timed, on one the bare loop.
struct Trio {
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

impl Trio {
    fn new(load: Load, sites: u32, fakes: Fakes) -> Self {
        Self {
            load,
            sites,
            recorder: Platform::new(sites, Fakes::Free, Some(Recorder::default())),
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

    /// Moves every site to the other service, `passes` times, by the engine and by the bare loop in turns.
    fn round(&mut self, passes: u32) {
        let (mut engine, mut bare) = (Took::default(), Took::default());
        self.counts.clear();
        for pass in 0..passes {
            self.to = self.to.other();
            for platform in [&self.recorder, &self.engine, &self.bare] {
                platform.aim(self.to);
            }
            let batches: Vec<std::ops::Range<u32>> = match self.load {
                Load::Rollout => std::iter::once(0..self.sites).collect(),
                Load::Single(_) => {
                    (0..self.sites / AT_ONCE).map(|n| n * AT_ONCE..(n + 1) * AT_ONCE).collect()
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

    /// Requests per site.
    fn per_site(&self, wanted: impl Fn(Request) -> bool) -> f64 {
        let found = self.counts.iter().filter(|(request, _)| wanted(**request));
        found.fold(0.0, |sum, (_, millionths)| sum + *millionths as f64 / 1e6)
    }

    fn own_ns(&self) -> Rounds {
        self.engine_ns.with(&self.bare_ns, |engine, bare| engine - bare)
    }
}

fn steps() {
    let loads = [Load::Single(Single::Upgrade), Load::Single(Single::Promote), Load::Rollout];
    let sites = |load| if load == Load::Rollout { BULK } else { SINGLES };
    let trios = |fakes| loads.map(|load| Trio::new(load, sites(load), fakes));
    let (mut free, mut encoding) = (trios(Fakes::Free), trios(Fakes::Encoding));
    for _ in 0..=ROUNDS {
        for trio in free.iter_mut().chain(&mut encoding) {
            trio.round(1);
        }
    }
    println!(
        "(a) Fakes that cost nothing: ns per site, and the engine's own ns per step; target 1000 a step\n"
    );
    println!("| operation | steps | reads | engine | bare loop | engine's own | own a step |");
    println!("|---|---|---|---|---|---|---|");
    for trio in &free {
        let steps = trio.per_site(Request::is_step);
        println!(
            "| {} | {steps:.3} | {:.3} | {} | {} | {} | {} |",
            trio.load.name(),
            trio.per_site(|request| !request.is_step() && request != Request::Beat),
            trio.engine_ns,
            trio.bare_ns,
            trio.own_ns(),
            trio.own_ns().each(|own| own / steps),
        );
    }
    println!("\n(b) Fakes that encode and decode: ns per site; ratio of the rates, target 0.80\n");
    println!(
        "| operation | calls | engine | bare loop | ratio | a call's coding | ratio, were it {LIGHT} ns |"
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
            free.bare_ns
                .with(&free.engine_ns, |bare, engine| { (bare + calls * LIGHT) / (engine + calls * LIGHT) }),
        );
    }
    println!();
}

fn growth() {
    for (fakes, rounds, title) in [
        (Fakes::Free, ROUNDS, "fakes that cost nothing"),
        (Fakes::Encoding, FEW, "fakes that encode and decode"),
    ] {
        let mut trios = SIZES.map(|sites| Trio::new(Load::Rollout, sites, fakes));
        for round in 0..=rounds {
            let passes = |sites: u32| (LEAST / sites).max(1);
            if round % 2 == 0 {
                trios.iter_mut().for_each(|trio| trio.round(passes(trio.sites)));
            } else {
                trios.iter_mut().rev().for_each(|trio| trio.round(passes(trio.sites)));
            }
        }
        let [_, base, ..] = &trios;
        if fakes == Fakes::Free {
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
                    of(Request::Complete),
                    of(Request::Write),
                    of(Request::Beat),
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
            "(c) ns per site of a rollout, promote, {title}, {rounds} rounds; target: 1.10 of 1000 sites\n"
        );
        println!(
            "| sites | engine, wall | engine | of 1000 | bare loop | of 1000 | engine's own | of 1000 |"
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

/// Each fleet in a process of its own, so that none grows into what another has left.
fn memory() {
    println!("(c) Resident memory, MB; target: 16 MB more at 100000 sites than at 1000\n");
    println!("| sites | fakes before | accepting, most | kept after | driving, most | kept after |");
    println!("|---|---|---|---|---|---|");
    for sites in SIZES {
        let program = std::env::current_exe().unwrap_or_else(|error| panic!("no program: {error}"));
        let output = Command::new(program).args(["memory", &sites.to_string()]).output();
        match output {
            Ok(output) => print!("{}", String::from_utf8_lossy(&output.stdout)),
            Err(error) => println!("| {sites} | not measured: {error} |"),
        }
    }
}

fn memory_of(sites: u32) {
    let platform = Platform::new(sites, Fakes::Free, None);
    platform.aim(Color::Green);
    let measured = || -> Option<[f64; 5]> {
        let megabytes = |more: u64, less: u64| more.saturating_sub(less) as f64 / 1024.0;
        let (before, _) = measure::forget_peak().then(measure::resident)??;
        platform.accept_rollout();
        let (accepted, peak) = measure::resident()?;
        let (accepting, kept) = (megabytes(peak, before), megabytes(accepted, before));
        measure::forget_peak().then_some(())?;
        platform.work();
        let (after, peak) = measure::resident()?;
        Some([megabytes(before, 0), accepting, kept, megabytes(peak, accepted), megabytes(after, accepted)])
    };
    match measured() {
        Some([before, accepting, kept, driving, left]) => {
            println!("| {sites} | {before:.1} | {accepting:.1} | {kept:.1} | {driving:.1} | {left:.1} |");
        }
        None => println!("| {sites} | this system does not tell |"),
    }
    platform.assert_moved(Color::Green, Color::Green);
}
