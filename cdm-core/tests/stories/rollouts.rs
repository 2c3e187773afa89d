//! Rollouts of a whole fleet, observed from outside.

use std::time::Duration;

use cdm_core::domain::operation::{OperationId, OperationParent};
use cdm_core::domain::rollout::{Budget, Counts, MemberOutcome, RolloutSpec, WaveTarget};
use cdm_core::domain::{Color, ReasonCode, RolloutKind, RolloutStatus, Status, Term, TerminalStatus};
use cdm_core::manager::{Accepted, Force, ManagerError, Resume, RolloutScope};
use cdm_core::ports::JobState;
use cdm_testkit::fakes::{ImageScript, JobScript};
use cdm_testkit::faults::{Fault, Plan};
use cdm_testkit::log::EffectKind;
use cdm_testkit::world::{Verb, World, digest, now};

use super::controls::{Control, send_control};
use super::waves::{all, fleet, nth, on_green, outcomes, status_and_code};
use super::{
    assert_parked, assert_sound, cancel, failing, never_ready, number, operation_id, rollout, routed,
    run_once, site, start_rollout, status,
};

/// A single wave.
fn at_once() -> RolloutSpec {
    RolloutSpec { waves: Vec::new(), ..all(0) }
}

fn retry_rollout(world: &mut World, number: u64) -> Result<Accepted, ManagerError> {
    world.request(move |manager, request| {
        Box::pin(async move { manager.retry_rollout(&request, number).await })
    })
}

/// Parks the `n`th site's own promote, so that no other operation may claim the site.
fn busy(world: &mut World, n: u32) -> cdm_core::domain::OperationId {
    world.cluster.script_job("flush-caches", failing(3));
    let promote = operation_id(world.on_site(&nth(n), Verb::Upgrade));
    world.run();
    assert_parked(world, &promote, ReasonCode::CacheFlushFailed);
    promote
}

#[test]
fn a_site_with_another_operation_is_skipped_as_busy() {
    let mut world = fleet(6);
    let parked = busy(&mut world, 2);
    let before = site(&world, &nth(2));
    let number = number(start_rollout(&mut world, &all(0)));
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
    assert_eq!(outcomes(&world, number)[2], Some(MemberOutcome::SkippedBusy));
    let after = site(&world, &nth(2));
    assert_eq!(
        (after.operation, after.service, after.route),
        (before.operation, before.service, before.route)
    );
    assert_eq!(on_green(&world, 6), [0, 1, 3, 4, 5]);
    let _ = cancel(&mut world, &parked).unwrap();
    world.run();
    assert_sound(&mut world);
}

#[test]
fn a_member_without_a_flush_has_a_reason_and_a_log() {
    let mut world = fleet(2);
    let uid = site(&world, &nth(1)).uid;
    let error = "`flush-1` ended with 3: Error: Error establishing a database connection.";
    let result = || JobState::Succeeded { failed: vec![(uid, error.to_owned())] };
    let script = || JobScript { takes: Duration::from_secs(1), result: result() };
    world
        .cluster
        .script_job("flush-caches", vec![script(), script(), script(), script(), script(), script()]);
    let number = number(start_rollout(&mut world, &at_once()));
    world.run();
    assert_eq!(outcomes(&world, number), [Some(MemberOutcome::Moved), Some(MemberOutcome::Parked)]);
    let rollout = rollout(&world, number);
    let failure = rollout.failures.iter().find(|failure| failure.site.as_str() == nth(1)).unwrap();
    let why = failure.why.as_deref().unwrap();
    assert!(why.contains("database connection"), "{why}");
    let id = OperationId { number: rollout.first_number + 1, parent: OperationParent::Rollout(number, 1) };
    let member = now(world.process().manager.operation(&id)).unwrap();
    let reason = member.state.reason.unwrap();
    assert_eq!(
        (member.state.status, reason.code),
        (Status::Parked, ReasonCode::DatabaseRefused),
        "{reason:?}"
    );
    let log = now(world.process().manager.step_log(&id, "FlushCaches")).unwrap();
    assert!(log.is_some_and(|log| log.contains("database connection")));
    assert_sound(&mut world);
}

