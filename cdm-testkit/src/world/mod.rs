//! An in-memory platform with processes that crash, pause and resume, on a clock that advances only when no
//! future can make progress.

mod quiescence;
mod scenario;
mod summary;
mod zombie;

pub use scenario::{Scenario, scenarios};
pub use summary::Summary;
pub use zombie::{Wake, ZombieOutcome, zombie};

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cdm_core::domain::webhook::{SigningKey, Topic, Webhook};
use cdm_core::domain::{
    Actor, Color, Digest, Hostnames, IdempotencyKey, MonotonicTime, Role, SiteId, SiteName, Theme, Timestamp,
    WorkerId,
};
use cdm_core::engine::{Registry, RunSummary, Settings, WebhookDispatcher, Worker};
use cdm_core::manager::{Accepted, DeployRequest, Manager, ManagerError, NewSite, NewWebhook, Request};
use cdm_core::pipelines::{PipelineSettings, Rollouts, registry};
use cdm_core::ports::{Clock, Ports};

use crate::check::{Checker, Violation};
use crate::clock::SimClock;
use crate::fakes::{
    FakeCluster, FakeDatabases, FakeObjects, FakeProbe, FakeSecrets, FakeStore, FakeWebhookSender,
};
use crate::faults::{FaultInjector, Halt, faulty};
use crate::ids::SeededIds;
use crate::log::EffectLog;

type ProcessFuture = Pin<Box<dyn Future<Output = ()>>>;
/// The future of a request to a [`Manager`].
pub type RequestFuture<T> = Pin<Box<dyn Future<Output = Result<T, ManagerError>>>>;

/// A simulated platform: the fakes of all ports, one clock, and processes that tests start and crash.
#[derive(Debug)]
pub struct World {
    /// The clock of all processes and fakes.
    pub clock: SimClock,
    /// Every effect on the fakes, in order, of all processes.
    pub log: EffectLog,
    /// Checks the invariants after every effect.
    pub checker: Checker,
    /// Injects faults between the core and every port.
    pub faults: FaultInjector,
    /// Records and the journal.
    pub store: FakeStore,
    /// The secrets, with their values.
    pub secrets: FakeSecrets,
    /// The objects of the sites.
    pub objects: FakeObjects,
    /// The databases of the sites.
    pub databases: FakeDatabases,
    /// The canary, services, routes and jobs.
    pub cluster: FakeCluster,
    /// The health probe, which responds as the sites would.
    pub probe: FakeProbe,
    raw: Ports,
    ports: Ports,
    registry: Arc<Registry>,
    rollouts: Arc<Rollouts>,
    settings: Settings,
    process: Process,
    workers: Vec<Arc<Worker>>,
    processes: u32,
    zombies: Zombies,
    wake_at: Option<usize>,
    paused_at: MonotonicTime,
    late_changes: u64,
    in_turn: bool,
    worker_paused: bool,
    keys: u64,
    foreign: Vec<String>,
}

/// One process of the platform: a worker, and the manager that a frontend would use.
#[derive(Clone, Debug)]
pub struct Process {
    /// The worker of this process.
    pub worker: Arc<Worker>,
    /// The manager of this process.
    pub manager: Arc<Manager>,
}

#[derive(Default)]
struct Zombies(Vec<ProcessFuture>);

impl std::fmt::Debug for Zombies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} processes that stand still", self.0.len())
    }
}

/// How the polling of a future ended.
enum Driven<T> {
    Done(T),
    Crashed,
    Paused,
}

/// Maximum polls of a future before it counts as stuck.
const MAX_POLLS: usize = 200_000;
/// After this many turns, faults are healed, as a person on call would do.
const TURNS_BEFORE_HEAL: usize = 200;
/// Maximum turns until the platform must be quiescent.
const MAX_TURNS: usize = 1_500;
/// Maximum attempts of a client that does not give up.
const MAX_ATTEMPTS: usize = 200;

impl World {
    /// Creates a platform with both services running `digest(0)` and blue as the canary.
    pub fn new(seed: u64) -> Self {
        let world = Self::bare(seed);
        for color in Color::ALL {
            world.cluster.install(color, digest(0));
        }
        world
    }

