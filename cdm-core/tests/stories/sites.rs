//! The lifecycle of a site, observed from outside.

use std::time::Duration;

use cdm_core::domain::{
    Color, Hostnames, IdempotencyKey, OperationId, OperationKind, ReasonCode, State, Status, TerminalStatus,
};
use cdm_core::manager::{Accepted, ManagerError, NewSite, Request};
use cdm_core::ports::{
    CallContext, Clock, Database, JobFailure, JobState, OperationQuery, SiteQuery, StoredSecret, WriteId,
};
use cdm_testkit::fakes::JobScript;
use cdm_testkit::faults::{Fault, Plan};
use cdm_testkit::fixtures::actor;
use cdm_testkit::ids::SECRET_MARKER;
use cdm_testkit::log::EffectKind;
use cdm_testkit::world::{Verb, World, new_site, now};

use super::{
    assert_parked, assert_sound, calls, cancel, code, exists, failing, first, operation, operation_id,
    resources_of, retry, routed, site, status,
};

#[test]
fn a_terminate_does_not_change_a_site_whose_id_has_the_same_prefix() {
    let mut world = World::new(1);
    for id in ["a", "ab"] {
        world.create_active_site(id);
        for file in 0..20 {
            world.objects.seed(format!("{}wp-content/{file}.jpg", site(&world, id).prefix()));
        }
    }
    world.add_neighbor_objects("a");
    let other_site = site(&world, "ab");
    world.checker.forbid_changes(&other_site.id);
    let before = resources_of(&world, other_site.uid);
    let gone = site(&world, "a").uid;
    let terminated = operation_id(world.on_site("a", Verb::Terminate));
    world.run();
    assert_eq!(status(&world, &terminated), Status::Ended(TerminalStatus::Succeeded));
    assert_eq!(resources_of(&world, other_site.uid), before);
    assert_eq!(before.len(), 1 + 21 + 2 + 1 + 1 + 2, "{before:#?}");
    assert!(resources_of(&world, gone).is_empty());
    assert_sound(&mut world);
}

/// Returns the site `id` with the hostnames of the site `of`.
fn with_hostnames_of(id: &str, of: &str) -> NewSite {
    NewSite { hostnames: new_site(of).hostnames, ..new_site(id) }
}

fn create(world: &mut World, new: &NewSite) -> Result<Accepted, ManagerError> {
    let new = new.clone();
    world.request(move |manager, request| {
        let new = new.clone();
        Box::pin(async move { manager.create_site(&request, &new).await })
    })
}

#[test]
fn a_hostname_in_use_is_rejected_with_both_names_until_its_site_is_gone() {
    let mut world = World::new(1);
    world.create_active_site("a");
    let owned = world.store.hostnames();
    let refused = create(&mut world, &with_hostnames_of("b", "a")).unwrap_err();
    assert_eq!(refused.code(), "hostname_taken");
    let message = refused.to_string();
    assert!(message.contains("`a.example.org`") && message.contains("`a`"), "{message}");
    assert_eq!((world.store.hostnames(), exists(&world, "b")), (owned, false));

    // A single shared hostname is rejected as well, and the others stay unclaimed.
    let hosts = ["b.example.org", "www.a.example.org"];
    let hostnames = Hostnames::parse(&hosts, hosts[0]).unwrap();
    let refused = create(&mut world, &NewSite { hostnames, ..new_site("b") }).unwrap_err();
    assert!(refused.to_string().contains("`www.a.example.org`"), "{refused}");
    assert_eq!(world.store.hostnames().len(), 2);

    let _ = operation_id(world.on_site("a", Verb::Terminate));
    world.run();
    assert!(world.store.hostnames().is_empty());
    let _ = operation_id(create(&mut world, &with_hostnames_of("b", "a")));
    world.run();
    assert!(world.store.hostnames().iter().all(|(_, owner)| owner.as_str() == "b"));
    assert_eq!(world.store.hostnames().len(), 2);
    assert_sound(&mut world);
}

#[test]
fn all_objects_and_versions_are_deleted_although_keys_fail_twice() {
    let mut world = World::new(1);
    world.create_active_site("a");
    world.create_active_site("ab");
    world.add_neighbor_objects("a");
    let deleted_site = site(&world, "a");
    let kept = resources_of(&world, site(&world, "ab").uid);
    for file in 0..1_001 {
        world.objects.seed(format!("{}wp-content/{file}.jpg", deleted_site.prefix()));
        world.objects.seed(format!("{}wp-content/{file}.jpg?version=1", deleted_site.prefix()));
    }
    world.objects.page_size(1_000);
    // The whole first page, and the first key of the second attempt.
    world.objects.fail_keys(1_001);
    let terminated = operation_id(world.on_site("a", Verb::Terminate));
    world.run();
    assert_eq!(status(&world, &terminated), Status::Ended(TerminalStatus::Succeeded));
    let steps = operation(&world, &terminated).state.steps;
    assert!(steps.iter().all(|step| step.attempts == 1), "a failing bucket is awaited: {steps:?}");
    assert!(resources_of(&world, deleted_site.uid).is_empty());
    assert_eq!(resources_of(&world, site(&world, "ab").uid), kept);
    assert_sound(&mut world);
}

