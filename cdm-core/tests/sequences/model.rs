//! What must come of a sequence: which requests are refused, and where each site is when everything rests.
//!
//! The tables here are the model's own, written from what users are told. While work is under way only the set of codes
//! that a request may be refused with is known; at rest there is one answer.

use std::collections::{BTreeMap, BTreeSet};

use cdm_core::domain::operation::{Operation, OperationParent, Position};
use cdm_core::domain::rollout::MemberOutcome;
use cdm_core::domain::service::Verdict;
use cdm_core::domain::{
    Color, Digest, Direction, OperationId, OperationInput, OperationKind, Phase, ReasonCode, Rollout,
    RolloutScope, RolloutStatus, Service, Site, SiteId, Status, Subject, TerminalStatus,
};
use cdm_core::manager::Manager;
use cdm_core::ports::Ports;
use cdm_testkit::log::What;
use cdm_testkit::world::{Verb, World, digest, now};

use super::commands::{Command, SITES, Steer, Then};
use super::play::Wish;

/// The answer to a request that is not refused.
pub(crate) const ACCEPTED: &str = "accepted";

/// What is known of a platform.
#[derive(Debug)]
pub(crate) struct Model {
    /// At the last rest.
    sites: BTreeMap<usize, Known>,
    canary: Color,
    running: BTreeMap<Color, Digest>,
    pending: Vec<Pending>,
    /// How the members of rollouts had come out at the last rest.
    outcomes: BTreeMap<(u64, usize), Option<MemberOutcome>>,
}

/// A site as it must be.
#[derive(Clone, Copy, Debug)]
struct Known {
    phase: Phase,
    /// `None` where several had a hand in it.
    place: Option<Place>,
    /// The one whose hostnames it has.
    hosts: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    service: Color,
    routed: Option<Color>,
}

