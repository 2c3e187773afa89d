//! The stories that are broken at every call: one per pipeline, and the ways in which each can end.

use std::time::Duration;

use cdm_core::domain::rollout::{Budget, HealthGate, WaveTarget};
use cdm_core::domain::service::Verdict;
use cdm_core::domain::{Color, ReasonCode, Rollout, RolloutStatus, Status};
use cdm_core::manager::{Accepted, Force, Resume, RolloutRequest, RolloutScope};
use cdm_core::ports::PodFailure;

use super::{Verb, World, digest};
use crate::fakes::ImageScript;

/// A story: what is so before, and what is asked.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What is so before.
    pub before: fn(&mut World),
    /// What is asked, until it rests.
    pub act: fn(&mut World),
    /// Whether a run with faults also makes the same effects on the way: not where a person decides by what is parked, nor where
    /// a site that could not be asked goes back and comes again.
    pub same_way: bool,
}

/// All of them.
pub fn scenarios() -> Vec<Scenario> {
    let scenario = |name: &'static str, before, act| {
        let same_way = name != "promote-cancelled" && !name.starts_with("rollout-gated");
        Scenario { name, before, act, same_way }
    };
    vec![
        scenario("create", neighbours, |world| {
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
        scenario("select", neighbours, |world| {
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
            let _ = world.ask(|manager, request| {
                Box::pin(async move { manager.rollback(&request, Some(Color::Blue)).await })
            });
            world.run();
        }),
        scenario("rollout-promote", fleet_on_blue, |world| {
            rollout(world, true, Budget::Count(0), false);
        }),
        scenario("rollout-upgrade", fleet_on_blue, |world| {
            rollout(world, false, Budget::Count(0), false);
        }),
        scenario("rollout-gated", one_breaks_on_green, |world| {
            let gate = HealthGate::new("/").ok();
            let waves = vec![WaveTarget::Count(1), WaveTarget::Percent(100)];
            let bake = Duration::from_secs(60);
            gated(world, RolloutRequest { gate, waves, bake, budget: Budget::Count(1), ..everyone() });
        }),
        scenario("rollout-gated-halts", slow_on_green, |world| {
            let gate =
                HealthGate::new("/").and_then(|gate| gate.with_latency(1_000)?.with_settle(Duration::ZERO));
            let one = RolloutRequest { max_concurrent: 1, budget: Budget::Count(1), ..everyone() };
            gated(world, RolloutRequest { gate: gate.ok(), auto_rollback: true, ..one });
        }),
        scenario("rollout-gated-accepts", another_image_in_between, |world| {
            accept(world);
        }),
        scenario("rollout-deploys", fleet_on_blue, |world| {
            let wanted = RolloutRequest {
                promote: true,
                digest: Some(digest(1)),
                scope: RolloutScope::Inactive,
                ..RolloutRequest::default()
            };
            start_rollout(world, wanted);
            world.run();
        }),
    ]
}

/// Sites of other tenants, whose ids are as like as can be.
fn neighbours(world: &mut World) {
    for id in ["rr", "rrrr"] {
        world.settle_site(id);
        world.checker.leave_alone(&super::site_id(id));
    }
}

fn created(world: &mut World) {
    neighbours(world);
    let _ = world.create("rrr");
    world.run();
}

/// The first installation is ended when there is an address and no administrator.
fn half_installed(world: &mut World) {
    created(world);
    world.cluster.cut_installs([crate::installation::Installation::TABLES.len() + 1]);
}

fn active(world: &mut World) {
    world.settle_site("rrr");
}

fn on_green(world: &mut World) {
    neighbours(world);
    world.settle_site("rrr");
    let _ = world.select(Color::Green);
    world.run();
}

/// Every flush job fails, until the tries are used up; the promote parks.
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
    neighbours(world);
    world.settle_site("rrr");
    world.surround("rrr");
    world.objects.page_size(3);
    let sites = world.store.all_sites();
    let Some(site) = sites.iter().find(|site| site.id.as_str() == "rrr") else { return };
    for file in 0..7 {
        world.objects.seed(format!("{}wp-content/{file}.jpg", site.prefix()));
    }
    world.objects.seed(format!("{}wp-content/0.jpg?version=1", site.prefix()));
}

