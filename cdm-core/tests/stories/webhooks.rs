//! Webhooks: which messages a receiver gets, in which order, and how failing receivers are handled.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::webhook::{DeliveryState, Topic, Webhook};
use cdm_core::engine::WebhookDispatcher;
use cdm_core::ports::{DeliveryError, Message};
use cdm_testkit::fakes::{FakeWebhookSender, ReceiverBehavior};
use cdm_testkit::faults::{Fault, Plan};
use cdm_testkit::world::{Verb, World, now};

use super::{ManualPoll, PollState, advance_to_next_event, assert_sound, operation_id, status};

const HOOK: &str = "https://hooks.example.com/cdm?key=1";
const OTHER: &str = "https://other.example.com/";

/// Delivers all messages that can be sent now.
fn deliver(world: &World, dispatcher: &Arc<WebhookDispatcher>) {
    let dispatcher = Arc::clone(dispatcher);
    ManualPoll::new(async move { dispatcher.run_once().await }).finish(world);
}

fn topics(messages: &[Message]) -> Vec<&'static str> {
    messages.iter().map(|message| message.topic.as_str()).collect()
}

fn ids(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| message.id.clone()).collect()
}

/// Returns the distinct ids in the order of their first occurrence.
fn distinct_ids(messages: &[Message]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    ids(messages).into_iter().filter(|id| seen.insert(id.clone())).collect()
}

/// Returns the ids of all events after the creation of the webhook.
fn all_of(world: &World, hook: &Webhook) -> Vec<String> {
    let events = now(world.raw().store.events(Some(hook.cursor), 10_000)).expect("the feed");
    events.iter().map(|(number, _)| format!("msg-{}-{number}", hook.number)).collect()
}

fn delivery_state(world: &World, hook: &Webhook) -> DeliveryState {
    let admin = cdm_core::manager::Request::by(cdm_testkit::fixtures::actor(), cdm_core::domain::Role::Admin);
    let found = now(world.process().manager.webhooks(&admin)).expect("the webhooks are listed");
    found.into_iter().find(|found| found.number == hook.number).expect("the webhook").standing
}

#[test]
fn a_receiver_gets_its_topics_in_order_signed_with_its_own_key() {
    let mut world = World::new(1);
    world.create_active_site("before");
    let (usual, key) = world.add_webhook(HOOK, &[]).unwrap();
    let (all, other) = world.add_webhook(OTHER, &Topic::ALL).unwrap();
    assert_ne!(key.sign("a", world.wall(), b"b"), other.sign("a", world.wall(), b"b"), "separate keys");
    let postman = FakeWebhookSender::default();
    let dispatcher = world.dispatcher(&postman);
    deliver(&world, &dispatcher);
    assert!(postman.sent(HOOK).is_empty(), "earlier events are not delivered");
    world.create_active_site("rrr");
    let _ = operation_id(world.on_site("rrr", Verb::Promote));
    world.run();
    deliver(&world, &dispatcher);
    assert_eq!(topics(&postman.sent(HOOK)), ["operation.succeeded"; 3]);
    assert_eq!(ids(&postman.sent(OTHER)), all_of(&world, &all), "everything, once, in order");
    let all_topics = topics(&postman.sent(OTHER));
    for topic in ["operation.queued", "operation.running", "operation.step", "operation.succeeded"] {
        assert!(all_topics.contains(&topic), "{topic}: {all_topics:?}");
    }
    let message = postman.sent(HOOK).remove(0);
    assert_eq!((message.event.what.as_str(), message.at), ("succeeded", world.wall()));
    let signed = |by: &cdm_core::domain::webhook::SigningKey| by.sign("a", message.at, b"b");
    assert_eq!(signed(&message.key), signed(&key), "signed with the returned key");
    deliver(&world, &dispatcher);
    assert_eq!(postman.sent(HOOK).len(), 3, "nothing is delivered twice");
    assert_eq!(delivery_state(&world, &usual), DeliveryState::Active);
    assert_sound(&mut world);
}