/// An operation that was accepted, until it has ended.
#[derive(Debug)]
struct Pending {
    id: OperationId,
    /// The canary when it was accepted, where nothing disturbed the look at it.
    canary: Option<Color>,
    /// The one whose hostnames a created site has.
    hosts: usize,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            sites: BTreeMap::new(),
            canary: Color::Blue,
            running: BTreeMap::new(),
            pending: Vec::new(),
            outcomes: BTreeMap::new(),
        }
    }

    /// An operation was accepted, or an earlier one goes on.
    pub(crate) fn accepted(&mut self, id: OperationId, canary: Option<Color>, hosts: usize) {
        if self.pending.iter().all(|pending| pending.id != id) {
            self.pending.push(Pending { id, canary, hosts });
        }
    }

    fn parked_on(&self, subject: &Subject) -> Option<&OperationId> {
        let parent = OperationParent::Subject(subject.clone());
        self.pending.iter().map(|pending| &pending.id).find(|id| id.parent == parent)
    }

    /// The codes that a request may be answered with while others are at work.
    pub(crate) fn legal(wish: &Wish) -> Vec<&'static str> {
        let codes: &[&str] = match &wish.command {
            Command::Create(..) => &["site_exists", "hostname_taken"],
            Command::Site(..) => {
                &["not_found", "illegal_transition", "operation_in_flight", "rollout_in_flight"]
            }
            Command::Select(_) => &["operation_in_flight"],
            Command::Deploy(..) => &["operation_in_flight", "rollout_in_flight"],
            Command::Rollback(_) => &["operation_in_flight", "rollout_in_flight", "no_healthy_digest"],
            Command::Mark(..) => &["not_found"],
            Command::Rollout(_) => {
                &["operation_in_flight", "rollout_in_flight", "invalid", "unknown_sites", "empty_plan"]
            }
            Command::Steer(Steer::Retry, _) => &[
                "not_found",
                "illegal_transition",
                "operation_in_flight",
                "rollout_in_flight",
                "bad_digest",
                "empty_plan",
            ],
            Command::Steer(Steer::Resume | Steer::Accept, _) => {
                &["not_found", "illegal_transition", "digest_changed", "bad_digest"]
            }
            Command::Steer(..) | Command::Cancel(_) => &["not_found", "illegal_transition"],
            Command::Retry(_) => {
                &["not_found", "illegal_transition", "operation_in_flight", "rollout_in_flight", "bad_digest"]
            }
            _ => &[],
        };
        codes.iter().copied().chain([ACCEPTED, "contended"]).collect()
    }

    /// The codes that a request may be answered with at rest.
    pub(crate) fn answer(&self, wish: &Wish, world: &World, manager: &Manager) -> Vec<&'static str> {
        match &wish.command {
            Command::Create(site, hosts) => {
                let taken = self.sites.values().any(|known| known.hosts == *hosts);
                vec![match (self.sites.contains_key(site), taken) {
                    (true, _) => "site_exists",
                    (false, true) => "hostname_taken",
                    (false, false) => ACCEPTED,
                }]
            }
            Command::Site(site, verb) => vec![self.site_answer(*site, *verb, world)],
            Command::Select(color) => {
                let at_work = self.parked_on(&Subject::Fleet);
                let same = at_work.is_none_or(|id| {
                    now(manager.operation(id))
                        .is_ok_and(|it| it.state.input == OperationInput::Select(*color))
                });
                vec![if same { ACCEPTED } else { "operation_in_flight" }]
            }
            Command::Deploy(..) => vec![ACCEPTED],
            Command::Rollback(color) => {
                let wanted = rollback(world, *color).is_some();
                vec![if wanted { ACCEPTED } else { "no_healthy_digest" }]
            }
            Command::Mark(image, _) => {
                let known = services(world.raw())
                    .iter()
                    .any(|service| service.releases.iter().any(|release| release.digest == digest(*image)));
                vec![if known { ACCEPTED } else { "not_found" }]
            }
            Command::Rollout(wanted) => {
                let sound = wanted.waves.last().is_none_or(|last| last.end(100) == 100);
                vec![match (self.in_scope(&wanted.scope, world), moving(world).is_some(), sound) {
                    (None, ..) => "unknown_sites",
                    (_, true, _) => "rollout_in_flight",
                    (Some(0), ..) => "empty_plan",
                    (_, _, false) => "invalid",
                    (_, _, true) => ACCEPTED,
                }]
            }
            Command::Steer(steer, _) => {
                let all = world.store.all_rollouts();
                let rollout = all.iter().find(|rollout| Some(rollout.number) == wish.rollout);
                vec![rollout.map_or("not_found", |rollout| steer_answer(*steer, rollout, wish.image, world))]
            }
            Command::Cancel(_) => match of(manager, wish) {
                Some(at) => Self::cancel_answer(&at),
                None => vec!["not_found"],
            },
            Command::Retry(_) => vec![match of(manager, wish) {
                Some(at) => self.retry_answer(&at, world),
                None => "not_found",
            }],
            _ => Vec::new(),
        }
    }

    /// How many sites a rollout would have; `None` where it names one that is not there.
    fn in_scope(&self, scope: &RolloutScope, world: &World) -> Option<usize> {
        let on = |color: Color| {
            let sites = world.store.all_sites().into_iter();
            sites.filter(|site| site.phase == Phase::Active && site.service == color).count()
        };
        let there = |id: &SiteId| SITES.iter().position(|site| *site == id.as_str());
        match scope {
            RolloutScope::Active => Some(on(self.canary)),
            RolloutScope::Inactive => Some(on(self.canary.other())),
            RolloutScope::All => Some(on(Color::Blue) + on(Color::Green)),
            RolloutScope::Service(color) => Some(on(*color)),
            RolloutScope::Sites(ids) => {
                let known = ids.iter().all(|id| there(id).is_some_and(|at| self.sites.contains_key(&at)));
                known.then_some(ids.len())
            }
        }
    }

    fn site_answer(&self, site: usize, verb: Verb, world: &World) -> &'static str {
        let Some(known) = self.sites.get(&site) else { return "not_found" };
        let busy = self.parked_on(&subject(site)).is_some()
            || record(world, site).is_some_and(|site| site.operation.is_some());
        match (verb, known.phase, busy) {
            (Verb::Terminate, _, _)
            | (Verb::Provision, Phase::Created, false)
            | (Verb::Upgrade | Verb::Promote, Phase::Active, false) => ACCEPTED,
            (_, _, true) => "operation_in_flight",
            (_, _, false) => "illegal_transition",
        }
    }

    /// An operation that waits for a person may be stopped, but for those that cannot be taken back.
    fn cancel_answer(at: &Operation) -> Vec<&'static str> {
        if at.state.status != Status::Parked {
            return vec!["illegal_transition"];
        }
        let early = !matches!(at.state.position, Position::Forward(2..));
        vec![match at.state.input.kind() {
            OperationKind::Create
            | OperationKind::Provision
            | OperationKind::Upgrade
            | OperationKind::Promote => ACCEPTED,
            OperationKind::Deploy if early => ACCEPTED,
            OperationKind::Deploy | OperationKind::Terminate | OperationKind::Select => "illegal_transition",
        }]
    }

    fn retry_answer(&self, at: &Operation, world: &World) -> &'static str {
        let site = |verb| match &at.subject {
            Subject::Site(id) => SITES
                .iter()
                .position(|site| *site == id.as_str())
                .map(|site| self.site_answer(site, verb, world)),
            Subject::Service(_) | Subject::Fleet => None,
        };
        let answer = match (at.state.status, at.state.input.kind()) {
            (Status::Ended(TerminalStatus::Failed | TerminalStatus::Cancelled), OperationKind::Deploy)
                if deploys_bad(at, world) =>
            {
                Some("bad_digest")
            }
            (Status::Parked, _)
            | (Status::Ended(TerminalStatus::Failed | TerminalStatus::Cancelled), OperationKind::Deploy) => {
                Some(ACCEPTED)
            }
            (Status::Ended(TerminalStatus::Failed | TerminalStatus::Cancelled), OperationKind::Provision) => {
                site(Verb::Provision)
            }
            (Status::Ended(TerminalStatus::Failed | TerminalStatus::Cancelled), OperationKind::Upgrade) => {
                site(Verb::Upgrade)
            }
            (Status::Ended(TerminalStatus::Failed | TerminalStatus::Cancelled), OperationKind::Promote) => {
                site(Verb::Promote)
            }
            (Status::Ended(TerminalStatus::Failed | TerminalStatus::Cancelled), OperationKind::Terminate) => {
                site(Verb::Terminate)
            }
            (_, _) => None,
        };
        answer.unwrap_or("illegal_transition")
    }

    /// Takes in what has come to an end, and answers what is not as it must be. For a world at rest.
    pub(crate) fn rest(&mut self, world: &World, services: &Manager) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut touched = BTreeSet::new();
        for pending in std::mem::take(&mut self.pending) {
            let Ok(at) = now(services.operation(&pending.id)) else {
                wrong.push(format!("Journal: {} is not to be found", pending.id));
                continue;
            };
            if let Subject::Site(id) = &at.subject
                && let Some(site) = SITES.iter().position(|site| *site == id.as_str())
            {
                touched.insert(site);
                wrong.extend(self.site_ended(site, &pending, &at));
            }
            match (&at.state.input, at.state.status) {
                (OperationInput::Select(color), Status::Ended(TerminalStatus::Succeeded)) => {
                    self.canary = *color
                }
                (OperationInput::Deploy(deploy), Status::Ended(TerminalStatus::Succeeded)) => {
                    self.running.insert(deploy.color, deploy.digest);
                }
                (OperationInput::Deploy(deploy), Status::Ended(_)) if displaced(&at) => {
                    self.running.remove(&deploy.color);
                }
                (_, Status::Parked) => self.pending.push(pending),
                (_, Status::Ended(_)) => {}
                (_, status) => wrong.push(format!("Rest: {} is {status} at rest", pending.id)),
            }
        }
        self.rolled(world, &touched);
        wrong.extend(self.compare(world));
        wrong
    }

    /// What the end of a site's operation makes of the site.
    fn site_ended(&mut self, site: usize, pending: &Pending, at: &Operation) -> Option<String> {
        let Status::Ended(end) = at.state.status else {
            if at.state.input.kind() == OperationKind::Create {
                self.sites.insert(site, Known { phase: Phase::New, place: None, hosts: pending.hosts });
            }
            return None;
        };
        let mut wrong = None;
        if let (OperationInput::Upgrade(course) | OperationInput::Promote(course), Some(canary)) =
            (&at.state.input, pending.canary)
            && course.to != canary
        {
            wrong = Some(format!("Canary: {} goes to {}, the canary was {canary}", at.id, course.to));
        }
        match (&at.state.input, end) {
            (OperationInput::Create, TerminalStatus::Succeeded) => {
                let place = pending.canary.map(|service| Place { service, routed: None });
                self.sites.insert(site, Known { phase: Phase::Created, place, hosts: pending.hosts });
            }
            (OperationInput::Create, _) if displaced(at) => {
                self.sites.insert(site, Known { phase: Phase::New, place: None, hosts: pending.hosts });
            }
            (OperationInput::Create, _) | (OperationInput::Terminate, TerminalStatus::Succeeded) => {
                self.sites.remove(&site);
            }
            (input, end) => {
                let Some(known) = self.sites.get_mut(&site) else {
                    return Some(format!("Site: {} worked on no site", at.id));
                };
                match (input, end) {
                    (OperationInput::Provision(service), TerminalStatus::Succeeded) => {
                        known.phase = Phase::Active;
                        known.place = Some(Place { service: *service, routed: Some(*service) });
                    }
                    (OperationInput::Upgrade(course), TerminalStatus::Succeeded) => {
                        known.place = known.place.map(|place| Place { service: course.to, ..place });
                    }
                    (OperationInput::Promote(course), TerminalStatus::Succeeded) => {
                        known.place = Some(Place { service: course.to, routed: Some(course.to) });
                    }
                    // What a provision did is not undone, and a displaced operation undoes nothing.
                    (OperationInput::Provision(_), _) => known.place = None,
                    _ if displaced(at) => known.place = None,
                    _ => {}
                }
            }
        }
        wrong
    }

    /// What rollouts made of their sites since the last rest.
    fn rolled(&mut self, world: &World, touched: &BTreeSet<usize>) {
        let mut moved = BTreeSet::new();
        for rollout in world.store.all_rollouts().into_iter().filter(|rollout| rollout.kind.moves()) {
            for member in world.store.pages(rollout.number).into_iter().flat_map(|page| page.members) {
                let Some(site) = SITES.iter().position(|site| *site == member.id.as_str()) else { continue };
                let before = self.outcomes.insert((rollout.number, site), member.outcome).flatten();
                if before == member.outcome {
                    continue;
                }
                let first = moved.insert(site);
                let Some(known) = self.sites.get_mut(&site) else { continue };
                let to = match (before, member.outcome) {
                    (None, Some(MemberOutcome::Moved | MemberOutcome::InPlace | MemberOutcome::Parked)) => {
                        rollout.target
                    }
                    (_, Some(MemberOutcome::Returned)) => rollout.target.other(),
                    _ => continue,
                };
                let promotes = rollout.kind == cdm_core::domain::RolloutKind::Promote;
                known.place = known.place.filter(|_| first && !touched.contains(&site)).map(|place| Place {
                    service: to,
                    routed: if promotes { Some(to) } else { place.routed },
                });
            }
        }
    }

    /// Compares what must be with what is; what is not known is learnt.
    fn compare(&mut self, world: &World) -> Vec<String> {
        let mut wrong = Vec::new();
        for (index, id) in SITES.iter().enumerate() {
            let busy = self.parked_on(&subject(index)).is_some();
            match (self.sites.get_mut(&index), record(world, index)) {
                (None, None) => {}
                (None, Some(site)) => wrong.push(format!("Site: `{id}` is {}, not gone", site.state())),
                (Some(known), None) => wrong.push(format!("Site: `{id}` is gone, not {:?}", known.phase)),
                (Some(known), Some(site)) => {
                    let is = Place { service: site.service, routed: site.routed_service() };
                    if known.phase != site.phase {
                        wrong.push(format!("Site: `{id}` is {:?}, not {:?}", site.phase, known.phase));
                    }
                    if busy || site.operation.is_some() {
                        continue;
                    }
                    if known.place.is_some_and(|place| place != is) {
                        wrong.push(format!("Place: `{id}` is at {is:?}, not at {:?}", known.place));
                    }
                    known.place = Some(is);
                }
            }
        }
        if self.parked_on(&Subject::Fleet).is_none() {
            let is = now(world.raw().cluster.canary()).ok().flatten().map_or(Color::Blue, |it| it.color);
            if is != self.canary {
                wrong.push(format!("Canary: it is {is}, not {}", self.canary));
            }
        }
        for record in services(world.raw()) {
            let free = self.parked_on(&Subject::Service(record.color)).is_none();
            let known = self.running.get(&record.color).copied();
            if free && known.is_some_and(|known| record.running != Some(known)) {
                wrong.push(format!("Image: {} runs {:?}, not {known:?}", record.color, record.running));
            }
        }
        wrong
    }
}