#[test]
fn deleted_sites_are_skipped_and_later_sites_are_not_included() {
    let mut world = fleet(6);
    let number = number(start_rollout(&mut world, &all(0)));
    send_control(&mut world, number, Control::Pause).unwrap();
    let _ = operation_id(world.on_site(&nth(3), Verb::Terminate));
    let _ = operation_id(world.on_site(&nth(4), Verb::Terminate));
    world.run();
    // A recreated site with the same id is another site.
    world.create_active_site(&nth(4));
    world.create_active_site("later");
    assert_eq!(site(&world, "later").service, Color::Green);
    send_control(&mut world, number, Control::Resume).unwrap();
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
    let outcomes = outcomes(&world, number);
    assert_eq!(outcomes.len(), 6);
    assert_eq!(
        (outcomes[3], outcomes[4]),
        (Some(MemberOutcome::SkippedGone), Some(MemberOutcome::SkippedGone))
    );
    assert_eq!(rollout(&world, number).counts(), Counts { succeeded: 4, skipped: 2, ..Counts::default() });
    let untouched = site(&world, "later");
    assert_eq!(
        (untouched.last_outcome, untouched.claim_token),
        (None, cdm_core::domain::ClaimToken::default())
    );
    assert_sound(&mut world);
}

#[test]
fn a_second_rollout_is_rejected_until_the_first_has_ended() {
    let mut world = fleet(3);
    let first = number(start_rollout(&mut world, &all(0)));
    assert_eq!(start_rollout(&mut world, &all(0)).unwrap_err(), ManagerError::RolloutInFlight(first));
    send_control(&mut world, first, Control::Pause).unwrap();
    let upgrade = RolloutSpec { kind: RolloutKind::Upgrade, ..all(0) };
    assert_eq!(start_rollout(&mut world, &upgrade).unwrap_err(), ManagerError::RolloutInFlight(first));
    assert_eq!(retry_rollout(&mut world, first).unwrap_err().code(), "illegal_transition");
    send_control(&mut world, first, Control::Resume).unwrap();
    world.run();
    let second = number(start_rollout(&mut world, &upgrade));
    world.run();
    assert_eq!(status_and_code(&world, second), (RolloutStatus::Succeeded, None));
    assert_sound(&mut world);
}

#[test]
fn a_changed_canary_does_not_redirect_a_running_rollout() {
    let mut world = fleet(12);
    let first = number(start_rollout(&mut world, &all(0)));
    let mut owner = run_once(&world.process());
    while on_green(&world, 12).is_empty() {
        assert!(matches!(owner.poll(&world), super::PollState::Pending));
    }
    world.select(Color::Blue).unwrap();
    let _ = owner.finish(&world);
    world.run();
    assert_eq!(status_and_code(&world, first), (RolloutStatus::Succeeded, None));
    assert_eq!((rollout(&world, first).target, on_green(&world, 12).len()), (Color::Green, 12));
    // The next rollout targets the current canary.
    let next = number(start_rollout(&mut world, &all(0)));
    world.run();
    assert_eq!((rollout(&world, next).target, on_green(&world, 12).len()), (Color::Blue, 0));
    assert_sound(&mut world);
}

#[test]
fn a_site_listed_twice_is_included_once() {
    let mut world = fleet(3);
    let named = ["s001", "s001", "s000"];
    let ids = named.iter().map(|id| cdm_core::domain::SiteId::parse(id).unwrap()).collect();
    let number =
        number(start_rollout(&mut world, &RolloutSpec { scope: RolloutScope::Sites(ids), ..all(0) }));
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
    assert_eq!(outcomes(&world, number), [Some(MemberOutcome::Moved); 2]);
    assert_eq!(on_green(&world, 3), [0, 1]);
    assert_sound(&mut world);
}

/// Accepts the running digest, as a user would.
fn accept(world: &mut World, number: u64, image: u8) {
    let wanted = Resume { accept: Some(digest(image)), force: Force::No };
    let accepted = world.request(move |manager, request| {
        Box::pin(async move { manager.resume_on(&request, number, wanted).await })
    });
    assert_eq!(accepted, Ok(Accepted::Rollout(number)));
    world.run();
}

