//! Retention: expired records are deleted by one process, and never the events that a webhook has not delivered.

use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::{Fence, Timestamp, WorkerId};
use cdm_core::engine::{Retention, RetentionPeriods};
use cdm_core::ports::{CallContext, Clock, Outcome, WriteId};
use cdm_testkit::world::{World, now};

use super::{ManualPoll, assert_sound};

const HOOK: &str = "https://hooks.example.com/cdm";
const DAY: Duration = Duration::from_hours(24);

/// Runs one retention pass of the world's process.
fn delete(world: &World, kept: RetentionPeriods) {
    let retention = Arc::new(Retention::new(world.process().worker, kept));
    ManualPoll::new(async move { retention.run_once().await }).finish(world);
}

fn audits(world: &World) -> Vec<Timestamp> {
    let page = now(world.raw().store.audit(None, 1_000)).expect("the audit");
    page.items.iter().map(|entry| entry.at).collect()
}

fn events(world: &World) -> Vec<(u64, Timestamp)> {
    let events = now(world.raw().store.events(None, 10_000)).expect("the feed");
    events.into_iter().map(|(number, event)| (number, event.at)).collect()
}

#[test]
fn expired_records_are_deleted_and_undelivered_events_are_kept() {
    let mut world = World::new(1);
    world.create_active_site("before");
    let (hook, _) = world.add_webhook(HOOK, &[]).expect("a webhook");
    for n in 0..40 {
        world.create_active_site(&format!("old{n}"));
    }
    world.clock.advance(10 * DAY);
    let long_ago = world.wall().before(DAY);
    world.create_active_site("new");
    let (newer_audits, all) = (audits(&world).iter().filter(|at| **at >= long_ago).count(), events(&world));
    assert!(all.iter().filter(|(_, at)| *at < long_ago).count() > 90, "more than one call deletes");

    delete(&world, RetentionPeriods { audit: None, events: None });
    assert_eq!(events(&world), all, "without a retention period, nothing is deleted");

    delete(&world, RetentionPeriods { audit: Some(5 * DAY), events: Some(5 * DAY) });
    assert_eq!(audits(&world).len(), newer_audits, "older entries are gone, newer ones are not");
    let undelivered: Vec<_> = all.iter().copied().filter(|(number, _)| *number > hook.cursor).collect();
    assert_eq!(events(&world), undelivered, "none of the events has been delivered yet");

    world
        .request(move |manager, request| {
            Box::pin(async move { manager.remove_webhook(&request, hook.number).await })
        })
        .expect("a removal");
    let last = now(world.raw().store.last_event()).expect("the feed");
    delete(&world, RetentionPeriods { audit: None, events: Some(5 * DAY) });
    assert!(events(&world).iter().all(|(_, at)| *at >= long_ago));
    assert_eq!(now(world.raw().store.last_event()), Ok(last), "numbers continue");
    assert_sound(&mut world);
}

#[test]
fn only_the_worker_with_the_first_name_deletes() {
    let mut world = World::new(1);
    world.create_active_site("old");
    world.clock.advance(10 * DAY);
    world.create_active_site("new");
    let before = audits(&world).len();
    let kept = RetentionPeriods { audit: Some(DAY), events: None };
    let deadline = world.clock.monotonic().after(DAY);
    let call = CallContext { deadline, write: WriteId(1), fence: Fence::default() };
    let beat = |count| now(world.raw().store.heartbeat(&call, &WorkerId::new("!first"), count));
    assert!(matches!(beat(Some(1)), Outcome::Applied(())));
    delete(&world, kept);
    assert_eq!(audits(&world).len(), before, "another worker deletes");
    assert!(matches!(beat(None), Outcome::Applied(())));
    delete(&world, kept);
    assert!(audits(&world).len() < before);
}
