//! Every port of every pipeline is unavailable for a minute: stopped, refusing connections, throttling, denying, or
//! slow; from its first call on, and from the first call of each of its methods; with one worker, and with a worker
//! that dies during the outage and a successor.
//!
//! Every operation ends as requested, nothing is parked or paused that is not without the outage, and the number of
//! calls to the port during its outage is bounded. An outage longer than a step's timeout parks the operation with the
//! last error, and a retry after the outage succeeds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use cdm_core::domain::{ReasonCode, RolloutStatus, Status};
use cdm_core::ports::Clock;
use cdm_testkit::campaign::{Campaign, catch_panic};
use cdm_testkit::faults::{CallSite, Outage, OutageKind};
use cdm_testkit::log::EffectKind;
use cdm_testkit::world::{Scenario, Summary, World, scenarios};

const MINUTE: Duration = Duration::from_secs(60);
/// Maximum number of calls to an unavailable port within a minute, for one operation or rollout and one worker.
const MAX_CALLS: usize = 130;

/// A scenario run without an outage.
struct Reference {
    scenario: Scenario,
    summary: Summary,
    interventions: BTreeSet<String>,
    trace: Vec<CallSite>,
}

fn reference(scenario: Scenario) -> Reference {
    let mut world = World::new(1);
    (scenario.before)(&mut world);
    let before = world.log.len();
    world.faults.start_trace();
    (scenario.act)(&mut world);
    let trace = world.faults.trace();
    let violations = world.violations();
    assert!(violations.is_empty(), "{} without an outage: {violations:#?}", scenario.name);
    Reference { summary: Summary::of(&world), interventions: interventions(&world, before), scenario, trace }
}

/// Returns what required an operator since effect `since`: parked operations, and rollouts that paused or halted.
fn interventions(world: &World, since: usize) -> BTreeSet<String> {
    let operation = |operation: Option<&cdm_core::domain::OperationState>| {
        let operation = operation.filter(|operation| operation.status == Status::Parked)?;
        Some(format!("{} {:?}", operation.input.kind(), operation.reason.as_ref().map(|reason| reason.code)))
    };
    let effects = world.log.since(since).into_iter();
    effects
        .filter_map(|effect| match effect.kind {
            EffectKind::Site(_, Some(site)) => operation(site.operation.as_ref()),
            EffectKind::Service(service) => operation(service.operation.as_ref()),
            EffectKind::Fleet(fleet) => operation(fleet.operation.as_ref()),
            EffectKind::Rollout(rollout) => {
                let stopped = matches!(rollout.status, RolloutStatus::Paused | RolloutStatus::Halted);
                let code = rollout.reason.as_ref().map(|reason| reason.code);
                // An operator resumes a rollout whose sites could not be probed.
                let stopped = stopped && code != Some(ReasonCode::GateInconclusive);
                stopped.then(|| format!("rollout {} {code:?}", rollout.status.as_str()))
            }
            _ => None,
        })
        .collect()
}

/// Returns the first call of each method of each port, counted among the calls of that port.
fn first_calls(trace: &[CallSite]) -> Vec<(&'static str, &'static str, usize)> {
    let (mut calls, mut seen, mut found) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
    for call in trace {
        let port = call.name.split('.').next().unwrap_or_default();
        let at = calls.entry(port).or_insert(0_usize);
        if seen.insert(call.name) {
            found.push((port, call.name, *at));
        }
        *at += 1;
    }
    found
}

/// Runs one outage, and returns the problems and the number of calls during the outage.
fn run_with_outage(reference: &Reference, outage: Outage) -> (Vec<String>, usize) {
    let mut world = World::new(1);
    (reference.scenario.before)(&mut world);
    let before = world.log.len();
    world.faults.outage(Some(outage));
    (reference.scenario.act)(&mut world);
    let (began, during) = world.faults.outage_calls();
    world.faults.outage(None);
    let stopped = interventions(&world, before);
    let summary = Summary::of(&world);
    let mut wrong: Vec<String> = world.violations().iter().map(ToString::to_string).collect();
    let difference = if reference.scenario.same_effects {
        reference.summary.difference(&summary)
    } else {
        reference.summary.clone().end_state().difference(&summary.end_state())
    };
    wrong.extend(difference);
    wrong.extend(
        stopped.difference(&reference.interventions).map(|stop| format!("an operator is needed: {stop}")),
    );
    if !began {
        wrong.push("the outage did not begin".to_owned());
    }
    if during > MAX_CALLS {
        wrong.push(format!("{during} calls in the outage"));
    }
    (wrong, during)
}