#[test]
fn during_a_rollout_deploys_to_its_target_are_rejected() {
    let mut seen = 0;
    for call in (0..).step_by(5) {
        let mut world = fleet(4);
        let number = number(start_rollout(&mut world, &all(0)));
        world.faults.arm(Plan(vec![(call, Fault::Paused(255))]));
        let mut owner = run_once(&world.process());
        if !owner.runs_until_paused(&world) {
            break;
        }
        world.restart();
        let moving = now(world.raw().store.service(Color::Green)).unwrap().lock.moves.contains(&number);
        let redeploy = world.deploy(digest(1), Color::Green, false);
        if moving {
            assert_eq!(redeploy.unwrap_err(), ManagerError::RolloutInFlight(number), "call {call}");
            seen += 1;
        } else {
            let _ = operation_id(redeploy);
        }
        let _ = operation_id(world.deploy(digest(2), Color::Blue, false));
        let _ = owner.finish(&world);
        world.run();
        if !moving
            && status_and_code(&world, number) == (RolloutStatus::Waiting, Some(ReasonCode::DigestChanged))
        {
            accept(&mut world, number, 1);
        }
        assert_eq!(rollout(&world, number).status, RolloutStatus::Succeeded, "call {call}");
        assert_eq!(on_green(&world, 4).len(), 4);
        let view = now(world.raw().cluster.service(Color::Blue)).unwrap();
        assert_eq!(view.digest, Some(digest(2)));
        assert_sound(&mut world);
    }
    assert!(seen > 5, "{seen}");
}

#[test]
fn a_rollout_waits_for_an_unready_target_and_releases_its_lock() {
    let mut world = fleet(12);
    let number = number(start_rollout(&mut world, &all(0)));
    let mut owner = run_once(&world.process());
    // A call takes longer than a poll.
    world.faults.use_one_connection();
    while on_green(&world, 12).is_empty() {
        assert!(matches!(owner.poll(&world), super::PollState::Pending));
    }
    world.faults.use_many_connections();
    world.cluster.break_service(Color::Green, None);
    // A read of the target is valid for a quarter of a second.
    world.clock.advance(Duration::from_millis(250));
    let _ = owner.finish(&world);
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Waiting, Some(ReasonCode::ServiceNotReady)));
    let moved = on_green(&world, 12);
    assert!(moved.len() < 12, "{moved:?}");
    let service = now(world.raw().store.service(Color::Green)).unwrap();
    assert!(service.lock.moves.is_empty() && rollout(&world, number).locked_color.is_none());
    world.clock.advance(Duration::from_secs(600));
    let _ = world.run_once();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Waiting, Some(ReasonCode::ServiceNotReady)));
    let deploy = operation_id(world.deploy(digest(1), Color::Green, false));
    world.run();
    assert_eq!(status(&world, &deploy), Status::Ended(TerminalStatus::Succeeded));
    // The operator who fixed the target confirms its digest.
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Waiting, Some(ReasonCode::DigestChanged)));
    accept(&mut world, number, 1);
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
    assert_eq!(on_green(&world, 12).len(), 12);
    assert_sound(&mut world);
}

#[test]
fn a_rollout_with_an_unready_target_pauses_with_the_reason_and_can_be_resumed() {
    let mut world = fleet(3);
    world.cluster.break_service(Color::Green, None);
    let number = number(start_rollout(&mut world, &at_once()));
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Paused, Some(ReasonCode::ServiceNotReady)));
    world.cluster.repair_service(Color::Green);
    world
        .request(move |manager, request| Box::pin(async move { manager.resume(&request, number).await }))
        .unwrap();
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
    assert_sound(&mut world);
}

/// Returns a flush script that fails for these sites and succeeds for the others.
fn fails_for(world: &World, sites: &[u32]) -> JobScript {
    let failed = sites.iter().map(|n| (site(world, &nth(*n)).uid, "no cache".to_owned())).collect();
    JobScript { takes: Duration::from_secs(1), result: JobState::Succeeded { failed } }
}

