//! Runs a sequence, and checks every response and every state at rest.

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
use cdm_testkit::world::{RequestFuture, Verb, World, digest, new_site, now};

use super::commands::{BROKEN, Command, JOBS, RolloutControl, SITES, UNSCHEDULABLE};
use super::model::{ACCEPTED, Model, hosts_of, promotes};

/// Maximum number of turns of a settle command; operations that wait longer keep waiting.
const SETTLE_TURNS: usize = 60;
/// Maximum number of turns of the final settle, before parked work is resolved.
const FINAL_TURNS: usize = 400;
/// How long the response to a request is stored under its key.
const REMEMBERED: Duration = Duration::from_secs(23 * 3_600);

/// How often each kind of command occurred.
pub(crate) type Histogram = BTreeMap<&'static str, u64>;

/// A request with its resolved targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TargetedRequest {
    pub(crate) command: Command,
    pub(crate) operation: Option<OperationId>,
    pub(crate) rollout: Option<u64>,
    /// The accepted digest: the one that was running when the request was made.
    pub(crate) image: Option<Digest>,
}

impl TargetedRequest {
    const fn of(command: Command) -> Self {
        Self { command, operation: None, rollout: None, image: None }
    }
}

struct SequenceRun {
    world: World,
    /// The manager without the fault injector.
    manager: Manager,
    model: Model,
    histogram: Histogram,
    wrong: Vec<String>,
    operations: Vec<OperationId>,
    rollouts: Vec<u64>,
    /// Every request, with its last response and the time of that response; the index of a request is its key.
    requests: Vec<(TargetedRequest, Result<Accepted, ManagerError>, Timestamp)>,
    armed: Option<(usize, Fault)>,
    /// A backend may reject calls until the sequence clears the fault.
    denied: bool,
    accepted: usize,
    refused: usize,
    /// Rejections whose audit entry may be missing or doubled because of a fault.
    unsure: usize,
}

/// Runs a sequence, and returns the problems.
pub(crate) fn run_sequence(seed: u64, commands: &[Command]) -> (Histogram, Vec<String>) {
    let mut run = SequenceRun::new(seed);
    for command in commands {
        run.command(command);
        run.check_if_at_rest();
        if !run.wrong.is_empty() {
            let at = format!("{command:?}");
            run.wrong.iter_mut().for_each(|wrong| *wrong = format!("{wrong} (after {at})"));
            return (run.histogram, run.wrong);
        }
    }
    run.end();
    (run.histogram, run.wrong)
}

