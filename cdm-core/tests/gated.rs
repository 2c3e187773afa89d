//! Rollouts with gates, rests and freezes, at random: broken images and sites, routes that lag, sites that cannot be
//! asked, pauses, aborts, freezes, crashes and every fault of a port. Invariants are checked after every effect.

#![allow(clippy::print_stdout, reason = "which runs there were is the campaign's result")]

mod campaign;

use std::collections::BTreeMap;
use std::time::Duration;

use campaign::{Campaign, full, seed};
use cdm_core::domain::colour::Verdict;
use cdm_core::domain::rollout::{Budget, Gate, Outcome, Reach, RolloutMember, Tally};
use cdm_core::domain::{Code, Rollout, RolloutStatus, Selector};
use cdm_core::services::{Accepted, NewFreeze, RolloutRequest, RolloutScope};
use cdm_testkit::fakes::Away;
use cdm_testkit::faults::{Fault, Plan};
use cdm_testkit::ids::Rng;
use cdm_testkit::world::{World, digest, now};

const SITES: u64 = 12;

/// What is wrong in this run, and whose fault it is.
#[derive(Debug, Default)]
struct Wrong {
    image: bool,
    sites: Vec<usize>,
}

fn fleet(seed: u64) -> World {
    let mut world = World::new(seed);
    for n in 0..SITES {
        world.settle_site(&format!("s{n:02}"));
    }
    let _ = world.deploy(digest(1), Selector::Green, false);
    world.run();
    let _ = world.select(Selector::Green);
    world.run();
    world
}

fn spoil(world: &World, rng: &mut Rng) -> Wrong {
    let mut wrong = Wrong::default();
    let sites = world.store.all_sites();
    if rng.chance(0.25) {
        world.probe.break_digest(digest(1));
        wrong.image = true;
    }
    for (n, site) in sites.iter().enumerate() {
        if rng.chance(0.1) {
            world.probe.break_site(site.uid, digest(1));
            wrong.sites.push(n);
        }
        if rng.chance(0.04) {
            world.probe.away(site.uid, Away::Yes);
        }
    }
    if rng.chance(0.3) {
        world.probe.lag(Duration::from_secs(rng.below(50)), &world.cluster.routes());
    }
    if rng.chance(0.1) {
        world.probe.slow_down(digest(1), Duration::from_millis(500));
    }
    wrong
}

fn wanted(rng: &mut Rng) -> RolloutRequest {
    let mut gate = Gate::new("/").expect("a gate");
    if rng.chance(0.3) {
        gate = gate.with_latency(2_000).expect("a ratio");
    }
    let waves = match rng.below(3) {
        0 => Vec::new(),
        1 => vec![Reach::Count(1), Reach::Percent(100)],
        _ => vec![Reach::Count(2), Reach::Percent(50), Reach::Percent(100)],
    };
    RolloutRequest {
        promote: true,
        scope: RolloutScope::All,
        waves,
        max_concurrent: 1 + u32::try_from(rng.below(4)).unwrap_or(0),
        budget: Budget::Count(u32::try_from(rng.below(3)).unwrap_or(0)),
        auto_return: rng.chance(0.5),
        gate: Some(gate),
        bake: Duration::from_secs(rng.below(2) * 120),
        ..RolloutRequest::default()
    }
}

/// What someone asks of a rollout while it runs.
fn meddle(world: &mut World, rng: &mut Rng, number: u64) {
    let what = rng.below(5);
    let until = world.raw().clock.wall().after(Duration::from_secs(300));
    let _ = world.ask(move |services, request| {
        Box::pin(async move {
            match what {
                0 => services.pause(&request, number).await,
                1 | 2 => services.resume(&request, number).await,
                3 => services.abort(&request, number).await,
                _ => {
                    let reason = "a sale".to_owned();
                    let freeze = NewFreeze { sites: None, reason, until: Some(until) };
                    services.freeze(&request, &freeze).await.map(|_| Accepted::Done)
                }
            }
        })
    });
}

fn fault(rng: &mut Rng) -> (usize, Fault) {
    let kind = usize::try_from(rng.below(Fault::KINDS.len() as u64)).unwrap_or(0);
    (usize::try_from(rng.below(120)).unwrap_or(0), Fault::KINDS[kind])
}

