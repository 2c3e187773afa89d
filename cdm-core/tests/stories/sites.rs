//! A site's life, told from outside.

use std::time::Duration;

use cdm_core::domain::{
    Color, Hostnames, IdempotencyKey, OperationId, OperationKind, ReasonCode, State, Status, TerminalStatus,
};
use cdm_core::manager::{Accepted, ManagerError, NewSite, Request};
use cdm_core::ports::{
    CallContext, Clock, Database, JobFailure, JobState, OperationQuery, SiteQuery, StoredSecret, WriteId,
};
use cdm_testkit::build::actor;
use cdm_testkit::fakes::JobScript;
use cdm_testkit::faults::{Fault, Plan};
use cdm_testkit::ids::SECRET_MARKER;
use cdm_testkit::log::What;
use cdm_testkit::world::{Verb, World, new_site, now};

use super::{
    assert_parked, assert_sound, begun, calls, cancel, code, exists, failing, first, operation, retry,
    routed, site, status, things,
};

#[test]
fn a_site_that_goes_leaves_one_whose_id_begins_like_its_own_bit_for_bit_as_it_was() {
    let mut world = World::new(1);
    for id in ["a", "ab"] {
        world.settle_site(id);
        for file in 0..20 {
            world.objects.seed(format!("{}wp-content/{file}.jpg", site(&world, id).prefix()));
        }
    }
    world.surround("a");
    let neighbour = site(&world, "ab");
    world.checker.leave_alone(&neighbour.id);
    let before = things(&world, neighbour.uid);
    let gone = site(&world, "a").uid;
    let terminated = begun(world.on_site("a", Verb::Terminate));
    world.run();
    assert_eq!(status(&world, &terminated), Status::Ended(TerminalStatus::Succeeded));
    assert_eq!(things(&world, neighbour.uid), before);
    assert_eq!(before.len(), 1 + 21 + 2 + 1 + 1 + 2, "{before:#?}");
    assert!(things(&world, gone).is_empty());
    assert_sound(&mut world);
}

/// The site `id` at the hostnames of the site `of`.
fn thief(id: &str, of: &str) -> NewSite {
    NewSite { hostnames: new_site(of).hostnames, ..new_site(id) }
}

fn create(world: &mut World, new: &NewSite) -> Result<Accepted, ManagerError> {
    let new = new.clone();
    world.ask(move |manager, request| {
        let new = new.clone();
        Box::pin(async move { manager.create_site(&request, &new).await })
    })
}

#[test]
fn a_hostname_of_another_site_is_refused_with_both_named_and_free_once_that_site_is_gone() {
    let mut world = World::new(1);
    world.settle_site("a");
    let owned = world.store.hostnames();
    let refused = create(&mut world, &thief("b", "a")).unwrap_err();
    assert_eq!(refused.code(), "hostname_taken");
    let message = refused.to_string();
    assert!(message.contains("`a.example.org`") && message.contains("`a`"), "{message}");
    assert_eq!((world.store.hostnames(), exists(&world, "b")), (owned, false));

    // One shared hostname among others is as much of a theft, and leaves the others unclaimed.
    let hosts = ["b.example.org", "www.a.example.org"];
    let hostnames = Hostnames::parse(&hosts, hosts[0]).unwrap();
    let refused = create(&mut world, &NewSite { hostnames, ..new_site("b") }).unwrap_err();
    assert!(refused.to_string().contains("`www.a.example.org`"), "{refused}");
    assert_eq!(world.store.hostnames().len(), 2);

    let _ = begun(world.on_site("a", Verb::Terminate));
    world.run();
    assert!(world.store.hostnames().is_empty());
    let _ = begun(create(&mut world, &thief("b", "a")));
    world.run();
    assert!(world.store.hostnames().iter().all(|(_, owner)| owner.as_str() == "b"));
    assert_eq!(world.store.hostnames().len(), 2);
    assert_sound(&mut world);
}