    /// Creates a platform with services that run nothing yet, and blue as the canary.
    pub fn bare(seed: u64) -> Self {
        let clock = SimClock::new();
        let log = EffectLog::new();
        let store = FakeStore::new(log.clone(), clock.clone());
        let secrets = FakeSecrets::new(log.clone(), clock.clone());
        let objects = FakeObjects::new(log.clone(), clock.clone());
        let databases = FakeDatabases::new(log.clone(), clock.clone());
        let cluster = FakeCluster::new(log.clone(), clock.clone()).with_databases(databases.clone());
        let probe = FakeProbe::new(Arc::new(cluster.clone()), clock.clone());
        let raw = Ports {
            store: Arc::new(store.clone()),
            secrets: Arc::new(secrets.clone()),
            objects: Arc::new(objects.clone()),
            databases: Arc::new(databases.clone()),
            cluster: Arc::new(cluster.clone()),
            probe: Arc::new(probe.clone()),
            clock: Arc::new(clock.clone()),
            entropy: Arc::new(SeededIds::new(seed)),
        };
        let faults = FaultInjector::default();
        let checker = Checker::new(log.clone(), clock.clone());
        let check = checker.clone();
        faults.check_with(Arc::new(move || check.after_call()));
        faults.timed_by(clock.clone());
        let ports = faulty(&raw, &faults);
        let platform = PipelineSettings::default();
        let registry = Arc::new(registry(&platform));
        let rollouts = Arc::new(Rollouts::new(platform));
        let settings = Settings::default();
        let process = start(&ports, &registry, &rollouts, &settings, 1);
        Self {
            clock,
            log,
            checker,
            faults,
            store,
            secrets,
            objects,
            databases,
            cluster,
            probe,
            raw,
            ports,
            registry,
            rollouts,
            settings,
            workers: vec![Arc::clone(&process.worker)],
            process,
            processes: 1,
            zombies: Zombies::default(),
            wake_at: None,
            paused_at: MonotonicTime::default(),
            late_changes: 0,
            in_turn: false,
            worker_paused: false,
            keys: 0,
            foreign: Vec::new(),
        }
    }

    /// Returns the ports without fault injection.
    pub const fn raw(&self) -> &Ports {
        &self.raw
    }

    /// Returns the ports with fault injection.
    pub const fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Returns the current process.
    pub fn process(&self) -> Process {
        self.process.clone()
    }

    /// Starts another process on the same platform.
    pub fn start(&mut self) -> Process {
        self.processes += 1;
        let process = start(&self.ports, &self.registry, &self.rollouts, &self.settings, self.processes);
        self.workers.push(Arc::clone(&process.worker));
        process
    }

    /// Replaces the current process with a new one.
    pub fn restart(&mut self) {
        self.process = self.start();
    }