impl SequenceRun {
    fn new(seed: u64) -> Self {
        let world = World::new(seed);
        let never = |definite, blames_image, message: &str| {
            let failure = PodFailure { definite, blames_image, message: message.to_owned() };
            ImageScript { ready_after: None, failure: Some((Duration::from_secs(20), failure)) }
        };
        world.cluster.script(digest(BROKEN), never(true, true, "CrashLoopBackOff"));
        world.cluster.script(digest(UNSCHEDULABLE), never(true, false, "Unschedulable"));
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
            requests: Vec::new(),
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

    /// Compares the expected state to the actual state if the platform is at rest.
    fn check_if_at_rest(&mut self) {
        if self.world.is_quiescent() && !self.world.has_zombie() {
            let wrong = self.model.check_at_rest(&self.world, &self.manager);
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
            Command::Settle => self.settle(SETTLE_TURNS),
            Command::Advance(span) => self.world.clock.advance(*span),
            Command::Crash => self.world.restart(),
            Command::Break(color) => self.world.cluster.break_service(*color, None),
            Command::Recover(color) => self.world.cluster.repair_service(*color),
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
            Command::RolloutControl(rollout_control, nth) => {
                let Some(number) = self.rollouts.iter().rev().nth(*nth).copied() else { return };
                self.control_rollout(*rollout_control, number);
            }
            Command::Cancel(nth) | Command::Retry(nth) => {
                let Some(id) = self.operations.iter().rev().nth(*nth).cloned() else { return };
                let targeted =
                    TargetedRequest { operation: Some(id), ..TargetedRequest::of(command.clone()) };
                self.request(targeted);
            }
            _ => self.request(TargetedRequest::of(command.clone())),
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

    /// Counts the armed fault if it occurred in a call to which it applies.
    fn disarm(&mut self) {
        let Some((at, fault)) = self.armed.take() else { return };
        let fired = self.world.faults.fired() > 0;
        let trace = self.world.faults.trace();
        if fired && trace.get(at).is_some_and(|call| call.supports(fault)) {
            self.count(name(fault));
        }
    }

    /// Removes a job from the cluster that no operation waits for.
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

    /// Repeats an earlier request: an accepted request gets the same response.
    fn repeat(&mut self, nth: usize) -> bool {
        let Some(key) = self.requests.len().checked_sub(nth + 1) else { return false };
        let (targeted, response, at) = self.requests[key].clone();
        if self.world.clock.wall().since(at) > REMEMBERED {
            return false;
        }
        if response.is_err() {
            self.ask(targeted, key);
            return true;
        }
        let again = self.send(&targeted, key);
        if again != response {
            self.wrong.push(format!("Repeat: {targeted:?} was answered {response:?}, then {again:?}"));
        }
        true
    }

    /// Controls a rollout; a user who accepts a digest has read which one runs.
    fn control_rollout(&mut self, rollout_control: RolloutControl, number: u64) {
        let target = self.world.store.all_rollouts().into_iter().find(|it| it.number == number);
        let view = target.and_then(|it| now(self.world.raw().cluster.service(it.target)).ok());
        let image = view.and_then(|view| view.digest).filter(|_| rollout_control == RolloutControl::Accept);
        let command = Command::RolloutControl(rollout_control, 0);
        self.request(TargetedRequest { rollout: Some(number), image, ..TargetedRequest::of(command) });
    }

    fn request(&mut self, targeted: TargetedRequest) {
        self.ask(targeted, self.requests.len());
    }

    fn ask(&mut self, targeted: TargetedRequest, key: usize) {
        let rests = self.world.is_quiescent() && !self.world.has_zombie();
        let (canary, fired) = (self.canary(), self.world.faults.fired());
        let at_rest = rests.then(|| self.model.expected_codes(&targeted, &self.world, &self.manager));
        let response = self.send(&targeted, key);
        let clean = fired == self.world.faults.fired() && !self.denied;
        let code = response.as_ref().map_or_else(ManagerError::code, |_| ACCEPTED);
        let legal = at_rest.filter(|_| clean).unwrap_or_else(|| Model::legal(&targeted));
        if !legal.contains(&code) {
            self.wrong.push(format!("Answer: {targeted:?} is {code}, not one of {legal:?}: {response:?}"));
        }
        self.count(code);
        match &response {
            Ok(accepted) => {
                self.accepted += 1;
                // If a process was paused, the request was in flight twice: the slower one may be rejected because the
                // faster one was accepted.
                self.unsure += usize::from(!clean);
                let canary = canary.filter(|_| clean && self.canary() == canary);
                self.keep(accepted, canary, hosts_of(&targeted.command));
            }
            Err(_) if clean => self.refused += 1,
            Err(_) => self.unsure += 1,
        }
        let requests = (targeted, response, self.world.clock.wall());
        match self.requests.get_mut(key) {
            Some(before) => *before = requests,
            None => self.requests.push(requests),
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
                let deploy = all
                    .into_iter()
                    .find(|it| it.number == *number)
                    .and_then(|it| it.awaited_deploy().cloned());
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

    fn send(&mut self, targeted: &TargetedRequest, key: usize) -> Result<Accepted, ManagerError> {
        let key = IdempotencyKey::parse(&format!("sequence-{key}")).ok();
        self.world.request(|manager, request| {
            send_request(manager, Request { key: key.clone(), ..request }, targeted.clone())
        })
    }

    /// Runs the workers for at most this number of turns.
    fn settle(&mut self, turns: usize) {
        for _ in 0..turns {
            let turn = self.world.run_once();
            if self.world.is_quiescent() {
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

    /// Ends all faults, restores the services, and resolves parked work; then the platform must be at rest in the
    /// expected state.
    fn end(&mut self) {
        self.disarm();
        for image in [BROKEN, UNSCHEDULABLE] {
            self.world.cluster.script(digest(image), ImageScript::default());
        }
        for _ in 0..4 {
            self.world.heal();
            self.denied = false;
            self.world.finish_zombies();
            Color::ALL.into_iter().for_each(|color| self.world.cluster.repair_service(color));
            self.settle(FINAL_TURNS);
            self.check_if_at_rest();
            let waits = self.world.store.all_rollouts().iter().any(|it| it.status.runnable());
            if self.world.is_quiescent() && self.parked_services().is_empty() && !waits {
                break;
            }
            self.resolve_parked();
        }
        self.check_audit();
        if !self.world.is_quiescent() {
            return self.report_unsettled();
        }
        self.world.converge();
        self.check_if_at_rest();
        let violations: Vec<_> = self.world.violations().iter().map(ToString::to_string).collect();
        self.wrong.extend(violations);
        for id in &self.operations {
            match now(self.manager.operation(id)) {
                Ok(at) if at.state.status.is_settled() => {}
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

    /// Reports work that does not come to rest although nothing blocks it.
    fn report_unsettled(&mut self) {
        let live = now(self.world.raw().store.pending_work()).unwrap_or_default();
        let live: Vec<_> = live.into_iter().map(|live| live.subject).collect();
        let grants = self.world.store.all_sites().into_iter().map(|site| (site.id, site.claim_token));
        let grants: Vec<_> = grants.collect();
        self.wrong.push(format!("Rest: {live:?} goes on for ever; {grants:?}"));
    }

    /// Returns the services on which a deploy is parked.
    fn parked_services(&self) -> Vec<Color> {
        let of = |id: OperationId| match id.parent {
            OperationParent::Subject(Subject::Service(color)) => Some(color),
            OperationParent::Subject(Subject::Site(_) | Subject::Fleet) | OperationParent::Rollout(..) => {
                None
            }
        };
        self.world.parked().into_iter().filter_map(of).collect()
    }

    /// Resolves what waits for an operator: ends stopped rollouts, replaces images that never become ready, and retries
    /// everything else.
    fn resolve_parked(&mut self) {
        for rollout in self.world.store.all_rollouts() {
            let changed =
                rollout.reason.as_ref().is_some_and(|reason| reason.code == ReasonCode::DigestChanged);
            match rollout.status {
                RolloutStatus::Waiting if changed => {
                    if rollout.number % 2 == 0 {
                        self.control_rollout(RolloutControl::Accept, rollout.number);
                    }
                    // A bad digest is not accepted.
                    if now(self.manager.get_rollout(rollout.number)).is_ok_and(|it| it.reason.is_some()) {
                        self.control_rollout(RolloutControl::Abort, rollout.number);
                    }
                }
                status if !status.ended() && !status.runnable() => {
                    self.control_rollout(RolloutControl::Abort, rollout.number)
                }
                _ => {}
            }
        }
        let manager = self.parked_services();
        for id in self.world.parked() {
            let replaced = matches!(id.parent, OperationParent::Subject(Subject::Service(_)));
            if !replaced {
                self.request(TargetedRequest {
                    operation: Some(id),
                    ..TargetedRequest::of(Command::Retry(0))
                });
            }
        }
        for color in manager {
            let command = Command::Deploy(1, color, super::commands::AfterDeploy::Flush);
            self.request(TargetedRequest::of(command));
        }
    }

    /// Checks that every mutating request has exactly one audit entry.
    fn check_audit(&mut self) {
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

/// Sends the request.
fn send_request(
    manager: Arc<Manager>,
    request: Request,
    targeted: TargetedRequest,
) -> RequestFuture<Accepted> {
    Box::pin(async move {
        let number = targeted.rollout.unwrap_or_default();
        let nothing = || Err(ManagerError::Invalid("no target".to_owned()));
        match targeted.command {
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
                manager.mark(&request, digest(image), verdict, "set by an operator").await
            }
            Command::Rollout(wanted) => manager.rollout(&request, &wanted, None).await,
            Command::RolloutControl(RolloutControl::Pause, _) => manager.pause(&request, number).await,
            Command::RolloutControl(RolloutControl::Resume, _) => manager.resume(&request, number).await,
            Command::RolloutControl(RolloutControl::Accept, _) => {
                let wanted = Resume { accept: targeted.image, force: Force::No };
                manager.resume_on(&request, number, wanted).await
            }
            Command::RolloutControl(RolloutControl::Abort, _) => manager.abort(&request, number).await,
            Command::RolloutControl(RolloutControl::Retry, _) => {
                manager.retry_rollout(&request, number).await
            }
            Command::Cancel(_) => match &targeted.operation {
                Some(id) => manager.cancel(&request, id).await,
                None => nothing(),
            },
            Command::Retry(_) => match &targeted.operation {
                Some(id) => manager.retry(&request, id).await,
                None => nothing(),
            },
            _ => nothing(),
        }
    })
}

/// Returns the name of a fault in the histogram.
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