/// Plays one run; what is wrong in the end.
fn play(seed: u64) -> Result<RolloutStatus, String> {
    let mut rng = Rng::new(seed);
    let mut world = fleet(seed);
    let wrong = spoil(&world, &mut rng);
    let wanted = wanted(&mut rng);
    let asked = wanted.clone();
    let accepted = world.ask(move |services, request| {
        let asked = asked.clone();
        Box::pin(async move { services.rollout(&request, &asked).await })
    });
    let Ok(Accepted::Rollout(number)) = accepted else { return Err(format!("{seed}: {accepted:?}")) };
    let faults = (0..rng.below(3)).map(|_| fault(&mut rng)).collect();
    world.gate.arm(Plan(faults));
    for _ in 0..rng.below(6) {
        let _ = world.turn();
        if rng.chance(0.4) {
            meddle(&mut world, &mut rng, number);
        }
    }
    world.run();
    world.heal();
    let resumed =
        world.ask(move |services, request| Box::pin(async move { services.resume(&request, number).await }));
    drop(resumed);
    world.run();
    let head = world.store.all_rollouts().into_iter().find(|rollout| rollout.number == number);
    let head = head.ok_or_else(|| format!("{seed}: the rollout is gone"))?;
    let said = judge(&mut world, &head, &wanted, &wrong);
    if said.is_empty() { Ok(head.status) } else { Err(format!("{seed}: {:?} {said:#?}", head.status)) }
}

fn judge(world: &mut World, head: &Rollout, wanted: &RolloutRequest, wrong: &Wrong) -> Vec<String> {
    let mut said: Vec<String> = world.violations().iter().map(ToString::to_string).collect();
    let pages = world.store.pages(head.number).into_iter();
    let members: Vec<RolloutMember> = pages.flat_map(|page| page.members).collect();
    let mut recount = Tally::default();
    members.iter().filter_map(|member| member.outcome).for_each(|outcome| recount.add(outcome));
    if recount != head.tally() {
        said.push(format!("TotalsAgree: {recount:?} are not {:?}", head.tally()));
    }
    let sites = world.store.all_sites();
    let broken = |n: usize| wrong.image || wrong.sites.contains(&n);
    for (n, (site, member)) in sites.iter().zip(&members).enumerate() {
        let routed = site.routed_service();
        let on_green = routed == Some(Selector::Green);
        if site.slot.is_some() {
            said.push(format!("{} is still claimed", site.id));
        }
        match member.outcome {
            // Whoever does not work on green is never left there by a gate that could say so.
            Some(Outcome::Moved | Outcome::InPlace) if broken(n) => {
                said.push(format!("{} does not work and counts as moved", site.id));
            }
            Some(Outcome::Moved) if !on_green => said.push(format!("{} moved and is on {routed:?}", site.id)),
            Some(Outcome::Unhealthy | Outcome::Returned | Outcome::Failed) if on_green => {
                said.push(format!("{} went back and is on green", site.id));
            }
            None if on_green => said.push(format!("{} is on green and nobody vouches for it", site.id)),
            _ => {}
        }
    }
    let bad = now(world.raw().store.colour(Selector::Green))
        .map(|colour| colour.releases.iter().any(|release| release.verdict == Verdict::Bad))
        .unwrap_or_default();
    let Budget::Count(allowed) = wanted.budget else { return said };
    let slow = members.iter().any(|member| member.why.as_ref().is_some_and(|why| why.contains("takes")));
    let many = wrong.image || wrong.sites.len() > allowed as usize || slow;
    if bad && !many {
        said.push("the image is bad, and too few sites spoke against it".to_owned());
    }
    let halted = head.reason.as_ref().is_some_and(|reason| reason.code == Code::BudgetExceeded);
    if halted && !many {
        said.push("it halted, and too few sites do not work".to_owned());
    }
    said
}

#[test]
fn gated_rollouts() {
    let runs = if full() { 20_000 } else { 1_000 };
    let first = seed() * 1_000_000;
    let seeds: Vec<u64> = (first..first + runs).collect();
    let ends = std::sync::Mutex::new(BTreeMap::<&'static str, u64>::new());
    let campaign = Campaign::new("gated-rollouts").over(&seeds, |seed| {
        let played =
            std::panic::catch_unwind(|| play(*seed)).unwrap_or_else(|_| Err(format!("{seed}: panicked")));
        played.map(|status| *ends.lock().expect("a count").entry(status.as_str()).or_default() += 1)
    });
    let ends = ends.into_inner().expect("counts");
    campaign.end(&format!("seed {}, ended {ends:?}", seed()));
}
