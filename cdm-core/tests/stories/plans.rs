//! Plans: their content, their cost, and what invalidates them.

use cdm_core::domain::rollout::{Change, HealthGate, Plan, RolloutKind, RolloutSpec, WaveTarget};
use cdm_core::domain::service::Verdict;
use cdm_core::domain::{Color, RolloutStatus};
use cdm_core::manager::{ManagerError, RolloutScope};
use cdm_testkit::world::{Verb, World, digest};

use super::services::{deployed, mark};
use super::waves::{all, fleet, nth, status_and_code};
use super::{assert_sound, number, operation_id, start_as_planned, start_rollout};

/// A change between a plan and its request: a description and the change.
type PlanChange = (&'static str, fn(&mut World));

fn plan(world: &mut World, wanted: &RolloutSpec) -> Plan {
    let wanted = wanted.clone();
    let plan = world.request(move |manager, request| {
        let wanted = wanted.clone();
        Box::pin(async move { manager.plan(&request, &wanted).await })
    });
    plan.expect("a plan")
}

fn codes(plan: &Plan) -> Vec<&'static str> {
    plan.warnings.iter().map(|warning| warning.code).collect()
}

fn count(trace: &[cdm_testkit::faults::CallSite], names: &[&str]) -> u64 {
    trace.iter().filter(|call| names.contains(&call.name)).count() as u64
}

#[test]
fn a_plan_states_the_cost_of_its_rollout() {
    let gate = HealthGate::new("/").expect("a gate");
    let timed = gate.clone().with_latency(5_000).expect("a ratio");
    let three = vec![WaveTarget::Count(1), WaveTarget::Percent(10), WaveTarget::Percent(100)];
    for (kind, gate, waves) in [
        (RolloutKind::Promote, None, three.clone()),
        (RolloutKind::Promote, None, Vec::new()),
        (RolloutKind::Promote, Some(gate), three.clone()),
        (RolloutKind::Promote, Some(timed), three.clone()),
        (RolloutKind::Upgrade, None, three),
    ] {
        let mut world = fleet(150);
        for n in [3, 4, 90] {
            let _ = operation_id(world.on_site(&nth(n), Verb::Promote));
        }
        world.run();
        let wanted = RolloutSpec { kind, gate, waves, ..all(0) };
        let planned = plan(&mut world, &wanted);
        let sums: (u32, u32) =
            planned.waves.iter().fold((0, 0), |sum, w| (sum.0 + w.moves, sum.1 + w.in_place));
        assert_eq!(sums, (147, 3));
        let number = number(start_rollout(&mut world, &wanted));
        world.faults.start_trace();
        world.run();
        let trace = world.faults.trace();
        assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
        let calls = planned.calls;
        let seen = cdm_core::domain::rollout::CallEstimate {
            site_writes: count(&trace, &["store.claim", "store.complete"]),
            route_writes: count(&trace, &["cluster.move_route"]),
            checkpoints: calls.checkpoints,
            jobs: calls.jobs,
            probes: count(&trace, &["probe.probe"]),
        };
        assert_eq!(calls, seen, "{wanted:?}");
        // The faster sites are moved, the more of them one write and one job include.
        let writes = count(&trace, &["store.write"]);
        assert!((3..=calls.checkpoints).contains(&writes), "{writes} of {}", calls.checkpoints);
        let jobs = count(&trace, &["cluster.run_job"]);
        assert!((1..=calls.jobs).contains(&jobs), "{jobs} of {}", calls.jobs);
        assert_sound(&mut world);
    }
}