/// Whether an operation gave way to another one, and undid nothing.
fn displaced(at: &Operation) -> bool {
    let begun = at.state.attempts > 0 || at.state.position != Position::Forward(0);
    at.state.status == Status::Ended(TerminalStatus::Cancelled)
        && begun
        && (matches!(at.state.position, Position::Forward(_)) || at.state.reason.is_some())
}

fn deploys_bad(at: &Operation, world: &World) -> bool {
    matches!(&at.state.input, OperationInput::Deploy(deploy) if is_bad(deploy.digest, world))
}

fn is_bad(image: Digest, world: &World) -> bool {
    let all = services(world.raw());
    all.iter().flat_map(|it| &it.releases).any(|it| it.digest == image && it.verdict == Verdict::Bad)
}

/// At rest. `image` is the digest that runs, where somebody accepts that.
fn steer_answer(steer: Steer, rollout: &Rollout, image: Option<Digest>, world: &World) -> &'static str {
    let ended = rollout.status.ended();
    let changed = rollout.reason.as_ref().is_some_and(|reason| reason.code == ReasonCode::DigestChanged);
    let waits = rollout.status == RolloutStatus::Waiting && changed;
    let stands = matches!(rollout.status, RolloutStatus::Paused | RolloutStatus::Halted) || waits;
    let moves = rollout.kind.moves() && rollout.direction == Direction::Forward && rollout.after.is_none();
    let running = now(world.raw().cluster.service(rollout.target)).ok().and_then(|view| view.digest);
    let other = moving(world).is_some();
    match steer {
        Steer::Accept if stands && moves && image.is_some() => match image {
            Some(image) if rollout.wanted() != Some(image) && is_bad(image, world) => "bad_digest",
            _ => ACCEPTED,
        },
        Steer::Accept if image.is_some() => "illegal_transition",
        Steer::Resume | Steer::Accept if stands => match rollout.wanted().filter(|_| moves) {
            Some(wanted) if Some(wanted) != running => "digest_changed",
            _ => ACCEPTED,
        },
        Steer::Abort if stands => ACCEPTED,
        Steer::Pause if waits => ACCEPTED,
        Steer::Retry if ended && rollout.wanted().is_some_and(|wanted| is_bad(wanted, world)) => "bad_digest",
        Steer::Retry if ended && nothing_left(rollout, world) && !other => "empty_plan",
        Steer::Retry if ended && other => "rollout_in_flight",
        Steer::Retry if ended => ACCEPTED,
        Steer::Pause | Steer::Resume | Steer::Accept | Steer::Abort | Steer::Retry => "illegal_transition",
    }
}