#[test]
fn a_thousand_and_one_objects_with_their_versions_are_all_deleted_though_keys_fail_twice() {
    let mut world = World::new(1);
    world.settle_site("a");
    world.settle_site("ab");
    world.surround("a");
    let doomed = site(&world, "a");
    let kept = things(&world, site(&world, "ab").uid);
    for file in 0..1_001 {
        world.objects.seed(format!("{}wp-content/{file}.jpg", doomed.prefix()));
        world.objects.seed(format!("{}wp-content/{file}.jpg?version=1", doomed.prefix()));
    }
    world.objects.page_size(1_000);
    // The whole first page, and the first key of the second attempt.
    world.objects.fail_keys(1_001);
    let terminated = begun(world.on_site("a", Verb::Terminate));
    world.run();
    assert_eq!(status(&world, &terminated), Status::Ended(TerminalStatus::Succeeded));
    let steps = operation(&world, &terminated).state.steps;
    assert!(steps.iter().all(|step| step.attempts == 1), "a bucket that fails is waited for: {steps:?}");
    assert!(things(&world, doomed.uid).is_empty());
    assert_eq!(things(&world, site(&world, "ab").uid), kept);
    assert_sound(&mut world);
}

#[test]
fn a_site_created_again_gets_a_new_uid_and_new_secrets_while_the_old_ones_stay_in_deletion() {
    let mut world = World::new(1);
    world.settle_site("a");
    let old = site(&world, "a");
    let secrets = world.secrets.values();
    let _ = begun(world.on_site("a", Verb::Terminate));
    world.run();
    assert_eq!(world.secrets.deleting().len(), 2);
    world.settle_site("a");
    let new = site(&world, "a");
    assert_ne!(new.uid, old.uid);
    assert_eq!(new.state(), State::Active);
    assert!(world.secrets.deleting().iter().all(|name| name.uid == old.uid));
    let fresh = world.secrets.values();
    assert_eq!(fresh.len(), 2);
    assert!(
        fresh.iter().all(|(name, value)| name.uid == new.uid && secrets.iter().all(|(_, old)| old != value))
    );
    world.clock.advance(Duration::from_hours(8 * 24));
    assert!(world.secrets.deleting().is_empty());
    assert_eq!(world.secrets.values(), fresh);
    assert_sound(&mut world);
}

#[test]
fn a_missing_theme_parks_a_provision_that_goes_on_from_there_once_the_theme_is_there() {
    let mut world = World::new(1);
    let result = JobState::Failed { message: "no theme `plain`".to_owned(), cause: JobFailure::ThemeMissing };
    world.cluster.script_job("activate-theme", vec![JobScript { takes: Duration::from_secs(1), result }]);
    let _ = world.create("a");
    world.run();
    let provision = begun(world.on_site("a", Verb::Provision));
    world.run();
    assert_parked(&world, &provision, ReasonCode::ThemeMissing);
    assert_eq!(site(&world, "a").state(), State::Provisioning);
    // It was routed before; a visitor sees the site, without its theme.
    assert_eq!(routed(&world, "a"), Some(Color::Blue));
    let before = world.log.len();
    let _ = retry(&mut world, &provision).unwrap();
    world.run();
    assert_eq!(status(&world, &provision), Status::Ended(TerminalStatus::Succeeded));
    assert_eq!(site(&world, "a").state(), State::Active);
    let started: Vec<String> = jobs_started(&world, before);
    assert_eq!(started, [format!("a-activate-theme-{}-r2", provision.number)]);
    assert_sound(&mut world);
}