fn broken_image(world: &mut World) {
    world.settle_site("rrr");
    let failure = PodFailure { definite: true, blames_image: true, message: "CrashLoopBackOff".to_owned() };
    let script =
        ImageScript { ready_after: None, failure: Some((std::time::Duration::from_secs(20), failure)) };
    world.cluster.script(digest(9), script);
}

fn two_releases(world: &mut World) {
    world.settle_site("rrr");
    for image in [1, 2, 3] {
        let _ = world.deploy(digest(image), Color::Blue, false);
        world.run();
    }
    let _ = world.ask(|manager, request| {
        Box::pin(async move { manager.mark(&request, digest(2), Verdict::Bad, "slow").await })
    });
}

/// One of five sites does not work on green.
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

/// A gated rollout has moved one of five sites, and finds another image, which answers 500.
fn another_image_in_between(world: &mut World) {
    fleet_on_blue(world);
    let _ = world.deploy(digest(1), Color::Green, false);
    world.run();
    world.probe.break_digest(digest(2));
    let waves = vec![WaveTarget::Count(1), WaveTarget::Percent(100)];
    let bake = Duration::from_secs(60);
    let gate = HealthGate::new("/").ok();
    start_rollout(world, RolloutRequest { gate, waves, bake, max_concurrent: 1, ..everyone() });
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

/// A person lets the rollout go on with what runs; whoever is on duty lets it go on whenever a site could not be asked.
fn accept(world: &mut World) {
    let all = world.store.all_rollouts();
    let Some(number) = all.iter().find(|it| it.kind.moves()).map(|rollout| rollout.number) else { return };
    let wanted = Resume { accept: Some(digest(2)), force: Force::No };
    // Whoever is told what ran before asks again.
    for _ in 0..3 {
        let accepted = world.ask(move |manager, request| {
            Box::pin(async move { manager.resume_on(&request, number, wanted).await })
        });
        if accepted.is_ok() {
            break;
        }
    }
    world.run();
    on_duty(world);
}

/// Five sites on blue, one created only, green selected.
fn fleet_on_blue(world: &mut World) {
    for id in ["a", "ab", "abc", "b", "c"] {
        world.settle_site(id);
    }
    let _ = world.create("d");
    world.run();
    let _ = world.select(Color::Green);
    world.run();
}

fn rollout(world: &mut World, promote: bool, budget: Budget, auto_rollback: bool) {
    let wanted = RolloutRequest {
        promote,
        scope: RolloutScope::All,
        waves: vec![WaveTarget::Count(1), WaveTarget::Percent(50), WaveTarget::Percent(100)],
        max_concurrent: 2,
        budget,
        auto_rollback,
        ..RolloutRequest::default()
    };
    start_rollout(world, wanted);
    world.run();
}

/// Every site is promoted, two at once.
fn everyone() -> RolloutRequest {
    RolloutRequest { promote: true, scope: RolloutScope::All, max_concurrent: 2, ..RolloutRequest::default() }
}

/// Starts a rollout; who is on duty lets it go on whenever a site could not be asked.
fn gated(world: &mut World, wanted: RolloutRequest) {
    start_rollout(world, wanted);
    world.run();
    on_duty(world);
}

fn on_duty(world: &mut World) {
    for _ in 0..12 {
        let all = world.store.all_rollouts();
        let unasked = |rollout: &&Rollout| {
            let why = rollout.reason.as_ref().map(|reason| reason.code);
            rollout.status == RolloutStatus::Paused && why == Some(ReasonCode::GateInconclusive)
        };
        let Some(number) = all.iter().find(unasked).map(|rollout| rollout.number) else { return };
        world.heal();
        world.clock.advance(Duration::from_secs(10));
        let _ = world
            .ask(move |manager, request| Box::pin(async move { manager.resume(&request, number).await }));
        world.run();
    }
}

fn start_rollout(world: &mut World, wanted: RolloutRequest) {
    let _ = world.ask(move |manager, request| {
        let wanted = wanted.clone();
        Box::pin(async move { manager.rollout(&request, &wanted).await })
    });
}

/// Cancels an operation that is parked.
fn cancel(world: &mut World, accepted: Option<Accepted>) {
    let Some(Accepted::Operation(id)) = accepted else { return };
    let _ = world.ask(move |manager, request| {
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
