//! The in-memory store passes the contract suite of its ports, and its test methods report correctly.

use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::{Epoch, Fence, MonotonicTime};
use cdm_core::ports::{
    CallContext, Journal, Mutation, Outcome, SiteRepository, StoreError, WriteBatch, WriteError, WriteId,
};
use cdm_testkit::clock::SimClock;
use cdm_testkit::contract::{self, Settle, SuiteContext};
use cdm_testkit::fakes::FakeStore;
use cdm_testkit::fixtures;
use cdm_testkit::ids::SeededIds;
use cdm_testkit::log::{EffectKind, EffectLog};
use futures_util::FutureExt;

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("a fake is never pending")
}

fn call(write: u64) -> CallContext {
    CallContext { deadline: MonotonicTime::default(), write: WriteId(write), fence: Fence::new(9, Epoch(1)) }
}

/// Advances the clock; the fake itself needs no time.
#[derive(Debug)]
struct AdvanceClock(SimClock);

#[async_trait::async_trait]
impl Settle for AdvanceClock {
    async fn settle(&self) {
        self.0.advance(Duration::from_secs(1));
    }
}

#[test]
fn the_fake_keeps_the_contract() {
    for log in [EffectLog::new(), EffectLog::off()] {
        let (clock, ids) = (SimClock::new(), SeededIds::new(1));
        let store = FakeStore::new(log, clock.clone());
        now(contract::store::suite(&store, &SuiteContext::new(&clock, &ids, &AdvanceClock(clock.clone()))));
    }
}

#[test]
fn the_log_has_each_record_before_and_after() {
    let log = EffectLog::new();
    let store = FakeStore::new(log.clone(), SimClock::new());
    let site = fixtures::site("rrr");
    let create = WriteBatch::of(vec![Mutation::CreateSite(Box::new(site.clone()))]);
    assert_eq!(now(store.write(&call(1), &create)), Outcome::Applied(()));
    assert_eq!(now(store.write(&call(1), &create)), Outcome::Applied(()));
    assert!(store.bump(&site.id));
    assert!(matches!(now(store.write(&call(1), &create)), Outcome::NotApplied(WriteError::Conflict(_))));
    let remove = WriteBatch::of(vec![Mutation::RemoveSite(site.id.clone(), site.uid, 2)]);
    assert_eq!(now(store.write(&call(2), &remove)), Outcome::Applied(()));
    let at = |version| Some(Arc::new(cdm_core::domain::Site { version, ..site.clone() }));
    let effects: Vec<_> = log.since(0).into_iter().map(|effect| (effect.by, effect.kind)).collect();
    let expected = vec![
        (Fence::new(9, Epoch(1)), EffectKind::Site(None, at(1))),
        (Fence::default(), EffectKind::Site(at(1), at(2))),
        (Fence::new(9, Epoch(1)), EffectKind::Site(at(2), None)),
    ];
    assert_eq!(effects, expected);
    assert_eq!(store.requests(), 4);
    assert_eq!(store.counts().into_iter().collect::<Vec<_>>(), [("write", 4)]);
}

#[test]
fn ambiguous_batches_are_denied() {
    let store = FakeStore::new(EffectLog::off(), SimClock::new());
    let site = Box::new(fixtures::site("rrr"));
    let twice = WriteBatch::of(vec![Mutation::CreateSite(site.clone()), Mutation::CreateSite(site.clone())]);
    let outcome = now(store.write(&call(1), &twice));
    assert!(matches!(outcome, Outcome::NotApplied(WriteError::Store(StoreError::Denied(_)))), "{outcome:?}");
    assert_eq!(now(store.site(&site.id)), Ok(None));
    let many = (0..91).map(|n| Mutation::CreateSite(Box::new(fixtures::site(&format!("r{n}")))));
    let outcome = now(store.write(&call(2), &WriteBatch::of(many.collect())));
    assert!(matches!(outcome, Outcome::NotApplied(WriteError::Store(StoreError::Denied(_)))), "{outcome:?}");
    assert_eq!((store.all_sites(), store.hostnames()), (vec![], vec![]));
}