#[test]
fn a_plan_distinguishes_moves_from_sites_in_place_and_changes_nothing() {
    let mut world = fleet(130);
    let _ = operation_id(world.on_site(&nth(0), Verb::Promote));
    world.run();
    let wanted = RolloutSpec { auto_rollback: true, ..all(0) };
    let planned = plan(&mut world, &wanted);
    assert!(world.store.all_rollouts().is_empty());
    assert_eq!(
        (planned.sites.len(), planned.sites[0].2, planned.sites[1].2),
        (100, Change::InPlace, Change::Move)
    );
    assert_eq!((planned.sites[0].1, planned.sites[1].1, planned.sites[20].1), (0, 1, 2));
    assert_eq!(planned.steps, ["PatchIngress", "PatchService", "FlushCaches"]);
    assert_eq!(codes(&planned), ["in_place"]);
    assert_eq!(planned.hash.len(), 64);
    assert_eq!(plan(&mut world, &wanted), planned);
    let image = RolloutSpec { digest: Some(digest(7)), scope: RolloutScope::Active, ..wanted };
    let planned = plan(&mut world, &image);
    assert_eq!(codes(&planned), ["deploy_first", "in_place"]);
    assert!(
        planned.warnings[1].message.contains("1 sites are on `green` already and see the new image at once")
    );
    assert_eq!(planned.steps[..3], ["PatchImage", "WaitReady", "PatchCanaryEnv"]);
}

#[test]
fn a_plan_is_valid_until_one_of_its_inputs_changes() {
    let changes: [PlanChange; 6] = [
        ("an added site", |world| world.create_active_site("new")),
        ("a removed site", |world| {
            let _ = operation_id(world.on_site(&nth(3), Verb::Terminate));
        }),
        ("a moved site", |world| {
            let _ = operation_id(world.on_site(&nth(3), Verb::Promote));
        }),
        ("another canary", |world| {
            world.select(Color::Blue).unwrap();
        }),
        ("another image", |world| {
            let _ = operation_id(world.deploy(digest(5), Color::Green, false));
        }),
        ("a recreated site", |world| {
            let _ = operation_id(world.on_site(&nth(3), Verb::Terminate));
            world.run();
            world.create_active_site(&nth(3));
            let _ = operation_id(world.on_site(&nth(3), Verb::Promote));
        }),
    ];
    for (what, change) in changes {
        let mut world = fleet(8);
        let wanted = all(0);
        let hash = plan(&mut world, &wanted).hash;
        change(&mut world);
        world.run();
        let before = world.store.all_rollouts().len();
        assert_eq!(
            start_as_planned(&mut world, &wanted, &hash).unwrap_err(),
            ManagerError::PlanChanged,
            "{what}"
        );
        assert_eq!(world.store.all_rollouts().len(), before);
        let hash = plan(&mut world, &wanted).hash;
        let number = number(start_as_planned(&mut world, &wanted, &hash));
        world.run();
        assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None), "{what}");
        assert_sound(&mut world);
    }
    let mut world = fleet(8);
    let hash = plan(&mut world, &all(0)).hash;
    let other = RolloutSpec { max_concurrent: 5, ..all(0) };
    assert_eq!(start_as_planned(&mut world, &other, &hash).unwrap_err(), ManagerError::PlanChanged);
    // The digest that a rollback would restore.
    deployed(&mut world, 5, Color::Green);
    let wanted = RolloutSpec { auto_rollback: true, ..all(0) };
    let hash = plan(&mut world, &wanted).hash;
    let _ = mark(&mut world, digest(0), Verdict::Bad).unwrap();
    assert_eq!(start_as_planned(&mut world, &wanted, &hash).unwrap_err(), ManagerError::PlanChanged);
}

#[test]
fn empty_scopes_and_empty_waves_are_planned() {
    let mut world = fleet(3);
    let no_sites = RolloutSpec { scope: RolloutScope::Active, ..all(0) };
    let planned = plan(&mut world, &no_sites);
    assert_eq!((planned.waves.len(), codes(&planned)), (0, vec!["empty"]));
    assert_eq!(start_rollout(&mut world, &no_sites).unwrap_err(), ManagerError::EmptyPlan);
    // One percent of three sites is one site, and ten percent are the same site.
    let waves = vec![WaveTarget::Percent(1), WaveTarget::Percent(10), WaveTarget::Percent(100)];
    let planned = plan(&mut world, &RolloutSpec { waves, ..all(0) });
    let named: Vec<_> = planned.waves.iter().map(|wave| (wave.name.as_str(), wave.total)).collect();
    assert_eq!(named, [("1%", 1), ("100%", 2)]);
    assert_sound(&mut world);
}