    /// Polls a future until it is ready or its process stops. Advances the clock when the future is pending.
    fn drive<T: 'static>(&mut self, future: impl Future<Output = T> + 'static) -> Driven<T> {
        let mut future: Pin<Box<dyn Future<Output = T>>> = Box::pin(future);
        let waker = Waker::noop();
        for _ in 0..MAX_POLLS {
            self.wake_zombies();
            if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(waker)) {
                let _ = self.faults.take_halt();
                return Driven::Done(value);
            }
            match self.faults.take_halt() {
                Some(Halt::Crashed) => return Driven::Crashed,
                Some(Halt::Paused) => {
                    self.paused_at = self.clock.monotonic();
                    self.worker_paused = self.in_turn;
                    self.zombies.0.push(Box::pin(async move { drop(future.await) }));
                    return Driven::Paused;
                }
                None => self.advance_clock(),
            }
        }
        panic!("a future is still pending after {MAX_POLLS} polls");
    }

    fn advance_clock(&self) {
        let next = [self.clock.next_sleeper(), self.cluster.next_event()].into_iter().flatten().min();
        match next {
            Some(next) if next > self.clock.monotonic() => self.clock.advance_to(next),
            Some(_) | None => self.clock.advance(Duration::from_millis(1)),
        }
    }

    /// Polls paused processes if they may resume.
    fn wake_zombies(&mut self) {
        if self.zombies.0.is_empty() {
            return;
        }
        if self.wake_at.is_some_and(|effects| effects <= self.log.len()) {
            self.wake_at = None;
            self.faults.release();
        }
        if !self.faults.released() {
            return;
        }
        let lost = self.clock.monotonic().since(self.paused_at) > self.settings.lease;
        let before = self.faults.changes();
        let mut zombies = std::mem::take(&mut self.zombies.0);
        zombies.retain_mut(|zombie| {
            let pending = zombie.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
            let halt = self.faults.take_halt();
            pending && halt != Some(Halt::Crashed)
        });
        self.zombies.0.append(&mut zombies);
        if lost && self.worker_paused {
            self.late_changes += self.faults.changes() - before;
        }
    }

    /// Resumes paused processes and runs them to their end.
    pub fn finish_zombies(&mut self) {
        self.faults.release();
        for _ in 0..2_000 {
            if self.zombies.0.is_empty() {
                return;
            }
            self.wake_zombies();
            self.advance_clock();
        }
        // A worker that lost its work ends its turn. One that never ends is cut off, as a process would be.
        self.zombies.0.clear();
    }

    /// Sends a request like a client that does not give up: if the process stops or the response is lost, it
    /// repeats the request with the same idempotency key.
    ///
    /// # Errors
    /// Returns the error of the manager.
    pub fn request<T: 'static>(
        &mut self,
        request: impl Fn(Arc<Manager>, Request) -> RequestFuture<T>,
    ) -> Result<T, ManagerError> {
        self.keys += 1;
        let key = IdempotencyKey::parse(&format!("key-{}", self.keys)).ok();
        let request_of = Request { key, ..Request::by(actor(), Role::Admin) };
        for attempt in 0..MAX_ATTEMPTS {
            let manager = Arc::clone(&self.process.manager);
            match self.drive(request(manager, request_of.clone())) {
                Driven::Done(Err(
                    ManagerError::Unavailable(_) | ManagerError::Denied(_) | ManagerError::Unknown,
                )) => {
                    let pause = u64::try_from(attempt).unwrap_or(u64::MAX).clamp(1, 60);
                    self.clock.advance(Duration::from_secs(pause));
                    if attempt > 2 {
                        self.heal();
                    }
                }
                Driven::Done(result) => return result,
                Driven::Crashed | Driven::Paused => self.restart(),
            }
        }
        panic!("a request received no response");
    }

    /// Ends all injected faults except an outage; see [`FaultInjector::heal`].
    pub fn heal(&mut self) {
        let injector = self.faults.clone();
        let _ = self.drive(async move { injector.heal().await });
    }

    /// Runs one turn of the worker. Returns `None` if its process stopped.
    pub fn run_once(&mut self) -> Option<RunSummary> {
        let worker = Arc::clone(&self.process.worker);
        self.in_turn = true;
        let driven = self.drive(async move { worker.run_once().await });
        self.in_turn = false;
        match driven {
            Driven::Done(turn) => Some(turn),
            Driven::Crashed | Driven::Paused => {
                self.restart();
                None
            }
        }
    }

    /// Returns whether no worker has anything to do without a request by a person.
    pub fn is_quiescent(&self) -> bool {
        self.pending_work().iter().all(|work| self.waits_for_operator(&work.subject))
    }

    fn pending_work(&self) -> Vec<cdm_core::ports::PendingWork> {
        now(self.raw.store.pending_work()).unwrap_or_default()
    }

    /// Runs the workers until they have nothing to do.
    pub fn run(&mut self) {
        for number in 1..=MAX_TURNS {
            let turn = self.run_once();
            if self.is_quiescent() {
                return;
            }
            if number == TURNS_BEFORE_HEAL {
                self.heal();
            }
            // An operation may wait for a parked operation, and that one for a person.
            if number > TURNS_BEFORE_HEAL + TURNS_BEFORE_HEAL / 4 && !self.parked().is_empty() {
                return;
            }
            let Some(turn) = turn else { continue };
            if turn.ran == 0 {
                let next_poll_at = turn.next_poll_at.map(|at| at.since(self.clock.wall()));
                let event = self.cluster.next_event().map(|at| at.since(self.clock.monotonic()));
                let pause =
                    [next_poll_at, event].into_iter().flatten().filter(|pause| !pause.is_zero()).min();
                self.clock.advance(pause.unwrap_or(Duration::from_secs(2)).min(Duration::from_secs(30)));
            }
        }
        panic!("the platform does not become quiescent: {:#?}", self.pending_work());
    }

    /// Lets faults end: delayed calls take effect, paused processes resume, and parked operations are retried.
    pub fn converge(&mut self) {
        self.run();
        for _ in 0..6 {
            self.heal();
            self.finish_zombies();
            self.run();
            let parked = self.parked();
            if parked.is_empty() {
                return;
            }
            for id in parked {
                let _ = self.request(move |manager, request| {
                    let id = id.clone();
                    Box::pin(async move { manager.retry(&request, &id).await })
                });
            }
            self.run();
        }
    }

    /// Returns all violations: after each effect so far, and in the current quiescent state.
    pub fn violations(&mut self) -> Vec<Violation> {
        let mut found = self.checker.violations();
        found.extend(quiescence::violations(self));
        found
    }

    /// Adds objects of another site whose uid differs in the last character. They must still exist in the end.
    pub fn add_neighbor_objects(&mut self, id: &str) {
        let Some(site) = self.store.all_sites().into_iter().find(|site| site.id.as_str() == id) else {
            return;
        };
        let uid = site.uid.to_string();
        let (stem, last) = uid.split_at(uid.len() - 1);
        let neighbor = if last == "0" { "1" } else { "0" };
        for key in [format!("sites/{stem}{neighbor}/index.php"), format!("sites/{stem}{neighbor}/.cdm")] {
            self.objects.seed(key.clone());
            self.foreign.push(key);
        }
    }

    /// Returns the keys that [`World::add_neighbor_objects`] added.
    pub fn foreign(&self) -> &[String] {
        &self.foreign
    }

    /// Creates a site `id` at `<id>.example.org`.
    ///
    /// # Errors
    /// Returns the error of [`Manager::create_site`].
    pub fn create(&mut self, id: &str) -> Result<Accepted, ManagerError> {
        let new = new_site(id);
        self.request(move |manager, request| {
            let new = new.clone();
            Box::pin(async move { manager.create_site(&request, &new).await })
        })
    }

    /// Creates and provisions a site, and waits until it is active.
    ///
    /// # Panics
    /// Panics if a request is rejected.
    pub fn create_active_site(&mut self, id: &str) {
        self.create(id).unwrap_or_else(|error| panic!("`{id}` was not created: {error}"));
        self.run();
        self.on_site(id, Verb::Provision)
            .unwrap_or_else(|error| panic!("`{id}` was not provisioned: {error}"));
        self.run();
    }

    /// Requests an operation on a site.
    ///
    /// # Errors
    /// Returns the error of the manager.
    pub fn on_site(&mut self, id: &str, verb: Verb) -> Result<Accepted, ManagerError> {
        let id = site_id(id);
        self.request(move |manager, request| {
            let id = id.clone();
            Box::pin(async move {
                match verb {
                    Verb::Provision => manager.provision(&request, &id).await,
                    Verb::Upgrade => manager.upgrade(&request, &id).await,
                    Verb::Promote => manager.promote(&request, &id).await,
                    Verb::Terminate => manager.terminate(&request, &id).await,
                }
            })
        })
    }

    /// Makes a service the canary.
    ///
    /// # Errors
    /// Returns the error of [`Manager::select`].
    pub fn select(&mut self, color: Color) -> Result<(), ManagerError> {
        self.request(move |manager, request| {
            Box::pin(async move { manager.select(&request, color).await.map(drop) })
        })
    }

    /// Deploys a digest to a service, and promotes the sites if `promote` is set.
    ///
    /// # Errors
    /// Returns the error of [`Manager::deploy`].
    pub fn deploy(
        &mut self,
        digest: Digest,
        service: Color,
        promote: bool,
    ) -> Result<Accepted, ManagerError> {
        let deploy = DeployRequest { digest, service: Some(service), promote };
        self.request(move |manager, request| Box::pin(async move { manager.deploy(&request, deploy).await }))
    }

    /// Returns a webhook dispatcher of the current process.
    pub fn dispatcher(&self, sender: &FakeWebhookSender) -> Arc<WebhookDispatcher> {
        Arc::new(WebhookDispatcher::new(Arc::clone(&self.process.worker), Arc::new(sender.clone())))
    }

    /// Creates a webhook for these topics, or for the default topics if `topics` is empty.
    ///
    /// # Errors
    /// Returns the error of [`Manager::create_webhook`].
    pub fn add_webhook(
        &mut self,
        url: &str,
        topics: &[Topic],
    ) -> Result<(Webhook, SigningKey), ManagerError> {
        let desired = NewWebhook { url: url.to_owned(), topics: topics.to_vec() };
        self.request(move |manager, request| {
            let desired = desired.clone();
            Box::pin(async move { manager.create_webhook(&request, &desired).await })
        })
    }

    /// Changes a site's record without the manager.
    ///
    /// # Panics
    /// Panics if the site does not exist.
    pub fn edit_site(&mut self, id: &str, edit: impl FnOnce(&mut cdm_core::domain::Site)) {
        let sites = self.store.all_sites();
        let mut site =
            sites.into_iter().find(|site| site.id.as_str() == id).unwrap_or_else(|| panic!("no site `{id}`"));
        edit(&mut site);
        let call = cdm_core::ports::CallContext {
            deadline: self.clock.monotonic(),
            write: self.raw.entropy.write(),
            fence: cdm_core::domain::Fence::default(),
        };
        let batch = cdm_core::ports::WriteBatch::of(vec![cdm_core::ports::Mutation::Site(Box::new(site))]);
        let written = now(self.raw.store.write(&call, &batch));
        assert_eq!(written, cdm_core::ports::Outcome::Applied(()), "`{id}` is edited");
    }

    /// Returns the wall-clock time.
    pub fn wall(&self) -> Timestamp {
        self.clock.wall()
    }
}