/// Whether every site of a rollout is where it was wanted, or gone.
fn nothing_left(rollout: &Rollout, world: &World) -> bool {
    let mut members = world.store.pages(rollout.number).into_iter().flat_map(|page| page.members);
    members.all(|member| {
        matches!(
            member.outcome,
            Some(MemberOutcome::Moved | MemberOutcome::InPlace | MemberOutcome::SkippedGone)
        )
    })
}

/// The rollout that moves sites and has not ended.
fn moving(world: &World) -> Option<u64> {
    let all = world.store.all_rollouts();
    all.into_iter().find(|it| it.kind.moves() && !it.status.ended()).map(|rollout| rollout.number)
}

/// The digest that a rollback takes: the newest healthy one that does not run and that nobody calls bad.
fn rollback(world: &World, color: Color) -> Option<Digest> {
    let set = world.log.since(0).into_iter().rev().find_map(|effect| match effect.what {
        What::ImageSet(set, _, image) if set == color => Some(image),
        _ => None,
    });
    let running = set.unwrap_or(Some(digest(0)));
    let own = now(world.raw().store.service(color)).ok()?;
    let other = now(world.raw().store.service(color.other())).ok()?;
    let all: Vec<_> = own.releases.iter().chain(&other.releases).collect();
    let against = |verdict| matches!(verdict, Verdict::Bad | Verdict::RolledBack);
    let bad = |image| all.iter().any(|it| it.digest == image && against(it.verdict));
    let healthy = all.iter().filter(|it| it.verdict == Verdict::Healthy).map(|it| it.digest);
    healthy.into_iter().find(|image| Some(*image) != running && !bad(*image))
}

fn of(services: &Manager, wish: &Wish) -> Option<Operation> {
    now(services.operation(wish.operation.as_ref()?)).ok()
}

fn services(ports: &Ports) -> Vec<Service> {
    Color::ALL.into_iter().filter_map(|color| now(ports.store.service(color)).ok()).collect()
}

fn record(world: &World, site: usize) -> Option<Site> {
    world.store.all_sites().into_iter().find(|found| found.id.as_str() == SITES[site])
}

fn subject(site: usize) -> Subject {
    Subject::Site(super::site_id(site))
}

/// The hostnames' owner of what a command creates.
pub(crate) const fn hosts_of(command: &Command) -> usize {
    match command {
        Command::Create(_, hosts) => *hosts,
        _ => 0,
    }
}

/// Whether a deploy of that command promotes.
pub(crate) const fn promotes(then: Then) -> bool {
    matches!(then, Then::Promote)
}