#[test]
fn what_wp_says_parks_a_provision_under_its_code_with_its_log_and_a_retry_starts_another_job() {
    for (cause, why) in [
        (JobFailure::RunsAsRoot, ReasonCode::RunsAsRoot),
        (JobFailure::WordPressNotFound, ReasonCode::WordPressNotFound),
        (JobFailure::EmailRefused, ReasonCode::EmailRefused),
    ] {
        let mut world = World::new(1);
        let result = JobState::Failed { message: "as wp says".to_owned(), cause };
        world.cluster.script_job("install", vec![JobScript { takes: Duration::from_secs(1), result }]);
        let _ = world.create("a");
        world.run();
        let provision = begun(world.on_site("a", Verb::Provision));
        world.run();
        assert_parked(&world, &provision, why);
        let reason = operation(&world, &provision).state.reason.unwrap();
        assert!(reason.message.contains("as wp says"), "{}", reason.message);
        let log = now(world.process().manager.step_log(&provision, "Install")).unwrap();
        assert_eq!(log.as_deref(), Some("install: failed"), "{cause:?}");
        let before = world.log.len();
        let _ = retry(&mut world, &provision).unwrap();
        world.run();
        assert_eq!(jobs_started(&world, before)[0], format!("a-install-{}-r2", provision.number));
        assert_eq!(status(&world, &provision), Status::Ended(TerminalStatus::Succeeded));
        assert_sound(&mut world);
    }
}

#[test]
fn a_database_that_refuses_the_jobs_is_tried_as_often_as_a_job_may_fail() {
    let mut world = World::new(1);
    let result =
        || JobState::Failed { message: "no connection".to_owned(), cause: JobFailure::DatabaseRefused };
    let script = || JobScript { takes: Duration::from_secs(1), result: result() };
    world.cluster.script_job("install", vec![script(), script(), script()]);
    let _ = world.create("a");
    world.run();
    let provision = begun(world.on_site("a", Verb::Provision));
    world.run();
    assert_parked(&world, &provision, ReasonCode::DatabaseRefused);
    assert_eq!(jobs_started(&world, 0).len(), 3);
}

/// The names of the jobs that were started since.
fn jobs_started(world: &World, since: usize) -> Vec<String> {
    let started = world.log.since(since).into_iter().filter_map(|effect| match effect.what {
        What::JobStarted(name, ..) => Some(name.to_string()),
        _ => None,
    });
    started.collect()
}

/// A provision whose install fails until it is parked.
fn parked_install() -> (World, OperationId) {
    let mut world = World::new(1);
    world.cluster.script_job("install", failing(3));
    let _ = world.create("a");
    world.run();
    let provision = begun(world.on_site("a", Verb::Provision));
    world.run();
    assert_parked(&world, &provision, ReasonCode::JobFailed);
    (world, provision)
}

#[test]
fn an_install_that_fails_three_times_parks_with_its_log_and_a_retry_starts_a_fourth_job() {
    let (mut world, provision) = parked_install();
    let n = provision.number;
    let names = [format!("a-install-{n}"), format!("a-install-{n}-r2"), format!("a-install-{n}-r3")];
    assert_eq!(jobs_started(&world, 0), names);
    // The cluster forgets its jobs; what they printed stays.
    for (name, ..) in world.cluster.jobs() {
        world.cluster.expire_job(&name);
    }
    let log = now(world.process().manager.step_log(&provision, "Install")).unwrap();
    assert_eq!(log.as_deref(), Some("install: failed"));
    let before = world.log.len();
    let _ = retry(&mut world, &provision).unwrap();
    world.run();
    assert_eq!(jobs_started(&world, before)[0], format!("a-install-{n}-r4"));
    assert_eq!(status(&world, &provision), Status::Ended(TerminalStatus::Succeeded));
    let log = now(world.process().manager.step_log(&provision, "Install")).unwrap();
    assert_eq!(log.as_deref(), Some("install: done"));
    assert_sound(&mut world);
}

