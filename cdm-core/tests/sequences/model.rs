//! The model of a sequence: which requests are rejected, and the state of each site when no work remains.
//!
//! The tables here are the model's own, written from the documentation for users. While work is in progress, only the
//! set of possible error codes is known; at rest there is exactly one code.

use std::collections::{BTreeMap, BTreeSet};

use cdm_core::domain::operation::{Operation, OperationParent, Position};
use cdm_core::domain::rollout::MemberOutcome;
use cdm_core::domain::service::Verdict;
use cdm_core::domain::{
    Color, Digest, OperationId, OperationInput, OperationKind, Phase, ReasonCode, Rollout, RolloutScope,
    RolloutStatus, Service, Site, SiteId, Status, Subject, TerminalStatus,
};
use cdm_core::manager::Manager;
use cdm_core::ports::Ports;
use cdm_testkit::log::EffectKind;
use cdm_testkit::world::{Verb, World, digest, now};

use super::commands::{AfterDeploy, Command, RolloutControl, SITES};
use super::run::TargetedRequest;

/// The code of an accepted request.
pub(crate) const ACCEPTED: &str = "accepted";

/// The known state of a platform.
#[derive(Debug)]
pub(crate) struct Model {
    /// The state of each site when the platform was last at rest.
    sites: BTreeMap<usize, ExpectedSite>,
    canary: Color,
    running: BTreeMap<Color, Digest>,
    pending: Vec<Pending>,
    /// The outcomes of the members of rollouts when the platform was last at rest.
    outcomes: BTreeMap<(u64, usize), Option<MemberOutcome>>,
}

/// The expected state of a site.
#[derive(Clone, Copy, Debug)]
struct ExpectedSite {
    phase: Phase,
    /// `None` if several operations changed it.
    placement: Option<Placement>,
    /// The site whose hostnames this site has.
    hosts: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Placement {
    service: Color,
    routed: Option<Color>,
}

/// An accepted operation that has not ended.
#[derive(Debug)]
struct Pending {
    id: OperationId,
    /// The canary at acceptance; `None` if a fault may have affected the read.
    canary: Option<Color>,
    /// The site whose hostnames a created site has.
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

    /// Records an accepted operation, or an earlier one that continues.
    pub(crate) fn accepted(&mut self, id: OperationId, canary: Option<Color>, hosts: usize) {
        if self.pending.iter().all(|pending| pending.id != id) {
            self.pending.push(Pending { id, canary, hosts });
        }
    }

    fn parked_on(&self, subject: &Subject) -> Option<&OperationId> {
        let parent = OperationParent::Subject(subject.clone());
        self.pending.iter().map(|pending| &pending.id).find(|id| id.parent == parent)
    }

    /// Returns the codes with which a request may be answered while other work is in progress.
    pub(crate) fn legal(targeted: &TargetedRequest) -> Vec<&'static str> {
        let codes: &[&str] = match &targeted.command {
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
            Command::RolloutControl(RolloutControl::Retry, _) => &[
                "not_found",
                "illegal_transition",
                "operation_in_flight",
                "rollout_in_flight",
                "bad_digest",
                "empty_plan",
            ],
            Command::RolloutControl(RolloutControl::Resume | RolloutControl::Accept, _) => {
                &["not_found", "illegal_transition", "digest_changed", "bad_digest"]
            }
            Command::RolloutControl(..) | Command::Cancel(_) => &["not_found", "illegal_transition"],
            Command::Retry(_) => {
                &["not_found", "illegal_transition", "operation_in_flight", "rollout_in_flight", "bad_digest"]
            }
            _ => &[],
        };
        codes.iter().copied().chain([ACCEPTED, "contended"]).collect()
    }

