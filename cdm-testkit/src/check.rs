//! Invariants that hold after every effect, checked over the effect log as it grows.
//!
//! Each invariant has a name, and each [`Violation`] states it. A campaign that finds a violation fails.
//! Invariants that hold only when the platform is quiescent are in [`crate::world`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use cdm_core::domain::lifecycle::{Event, Life, Phase};
use cdm_core::domain::operation::{Event as Of, OperationState, Position, Status};
use cdm_core::domain::site::Activation;
use cdm_core::domain::{
    Color, Fence, Fleet, Hostname, JobName, OperationKind, Rollout, SecretKind, SecretName, Service, Site,
    SiteId, TerminalStatus, Uid,
};

use cdm_core::ports::Clock;

use crate::clock::SimClock;
use crate::log::{Effect, EffectKind, EffectLog};
use crate::progress::Progress;

/// A violated invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Name of the invariant, such as `CreateOnce`.
    pub invariant: &'static str,
    /// What violated the invariant, for a person to read.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.detail)
    }
}

/// Checks an effect log as it grows. Clones share their findings.
#[derive(Clone, Debug)]
pub struct Checker(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    log: EffectLog,
    clock: SimClock,
    progress: Progress,
    read: usize,
    found: Vec<Violation>,
    sites: BTreeMap<SiteId, Arc<Site>>,
    ids: BTreeMap<Uid, SiteId>,
    services: BTreeMap<Color, Arc<Service>>,
    fleet: Arc<Fleet>,
    rollouts: BTreeMap<u64, Arc<Rollout>>,
    last_ready: BTreeMap<Color, bool>,
    released: BTreeSet<Uid>,
    secrets: BTreeSet<SecretName>,
    secrets_ever: BTreeSet<SecretName>,
    databases: BTreeSet<Uid>,
    routes: BTreeMap<Uid, Color>,
    jobs: BTreeSet<JobName>,
    steps_with_job: BTreeMap<(u64, usize, u32, &'static str), u32>,
    /// Sites that existed before the test and must not change.
    bystanders: BTreeSet<SiteId>,
}

impl Checker {
    /// Creates a checker of `log`, starting at its first effect. `clock` is the clock that times the effects.
    pub fn new(log: EffectLog, clock: SimClock) -> Self {
        Self(Arc::new(Mutex::new(State {
            log,
            clock,
            progress: Progress::default(),
            read: 0,
            found: Vec::new(),
            sites: BTreeMap::new(),
            ids: BTreeMap::new(),
            services: BTreeMap::new(),
            fleet: Arc::default(),
            rollouts: BTreeMap::new(),
            last_ready: BTreeMap::new(),
            released: BTreeSet::new(),
            secrets: BTreeSet::new(),
            secrets_ever: BTreeSet::new(),
            databases: BTreeSet::new(),
            routes: BTreeMap::new(),
            jobs: BTreeSet::new(),
            steps_with_job: BTreeMap::new(),
            bystanders: BTreeSet::new(),
        })))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes any later change of this site a violation.
    pub fn forbid_changes(&self, id: &SiteId) {
        self.state().bystanders.insert(id.clone());
    }

    /// Checks the effects appended since the last check.
    pub fn check(&self) {
        let mut state = self.state();
        let effects = state.log.since(state.read);
        state.read += effects.len();
        for effect in &effects {
            state.effect(effect);
        }
    }

    /// Checks the effects appended since the last check, and counts a port call.
    pub fn after_call(&self) {
        self.check();
        let mut state = self.state();
        let now = state.clock.monotonic();
        if let Some(detail) = state.progress.record_call(now) {
            state.report("BoundedCalls", detail);
        }
    }

    /// Returns the violations found so far.
    pub fn violations(&self) -> Vec<Violation> {
        self.check();
        self.state().found.clone()
    }
}

impl State {
    fn report(&mut self, invariant: &'static str, detail: String) {
        self.found.push(Violation { invariant, detail });
    }

    fn effect(&mut self, effect: &Effect) {
        let by = effect.by;
        self.bounded(effect);
        match &effect.kind {
            EffectKind::Site(before, after) => self.site(before.as_ref(), after.as_ref()),
            EffectKind::Service(service) => {
                let before = self.services.insert(service.color, Arc::clone(service));
                let before = before.and_then(|before| before.operation.clone());
                self.check_transition(before.as_ref(), service.operation.as_ref());
            }
            EffectKind::Fleet(fleet) => {
                let before = std::mem::replace(&mut self.fleet, Arc::clone(fleet));
                self.check_transition(before.operation.as_ref(), fleet.operation.as_ref());
            }
            EffectKind::Rollout(rollout) => self.rollout(rollout),
            EffectKind::Ended(_) | EffectKind::Rejected(_) => {}
            EffectKind::ServiceRead(color, ready) => {
                self.last_ready.insert(*color, *ready);
            }
            // No operation creates a webhook's key: the record is stored first, and `NoOrphans` checks the keys
            // when the platform is quiescent.
            EffectKind::SecretCreated(name) | EffectKind::SecretDeleted(name)
                if matches!(name.kind, SecretKind::Webhook | SecretKind::Sealing) => {}
            EffectKind::SecretCreated(name) => {
                self.intended(by, name.uid, &["CreateSecrets"], effect);
                if !self.secrets_ever.insert(*name) {
                    self.report("CreateOnce", format!("the secret {name} was created again"));
                }
                self.secrets.insert(*name);
            }
            EffectKind::SecretDeleted(name) => {
                self.intended(by, name.uid, &["DeleteSecrets"], effect);
                self.destroys_last(name.uid, effect);
                self.secrets.remove(name);
            }
            EffectKind::MarkerPut(uid) => self.intended(by, *uid, &["CreateObjects"], effect),
            EffectKind::ObjectDeleted(uid, _) => {
                self.intended(by, *uid, &["DeleteObjects"], effect);
                self.destroys_last(*uid, effect);
            }
            EffectKind::DatabaseEnsured { uid, created } => {
                // Setting an existing database to the same state again has no visible effect.
                if *created {
                    self.intended(by, *uid, &["CreateDatabase"], effect);
                }
                if *created && !self.databases.insert(*uid) {
                    self.report("CreateOnce", format!("the database of {uid} was created twice"));
                }
            }
            EffectKind::DatabaseRenewed(uid) => {
                self.intended(by, *uid, &["Install"], effect);
                self.keeps_work(*uid, effect);
            }
            EffectKind::DatabaseDropped(uid) => {
                self.intended(by, *uid, &["DropDatabase"], effect);
                self.destroys_last(*uid, effect);
                self.databases.remove(uid);
            }
            EffectKind::CanarySet(..) => {
                if self.operation(by).is_none() {
                    self.report("JournalFirst", format!("{effect:?} by no operation"));
                }
            }
            EffectKind::ImageSet(color, ..) => self.image_set(by, *color, effect),
            EffectKind::RouteCreated(uid, to) => {
                self.intended(by, *uid, &["Ingress"], effect);
                self.route_ready(*to, effect);
                if self.routes.insert(*uid, *to).is_some() {
                    self.report("CreateOnce", format!("a second route of {uid}"));
                }
            }
            EffectKind::RouteMoved(uid, from, to) => {
                self.intended(by, *uid, &["Ingress", "PatchIngress"], effect);
                self.owned(by, effect);
                if from != to {
                    self.route_ready(*to, effect);
                }
                self.routes.insert(*uid, *to);
            }
            EffectKind::Released(uid, _) => {
                self.intended(by, *uid, &["RemoveIngress"], effect);
                self.released.insert(*uid);
                self.routes.remove(uid);
            }
            EffectKind::JobStarted(name, uid, word) => self.job(by, name, *uid, word, effect),
        }
    }

    /// `BoundedWrites`: a record is not written repeatedly while its operation waits.
    fn bounded(&mut self, effect: &Effect) {
        let wrong = match &effect.kind {
            EffectKind::Site(_, Some(site)) if site.operation.is_some() => {
                site.operation.as_ref().and_then(|operation| self.progress.operation(operation, effect.at))
            }
            EffectKind::Service(service) => {
                // The record of a service is also written for the locks of other operations.
                let before = self.services.get(&service.color).and_then(|before| before.operation.clone());
                let operation =
                    service.operation.as_ref().filter(|operation| before.as_ref() != Some(operation));
                operation.and_then(|operation| self.progress.operation(operation, effect.at))
            }
            EffectKind::Fleet(fleet) => {
                let before = self.fleet.operation.clone();
                let operation =
                    fleet.operation.as_ref().filter(|operation| before.as_ref() != Some(operation));
                operation.and_then(|operation| self.progress.operation(operation, effect.at))
            }
            EffectKind::Rollout(rollout) => self.progress.rollout(rollout, effect.at),
            EffectKind::ServiceRead(..) | EffectKind::Rejected(_) => None,
            _ => {
                self.progress.reset(effect.at);
                None
            }
        };
        if let Some(detail) = wrong {
            self.report("BoundedWrites", detail);
        }
    }

    /// `LegalTransition` of an operation: one event, or two events of the engine in one write.
    fn check_transition(&mut self, before: Option<&OperationState>, after: Option<&OperationState>) {
        let (Some(before), Some(after)) = (before, after) else { return };
        if before.number != after.number || before.status == after.status {
            return;
        }
        let by_engine = [Of::Claim, Of::Wait, Of::Wake, Of::Park, Of::HandOver];
        let one = by_engine.into_iter().chain([Of::Retry, Of::Cancel]);
        let mut one = one.filter_map(|event| before.status.next(event).ok());
        let two = by_engine.into_iter().filter_map(|event| before.status.next(event).ok());
        let mut two =
            two.flat_map(|then| by_engine.into_iter().filter_map(move |event| then.next(event).ok()));
        if !one.any(|status| status == after.status) && !two.any(|status| status == after.status) {
            let (was, is) = (before.status, after.status);
            self.report("LegalTransition", format!("operation {} was {was} and became {is}", after.number));
        }
    }

    /// Returns the unfinished operation with this number, and its site if it has one.
    fn operation(&self, by: Fence) -> Option<(&OperationState, Option<&Site>)> {
        let sites = self.sites.values().map(|site| (site.operation.as_ref(), Some(&**site)));
        let services = self.services.values().map(|service| (service.operation.as_ref(), None));
        let fleet = std::iter::once((self.fleet.operation.as_ref(), None));
        let mut all = sites.chain(services).chain(fleet);
        all.find_map(|(operation, site)| {
            operation.filter(|operation| operation.number == by.number).map(|operation| (operation, site))
        })
    }

    /// `JournalFirst`, `NoForeign`, `PrefixSegment`: the author of an effect has stored its intent, for the
    /// same site.
    fn intended(&mut self, by: Fence, uid: Uid, steps: &[&str], effect: &Effect) {
        let Some((operation, site)) = self.operation(by) else {
            return self.report("JournalFirst", format!("{effect:?} by no operation"));
        };
        let names: &[&str] = match (operation.input.kind(), operation.position) {
            (kind, Position::Forward(step)) => steps_of(kind).get(step..=step).unwrap_or_default(),
            (OperationKind::Create, Position::Undo(..)) => &["DeleteSecrets"],
            (OperationKind::Promote, Position::Undo(..)) => &["PatchIngress"],
            (_, Position::Undo(..)) => &[],
        };
        let owner = site.map(|site| (site.id.clone(), site.uid));
        let step = names.iter().any(|name| steps.contains(name));
        if !step {
            let at = format!("{} at {:?}", operation.input.kind(), operation.position);
            self.report("JournalFirst", format!("{effect:?} by a {at}"));
        }
        match owner {
            Some((id, own)) if own != uid => {
                self.report("NoForeign", format!("an operation on `{id}` ({own}) changed {uid}: {effect:?}"));
            }
            Some((id, _)) if self.bystanders.contains(&id) => {
                self.report("NoForeign", format!("`{id}` was changed: {effect:?}"));
            }
            Some(_) | None => {}
        }
    }

    /// `OneOwner`: a worker that lost its operation cannot change a fenced target.
    fn owned(&mut self, by: Fence, effect: &Effect) {
        if let Some((operation, _)) = self.operation(by)
            && operation.epoch != by.claim().epoch
        {
            let epoch = operation.epoch;
            self.report("OneOwner", format!("{effect:?}, but the operation's epoch is {epoch}"));
        }
    }

    fn route_ready(&mut self, to: Color, effect: &Effect) {
        if self.last_ready.get(&to) != Some(&true) {
            self.report("RouteReady", format!("{effect:?}, but no read showed `{to}` ready"));
        }
    }

    /// `KeptDatabase`: a database that may have been in use is never recreated.
    fn keeps_work(&mut self, uid: Uid, effect: &Effect) {
        let site = self.ids.get(&uid).and_then(|id| self.sites.get(id)).map(Arc::clone);
        let used = site.as_ref().is_none_or(|site| {
            site.phase == Phase::Active || site.activation == Activation::Ever || site.route.is_some()
        });
        if used || self.routes.contains_key(&uid) {
            self.report("KeptDatabase", format!("{effect:?} of a site that may have been used"));
        }
    }

    fn destroys_last(&mut self, uid: Uid, effect: &Effect) {
        let creating =
            self.ids.get(&uid).and_then(|id| self.sites.get(id)).is_some_and(|site| site.phase == Phase::New);
        if !self.released.contains(&uid) && !creating {
            self.report("DestroyLast", format!("{effect:?} while the site may be routed"));
        }
    }

    fn image_set(&mut self, by: Fence, color: Color, effect: &Effect) {
        self.owned(by, effect);
        let deploys =
            self.operation(by).is_some_and(|(operation, _)| operation.input.kind() == OperationKind::Deploy);
        if !deploys {
            self.report("JournalFirst", format!("{effect:?} by no operation"));
        }
        let moves = self.services.get(&color).map(|service| service.lock.moves.clone()).unwrap_or_default();
        if !moves.is_empty() {
            self.report("RouteReady", format!("{effect:?} while {moves:?} move sites there"));
        }
    }

    fn job(&mut self, by: Fence, name: &JobName, uid: Option<Uid>, word: &'static str, effect: &Effect) {
        if !self.jobs.insert(name.clone()) {
            self.report("CreateOnce", format!("the job {name} was started twice"));
        }
        if let Some(rollout) = self.rollouts.get(&by.number) {
            if !rollout.phase.is_flushing() && rollout.phase.progress().pending_flush.is_none() {
                self.report("JournalFirst", format!("{effect:?} outside a flush"));
            }
            return;
        }
        let step = match word {
            "install" => "Install",
            "activate-theme" => "ActivateTheme",
            _ => "FlushCaches",
        };
        match uid {
            Some(uid) => self.intended(by, uid, &[step], effect),
            None => self.report("JournalFirst", format!("{effect:?} by no operation")),
        }
        let Some((operation, _)) = self.operation(by) else { return };
        let key = (operation.number, operation.forward().unwrap_or_default(), operation.job, word);
        let started = self.steps_with_job.entry(key).or_default();
        *started += 1;
        if *started > 1 {
            self.report("CreateOnce", format!("{effect:?} in addition to another job of the same step"));
        }
    }

    fn site(&mut self, before: Option<&Arc<Site>>, after: Option<&Arc<Site>>) {
        let life = |site: Option<&Arc<Site>>| site.map_or(Life::Absent, |site| site.life());
        let (was, is) = (life(before), life(after));
        if was != is && !transitions(was).contains(&is) {
            self.report("LegalTransition", format!("{was:?} became {is:?}"));
        }
        let operation = |site: Option<&Arc<Site>>| site.and_then(|site| site.operation.clone());
        self.check_transition(operation(before).as_ref(), operation(after).as_ref());
        if let (Some(old), Some(new)) = (operation(before), operation(after))
            && old.number != new.number
            && old.status != Status::Parked
        {
            self.report(
                "OneOpPerSite",
                format!("operation {} replaced operation {}", new.number, old.number),
            );
        }
        if let (Some(old), Some(new)) = (operation(before), operation(after))
            && old.number == new.number
            && old.owner.is_some()
            && new.owner.is_some()
            && old.owner != new.owner
            && old.epoch >= new.epoch
        {
            self.report(
                "OneOwner",
                format!("operation {} was taken over in epoch {}", new.number, new.epoch),
            );
        }
        if let (Some(before), Some(after)) = (before, after) {
            let unrouted = before.route.is_some() && after.route.is_none();
            let leaving = after
                .operation
                .as_ref()
                .is_some_and(|operation| operation.input.kind() == OperationKind::Terminate);
            if unrouted && !leaving {
                self.report("RouteAlways", format!("`{}` lost its route", after.id));
            }
        }
        if let Some(touched) = before.or(after)
            && self.bystanders.contains(&touched.id)
        {
            self.report("NoForeign", format!("the record of `{}` was written", touched.id));
        }
        match (before, after) {
            (None, Some(site)) => {
                let hosts: BTreeSet<&Hostname> = site.hostnames.all().iter().collect();
                let other = self
                    .sites
                    .values()
                    .find(|other| other.hostnames.all().iter().any(|host| hosts.contains(host)));
                if let Some(other) = other {
                    let detail = format!("`{}` and `{}` share a hostname", other.id, site.id);
                    self.report("OneOpPerSite", detail);
                }
                if self.ids.insert(site.uid, site.id.clone()).is_some() {
                    self.report("NoForeign", format!("the uid {} was used again", site.uid));
                }
            }
            (Some(site), None) => {
                self.sites.remove(&site.id);
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
        if let Some(site) = after {
            self.member(before, site);
            self.sites.insert(site.id.clone(), Arc::clone(site));
        }
    }

    /// `WaveBound`: a rollout claims only sites in its window, and at most `max_concurrent` sites at once.
    fn member(&mut self, before: Option<&Arc<Site>>, site: &Arc<Site>) {
        let member = |site: &Site| site.operation.as_ref().and_then(|operation| operation.member);
        let Some(now) = member(site) else { return };
        if before.and_then(|before| member(before)) == Some(now) {
            return;
        }
        let Some(rollout) = self.rollouts.get(&now.rollout).map(Arc::clone) else {
            return self.report("JournalFirst", format!("`{}` was claimed for no rollout", site.id));
        };
        let window = rollout.window();
        if !window.contains(now.ordinal) {
            self.report("WaveBound", format!("member {} was claimed outside {window:?}", now.ordinal));
        }
        let others = self.sites.values().filter(|other| other.id != site.id);
        let claimed =
            others.filter_map(|other| member(other)).filter(|other| other.rollout == now.rollout).count();
        if claimed + 1 > rollout.spec.max_concurrent as usize {
            self.report("WaveBound", format!("{} sites at once", claimed + 1));
        }
        if rollout.status != cdm_core::domain::RolloutStatus::Running {
            self.report(
                "WaveBound",
                format!("a site was claimed while the rollout is {}", rollout.status.as_str()),
            );
        }
    }

    fn rollout(&mut self, rollout: &Arc<Rollout>) {
        let counts = rollout.counts();
        let sum = counts.resolved() + rollout.running() + rollout.pending();
        if sum != rollout.total {
            self.report(
                "TotalsAgree",
                format!("{counts:?} and {} running of {}", rollout.running(), rollout.total),
            );
        }
        if let Some(old) = self.rollouts.get(&rollout.number).map(Arc::clone) {
            let legal = old.status == rollout.status
                || cdm_core::domain::rollout::Transition::ALL
                    .iter()
                    .filter_map(|event| old.status.next(*event).ok())
                    .flat_map(|next| {
                        let then = cdm_core::domain::rollout::Transition::ALL;
                        then.into_iter().filter_map(move |event| next.next(event).ok()).chain([next])
                    })
                    .any(|next| next == rollout.status);
            if !legal {
                let (was, is) = (old.status.as_str(), rollout.status.as_str());
                self.report("LegalTransition", format!("a rollout that was {was} became {is}"));
            }
            let stops = old.control.is_some() && rollout.control.is_some();
            if stops && rollout.window().end > old.window().end {
                self.report("WaveBound", "a window was granted after a request to stop".to_owned());
            }
            if old.control.is_some() && rollout.control.is_none() && rollout.status.runnable() {
                self.report("WaveBound", format!("a request to stop was lost: {:?}", old.control));
            }
        }
        self.rollouts.insert(rollout.number, Arc::clone(rollout));
    }
}

/// Returns every site life that one event, or a displacement by terminate, leads to.
fn transitions(life: Life) -> Vec<Life> {
    let begins = OperationKind::ALL.map(Event::Begin);
    let ends = [TerminalStatus::Succeeded, TerminalStatus::Failed, TerminalStatus::Cancelled].map(Event::End);
    let events = begins.into_iter().chain(ends).chain([Event::Displace]);
    events.filter_map(|event| life.next(event).ok()).collect()
}

/// Returns the steps of each pipeline, as the product specification names them.
const fn steps_of(kind: OperationKind) -> &'static [&'static str] {
    match kind {
        OperationKind::Create => &["CreateSecrets"],
        OperationKind::Provision => {
            &["CreateDatabase", "CreateObjects", "Install", "Ingress", "ActivateTheme"]
        }
        OperationKind::Upgrade => &["PatchService", "FlushCaches"],
        OperationKind::Promote => &["PatchIngress", "PatchService", "FlushCaches"],
        OperationKind::Terminate => &["RemoveIngress", "DropDatabase", "DeleteObjects", "DeleteSecrets"],
        OperationKind::Deploy => &["PatchImage", "WaitReady", "PatchCanaryEnv", "Hooks"],
        OperationKind::Select => &["PatchCanaryEnv"],
    }
}
