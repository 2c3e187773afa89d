//! Randomized rollouts with health gates, bake times and freezes: broken images and sites, lagging routes, sites that
//! cannot be probed, pauses, aborts, freezes, crashes and every fault of a port. Invariants are checked after every
//! effect.

#![allow(clippy::print_stdout, reason = "the campaign prints its result")]

use std::collections::BTreeMap;
use std::time::Duration;

use cdm_core::domain::rollout::{
    Budget, Counts, HealthGate, MemberOutcome, RolloutKind, RolloutMember, RolloutSpec, WaveTarget,
};
use cdm_core::domain::service::Verdict;
use cdm_core::domain::{Color, Digest, ReasonCode, Rollout, RolloutStatus};
use cdm_core::manager::{Accepted, Force, NewFreeze, Resume, RolloutScope};
use cdm_testkit::campaign::{Campaign, full, seed};
use cdm_testkit::fakes::Unreachable;
use cdm_testkit::faults::{Fault, Plan};
use cdm_testkit::ids::Rng;
use cdm_testkit::log::EffectKind;
use cdm_testkit::world::{World, digest, now};

const SITES: u64 = 12;

/// The defects of this run.
#[derive(Debug, Default)]
struct Defects {
    images: Vec<Digest>,
    sites: Vec<(usize, Digest)>,
    /// The digests to which sites may be moved: the first one, and those that a user accepts.
    requested: Vec<Digest>,
    /// Whether an image was changed outside the platform.
    changed_outside: bool,
}

impl Defects {
    fn breaks(&self, n: usize, on: Digest) -> bool {
        self.images.contains(&on) || self.sites.contains(&(n, on))
    }
}

fn fleet(seed: u64) -> World {
    let mut world = World::new(seed);
    for n in 0..SITES {
        world.create_active_site(&format!("s{n:02}"));
    }
    let _ = world.deploy(digest(1), Color::Green, false);
    world.run();
    let _ = world.select(Color::Green);
    world.run();
    world
}

fn add_defects(world: &World, rng: &mut Rng) -> Defects {
    let mut defects = Defects { requested: vec![digest(1)], ..Defects::default() };
    let sites = world.store.all_sites();
    for image in [digest(1), digest(2)] {
        if rng.chance(0.25) {
            world.probe.break_digest(image);
            defects.images.push(image);
        }
    }
    for (n, site) in sites.iter().enumerate() {
        for image in [digest(1), digest(2)] {
            if rng.chance(0.1) {
                world.probe.break_site(site.uid, image);
                defects.sites.push((n, image));
            }
        }
        if rng.chance(0.04) {
            world.probe.set_unreachable(site.uid, Unreachable::Yes);
        }
    }
    if rng.chance(0.3) {
        world.probe.delay_routes(Duration::from_secs(rng.below(50)), &world.cluster.routes());
    }
    if rng.chance(0.1) {
        world.probe.slow_down(digest(1), Duration::from_millis(500));
    }
    defects
}

fn random_request(rng: &mut Rng) -> RolloutSpec {
    let mut gate = HealthGate::new("/").expect("a gate");
    if rng.chance(0.3) {
        gate = gate.with_latency(2_000).expect("a ratio");
    }
    let waves = match rng.below(3) {
        0 => Vec::new(),
        1 => vec![WaveTarget::Count(1), WaveTarget::Percent(100)],
        _ => vec![WaveTarget::Count(2), WaveTarget::Percent(50), WaveTarget::Percent(100)],
    };
    RolloutSpec {
        kind: RolloutKind::Promote,
        scope: RolloutScope::All,
        waves,
        max_concurrent: 1 + u32::try_from(rng.below(4)).unwrap_or(0),
        budget: Budget::Count(u32::try_from(rng.below(3)).unwrap_or(0)),
        auto_rollback: rng.chance(0.5),
        gate: Some(gate),
        bake: Duration::from_secs(rng.below(2) * 120),
        ..RolloutSpec::default()
    }
}

/// Returns the digest that green runs.
fn running(world: &World) -> Option<Digest> {
    now(world.raw().cluster.service(Color::Green)).ok().and_then(|view| view.digest)
}

