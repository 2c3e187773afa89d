//! Rollouts whose target comes to run another digest: no site moves on it unasked, and verdicts fall on what ran.

use std::time::Duration;

use cdm_core::domain::rollout::{HealthGate, MemberOutcome, RolloutMember, WaveTarget};
use cdm_core::domain::service::Verdict;
use cdm_core::domain::{Color, Digest, ReasonCode, Role, RolloutStatus, SiteId};
use cdm_core::manager::{
    Accepted, Force, HistoryPlace, ManagerError, Request, Resume, RolloutRequest, RolloutScope,
};
use cdm_core::ports::OperationQuery;
use cdm_testkit::faults::{Fault, Plan};
use cdm_testkit::world::{Verb, World, digest, now};

use super::asked::{Wish, ask};
use super::waves::{all, fleet, nth, on_green, stands};
use super::{assert_sound, begun, number, roll, rollout, run_once};

/// So many sites on blue; green, the canary, runs `digest(1)`.
fn two_images(sites: u32) -> World {
    let mut world = fleet(sites);
    deploy(&mut world, 1);
    world
}

fn deploy(world: &mut World, image: u8) {
    let _ = begun(world.deploy(digest(image), Color::Green, false));
    world.run();
}

/// One site, then a rest, then all.
fn in_two_waves(gate: Option<HealthGate>) -> RolloutRequest {
    let waves = vec![WaveTarget::Count(1), WaveTarget::Percent(100)];
    RolloutRequest { waves, bake: Duration::from_secs(600), gate, max_concurrent: 2, ..all(0) }
}

