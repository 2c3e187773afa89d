//! The commands of a sequence, and the random generation of sequences.

use std::time::Duration;

use cdm_core::domain::Color;
use cdm_core::domain::rollout::{Budget, HealthGate, RolloutKind, RolloutSpec, WaveTarget};
use cdm_core::domain::service::Verdict;
use cdm_core::manager::RolloutScope;
use cdm_testkit::faults::Fault;
use cdm_testkit::ids::Rng;
use cdm_testkit::world::Verb;

/// The ids of the sites; one is a prefix of another.
pub(crate) const SITES: [&str; 4] = ["a", "ab", "b", "c"];

/// An image whose pods crash.
pub(crate) const BROKEN: u8 = 4;
/// An image whose pods cannot be scheduled.
pub(crate) const UNSCHEDULABLE: u8 = 5;
/// Number of images.
const IMAGES: u64 = 6;

/// Number of commands in a sequence.
const LENGTH: usize = 30;
/// Maximum distance, in calls, of an injected fault.
const MAX_DISTANCE: u64 = 40;

/// The kinds of jobs.
pub(crate) const JOBS: [&str; 3] = ["install", "activate-theme", "flush-caches"];

/// One command. Operations and rollouts are counted back from the newest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Creates a site; the second index is the site whose hostnames are requested.
    Create(usize, usize),
    /// Requests an operation on a site.
    Site(usize, Verb),
    /// Selects the canary.
    Select(Color),
    /// Deploys an image.
    Deploy(u8, Color, AfterDeploy),
    /// Rolls a service back to its last healthy image.
    Rollback(Color),
    /// Sets a verdict, as an operator would.
    Mark(u8, Verdict),
    /// Starts a rollout.
    Rollout(RolloutSpec),
    /// Controls a rollout.
    RolloutControl(RolloutControl, usize),
    /// Cancels an operation.
    Cancel(usize),
    /// Retries an operation.
    Retry(usize),
    /// Repeats a request under the same key; counted back from the last request.
    Repeat(usize),
    /// Runs the worker for this number of turns.
    Turns(usize),
    /// Runs the workers until no work remains.
    Settle,
    /// Advances the clock without running a worker.
    Advance(Duration),
    /// The process dies between two calls.
    Crash,
    /// Injects a fault into one of the next calls.
    Inject(usize, Fault),
    /// The pods of a service fail.
    Break(Color),
    /// The pods of a service recover.
    Recover(Color),
    /// The cluster removes an ended job.
    Expire(usize),
    /// The next jobs of that kind fail.
    FailJobs(usize, usize),
}

/// What a deploy does once the image is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterDeploy {
    /// Flushes caches.
    Flush,
    /// Moves the sites to the service.
    Promote,
}

/// A control request for a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RolloutControl {
    Pause,
    Resume,
    /// Accepts the digest that its target runs.
    Accept,
    Abort,
    Retry,
}

impl Command {
    /// All kinds of commands.
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
        "recover",
        "expire",
        "fail-jobs",
    ];

    /// Returns the kind of the command; injected faults are counted by fault.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Create(..) => "create",
            Self::Site(_, Verb::Provision) => "provision",
            Self::Site(_, Verb::Upgrade) => "upgrade",
            Self::Site(_, Verb::Promote) => "promote",
            Self::Site(_, Verb::Terminate) => "terminate",
            Self::Select(_) => "select",
            Self::Deploy(_, _, AfterDeploy::Flush) => "deploy",
            Self::Deploy(_, _, AfterDeploy::Promote) => "deploy-promote",
            Self::Rollback(_) => "rollback",
            Self::Mark(..) => "mark",
            Self::Rollout(_) => "rollout",
            Self::RolloutControl(RolloutControl::Pause, _) => "pause",
            Self::RolloutControl(RolloutControl::Resume, _) => "resume",
            Self::RolloutControl(RolloutControl::Accept, _) => "accept",
            Self::RolloutControl(RolloutControl::Abort, _) => "abort",
            Self::RolloutControl(RolloutControl::Retry, _) => "retry-rollout",
            Self::Cancel(_) => "cancel",
            Self::Retry(_) => "retry",
            Self::Repeat(_) => "repeat",
            Self::Turns(_) => "turns",
            Self::Settle => "rest",
            Self::Advance(_) => "advance",
            Self::Crash => "crash",
            Self::Inject(..) => "inject",
            Self::Break(_) => "break",
            Self::Recover(_) => "recover",
            Self::Expire(_) => "expire",
            Self::FailJobs(..) => "fail-jobs",
        }
    }
}

