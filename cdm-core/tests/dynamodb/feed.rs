//! The feed in the order in which it is drawn, although it is written in any order: no reader passes an event by.

use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::Site;
use cdm_core::ports::{Journal, Mutation, Outcome, WriteBatch};
use cdm_testkit::build;
use futures_util::future::{join, join_all};
use tokio::sync::Semaphore;

use super::Lab;
use super::lost::event;
use super::proxy::Fault;

fn told(what: &str) -> WriteBatch {
    WriteBatch { events: vec![event(what)], ..WriteBatch::default() }
}

async fn tell(lab: &Lab, what: &str) {
    assert_eq!(lab.store.write(&lab.bench.cx().call(), &told(what)).await, Outcome::Applied(()));
}

/// What readers have: the words, and that `last_event` agrees with them.
async fn read(lab: &Lab) -> Vec<String> {
    let events = lab.store.events(None, 100).await.expect("events");
    let last = lab.store.last_event().await.expect("an end");
    assert_eq!(last, events.last().map(|(number, _)| *number), "the last is the last that is read");
    events.into_iter().map(|(_, event)| event.what).collect()
}

/// A write that is under way keeps readers before it, and is read first when it comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_event_is_not_passed_by() {
    for lab in Lab::all().await {
        tell(&lab, "one").await;
        let held = Arc::new(Semaphore::new(0));
        lab.proxy.seen();
        lab.proxy.next("PutItem", Fault::Hold(Arc::clone(&held)));
        let call = lab.bench.cx().call();
        let batch = told("two");
        let late = lab.store.write(&call, &batch);
        let meanwhile = async {
            // It has drawn its place once its request is held.
            lab.proxy.until("PutItem").await;
            let other = lab.other().await;
            let three = other.write(&lab.bench.cx().call(), &told("three")).await;
            assert_eq!(three, Outcome::Applied(()));
            assert_eq!(read(&lab).await, ["one"], "nobody reads past what may still come");
            held.add_permits(1);
        };
        assert_eq!(join(late, meanwhile).await.0, Outcome::Applied(()));
        assert_eq!(read(&lab).await, ["one", "two", "three"]);
    }
}

/// A reader that has waited long enough closes the place; its writer takes another, and is read there.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_stood_still_tells_later() {
    for lab in Lab::all().await {
        tell(&lab, "one").await;
        let held = Arc::new(Semaphore::new(0));
        let site = Site { uid: lab.bench.cx().uid(), ..build::site("a") };
        let batch = WriteBatch {
            events: vec![event("two")],
            ..WriteBatch::of(vec![Mutation::CreateSite(Box::new(site))])
        };
        lab.proxy.seen();
        lab.proxy.next("TransactWriteItems", Fault::Hold(Arc::clone(&held)));
        let call = lab.bench.cx().call();
        let late = lab.store.write(&call, &batch);
        let meanwhile = async {
            lab.proxy.until("TransactWriteItems").await;
            let other = lab.other().await;
            assert_eq!(other.write(&lab.bench.cx().call(), &told("three")).await, Outcome::Applied(()));
            assert_eq!(read(&lab).await, ["one"]);
            lab.clock.set_ahead(Duration::from_secs(3));
            assert_eq!(read(&lab).await, ["one", "three"], "readers do not wait for ever");
            held.add_permits(1);
        };
        assert_eq!(join(late, meanwhile).await.0, Outcome::Applied(()));
        assert_eq!(read(&lab).await, ["one", "three", "two"], "it is told once, after what was read already");
    }
}

/// A writer that ended between drawing its place and writing there leaves a gap that a reader closes.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_ended_keeps_nobody() {
    for lab in Lab::all().await {
        lab.proxy.next("PutItem", Fault::LoseRequest);
        let lost = lab.store.write(&lab.bench.cx().call(), &told("one")).await;
        assert!(matches!(lost, Outcome::Unknown(_)), "{lost:?}");
        tell(&lab, "two").await;
        assert_eq!(read(&lab).await, Vec::<String>::new());
        lab.clock.set_ahead(Duration::from_secs(3));
        assert_eq!(read(&lab).await, ["two"]);
        // The place is closed for good, also for readers whose clock is behind.
        lab.clock.set_ahead(Duration::ZERO);
        assert_eq!(read(&lab).await, ["two"]);
    }
}

/// What is refused closes its place itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_write_keeps_nobody() {
    for lab in Lab::all().await {
        let site = lab.site("a").await;
        let stale = WriteBatch {
            events: vec![event("no")],
            ..WriteBatch::of(vec![Mutation::Site(Box::new(Site { version: 9, ..site }))])
        };
        let refused = lab.store.write(&lab.bench.cx().call(), &stale).await;
        assert!(matches!(refused, Outcome::NotApplied(_)), "{refused:?}");
        tell(&lab, "yes").await;
        assert_eq!(read(&lab).await, ["yes"]);
    }
}

/// Many writers at once: each event once, and everyone who reads on from where he was has all of them.
#[tokio::test(flavor = "multi_thread")]
async fn readers_beside_writers_miss_nothing() {
    const WRITERS: usize = 8;
    const EACH: usize = 10;
    for lab in Lab::all().await {
        let writers = (0..WRITERS).map(async |writer| {
            for at in 0..EACH {
                tell(&lab, &format!("{writer}-{at}")).await;
            }
        });
        let reader = async {
            let (mut seen, mut after, mut idle) = (Vec::new(), None, 0);
            while seen.len() < WRITERS * EACH && idle < 2_000 {
                let some = lab.store.events(after, 7).await.expect("events");
                idle = if some.is_empty() { idle + 1 } else { 0 };
                for (number, event) in some {
                    assert!(after < Some(number), "numbers grow");
                    after = Some(number);
                    seen.push(event.what);
                }
            }
            seen
        };
        let (_, mut seen) = join(join_all(writers), reader).await;
        let all: Vec<String> =
            (0..WRITERS).flat_map(|writer| (0..EACH).map(move |at| format!("{writer}-{at}"))).collect();
        seen.sort();
        let mut expected = all;
        expected.sort();
        assert_eq!(seen, expected, "each event is read once");
    }
}