#[test]
fn a_failing_receiver_is_retried_and_delays_no_other_receiver() {
    let mut world = World::new(2);
    let (slow, _) = world.add_webhook(HOOK, &Topic::ALL).unwrap();
    let (quick, _) = world.add_webhook(OTHER, &Topic::ALL).unwrap();
    let postman = FakeWebhookSender::default();
    let dispatcher = world.dispatcher(&postman);
    postman.set_receiver(
        HOOK,
        Some(ReceiverBehavior::Rejects(DeliveryError::Rejected { status: 503, retry_after: None })),
    );
    world.create_active_site("rrr");
    deliver(&world, &dispatcher);
    assert_eq!(ids(&postman.sent(OTHER)), all_of(&world, &quick));
    let mut pauses = Vec::new();
    for _ in 0..13 {
        let DeliveryState::Failing { next, why, .. } = delivery_state(&world, &slow) else {
            panic!("the webhook is not failing")
        };
        assert_eq!(why, "the receiver responded with status 503");
        let pause = next.since(world.wall());
        pauses.push(pause.as_secs());
        let before = postman.sent(HOOK).len();
        world.clock.advance(pause - Duration::from_millis(1));
        deliver(&world, &dispatcher);
        assert_eq!(postman.sent(HOOK).len(), before, "not before the retry time");
        world.clock.advance(Duration::from_millis(1));
        deliver(&world, &dispatcher);
        assert_eq!(postman.sent(HOOK).len(), before + 1);
    }
    assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 3_600, 3_600, 3_600]);
    assert_eq!(distinct_ids(&postman.sent(HOOK)).len(), 1, "the same message, under the same id");
    postman.set_receiver(HOOK, None);
    world.clock.advance(Duration::from_hours(1));
    deliver(&world, &dispatcher);
    assert_eq!(distinct_ids(&postman.sent(HOOK)), all_of(&world, &slow));
    assert_eq!(delivery_state(&world, &slow), DeliveryState::Active);
}

/// A receiver may request a longer pause than the default, but not a shorter one, and not an unlimited one.
#[test]
fn a_retry_after_is_respected_up_to_an_hour() {
    for (requested, expected) in [(0, 5), (3, 5), (90, 90), (86_400, 3_600)] {
        let mut world = World::new(4);
        let (webhook, _) = world.add_webhook(HOOK, &[]).unwrap();
        let postman = FakeWebhookSender::default();
        let dispatcher = world.dispatcher(&postman);
        let retry_after = Some(Duration::from_secs(requested));
        postman.set_receiver(
            HOOK,
            Some(ReceiverBehavior::Rejects(DeliveryError::Rejected { status: 503, retry_after })),
        );
        world.create_active_site("rrr");
        deliver(&world, &dispatcher);
        let DeliveryState::Failing { next, .. } = delivery_state(&world, &webhook) else {
            panic!("the webhook is not failing")
        };
        assert_eq!(next.since(world.wall()).as_secs(), expected, "{requested}");
    }
}

#[test]
fn a_receiver_that_is_gone_or_silent_for_three_days_is_stopped() {
    let mut world = World::new(3);
    let (gone, _) = world.add_webhook(HOOK, &[]).unwrap();
    let (silent, _) = world.add_webhook(OTHER, &[]).unwrap();
    let postman = FakeWebhookSender::default();
    let dispatcher = world.dispatcher(&postman);
    postman.set_receiver(
        HOOK,
        Some(ReceiverBehavior::Rejects(DeliveryError::Rejected { status: 410, retry_after: None })),
    );
    postman.set_receiver(OTHER, Some(ReceiverBehavior::LosesResponse));
    world.create_active_site("rrr");
    deliver(&world, &dispatcher);
    let DeliveryState::Stopped { why, .. } = delivery_state(&world, &gone) else {
        panic!("the webhook is not stopped")
    };
    assert_eq!(why, "the receiver responded with status 410");
    for _ in 0..100 {
        world.clock.advance(Duration::from_hours(1));
        deliver(&world, &dispatcher);
    }
    let DeliveryState::Stopped { why, at } = delivery_state(&world, &silent) else {
        panic!("the webhook is not stopped")
    };
    assert_eq!(why, "no message was delivered for three days; last error: the response timed out");
    assert!((72..=74).contains(&(at.since(silent.at).as_secs() / 3_600)), "{at}");
    let delivered = (postman.sent(HOOK).len(), postman.sent(OTHER).len());
    postman.set_receiver(HOOK, None);
    postman.set_receiver(OTHER, None);
    let _ = operation_id(world.on_site("rrr", Verb::Promote));
    world.run();
    deliver(&world, &dispatcher);
    assert_eq!((postman.sent(HOOK).len(), postman.sent(OTHER).len()), delivered);
}

