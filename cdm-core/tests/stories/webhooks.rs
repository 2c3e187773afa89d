//! Webhooks: who is told what, in which order, and what becomes of a receiver that fails.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::webhook::{DeliveryState, Topic, Webhook};
use cdm_core::engine::WebhookDispatcher;
use cdm_core::ports::{DeliveryError, Message};
use cdm_testkit::fakes::{Answer, FakePostman};
use cdm_testkit::faults::{Fault, Plan};
use cdm_testkit::world::{Verb, World, now};

use super::{Hand, Left, assert_sound, begun, pass, status};

const HOOK: &str = "https://hooks.example.com/cdm?key=1";
const OTHER: &str = "https://other.example.com/";

/// Brings all that is due now.
fn bring(world: &World, dispatcher: &Arc<WebhookDispatcher>) {
    let dispatcher = Arc::clone(dispatcher);
    Hand::new(async move { dispatcher.run_once().await }).finish(world);
}

fn topics(messages: &[Message]) -> Vec<&'static str> {
    messages.iter().map(|message| message.topic.as_str()).collect()
}

fn ids(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| message.id.clone()).collect()
}

/// Each id once, where it came first.
fn firsts(messages: &[Message]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    ids(messages).into_iter().filter(|id| seen.insert(id.clone())).collect()
}

/// The ids of all that happened after the webhook was made.
fn all_of(world: &World, hook: &Webhook) -> Vec<String> {
    let events = now(world.raw().store.events(Some(hook.cursor), 10_000)).expect("the feed");
    events.iter().map(|(number, _)| format!("msg-{}-{number}", hook.number)).collect()
}

fn standing(world: &World, hook: &Webhook) -> DeliveryState {
    let admin = cdm_core::manager::Request::by(cdm_testkit::build::actor(), cdm_core::domain::Role::Admin);
    let found = now(world.process().manager.webhooks(&admin)).expect("the store answers");
    found.into_iter().find(|found| found.number == hook.number).expect("the webhook").standing
}

#[test]
fn a_receiver_is_told_what_it_chose_in_order_and_signed_with_its_own_key() {
    let mut world = World::new(1);
    world.settle_site("before");
    let (usual, key) = world.hook(HOOK, &[]).unwrap();
    let (all, other) = world.hook(OTHER, &Topic::ALL).unwrap();
    assert_ne!(key.sign("a", world.wall(), b"b"), other.sign("a", world.wall(), b"b"), "keys of their own");
    let postman = FakePostman::default();
    let dispatcher = world.dispatcher(&postman);
    bring(&world, &dispatcher);
    assert!(postman.brought(HOOK).is_empty(), "nothing is told of what was before");
    world.settle_site("rrr");
    let _ = begun(world.on_site("rrr", Verb::Promote));
    world.run();
    bring(&world, &dispatcher);
    assert_eq!(topics(&postman.brought(HOOK)), ["operation.succeeded"; 3]);
    assert_eq!(ids(&postman.brought(OTHER)), all_of(&world, &all), "everything, once, in order");
    let told = topics(&postman.brought(OTHER));
    for topic in ["operation.queued", "operation.running", "operation.step", "operation.succeeded"] {
        assert!(told.contains(&topic), "{topic}: {told:?}");
    }
    let message = postman.brought(HOOK).remove(0);
    assert_eq!((message.event.what.as_str(), message.at), ("succeeded", world.wall()));
    let signed = |by: &cdm_core::domain::webhook::SigningKey| by.sign("a", message.at, b"b");
    assert_eq!(signed(&message.key), signed(&key), "with the key that was answered");
    bring(&world, &dispatcher);
    assert_eq!(postman.brought(HOOK).len(), 3, "nothing comes twice");
    assert_eq!(standing(&world, &usual), DeliveryState::Active);
    assert_sound(&mut world);
}

#[test]
fn a_receiver_that_fails_is_given_time_and_gets_everything_in_the_end_and_nobody_waits_for_it() {
    let mut world = World::new(2);
    let (slow, _) = world.hook(HOOK, &Topic::ALL).unwrap();
    let (quick, _) = world.hook(OTHER, &Topic::ALL).unwrap();
    let postman = FakePostman::default();
    let dispatcher = world.dispatcher(&postman);
    postman.answer(HOOK, Some(Answer::Refuses(DeliveryError::Rejected { status: 503, retry_after: None })));
    world.settle_site("rrr");
    bring(&world, &dispatcher);
    assert_eq!(ids(&postman.brought(OTHER)), all_of(&world, &quick));
    let mut pauses = Vec::new();
    for _ in 0..13 {
        let DeliveryState::Failing { next, why, .. } = standing(&world, &slow) else { panic!("it fails") };
        assert_eq!(why, "the receiver answers 503");
        let pause = next.since(world.wall());
        pauses.push(pause.as_secs());
        let before = postman.brought(HOOK).len();
        world.clock.advance(pause - Duration::from_millis(1));
        bring(&world, &dispatcher);
        assert_eq!(postman.brought(HOOK).len(), before, "not before its time");
        world.clock.advance(Duration::from_millis(1));
        bring(&world, &dispatcher);
        assert_eq!(postman.brought(HOOK).len(), before + 1);
    }
    assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 3_600, 3_600, 3_600]);
    assert_eq!(firsts(&postman.brought(HOOK)).len(), 1, "the same message, under the same id");
    postman.answer(HOOK, None);
    world.clock.advance(Duration::from_hours(1));
    bring(&world, &dispatcher);
    assert_eq!(firsts(&postman.brought(HOOK)), all_of(&world, &slow));
    assert_eq!(standing(&world, &slow), DeliveryState::Active);
}

