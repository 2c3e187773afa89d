//! The scenarios that campaigns interrupt at every call: one for each pipeline, and for each way in which it
//! can end.

use std::time::Duration;

use cdm_core::domain::rollout::{Budget, HealthGate, RolloutKind, RolloutScope, RolloutSpec, WaveTarget};
use cdm_core::domain::service::Verdict;
use cdm_core::domain::{Color, ReasonCode, Rollout, RolloutStatus, Status};
use cdm_core::manager::{Accepted, Force, Resume};
use cdm_core::ports::PodFailure;

use super::{Verb, World, digest};
use crate::fakes::ImageScript;

/// A scenario: the state before, and the requests.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Name of the scenario, which campaigns print.
    pub name: &'static str,
    /// Prepares the platform, without faults.
    pub before: fn(&mut World),
    /// Sends the requests, and runs until the platform is quiescent.
    pub act: fn(&mut World),
    /// Whether a run with faults has the same effects as a run without faults. This is false if a person
    /// decides by the parked operations, or if an inconclusive site moves back and then forward again.
    pub same_effects: bool,
}

/// Returns the scenarios whose calls the campaigns break.
pub fn scenarios() -> Vec<Scenario> {
    let scenario = |name: &'static str, before, act| {
        let same_effects = name != "promote-cancelled" && !name.starts_with("rollout-gated");
        Scenario { name, before, act, same_effects }
    };
    vec![
        scenario("create", neighbors, |world| {
            let _ = world.create("rrr");
            world.run();
        }),
        scenario("provision", created, |world| {
            let _ = world.on_site("rrr", Verb::Provision);
            world.run();
        }),
        scenario("provision-half-installed", half_installed, |world| {
            let _ = world.on_site("rrr", Verb::Provision);
            world.run();
        }),
        scenario("upgrade", on_green, |world| {
            let _ = world.on_site("rrr", Verb::Upgrade);
            world.run();
        }),
        scenario("promote", on_green, |world| {
            let _ = world.on_site("rrr", Verb::Promote);
            world.run();
        }),
        scenario("promote-cancelled", flush_fails, |world| {
            let promoted = world.on_site("rrr", Verb::Promote);
            world.run();
            cancel(world, promoted.ok());
        }),
        scenario("terminate", with_files, |world| {
            let _ = world.on_site("rrr", Verb::Terminate);
            world.run();
        }),
        scenario("select", neighbors, |world| {
            let _ = world.select(Color::Green);
            world.run();
        }),
        scenario("deploy", active, |world| {
            let _ = world.deploy(digest(1), Color::Blue, false);
            world.run();
        }),
        scenario("deploy-promote", on_green, |world| {
            let _ = world.deploy(digest(1), Color::Green, true);
            world.run();
        }),
        scenario("deploy-broken", broken_image, |world| {
            let _ = world.deploy(digest(9), Color::Blue, false);
            world.run();
        }),
        scenario("rollback", two_releases, |world| {
            let _ = world.request(|manager, request| {
                Box::pin(async move { manager.rollback(&request, Some(Color::Blue)).await })
            });
            world.run();
        }),
        scenario("rollout-promote", fleet_on_blue, |world| {
            rollout(world, RolloutKind::Promote, Budget::Count(0), false);
        }),
        scenario("rollout-upgrade", fleet_on_blue, |world| {
            rollout(world, RolloutKind::Upgrade, Budget::Count(0), false);
        }),
        scenario("rollout-gated", one_breaks_on_green, |world| {
            let gate = HealthGate::new("/").ok();
            let waves = vec![WaveTarget::Count(1), WaveTarget::Percent(100)];
            let bake = Duration::from_secs(60);
            gated(world, RolloutSpec { gate, waves, bake, budget: Budget::Count(1), ..promote_all() });
        }),
        scenario("rollout-gated-halts", slow_on_green, |world| {
            let gate =
                HealthGate::new("/").and_then(|gate| gate.with_latency(1_000)?.with_settle(Duration::ZERO));
            let one = RolloutSpec { max_concurrent: 1, budget: Budget::Count(1), ..promote_all() };
            gated(world, RolloutSpec { gate: gate.ok(), auto_rollback: true, ..one });
        }),
        scenario("rollout-gated-accepts", another_image_in_between, |world| {
            accept(world);
        }),
        scenario("rollout-deploys", fleet_on_blue, |world| {
            let desired = RolloutSpec {
                kind: RolloutKind::Promote,
                digest: Some(digest(1)),
                scope: RolloutScope::Inactive,
                ..RolloutSpec::default()
            };
            start_rollout(world, desired);
            world.run();
        }),
    ]
}