    /// Returns the codes with which a request may be answered at rest.
    pub(crate) fn expected_codes(
        &self,
        targeted: &TargetedRequest,
        world: &World,
        manager: &Manager,
    ) -> Vec<&'static str> {
        match &targeted.command {
            Command::Create(site, hosts) => {
                let taken = self.sites.values().any(|expected| expected.hosts == *hosts);
                vec![match (self.sites.contains_key(site), taken) {
                    (true, _) => "site_exists",
                    (false, true) => "hostname_taken",
                    (false, false) => ACCEPTED,
                }]
            }
            Command::Site(site, verb) => vec![self.site_code(*site, *verb, world)],
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
                let expected = services(world.raw())
                    .iter()
                    .any(|service| service.releases.iter().any(|release| release.digest == digest(*image)));
                vec![if expected { ACCEPTED } else { "not_found" }]
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
            Command::RolloutControl(control, _) => {
                let all = world.store.all_rollouts();
                let rollout = all.iter().find(|rollout| Some(rollout.number) == targeted.rollout);
                vec![rollout.map_or("not_found", |rollout| {
                    rollout_control_code(*control, rollout, targeted.image, world)
                })]
            }
            Command::Cancel(_) => match of(manager, targeted) {
                Some(at) => Self::cancel_codes(&at),
                None => vec!["not_found"],
            },
            Command::Retry(_) => vec![match of(manager, targeted) {
                Some(at) => self.retry_code(&at, world),
                None => "not_found",
            }],
            _ => Vec::new(),
        }
    }

    /// Returns the number of sites of a rollout; `None` if the scope names a site that does not exist.
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
                let expected = ids.iter().all(|id| there(id).is_some_and(|at| self.sites.contains_key(&at)));
                expected.then_some(ids.len())
            }
        }
    }

    fn site_code(&self, site: usize, verb: Verb, world: &World) -> &'static str {
        let Some(expected) = self.sites.get(&site) else { return "not_found" };
        let busy = self.parked_on(&subject(site)).is_some()
            || record(world, site).is_some_and(|site| site.operation.is_some());
        match (verb, expected.phase, busy) {
            (Verb::Terminate, _, _)
            | (Verb::Provision, Phase::Created, false)
            | (Verb::Upgrade | Verb::Promote, Phase::Active, false) => ACCEPTED,
            (_, _, true) => "operation_in_flight",
            (_, _, false) => "illegal_transition",
        }
    }

    /// A parked operation can be canceled, unless it cannot be undone.
    fn cancel_codes(at: &Operation) -> Vec<&'static str> {
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

    fn retry_code(&self, at: &Operation, world: &World) -> &'static str {
        let site = |verb| match &at.subject {
            Subject::Site(id) => SITES
                .iter()
                .position(|site| *site == id.as_str())
                .map(|site| self.site_code(site, verb, world)),
            Subject::Service(_) | Subject::Fleet => None,
        };
        let outcome = match (at.state.status, at.state.input.kind()) {
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
        outcome.unwrap_or("illegal_transition")
    }

    /// Applies the ended operations, and returns the differences from the expected state. Requires a platform at rest.
    pub(crate) fn check_at_rest(&mut self, world: &World, services: &Manager) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut touched = BTreeSet::new();
        for pending in std::mem::take(&mut self.pending) {
            let Ok(at) = now(services.operation(&pending.id)) else {
                wrong.push(format!("Journal: {} is not found", pending.id));
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
        self.apply_rollouts(world, &touched);
        wrong.extend(self.compare(world));
        wrong
    }

    /// Applies the end of a site's operation to the site.
    fn site_ended(&mut self, site: usize, pending: &Pending, at: &Operation) -> Option<String> {
        let Status::Ended(end) = at.state.status else {
            if at.state.input.kind() == OperationKind::Create {
                self.sites
                    .insert(site, ExpectedSite { phase: Phase::New, placement: None, hosts: pending.hosts });
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
                let placement = pending.canary.map(|service| Placement { service, routed: None });
                self.sites
                    .insert(site, ExpectedSite { phase: Phase::Created, placement, hosts: pending.hosts });
            }
            (OperationInput::Create, _) if displaced(at) => {
                self.sites
                    .insert(site, ExpectedSite { phase: Phase::New, placement: None, hosts: pending.hosts });
            }
            (OperationInput::Create, _) | (OperationInput::Terminate, TerminalStatus::Succeeded) => {
                self.sites.remove(&site);
            }
            (input, end) => {
                let Some(expected) = self.sites.get_mut(&site) else {
                    return Some(format!("Site: {} worked on a missing site", at.id));
                };
                match (input, end) {
                    (OperationInput::Provision(service), TerminalStatus::Succeeded) => {
                        expected.phase = Phase::Active;
                        expected.placement = Some(Placement { service: *service, routed: Some(*service) });
                    }
                    (OperationInput::Upgrade(course), TerminalStatus::Succeeded) => {
                        expected.placement =
                            expected.placement.map(|placement| Placement { service: course.to, ..placement });
                    }
                    (OperationInput::Promote(course), TerminalStatus::Succeeded) => {
                        expected.placement = Some(Placement { service: course.to, routed: Some(course.to) });
                    }
                    // A provision is not undone, and a displaced operation undoes nothing.
                    (OperationInput::Provision(_), _) => expected.placement = None,
                    _ if displaced(at) => expected.placement = None,
                    _ => {}
                }
            }
        }
        wrong
    }

    /// Applies the results of rollouts to their sites since the platform was last at rest.
    fn apply_rollouts(&mut self, world: &World, touched: &BTreeSet<usize>) {
        let mut moved = BTreeSet::new();
        for rollout in world.store.all_rollouts().into_iter().filter(|rollout| rollout.spec.kind.moves()) {
            for member in world.store.pages(rollout.number).into_iter().flat_map(|page| page.members) {
                let Some(site) = SITES.iter().position(|site| *site == member.id.as_str()) else { continue };
                let before = self.outcomes.insert((rollout.number, site), member.outcome).flatten();
                if before == member.outcome {
                    continue;
                }
                let first = moved.insert(site);
                let Some(expected) = self.sites.get_mut(&site) else { continue };
                let to = match (before, member.outcome) {
                    (None, Some(MemberOutcome::Moved | MemberOutcome::InPlace | MemberOutcome::Parked)) => {
                        rollout.target
                    }
                    (_, Some(MemberOutcome::Returned)) => rollout.target.other(),
                    _ => continue,
                };
                let promotes = rollout.spec.kind == cdm_core::domain::RolloutKind::Promote;
                expected.placement =
                    expected.placement.filter(|_| first && !touched.contains(&site)).map(|placement| {
                        Placement { service: to, routed: if promotes { Some(to) } else { placement.routed } }
                    });
            }
        }
    }

    /// Compares the expected state to the actual state; unknown parts are taken from the actual state.
    fn compare(&mut self, world: &World) -> Vec<String> {
        let mut wrong = Vec::new();
        for (index, id) in SITES.iter().enumerate() {
            let busy = self.parked_on(&subject(index)).is_some();
            match (self.sites.get_mut(&index), record(world, index)) {
                (None, None) => {}
                (None, Some(site)) => wrong.push(format!("Site: `{id}` is {}, not gone", site.state())),
                (Some(expected), None) => {
                    wrong.push(format!("Site: `{id}` is gone, not {:?}", expected.phase))
                }
                (Some(expected), Some(site)) => {
                    let actual = Placement { service: site.service, routed: site.routed_service() };
                    if expected.phase != site.phase {
                        wrong.push(format!("Site: `{id}` is {:?}, not {:?}", site.phase, expected.phase));
                    }
                    if busy || site.operation.is_some() {
                        continue;
                    }
                    if expected.placement.is_some_and(|placement| placement != actual) {
                        wrong.push(format!(
                            "Placement: `{id}` is at {actual:?}, not at {:?}",
                            expected.placement
                        ));
                    }
                    expected.placement = Some(actual);
                }
            }
        }
        if self.parked_on(&Subject::Fleet).is_none() {
            let actual = now(world.raw().cluster.canary()).ok().flatten().map_or(Color::Blue, |it| it.color);
            if actual != self.canary {
                wrong.push(format!("Canary: it is {actual}, not {}", self.canary));
            }
        }
        for record in services(world.raw()) {
            let free = self.parked_on(&Subject::Service(record.color)).is_none();
            let expected = self.running.get(&record.color).copied();
            if free && expected.is_some_and(|expected| record.running != Some(expected)) {
                wrong.push(format!("Image: {} runs {:?}, not {expected:?}", record.color, record.running));
            }
        }
        wrong
    }
}

