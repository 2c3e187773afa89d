//! Rollouts whose target runs another digest: no site moves to it without a request, and verdicts apply to the digest
//! that ran.

use std::time::Duration;

use cdm_core::domain::rollout::{HealthGate, MemberOutcome, RolloutMember, RolloutSpec, WaveTarget};
use cdm_core::domain::service::Verdict;
use cdm_core::domain::{Color, Digest, ReasonCode, Role, RolloutStatus, SiteId};
use cdm_core::manager::{Accepted, Force, HistoryCursor, ManagerError, Request, Resume, RolloutScope};
use cdm_core::ports::OperationQuery;
use cdm_testkit::faults::{Fault, Plan};
use cdm_testkit::world::{Verb, World, digest, now};

use super::controls::{Control, send_control};
use super::waves::{all, fleet, nth, on_green, status_and_code};
use super::{assert_sound, number, operation_id, rollout, run_once, start_rollout};

/// Returns a platform with this number of sites on blue; green, the canary, runs `digest(1)`.
fn two_images(sites: u32) -> World {
    let mut world = fleet(sites);
    deploy(&mut world, 1);
    world
}

fn deploy(world: &mut World, image: u8) {
    let _ = operation_id(world.deploy(digest(image), Color::Green, false));
    world.run();
}

/// One site, then a bake time, then all.
fn in_two_waves(gate: Option<HealthGate>) -> RolloutSpec {
    let waves = vec![WaveTarget::Count(1), WaveTarget::Percent(100)];
    RolloutSpec { waves, bake: Duration::from_secs(600), gate, max_concurrent: 2, ..all(0) }
}

fn resume_on(world: &mut World, number: u64, image: u8, force: Force) -> Result<Accepted, ManagerError> {
    let wanted = Resume { accept: Some(digest(image)), force };
    world.request(move |manager, request| {
        Box::pin(async move { manager.resume_on(&request, number, wanted).await })
    })
}

fn members(world: &World, number: u64) -> Vec<RolloutMember> {
    world.store.pages(number).into_iter().flat_map(|page| page.members).collect()
}

fn digests(world: &World, number: u64) -> Vec<Option<Digest>> {
    members(world, number).into_iter().map(|member| member.digest).collect()
}

fn verdict(world: &World, image: u8) -> Option<Verdict> {
    let service = now(world.raw().store.service(Color::Green)).unwrap();
    let release = service.releases.into_iter().find(|release| release.digest == digest(image));
    release.map(|release| release.verdict)
}

/// Runs turns until the rollout has that status and code.
fn until(world: &mut World, number: u64, reached: (RolloutStatus, Option<ReasonCode>)) {
    for _ in 0..200 {
        if status_and_code(world, number) == reached {
            return;
        }
        let _ = world.run_once();
        world.clock.advance(Duration::from_secs(1));
    }
    panic!("{:?}, not {reached:?}", status_and_code(world, number));
}

/// Starts a rollout that bakes after its first site, and then deploys `digest(2)`.
fn changed_between_waves(gate: Option<HealthGate>) -> (World, u64) {
    let mut world = two_images(6);
    let number = number(start_rollout(&mut world, &in_two_waves(gate)));
    until(&mut world, number, (RolloutStatus::Waiting, Some(ReasonCode::Baking)));
    let _ = operation_id(world.deploy(digest(2), Color::Green, false));
    world.run();
    (world, number)
}

#[test]
fn no_site_moves_on_another_digest_until_a_user_accepts_it() {
    let (mut world, number) = changed_between_waves(None);
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Waiting, Some(ReasonCode::DigestChanged)));
    let message = rollout(&world, number).reason.unwrap().message;
    assert!(
        message.contains(&digest(1).to_string()) && message.contains(&digest(2).to_string()),
        "{message}"
    );
    assert_eq!(on_green(&world, 6), [0]);
    assert_sound(&mut world);

    let refused = send_control(&mut world, number, Control::Resume).unwrap_err();
    let (wanted, running) = (Some(digest(1)), Some(digest(2)));
    assert_eq!(refused, ManagerError::DigestChanged { target: Color::Green, wanted, running });
    // A digest that runs nowhere is not accepted either.
    assert_eq!(resume_on(&mut world, number, 3, Force::Yes).unwrap_err().code(), "digest_changed");
    world.run();
    assert_eq!(on_green(&world, 6), [0]);

    let _ = resume_on(&mut world, number, 2, Force::No).unwrap();
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
    let head = rollout(&world, number);
    assert_eq!((head.spec.digest, head.accepted_digest), (Some(digest(1)), Some(digest(2))));
    let on = [1, 2, 2, 2, 2, 2].map(|image| Some(digest(image)));
    assert_eq!(digests(&world, number), on, "each site has the digest with which it was moved");
    assert_sound(&mut world);
}

