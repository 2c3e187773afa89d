//! WordPress installations that are interrupted after each table and each group of rows, under every single fault of
//! the provision.
//!
//! However the job ends, a site that becomes active is completely installed, including its administrator, and the
//! database of a site that may have been used is never recreated. The invariants `SignIn` and `KeptDatabase` check
//! this.

use cdm_core::domain::site::Activation;
use cdm_core::domain::{Epoch, OperationKind, ReasonCode, State, Status, TerminalStatus};
use cdm_testkit::campaign::{Campaign, catch_panic, full};
use cdm_testkit::faults::{CallSite, Fault, Plan};
use cdm_testkit::installation::Installation;
use cdm_testkit::log::EffectKind;
use cdm_testkit::world::{Verb, World};

/// Returns after how many writes the installations are interrupted, one after another: each point once; in the full
/// campaign also every point followed by another.
fn cuts() -> Vec<Vec<usize>> {
    let each = 0..=Installation::WRITES;
    let once = each.clone().map(|cut| vec![cut]);
    // The second installation is interrupted elsewhere: it finds a recreated database.
    let twice = each.map(|cut| vec![cut, Installation::WRITES - cut]);
    once.chain(twice.filter(|_| full())).collect()
}

fn provisioned(cuts: &[usize], plan: Option<&Plan>) -> (World, Vec<CallSite>) {
    let mut world = World::new(1);
    let _ = world.create("rrr");
    world.run();
    world.cluster.interrupt_installs(cuts.iter().copied());
    match plan {
        Some(plan) => world.faults.arm(plan.clone()),
        None => world.faults.start_trace(),
    }
    let _ = world.on_site("rrr", Verb::Provision);
    world.run();
    let trace = if plan.is_none() { world.faults.trace() } else { Vec::new() };
    (world, trace)
}

/// Returns the violations and problems of the final state.
fn wrong(world: &mut World) -> Vec<String> {
    let mut wrong: Vec<String> = world.violations().iter().map(ToString::to_string).collect();
    let sites = world.store.all_sites();
    let site = sites.iter().find(|site| site.id.as_str() == "rrr");
    let state = site.map(|site| (site.state(), site.activation));
    if state != Some((State::Active, Activation::Ever)) {
        wrong.push(format!("it ended as {state:?}"));
    }
    let complete =
        site.and_then(|site| world.databases.contents(site.uid)).is_some_and(|it| it.is_complete());
    if !complete {
        wrong.push("its installation is not complete".to_owned());
    }
    wrong
}

fn run(cuts: &[usize], plan: &Plan) -> Result<(), String> {
    let result = catch_panic(|| {
        let (mut world, _) = provisioned(cuts, Some(plan));
        let fired = world.faults.fired();
        world.converge();
        let mut wrong = wrong(&mut world);
        if fired == 0 {
            wrong.push("the fault did not occur".to_owned());
        }
        wrong
    });
    let wrong = result.unwrap_or_else(|panic| vec![panic]);
    if wrong.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = cuts.iter().map(|cut| Installation::write_name(*cut)).collect();
    Err(format!("cut before {names:?}, {plan:?}:\n    {}", wrong.join("\n    ")))
}

#[test]
fn install_cuts() {
    let mut all = Vec::new();
    let mut renewals = 0;
    for cuts in cuts() {
        let (mut world, trace) = provisioned(&cuts, None);
        let wrong = wrong(&mut world);
        assert!(wrong.is_empty(), "cut after {cuts:?} without faults: {wrong:#?}");
        let log = world.log.since(0);
        renewals += log.iter().filter(|effect| matches!(effect.kind, EffectKind::DatabaseRenewed(_))).count();
        for (at, call) in trace.iter().enumerate() {
            let faults = Fault::KINDS.into_iter().filter(|fault| call.supports(*fault));
            all.extend(faults.map(|fault| (cuts.clone(), Plan(vec![(at, fault)]))));
        }
    }
    let campaign = Campaign::new("install-cuts").over(&all, |(cuts, plan)| run(cuts, plan));
    let points = Installation::WRITES + 1;
    campaign.end(&format!("{points} points, {renewals} databases recreated without faults"));
}

/// A partial installation of a site whose record states that it was active: an administrator decides.
#[test]
fn the_database_of_a_formerly_active_site_is_kept() {
    for used in [Used::Active, Used::Routed] {
        let mut world = World::new(1);
        let _ = world.create("rrr");
        world.run();
        let uid = world.store.all_sites()[0].uid;
        world.edit_site("rrr", |site| match used {
            Used::Active => site.activation = Activation::Ever,
            Used::Routed => {
                let fence = cdm_core::domain::Fence::new(1, Epoch(1));
                site.route = Some(cdm_core::domain::Routed { service: site.service, fence });
            }
        });
        // The partial installation exists; every later job finds it.
        world.cluster.interrupt_installs([14]);
        let _ = world.on_site("rrr", Verb::Provision);
        world.run();
        let site = world.store.all_sites().remove(0);
        let operation = site.operation.expect("an operation");
        assert_eq!((operation.input.kind(), operation.status), (OperationKind::Provision, Status::Parked));
        let reason = operation.reason.expect("a reason");
        assert_eq!(reason.code, ReasonCode::InstallIncomplete, "{reason:?}");
        assert_eq!(world.databases.contents(uid).map(|it| it.writes()), Some(14));
        let renewed =
            world.log.since(0).iter().any(|effect| matches!(effect.kind, EffectKind::DatabaseRenewed(_)));
        assert!(!renewed);
    }
}

#[derive(Clone, Copy, Debug)]
enum Used {
    Active,
    Routed,
}

/// A record of an older version does not state whether its site was active; the phase `created` states that it was
/// not.
#[test]
fn a_record_of_an_older_version_is_judged_by_its_phase() {
    let mut world = World::new(1);
    let _ = world.create("rrr");
    world.run();
    world.edit_site("rrr", |site| site.activation = Activation::Unrecorded);
    world.cluster.interrupt_installs([14]);
    let _ = world.on_site("rrr", Verb::Provision);
    world.run();
    assert_eq!(wrong(&mut world), Vec::<String>::new());
    let ended = world.log.since(0).iter().any(
        |effect| matches!(&effect.kind, EffectKind::Ended(it) if it.state.status == Status::Ended(TerminalStatus::Succeeded)),
    );
    assert!(ended);
}
