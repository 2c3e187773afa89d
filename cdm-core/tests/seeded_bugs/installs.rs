//! Installations that were interrupted, and flushes that ended before they took effect.

use std::time::Duration;

use cdm_core::domain::rollout::RolloutSpec;
use cdm_core::domain::site::Activation;
use cdm_core::ports::{JobFailure, JobState};
use cdm_testkit::fakes::JobScript;
use cdm_testkit::world::{Verb, World};

use super::{expect, fleet, in_two_waves, rollout, violations};

/// The first installation has an address and no administrator.
pub(crate) fn cut_short() -> Vec<String> {
    let mut world = World::new(1);
    world.create("rrr").expect("the request is accepted");
    world.run();
    world.cluster.interrupt_installs([14]);
    world.on_site("rrr", Verb::Provision).expect("the request is accepted");
    world.run();
    violations(&mut world)
}

/// The record states that its site was active, and the installation is partial.
pub(crate) fn kept() -> Vec<String> {
    let mut world = World::new(1);
    world.create("rrr").expect("the request is accepted");
    world.run();
    world.edit_site("rrr", |site| site.activation = Activation::Ever);
    world.cluster.interrupt_installs([14]);
    world.on_site("rrr", Verb::Provision).expect("the request is accepted");
    world.run();
    let findings = violations(&mut world);
    findings.into_iter().filter(|findings| findings.starts_with("KeptDatabase")).collect()
}

/// Code of the image ends each flush without an error, for a promote and for a rollout.
pub(crate) fn unflushed() -> Vec<String> {
    let mut findings = Vec::new();
    let mut world = fleet(&["a"]);
    let uid = world.store.all_sites()[0].uid;
    let script = || JobScript {
        takes: Duration::from_secs(1),
        result: JobState::Succeeded { failed: vec![(uid, JobFailure::ENDED_EARLY.to_owned())] },
    };
    world.cluster.script_job("flush-caches", vec![script(), script(), script()]);
    world.on_site("a", Verb::Promote).expect("the request is accepted");
    world.run();
    let parked = !world.parked().is_empty();
    expect(&mut findings, parked, "the promotion ended although the caches were not flushed");

    let mut world = fleet(&["a"]);
    let uid = world.store.all_sites()[0].uid;
    let script = || JobScript {
        takes: Duration::from_secs(1),
        result: JobState::Succeeded { failed: vec![(uid, JobFailure::ENDED_EARLY.to_owned())] },
    };
    world.cluster.script_job("flush-caches", vec![script(), script(), script()]);
    let number = rollout(&mut world, RolloutSpec { waves: Vec::new(), ..in_two_waves() });
    world.run();
    let rollouts = world.store.all_rollouts();
    let parked = rollouts.iter().find(|rollout| rollout.number == number).map(|it| it.counts().parked);
    expect(&mut findings, parked == Some(1), "the rollout's site counts as flushed");
    findings
}
