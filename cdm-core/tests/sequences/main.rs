//! Random sequences: thirty commands on a platform that may be in use, including faults and operator actions, checked
//! against a model of the expected results.
//!
//! The result of the campaign contains its seed. `CDM_SEQUENCE=<seed> cargo test -p cdm-core --test sequences` replays
//! one sequence; a failing sequence is printed without the commands that are not needed for the failure.

#![allow(clippy::print_stdout, reason = "a replayed sequence is printed")]

mod commands;
mod model;
mod run;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use cdm_core::domain::SiteId;
use cdm_testkit::backends;
use cdm_testkit::campaign::{Campaign, catch_panic, full, seed};
use cdm_testkit::faults::Fault;
use cdm_testkit::ids::Rng;
use commands::{Command, SITES, generate};
use run::{Histogram, name, run_sequence};

/// Maximum number of failing sequences that are shrunk.
const SHRUNK: u32 = 8;

fn site_id(site: usize) -> SiteId {
    SiteId::parse(SITES[site]).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a sequence, and returns the problems.
fn wrong(seed: u64, commands: &[Command]) -> (Histogram, Vec<String>) {
    catch_panic(|| run_sequence(seed, commands))
        .unwrap_or_else(|panic| (Histogram::new(), vec![format!("Panic: {panic}")]))
}

/// Returns the name of the violated invariant; two runs with the same name fail in the same way.
fn invariant(wrong: &[String]) -> Option<&str> {
    wrong.first().and_then(|wrong| wrong.split(':').next())
}

/// Removes commands as long as the sequence fails in the same way, first many at a time, then one by one.
fn shrink(seed: u64, commands: &[Command]) -> (Vec<Command>, Vec<String>) {
    let (mut kept, mut failure) = (commands.to_vec(), wrong(seed, commands).1);
    let mut size = kept.len() / 2;
    while size > 0 {
        let (mut at, mut smaller) = (0, false);
        while at < kept.len() {
            let end = kept.len().min(at + size);
            let less: Vec<Command> = [&kept[..at], &kept[end..]].concat();
            let now = wrong(seed, &less).1;
            if invariant(&now) == invariant(&failure) {
                (kept, failure, smaller) = (less, now, true);
            } else {
                at = end;
            }
        }
        if size > 1 || !smaller {
            size /= 2;
        }
    }
    (kept, failure)
}

fn report(seed: u64, commands: &[Command], wrong: &[String]) -> String {
    let commands: Vec<String> = commands.iter().map(|command| format!("        {command:?}")).collect();
    format!("sequence {seed}:\n{}\n    {}", commands.join("\n"), wrong.join("\n    "))
}

#[test]
fn sequences() {
    let seed = seed();
    let count = if full() { 100_000 } else { 10_000 };
    let mut rng = Rng::new(seed);
    let seeds: Vec<u64> = (0..count).map(|_| rng.next()).collect();
    let histogram = Mutex::new(Histogram::new());
    let shrunk = AtomicU32::new(0);
    let mut campaign = Campaign::new("sequences").over(&seeds, |seed| {
        let commands = generate(&mut Rng::new(*seed));
        let (happened, failure) = wrong(*seed, &commands);
        let mut all = histogram.lock().unwrap_or_else(PoisonError::into_inner);
        happened.into_iter().for_each(|(what, times)| *all.entry(what).or_default() += times);
        drop(all);
        if failure.is_empty() {
            return Ok(());
        }
        let first = shrunk.fetch_add(1, Ordering::SeqCst) < SHRUNK;
        let (commands, failure) = if first { shrink(*seed, &commands) } else { (Vec::new(), failure) };
        Err(report(*seed, &commands, &failure))
    });
    let histogram = histogram.into_inner().unwrap_or_else(PoisonError::into_inner);
    let kinds = Command::KINDS.into_iter().chain(Fault::KINDS.into_iter().map(name));
    for kind in kinds.filter(|kind| !histogram.contains_key(kind)) {
        campaign.run(Err(format!("`{kind}` never happened")));
    }
    let shown: Vec<String> = histogram.iter().map(|(what, times)| format!("{what} {times}")).collect();
    campaign.end(&format!("seed {seed}: {}", shown.join(", ")));
}

/// Replays one sequence and prints it, shrunk if it fails.
#[test]
fn replay() {
    let Some(seed) = backends::optional("CDM_SEQUENCE") else { return };
    let seed = seed.parse().expect("a seed");
    let commands = generate(&mut Rng::new(seed));
    let (_, failure) = wrong(seed, &commands);
    if failure.is_empty() {
        return println!("{}", report(seed, &commands, &["nothing is wrong".to_owned()]));
    }
    let (commands, failure) = shrink(seed, &commands);
    panic!("{}", report(seed, &commands, &failure));
}
