//! What the pure domain promises, as tables and as properties: waves, budgets, the rollout's checkpoints, holds,
//! rollbacks, names that are parsed back, and the rules by which a site is claimed and let go.

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

/// The same cases in every run, unless `PROPTEST_RNG_SEED` asks for others.
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
