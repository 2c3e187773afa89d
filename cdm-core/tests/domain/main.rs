//! The pure domain, tested by tables and properties: waves, budgets, the checkpoints of a rollout, service locks,
//! rollbacks, names that are parsed back, and the rules for claiming and releasing a site.

mod claims;
mod gates;
mod names;
mod rollouts;
mod search;
mod services;
mod users;
mod webhooks;

use cdm_core::domain::{Actor, Timestamp};
use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;

/// Runs the same cases each time, unless `PROPTEST_RNG_SEED` selects others.
fn seeded() -> ProptestConfig {
    let environment = ProptestConfig::default();
    let rng_seed = match environment.rng_seed {
        RngSeed::Random => RngSeed::Fixed(0x646f_6d61),
        chosen @ RngSeed::Fixed(_) => chosen,
    };
    ProptestConfig { rng_seed, failure_persistence: None, ..environment }
}

const NOW: Timestamp = Timestamp::from_millis(1_000);

fn actor() -> Actor {
    Actor::parse("operator").expect("an actor")
}