#[test]
fn a_flush_is_retried_only_for_failed_sites_which_then_park() {
    let mut world = fleet(6);
    let tries = [&[2, 4][..], &[2], &[2]].map(|sites| fails_for(&world, sites));
    world.cluster.script_job("flush-caches", tries.to_vec());
    let number = number(start_rollout(&mut world, &at_once()));
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
    let expected: Vec<_> =
        (0..6).map(|n| Some(if n == 2 { MemberOutcome::Parked } else { MemberOutcome::Moved })).collect();
    assert_eq!(outcomes(&world, number), expected);
    // A job of a single site is named after the site.
    let jobs = world.cluster.jobs().into_iter().filter(|(name, ..)| name.as_str().contains("flush-caches"));
    let whose: Vec<_> = jobs.map(|(_, whose, _)| whose).collect();
    assert_eq!(whose, [None, None, Some(site(&world, &nth(2)).uid)]);
    // No site is moved back.
    assert_eq!(on_green(&world, 6).len(), 6);
    let again = super::number(retry_rollout(&mut world, number));
    world.run();
    assert_eq!(rollout(&world, again).total, 1);
    assert_eq!(outcomes(&world, again), [Some(MemberOutcome::InPlace)]);
    assert_sound(&mut world);
}

#[test]
fn a_failed_flush_parks_the_sites_of_its_window_and_the_next_window_continues() {
    let mut world = fleet(6);
    world.cluster.script_job("flush-caches", failing(3));
    let waves = vec![WaveTarget::Count(2), WaveTarget::Percent(100)];
    let number = number(start_rollout(&mut world, &RolloutSpec { waves, ..all(0) }));
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
    assert_eq!(rollout(&world, number).counts(), Counts { succeeded: 4, parked: 2, ..Counts::default() });
    assert_eq!(on_green(&world, 6).len(), 6);
    assert_sound(&mut world);
}

#[test]
fn a_retry_includes_the_sites_that_were_not_moved() {
    let mut world = fleet(6);
    let parked = busy(&mut world, 2);
    let _ = operation_id(world.on_site(&nth(5), Verb::Terminate));
    let once = number(start_rollout(&mut world, &at_once()));
    world.run();
    assert_eq!(rollout(&world, once).counts(), Counts { succeeded: 4, skipped: 2, ..Counts::default() });
    let _ = cancel(&mut world, &parked).unwrap();
    world.run();
    let again = number(retry_rollout(&mut world, once));
    let rollout = rollout(&world, again);
    assert_eq!((rollout.retry_of, rollout.total, rollout.spec.kind), (Some(once), 1, RolloutKind::Promote));
    world.run();
    assert_eq!(outcomes(&world, again), [Some(MemberOutcome::Moved)]);
    assert_eq!(routed(&world, &nth(2)), Some(Color::Green));
    assert_sound(&mut world);
}

#[test]
fn a_retry_of_an_aborted_rollout_includes_the_sites_that_it_did_not_reach() {
    let mut world = fleet(6);
    let once = number(start_rollout(&mut world, &all(0)));
    send_control(&mut world, once, Control::Abort).unwrap();
    world.run();
    let again = number(retry_rollout(&mut world, once));
    world.run();
    assert_eq!(rollout(&world, again).total, 6);
    assert_eq!(on_green(&world, 6).len(), 6);
    assert_sound(&mut world);
}

#[test]
fn a_rollout_with_a_failed_deploy_fails_and_moves_no_site() {
    let mut world = fleet(6);
    let before: Vec<_> = (0..6).map(|n| site(&world, &nth(n))).collect();
    world.cluster.script(digest(9), never_ready(true, "CrashLoopBackOff"));
    let wanted = RolloutSpec { digest: Some(digest(9)), ..all(0) };
    let number = number(start_rollout(&mut world, &wanted));
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Failed, Some(ReasonCode::ImageNotReady)));
    let message = rollout(&world, number).reason.unwrap().message;
    assert!(message.contains("CrashLoopBackOff"), "{message}");
    assert_eq!((0..6).map(|n| site(&world, &nth(n))).collect::<Vec<_>>(), before);
    assert_eq!(outcomes(&world, number), [None; 6]);
    // The fleet is free again, and the service runs its previous image.
    assert_eq!(now(world.raw().cluster.service(Color::Green)).unwrap().digest, Some(digest(0)));
    let _ = super::number(start_rollout(&mut world, &all(0)));
    world.run();
    assert_eq!(on_green(&world, 6).len(), 6);
    assert_sound(&mut world);
}