#[test]
fn a_recreated_site_gets_a_new_uid_and_new_secrets() {
    let mut world = World::new(1);
    world.create_active_site("a");
    let old = site(&world, "a");
    let secrets = world.secrets.values();
    let _ = operation_id(world.on_site("a", Verb::Terminate));
    world.run();
    assert_eq!(world.secrets.deleting().len(), 2);
    world.create_active_site("a");
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
fn a_missing_theme_parks_a_provision_which_resumes_once_the_theme_exists() {
    let mut world = World::new(1);
    let result = JobState::Failed { message: "no theme `plain`".to_owned(), cause: JobFailure::ThemeMissing };
    world.cluster.script_job("activate-theme", vec![JobScript { takes: Duration::from_secs(1), result }]);
    let _ = world.create("a");
    world.run();
    let provision = operation_id(world.on_site("a", Verb::Provision));
    world.run();
    assert_parked(&world, &provision, ReasonCode::ThemeMissing);
    assert_eq!(site(&world, "a").state(), State::Provisioning);
    // The site was routed before; visitors see it without its theme.
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
fn an_error_of_wp_parks_a_provision_with_code_and_log_and_a_retry_starts_another_job() {
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
        let provision = operation_id(world.on_site("a", Verb::Provision));
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
fn a_database_that_rejects_a_job_is_retried_up_to_the_limit_of_attempts() {
    let mut world = World::new(1);
    let result =
        || JobState::Failed { message: "no connection".to_owned(), cause: JobFailure::DatabaseRefused };
    let script = || JobScript { takes: Duration::from_secs(1), result: result() };
    world.cluster.script_job("install", vec![script(), script(), script()]);
    let _ = world.create("a");
    world.run();
    let provision = operation_id(world.on_site("a", Verb::Provision));
    world.run();
    assert_parked(&world, &provision, ReasonCode::DatabaseRefused);
    assert_eq!(jobs_started(&world, 0).len(), 3);
}

/// Returns the names of the jobs that were started since effect `since`.
fn jobs_started(world: &World, since: usize) -> Vec<String> {
    let started = world.log.since(since).into_iter().filter_map(|effect| match effect.kind {
        EffectKind::JobStarted(name, ..) => Some(name.to_string()),
        _ => None,
    });
    started.collect()
}

/// Returns a provision that is parked because its install fails.
fn parked_install() -> (World, OperationId) {
    let mut world = World::new(1);
    world.cluster.script_job("install", failing(3));
    let _ = world.create("a");
    world.run();
    let provision = operation_id(world.on_site("a", Verb::Provision));
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
    // The cluster removes its jobs; their logs are kept.
    let jobs = world.cluster.jobs();
    assert_eq!(jobs.len(), 3);
    for (name, ..) in jobs {
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
fn a_canceled_provision_leaves_a_created_site_and_the_next_adopts_its_resources() {
    let (mut world, provision) = parked_install();
    let uid = site(&world, "a").uid;
    let _ = cancel(&mut world, &provision).unwrap();
    world.run();
    assert_eq!(status(&world, &provision), Status::Ended(TerminalStatus::Cancelled));
    assert_eq!(site(&world, "a").state(), State::Created);
    assert_eq!(world.databases.uids(), [uid]);
    let again = operation_id(world.on_site("a", Verb::Provision));
    world.run();
    assert_eq!(status(&world, &again), Status::Ended(TerminalStatus::Succeeded));
    let made = world.log.since(0);
    let made =
        made.iter().filter(|effect| matches!(effect.kind, EffectKind::DatabaseEnsured { created: true, .. }));
    assert_eq!(made.count(), 1);
    assert_sound(&mut world);
}

#[test]
fn a_terminate_displaces_a_parked_provision_and_leaves_nothing() {
    let (mut world, provision) = parked_install();
    let uid = site(&world, "a").uid;
    let terminated = operation_id(world.on_site("a", Verb::Terminate));
    assert_eq!(status(&world, &provision), Status::Ended(TerminalStatus::Cancelled));
    world.run();
    assert_eq!(status(&world, &terminated), Status::Ended(TerminalStatus::Succeeded));
    assert!(
        !exists(&world, "a") && resources_of(&world, uid).is_empty() && world.store.hostnames().is_empty()
    );
    assert_sound(&mut world);
}

#[test]
fn a_terminate_cannot_be_canceled_once_remove_ingress_has_begun() {
    let act = |world: &mut World| {
        let _ = world.on_site("a", Verb::Terminate);
        world.run();
    };
    let release = first(&calls(|world| world.create_active_site("a"), act), "cluster.release");
    let mut world = World::new(1);
    world.create_active_site("a");
    world.faults.arm(Plan(vec![(release, Fault::Permanent)]));
    let terminated = operation_id(world.on_site("a", Verb::Terminate));
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
fn an_ended_operation_cannot_be_canceled_even_if_its_site_is_gone() {
    let mut world = World::new(1);
    world.create_active_site("a");
    let promoted = operation_id(world.on_site("a", Verb::Promote));
    world.run();
    assert_eq!(cancel(&mut world, &promoted).unwrap_err().code(), "illegal_transition");
    let terminated = operation_id(world.on_site("a", Verb::Terminate));
    world.run();
    assert_eq!(status(&world, &terminated), Status::Ended(TerminalStatus::Succeeded));
    assert_eq!(cancel(&mut world, &terminated).unwrap_err().code(), "illegal_transition");
    assert_sound(&mut world);
}

#[test]
fn a_queued_terminate_can_be_canceled_and_the_site_is_kept() {
    let mut world = World::new(1);
    world.create_active_site("a");
    let before = resources_of(&world, site(&world, "a").uid).split_off(1);
    let terminated = operation_id(world.on_site("a", Verb::Terminate));
    let _ = cancel(&mut world, &terminated).unwrap();
    world.run();
    assert_eq!(status(&world, &terminated), Status::Ended(TerminalStatus::Cancelled));
    assert_eq!(site(&world, "a").state(), State::Active);
    assert_eq!(resources_of(&world, site(&world, "a").uid).split_off(1), before);
    assert_sound(&mut world);
}

#[test]
fn a_repeated_terminate_is_one_operation() {
    let mut world = World::new(1);
    world.create_active_site("a");
    let once = operation_id(world.on_site("a", Verb::Terminate));
    assert_eq!(operation_id(world.on_site("a", Verb::Terminate)), once);
    world.run();
    let released =
        world.log.since(0).iter().filter(|effect| matches!(effect.kind, EffectKind::Released(..))).count();
    assert_eq!(released, 1);
    assert_eq!(world.on_site("a", Verb::Terminate).unwrap_err().code(), "not_found");
    assert_sound(&mut world);
}

#[test]
fn an_illegal_transition_names_state_and_event_and_changes_nothing() {
    let mut world = World::new(1);
    let _ = world.create("a");
    world.run();
    world.create_active_site("b");
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
    let again = operation_id(world.on_site("b", Verb::Promote));
    let refused = world.on_site("b", Verb::Upgrade).unwrap_err();
    assert_eq!(refused, ManagerError::OperationInFlight(again));
    world.run();
    assert_sound(&mut world);
}

/// Returns `a` on blue, with green selected.
fn green_selected() -> World {
    let mut world = World::new(1);
    world.create_active_site("a");
    world.select(Color::Green).unwrap();
    world.run();
    world
}

#[test]
fn an_upgrade_keeps_the_route_and_flushes_in_the_serving_image() {
    let mut world = green_selected();
    let route = world.cluster.routes();
    let upgraded = operation_id(world.on_site("a", Verb::Upgrade));
    world.run();
    assert_eq!(status(&world, &upgraded), Status::Ended(TerminalStatus::Succeeded));
    let now = site(&world, "a");
    assert_eq!((now.service, now.routed_service()), (Color::Green, Some(Color::Blue)));
    assert_eq!(world.cluster.routes(), route);
    let flush = world.cluster.jobs().into_iter().find(|(name, ..)| name.as_str().contains("flush-caches"));
    assert_eq!(world.cluster.job_service(&flush.unwrap().0), Some(Color::Blue));
    let promoted = operation_id(world.on_site("a", Verb::Promote));
    world.run();
    assert_eq!(status(&world, &promoted), Status::Ended(TerminalStatus::Succeeded));
    let name = format!("a-flush-caches-{}", promoted.number);
    let flush = world.cluster.jobs().into_iter().find(|(job, ..)| job.as_str() == name).unwrap().0;
    assert_eq!(world.cluster.job_service(&flush), Some(Color::Green));
    assert_sound(&mut world);
}

#[test]
fn a_failed_flush_parks_the_promote_and_moves_nothing_back() {
    let mut world = green_selected();
    world.cluster.script_job("flush-caches", failing(3));
    let promoted = operation_id(world.on_site("a", Verb::Promote));
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
fn a_canceled_promote_first_moves_the_route_back() {
    let mut world = green_selected();
    world.cluster.script_job("flush-caches", failing(3));
    let promoted = operation_id(world.on_site("a", Verb::Promote));
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
    let route = after
        .iter()
        .position(|effect| matches!(effect.kind, EffectKind::RouteMoved(_, Color::Green, Color::Blue)));
    let record = after.iter().position(|effect| match &effect.kind {
        EffectKind::Site(Some(old), Some(new)) => old.service != new.service,
        _ => false,
    });
    assert!(route.is_some() && record.is_some() && route < record, "{route:?} {record:?}");
    assert_sound(&mut world);
}

/// Runs turns, with time between them, until the operation waits for that reason.
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
fn a_promote_waits_until_its_target_is_ready() {
    let mut world = green_selected();
    world.cluster.break_service(Color::Green, None);
    let promoted = operation_id(world.on_site("a", Verb::Promote));
    until_it_waits(&mut world, &promoted, ReasonCode::ServiceNotReady);
    assert_eq!(status(&world, &promoted), Status::Waiting);
    world.clock.advance(Duration::from_secs(300));
    let _ = world.run_once();
    assert_eq!((status(&world, &promoted), routed(&world, "a")), (Status::Waiting, Some(Color::Blue)));
    world.cluster.repair_service(Color::Green);
    world.run();
    assert_eq!(status(&world, &promoted), Status::Ended(TerminalStatus::Succeeded));
    assert_eq!(routed(&world, "a"), Some(Color::Green));
    assert_sound(&mut world);
}

#[test]
fn a_promote_with_an_unready_target_parks_and_keeps_its_route() {
    let mut world = green_selected();
    world.cluster.break_service(Color::Green, None);
    let promoted = operation_id(world.on_site("a", Verb::Promote));
    let requested_at = world.clock.monotonic();
    world.run();
    assert_parked(&world, &promoted, ReasonCode::ServiceNotReady);
    let waited = world.clock.monotonic().since(requested_at);
    assert!((900..960).contains(&waited.as_secs()), "{waited:?}");
    assert_eq!(routed(&world, "a"), Some(Color::Blue));
    world.cluster.repair_service(Color::Green);
    let _ = retry(&mut world, &promoted).unwrap();
    world.run();
    assert_eq!(routed(&world, "a"), Some(Color::Green));
    assert_sound(&mut world);
}

#[test]
fn a_foreign_route_with_the_same_hostname_parks_the_provision_and_is_not_changed() {
    let mut world = World::new(1);
    world.cluster.foreign_route(new_site("a").hostnames.all()[0].clone());
    let _ = world.create("a");
    world.run();
    let provision = operation_id(world.on_site("a", Verb::Provision));
    world.run();
    assert_parked(&world, &provision, ReasonCode::Foreign);
    assert!(world.cluster.routes().is_empty());
    let _ = retry(&mut world, &provision).unwrap();
    world.run();
    assert_parked(&world, &provision, ReasonCode::Foreign);
    let _ = operation_id(world.on_site("a", Verb::Terminate));
    world.run();
    assert!(!exists(&world, "a"));
    // The foreign route still exists, and still blocks the site.
    let _ = world.create("a");
    world.run();
    let provision = operation_id(world.on_site("a", Verb::Provision));
    world.run();
    assert_parked(&world, &provision, ReasonCode::Foreign);
    assert_sound(&mut world);
}

#[test]
fn a_repeated_request_gets_the_stored_response_and_another_request_with_its_key_is_rejected() {
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
    // The stored response outlives the site.
    let _ = operation_id(world.on_site("a", Verb::Terminate));
    world.run();
    assert_eq!(now(manager.create_site(&keyed, &new_site("a"))).unwrap(), once);
    assert!(!exists(&world, "a") && resources_of(&world, uid).is_empty());
    let other = now(manager.create_site(&keyed, &new_site("b"))).unwrap_err();
    assert_eq!((other.code(), exists(&world, "b")), ("idempotency_key_reused", false));
    let other = now(manager.provision(&keyed, &new_site("a").id)).unwrap_err();
    assert_eq!(other, ManagerError::KeyReused);
    // A key belongs to one user; the same key of another user is another key.
    let other = Request { actor: cdm_core::domain::Actor::parse("other").unwrap(), ..keyed };
    assert_ne!(now(manager.create_site(&other, &new_site("b"))).unwrap(), once);
    world.run();
    assert_sound(&mut world);
}

#[test]
fn debug_output_contains_no_secret() {
    let mut world = green_selected();
    world.cluster.script_job("flush-caches", failing(3));
    let parked = operation_id(world.on_site("a", Verb::Promote));
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
