//! Installations that were cut short, and flushes that ended before they flushed.

use std::time::Duration;

use cdm_core::domain::site::Activation;
use cdm_core::manager::RolloutRequest;
use cdm_core::ports::{JobFailure, JobState};
use cdm_testkit::fakes::JobScript;
use cdm_testkit::world::{Verb, World};

use super::{expect, fleet, in_two_waves, rollout, seen_in};

/// The first installation has an address and no administrator.
pub(crate) fn cut_short() -> Vec<String> {
    let mut world = World::new(1);
    world.create("rrr").expect("it is accepted");
    world.run();
    world.cluster.cut_installs([14]);
    world.on_site("rrr", Verb::Provision).expect("it is accepted");
    world.run();
    seen_in(&mut world)
}

/// A record that says its site was active, with a half-made installation.
pub(crate) fn kept() -> Vec<String> {
    let mut world = World::new(1);
    world.create("rrr").expect("it is accepted");
    world.run();
    world.edit_site("rrr", |site| site.activation = Activation::Ever);
    world.cluster.cut_installs([14]);
    world.on_site("rrr", Verb::Provision).expect("it is accepted");
    world.run();
    let seen = seen_in(&mut world);
    seen.into_iter().filter(|seen| seen.starts_with("KeptDatabase")).collect()
}

/// The image's own code ends each flush without an error, of a promotion and of a rollout.
pub(crate) fn unflushed() -> Vec<String> {
    let mut seen = Vec::new();
    let mut world = fleet(&["a"]);
    let uid = world.store.all_sites()[0].uid;
    let script = || JobScript {
        takes: Duration::from_secs(1),
        result: JobState::Succeeded { failed: vec![(uid, JobFailure::ENDED_EARLY.to_owned())] },
    };
    world.cluster.script_job("flush-caches", vec![script(), script(), script()]);
    world.on_site("a", Verb::Promote).expect("it is accepted");
    world.run();
    let parked = !world.parked().is_empty();
    expect(&mut seen, parked, "the promotion ended although nothing was flushed");

    let mut world = fleet(&["a"]);
    let uid = world.store.all_sites()[0].uid;
    let script = || JobScript {
        takes: Duration::from_secs(1),
        result: JobState::Succeeded { failed: vec![(uid, JobFailure::ENDED_EARLY.to_owned())] },
    };
    world.cluster.script_job("flush-caches", vec![script(), script(), script()]);
    let number = rollout(&mut world, RolloutRequest { waves: Vec::new(), ..in_two_waves() });
    world.run();
    let rollouts = world.store.all_rollouts();
    let parked = rollouts.iter().find(|rollout| rollout.number == number).map(|it| it.counts().parked);
    expect(&mut seen, parked == Some(1), "the rollout's site counts as flushed");
    seen
}