/// Returns whether an operation was displaced and undid nothing.
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

/// Returns the code at rest. `image` is the running digest if the request accepts it.
fn rollout_control_code(
    control: RolloutControl,
    rollout: &Rollout,
    image: Option<Digest>,
    world: &World,
) -> &'static str {
    let ended = rollout.status.ended();
    let changed = rollout.reason.as_ref().is_some_and(|reason| reason.code == ReasonCode::DigestChanged);
    let waits = rollout.status == RolloutStatus::Waiting && changed;
    let stopped = matches!(rollout.status, RolloutStatus::Paused | RolloutStatus::Halted) || waits;
    let moves = rollout.moves_to_target();
    let running = now(world.raw().cluster.service(rollout.target)).ok().and_then(|view| view.digest);
    let other = moving(world).is_some();
    match control {
        RolloutControl::Accept if stopped && moves && image.is_some() => match image {
            Some(image) if rollout.wanted() != Some(image) && is_bad(image, world) => "bad_digest",
            _ => ACCEPTED,
        },
        RolloutControl::Accept if image.is_some() => "illegal_transition",
        RolloutControl::Resume | RolloutControl::Accept if stopped => {
            match rollout.wanted().filter(|_| moves) {
                Some(wanted) if Some(wanted) != running => "digest_changed",
                _ => ACCEPTED,
            }
        }
        RolloutControl::Abort if stopped => ACCEPTED,
        RolloutControl::Pause if waits => ACCEPTED,
        RolloutControl::Retry if ended && rollout.wanted().is_some_and(|wanted| is_bad(wanted, world)) => {
            "bad_digest"
        }
        RolloutControl::Retry if ended && all_settled(rollout, world) && !other => "empty_plan",
        RolloutControl::Retry if ended && other => "rollout_in_flight",
        RolloutControl::Retry if ended => ACCEPTED,
        RolloutControl::Pause
        | RolloutControl::Resume
        | RolloutControl::Accept
        | RolloutControl::Abort
        | RolloutControl::Retry => "illegal_transition",
    }
}