#[test]
fn a_crash_at_any_call_loses_no_message_and_repeats_at_most_one() {
    let run = |crash_call: Option<usize>| {
        let mut world = World::new(4);
        let (hook, _) = world.add_webhook(HOOK, &Topic::ALL).unwrap();
        world.create_active_site("rrr");
        let postman = FakeWebhookSender::default();
        let dispatcher = world.dispatcher(&postman);
        world.faults.start_trace();
        let calls = match crash_call {
            None => {
                deliver(&world, &dispatcher);
                world.faults.trace().len()
            }
            Some(call) => {
                // A call that only reads has no effect after which to crash.
                let crash = if call % 2 == 0 { Fault::CrashBefore } else { Fault::CrashAfterEffect };
                world.faults.arm(Plan(vec![(call / 2, crash)]));
                let mut run_once = ManualPoll::new({
                    let dispatcher = Arc::clone(&dispatcher);
                    async move { dispatcher.run_once().await }
                });
                while matches!(run_once.poll(&world), PollState::Pending) {
                    advance_to_next_event(&world);
                }
                drop(run_once);
                world.faults.arm(Plan::default());
                call
            }
        };
        world.restart();
        let next = world.dispatcher(&postman);
        // Another process takes over once the first one has been silent for a lease.
        for _ in 0..6 {
            let _ = world.run_once();
            deliver(&world, &next);
            world.clock.advance(Duration::from_secs(5));
        }
        let delivered = postman.sent(HOOK);
        assert_eq!(distinct_ids(&delivered), all_of(&world, &hook), "call {crash_call:?}");
        assert!(
            delivered.len() <= distinct_ids(&delivered).len() + 1,
            "call {crash_call:?}: {:?}",
            ids(&delivered)
        );
        calls
    };
    let calls = run(None);
    assert!(calls > 30, "{calls}");
    for crash_call in 0..2 * calls {
        run(Some(crash_call));
    }
}

#[test]
fn a_receiver_that_never_responds_delays_no_other_receiver() {
    let mut world = World::new(5);
    let (_, _) = world.add_webhook(HOOK, &[]).unwrap();
    let (quick, _) = world.add_webhook(OTHER, &Topic::ALL).unwrap();
    let postman = FakeWebhookSender::default();
    postman.set_receiver(HOOK, Some(ReceiverBehavior::Hangs));
    let dispatcher = world.dispatcher(&postman);
    let mut running = ManualPoll::new({
        let dispatcher = Arc::clone(&dispatcher);
        async move { dispatcher.run().await }
    });
    for id in ["rrr", "tulips"] {
        world.create_active_site(id);
        let promote = operation_id(world.on_site(id, Verb::Promote));
        world.run();
        assert_eq!(status(&world, &promote).as_str(), "succeeded");
        for _ in 0..20 {
            assert!(matches!(running.poll(&world), PollState::Pending));
            advance_to_next_event(&world);
        }
    }
    assert_eq!(postman.sent(HOOK).len(), 1, "one request is pending");
    assert_eq!(ids(&postman.sent(OTHER)), all_of(&world, &quick));
}