/// A receiver may ask for a longer pause than the usual one, and for no shorter one; nor for one without an end.
#[test]
fn a_receivers_retry_after_is_kept_within_an_hour() {
    for (asked, expected) in [(0, 5), (3, 5), (90, 90), (86_400, 3_600)] {
        let mut world = World::new(4);
        let (webhook, _) = world.hook(HOOK, &[]).unwrap();
        let postman = FakePostman::default();
        let dispatcher = world.dispatcher(&postman);
        let retry_after = Some(Duration::from_secs(asked));
        postman.answer(HOOK, Some(Answer::Refuses(DeliveryError::Rejected { status: 503, retry_after })));
        world.settle_site("rrr");
        bring(&world, &dispatcher);
        let DeliveryState::Failing { next, .. } = standing(&world, &webhook) else { panic!("it fails") };
        assert_eq!(next.since(world.wall()).as_secs(), expected, "{asked}");
    }
}

#[test]
fn a_receiver_that_is_gone_or_silent_for_three_days_is_told_nothing_more() {
    let mut world = World::new(3);
    let (gone, _) = world.hook(HOOK, &[]).unwrap();
    let (silent, _) = world.hook(OTHER, &[]).unwrap();
    let postman = FakePostman::default();
    let dispatcher = world.dispatcher(&postman);
    postman.answer(HOOK, Some(Answer::Refuses(DeliveryError::Rejected { status: 410, retry_after: None })));
    postman.answer(OTHER, Some(Answer::Loses));
    world.settle_site("rrr");
    bring(&world, &dispatcher);
    let DeliveryState::Stopped { why, .. } = standing(&world, &gone) else { panic!("it is stopped") };
    assert_eq!(why, "the receiver answers 410");
    for _ in 0..100 {
        world.clock.advance(Duration::from_hours(1));
        bring(&world, &dispatcher);
    }
    let DeliveryState::Stopped { why, at } = standing(&world, &silent) else { panic!("it is stopped") };
    assert_eq!(why, "no message arrived for three days; at last: no answer in time");
    assert!((72..=74).contains(&(at.since(silent.at).as_secs() / 3_600)), "{at}");
    let came = (postman.brought(HOOK).len(), postman.brought(OTHER).len());
    postman.answer(HOOK, None);
    postman.answer(OTHER, None);
    let _ = begun(world.on_site("rrr", Verb::Promote));
    world.run();
    bring(&world, &dispatcher);
    assert_eq!((postman.brought(HOOK).len(), postman.brought(OTHER).len()), came);
}

#[test]
fn a_process_that_dies_at_any_call_loses_no_message_and_repeats_one_at_most() {
    let play = |deadly: Option<usize>| {
        let mut world = World::new(4);
        let (hook, _) = world.hook(HOOK, &Topic::ALL).unwrap();
        world.settle_site("rrr");
        let postman = FakePostman::default();
        let dispatcher = world.dispatcher(&postman);
        world.faults.start_trace();
        let calls = match deadly {
            None => {
                bring(&world, &dispatcher);
                world.faults.trace().len()
            }
            Some(call) => {
                // A call that only reads has no effect to die after.
                let dies = if call % 2 == 0 { Fault::CrashBefore } else { Fault::CrashAfterEffect };
                world.faults.arm(Plan(vec![(call / 2, dies)]));
                let mut run_once = Hand::new({
                    let dispatcher = Arc::clone(&dispatcher);
                    async move { dispatcher.run_once().await }
                });
                while matches!(run_once.poll(&world), Left::Waits) {
                    pass(&world);
                }
                drop(run_once);
                world.faults.arm(Plan::default());
                call
            }
        };
        world.restart();
        let next = world.dispatcher(&postman);
        // Another process takes over once it has seen the first one silent for a lease.
        for _ in 0..6 {
            let _ = world.run_once();
            bring(&world, &next);
            world.clock.advance(Duration::from_secs(5));
        }
        let brought = postman.brought(HOOK);
        assert_eq!(firsts(&brought), all_of(&world, &hook), "call {deadly:?}");
        assert!(brought.len() <= firsts(&brought).len() + 1, "call {deadly:?}: {:?}", ids(&brought));
        calls
    };
    let calls = play(None);
    assert!(calls > 30, "{calls}");
    for deadly in 0..2 * calls {
        play(Some(deadly));
    }
}

