//! Every port call of every pipeline, broken in every way; then pairs of faults.
//!
//! The oracle is differential: a run with faults, once these have ended, must come to the same end state and to the
//! same counts of creates, deletes and moves as the run without. The invariants are checked after every effect of
//! either. A planned fault that did not happen fails the campaign.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a replayed plan is printed, and named by the environment"
)]

mod campaign;

use campaign::{Campaign, caught, full, seed};
use cdm_testkit::faults::{CallSite, Fault, Plan};
use cdm_testkit::ids::Rng;
use cdm_testkit::world::{Scenario, Summary, World, scenarios};

/// A scenario without faults: what it comes to, and the calls it makes.
struct Reference {
    scenario: Scenario,
    summary: Summary,
    trace: Vec<CallSite>,
}

fn reference(scenario: Scenario) -> Reference {
    let mut world = World::new(1);
    (scenario.before)(&mut world);
    world.faults.start_trace();
    (scenario.act)(&mut world);
    let trace = world.faults.trace();
    let violations = world.violations();
    assert!(violations.is_empty(), "{} without faults: {violations:#?}", scenario.name);
    Reference { scenario, summary: Summary::of(&world), trace }
}

/// Runs a plan; what is wrong with what it came to.
fn broken(reference: &Reference, plan: &Plan, must_fire: usize) -> Result<(), String> {
    let run = || {
        let mut world = World::new(1);
        (reference.scenario.before)(&mut world);
        world.faults.arm(plan.clone());
        (reference.scenario.act)(&mut world);
        let fired = world.faults.fired();
        world.converge();
        let summary = Summary::of(&world);
        let difference = if reference.scenario.same_way {
            reference.summary.difference(&summary)
        } else {
            reference.summary.clone().end_state().difference(&summary.end_state())
        };
        let mut wrong: Vec<String> = world.violations().iter().map(ToString::to_string).collect();
        if fired < must_fire {
            wrong.push(format!("only {fired} faults happened"));
        }
        wrong.extend(difference);
        wrong
    };
    let wrong = caught(run).unwrap_or_else(|panic| vec![panic]);
    if wrong.is_empty() {
        return Ok(());
    }
    let at: Vec<String> =
        plan.0.iter().map(|(at, fault)| format!("{} {fault:?}", site(reference, *at))).collect();
    Err(format!("{} {plan:?} ({}):\n    {}", reference.scenario.name, at.join(", "), wrong.join("\n    ")))
}

fn site(reference: &Reference, at: usize) -> &'static str {
    reference.trace.get(at).map_or("?", |call| call.name)
}

/// Every call with every fault that it takes.
fn singles(reference: &Reference) -> Vec<(usize, Fault)> {
    let calls = reference.trace.iter().enumerate();
    calls
        .flat_map(|(at, call)| {
            Fault::KINDS.into_iter().filter(|fault| call.takes(*fault)).map(move |f| (at, f))
        })
        .collect()
}

#[test]
fn single_faults() {
    let references: Vec<Reference> = scenarios().into_iter().map(reference).collect();
    let calls: Vec<String> =
        references.iter().map(|r| format!("{} {}", r.scenario.name, r.trace.len())).collect();
    let all: Vec<_> =
        references.iter().flat_map(|r| singles(r).into_iter().map(move |single| (r, single))).collect();
    let campaign =
        Campaign::new("single-faults").over(&all, |(r, single)| broken(r, &Plan(vec![*single]), 1));
    campaign.end(&format!("calls without faults: {}", calls.join(", ")));
}

#[test]
fn pairs() {
    let references: Vec<Reference> = scenarios().into_iter().map(reference).collect();
    let mut all = Vec::new();
    for (index, reference) in references.iter().enumerate() {
        let singles = singles(reference);
        for (position, first) in singles.iter().enumerate() {
            let later = singles[position + 1..].iter().filter(|second| second.0 > first.0);
            all.extend(later.map(|second| (index, [*first, *second])));
        }
    }
    let total = all.len();
    let seed = seed();
    let sample = if full() { total } else { 20_000.min(total) };
    let mut rng = Rng::new(seed);
    for drawn in 0..sample {
        // A partial Fisher-Yates shuffle: a sample without repetition.
        let rest = (total - drawn) as u64;
        all.swap(drawn, drawn + usize::try_from(rng.below(rest)).unwrap_or_default());
    }
    all.truncate(sample);
    // The second fault may lie on a path that the first one has closed.
    let campaign = Campaign::new("pairs")
        .over(&all, |(index, pair)| broken(&references[*index], &Plan(pair.to_vec()), 1));
    campaign.end(&format!("of {total} pairs, seed {seed}"));
}

/// Plays one plan again, such as `CDM_PLAN="promote;10 Stale" cargo test -p cdm-core --test faults replay`, and prints
/// what happened: the way to look at a failing plan.
#[test]
fn replay() {
    let Ok(text) = std::env::var("CDM_PLAN") else { return };
    let mut parts = text.split(';');
    let name = parts.next().unwrap_or_default();
    let scenario =
        scenarios().into_iter().find(|scenario| scenario.name == name).expect("a scenario of that name");
    let faults = parts.map(|part| {
        let (at, fault) = part.trim().split_once(' ').expect("an ordinal and a fault");
        let known = Fault::KINDS.into_iter().find(|known| format!("{known:?}") == fault);
        (at.parse().expect("an ordinal"), known.expect("a fault"))
    });
    let plan = Plan(faults.collect());
    let reference = reference(scenario);
    for (at, call) in reference.trace.iter().enumerate() {
        println!("{at} {}", call.name);
    }
    let mut world = World::new(1);
    (scenario.before)(&mut world);
    let before = world.log.len();
    world.faults.arm(plan.clone());
    let act = std::panic::AssertUnwindSafe(|| (scenario.act)(&mut world));
    let rested = std::panic::catch_unwind(act);
    for effect in world.log.since(before) {
        println!("{} {} {}", effect.at.millis(), effect.by, shown(&effect.what));
    }
    println!("{:?}", rested.is_ok());
    println!("{:?}", broken(&reference, &plan, 1));
}

fn shown(what: &cdm_testkit::log::What) -> String {
    use cdm_testkit::log::What;
    let operation = |operation: Option<&cdm_core::domain::OperationState>| {
        operation.map(|s| {
            format!(
                "{} {} {:?} e{} a{} {:?} holds {:?}",
                s.number,
                s.status,
                s.position,
                s.epoch,
                s.attempts,
                s.reason.as_ref().map(|r| &r.message),
                s.locked_color
            )
        })
    };
    match what {
        What::Site(_, after) => {
            format!("site {:?}", after.as_ref().map(|site| operation(site.operation.as_ref())))
        }
        What::Colour(service) => {
            format!("colour {} {:?} {:?}", service.color, operation(service.operation.as_ref()), service.lock)
        }
        What::Rollout(r) => {
            format!(
                "rollout {:?} {:?} {:?} term {} {:?} {:?}",
                r.status,
                r.window,
                r.control,
                r.term,
                r.counts(),
                r.owner.as_ref().map(|owner| owner.as_str())
            )
        }
        other => format!("{other:?}"),
    }
}