#[test]
fn a_rollout_resumes_by_itself_when_its_own_digest_runs_again() {
    let (mut world, number) = changed_between_waves(None);
    deploy(&mut world, 1);
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
    assert_eq!(digests(&world, number), [Some(digest(1)); 6]);
    assert_eq!(rollout(&world, number).accepted_digest, None);
    assert_sound(&mut world);
}

#[test]
fn a_digest_set_outside_the_platform_is_detected() {
    let mut world = two_images(6);
    let number = number(start_rollout(&mut world, &in_two_waves(None)));
    until(&mut world, number, (RolloutStatus::Waiting, Some(ReasonCode::Baking)));
    world.cluster.install(Color::Green, digest(7));
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Waiting, Some(ReasonCode::DigestChanged)));
    assert_eq!(on_green(&world, 6), [0]);
    send_control(&mut world, number, Control::Abort).unwrap();
    world.run();
    assert_eq!(status_and_code(&world, number).0, RolloutStatus::Aborted);
}

/// A gated rollout is paused, another digest is deployed, and that digest fails the gate.
#[test]
fn the_verdict_applies_to_the_digest_that_ran() {
    let mut world = two_images(8);
    let gate = HealthGate::new("/health").ok();
    let number = number(start_rollout(&mut world, &in_two_waves(gate)));
    until(&mut world, number, (RolloutStatus::Waiting, Some(ReasonCode::Baking)));
    send_control(&mut world, number, Control::Pause).unwrap();
    world.run();
    assert_eq!(status_and_code(&world, number).0, RolloutStatus::Paused);
    world.probe.break_digest(digest(2));
    deploy(&mut world, 2);

    assert_eq!(send_control(&mut world, number, Control::Resume).unwrap_err().code(), "digest_changed");
    let _ = resume_on(&mut world, number, 2, Force::No).unwrap();
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Halted, Some(ReasonCode::BudgetExceeded)));
    assert_ne!(verdict(&world, 1), Some(Verdict::Bad), "the digest of the first wave did not fail");
    assert_eq!(verdict(&world, 2), Some(Verdict::Bad));
    assert_eq!(on_green(&world, 8), [0], "a broken site is not left on green");
    let judged: Vec<_> = members(&world, number)
        .into_iter()
        .filter(|it| it.outcome == Some(MemberOutcome::Unhealthy))
        .collect();
    assert!(!judged.is_empty() && judged.iter().all(|member| member.digest == Some(digest(2))));
    assert_sound(&mut world);
}

#[test]
fn failures_on_one_digest_do_not_count_for_the_next() {
    let mut world = two_images(8);
    let number = number(start_rollout(&mut world, &in_two_waves(HealthGate::new("/health").ok())));
    until(&mut world, number, (RolloutStatus::Waiting, Some(ReasonCode::Baking)));
    world.probe.break_digest(digest(1));
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Halted, Some(ReasonCode::BudgetExceeded)));
    assert_eq!(verdict(&world, 1), Some(Verdict::Bad));
    deploy(&mut world, 2);
    world.probe.break_digest(digest(2));
    let _ = resume_on(&mut world, number, 2, Force::No).unwrap();
    world.run();
    // A resumed rollout judges this image by itself.
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Halted, Some(ReasonCode::BudgetExceeded)));
    assert_eq!(verdict(&world, 2), Some(Verdict::Bad));
    assert_sound(&mut world);
}