/// An operation that can be requested for an existing site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Installs WordPress on the site and creates its route.
    Provision,
    /// Assigns the site to the canary.
    Upgrade,
    /// Moves the site to the canary.
    Promote,
    /// Removes the site with its data.
    Terminate,
}

fn start(
    ports: &Ports,
    registry: &Arc<Registry>,
    rollouts: &Arc<Rollouts>,
    settings: &Settings,
    number: u32,
) -> Process {
    let id = WorkerId::new(&format!("worker-{number}"));
    let rollouts: Arc<dyn cdm_core::engine::RolloutDriver> = rollouts.clone();
    let worker = Worker::new(id, ports.clone(), Arc::clone(registry), rollouts, settings.clone());
    let manager = Manager::new(ports.clone(), Arc::clone(registry), settings.clone());
    Process { worker: Arc::new(worker), manager: Arc::new(manager) }
}

/// Returns the value of a future that is ready on its first poll.
///
/// # Panics
/// Panics if the future is pending.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a future is pending that should be ready"),
    }
}

/// Returns the digest of image number `n`.
///
/// # Panics
/// Never panics: the text is a valid digest.
pub fn digest(n: u8) -> Digest {
    Digest::parse(&format!("{n:02x}").repeat(32)).unwrap_or_else(|error| panic!("{error}"))
}

fn site_id(id: &str) -> SiteId {
    SiteId::parse(id).unwrap_or_else(|error| panic!("{error}"))
}

fn actor() -> Actor {
    crate::fixtures::actor()
}

/// Returns a request for the site `id` at `<id>.example.org` and `www.<id>.example.org`.
///
/// # Panics
/// Panics if `id` is not a valid site id.
pub fn new_site(id: &str) -> NewSite {
    let host = format!("{id}.example.org");
    let hosts = [host.clone(), format!("www.{host}")];
    let parse = || -> Result<NewSite, cdm_core::domain::NameError> {
        Ok(NewSite {
            id: SiteId::parse(id)?,
            name: SiteName::parse(&format!("Site {id}"))?,
            theme: Theme::parse("plain")?,
            hostnames: Hostnames::parse(&hosts, &host)?,
            service: None,
        })
    };
    parse().unwrap_or_else(|error| panic!("{error}"))
}