/// Generates a random sequence. Half of the requests for sites are those that a user would make next.
pub(crate) fn generate(rng: &mut Rng) -> Vec<Command> {
    // The phase of each site if all requests had succeeded: absent, created, active.
    let mut phases = [0_u8; SITES.len()];
    let mut commands = Vec::new();
    // Some platforms are already in use.
    if rng.chance(0.7) {
        let sites = 1 + index(rng, SITES.len());
        commands.extend((0..sites).map(|site| Command::Create(site, site)));
        commands.push(Command::Settle);
        commands.extend((0..sites).map(|site| Command::Site(site, Verb::Provision)));
        commands.push(Command::Settle);
        phases[..sites].fill(2);
    }
    let length = commands.len() + LENGTH;
    while commands.len() < length {
        let command = match rng.below(100) {
            0..27 => {
                let site = index(rng, SITES.len());
                let sensible = rng.chance(0.7);
                let command =
                    if sensible { next_request(rng, site, phases[site]) } else { any_request(rng, site) };
                if sensible {
                    phases[site] = match &command {
                        Command::Create(..) => 1,
                        Command::Site(_, Verb::Terminate) => 0,
                        _ => 2,
                    };
                    commands.push(command);
                    if rng.chance(0.4) {
                        commands.push(Command::Settle);
                    }
                    continue;
                }
                command
            }
            27..32 => Command::Select(service(rng)),
            32..39 => {
                let then = if rng.chance(0.4) { AfterDeploy::Promote } else { AfterDeploy::Flush };
                Command::Deploy(image(rng), service(rng), then)
            }
            39..41 => Command::Rollback(service(rng)),
            41..44 => {
                let verdict = if rng.chance(0.7) { Verdict::Healthy } else { Verdict::Bad };
                Command::Mark(image(rng), verdict)
            }
            44..50 => Command::Rollout(rollout(rng)),
            50..56 => {
                let all = [
                    RolloutControl::Pause,
                    RolloutControl::Resume,
                    RolloutControl::Resume,
                    RolloutControl::Accept,
                    RolloutControl::Abort,
                    RolloutControl::Retry,
                ];
                Command::RolloutControl(all[index(rng, all.len())], index(rng, 3))
            }
            56..59 => Command::Cancel(index(rng, 4)),
            59..63 => Command::Retry(index(rng, 4)),
            63..66 => Command::Repeat(index(rng, 4)),
            66..73 => Command::Turns(1 + index(rng, 4)),
            73..82 => Command::Settle,
            82..84 => Command::Advance(Duration::from_secs(1 + rng.below(60))),
            84..87 => Command::Crash,
            87..94 => {
                let at = usize::try_from(rng.below(MAX_DISTANCE)).unwrap_or_default();
                Command::Inject(at, Fault::KINDS[index(rng, Fault::KINDS.len())])
            }
            94 => Command::Break(service(rng)),
            95..97 => Command::Recover(service(rng)),
            97 => Command::Expire(index(rng, 4)),
            _ => Command::FailJobs(index(rng, JOBS.len()), 1 + index(rng, 4)),
        };
        commands.push(command);
    }
    commands.truncate(length);
    commands
}

/// Returns the request that a user would make next for a site in that phase.
fn next_request(rng: &mut Rng, site: usize, phase: u8) -> Command {
    match (phase, rng.below(10)) {
        (0, _) => Command::Create(site, site),
        (1, 0) | (2.., 0..2) => Command::Site(site, Verb::Terminate),
        (1, _) => Command::Site(site, Verb::Provision),
        (_, 2..5) => Command::Site(site, Verb::Upgrade),
        (_, _) => Command::Site(site, Verb::Promote),
    }
}

fn any_request(rng: &mut Rng, site: usize) -> Command {
    match rng.below(6) {
        0 => Command::Create(site, index(rng, SITES.len())),
        1 => Command::Create(site, site),
        2 => Command::Site(site, Verb::Provision),
        3 => Command::Site(site, Verb::Upgrade),
        4 => Command::Site(site, Verb::Promote),
        _ => Command::Site(site, Verb::Terminate),
    }
}

fn rollout(rng: &mut Rng) -> RolloutSpec {
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
        // These waves are invalid.
        _ => vec![WaveTarget::Percent(100), WaveTarget::Count(1)],
    };
    let promote = rng.chance(0.6);
    let gate = (promote && rng.chance(0.4)).then(|| HealthGate::new("/").expect("a gate"));
    let bake = if rng.chance(0.2) { Duration::from_secs(90) } else { Duration::ZERO };
    RolloutSpec {
        kind: if promote { RolloutKind::Promote } else { RolloutKind::Upgrade },
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