/// Sends a user's request to the running rollout, or changes its target.
fn interfere(world: &mut World, rng: &mut Rng, number: u64, defects: &mut Defects) {
    let what = rng.below(9);
    match what {
        5 | 6 => {
            let image = if rng.chance(0.7) { digest(2) } else { digest(1) };
            let _ = world.deploy(image, Color::Green, false);
            return;
        }
        7 => return accept(world, number, defects),
        8 => {
            let image = if rng.chance(0.7) { digest(2) } else { digest(1) };
            defects.changed_outside = true;
            return world.cluster.install(Color::Green, image);
        }
        _ => {}
    }
    let until = world.raw().clock.wall().after(Duration::from_secs(300));
    let _ = world.request(move |manager, request| {
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

/// Accepts the running digest, as a user would.
fn accept(world: &mut World, number: u64, defects: &mut Defects) {
    let Some(image) = running(world) else { return };
    let wanted = Resume { accept: Some(image), force: Force::Yes };
    let accepted = world.request(move |manager, request| {
        Box::pin(async move { manager.resume_on(&request, number, wanted).await })
    });
    if accepted.is_ok() {
        defects.requested.push(image);
    }
}

fn fault(rng: &mut Rng) -> (usize, Fault) {
    let kind = usize::try_from(rng.below(Fault::KINDS.len() as u64)).unwrap_or(0);
    (usize::try_from(rng.below(120)).unwrap_or(0), Fault::KINDS[kind])
}

/// Runs one seed, and returns the status of the rollout, or the problems.
fn run_seed(seed: u64) -> Result<RolloutStatus, String> {
    let mut rng = Rng::new(seed);
    let mut world = fleet(seed);
    let mut defects = add_defects(&world, &mut rng);
    let wanted = random_request(&mut rng);
    let request_body = wanted.clone();
    let accepted = world.request(move |manager, request| {
        let request_body = request_body.clone();
        Box::pin(async move { manager.rollout(&request, &request_body, None).await })
    });
    let Ok(Accepted::Rollout(number)) = accepted else { return Err(format!("{seed}: {accepted:?}")) };
    let faults: Vec<_> = (0..rng.below(3)).map(|_| fault(&mut rng)).collect();
    // A stale read of the probe may let a broken site pass.
    let stale = faults.iter().any(|(_, fault)| *fault == Fault::Stale);
    world.faults.arm(Plan(faults));
    for _ in 0..rng.below(6) {
        let _ = world.run_once();
        if rng.chance(0.4) {
            interfere(&mut world, &mut rng, number, &mut defects);
        }
    }
    world.run();
    world.heal();
    let resumed = world
        .request(move |manager, request| Box::pin(async move { manager.resume(&request, number).await }));
    drop(resumed);
    world.run();
    if rng.chance(0.5) {
        accept(&mut world, number, &mut defects);
        world.run();
    }
    let head = world.store.all_rollouts().into_iter().find(|rollout| rollout.number == number);
    let head = head.ok_or_else(|| format!("{seed}: the rollout is gone"))?;
    let mut problems = find_problems(&mut world, &head, &wanted, &defects);
    if !stale {
        problems.extend(unrequested_digests(&world, &head, &defects));
    }
    if problems.is_empty() {
        Ok(head.status)
    } else {
        Err(format!("{seed}: {:?} {problems:#?}", head.status))
    }
}

fn find_problems(world: &mut World, head: &Rollout, wanted: &RolloutSpec, defects: &Defects) -> Vec<String> {
    let mut problems: Vec<String> = world.violations().iter().map(ToString::to_string).collect();
    let pages = world.store.pages(head.number).into_iter();
    let members: Vec<RolloutMember> = pages.flat_map(|page| page.members).collect();
    let mut recount = Counts::default();
    members.iter().filter_map(|member| member.outcome).for_each(|outcome| recount.add(outcome));
    if recount != head.counts() {
        problems.push(format!("TotalsAgree: {recount:?} are not {:?}", head.counts()));
    }
    let sites = world.store.all_sites();
    for (n, (site, member)) in sites.iter().zip(&members).enumerate() {
        let routed = site.routed_service();
        let on_green = routed == Some(Color::Green);
        if site.operation.is_some() {
            problems.push(format!("{} is still claimed", site.id));
        }
        match member.outcome {
            // A site that is broken on green does not stay there if the gate could detect it.
            Some(MemberOutcome::Moved | MemberOutcome::InPlace)
                if member.digest.is_some_and(|on| defects.breaks(n, on)) =>
            {
                problems.push(format!("{} does not work and counts as moved", site.id));
            }
            Some(MemberOutcome::Moved) if !on_green => {
                problems.push(format!("{} moved and is on {routed:?}", site.id))
            }
            Some(MemberOutcome::Unhealthy | MemberOutcome::Returned | MemberOutcome::Failed) if on_green => {
                problems.push(format!("{} went back and is on green", site.id));
            }
            None if on_green => problems.push(format!("{} is on green without an outcome", site.id)),
            _ => {}
        }
    }
    let service = now(world.raw().store.service(Color::Green));
    let releases = service.map(|service| service.releases).unwrap_or_default();
    let Budget::Count(allowed) = wanted.budget else { return problems };
    let slow = members.iter().any(|member| member.why.as_ref().is_some_and(|why| why.contains("takes")));
    let expects_halt = |on: Digest| {
        let sites = defects.sites.iter().filter(|(_, image)| *image == on).count();
        defects.images.contains(&on) || sites > allowed as usize || slow
    };
    for release in releases.iter().filter(|release| release.verdict == Verdict::Bad) {
        if !expects_halt(release.digest) {
            problems.push(format!("{} is bad, although too few sites failed on it", release.digest));
        }
    }
    // Failures on one digest and on the next may add up.
    let expects_halt = defects.requested.len() > 1 || expects_halt(digest(1));
    let halted = head.reason.as_ref().is_some_and(|reason| reason.code == ReasonCode::BudgetExceeded);
    if halted && !expects_halt {
        problems.push("the rollout halted, although too few sites are broken".to_owned());
    }
    problems
}

/// Returns members that were moved on a digest that was never requested, or whose recorded digest differs from the
/// digest that they were moved on.
fn unrequested_digests(world: &World, head: &Rollout, defects: &Defects) -> Vec<String> {
    let mut problems = Vec::new();
    let mut runs = None;
    let mut moved = BTreeMap::new();
    for effect in world.log.since(0) {
        match effect.kind {
            EffectKind::ImageSet(Color::Green, _, image) => runs = image,
            EffectKind::RouteMoved(uid, from, Color::Green) if from != Color::Green => {
                moved.insert(uid, runs);
            }
            _ => {}
        }
    }
    for member in world.store.pages(head.number).into_iter().flat_map(|page| page.members) {
        let Some(on) = member.digest else { continue };
        if !defects.requested.contains(&on) {
            problems.push(format!("`{}` has an outcome on {on}, which was never requested", member.id));
        }
        let was = moved.get(&member.uid).copied().flatten();
        // A change outside the platform is not in the effect log.
        if member.outcome == Some(MemberOutcome::Moved)
            && was.is_some_and(|was| was != on)
            && !defects.changed_outside
        {
            problems.push(format!("`{}` was moved on {was:?}, and its page says {on}", member.id));
        }
    }
    problems
}

#[test]
fn gated_rollouts() {
    let runs = if full() { 20_000 } else { 1_000 };
    let first = seed() * 1_000_000;
    let seeds: Vec<u64> = (first..first + runs).collect();
    let ends = std::sync::Mutex::new(BTreeMap::<&'static str, u64>::new());
    let campaign = Campaign::new("gated-rollouts").over(&seeds, |seed| {
        let result =
            std::panic::catch_unwind(|| run_seed(*seed)).unwrap_or_else(|_| Err(format!("{seed}: panicked")));
        result.map(|status| *ends.lock().expect("a count").entry(status.as_str()).or_default() += 1)
    });
    let ends = ends.into_inner().expect("counts");
    campaign.end(&format!("seed {}, ended {ends:?}", seed()));
}