#[test]
fn a_bad_digest_is_accepted_only_with_force_and_permission() {
    let (mut world, number) = changed_between_waves(None);
    let mark = world.request(|manager, request| {
        Box::pin(async move { manager.mark(&request, digest(2), Verdict::Bad, "seen").await })
    });
    mark.unwrap();
    let refused = resume_on(&mut world, number, 2, Force::No).unwrap_err();
    assert_eq!(refused, ManagerError::BadDigest { digest: digest(2), reason: "seen".to_owned() });
    let manager = world.process().manager;
    let wanted = Resume { accept: Some(digest(2)), force: Force::Yes };
    let operator = Request::by(cdm_testkit::fixtures::actor(), Role::Operator);
    let refused = now(manager.resume_on(&operator, number, wanted)).unwrap_err();
    assert_eq!(refused, ManagerError::Forbidden { needed: Role::Admin, has: Role::Operator });
    let _ = resume_on(&mut world, number, 2, Force::Yes).unwrap();
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
}

#[test]
fn a_deploy_of_a_bad_digest_is_repeated_only_with_force() {
    let mut world = two_images(1);
    let failure = cdm_core::ports::PodFailure {
        definite: true,
        blames_image: true,
        message: "CrashLoopBackOff".to_owned(),
    };
    let script = cdm_testkit::fakes::ImageScript {
        ready_after: None,
        failure: Some((Duration::from_secs(20), failure)),
    };
    world.cluster.script(digest(9), script);
    let failed = operation_id(world.deploy(digest(9), Color::Green, false));
    world.run();
    let refused = super::retry(&mut world, &failed).unwrap_err();
    assert_eq!(refused.code(), "bad_digest");
    assert!(refused.to_string().contains(&digest(9).to_string()), "{refused}");
    let again = world.request(move |manager, request| {
        let failed = failed.clone();
        Box::pin(async move { manager.retry_with(&request, &failed, Force::Yes).await })
    });
    let _ = operation_id(again);
    world.run();
}

/// At each call of the owner of a gated rollout, another digest is deployed, or set outside the platform; the gate
/// fails on that digest.
#[test]
fn a_deploy_at_any_call_of_a_gated_rollout_moves_no_site_and_marks_no_wrong_digest() {
    for outside in [false, true] {
        let (mut changed, mut runs) = (0, 0);
        for call in 0.. {
            let mut world = two_images(4);
            world.probe.break_digest(digest(2));
            let wanted =
                RolloutSpec { bake: Duration::ZERO, ..in_two_waves(HealthGate::new("/health").ok()) };
            let number = number(start_rollout(&mut world, &wanted));
            world.faults.arm(Plan(vec![(call, Fault::Paused(255))]));
            let mut owner = run_once(&world.process());
            if !owner.runs_until_paused(&world) {
                break;
            }
            runs += 1;
            if outside {
                world.cluster.install(Color::Green, digest(2));
                let _ = owner.finish(&world);
            } else {
                world.restart();
                // The deploy waits while the rollout holds the service lock, and is rejected while the rollout is
                // known to hold it.
                let _ = world.deploy(digest(2), Color::Green, false);
                let _ = owner.finish(&world);
            }
            world.run();
            let at = format!("call {call}, behind {outside}: {:?}", status_and_code(&world, number));
            assert_ne!(verdict(&world, 1), Some(Verdict::Bad), "{at}");
            for member in members(&world, number) {
                let fine = member.digest.is_none_or(|on| on == digest(1));
                assert!(fine, "{at}: {member:?}");
            }
            let reached = status_and_code(&world, number);
            if reached == (RolloutStatus::Waiting, Some(ReasonCode::DigestChanged)) {
                changed += 1;
                let before = on_green(&world, 4);
                let _ = resume_on(&mut world, number, 2, Force::Yes).unwrap();
                world.run();
                assert_eq!(status_and_code(&world, number).0, RolloutStatus::Halted, "{at}");
                assert_eq!(verdict(&world, 2), Some(Verdict::Bad), "{at}");
                assert_ne!(verdict(&world, 1), Some(Verdict::Bad), "{at}");
                assert_eq!(on_green(&world, 4), before, "{at}");
            } else {
                assert_eq!(reached.0, RolloutStatus::Succeeded, "{at}");
            }
        }
        assert!(runs > 40, "{runs} runs");
        assert!(!outside || changed > 5, "{changed} runs with another digest");
    }
}

