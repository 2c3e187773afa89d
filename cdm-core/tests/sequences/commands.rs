//! What may happen to a platform, and how chance puts it in a row.

use std::time::Duration;

use cdm_core::domain::Color;
use cdm_core::domain::rollout::{Budget, HealthGate, WaveTarget};
use cdm_core::domain::service::Verdict;
use cdm_core::manager::{RolloutRequest, RolloutScope};
use cdm_testkit::faults::Fault;
use cdm_testkit::ids::Rng;
use cdm_testkit::world::Verb;

/// The sites that there may be; one's id begins with another's.
pub(crate) const SITES: [&str; 4] = ["a", "ab", "b", "c"];

/// An image whose pods crash.
pub(crate) const BROKEN: u8 = 4;
/// An image whose pods find no place.
pub(crate) const HOMELESS: u8 = 5;
/// How many images there are.
const IMAGES: u64 = 6;

/// How many commands a sequence has.
const LENGTH: usize = 30;
/// The latest of the next calls that a fault may happen to.
const NEAR: u64 = 40;

/// The kinds of jobs.
pub(crate) const JOBS: [&str; 3] = ["install", "activate-theme", "flush-caches"];

/// Something that happens. Operations and rollouts are counted back from the newest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// A site is asked for; the second is the one whose hostnames it wants.
    Create(usize, usize),
    /// Something is asked of a site.
    Site(usize, Verb),
    /// A service is to be the canary.
    Select(Color),
    /// An image is deployed, and its sites are routed there or not.
    Deploy(u8, Color, Then),
    /// The last image that was healthy is wanted back.
    Rollback(Color),
    /// A person's verdict.
    Mark(u8, Verdict),
    /// A rollout is started.
    Rollout(RolloutRequest),
    /// Something is asked of a rollout.
    Steer(Steer, usize),
    /// An operation is to stop.
    Cancel(usize),
    /// An operation is to be tried again.
    Retry(usize),
    /// A request once more, under the same key; counted back from the last.
    Repeat(usize),
    /// The worker takes so many turns, wherever that leaves its work.
    Turns(usize),
    /// The workers work until nobody has anything to do.
    Rest,
    /// Time passes in which nobody works.
    Advance(Duration),
    /// The process dies between two calls.
    Crash,
    /// A fault waits for that one of the next calls.
    Inject(usize, Fault),
    /// A service loses its pods.
    Break(Color),
    /// It has them back.
    Mend(Color),
    /// The cluster forgets a job that ended.
    Expire(usize),
    /// The next jobs of that kind fail.
    FailJobs(usize, usize),
}

/// What a deploy does once the image is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// It flushes caches.
    Flush,
    /// It routes the sites there.
    Promote,
}

/// What may be asked of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Steer {
    Pause,
    Resume,
    /// On the digest that its target runs.
    Accept,
    Abort,
    Retry,
}

impl Command {
    /// Every kind.
    pub(crate) const KINDS: [&str; 27] = [
        "create",
        "provision",
        "upgrade",
        "promote",
        "terminate",
        "select",
        "deploy",
        "deploy-promote",
        "rollback",
        "mark",
        "rollout",
        "pause",
        "resume",
        "accept",
        "abort",
        "retry-rollout",
        "cancel",
        "retry",
        "repeat",
        "turns",
        "rest",
        "advance",
        "crash",
        "break",
        "mend",
        "expire",
        "fail-jobs",
    ];

    /// Its kind; those of faults are counted by fault.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Create(..) => "create",
            Self::Site(_, Verb::Provision) => "provision",
            Self::Site(_, Verb::Upgrade) => "upgrade",
            Self::Site(_, Verb::Promote) => "promote",
            Self::Site(_, Verb::Terminate) => "terminate",
            Self::Select(_) => "select",
            Self::Deploy(_, _, Then::Flush) => "deploy",
            Self::Deploy(_, _, Then::Promote) => "deploy-promote",
            Self::Rollback(_) => "rollback",
            Self::Mark(..) => "mark",
            Self::Rollout(_) => "rollout",
            Self::Steer(Steer::Pause, _) => "pause",
            Self::Steer(Steer::Resume, _) => "resume",
            Self::Steer(Steer::Accept, _) => "accept",
            Self::Steer(Steer::Abort, _) => "abort",
            Self::Steer(Steer::Retry, _) => "retry-rollout",
            Self::Cancel(_) => "cancel",
            Self::Retry(_) => "retry",
            Self::Repeat(_) => "repeat",
            Self::Turns(_) => "turns",
            Self::Rest => "rest",
            Self::Advance(_) => "advance",
            Self::Crash => "crash",
            Self::Inject(..) => "inject",
            Self::Break(_) => "break",
            Self::Mend(_) => "mend",
            Self::Expire(_) => "expire",
            Self::FailJobs(..) => "fail-jobs",
        }
    }
}

