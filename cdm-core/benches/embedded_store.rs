//! The cost of a change in the SQLite store: 500 sites claimed one after another, and all at once.
//!
//! Prints one line for each mode and asserts no limits: `cargo bench -p cdm-core --features embedded --bench
//! embedded_store`.
#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program that measures and prints"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use cdm_core::adapters::embedded::{EmbeddedStore, File, LivenessLock};
use cdm_core::adapters::{OsIds, SystemClock};
use cdm_core::domain::site::{Claim, ClaimIntent, Claimed};
use cdm_core::domain::{ClaimToken, Color, Direction, Fence, Site, Term, WorkerId};
use cdm_core::ports::{CallContext, Clock, Entropy, Journal, Mutation, Outcome, WriteBatch};
use cdm_testkit::fixtures;
use futures_util::future::join_all;

const CLAIMS: u32 = 500;
const ROUNDS: u64 = 5;

fn call(clock: &SystemClock, ids: &OsIds) -> CallContext {
    let deadline = clock.monotonic().after(Duration::from_secs(60));
    CallContext { deadline, write: ids.write(), fence: Fence::default() }
}

fn claim(site: &Site, rollout: u64, ordinal: u32) -> Claim {
    Claim {
        id: site.id.clone(),
        uid: site.uid,
        claim_token: ClaimToken { rollout, direction: Direction::Forward, term: Term(1) },
        intent: ClaimIntent::Upgrade(Color::Green),
        ordinal,
        number: rollout * 1_000 + u64::from(ordinal),
        owner: WorkerId::new("worker"),
        requested_by: fixtures::actor(),
        at: site.updated_at,
    }
}

#[tokio::main]
async fn main() {
    let (clock, ids) = (SystemClock::new(), OsIds::new().expect("chance"));
    for at_once in [false, true] {
        let mut took = Vec::new();
        for rollout in 1..=ROUNDS {
            let dir = tempfile::TempDir::new().expect("a directory");
            let file = File::open(&dir.path().join("cdm.db")).await.expect("a file");
            let presence = LivenessLock::open(dir.path(), &WorkerId::new("worker")).expect("a presence");
            let store = EmbeddedStore::open(file, Arc::new(clock), presence).await.expect("a store");
            let sites: Vec<Site> = (0..CLAIMS).map(|n| fixtures::site(&format!("s{n}"))).collect();
            for some in sites.chunks(50) {
                let writes = some.iter().map(|site| Mutation::CreateSite(Box::new(site.clone()))).collect();
                let written = store.write(&call(&clock, &ids), &WriteBatch::of(writes)).await;
                assert!(matches!(written, Outcome::Applied(())), "{written:?}");
            }
            let one = async |ordinal: u32| {
                let claim = claim(&sites[ordinal as usize], rollout, ordinal);
                let outcome = store.claim(&call(&clock, &ids), &claim).await;
                assert!(matches!(outcome, Outcome::Applied(Claimed::Taken { .. })), "{outcome:?}");
            };
            let from = Instant::now();
            if at_once {
                join_all((0..CLAIMS).map(one)).await;
            } else {
                for ordinal in 0..CLAIMS {
                    one(ordinal).await;
                }
            }
            took.push(from.elapsed());
        }
        took.sort_unstable();
        let middle = took[took.len() / 2];
        let mode = if at_once { "all at once" } else { "one after another" };
        let rate = f64::from(CLAIMS) / middle.as_secs_f64();
        println!("{CLAIMS} claims, {mode}: {middle:.1?}, {rate:.0} per second (median of {ROUNDS} rounds)");
    }
}