#[test]
fn a_parked_provision_that_is_cancelled_leaves_a_created_site_and_the_next_adopts_what_is_there() {
    let (mut world, provision) = parked_install();
    let uid = site(&world, "a").uid;
    let _ = cancel(&mut world, &provision).unwrap();
    world.run();
    assert_eq!(status(&world, &provision), Status::Ended(TerminalStatus::Cancelled));
    assert_eq!(site(&world, "a").state(), State::Created);
    assert_eq!(world.databases.uids(), [uid]);
    let again = begun(world.on_site("a", Verb::Provision));
    world.run();
    assert_eq!(status(&world, &again), Status::Ended(TerminalStatus::Succeeded));
    let made = world.log.since(0);
    let made =
        made.iter().filter(|effect| matches!(effect.what, What::DatabaseEnsured { created: true, .. }));
    assert_eq!(made.count(), 1);
    assert_sound(&mut world);
}

#[test]
fn a_parked_provision_gives_way_to_a_terminate_that_leaves_nothing() {
    let (mut world, provision) = parked_install();
    let uid = site(&world, "a").uid;
    let terminated = begun(world.on_site("a", Verb::Terminate));
    assert_eq!(status(&world, &provision), Status::Ended(TerminalStatus::Cancelled));
    world.run();
    assert_eq!(status(&world, &terminated), Status::Ended(TerminalStatus::Succeeded));
    assert!(!exists(&world, "a") && things(&world, uid).is_empty() && world.store.hostnames().is_empty());
    assert_sound(&mut world);
}

#[test]
fn a_terminate_is_not_cancelled_once_remove_ingress_has_begun_nor_when_it_is_retried_after_parking() {
    let act = |world: &mut World| {
        let _ = world.on_site("a", Verb::Terminate);
        world.run();
    };
    let release = first(&calls(|world| world.settle_site("a"), act), "cluster.release");
    let mut world = World::new(1);
    world.settle_site("a");
    world.faults.arm(Plan(vec![(release, Fault::Permanent)]));
    let terminated = begun(world.on_site("a", Verb::Terminate));
    world.run();
    assert_parked(&world, &terminated, ReasonCode::Denied);
    let refused = cancel(&mut world, &terminated).unwrap_err();
    assert_eq!(refused.code(), "illegal_transition");
    assert!(refused.to_string().contains("terminate"), "{refused}");
    let _ = retry(&mut world, &terminated).unwrap();
    assert_eq!(status(&world, &terminated), Status::Queued);
    assert_eq!(cancel(&mut world, &terminated).unwrap_err().code(), "illegal_transition");
    world.heal();
    world.run();
    assert_eq!(status(&world, &terminated), Status::Ended(TerminalStatus::Succeeded));
    assert!(!exists(&world, "a"));
    assert_sound(&mut world);
}

#[test]
fn an_operation_that_has_ended_is_not_cancelled_and_says_so_also_when_its_site_is_gone() {
    let mut world = World::new(1);
    world.settle_site("a");
    let promoted = begun(world.on_site("a", Verb::Promote));
    world.run();
    assert_eq!(cancel(&mut world, &promoted).unwrap_err().code(), "illegal_transition");
    let terminated = begun(world.on_site("a", Verb::Terminate));
    world.run();
    assert_eq!(status(&world, &terminated), Status::Ended(TerminalStatus::Succeeded));
    assert_eq!(cancel(&mut world, &terminated).unwrap_err().code(), "illegal_transition");
    assert_sound(&mut world);
}

#[test]
fn a_terminate_that_nobody_has_begun_is_cancelled_and_the_site_stays_whole() {
    let mut world = World::new(1);
    world.settle_site("a");
    let before = things(&world, site(&world, "a").uid).split_off(1);
    let terminated = begun(world.on_site("a", Verb::Terminate));
    let _ = cancel(&mut world, &terminated).unwrap();
    world.run();
    assert_eq!(status(&world, &terminated), Status::Ended(TerminalStatus::Cancelled));
    assert_eq!(site(&world, "a").state(), State::Active);
    assert_eq!(things(&world, site(&world, "a").uid).split_off(1), before);
    assert_sound(&mut world);
}