fn resume_on(world: &mut World, number: u64, image: u8, force: Force) -> Result<Accepted, ManagerError> {
    let wanted = Resume { accept: Some(digest(image)), force };
    world.ask(move |manager, request| {
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

/// Lets turns pass until the rollout stands so.
fn until(world: &mut World, number: u64, stood: (RolloutStatus, Option<ReasonCode>)) {
    for _ in 0..200 {
        if stands(world, number) == stood {
            return;
        }
        let _ = world.run_once();
        world.clock.advance(Duration::from_secs(1));
    }
    panic!("{:?}, not {stood:?}", stands(world, number));
}

/// A rollout that rests after its first site, and then finds `digest(2)`.
fn changed_between_waves(gate: Option<HealthGate>) -> (World, u64) {
    let mut world = two_images(6);
    let number = number(roll(&mut world, &in_two_waves(gate)));
    until(&mut world, number, (RolloutStatus::Waiting, Some(ReasonCode::Baking)));
    let _ = begun(world.deploy(digest(2), Color::Green, false));
    world.run();
    (world, number)
}

#[test]
fn no_site_moves_on_another_digest_until_a_person_accepts_it() {
    let (mut world, number) = changed_between_waves(None);
    assert_eq!(stands(&world, number), (RolloutStatus::Waiting, Some(ReasonCode::DigestChanged)));
    let said = rollout(&world, number).reason.unwrap().message;
    assert!(said.contains(&digest(1).to_string()) && said.contains(&digest(2).to_string()), "{said}");
    assert_eq!(on_green(&world, 6), [0]);
    assert_sound(&mut world);

    let refused = ask(&mut world, number, Wish::Resume).unwrap_err();
    let (wanted, running) = (Some(digest(1)), Some(digest(2)));
    assert_eq!(refused, ManagerError::DigestChanged { target: Color::Green, wanted, running });
    // Neither is one that runs nowhere accepted.
    assert_eq!(resume_on(&mut world, number, 3, Force::Yes).unwrap_err().code(), "digest_changed");
    world.run();
    assert_eq!(on_green(&world, 6), [0]);

    let _ = resume_on(&mut world, number, 2, Force::No).unwrap();
    world.run();
    assert_eq!(stands(&world, number), (RolloutStatus::Succeeded, None));
    let head = rollout(&world, number);
    assert_eq!((head.digest, head.accepted_digest), (Some(digest(1)), Some(digest(2))));
    let on = [1, 2, 2, 2, 2, 2].map(|image| Some(digest(image)));
    assert_eq!(digests(&world, number), on, "each site has the digest that it was moved on");
    assert_sound(&mut world);
}

#[test]
fn a_rollout_goes_on_by_itself_when_its_own_digest_is_back() {
    let (mut world, number) = changed_between_waves(None);
    deploy(&mut world, 1);
    world.run();
    assert_eq!(stands(&world, number), (RolloutStatus::Succeeded, None));
    assert_eq!(digests(&world, number), [Some(digest(1)); 6]);
    assert_eq!(rollout(&world, number).accepted_digest, None);
    assert_sound(&mut world);
}

#[test]
fn a_digest_that_somebody_else_sets_is_seen_too() {
    let mut world = two_images(6);
    let number = number(roll(&mut world, &in_two_waves(None)));
    until(&mut world, number, (RolloutStatus::Waiting, Some(ReasonCode::Baking)));
    world.cluster.install(Color::Green, digest(7));
    world.run();
    assert_eq!(stands(&world, number), (RolloutStatus::Waiting, Some(ReasonCode::DigestChanged)));
    assert_eq!(on_green(&world, 6), [0]);
    ask(&mut world, number, Wish::Abort).unwrap();
    world.run();
    assert_eq!(stands(&world, number).0, RolloutStatus::Aborted);
}

/// A gated rollout is paused, another digest is deployed, and that one fails the gate.
#[test]
fn the_verdict_falls_on_the_digest_that_ran_and_not_on_the_one_of_the_record() {
    let mut world = two_images(8);
    let gate = HealthGate::new("/health").ok();
    let number = number(roll(&mut world, &in_two_waves(gate)));
    until(&mut world, number, (RolloutStatus::Waiting, Some(ReasonCode::Baking)));
    ask(&mut world, number, Wish::Pause).unwrap();
    world.run();
    assert_eq!(stands(&world, number).0, RolloutStatus::Paused);
    world.probe.break_digest(digest(2));
    deploy(&mut world, 2);

    assert_eq!(ask(&mut world, number, Wish::Resume).unwrap_err().code(), "digest_changed");
    let _ = resume_on(&mut world, number, 2, Force::No).unwrap();
    world.run();
    assert_eq!(stands(&world, number), (RolloutStatus::Halted, Some(ReasonCode::BudgetExceeded)));
    assert_ne!(verdict(&world, 1), Some(Verdict::Bad), "the digest of the first wave has done nothing");
    assert_eq!(verdict(&world, 2), Some(Verdict::Bad));
    assert_eq!(on_green(&world, 8), [0], "who does not work there is not left there");
    let spoke: Vec<_> = members(&world, number)
        .into_iter()
        .filter(|it| it.outcome == Some(MemberOutcome::Unhealthy))
        .collect();
    assert!(!spoke.is_empty() && spoke.iter().all(|member| member.digest == Some(digest(2))));
    assert_sound(&mut world);
}

#[test]
fn what_sites_said_of_one_digest_is_not_held_against_the_next() {
    let mut world = two_images(8);
    let number = number(roll(&mut world, &in_two_waves(HealthGate::new("/health").ok())));
    until(&mut world, number, (RolloutStatus::Waiting, Some(ReasonCode::Baking)));
    world.probe.break_digest(digest(1));
    world.run();
    assert_eq!(stands(&world, number), (RolloutStatus::Halted, Some(ReasonCode::BudgetExceeded)));
    assert_eq!(verdict(&world, 1), Some(Verdict::Bad));
    deploy(&mut world, 2);
    world.probe.break_digest(digest(2));
    let _ = resume_on(&mut world, number, 2, Force::No).unwrap();
    world.run();
    // A halted rollout judges again: this image by itself.
    assert_eq!(stands(&world, number), (RolloutStatus::Halted, Some(ReasonCode::BudgetExceeded)));
    assert_eq!(verdict(&world, 2), Some(Verdict::Bad));
    assert_sound(&mut world);
}

#[test]
fn a_bad_digest_is_accepted_only_from_whoever_insists_and_may() {
    let (mut world, number) = changed_between_waves(None);
    let mark = world.ask(|manager, request| {
        Box::pin(async move { manager.mark(&request, digest(2), Verdict::Bad, "seen").await })
    });
    mark.unwrap();
    let refused = resume_on(&mut world, number, 2, Force::No).unwrap_err();
    assert_eq!(refused, ManagerError::BadDigest { digest: digest(2), reason: "seen".to_owned() });
    let manager = world.process().manager;
    let wanted = Resume { accept: Some(digest(2)), force: Force::Yes };
    let operator = Request::by(cdm_testkit::build::actor(), Role::Operator);
    let refused = now(manager.resume_on(&operator, number, wanted)).unwrap_err();
    assert_eq!(refused, ManagerError::Forbidden { needed: Role::Admin, has: Role::Operator });
    let _ = resume_on(&mut world, number, 2, Force::Yes).unwrap();
    world.run();
    assert_eq!(stands(&world, number), (RolloutStatus::Succeeded, None));
}

#[test]
fn a_deploy_of_a_bad_digest_is_repeated_only_by_whoever_insists() {
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
    let failed = begun(world.deploy(digest(9), Color::Green, false));
    world.run();
    let refused = super::retry(&mut world, &failed).unwrap_err();
    assert_eq!(refused.code(), "bad_digest");
    assert!(refused.to_string().contains(&digest(9).to_string()), "{refused}");
    let again = world.ask(move |manager, request| {
        let failed = failed.clone();
        Box::pin(async move { manager.retry_with(&request, &failed, Force::Yes).await })
    });
    let _ = begun(again);
    world.run();
}

/// At each call of a gated rollout's owner somebody deploys another digest, or sets it behind everybody's back; the
/// gate speaks against that one.
#[test]
fn a_deploy_at_any_call_of_a_gated_rollout_neither_moves_a_site_unasked_nor_condemns_the_wrong_digest() {
    for behind in [false, true] {
        let mut changed = 0;
        for call in 0.. {
            let mut world = two_images(4);
            world.probe.break_digest(digest(2));
            let wanted =
                RolloutRequest { bake: Duration::ZERO, ..in_two_waves(HealthGate::new("/health").ok()) };
            let number = number(roll(&mut world, &wanted));
            world.faults.arm(Plan(vec![(call, Fault::Paused(255))]));
            let mut owner = run_once(&world.process());
            if !owner.stands_still(&world) {
                break;
            }
            if behind {
                world.cluster.install(Color::Green, digest(2));
                let _ = owner.finish(&world);
            } else {
                world.restart();
                // It waits where the rollout has its hold, and is refused where that is known.
                let _ = world.deploy(digest(2), Color::Green, false);
                let _ = owner.finish(&world);
            }
            world.run();
            let at = format!("call {call}, behind {behind}: {:?}", stands(&world, number));
            assert_ne!(verdict(&world, 1), Some(Verdict::Bad), "{at}");
            for member in members(&world, number) {
                let fine = member.digest.is_none_or(|on| on == digest(1));
                assert!(fine, "{at}: {member:?}");
            }
            let stood = stands(&world, number);
            if stood == (RolloutStatus::Waiting, Some(ReasonCode::DigestChanged)) {
                changed += 1;
                let before = on_green(&world, 4);
                let _ = resume_on(&mut world, number, 2, Force::Yes).unwrap();
                world.run();
                assert_eq!(stands(&world, number).0, RolloutStatus::Halted, "{at}");
                assert_eq!(verdict(&world, 2), Some(Verdict::Bad), "{at}");
                assert_ne!(verdict(&world, 1), Some(Verdict::Bad), "{at}");
                assert_eq!(on_green(&world, 4), before, "{at}");
            } else {
                assert_eq!(stood.0, RolloutStatus::Succeeded, "{at}");
            }
        }
        assert!(!behind || changed > 5, "{changed} of them found another digest");
    }
}

#[test]
fn a_site_that_is_not_there_is_refused_by_name_and_a_rollout_of_no_site_is_none() {
    let mut world = fleet(2);
    let named = |ids: &[&str]| RolloutRequest {
        scope: RolloutScope::Sites(ids.iter().map(|id| SiteId::parse(id).unwrap()).collect()),
        waves: Vec::new(),
        ..all(0)
    };
    let refused = roll(&mut world, &named(&[&nth(0), "nope", "neither"])).unwrap_err();
    assert_eq!(refused.to_string(), "the sites `neither`, `nope` do not exist; correct the list");
    assert_eq!(refused.code(), "unknown_sites");
    let empty = [named(&[]), RolloutRequest { scope: RolloutScope::Active, ..all(0) }];
    for wanted in empty {
        assert_eq!(roll(&mut world, &wanted).unwrap_err(), ManagerError::EmptyPlan, "{wanted:?}");
    }
    assert_eq!(world.store.all_rollouts(), []);
    let plan = world.ask(move |manager, request| {
        let wanted = named(&["nope"]);
        Box::pin(async move { manager.plan(&request, &wanted).await })
    });
    let codes: Vec<_> = plan.unwrap().warnings.into_iter().map(|warning| warning.code).collect();
    assert_eq!(codes, ["empty", "unknown_sites"]);
}

#[test]
fn a_site_that_was_skipped_keeps_its_reason_and_its_history_has_what_rollouts_did() {
    let mut world = fleet(3);
    let _ = world.create("new");
    world.run();
    let ids: Vec<_> = [&nth(0), &nth(1), "new"].iter().map(|id| SiteId::parse(id).unwrap()).collect();
    let wanted = RolloutRequest { scope: RolloutScope::Sites(ids), ..all(0) };
    let number = number(roll(&mut world, &wanted));
    world.run();
    let head = rollout(&world, number);
    assert_eq!((head.status, head.is_partial()), (RolloutStatus::Succeeded, true));
    let skipped = &head.failures[0];
    assert_eq!((skipped.site.as_str(), skipped.outcome), ("new", MemberOutcome::SkippedInactive));
    assert!(skipped.why.as_deref().is_some_and(|why| why.contains("not active")), "{skipped:?}");

    let manager = world.process().manager;
    let history = |site: &str, limit: usize, from: HistoryPlace| {
        let site = SiteId::parse(site).unwrap();
        now(manager.site_operations(&site, &OperationQuery::default(), from, limit)).unwrap()
    };
    let of_new = history("new", 10, HistoryPlace::default()).items;
    assert_eq!(of_new[0].state.reason.as_ref().map(|reason| reason.code), Some(ReasonCode::SiteInactive));
    let told = |site: &str| -> Vec<String> {
        let (mut items, mut from) = (Vec::new(), Some(HistoryPlace::default()));
        while let Some(place) = from {
            let page = history(site, 1, place);
            items.extend(
                page.items.into_iter().map(|it| format!("{} {}", it.state.input.kind(), it.state.status)),
            );
            from = page.next;
        }
        items
    };
    // Page by page, each once, newest first.
    assert_eq!(told(&nth(0)), ["promote succeeded", "provision succeeded", "create succeeded"]);
    assert_eq!(told(&nth(2)), ["provision succeeded", "create succeeded"], "it was on no list");
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