#[test]
fn one_process_sends_and_a_resumed_former_sender_changes_nothing() {
    let mut world = World::new(6);
    let (hook, _) = world.add_webhook(HOOK, &Topic::ALL).unwrap();
    world.create_active_site("rrr");
    let postman = FakeWebhookSender::default();
    postman.set_receiver(HOOK, Some(ReceiverBehavior::Hangs));
    let first = world.dispatcher(&postman);
    let mut paused_run = ManualPoll::new(async move { first.run_once().await });
    assert!(matches!(paused_run.poll(&world), PollState::Pending));
    assert_eq!(postman.sent(HOOK).len(), 1);
    postman.set_receiver(HOOK, None);
    let old = world.process();
    world.restart();
    let next = world.dispatcher(&postman);
    for _ in 0..5 {
        // The first process's worker is alive; only its dispatcher is paused.
        now(old.worker.heartbeat());
        let _ = world.run_once();
        deliver(&world, &next);
        world.clock.advance(Duration::from_secs(5));
    }
    assert_eq!(postman.sent(HOOK).len(), 1, "only one of two live processes sends");
    for _ in 0..6 {
        let _ = world.run_once();
        deliver(&world, &next);
        world.clock.advance(Duration::from_secs(5));
    }
    assert_eq!(distinct_ids(&postman.sent(HOOK)), all_of(&world, &hook));
    let before = delivery_state(&world, &hook);
    drop(paused_run);
    assert_eq!(delivery_state(&world, &hook), before);
}

#[test]
fn a_removed_webhook_gets_nothing_and_its_key_is_deleted() {
    let mut world = World::new(7);
    let (hook, _) = world.add_webhook(HOOK, &[]).unwrap();
    let postman = FakeWebhookSender::default();
    let dispatcher = world.dispatcher(&postman);
    world.create_active_site("rrr");
    let number = hook.number;
    let remove = |world: &mut World| {
        world.request(move |manager, request| {
            Box::pin(async move { manager.remove_webhook(&request, number).await })
        })
    };
    remove(&mut world).unwrap();
    deliver(&world, &dispatcher);
    assert!(postman.sent(HOOK).is_empty());
    assert_eq!(world.secrets.deleting(), [hook.key()]);
    assert_eq!(remove(&mut world).unwrap_err().code(), "not_found");
}

#[test]
fn a_repeated_create_after_a_lost_response_makes_one_webhook_with_one_key() {
    let calls = super::calls(|_| {}, |world| drop(world.add_webhook(HOOK, &[]))).len();
    for call in 0..calls {
        for fault in [
            Fault::CrashBefore,
            Fault::CrashAfterEffect,
            Fault::CrashAfterAnswer,
            Fault::LostAnswer,
            Fault::LostCall,
            Fault::Throttled,
            Fault::Conflict,
            Fault::Duplicate,
        ] {
            let mut world = World::new(8);
            world.faults.arm(Plan(vec![(call, fault)]));
            let (hook, key) =
                world.add_webhook(HOOK, &[]).unwrap_or_else(|error| panic!("{call} {fault:?}: {error}"));
            world.heal();
            let all = now(world.raw().store.webhooks()).unwrap();
            assert_eq!(all.list, [hook], "call {call}, {fault:?}");
            let kept = world.secrets.values();
            assert_eq!(kept.len(), 1, "call {call}, {fault:?}");
            let cdm_core::ports::Credentials::Webhook(stored) = &kept[0].1 else { panic!("a webhook's key") };
            let signed = |by: &cdm_core::domain::webhook::SigningKey| by.sign("a", world.wall(), b"b");
            assert_eq!(signed(stored), signed(&key), "call {call}, {fault:?}");
        }
    }
}

#[test]
fn a_twenty_first_webhook_and_an_internal_address_are_rejected() {
    let mut world = World::new(9);
    for inside in ["https://127.0.0.1/", "http://hooks.example.com/", "https://localhost/"] {
        assert_eq!(world.add_webhook(inside, &[]).unwrap_err().code(), "invalid", "{inside}");
    }
    for _ in 0..20 {
        let _ = world.add_webhook(HOOK, &[]).unwrap();
    }
    let refused = world.add_webhook(HOOK, &[]).unwrap_err();
    assert_eq!(refused.code(), "invalid");
    assert!(refused.to_string().contains("at most 20"), "{refused}");
}