#[test]
fn outages() {
    let references: Vec<Reference> = scenarios().into_iter().map(reference).collect();
    let mut all = Vec::new();
    for reference in &references {
        for (port, name, from) in first_calls(&reference.trace) {
            for kind in OutageKind::ALL {
                for crash in [None, Some(2)] {
                    all.push((reference, name, Outage { port, kind, from, lasts: MINUTE, crash }));
                }
            }
        }
    }
    let calls: Mutex<BTreeMap<&str, usize>> = Mutex::default();
    let campaign = Campaign::new("outages").over(&all, |(reference, name, outage)| {
        let at = || format!("{} from {name}, {outage:?}", reference.scenario.name);
        let (wrong, during) = catch_panic(|| run_with_outage(reference, *outage))
            .map_err(|panic| format!("{}: {panic}", at()))?;
        let mut calls = calls.lock().expect("a count");
        let most = calls.entry(outage.port).or_default();
        *most = (*most).max(during);
        if wrong.is_empty() { Ok(()) } else { Err(format!("{}:\n    {}", at(), wrong.join("\n    "))) }
    });
    let calls = calls.into_inner().expect("the counts");
    let most: Vec<String> = calls.iter().map(|(port, most)| format!("{port} {most}")).collect();
    campaign.end(&format!("0 parked, maximum number of calls to a port in its minute: {}", most.join(", ")));
}

/// Outages of two hours, for each operation that is not a rollout and each port except the store, without which no
/// state can be recorded.
#[test]
fn outages_longer_than_the_timeout() {
    let references: Vec<Reference> = scenarios()
        .into_iter()
        .filter(|scenario| !scenario.name.starts_with("rollout") && scenario.name != "promote-cancelled")
        .map(reference)
        .collect();
    let mut all = Vec::new();
    for reference in &references {
        for (port, name, from) in first_calls(&reference.trace).into_iter().filter(|it| it.0 != "store") {
            for kind in [OutageKind::Stopped, OutageKind::Refused, OutageKind::Throttled, OutageKind::Denied]
            {
                let lasts = 120 * MINUTE;
                all.push((reference, name, Outage { port, kind, from, lasts, crash: None }));
            }
        }
    }
    let parked = std::sync::atomic::AtomicUsize::new(0);
    let campaign = Campaign::new("outages-longer-than-patience").over(&all, |(reference, name, outage)| {
        let at = || format!("{} from {name}, {outage:?}", reference.scenario.name);
        let (wrong, stopped) = catch_panic(|| run_until_parked(reference, *outage))
            .map_err(|panic| format!("{}: {panic}", at()))?;
        parked.fetch_add(usize::from(stopped), std::sync::atomic::Ordering::Relaxed);
        if wrong.is_empty() { Ok(()) } else { Err(format!("{}:\n    {}", at(), wrong.join("\n    "))) }
    });
    let parked = parked.into_inner();
    campaign.end(&format!("{parked} parked with the last error, each succeeded after a retry"));
}

fn run_until_parked(reference: &Reference, outage: Outage) -> (Vec<String>, bool) {
    let mut world = World::new(1);
    (reference.scenario.before)(&mut world);
    world.faults.outage(Some(outage));
    let started = world.clock.wall();
    (reference.scenario.act)(&mut world);
    let mut wrong = Vec::new();
    let parked = world.parked();
    for site in world.store.all_sites() {
        let Some(operation) = site.operation.filter(|operation| operation.status == Status::Parked) else {
            continue;
        };
        let Some(reason) = operation.reason else { continue };
        let (code, least) = match outage.kind {
            OutageKind::Denied => (ReasonCode::Denied, 5 * MINUTE),
            _ => (ReasonCode::DeadlineExceeded, 60 * MINUTE),
        };
        let waited = reason.since.since(started);
        if reason.code != code || !reason.message.contains("injected") || waited < least {
            wrong.push(format!("parked after {} s: {reason:?}", waited.as_secs()));
        }
    }
    world.faults.outage(None);
    let paused = world.store.all_rollouts().into_iter().filter(|it| it.status == RolloutStatus::Paused);
    for rollout in paused.collect::<Vec<_>>() {
        let reason = rollout.reason.as_ref();
        if !reason.is_some_and(|reason| reason.message.contains("injected")) {
            wrong.push(format!("paused: {reason:?}"));
        }
        let number = rollout.number;
        let resumed = world
            .request(move |manager, request| Box::pin(async move { manager.resume(&request, number).await }));
        wrong.extend(resumed.err().map(|error| error.to_string()));
    }
    world.converge();
    let summary = Summary::of(&world);
    wrong.extend(world.violations().iter().map(ToString::to_string));
    wrong.extend(reference.summary.clone().end_state().difference(&summary.end_state()));
    (wrong, !parked.is_empty())
}