#[test]
fn a_terminate_asked_for_twice_is_one_operation() {
    let mut world = World::new(1);
    world.settle_site("a");
    let once = begun(world.on_site("a", Verb::Terminate));
    assert_eq!(begun(world.on_site("a", Verb::Terminate)), once);
    world.run();
    let released =
        world.log.since(0).iter().filter(|effect| matches!(effect.what, What::Released(..))).count();
    assert_eq!(released, 1);
    assert_eq!(world.on_site("a", Verb::Terminate).unwrap_err().code(), "not_found");
    assert_sound(&mut world);
}

#[test]
fn an_illegal_transition_names_the_state_and_the_event_and_changes_nothing() {
    let mut world = World::new(1);
    let _ = world.create("a");
    world.run();
    world.settle_site("b");
    let cases = [
        ("a", Verb::Upgrade, "created", "begin upgrade"),
        ("a", Verb::Promote, "created", "begin promote"),
        ("b", Verb::Provision, "active", "begin provision"),
    ];
    for (id, verb, state, event) in cases {
        let before = site(&world, id);
        let refused = world.on_site(id, verb).unwrap_err();
        assert_eq!(refused.code(), "illegal_transition");
        let message = refused.to_string();
        assert!(message.contains(state) && message.contains(event), "{message}");
        assert_eq!(site(&world, id), before);
    }
    let again = begun(world.on_site("b", Verb::Promote));
    let refused = world.on_site("b", Verb::Upgrade).unwrap_err();
    assert_eq!(refused, ManagerError::OperationInFlight(again));
    world.run();
    assert_sound(&mut world);
}

/// `a` lives on blue, green is selected.
fn green_selected() -> World {
    let mut world = World::new(1);
    world.settle_site("a");
    world.select(Color::Green).unwrap();
    world.run();
    world
}

#[test]
fn an_upgrade_leaves_the_route_where_it_is_and_flushes_in_the_image_that_serves_the_site() {
    let mut world = green_selected();
    let route = world.cluster.routes();
    let upgraded = begun(world.on_site("a", Verb::Upgrade));
    world.run();
    assert_eq!(status(&world, &upgraded), Status::Ended(TerminalStatus::Succeeded));
    let now = site(&world, "a");
    assert_eq!((now.service, now.routed_service()), (Color::Green, Some(Color::Blue)));
    assert_eq!(world.cluster.routes(), route);
    let flush = world.cluster.jobs().into_iter().find(|(name, ..)| name.as_str().contains("flush-caches"));
    assert_eq!(world.cluster.job_service(&flush.unwrap().0), Some(Color::Blue));
    let promoted = begun(world.on_site("a", Verb::Promote));
    world.run();
    assert_eq!(status(&world, &promoted), Status::Ended(TerminalStatus::Succeeded));
    let name = format!("a-flush-caches-{}", promoted.number);
    let flush = world.cluster.jobs().into_iter().find(|(job, ..)| job.as_str() == name).unwrap().0;
    assert_eq!(world.cluster.job_service(&flush), Some(Color::Green));
    assert_sound(&mut world);
}

#[test]
fn a_flush_that_fails_parks_the_promote_and_moves_nothing_back() {
    let mut world = green_selected();
    world.cluster.script_job("flush-caches", failing(3));
    let promoted = begun(world.on_site("a", Verb::Promote));
    world.run();
    assert_parked(&world, &promoted, ReasonCode::CacheFlushFailed);
    assert_eq!(routed(&world, "a"), Some(Color::Green));
    assert_eq!(site(&world, "a").service, Color::Green);
    let _ = retry(&mut world, &promoted).unwrap();
    world.run();
    assert_eq!(status(&world, &promoted), Status::Ended(TerminalStatus::Succeeded));
    assert_eq!(routed(&world, "a"), Some(Color::Green));
    assert_sound(&mut world);
}

