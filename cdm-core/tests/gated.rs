//! Rollouts with gates, rests and freezes, at random: broken images and sites, routes that lag, sites that cannot be
//! asked, pauses, aborts, freezes, crashes and every fault of a port. Invariants are checked after every effect.

#![allow(clippy::print_stdout, reason = "which runs there were is the campaign's result")]

mod campaign;

use std::collections::BTreeMap;
use std::time::Duration;

use campaign::{Campaign, full, seed};
use cdm_core::domain::rollout::{Budget, Counts, HealthGate, MemberOutcome, RolloutMember, WaveTarget};
use cdm_core::domain::service::Verdict;
use cdm_core::domain::{Color, Digest, ReasonCode, Rollout, RolloutStatus};
use cdm_core::manager::{Accepted, Force, NewFreeze, Resume, RolloutRequest, RolloutScope};
use cdm_testkit::fakes::Away;
use cdm_testkit::faults::{Fault, Plan};
use cdm_testkit::ids::Rng;
use cdm_testkit::log::What;
use cdm_testkit::world::{World, digest, now};

const SITES: u64 = 12;

/// What is wrong in this run, and whose fault it is.
#[derive(Debug, Default)]
struct Wrong {
    images: Vec<Digest>,
    sites: Vec<(usize, Digest)>,
    /// The digests that sites may move on: the first one, and what a person accepts.
    asked_for: Vec<Digest>,
    /// Whether somebody has set an image past the platform.
    behind: bool,
}

impl Wrong {
    fn breaks(&self, n: usize, on: Digest) -> bool {
        self.images.contains(&on) || self.sites.contains(&(n, on))
    }
}

fn fleet(seed: u64) -> World {
    let mut world = World::new(seed);
    for n in 0..SITES {
        world.settle_site(&format!("s{n:02}"));
    }
    let _ = world.deploy(digest(1), Color::Green, false);
    world.run();
    let _ = world.select(Color::Green);
    world.run();
    world
}

