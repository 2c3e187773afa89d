//! The invariants that hold after every single effect, checked over the effect log as it grows.
//!
//! Each has a name; a violation is written down with it, and a campaign that finds one fails. What must hold only at
//! rest is in [`crate::world`].

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
use crate::log::{Effect, EffectLog, What};
use crate::progress::Progress;

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name.
    pub invariant: &'static str,
    /// How it was broken.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.detail)
    }
}

/// Checks a log as it grows. Clones share what was found.
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
    looked: BTreeMap<Color, bool>,
    released: BTreeSet<Uid>,
    secrets: BTreeSet<SecretName>,
    secrets_ever: BTreeSet<SecretName>,
    databases: BTreeSet<Uid>,
    routes: BTreeMap<Uid, Color>,
    jobs: BTreeSet<JobName>,
    steps_with_job: BTreeMap<(u64, usize, u32, &'static str), u32>,
    /// Sites that existed before and belong to nobody's test: they are never touched.
    bystanders: BTreeSet<SiteId>,
}

impl Checker {
    /// Checks what is in `log` from now on; `clock` is the one that its effects are timed by.
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
            looked: BTreeMap::new(),
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

    /// From now on nothing of that site may change.
    pub fn leave_alone(&self, id: &SiteId) {
        self.state().bystanders.insert(id.clone());
    }

    /// Reads on in the log.
    pub fn check(&self) {
        let mut state = self.state();
        let effects = state.log.since(state.read);
        state.read += effects.len();
        for effect in &effects {
            state.effect(effect);
        }
    }

    /// Reads on in the log, after a call of a port.
    pub fn called(&self) {
        self.check();
        let mut state = self.state();
        let now = state.clock.monotonic();
        if let Some(detail) = state.progress.called(now) {
            state.broken("BoundedCalls", detail);
        }
    }

    /// What was broken so far.
    pub fn violations(&self) -> Vec<Violation> {
        self.check();
        self.state().found.clone()
    }
}

impl State {
    fn broken(&mut self, invariant: &'static str, detail: String) {
        self.found.push(Violation { invariant, detail });
    }

    fn effect(&mut self, effect: &Effect) {
        let by = effect.by;
        self.bounded(effect);
        match &effect.what {
            What::Site(before, after) => self.site(before.as_ref(), after.as_ref()),
            What::Colour(service) => {
                let before = self.services.insert(service.color, Arc::clone(service));
                let before = before.and_then(|before| before.operation.clone());
                self.moved_on(before.as_ref(), service.operation.as_ref());
            }
            What::Fleet(fleet) => {
                let before = std::mem::replace(&mut self.fleet, Arc::clone(fleet));
                self.moved_on(before.operation.as_ref(), fleet.operation.as_ref());
            }
            What::Rollout(rollout) => self.rollout(rollout),
            What::Ended(_) | What::Refused(_) => {}
            What::Looked(color, ready) => {
                self.looked.insert(*color, *ready);
            }
            // A webhook's key is no operation's: its record is stored first, and at rest each key has one.
            What::SecretCreated(name) | What::SecretDeleted(name)
                if matches!(name.kind, SecretKind::Webhook | SecretKind::Sealing) => {}
            What::SecretCreated(name) => {
                self.intended(by, name.uid, &["CreateSecrets"], effect);
                if !self.secrets_ever.insert(*name) {
                    self.broken("CreateOnce", format!("the secret {name} was created again"));
                }
                self.secrets.insert(*name);
            }
            What::SecretDeleted(name) => {
                self.intended(by, name.uid, &["DeleteSecrets"], effect);
                self.destroys_last(name.uid, effect);
                self.secrets.remove(name);
            }
            What::MarkerPut(uid) => self.intended(by, *uid, &["CreateObjects"], effect),
            What::ObjectDeleted(uid, _) => {
                self.intended(by, *uid, &["DeleteObjects"], effect);
                self.destroys_last(*uid, effect);
            }
            What::DatabaseEnsured { uid, created } => {
                // Bringing what is there to the same state again is no effect anyone can see.
                if *created {
                    self.intended(by, *uid, &["CreateDatabase"], effect);
                }
                if *created && !self.databases.insert(*uid) {
                    self.broken("CreateOnce", format!("the database of {uid} was created twice"));
                }
            }
            What::DatabaseRenewed(uid) => {
                self.intended(by, *uid, &["Install"], effect);
                self.keeps_work(*uid, effect);
            }
            What::DatabaseDropped(uid) => {
                self.intended(by, *uid, &["DropDatabase"], effect);
                self.destroys_last(*uid, effect);
                self.databases.remove(uid);
            }
            What::CanarySet(..) => {
                if self.operation(by).is_none() {
                    self.broken("JournalFirst", format!("nobody's {effect:?}"));
                }
            }
            What::ImageSet(color, ..) => self.image_set(by, *color, effect),
            What::RouteCreated(uid, to) => {
                self.intended(by, *uid, &["Ingress"], effect);
                self.route_ready(*to, effect);
                if self.routes.insert(*uid, *to).is_some() {
                    self.broken("CreateOnce", format!("a second route of {uid}"));
                }
            }
            What::RouteMoved(uid, from, to) => {
                self.intended(by, *uid, &["Ingress", "PatchIngress"], effect);
                self.owned(by, effect);
                if from != to {
                    self.route_ready(*to, effect);
                }
                self.routes.insert(*uid, *to);
            }
            What::Released(uid, _) => {
                self.intended(by, *uid, &["RemoveIngress"], effect);
                self.released.insert(*uid);
                self.routes.remove(uid);
            }
            What::JobStarted(name, uid, word) => self.job(by, name, *uid, word, effect),
        }
    }