#[test]
fn missing_sites_are_named_and_an_empty_rollout_is_rejected() {
    let mut world = fleet(2);
    let named = |ids: &[&str]| RolloutSpec {
        scope: RolloutScope::Sites(ids.iter().map(|id| SiteId::parse(id).unwrap()).collect()),
        waves: Vec::new(),
        ..all(0)
    };
    let refused = start_rollout(&mut world, &named(&[&nth(0), "nope", "neither"])).unwrap_err();
    assert_eq!(refused.to_string(), "the sites `neither`, `nope` do not exist; correct the list");
    assert_eq!(refused.code(), "unknown_sites");
    let empty = [named(&[]), RolloutSpec { scope: RolloutScope::Active, ..all(0) }];
    for wanted in empty {
        assert_eq!(start_rollout(&mut world, &wanted).unwrap_err(), ManagerError::EmptyPlan, "{wanted:?}");
    }
    assert_eq!(world.store.all_rollouts(), []);
    let plan = world.request(move |manager, request| {
        let wanted = named(&["nope"]);
        Box::pin(async move { manager.plan(&request, &wanted).await })
    });
    let codes: Vec<_> = plan.unwrap().warnings.into_iter().map(|warning| warning.code).collect();
    assert_eq!(codes, ["empty", "unknown_sites"]);
}

#[test]
fn a_skipped_site_keeps_its_reason_and_its_history_contains_rollouts() {
    let mut world = fleet(3);
    let _ = world.create("new");
    world.run();
    let ids: Vec<_> = [&nth(0), &nth(1), "new"].iter().map(|id| SiteId::parse(id).unwrap()).collect();
    let wanted = RolloutSpec { scope: RolloutScope::Sites(ids), ..all(0) };
    let number = number(start_rollout(&mut world, &wanted));
    world.run();
    let head = rollout(&world, number);
    assert_eq!((head.status, head.is_partial()), (RolloutStatus::Succeeded, true));
    let skipped = &head.failures[0];
    assert_eq!((skipped.site.as_str(), skipped.outcome), ("new", MemberOutcome::SkippedInactive));
    assert!(skipped.why.as_deref().is_some_and(|why| why.contains("not active")), "{skipped:?}");

    let manager = world.process().manager;
    let history = |site: &str, limit: usize, from: HistoryCursor| {
        let site = SiteId::parse(site).unwrap();
        now(manager.site_operations(&site, &OperationQuery::default(), from, limit)).unwrap()
    };
    let of_new = history("new", 10, HistoryCursor::default()).items;
    assert_eq!(of_new[0].state.reason.as_ref().map(|reason| reason.code), Some(ReasonCode::SiteInactive));
    let history_entries = |site: &str| -> Vec<String> {
        let (mut items, mut from) = (Vec::new(), Some(HistoryCursor::default()));
        while let Some(place) = from {
            let page = history(site, 1, place);
            items.extend(
                page.items.into_iter().map(|it| format!("{} {}", it.state.input.kind(), it.state.status)),
            );
            from = page.next;
        }
        items
    };
    // Every event occurs once, newest first, across pages.
    assert_eq!(history_entries(&nth(0)), ["promote succeeded", "provision succeeded", "create succeeded"]);
    assert_eq!(
        history_entries(&nth(2)),
        ["provision succeeded", "create succeeded"],
        "the site was in no rollout"
    );
    let events = now(manager.events(None, 1_000)).unwrap();
    let of_site = events.iter().filter(|(_, event)| {
        event.rollout == Some(number) && event.subject.as_ref().is_some_and(|of| of.to_string() == "site-new")
    });
    assert_eq!(of_site.map(|(_, event)| event.what.as_str()).collect::<Vec<_>>(), ["site inactive"]);
    assert!(now(manager.has_member(number, &SiteId::parse("new").unwrap())).unwrap());
    assert!(!now(manager.has_member(number, &SiteId::parse(&nth(2)).unwrap())).unwrap());
    let _ = world.on_site("new", Verb::Provision);
    world.run();
    assert_sound(&mut world);
}