fn spoil(world: &World, rng: &mut Rng) -> Wrong {
    let mut wrong = Wrong { asked_for: vec![digest(1)], ..Wrong::default() };
    let sites = world.store.all_sites();
    for image in [digest(1), digest(2)] {
        if rng.chance(0.25) {
            world.probe.break_digest(image);
            wrong.images.push(image);
        }
    }
    for (n, site) in sites.iter().enumerate() {
        for image in [digest(1), digest(2)] {
            if rng.chance(0.1) {
                world.probe.break_site(site.uid, image);
                wrong.sites.push((n, image));
            }
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
    let mut gate = HealthGate::new("/").expect("a gate");
    if rng.chance(0.3) {
        gate = gate.with_latency(2_000).expect("a ratio");
    }
    let waves = match rng.below(3) {
        0 => Vec::new(),
        1 => vec![WaveTarget::Count(1), WaveTarget::Percent(100)],
        _ => vec![WaveTarget::Count(2), WaveTarget::Percent(50), WaveTarget::Percent(100)],
    };
    RolloutRequest {
        promote: true,
        scope: RolloutScope::All,
        waves,
        max_concurrent: 1 + u32::try_from(rng.below(4)).unwrap_or(0),
        budget: Budget::Count(u32::try_from(rng.below(3)).unwrap_or(0)),
        auto_rollback: rng.chance(0.5),
        gate: Some(gate),
        bake: Duration::from_secs(rng.below(2) * 120),
        ..RolloutRequest::default()
    }
}

/// The digest that green runs.
fn running(world: &World) -> Option<Digest> {
    now(world.raw().cluster.service(Color::Green)).ok().and_then(|view| view.digest)
}

/// What someone asks of a rollout while it runs, or does to its target.
fn meddle(world: &mut World, rng: &mut Rng, number: u64, wrong: &mut Wrong) {
    let what = rng.below(9);
    match what {
        5 | 6 => {
            let image = if rng.chance(0.7) { digest(2) } else { digest(1) };
            let _ = world.deploy(image, Color::Green, false);
            return;
        }
        7 => return accept(world, number, wrong),
        8 => {
            let image = if rng.chance(0.7) { digest(2) } else { digest(1) };
            wrong.behind = true;
            return world.cluster.install(Color::Green, image);
        }
        _ => {}
    }
    let until = world.raw().clock.wall().after(Duration::from_secs(300));
    let _ = world.ask(move |manager, request| {
        Box::pin(async move {
            match what {
                0 => manager.pause(&request, number).await,
                1 | 2 => manager.resume(&request, number).await,
                3 => manager.abort(&request, number).await,
                _ => {
                    let reason = "a sale".to_owned();
                    let freeze = NewFreeze { sites: None, reason, until: Some(until) };
                    manager.freeze(&request, &freeze).await.map(|_| Accepted::Done)
                }
            }
        })
    });
}

/// A person accepts whatever runs.
fn accept(world: &mut World, number: u64, wrong: &mut Wrong) {
    let Some(image) = running(world) else { return };
    let wanted = Resume { accept: Some(image), force: Force::Yes };
    let accepted = world.ask(move |manager, request| {
        Box::pin(async move { manager.resume_on(&request, number, wanted).await })
    });
    if accepted.is_ok() {
        wrong.asked_for.push(image);
    }
}

fn fault(rng: &mut Rng) -> (usize, Fault) {
    let kind = usize::try_from(rng.below(Fault::KINDS.len() as u64)).unwrap_or(0);
    (usize::try_from(rng.below(120)).unwrap_or(0), Fault::KINDS[kind])
}

/// Plays one run; what is wrong in the end.
fn play(seed: u64) -> Result<RolloutStatus, String> {
    let mut rng = Rng::new(seed);
    let mut world = fleet(seed);
    let mut wrong = spoil(&world, &mut rng);
    let wanted = wanted(&mut rng);
    let asked = wanted.clone();
    let accepted = world.ask(move |manager, request| {
        let asked = asked.clone();
        Box::pin(async move { manager.rollout(&request, &asked).await })
    });
    let Ok(Accepted::Rollout(number)) = accepted else { return Err(format!("{seed}: {accepted:?}")) };
    let faults: Vec<_> = (0..rng.below(3)).map(|_| fault(&mut rng)).collect();
    // A look that answers what was so before may let a site pass.
    let stale = faults.iter().any(|(_, fault)| *fault == Fault::Stale);
    world.faults.arm(Plan(faults));
    for _ in 0..rng.below(6) {
        let _ = world.run_once();
        if rng.chance(0.4) {
            meddle(&mut world, &mut rng, number, &mut wrong);
        }
    }
    world.run();
    world.heal();
    let resumed =
        world.ask(move |manager, request| Box::pin(async move { manager.resume(&request, number).await }));
    drop(resumed);
    world.run();
    if rng.chance(0.5) {
        accept(&mut world, number, &mut wrong);
        world.run();
    }
    let head = world.store.all_rollouts().into_iter().find(|rollout| rollout.number == number);
    let head = head.ok_or_else(|| format!("{seed}: the rollout is gone"))?;
    let mut said = judge(&mut world, &head, &wanted, &wrong);
    if !stale {
        said.extend(unasked(&world, &head, &wrong));
    }
    if said.is_empty() { Ok(head.status) } else { Err(format!("{seed}: {:?} {said:#?}", head.status)) }
}

fn judge(world: &mut World, head: &Rollout, wanted: &RolloutRequest, wrong: &Wrong) -> Vec<String> {
    let mut said: Vec<String> = world.violations().iter().map(ToString::to_string).collect();
    let pages = world.store.pages(head.number).into_iter();
    let members: Vec<RolloutMember> = pages.flat_map(|page| page.members).collect();
    let mut recount = Counts::default();
    members.iter().filter_map(|member| member.outcome).for_each(|outcome| recount.add(outcome));
    if recount != head.counts() {
        said.push(format!("TotalsAgree: {recount:?} are not {:?}", head.counts()));
    }
    let sites = world.store.all_sites();
    for (n, (site, member)) in sites.iter().zip(&members).enumerate() {
        let routed = site.routed_service();
        let on_green = routed == Some(Color::Green);
        if site.operation.is_some() {
            said.push(format!("{} is still claimed", site.id));
        }
        match member.outcome {
            // Whoever does not work on green is never left there by a gate that could say so.
            Some(MemberOutcome::Moved | MemberOutcome::InPlace)
                if member.digest.is_some_and(|on| wrong.breaks(n, on)) =>
            {
                said.push(format!("{} does not work and counts as moved", site.id));
            }
            Some(MemberOutcome::Moved) if !on_green => {
                said.push(format!("{} moved and is on {routed:?}", site.id))
            }
            Some(MemberOutcome::Unhealthy | MemberOutcome::Returned | MemberOutcome::Failed) if on_green => {
                said.push(format!("{} went back and is on green", site.id));
            }
            None if on_green => said.push(format!("{} is on green and nobody vouches for it", site.id)),
            _ => {}
        }
    }
    let service = now(world.raw().store.service(Color::Green));
    let releases = service.map(|service| service.releases).unwrap_or_default();
    let Budget::Count(allowed) = wanted.budget else { return said };
    let slow = members.iter().any(|member| member.why.as_ref().is_some_and(|why| why.contains("takes")));
    let many = |on: Digest| {
        let sites = wrong.sites.iter().filter(|(_, image)| *image == on).count();
        wrong.images.contains(&on) || sites > allowed as usize || slow
    };
    for release in releases.iter().filter(|release| release.verdict == Verdict::Bad) {
        if !many(release.digest) {
            said.push(format!("{} is bad, and too few sites spoke against it", release.digest));
        }
    }
    // What failed on one digest may add up with what failed on the next.
    let many = wrong.asked_for.len() > 1 || many(digest(1));
    let halted = head.reason.as_ref().is_some_and(|reason| reason.code == ReasonCode::BudgetExceeded);
    if halted && !many {
        said.push("it halted, and too few sites do not work".to_owned());
    }
    said
}

/// What was moved on a digest that nobody asked for, or is said to have been moved on another one than it was.
fn unasked(world: &World, head: &Rollout, wrong: &Wrong) -> Vec<String> {
    let mut said = Vec::new();
    let mut runs = None;
    let mut moved = BTreeMap::new();
    for effect in world.log.since(0) {
        match effect.what {
            What::ImageSet(Color::Green, _, image) => runs = image,
            What::RouteMoved(uid, from, Color::Green) if from != Color::Green => {
                moved.insert(uid, runs);
            }
            _ => {}
        }
    }
    for member in world.store.pages(head.number).into_iter().flat_map(|page| page.members) {
        let Some(on) = member.digest else { continue };
        if !wrong.asked_for.contains(&on) {
            said.push(format!("`{}` came out on {on}, which nobody asked for", member.id));
        }
        let was = moved.get(&member.uid).copied().flatten();
        // Behind everybody's back no effect is logged.
        if member.outcome == Some(MemberOutcome::Moved) && was.is_some_and(|was| was != on) && !wrong.behind {
            said.push(format!("`{}` was moved on {was:?}, and its page says {on}", member.id));
        }
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
