//! Rollouts in waves: budgets, halts and rollbacks.

use cdm_core::domain::rollout::{Budget, Counts, MemberOutcome, RolloutKind, RolloutSpec, WaveTarget};
use cdm_core::domain::{Color, Fence, ReasonCode, RolloutStatus};
use cdm_core::manager::RolloutScope;
use cdm_core::ports::{CallContext, Clock, WriteId};
use cdm_testkit::world::{Verb, World, now};

use super::{number, operation_id, rollout, routed, site, start_rollout};

/// Returns the id of the `n`th site.
pub(super) fn nth(n: u32) -> String {
    format!("s{n:03}")
}

/// Returns a platform with this number of sites on blue, with green selected.
pub(super) fn fleet(sites: u32) -> World {
    let mut world = World::new(1);
    for verb in [None, Some(Verb::Provision)] {
        for n in 0..sites {
            let id = nth(n);
            let _ = operation_id(match verb {
                None => world.create(&id),
                Some(verb) => world.on_site(&id, verb),
            });
        }
        world.run();
    }
    world.select(Color::Green).unwrap();
    world.run();
    world
}

/// Promotes every site, in waves of 1, 10% and 100%.
pub(super) fn all(budget: u32) -> RolloutSpec {
    RolloutSpec {
        kind: RolloutKind::Promote,
        scope: RolloutScope::All,
        waves: vec![WaveTarget::Count(1), WaveTarget::Percent(10), WaveTarget::Percent(100)],
        max_concurrent: 4,
        budget: Budget::Count(budget),
        ..RolloutSpec::default()
    }
}

/// Removes the site's route outside the platform.
pub(super) fn lose_route(world: &World, n: u32) {
    let uid = site(world, &nth(n)).uid;
    let deadline = world.clock.monotonic().after(std::time::Duration::from_secs(8));
    let call = CallContext { deadline, write: WriteId(0), fence: Fence::default() };
    let _ = now(world.raw().cluster.release(&call, uid));
}

/// Asserts that the only violations are the missing routes of those sites.
pub(super) fn assert_sound_except(world: &mut World, lost: &[u32]) {
    let lost: Vec<_> = lost.iter().map(|n| site(world, &nth(*n))).collect();
    let own = |detail: &str| {
        lost.iter().any(|site| {
            let known = [
                format!("`{}` is active without a route", site.id),
                format!("the route of `{}` is not where its record says", site.id),
                format!("kind: Released({:?}, true)", site.uid),
            ];
            known.iter().any(|known| detail.contains(known))
        })
    };
    let broken: Vec<String> =
        world.violations().iter().map(ToString::to_string).filter(|v| !own(v)).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Returns the outcome of each site, in order.
pub(super) fn outcomes(world: &World, number: u64) -> Vec<Option<MemberOutcome>> {
    let pages = world.store.pages(number).into_iter();
    pages.flat_map(|page| page.members).map(|member| member.outcome).collect()
}

/// Returns the sites that are routed to green.
pub(super) fn on_green(world: &World, sites: u32) -> Vec<u32> {
    (0..sites).filter(|n| routed(world, &nth(*n)) == Some(Color::Green)).collect()
}

/// Returns the rollout's status and the code of its reason.
pub(super) fn status_and_code(world: &World, number: u64) -> (RolloutStatus, Option<ReasonCode>) {
    let rollout = rollout(world, number);
    (rollout.status, rollout.reason.map(|reason| reason.code))
}

fn wave_counts(world: &World, number: u64) -> Vec<(u32, Counts)> {
    rollout(world, number).waves.iter().map(|wave| (wave.end, wave.counts)).collect()
}

#[test]
fn one_broken_site_within_the_budget_fails_alone() {
    let mut world = fleet(20);
    lose_route(&world, 7);
    let number = number(start_rollout(&mut world, &all(1)));
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
    let moved = |succeeded| Counts { succeeded, ..Counts::default() };
    let last = Counts { failed: 1, ..moved(17) };
    assert_eq!(wave_counts(&world, number), [(1, moved(1)), (2, moved(1)), (20, last)]);
    for (n, outcome) in (0..).zip(outcomes(&world, number)) {
        let expected = if n == 7 { MemberOutcome::Failed } else { MemberOutcome::Moved };
        assert_eq!(outcome, Some(expected), "{n}");
        let service = if n == 7 { Color::Blue } else { Color::Green };
        assert_eq!(site(&world, &nth(n)).service, service, "{n}");
    }
    assert_eq!(on_green(&world, 20), (0..20).filter(|n| *n != 7).collect::<Vec<_>>());
    assert_sound_except(&mut world, &[7]);
}

#[test]
fn a_wave_over_its_budget_halts_the_rollout_before_the_next_wave() {
    let mut world = fleet(30);
    let later: Vec<_> = (3..30).map(|n| site(&world, &nth(n))).collect();
    lose_route(&world, 1);
    let number = number(start_rollout(&mut world, &all(0)));
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Halted, Some(ReasonCode::BudgetExceeded)));
    let message = rollout(&world, number).reason.unwrap().message;
    assert!(message.contains("1 sites"), "{message}");
    assert_eq!((3..30).map(|n| site(&world, &nth(n))).collect::<Vec<_>>(), later);
    assert!(on_green(&world, 30).iter().all(|n| *n < 3));
    assert_eq!(rollout(&world, number).locked_color, None);
    assert_sound_except(&mut world, &[1]);
}

