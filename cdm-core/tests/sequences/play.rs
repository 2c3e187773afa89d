//! Plays a sequence, and judges every answer and every rest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::operation::OperationParent;
use cdm_core::domain::{
    Color, Digest, Hostnames, IdempotencyKey, OperationId, ReasonCode, RolloutStatus, Subject, Timestamp,
};
use cdm_core::engine::Settings;
use cdm_core::manager::{Accepted, DeployRequest, Force, Manager, ManagerError, Request, Resume};
use cdm_core::pipelines::{PipelineSettings, registry};
use cdm_core::ports::{Clock, JobFailure, JobState, PodFailure};
use cdm_testkit::fakes::{ImageScript, JobScript};
use cdm_testkit::faults::{Fault, Plan};
use cdm_testkit::world::{Asking, Verb, World, digest, new_site, now};

use super::commands::{BROKEN, Command, HOMELESS, JOBS, SITES, Steer};
use super::model::{ACCEPTED, Model, hosts_of, promotes};

/// How many turns a rest in the middle has; what waits for longer waits on.
const TURNS: usize = 60;
/// How many turns the last one has, before a person looks.
const PATIENCE: usize = 400;
/// How long the answer to a request is remembered under its key.
const REMEMBERED: Duration = Duration::from_secs(23 * 3_600);

/// What happened how often.
pub(crate) type Histogram = BTreeMap<&'static str, u64>;

/// A request, with what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) command: Command,
    pub(crate) operation: Option<OperationId>,
    pub(crate) rollout: Option<u64>,
    /// The digest that is accepted: what was seen to run.
    pub(crate) image: Option<Digest>,
}

impl Wish {
    const fn of(command: Command) -> Self {
        Self { command, operation: None, rollout: None, image: None }
    }
}

struct Play {
    world: World,
    /// The services without the gate.
    manager: Manager,
    model: Model,
    histogram: Histogram,
    wrong: Vec<String>,
    operations: Vec<OperationId>,
    rollouts: Vec<u64>,
    /// Every request, with its last answer and when that was given; a request's key is its place here.
    asked: Vec<(Wish, Result<Accepted, ManagerError>, Timestamp)>,
    armed: Option<(usize, Fault)>,
    /// A backend may refuse until someone mends it.
    denied: bool,
    accepted: usize,
    refused: usize,
    /// Refusals whose audit entry a fault may have lost or doubled.
    unsure: usize,
}

/// Plays a sequence; what is wrong with what came of it.
pub(crate) fn play(seed: u64, commands: &[Command]) -> (Histogram, Vec<String>) {
    let mut play = Play::new(seed);
    for command in commands {
        play.command(command);
        play.look();
        if !play.wrong.is_empty() {
            let at = format!("{command:?}");
            play.wrong.iter_mut().for_each(|wrong| *wrong = format!("{wrong} (after {at})"));
            return (play.histogram, play.wrong);
        }
    }
    play.end();
    (play.histogram, play.wrong)
}