#[test]
fn a_retry_of_a_rollout_with_a_failed_deploy_includes_every_site() {
    let mut world = fleet(6);
    world.cluster.script(digest(9), never_ready(true, "CrashLoopBackOff"));
    let wanted = RolloutSpec { digest: Some(digest(9)), ..all(0) };
    let once = number(start_rollout(&mut world, &wanted));
    world.run();
    assert_eq!(rollout(&world, once).status, RolloutStatus::Failed);
    // The same digest is deployed first again; its pods get ready now.
    world.cluster.script(digest(9), ImageScript::default());
    assert_eq!(retry_rollout(&mut world, once).unwrap_err().code(), "bad_digest");
    let again = number(world.request(move |manager, request| {
        Box::pin(async move { manager.retry_rollout_with(&request, once, Force::Yes).await })
    }));
    world.run();
    assert_eq!(rollout(&world, again).total, 6);
    assert_eq!(on_green(&world, 6).len(), 6);
    assert_eq!(now(world.raw().cluster.service(Color::Green)).unwrap().digest, Some(digest(9)));
    assert_sound(&mut world);
}

#[test]
fn a_retry_of_a_rolled_back_rollout_includes_every_site() {
    let mut world = fleet(10);
    super::waves::lose_route(&world, 1);
    let waves = vec![WaveTarget::Count(3), WaveTarget::Percent(100)];
    let once = number(start_rollout(&mut world, &RolloutSpec { auto_rollback: true, waves, ..all(0) }));
    world.run();
    assert_eq!(rollout(&world, once).status, RolloutStatus::Failed);
    // The broken site is terminated.
    let _ = operation_id(world.on_site(&nth(1), Verb::Terminate));
    world.run();
    let again = number(retry_rollout(&mut world, once));
    world.run();
    let moved =
        (0..10).filter(|n| *n != 1).filter(|n| routed(&world, &nth(*n)) == Some(Color::Green)).count();
    assert_eq!((rollout(&world, again).status, moved), (RolloutStatus::Succeeded, 9));
    let broken: Vec<_> = world.violations().iter().map(ToString::to_string).collect();
    assert!(broken.iter().all(|broken| broken.contains("Released(")), "{broken:#?}");
}

#[test]
fn six_hundred_sites_are_moved_once_although_two_owners_die() {
    let mut world = fleet(600);
    let wanted = RolloutSpec { max_concurrent: 64, budget: Budget::Percent(0), ..all(0) };
    let number = number(start_rollout(&mut world, &wanted));
    // Crashes in the second page and in the last window.
    world.faults.arm(Plan(vec![(900, Fault::CrashAfterEffect), (1_700, Fault::CrashBefore)]));
    world.run();
    assert_eq!(world.faults.fired(), 2);
    let rollout = rollout(&world, number);
    assert_eq!(rollout.status, RolloutStatus::Succeeded);
    assert!(rollout.term >= Term(3), "{}", rollout.term);
    assert_eq!(world.store.pages(number).len(), 3);
    assert_eq!(rollout.counts(), Counts { succeeded: 600, ..Counts::default() });
    assert_eq!(on_green(&world, 600).len(), 600);
    let moves = world
        .log
        .since(0)
        .into_iter()
        .filter(|effect| matches!(effect.kind, EffectKind::RouteMoved(_, from, to) if from != to));
    assert_eq!(moves.count(), 600);
    assert_sound(&mut world);
}

#[test]
fn a_rollout_with_a_number_of_an_earlier_block_moves_sites() {
    let mut world = fleet(3);
    // This process still has numbers of a block that it allocated earlier; another process starts, allocates later
    // numbers and starts a rollout.
    let older_process = world.process();
    world.restart();
    let first = number(start_rollout(&mut world, &all(0)));
    world.run();
    assert_eq!(rollout(&world, first).status, RolloutStatus::Succeeded);
    world.select(Color::Blue).unwrap();
    world.run();
    let request =
        cdm_core::manager::Request::by(cdm_testkit::fixtures::actor(), cdm_core::domain::Role::Admin);
    let wanted = all(0);
    let accepted = now(older_process.manager.rollout(&request, &wanted, None));
    let second = number(accepted);
    assert!(second > first, "{second} after {first}");
    world.run();
    assert_eq!(status_and_code(&world, second), (RolloutStatus::Succeeded, None));
    assert!(on_green(&world, 3).is_empty());
    assert_sound(&mut world);
}