#[test]
fn a_resumed_rollout_continues_past_acknowledged_failures() {
    let mut world = fleet(20);
    lose_route(&world, 1);
    lose_route(&world, 0);
    let number = number(start_rollout(&mut world, &all(0)));
    for reached in [1, 2] {
        world.run();
        assert_eq!(
            status_and_code(&world, number),
            (RolloutStatus::Halted, Some(ReasonCode::BudgetExceeded))
        );
        assert_eq!(rollout(&world, number).window().end, reached);
        assert_eq!(on_green(&world, 20), Vec::<u32>::new());
        super::controls::send_control(&mut world, number, super::controls::Control::Resume).unwrap();
    }
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
    assert_eq!(on_green(&world, 20), (2..20).collect::<Vec<_>>());
    assert_eq!(rollout(&world, number).counts(), Counts { succeeded: 18, failed: 2, ..Counts::default() });
    assert_sound_except(&mut world, &[0, 1]);
}

#[test]
fn a_resumed_rollout_halts_again_at_a_new_failure() {
    let mut world = fleet(20);
    for n in [0, 9] {
        lose_route(&world, n);
    }
    let number = number(start_rollout(&mut world, &all(0)));
    world.run();
    assert_eq!(rollout(&world, number).window().end, 1);
    super::controls::send_control(&mut world, number, super::controls::Control::Resume).unwrap();
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Halted, Some(ReasonCode::BudgetExceeded)));
    assert_eq!(outcomes(&world, number)[9], Some(MemberOutcome::Failed));
    super::controls::send_control(&mut world, number, super::controls::Control::Resume).unwrap();
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Succeeded, None));
    assert_eq!(on_green(&world, 20).len(), 18);
    assert_sound_except(&mut world, &[0, 9]);
}

#[test]
fn an_auto_rollback_moves_every_site_back_and_ends_failed() {
    let mut world = fleet(20);
    lose_route(&world, 7);
    let number = number(start_rollout(&mut world, &RolloutSpec { auto_rollback: true, ..all(0) }));
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Failed, Some(ReasonCode::BudgetExceeded)));
    assert_eq!(on_green(&world, 20), Vec::<u32>::new());
    let outcomes = outcomes(&world, number);
    assert_eq!(outcomes[7], Some(MemberOutcome::Failed));
    assert_eq!((outcomes[0], outcomes[1]), (Some(MemberOutcome::Returned), Some(MemberOutcome::Returned)));
    assert!(!outcomes.contains(&Some(MemberOutcome::Moved)), "{outcomes:?}");
    for n in 0..20 {
        let site = site(&world, &nth(n));
        assert_eq!(
            (site.service, site.routed_service(), site.operation),
            (Color::Blue, Some(Color::Blue), None)
        );
    }
    assert_sound_except(&mut world, &[7]);
}

#[test]
fn a_rollback_waits_until_its_target_is_ready() {
    let mut world = fleet(20);
    lose_route(&world, 7);
    world.cluster.break_service(Color::Blue, None);
    let number = number(start_rollout(&mut world, &RolloutSpec { auto_rollback: true, ..all(0) }));
    for _ in 0..20 {
        let _ = world.run_once();
        world.clock.advance(std::time::Duration::from_secs(5));
    }
    // The final reason is kept while the rollout waits.
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Waiting, Some(ReasonCode::BudgetExceeded)));
    assert!(on_green(&world, 20).contains(&0));
    world.cluster.repair_service(Color::Blue);
    world.run();
    assert_eq!(status_and_code(&world, number), (RolloutStatus::Failed, Some(ReasonCode::BudgetExceeded)));
    assert_eq!(on_green(&world, 20), Vec::<u32>::new());
    assert_sound_except(&mut world, &[7]);
}