impl Play {
    fn new(seed: u64) -> Self {
        let world = World::new(seed);
        let never = |definite, blames_image, message: &str| {
            let failure = PodFailure { definite, blames_image, message: message.to_owned() };
            ImageScript { ready_after: None, failure: Some((Duration::from_secs(20), failure)) }
        };
        world.cluster.script(digest(BROKEN), never(true, true, "CrashLoopBackOff"));
        world.cluster.script(digest(HOMELESS), never(true, false, "Unschedulable"));
        let registry = Arc::new(registry(&PipelineSettings::default()));
        let manager = Manager::new(world.raw().clone(), registry, Settings::default());
        Self {
            world,
            manager,
            model: Model::new(),
            histogram: Histogram::new(),
            wrong: Vec::new(),
            operations: Vec::new(),
            rollouts: Vec::new(),
            asked: Vec::new(),
            armed: None,
            denied: false,
            accepted: 0,
            refused: 0,
            unsure: 0,
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.histogram.entry(what).or_default() += 1;
    }

    /// At rest, what must be is compared with what is.
    fn look(&mut self) {
        if self.world.rests() && !self.world.has_zombie() {
            let wrong = self.model.rest(&self.world, &self.manager);
            self.wrong.extend(wrong);
        }
    }

    fn command(&mut self, command: &Command) {
        match command {
            Command::Turns(turns) => {
                for _ in 0..*turns {
                    let _ = self.world.run_once();
                }
            }
            Command::Rest => self.rest(TURNS),
            Command::Advance(span) => self.world.clock.advance(*span),
            Command::Crash => self.world.restart(),
            Command::Break(color) => self.world.cluster.break_service(*color, None),
            Command::Mend(color) => self.world.cluster.mend_service(*color),
            Command::FailJobs(job, times) => {
                let result = JobState::Failed { message: "exit code 1".to_owned(), cause: JobFailure::Other };
                let script = JobScript { takes: Duration::from_secs(1), result };
                self.world.cluster.script_job(JOBS[*job], vec![script; *times]);
            }
            Command::Inject(at, fault) => return self.inject(*at, *fault),
            Command::Expire(nth) => {
                if !self.expire(*nth) {
                    return;
                }
            }
            Command::Repeat(nth) => {
                if !self.repeat(*nth) {
                    return;
                }
            }
            Command::Steer(steer, nth) => {
                let Some(number) = self.rollouts.iter().rev().nth(*nth).copied() else { return };
                self.steer(*steer, number);
            }
            Command::Cancel(nth) | Command::Retry(nth) => {
                let Some(id) = self.operations.iter().rev().nth(*nth).cloned() else { return };
                let wish = Wish { operation: Some(id), ..Wish::of(command.clone()) };
                self.request(wish);
            }
            _ => self.request(Wish::of(command.clone())),
        }
        self.count(command.kind());
    }

    fn inject(&mut self, at: usize, fault: Fault) {
        self.disarm();
        self.world.faults.arm(Plan(vec![(at, fault)]));
        self.world.faults.start_trace();
        self.armed = Some((at, fault));
        self.denied |= fault == Fault::Permanent;
    }

    /// Counts the armed fault if it has happened, to a call that it can happen to.
    fn disarm(&mut self) {
        let Some((at, fault)) = self.armed.take() else { return };
        let fired = self.world.faults.fired() > 0;
        let trace = self.world.faults.trace();
        if fired && trace.get(at).is_some_and(|call| call.takes(fault)) {
            self.count(name(fault));
        }
    }

    /// The cluster forgets a job that nobody waits for.
    fn expire(&mut self, nth: usize) -> bool {
        let busy = self.world.store.all_sites().into_iter().filter(|site| site.operation.is_some());
        let busy: Vec<_> = busy.map(|site| site.uid).collect();
        let rolling = self.world.store.all_rollouts().iter().any(|rollout| !rollout.status.ended());
        let jobs = self.world.cluster.jobs();
        let mut free = jobs.iter().filter(|(_, uid, state)| {
            let awaited = uid.map_or(rolling, |uid| busy.contains(&uid) || rolling);
            !awaited && *state != JobState::Running
        });
        let job = free.nth(nth).map(|(name, ..)| name.clone());
        job.map(|name| self.world.cluster.expire_job(&name)).is_some()
    }

    /// An earlier request once more: what was accepted is answered as before.
    fn repeat(&mut self, nth: usize) -> bool {
        let Some(key) = self.asked.len().checked_sub(nth + 1) else { return false };
        let (wish, answer, at) = self.asked[key].clone();
        if self.world.clock.wall().since(at) > REMEMBERED {
            return false;
        }
        if answer.is_err() {
            self.ask(wish, key);
            return true;
        }
        let again = self.send(&wish, key);
        if again != answer {
            self.wrong.push(format!("Repeat: {wish:?} was answered {answer:?}, then {again:?}"));
        }
        true
    }

    /// Asks something of a rollout; whoever accepts a digest has looked which one runs.
    fn steer(&mut self, steer: Steer, number: u64) {
        let target = self.world.store.all_rollouts().into_iter().find(|it| it.number == number);
        let view = target.and_then(|it| now(self.world.raw().cluster.service(it.target)).ok());
        let image = view.and_then(|view| view.digest).filter(|_| steer == Steer::Accept);
        let command = Command::Steer(steer, 0);
        self.request(Wish { rollout: Some(number), image, ..Wish::of(command) });
    }

    fn request(&mut self, wish: Wish) {
        self.ask(wish, self.asked.len());
    }

    fn ask(&mut self, wish: Wish, key: usize) {
        let rests = self.world.rests() && !self.world.has_zombie();
        let (canary, fired) = (self.canary(), self.world.faults.fired());
        let at_rest = rests.then(|| self.model.answer(&wish, &self.world, &self.manager));
        let answer = self.send(&wish, key);
        let clean = fired == self.world.faults.fired() && !self.denied;
        let code = answer.as_ref().map_or_else(ManagerError::code, |_| ACCEPTED);
        let legal = at_rest.filter(|_| clean).unwrap_or_else(|| Model::legal(&wish));
        if !legal.contains(&code) {
            self.wrong.push(format!("Answer: {wish:?} is {code}, not one of {legal:?}: {answer:?}"));
        }
        self.count(code);
        match &answer {
            Ok(accepted) => {
                self.accepted += 1;
                // Where a process stood still, the request was under way twice: the slower may be refused what the
                // faster was granted.
                self.unsure += usize::from(!clean);
                let canary = canary.filter(|_| clean && self.canary() == canary);
                self.keep(accepted, canary, hosts_of(&wish.command));
            }
            Err(_) if clean => self.refused += 1,
            Err(_) => self.unsure += 1,
        }
        let asked = (wish, answer, self.world.clock.wall());
        match self.asked.get_mut(key) {
            Some(before) => *before = asked,
            None => self.asked.push(asked),
        }
    }

    fn keep(&mut self, accepted: &Accepted, canary: Option<Color>, hosts: usize) {
        match accepted {
            Accepted::Operation(id) => {
                self.model.accepted(id.clone(), canary, hosts);
                if !self.operations.contains(id) {
                    self.operations.push(id.clone());
                }
            }
            Accepted::Rollout(number) => {
                if self.rollouts.contains(number) {
                    return;
                }
                self.rollouts.push(*number);
                let all = self.world.store.all_rollouts();
                let deploy = all.into_iter().find(|it| it.number == *number).and_then(|it| it.after);
                if let Some(id) = deploy {
                    self.model.accepted(id, None, 0);
                }
            }
            Accepted::Freeze(_) | Accepted::Webhook(_) | Accepted::Done => {}
        }
    }

    fn canary(&self) -> Option<Color> {
        let canary = now(self.world.raw().cluster.canary()).ok()?;
        Some(canary.map_or(Color::Blue, |canary| canary.color))
    }

    fn send(&mut self, wish: &Wish, key: usize) -> Result<Accepted, ManagerError> {
        let key = IdempotencyKey::parse(&format!("sequence-{key}")).ok();
        self.world
            .ask(|manager, request| sent(manager, Request { key: key.clone(), ..request }, wish.clone()))
    }

    /// Lets the workers work, for so many turns at most.
    fn rest(&mut self, turns: usize) {
        for _ in 0..turns {
            let turn = self.world.run_once();
            if self.world.rests() {
                return;
            }
            let Some(turn) = turn.filter(|turn| turn.ran == 0) else { continue };
            let next_poll_at = turn.next_poll_at.map(|at| at.since(self.world.clock.wall()));
            let event = self.world.cluster.next_event().map(|at| at.since(self.world.clock.monotonic()));
            let pause = [next_poll_at, event].into_iter().flatten().filter(|pause| !pause.is_zero()).min();
            let pause = pause.unwrap_or(Duration::from_secs(2)).min(Duration::from_secs(30));
            self.world.clock.advance(pause);
        }
    }

    /// Faults end, services are mended, people do what is asked of them; then everything rests, and is as it must be.
    fn end(&mut self) {
        self.disarm();
        for image in [BROKEN, HOMELESS] {
            self.world.cluster.script(digest(image), ImageScript::default());
        }
        for _ in 0..4 {
            self.world.heal();
            self.denied = false;
            self.world.finish_zombies();
            Color::ALL.into_iter().for_each(|color| self.world.cluster.mend_service(color));
            self.rest(PATIENCE);
            self.look();
            let waits = self.world.store.all_rollouts().iter().any(|it| it.status.runnable());
            if self.world.rests() && self.parked_colours().is_empty() && !waits {
                break;
            }
            self.take_care();
        }
        self.audited();
        if !self.world.rests() {
            return self.restless();
        }
        self.world.converge();
        self.look();
        let violations: Vec<_> = self.world.violations().iter().map(ToString::to_string).collect();
        self.wrong.extend(violations);
        for id in &self.operations {
            match now(self.manager.operation(id)) {
                Ok(at) if at.state.status.rests() => {}
                other => self.wrong.push(format!("Journal: {id} does not rest: {other:?}")),
            }
        }
        for number in &self.rollouts {
            match now(self.manager.get_rollout(*number)) {
                Ok(rollout) if !rollout.status.runnable() => {}
                other => self.wrong.push(format!("Journal: rollout {number} does not rest: {other:?}")),
            }
        }
    }

    /// Names what does not come to rest although nothing is in its way.
    fn restless(&mut self) {
        let live = now(self.world.raw().store.pending_work()).unwrap_or_default();
        let live: Vec<_> = live.into_iter().map(|live| live.subject).collect();
        let grants = self.world.store.all_sites().into_iter().map(|site| (site.id, site.claim_token));
        let grants: Vec<_> = grants.collect();
        self.wrong.push(format!("Rest: {live:?} goes on for ever; {grants:?}"));
    }

    /// The services on which a deploy waits for a person.
    fn parked_colours(&self) -> Vec<Color> {
        let of = |id: OperationId| match id.parent {
            OperationParent::Subject(Subject::Service(color)) => Some(color),
            OperationParent::Subject(Subject::Site(_) | Subject::Fleet) | OperationParent::Rollout(..) => {
                None
            }
        };
        self.world.parked().into_iter().filter_map(of).collect()
    }

    /// What waits for a person gets what it waits for: rollouts that stand still are ended, images that never get ready
    /// are replaced, everything else is tried again.
    fn take_care(&mut self) {
        for rollout in self.world.store.all_rollouts() {
            let changed =
                rollout.reason.as_ref().is_some_and(|reason| reason.code == ReasonCode::DigestChanged);
            match rollout.status {
                RolloutStatus::Waiting if changed => {
                    if rollout.number % 2 == 0 {
                        self.steer(Steer::Accept, rollout.number);
                    }
                    // A bad one is not accepted.
                    if now(self.manager.get_rollout(rollout.number)).is_ok_and(|it| it.reason.is_some()) {
                        self.steer(Steer::Abort, rollout.number);
                    }
                }
                status if !status.ended() && !status.runnable() => self.steer(Steer::Abort, rollout.number),
                _ => {}
            }
        }
        let manager = self.parked_colours();
        for id in self.world.parked() {
            let replaced = matches!(id.parent, OperationParent::Subject(Subject::Service(_)));
            if !replaced {
                self.request(Wish { operation: Some(id), ..Wish::of(Command::Retry(0)) });
            }
        }
        for color in manager {
            let command = Command::Deploy(1, color, super::commands::Then::Flush);
            self.request(Wish::of(command));
        }
    }

    /// Every mutating request has its audit entry, and no other has.
    fn audited(&mut self) {
        let entries = now(self.world.raw().store.audit(None, usize::MAX)).map(|page| page.items);
        let entries = entries.unwrap_or_default();
        let (accepted, refused): (Vec<_>, Vec<_>) =
            entries.iter().partition(|entry| entry.outcome == ACCEPTED);
        if accepted.len() != self.accepted {
            let detail = format!("{} accepted, {} entries", self.accepted, accepted.len());
            self.wrong.push(format!("Audit: {detail}"));
        }
        if refused.len() < self.refused || self.unsure == 0 && refused.len() > self.refused {
            let detail = format!("{} refused, {} entries", self.refused, refused.len());
            self.wrong.push(format!("Audit: {detail}"));
        }
    }
}

/// The request itself.
fn sent(manager: Arc<Manager>, request: Request, wish: Wish) -> Asking<Accepted> {
    Box::pin(async move {
        let number = wish.rollout.unwrap_or_default();
        let nothing = || Err(ManagerError::Invalid("nothing is asked".to_owned()));
        match wish.command {
            Command::Create(site, hosts) => {
                let (mut new, other) = (new_site(SITES[site]), new_site(SITES[hosts]));
                new.hostnames = Hostnames::clone(&other.hostnames);
                manager.create_site(&request, &new).await
            }
            Command::Site(site, verb) => {
                let id = super::site_id(site);
                match verb {
                    Verb::Provision => manager.provision(&request, &id).await,
                    Verb::Upgrade => manager.upgrade(&request, &id).await,
                    Verb::Promote => manager.promote(&request, &id).await,
                    Verb::Terminate => manager.terminate(&request, &id).await,
                }
            }
            Command::Select(color) => {
                let selected = manager.select(&request, color).await?;
                Ok(selected.operation.map_or(Accepted::Done, Accepted::Operation))
            }
            Command::Deploy(image, color, then) => {
                let deploy =
                    DeployRequest { digest: digest(image), service: Some(color), promote: promotes(then) };
                manager.deploy(&request, deploy).await
            }
            Command::Rollback(color) => manager.rollback(&request, Some(color)).await,
            Command::Mark(image, verdict) => {
                manager.mark(&request, digest(image), verdict, "seen by a person").await
            }
            Command::Rollout(wanted) => manager.rollout(&request, &wanted).await,
            Command::Steer(Steer::Pause, _) => manager.pause(&request, number).await,
            Command::Steer(Steer::Resume, _) => manager.resume(&request, number).await,
            Command::Steer(Steer::Accept, _) => {
                let wanted = Resume { accept: wish.image, force: Force::No };
                manager.resume_on(&request, number, wanted).await
            }
            Command::Steer(Steer::Abort, _) => manager.abort(&request, number).await,
            Command::Steer(Steer::Retry, _) => manager.retry_rollout(&request, number).await,
            Command::Cancel(_) => match &wish.operation {
                Some(id) => manager.cancel(&request, id).await,
                None => nothing(),
            },
            Command::Retry(_) => match &wish.operation {
                Some(id) => manager.retry(&request, id).await,
                None => nothing(),
            },
            _ => nothing(),
        }
    })
}

/// A fault's name in the histogram.
pub(crate) const fn name(fault: Fault) -> &'static str {
    match fault {
        Fault::CrashBefore => "CrashBefore",
        Fault::CrashAfterEffect => "CrashAfterEffect",
        Fault::CrashAfterAnswer => "CrashAfterAnswer",
        Fault::LostAnswer => "LostAnswer",
        Fault::LostCall => "LostCall",
        Fault::Transient => "Transient",
        Fault::Throttled => "Throttled",
        Fault::Conflict => "Conflict",
        Fault::Duplicate => "Duplicate",
        Fault::Delayed(_) => "Delayed",
        Fault::Paused(_) => "Paused",
        Fault::Stale => "Stale",
        Fault::Permanent => "Permanent",
    }
}