/// Returns whether every site of a rollout is where it was requested, or gone.
fn all_settled(rollout: &Rollout, world: &World) -> bool {
    let mut members = world.store.pages(rollout.number).into_iter().flat_map(|page| page.members);
    members.all(|member| {
        matches!(
            member.outcome,
            Some(MemberOutcome::Moved | MemberOutcome::InPlace | MemberOutcome::SkippedGone)
        )
    })
}

/// Returns the rollout that moves sites and has not ended.
fn moving(world: &World) -> Option<u64> {
    let all = world.store.all_rollouts();
    all.into_iter().find(|it| it.spec.kind.moves() && !it.status.ended()).map(|rollout| rollout.number)
}

/// Returns the digest that a rollback takes: the newest healthy one that does not run and that is not marked bad.
fn rollback(world: &World, color: Color) -> Option<Digest> {
    let set = world.log.since(0).into_iter().rev().find_map(|effect| match effect.kind {
        EffectKind::ImageSet(set, _, image) if set == color => Some(image),
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

fn of(services: &Manager, targeted: &TargetedRequest) -> Option<Operation> {
    now(services.operation(targeted.operation.as_ref()?)).ok()
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

/// Returns the site whose hostnames a command's site has.
pub(crate) const fn hosts_of(command: &Command) -> usize {
    match command {
        Command::Create(_, hosts) => *hosts,
        _ => 0,
    }
}

/// Returns whether a deploy of that command promotes sites.
pub(crate) const fn promotes(then: AfterDeploy) -> bool {
    matches!(then, AfterDeploy::Promote)
}