#[test]
fn a_promote_cancelled_after_its_first_effect_moves_the_route_back_before_anything_else() {
    let mut world = green_selected();
    world.cluster.script_job("flush-caches", failing(3));
    let promoted = begun(world.on_site("a", Verb::Promote));
    world.run();
    let before = world.log.len();
    let _ = cancel(&mut world, &promoted).unwrap();
    world.run();
    assert_eq!(status(&world, &promoted), Status::Ended(TerminalStatus::Cancelled));
    let now = site(&world, "a");
    assert_eq!(
        (now.service, now.routed_service(), routed(&world, "a")),
        (Color::Blue, Some(Color::Blue), Some(Color::Blue))
    );
    let after = world.log.since(before);
    let route =
        after.iter().position(|effect| matches!(effect.what, What::RouteMoved(_, Color::Green, Color::Blue)));
    let record = after.iter().position(|effect| match &effect.what {
        What::Site(Some(old), Some(new)) => old.service != new.service,
        _ => false,
    });
    assert!(route.is_some() && record.is_some() && route < record, "{route:?} {record:?}");
    assert_sound(&mut world);
}

/// Turns, with time between them, until the operation waits for that.
fn until_it_waits(world: &mut World, id: &OperationId, why: ReasonCode) {
    for _ in 0..50 {
        let _ = world.run_once();
        if code(world, id) == Some(why) {
            return;
        }
        world.clock.advance(Duration::from_secs(1));
    }
    panic!("{id} does not wait for {why}: {:?}", operation(world, id));
}

#[test]
fn a_promote_waits_for_its_target_to_be_ready_and_goes_on_when_it_is_mended() {
    let mut world = green_selected();
    world.cluster.break_service(Color::Green, None);
    let promoted = begun(world.on_site("a", Verb::Promote));
    until_it_waits(&mut world, &promoted, ReasonCode::ServiceNotReady);
    assert_eq!(status(&world, &promoted), Status::Waiting);
    world.clock.advance(Duration::from_secs(300));
    let _ = world.run_once();
    assert_eq!((status(&world, &promoted), routed(&world, "a")), (Status::Waiting, Some(Color::Blue)));
    world.cluster.mend_service(Color::Green);
    world.run();
    assert_eq!(status(&world, &promoted), Status::Ended(TerminalStatus::Succeeded));
    assert_eq!(routed(&world, "a"), Some(Color::Green));
    assert_sound(&mut world);
}

#[test]
fn a_promote_whose_target_stays_unready_parks_after_a_while_with_its_route_where_it_was() {
    let mut world = green_selected();
    world.cluster.break_service(Color::Green, None);
    let promoted = begun(world.on_site("a", Verb::Promote));
    let asked = world.clock.monotonic();
    world.run();
    assert_parked(&world, &promoted, ReasonCode::ServiceNotReady);
    let waited = world.clock.monotonic().since(asked);
    assert!((900..960).contains(&waited.as_secs()), "{waited:?}");
    assert_eq!(routed(&world, "a"), Some(Color::Blue));
    world.cluster.mend_service(Color::Green);
    let _ = retry(&mut world, &promoted).unwrap();
    world.run();
    assert_eq!(routed(&world, "a"), Some(Color::Green));
    assert_sound(&mut world);
}

#[test]
fn a_strangers_route_with_the_same_hostname_parks_the_provision_and_is_left_alone() {
    let mut world = World::new(1);
    world.cluster.foreign_route(new_site("a").hostnames.all()[0].clone());
    let _ = world.create("a");
    world.run();
    let provision = begun(world.on_site("a", Verb::Provision));
    world.run();
    assert_parked(&world, &provision, ReasonCode::Foreign);
    assert!(world.cluster.routes().is_empty());
    let _ = retry(&mut world, &provision).unwrap();
    world.run();
    assert_parked(&world, &provision, ReasonCode::Foreign);
    let _ = begun(world.on_site("a", Verb::Terminate));
    world.run();
    assert!(!exists(&world, "a"));
    // It is still there, and still in the way.
    let _ = world.create("a");
    world.run();
    let provision = begun(world.on_site("a", Verb::Provision));
    world.run();
    assert_parked(&world, &provision, ReasonCode::Foreign);
    assert_sound(&mut world);
}