/// A sequence by chance. Half of what is asked of sites is what a person would ask next.
pub(crate) fn draw(rng: &mut Rng) -> Vec<Command> {
    // How far each site would be, had everything gone well: absent, created, active.
    let mut guess = [0_u8; SITES.len()];
    let mut commands = Vec::new();
    // Some platforms are in use already.
    if rng.chance(0.7) {
        let sites = 1 + index(rng, SITES.len());
        commands.extend((0..sites).map(|site| Command::Create(site, site)));
        commands.push(Command::Rest);
        commands.extend((0..sites).map(|site| Command::Site(site, Verb::Provision)));
        commands.push(Command::Rest);
        guess[..sites].fill(2);
    }
    let length = commands.len() + LENGTH;
    while commands.len() < length {
        let command = match rng.below(100) {
            0..27 => {
                let site = index(rng, SITES.len());
                let sensible = rng.chance(0.7);
                let command = if sensible { ahead(rng, site, guess[site]) } else { anything(rng, site) };
                if sensible {
                    guess[site] = match &command {
                        Command::Create(..) => 1,
                        Command::Site(_, Verb::Terminate) => 0,
                        _ => 2,
                    };
                    commands.push(command);
                    if rng.chance(0.4) {
                        commands.push(Command::Rest);
                    }
                    continue;
                }
                command
            }
            27..32 => Command::Select(service(rng)),
            32..39 => {
                let then = if rng.chance(0.4) { Then::Promote } else { Then::Flush };
                Command::Deploy(image(rng), service(rng), then)
            }
            39..41 => Command::Rollback(service(rng)),
            41..44 => {
                let verdict = if rng.chance(0.7) { Verdict::Healthy } else { Verdict::Bad };
                Command::Mark(image(rng), verdict)
            }
            44..50 => Command::Rollout(rollout(rng)),
            50..56 => {
                let all =
                    [Steer::Pause, Steer::Resume, Steer::Resume, Steer::Accept, Steer::Abort, Steer::Retry];
                Command::Steer(all[index(rng, all.len())], index(rng, 3))
            }
            56..59 => Command::Cancel(index(rng, 4)),
            59..63 => Command::Retry(index(rng, 4)),
            63..66 => Command::Repeat(index(rng, 4)),
            66..73 => Command::Turns(1 + index(rng, 4)),
            73..82 => Command::Rest,
            82..84 => Command::Advance(Duration::from_secs(1 + rng.below(60))),
            84..87 => Command::Crash,
            87..94 => {
                let at = usize::try_from(rng.below(NEAR)).unwrap_or_default();
                Command::Inject(at, Fault::KINDS[index(rng, Fault::KINDS.len())])
            }
            94 => Command::Break(service(rng)),
            95..97 => Command::Mend(service(rng)),
            97 => Command::Expire(index(rng, 4)),
            _ => Command::FailJobs(index(rng, JOBS.len()), 1 + index(rng, 4)),
        };
        commands.push(command);
    }
    commands.truncate(length);
    commands
}

/// What a person would ask next of a site that is so far.
fn ahead(rng: &mut Rng, site: usize, far: u8) -> Command {
    match (far, rng.below(10)) {
        (0, _) => Command::Create(site, site),
        (1, 0) | (2.., 0..2) => Command::Site(site, Verb::Terminate),
        (1, _) => Command::Site(site, Verb::Provision),
        (_, 2..5) => Command::Site(site, Verb::Upgrade),
        (_, _) => Command::Site(site, Verb::Promote),
    }
}

fn anything(rng: &mut Rng, site: usize) -> Command {
    match rng.below(6) {
        0 => Command::Create(site, index(rng, SITES.len())),
        1 => Command::Create(site, site),
        2 => Command::Site(site, Verb::Provision),
        3 => Command::Site(site, Verb::Upgrade),
        4 => Command::Site(site, Verb::Promote),
        _ => Command::Site(site, Verb::Terminate),
    }
}

fn rollout(rng: &mut Rng) -> RolloutRequest {
    let scope = match rng.below(5) {
        0 => RolloutScope::Active,
        1 => RolloutScope::Inactive,
        2 => RolloutScope::Sites(vec![super::site_id(index(rng, SITES.len())), super::site_id(1)]),
        _ => RolloutScope::All,
    };
    let waves = match rng.below(5) {
        0 | 1 => Vec::new(),
        2 => vec![WaveTarget::Count(1), WaveTarget::Percent(100)],
        3 => vec![WaveTarget::Count(1), WaveTarget::Percent(50), WaveTarget::Percent(100)],
        // These do not make sense.
        _ => vec![WaveTarget::Percent(100), WaveTarget::Count(1)],
    };
    let promote = rng.chance(0.6);
    let gate = (promote && rng.chance(0.4)).then(|| HealthGate::new("/").expect("a gate"));
    let bake = if rng.chance(0.2) { Duration::from_secs(90) } else { Duration::ZERO };
    RolloutRequest {
        plan: None,
        promote,
        gate,
        bake,
        digest: rng.chance(0.25).then(|| cdm_testkit::world::digest(image(rng))),
        scope,
        waves,
        max_concurrent: 1 + u32::from(rng.chance(0.5)),
        budget: if rng.chance(0.7) { Budget::Count(0) } else { Budget::Percent(50) },
        auto_rollback: rng.chance(0.5),
    }
}

fn image(rng: &mut Rng) -> u8 {
    u8::try_from(rng.below(IMAGES)).unwrap_or_default()
}

fn service(rng: &mut Rng) -> Color {
    Color::ALL[index(rng, 2)]
}

fn index(rng: &mut Rng, len: usize) -> usize {
    usize::try_from(rng.below(len as u64)).unwrap_or_default()
}