/// Sites of other tenants with very similar ids, which must not change.
fn neighbors(world: &mut World) {
    for id in ["rr", "rrrr"] {
        world.create_active_site(id);
        world.checker.forbid_changes(&super::site_id(id));
    }
}

fn created(world: &mut World) {
    neighbors(world);
    let _ = world.create("rrr");
    world.run();
}

/// The first installation is interrupted when the address exists, but no administrator.
fn half_installed(world: &mut World) {
    created(world);
    world.cluster.interrupt_installs([crate::installation::Installation::TABLES.len() + 1]);
}

fn active(world: &mut World) {
    world.create_active_site("rrr");
}

fn on_green(world: &mut World) {
    neighbors(world);
    world.create_active_site("rrr");
    let _ = world.select(Color::Green);
    world.run();
}

/// Every flush job fails until the attempts are exhausted, so the promote operation parks.
fn flush_fails(world: &mut World) {
    on_green(world);
    let failed = || crate::fakes::JobScript {
        takes: std::time::Duration::from_secs(1),
        result: cdm_core::ports::JobState::Failed {
            message: "no cache".to_owned(),
            cause: cdm_core::ports::JobFailure::Other,
        },
    };
    world.cluster.script_job("flush-caches", vec![failed(), failed(), failed()]);
}

fn with_files(world: &mut World) {
    neighbors(world);
    world.create_active_site("rrr");
    world.add_neighbor_objects("rrr");
    world.objects.page_size(3);
    let sites = world.store.all_sites();
    let Some(site) = sites.iter().find(|site| site.id.as_str() == "rrr") else { return };
    for file in 0..7 {
        world.objects.seed(format!("{}wp-content/{file}.jpg", site.prefix()));
    }
    world.objects.seed(format!("{}wp-content/0.jpg?version=1", site.prefix()));
}

fn broken_image(world: &mut World) {
    world.create_active_site("rrr");
    let failure = PodFailure { definite: true, blames_image: true, message: "CrashLoopBackOff".to_owned() };
    let script =
        ImageScript { ready_after: None, failure: Some((std::time::Duration::from_secs(20), failure)) };
    world.cluster.script(digest(9), script);
}

fn two_releases(world: &mut World) {
    world.create_active_site("rrr");
    for image in [1, 2, 3] {
        let _ = world.deploy(digest(image), Color::Blue, false);
        world.run();
    }
    let _ = world.request(|manager, request| {
        Box::pin(async move { manager.mark(&request, digest(2), Verdict::Bad, "slow").await })
    });
}

/// One of five sites fails on green.
fn one_breaks_on_green(world: &mut World) {
    fleet_on_blue(world);
    let _ = world.deploy(digest(1), Color::Green, false);
    world.run();
    let sites = world.store.all_sites();
    if let Some(site) = sites.iter().find(|site| site.id.as_str() == "ab") {
        world.probe.break_site(site.uid, digest(1));
    }
}

/// Every site is slow on green.
fn slow_on_green(world: &mut World) {
    fleet_on_blue(world);
    let _ = world.deploy(digest(1), Color::Green, false);
    world.run();
    world.probe.slow_down(digest(1), Duration::from_secs(3));
}