#[test]
fn a_request_repeated_under_its_key_is_answered_as_before_and_another_under_that_key_refused() {
    let mut world = World::new(1);
    let manager = world.process().manager;
    let keyed = Request {
        key: IdempotencyKey::parse("one").ok(),
        ..Request::by(actor(), cdm_core::domain::Role::Admin)
    };
    let once = now(manager.create_site(&keyed, &new_site("a"))).unwrap();
    world.run();
    let uid = site(&world, "a").uid;
    assert_eq!(now(manager.create_site(&keyed, &new_site("a"))).unwrap(), once);
    // The answer outlives the site.
    let _ = begun(world.on_site("a", Verb::Terminate));
    world.run();
    assert_eq!(now(manager.create_site(&keyed, &new_site("a"))).unwrap(), once);
    assert!(!exists(&world, "a") && things(&world, uid).is_empty());
    let other = now(manager.create_site(&keyed, &new_site("b"))).unwrap_err();
    assert_eq!((other.code(), exists(&world, "b")), ("idempotency_key_reused", false));
    let other = now(manager.provision(&keyed, &new_site("a").id)).unwrap_err();
    assert_eq!(other, ManagerError::KeyReused);
    // A key is one person's; another's is another key.
    let other = Request { actor: cdm_core::domain::Actor::parse("other").unwrap(), ..keyed };
    assert_ne!(now(manager.create_site(&other, &new_site("b"))).unwrap(), once);
    world.run();
    assert_sound(&mut world);
}

#[test]
fn no_debug_output_has_a_secret_in_it() {
    let mut world = green_selected();
    world.cluster.script_job("flush-caches", failing(3));
    let parked = begun(world.on_site("a", Verb::Promote));
    world.run();
    let _ = world.create("b");
    let raw = world.raw().clone();
    let process = world.process();
    let values = world.secrets.values();
    assert_eq!(values.len(), 2);
    let read = now(raw.secrets.read(&values[0].0)).unwrap();
    assert!(matches!(read, Some(StoredSecret::Value(_))));
    let password = raw.entropy.password();
    let credentials = Database {
        host: "h".to_owned(),
        port: 1,
        dbname: "d".to_owned(),
        username: "u".to_owned(),
        password: password.clone(),
    };
    let deadline = world.clock.monotonic().after(Duration::from_secs(5));
    let call = CallContext { deadline, write: WriteId(1), fence: cdm_core::domain::Fence::default() };
    let texts = [
        format!("{world:?}"),
        format!("{world:#?}"),
        format!("{raw:?} {:?}", world.ports()),
        format!("{process:?}"),
        format!("{values:?} {read:?} {password:?} {credentials:?} {call:?}"),
        format!("{:?} {:?}", world.secrets, world.databases),
        format!("{:?}", world.log.since(0)),
        format!("{:?}", operation(&world, &parked)),
        format!("{:?}", now(raw.store.sites(&SiteQuery::default(), None, 100))),
        format!("{:?}", now(raw.store.operations(&OperationQuery::default(), None, 100))),
        format!("{:?}", now(raw.store.events(None, 1_000))),
        format!("{:?}", now(raw.store.audit(None, 1_000))),
        format!("{:?}", world.on_site("a", Verb::Upgrade)),
    ];
    let leaks: Vec<&String> = texts.iter().filter(|text| text.contains(SECRET_MARKER)).collect();
    assert!(leaks.is_empty(), "{leaks:?}");
    world.run();
    assert_eq!(operation(&world, &parked).state.input.kind(), OperationKind::Promote);
    assert_sound(&mut world);
}