#[test]
fn a_receiver_that_never_answers_holds_up_neither_the_others_nor_the_work() {
    let mut world = World::new(5);
    let (_, _) = world.hook(HOOK, &[]).unwrap();
    let (quick, _) = world.hook(OTHER, &Topic::ALL).unwrap();
    let postman = FakePostman::default();
    postman.answer(HOOK, Some(Answer::Hangs));
    let dispatcher = world.dispatcher(&postman);
    let mut running = Hand::new({
        let dispatcher = Arc::clone(&dispatcher);
        async move { dispatcher.run().await }
    });
    for id in ["rrr", "tulips"] {
        world.settle_site(id);
        let promote = begun(world.on_site(id, Verb::Promote));
        world.run();
        assert_eq!(status(&world, &promote).as_str(), "succeeded");
        for _ in 0..20 {
            assert!(matches!(running.poll(&world), Left::Waits));
            pass(&world);
        }
    }
    assert_eq!(postman.brought(HOOK).len(), 1, "it is asked once and has not answered");
    assert_eq!(ids(&postman.brought(OTHER)), all_of(&world, &quick));
}

#[test]
fn one_process_sends_and_one_that_comes_back_from_standing_still_changes_nothing() {
    let mut world = World::new(6);
    let (hook, _) = world.hook(HOOK, &Topic::ALL).unwrap();
    world.settle_site("rrr");
    let postman = FakePostman::default();
    postman.answer(HOOK, Some(Answer::Hangs));
    let first = world.dispatcher(&postman);
    let mut stands = Hand::new(async move { first.run_once().await });
    assert!(matches!(stands.poll(&world), Left::Waits));
    assert_eq!(postman.brought(HOOK).len(), 1);
    postman.answer(HOOK, None);
    let old = world.process();
    world.restart();
    let next = world.dispatcher(&postman);
    for _ in 0..5 {
        // The first one's worker lives, whatever its courier does.
        now(old.worker.heartbeat());
        let _ = world.run_once();
        bring(&world, &next);
        world.clock.advance(Duration::from_secs(5));
    }
    assert_eq!(postman.brought(HOOK).len(), 1, "only one of two that live sends");
    for _ in 0..6 {
        let _ = world.run_once();
        bring(&world, &next);
        world.clock.advance(Duration::from_secs(5));
    }
    assert_eq!(firsts(&postman.brought(HOOK)), all_of(&world, &hook));
    let left = standing(&world, &hook);
    drop(stands);
    assert_eq!(standing(&world, &hook), left);
}

#[test]
fn a_webhook_that_is_removed_is_told_nothing_and_takes_its_key_with_it() {
    let mut world = World::new(7);
    let (hook, _) = world.hook(HOOK, &[]).unwrap();
    let postman = FakePostman::default();
    let dispatcher = world.dispatcher(&postman);
    world.settle_site("rrr");
    let number = hook.number;
    let remove = |world: &mut World| {
        world.ask(move |manager, request| {
            Box::pin(async move { manager.remove_webhook(&request, number).await })
        })
    };
    remove(&mut world).unwrap();
    bring(&world, &dispatcher);
    assert!(postman.brought(HOOK).is_empty());
    assert_eq!(world.secrets.deleting(), [hook.key()]);
    assert_eq!(remove(&mut world).unwrap_err().code(), "not_found");
}

#[test]
fn what_is_asked_again_after_a_lost_answer_makes_one_webhook_with_one_key() {
    let calls = super::calls(|_| {}, |world| drop(world.hook(HOOK, &[]))).len();
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
                world.hook(HOOK, &[]).unwrap_or_else(|error| panic!("{call} {fault:?}: {error}"));
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
fn a_twenty_first_webhook_and_an_address_inside_are_refused() {
    let mut world = World::new(9);
    for inside in ["https://127.0.0.1/", "http://hooks.example.com/", "https://localhost/"] {
        assert_eq!(world.hook(inside, &[]).unwrap_err().code(), "invalid", "{inside}");
    }
    for _ in 0..20 {
        let _ = world.hook(HOOK, &[]).unwrap();
    }
    let refused = world.hook(HOOK, &[]).unwrap_err();
    assert_eq!(refused.code(), "invalid");
    assert!(refused.to_string().contains("at most 20"), "{refused}");
}
