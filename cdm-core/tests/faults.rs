//! Every port call of every pipeline with every fault; then pairs of faults.
//!
//! The oracle is differential: a run with faults must, after the faults have ended, reach the same final state and the
//! same counts of creates, deletes and moves as the run without faults. The invariants are checked after every effect
//! of either run. A planned fault that did not occur fails the campaign.

#![allow(clippy::print_stdout, reason = "a replayed plan is printed")]

use cdm_testkit::backends;
use cdm_testkit::campaign::{Campaign, catch_panic, full, seed};
use cdm_testkit::faults::{CallSite, Fault, Plan};
use cdm_testkit::ids::Rng;
use cdm_testkit::world::{Scenario, Summary, World, scenarios};

/// A scenario run without faults: its summary and its calls.
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

/// Runs a plan, and returns the violations and differences.
fn run_plan(reference: &Reference, plan: &Plan, must_fire: usize) -> Result<(), String> {
    let run = || {
        let mut world = World::new(1);
        (reference.scenario.before)(&mut world);
        world.faults.arm(plan.clone());
        (reference.scenario.act)(&mut world);
        let fired = world.faults.fired();
        world.converge();
        let summary = Summary::of(&world);
        let difference = if reference.scenario.same_effects {
            reference.summary.difference(&summary)
        } else {
            reference.summary.clone().end_state().difference(&summary.end_state())
        };
        let mut wrong: Vec<String> = world.violations().iter().map(ToString::to_string).collect();
        if fired < must_fire {
            wrong.push(format!("only {fired} faults occurred"));
        }
        wrong.extend(difference);
        wrong
    };
    let wrong = catch_panic(run).unwrap_or_else(|panic| vec![panic]);
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

/// Returns every call with every fault that applies to it.
fn singles(reference: &Reference) -> Vec<(usize, Fault)> {
    let calls = reference.trace.iter().enumerate();
    calls
        .flat_map(|(at, call)| {
            Fault::KINDS.into_iter().filter(|fault| call.supports(*fault)).map(move |f| (at, f))
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
        Campaign::new("single-faults").over(&all, |(r, single)| run_plan(r, &Plan(vec![*single]), 1));
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
        let remaining = (total - drawn) as u64;
        all.swap(drawn, drawn + usize::try_from(rng.below(remaining)).unwrap_or_default());
    }
    all.truncate(sample);
    // The second fault may be on a path that the first one prevents.
    let campaign = Campaign::new("pairs")
        .over(&all, |(index, pair)| run_plan(&references[*index], &Plan(pair.to_vec()), 1));
    campaign.end(&format!("of {total} pairs, seed {seed}"));
}

/// Replays one plan and prints its effects, to debug a failing plan: `CDM_PLAN="promote;10 Stale" cargo test -p
/// cdm-core --test faults replay`.
#[test]
fn replay() {
    let Some(text) = backends::optional("CDM_PLAN") else { return };
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
    let finished = std::panic::catch_unwind(act);
    for effect in world.log.since(before) {
        println!("{} {} {}", effect.at.millis(), effect.by, describe(&effect.kind));
    }
    println!("{:?}", finished.is_ok());
    println!("{:?}", run_plan(&reference, &plan, 1));
}

fn describe(what: &cdm_testkit::log::EffectKind) -> String {
    use cdm_testkit::log::EffectKind;
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
        EffectKind::Site(_, after) => {
            format!("site {:?}", after.as_ref().map(|site| operation(site.operation.as_ref())))
        }
        EffectKind::Service(service) => {
            format!("color {} {:?} {:?}", service.color, operation(service.operation.as_ref()), service.lock)
        }
        EffectKind::Rollout(r) => {
            format!(
                "rollout {:?} {:?} {:?} term {} {:?} {:?}",
                r.status,
                r.window(),
                r.control,
                r.term,
                r.counts(),
                r.owner.as_ref().map(|owner| owner.as_str())
            )
        }
        other => format!("{other:?}"),
    }
}