    /// `BoundedWrites`: what waits is not written again and again.
    fn bounded(&mut self, effect: &Effect) {
        let wrong = match &effect.what {
            What::Site(_, Some(site)) if site.operation.is_some() => {
                site.operation.as_ref().and_then(|operation| self.progress.operation(operation, effect.at))
            }
            What::Colour(service) => {
                // The record of a colour is written for the holds of others, too.
                let before = self.services.get(&service.color).and_then(|before| before.operation.clone());
                let operation =
                    service.operation.as_ref().filter(|operation| before.as_ref() != Some(operation));
                operation.and_then(|operation| self.progress.operation(operation, effect.at))
            }
            What::Fleet(fleet) => {
                let before = self.fleet.operation.clone();
                let operation =
                    fleet.operation.as_ref().filter(|operation| before.as_ref() != Some(operation));
                operation.and_then(|operation| self.progress.operation(operation, effect.at))
            }
            What::Rollout(rollout) => self.progress.rollout(rollout, effect.at),
            What::Looked(..) | What::Refused(_) => None,
            _ => {
                self.progress.progressed(effect.at);
                None
            }
        };
        if let Some(detail) = wrong {
            self.broken("BoundedWrites", detail);
        }
    }

    /// `LegalTransition` of an operation: one event, or two of the engine's own in one write.
    fn moved_on(&mut self, before: Option<&OperationState>, after: Option<&OperationState>) {
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
            self.broken("LegalTransition", format!("operation {} was {was} and became {is}", after.number));
        }
    }

    /// The operation of that number that has not ended, with the site it works on.
    fn operation(&self, by: Fence) -> Option<(&OperationState, Option<&Site>)> {
        let sites = self.sites.values().map(|site| (site.operation.as_ref(), Some(&**site)));
        let services = self.services.values().map(|service| (service.operation.as_ref(), None));
        let fleet = std::iter::once((self.fleet.operation.as_ref(), None));
        let mut all = sites.chain(services).chain(fleet);
        all.find_map(|(operation, site)| {
            operation.filter(|operation| operation.number == by.number).map(|operation| (operation, site))
        })
    }

    /// `JournalFirst`, `NoForeign`, `PrefixSegment`: whoever does this has stored the intent to, for that very site.
    fn intended(&mut self, by: Fence, uid: Uid, steps: &[&str], effect: &Effect) {
        let Some((operation, site)) = self.operation(by) else {
            return self.broken("JournalFirst", format!("nobody's {effect:?}"));
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
            self.broken("JournalFirst", format!("{effect:?} by a {at}"));
        }
        match owner {
            Some((id, own)) if own != uid => {
                self.broken("NoForeign", format!("an operation on `{id}` ({own}) touched {uid}: {effect:?}"));
            }
            Some((id, _)) if self.bystanders.contains(&id) => {
                self.broken("NoForeign", format!("`{id}` was touched: {effect:?}"));
            }
            Some(_) | None => {}
        }
    }

    /// `OneOwner`: a worker whose operation was taken over does not get through to what is fenced.
    fn owned(&mut self, by: Fence, effect: &Effect) {
        if let Some((operation, _)) = self.operation(by)
            && operation.epoch != by.claim().epoch
        {
            let epoch = operation.epoch;
            self.broken("OneOwner", format!("{effect:?}, but the operation's epoch is {epoch}"));
        }
    }

    fn route_ready(&mut self, to: Color, effect: &Effect) {
        if self.looked.get(&to) != Some(&true) {
            self.broken("RouteReady", format!("{effect:?} without a look that saw `{to}` ready"));
        }
    }

    /// `KeptDatabase`: what somebody may have used is never made anew.
    fn keeps_work(&mut self, uid: Uid, effect: &Effect) {
        let site = self.ids.get(&uid).and_then(|id| self.sites.get(id)).map(Arc::clone);
        let used = site.as_ref().is_none_or(|site| {
            site.phase == Phase::Active || site.activation == Activation::Ever || site.route.is_some()
        });
        if used || self.routes.contains_key(&uid) {
            self.broken("KeptDatabase", format!("{effect:?} of a site that may have been used"));
        }
    }

    fn destroys_last(&mut self, uid: Uid, effect: &Effect) {
        let creating =
            self.ids.get(&uid).and_then(|id| self.sites.get(id)).is_some_and(|site| site.phase == Phase::New);
        if !self.released.contains(&uid) && !creating {
            self.broken("DestroyLast", format!("{effect:?} while the site may be routed"));
        }
    }

    fn image_set(&mut self, by: Fence, color: Color, effect: &Effect) {
        self.owned(by, effect);
        let deploys =
            self.operation(by).is_some_and(|(operation, _)| operation.input.kind() == OperationKind::Deploy);
        if !deploys {
            self.broken("JournalFirst", format!("nobody's {effect:?}"));
        }
        let moves = self.services.get(&color).map(|service| service.lock.moves.clone()).unwrap_or_default();
        if !moves.is_empty() {
            self.broken("RouteReady", format!("{effect:?} while {moves:?} move sites there"));
        }
    }

    fn job(&mut self, by: Fence, name: &JobName, uid: Option<Uid>, word: &'static str, effect: &Effect) {
        if !self.jobs.insert(name.clone()) {
            self.broken("CreateOnce", format!("the job {name} was started twice"));
        }
        if let Some(rollout) = self.rollouts.get(&by.number) {
            if !rollout.flushing && rollout.pending_flush.is_none() {
                self.broken("JournalFirst", format!("{effect:?} outside a flush"));
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
            None => self.broken("JournalFirst", format!("nobody's {effect:?}")),
        }
        let Some((operation, _)) = self.operation(by) else { return };
        let key = (operation.number, operation.forward().unwrap_or_default(), operation.job, word);
        let started = self.steps_with_job.entry(key).or_default();
        *started += 1;
        if *started > 1 {
            self.broken("CreateOnce", format!("{effect:?} beside another job of the same step"));
        }
    }

    fn site(&mut self, before: Option<&Arc<Site>>, after: Option<&Arc<Site>>) {
        let life = |site: Option<&Arc<Site>>| site.map_or(Life::Absent, |site| site.life());
        let (was, is) = (life(before), life(after));
        if was != is && !transitions(was).contains(&is) {
            self.broken("LegalTransition", format!("{was:?} became {is:?}"));
        }
        let operation = |site: Option<&Arc<Site>>| site.and_then(|site| site.operation.clone());
        self.moved_on(operation(before).as_ref(), operation(after).as_ref());
        if let (Some(old), Some(new)) = (operation(before), operation(after))
            && old.number != new.number
            && old.status != Status::Parked
        {
            self.broken("OneOpPerSite", format!("operation {} took the place of {}", new.number, old.number));
        }
        if let (Some(old), Some(new)) = (operation(before), operation(after))
            && old.number == new.number
            && old.owner.is_some()
            && new.owner.is_some()
            && old.owner != new.owner
            && old.epoch >= new.epoch
        {
            self.broken(
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
                self.broken("RouteAlways", format!("`{}` lost its route", after.id));
            }
        }
        if let Some(touched) = before.or(after)
            && self.bystanders.contains(&touched.id)
        {
            self.broken("NoForeign", format!("the record of `{}` was written", touched.id));
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
                    self.broken("OneOpPerSite", detail);
                }
                if self.ids.insert(site.uid, site.id.clone()).is_some() {
                    self.broken("NoForeign", format!("the uid {} was used again", site.uid));
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

    /// `WaveBound`: a rollout reaches no site beyond its window, and no more at once than it may.
    fn member(&mut self, before: Option<&Arc<Site>>, site: &Arc<Site>) {
        let member = |site: &Site| site.operation.as_ref().and_then(|operation| operation.member);
        let Some(now) = member(site) else { return };
        if before.and_then(|before| member(before)) == Some(now) {
            return;
        }
        let Some(rollout) = self.rollouts.get(&now.rollout).map(Arc::clone) else {
            return self.broken("JournalFirst", format!("`{}` was claimed for no rollout", site.id));
        };
        let window = rollout.window;
        if !(window.start..window.end).contains(&now.ordinal) {
            self.broken("WaveBound", format!("member {} was claimed outside {window:?}", now.ordinal));
        }
        let others = self.sites.values().filter(|other| other.id != site.id);
        let held =
            others.filter_map(|other| member(other)).filter(|other| other.rollout == now.rollout).count();
        if held + 1 > rollout.max_concurrent as usize {
            self.broken("WaveBound", format!("{} sites at once", held + 1));
        }
        if rollout.status != cdm_core::domain::RolloutStatus::Running {
            self.broken(
                "WaveBound",
                format!("a site was claimed while the rollout is {}", rollout.status.as_str()),
            );
        }
    }

    fn rollout(&mut self, rollout: &Arc<Rollout>) {
        let counts = rollout.counts();
        let sum = counts.resolved() + rollout.running() + rollout.pending();
        if sum != rollout.total {
            self.broken(
                "TotalsAgree",
                format!("{counts:?} and {} running of {}", rollout.running(), rollout.total),
            );
        }
        if let Some(old) = self.rollouts.get(&rollout.number).map(Arc::clone) {
            let legal = old.status == rollout.status
                || cdm_core::domain::rollout::RolloutEvent::ALL
                    .iter()
                    .filter_map(|event| old.status.next(*event).ok())
                    .flat_map(|next| {
                        let then = cdm_core::domain::rollout::RolloutEvent::ALL;
                        then.into_iter().filter_map(move |event| next.next(event).ok()).chain([next])
                    })
                    .any(|next| next == rollout.status);
            if !legal {
                let (was, is) = (old.status.as_str(), rollout.status.as_str());
                self.broken("LegalTransition", format!("a rollout that was {was} became {is}"));
            }
            let stops = old.control.is_some() && rollout.control.is_some();
            if stops && old.window != rollout.window {
                self.broken("WaveBound", "a window was granted although someone asked to stop".to_owned());
            }
            if old.control.is_some() && rollout.control.is_none() && rollout.status.runnable() {
                self.broken("WaveBound", format!("a request to stop was lost: {:?}", old.control));
            }
        }
        self.rollouts.insert(rollout.number, Arc::clone(rollout));
    }
}

/// Every life that one event, or a terminate's displacement, leads to.
fn transitions(life: Life) -> Vec<Life> {
    let begins = OperationKind::ALL.map(Event::Begin);
    let ends = [TerminalStatus::Succeeded, TerminalStatus::Failed, TerminalStatus::Cancelled].map(Event::End);
    let events = begins.into_iter().chain(ends).chain([Event::Displace]);
    events.filter_map(|event| life.next(event).ok()).collect()
}

/// The steps of each pipeline, as the product's contract names them.
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