/// A gated rollout moves one of five sites, and then finds another image, which responds with 500.
fn another_image_in_between(world: &mut World) {
    fleet_on_blue(world);
    let _ = world.deploy(digest(1), Color::Green, false);
    world.run();
    world.probe.break_digest(digest(2));
    let waves = vec![WaveTarget::Count(1), WaveTarget::Percent(100)];
    let bake = Duration::from_secs(60);
    let gate = HealthGate::new("/").ok();
    start_rollout(world, RolloutSpec { gate, waves, bake, max_concurrent: 1, ..promote_all() });
    for _ in 0..40 {
        let _ = world.run_once();
        let all = world.store.all_rollouts();
        if all.iter().any(|rollout| rollout.reason.as_ref().is_some_and(|why| why.code == ReasonCode::Baking))
        {
            break;
        }
        world.clock.advance(Duration::from_secs(1));
    }
    let _ = world.deploy(digest(2), Color::Green, false);
    world.run();
}

/// Resumes the rollout on the running digest, then handles inconclusive gates.
fn accept(world: &mut World) {
    let all = world.store.all_rollouts();
    let Some(number) = all.iter().find(|it| it.spec.kind.moves()).map(|rollout| rollout.number) else {
        return;
    };
    let desired = Resume { accept: Some(digest(2)), force: Force::No };
    // A request that reports another digest before this one is repeated.
    for _ in 0..3 {
        let accepted = world.request(move |manager, request| {
            Box::pin(async move { manager.resume_on(&request, number, desired).await })
        });
        if accepted.is_ok() {
            break;
        }
    }
    world.run();
    resume_inconclusive(world);
}

/// Five active sites on blue, one site that is only created, and green as the canary.
fn fleet_on_blue(world: &mut World) {
    for id in ["a", "ab", "abc", "b", "c"] {
        world.create_active_site(id);
    }
    let _ = world.create("d");
    world.run();
    let _ = world.select(Color::Green);
    world.run();
}

fn rollout(world: &mut World, kind: RolloutKind, budget: Budget, auto_rollback: bool) {
    let desired = RolloutSpec {
        kind,
        scope: RolloutScope::All,
        waves: vec![WaveTarget::Count(1), WaveTarget::Percent(50), WaveTarget::Percent(100)],
        max_concurrent: 2,
        budget,
        auto_rollback,
        ..RolloutSpec::default()
    };
    start_rollout(world, desired);
    world.run();
}

/// A request to promote every site, two at a time.
fn promote_all() -> RolloutSpec {
    RolloutSpec {
        kind: RolloutKind::Promote,
        scope: RolloutScope::All,
        max_concurrent: 2,
        ..RolloutSpec::default()
    }
}

/// Starts a rollout, and resumes it whenever a health gate is inconclusive.
fn gated(world: &mut World, desired: RolloutSpec) {
    start_rollout(world, desired);
    world.run();
    resume_inconclusive(world);
}

fn resume_inconclusive(world: &mut World) {
    for _ in 0..12 {
        let all = world.store.all_rollouts();
        let inconclusive = |rollout: &&Rollout| {
            let why = rollout.reason.as_ref().map(|reason| reason.code);
            rollout.status == RolloutStatus::Paused && why == Some(ReasonCode::GateInconclusive)
        };
        let Some(number) = all.iter().find(inconclusive).map(|rollout| rollout.number) else { return };
        world.heal();
        world.clock.advance(Duration::from_secs(10));
        let _ = world
            .request(move |manager, request| Box::pin(async move { manager.resume(&request, number).await }));
        world.run();
    }
}

fn start_rollout(world: &mut World, desired: RolloutSpec) {
    let _ = world.request(move |manager, request| {
        let desired = desired.clone();
        Box::pin(async move { manager.rollout(&request, &desired, None).await })
    });
}

/// Cancels an operation if it has not ended.
fn cancel(world: &mut World, accepted: Option<Accepted>) {
    let Some(Accepted::Operation(id)) = accepted else { return };
    let _ = world.request(move |manager, request| {
        let id = id.clone();
        Box::pin(async move {
            let operation = manager.operation(&id).await?;
            match operation.state.status {
                Status::Ended(_) => Ok(Accepted::Operation(id)),
                _ => manager.cancel(&request, &id).await,
            }
        })
    });
    world.run();
}
