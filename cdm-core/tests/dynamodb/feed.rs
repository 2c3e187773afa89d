//! The event feed: events are read in the order in which their positions were drawn, independent of the order of the
//! writes; no reader skips an event.

use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::Site;
use cdm_core::ports::{Journal, Mutation, Outcome, WriteBatch};
use cdm_testkit::fixtures;
use cdm_testkit::proxy::HttpFault;
use futures_util::future::{join, join_all};
use tokio::sync::Semaphore;

use super::TestEnv;
use super::lost_responses::event;

fn event_batch(what: &str) -> WriteBatch {
    WriteBatch { events: vec![event(what)], ..WriteBatch::default() }
}

async fn append(env: &TestEnv, what: &str) {
    assert_eq!(env.store.write(&env.suite.cx().call(), &event_batch(what)).await, Outcome::Applied(()));
}

/// Returns the events that readers get, and asserts that `last_event` agrees with them.
async fn read(env: &TestEnv) -> Vec<String> {
    let events = env.store.events(None, 100).await.expect("events");
    let last = env.store.last_event().await.expect("an end");
    assert_eq!(last, events.last().map(|(number, _)| *number), "`last_event` is the last event of a read");
    events.into_iter().map(|(_, event)| event.what).collect()
}

/// Readers stop before a write that is still in flight, and read it first once it is applied.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_event_is_not_skipped() {
    for env in TestEnv::all().await {
        append(&env, "one").await;
        let permit = Arc::new(Semaphore::new(0));
        env.proxy.take_operations();
        env.proxy.next("PutItem", HttpFault::Hold(Arc::clone(&permit)));
        let call = env.suite.cx().call();
        let batch = event_batch("two");
        let late = env.store.write(&call, &batch);
        let meanwhile = async {
            // The position has been drawn when the request is held.
            env.proxy.until("PutItem").await;
            let other = env.other().await;
            let three = other.write(&env.suite.cx().call(), &event_batch("three")).await;
            assert_eq!(three, Outcome::Applied(()));
            assert_eq!(read(&env).await, ["one"], "readers stop before a write in flight");
            permit.add_permits(1);
        };
        assert_eq!(join(late, meanwhile).await.0, Outcome::Applied(()));
        assert_eq!(read(&env).await, ["one", "two", "three"]);
    }
}

/// A reader closes the position after a timeout; its writer draws another position and is read there.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_writer_draws_a_new_position() {
    for env in TestEnv::all().await {
        append(&env, "one").await;
        let permit = Arc::new(Semaphore::new(0));
        let site = Site { uid: env.suite.cx().uid(), ..fixtures::site("a") };
        let batch = WriteBatch {
            events: vec![event("two")],
            ..WriteBatch::of(vec![Mutation::CreateSite(Box::new(site))])
        };
        env.proxy.take_operations();
        env.proxy.next("TransactWriteItems", HttpFault::Hold(Arc::clone(&permit)));
        let call = env.suite.cx().call();
        let late = env.store.write(&call, &batch);
        let meanwhile = async {
            env.proxy.until("TransactWriteItems").await;
            let other = env.other().await;
            assert_eq!(
                other.write(&env.suite.cx().call(), &event_batch("three")).await,
                Outcome::Applied(())
            );
            assert_eq!(read(&env).await, ["one"]);
            env.clock.set_ahead(Duration::from_secs(3));
            assert_eq!(read(&env).await, ["one", "three"], "readers do not wait forever");
            permit.add_permits(1);
        };
        assert_eq!(join(late, meanwhile).await.0, Outcome::Applied(()));
        assert_eq!(
            read(&env).await,
            ["one", "three", "two"],
            "the event is read once, after those that were read before"
        );
    }
}

/// A writer that ended after drawing its position and before writing leaves a gap that a reader closes.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_writer_does_not_block_readers() {
    for env in TestEnv::all().await {
        env.proxy.next("PutItem", HttpFault::LoseRequest);
        let lost = env.store.write(&env.suite.cx().call(), &event_batch("one")).await;
        assert!(matches!(lost, Outcome::Unknown(_)), "{lost:?}");
        append(&env, "two").await;
        assert_eq!(read(&env).await, Vec::<String>::new());
        env.clock.set_ahead(Duration::from_secs(3));
        assert_eq!(read(&env).await, ["two"]);
        // The position is closed permanently, also for readers whose clock is behind.
        env.clock.set_ahead(Duration::ZERO);
        assert_eq!(read(&env).await, ["two"]);
    }
}

/// A rejected write closes its position itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_write_does_not_block_readers() {
    for env in TestEnv::all().await {
        let site = env.site("a").await;
        let stale = WriteBatch {
            events: vec![event("no")],
            ..WriteBatch::of(vec![Mutation::Site(Box::new(Site { version: 9, ..site }))])
        };
        let refused = env.store.write(&env.suite.cx().call(), &stale).await;
        assert!(matches!(refused, Outcome::NotApplied(_)), "{refused:?}");
        append(&env, "yes").await;
        assert_eq!(read(&env).await, ["yes"]);
    }
}

/// Many concurrent writers: each event occurs once, and a reader that continues from its cursor gets all of them.
#[tokio::test(flavor = "multi_thread")]
async fn readers_concurrent_with_writers_miss_no_event() {
    const WRITERS: usize = 8;
    const EACH: usize = 10;
    for env in TestEnv::all().await {
        let writers = (0..WRITERS).map(async |writer| {
            for at in 0..EACH {
                append(&env, &format!("{writer}-{at}")).await;
            }
        });
        let reader = async {
            let (mut events_read, mut after, mut idle) = (Vec::new(), None, 0);
            while events_read.len() < WRITERS * EACH && idle < 2_000 {
                let some = env.store.events(after, 7).await.expect("events");
                idle = if some.is_empty() { idle + 1 } else { 0 };
                for (number, event) in some {
                    assert!(after < Some(number), "numbers grow");
                    after = Some(number);
                    events_read.push(event.what);
                }
            }
            events_read
        };
        let (_, mut events_read) = join(join_all(writers), reader).await;
        let all: Vec<String> =
            (0..WRITERS).flat_map(|writer| (0..EACH).map(move |at| format!("{writer}-{at}"))).collect();
        events_read.sort();
        let mut expected = all;
        expected.sort();
        assert_eq!(events_read, expected, "each event is read once");
    }
}
