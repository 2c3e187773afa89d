//! Every port of every pipeline away for a minute: stopped, refusing connections, asking for fewer calls, denying, slow;
//! from its first call on and from the first call of each of its methods, with one worker, and with one that dies in the
//! outage and another that takes over.
//!
//! Everything ends as asked, nothing is parked or paused that is not without the outage, and the calls to the port during
//! its outage have a bound. An outage that lasts longer than a step's patience parks the operation with the last error,
//! and a retry after it ends as asked.

mod campaign;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use campaign::{Campaign, caught};
use cdm_core::domain::{ReasonCode, RolloutStatus, Status};
use cdm_core::ports::Clock;
use cdm_testkit::faults::{CallSite, Outage, OutageKind};
use cdm_testkit::log::What;
use cdm_testkit::world::{Scenario, Summary, World, scenarios};

const MINUTE: Duration = Duration::from_secs(60);
/// How many calls a port may be sent in a minute in which it does not serve, of one operation or rollout and a worker.
const MOST: usize = 130;

/// A scenario without an outage.
struct Reference {
    scenario: Scenario,
    summary: Summary,
    stops: BTreeSet<String>,
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
    Reference { summary: Summary::of(&world), stops: stops(&world, before), scenario, trace }
}

/// What a person had to look at since then: operations that were parked, rollouts that paused or halted.
fn stops(world: &World, since: usize) -> BTreeSet<String> {
    let operation = |operation: Option<&cdm_core::domain::OperationState>| {
        let operation = operation.filter(|operation| operation.status == Status::Parked)?;
        Some(format!("{} {:?}", operation.input.kind(), operation.reason.as_ref().map(|reason| reason.code)))
    };
    let effects = world.log.since(since).into_iter();
    effects
        .filter_map(|effect| match effect.what {
            What::Site(_, Some(site)) => operation(site.operation.as_ref()),
            What::Colour(service) => operation(service.operation.as_ref()),
            What::Fleet(fleet) => operation(fleet.operation.as_ref()),
            What::Rollout(rollout) => {
                let stopped = matches!(rollout.status, RolloutStatus::Paused | RolloutStatus::Halted);
                let code = rollout.reason.as_ref().map(|reason| reason.code);
                // Who is on duty lets a rollout go on whose sites could not be asked.
                let stopped = stopped && code != Some(ReasonCode::GateInconclusive);
                stopped.then(|| format!("rollout {} {code:?}", rollout.status.as_str()))
            }
            _ => None,
        })
        .collect()
}

/// The first call of each method of each port, counted among the port's own calls.
fn beginnings(trace: &[CallSite]) -> Vec<(&'static str, &'static str, usize)> {
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

/// One run: what is wrong with what it came to, and how many calls there were in the outage.
fn outlived(reference: &Reference, outage: Outage) -> (Vec<String>, usize) {
    let mut world = World::new(1);
    (reference.scenario.before)(&mut world);
    let before = world.log.len();
    world.faults.outage(Some(outage));
    (reference.scenario.act)(&mut world);
    let (began, during) = world.faults.outage_calls();
    world.faults.outage(None);
    let stopped = stops(&world, before);
    let summary = Summary::of(&world);
    let mut wrong: Vec<String> = world.violations().iter().map(ToString::to_string).collect();
    let difference = if reference.scenario.same_way {
        reference.summary.difference(&summary)
    } else {
        reference.summary.clone().end_state().difference(&summary.end_state())
    };
    wrong.extend(difference);
    wrong.extend(stopped.difference(&reference.stops).map(|stop| format!("a person is needed: {stop}")));
    if !began {
        wrong.push("the outage did not begin".to_owned());
    }
    if during > MOST {
        wrong.push(format!("{during} calls in the outage"));
    }
    (wrong, during)
}

#[test]
fn outages() {
    let references: Vec<Reference> = scenarios().into_iter().map(reference).collect();
    let mut all = Vec::new();
    for reference in &references {
        for (port, name, from) in beginnings(&reference.trace) {
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
        let (wrong, during) =
            caught(|| outlived(reference, *outage)).map_err(|panic| format!("{}: {panic}", at()))?;
        let mut calls = calls.lock().expect("a count");
        let most = calls.entry(outage.port).or_default();
        *most = (*most).max(during);
        if wrong.is_empty() { Ok(()) } else { Err(format!("{}:\n    {}", at(), wrong.join("\n    "))) }
    });
    let calls = calls.into_inner().expect("the counts");
    let most: Vec<String> = calls.iter().map(|(port, most)| format!("{port} {most}")).collect();
    campaign.end(&format!("0 parked, at most so many calls to a port in its minute: {}", most.join(", ")));
}

/// Two hours of it, for each operation that is not a rollout and each port but the store, without which nothing can be
/// written down.
#[test]
fn outages_longer_than_patience() {
    let references: Vec<Reference> = scenarios()
        .into_iter()
        .filter(|scenario| !scenario.name.starts_with("rollout") && scenario.name != "promote-cancelled")
        .map(reference)
        .collect();
    let mut all = Vec::new();
    for reference in &references {
        for (port, name, from) in beginnings(&reference.trace).into_iter().filter(|it| it.0 != "store") {
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
        let (wrong, stopped) =
            caught(|| given_up(reference, *outage)).map_err(|panic| format!("{}: {panic}", at()))?;
        parked.fetch_add(usize::from(stopped), std::sync::atomic::Ordering::Relaxed);
        if wrong.is_empty() { Ok(()) } else { Err(format!("{}:\n    {}", at(), wrong.join("\n    "))) }
    });
    let parked = parked.into_inner();
    campaign.end(&format!("{parked} parked with the last error, each ended as asked after a retry"));
}

fn given_up(reference: &Reference, outage: Outage) -> (Vec<String>, bool) {
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
            .ask(move |manager, request| Box::pin(async move { manager.resume(&request, number).await }));
        wrong.extend(resumed.err().map(|error| error.to_string()));
    }
    world.converge();
    let summary = Summary::of(&world);
    wrong.extend(world.violations().iter().map(ToString::to_string));
    wrong.extend(reference.summary.clone().end_state().difference(&summary.end_state()));
    (wrong, !parked.is_empty())
}
