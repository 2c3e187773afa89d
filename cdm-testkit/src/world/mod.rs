//! A whole platform in memory, with processes that die, stand still and go on, on a clock that only moves when nobody
//! can do anything.

mod hooks;
mod rest;
mod scenario;
mod summary;
mod zombie;

pub use scenario::{Scenario, scenarios};
pub use summary::Summary;
pub use zombie::{Wake, Woken, zombie};

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cdm_core::domain::{
    Actor, Color, Digest, Hostnames, IdempotencyKey, MonotonicTime, Role, SiteId, SiteName, Theme, Timestamp,
    WorkerId,
};
use cdm_core::engine::{Registry, RunSummary, Settings, Worker};
use cdm_core::manager::{Accepted, DeployRequest, Manager, ManagerError, NewSite, Request};
use cdm_core::pipelines::{PipelineSettings, Rollouts, registry};
use cdm_core::ports::{Clock, Ports};

use crate::check::{Checker, Violation};
use crate::clock::SimClock;
use crate::fakes::{FakeCluster, FakeDatabases, FakeObjects, FakeProbe, FakeSecrets, FakeStore};
use crate::faults::{FaultInjector, Halt, faulty};
use crate::ids::SeededIds;
use crate::log::EffectLog;

type Running = Pin<Box<dyn Future<Output = ()>>>;
/// A request's future.
pub type Asking<T> = Pin<Box<dyn Future<Output = Result<T, ManagerError>>>>;

/// The simulated platform.
#[derive(Debug)]
pub struct World {
    /// Time.
    pub clock: SimClock,
    /// Everything that happened.
    pub log: EffectLog,
    /// What must hold after every effect.
    pub checker: Checker,
    /// Between the core and every port.
    pub faults: FaultInjector,
    /// Records and journal.
    pub store: FakeStore,
    /// Credentials.
    pub secrets: FakeSecrets,
    /// Files.
    pub objects: FakeObjects,
    /// Databases.
    pub databases: FakeDatabases,
    /// Services, routes, jobs.
    pub cluster: FakeCluster,
    /// What sites answer.
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
    worker_stood_still: bool,
    keys: u64,
    foreign: Vec<String>,
}

/// One process of the platform: a worker, and the services that a frontend would hold.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its worker.
    pub worker: Arc<Worker>,
    /// Its services.
    pub manager: Arc<Manager>,
}

#[derive(Default)]
struct Zombies(Vec<Running>);

impl std::fmt::Debug for Zombies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} processes that stand still", self.0.len())
    }
}

/// How long a future was driven.
enum Driven<T> {
    Done(T),
    Crashed,
    Paused,
}

/// How many times a future is polled before it counts as stuck.
const POLLS: usize = 200_000;
/// After how many turns someone looks what is wrong, and mends it.
const PATIENCE: usize = 200;
/// How many turns a world may take to come to rest.
const TURNS: usize = 1_500;
/// How often a client asks that does not give up.
const ASKS: usize = 200;

impl World {
    /// A platform with both colours running `digest(0)`, blue the canary.
    pub fn new(seed: u64) -> Self {
        let world = Self::bare(seed);
        for color in Color::ALL {
            world.cluster.install(color, digest(0));
        }
        world
    }

    /// A platform whose two services run nothing yet, blue the canary.
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
        faults.check_with(Arc::new(move || check.called()));
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
            worker_stood_still: false,
            keys: 0,
            foreign: Vec::new(),
        }
    }

    /// The ports without the gate.
    pub const fn raw(&self) -> &Ports {
        &self.raw
    }

    /// The ports behind the gate.
    pub const fn ports(&self) -> &Ports {
        &self.ports
    }

    /// The process that runs now.
    pub fn process(&self) -> Process {
        self.process.clone()
    }

    /// Another process on the same platform.
    pub fn start(&mut self) -> Process {
        self.processes += 1;
        let process = start(&self.ports, &self.registry, &self.rollouts, &self.settings, self.processes);
        self.workers.push(Arc::clone(&process.worker));
        process
    }

    /// The process that runs now is gone; another one takes its place.
    pub fn restart(&mut self) {
        self.process = self.start();
    }

    /// Polls a future until it is done or its process is stopped. Where it can do nothing, time passes.
    fn drive<T: 'static>(&mut self, future: impl Future<Output = T> + 'static) -> Driven<T> {
        let mut future: Pin<Box<dyn Future<Output = T>>> = Box::pin(future);
        let waker = Waker::noop();
        for _ in 0..POLLS {
            self.wake_zombies();
            if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(waker)) {
                let _ = self.faults.take_halt();
                return Driven::Done(value);
            }
            match self.faults.take_halt() {
                Some(Halt::Crashed) => return Driven::Crashed,
                Some(Halt::Paused) => {
                    self.paused_at = self.clock.monotonic();
                    self.worker_stood_still = self.in_turn;
                    self.zombies.0.push(Box::pin(async move { drop(future.await) }));
                    return Driven::Paused;
                }
                None => self.let_time_pass(),
            }
        }
        panic!("a future was polled {POLLS} times and is not done");
    }

    fn let_time_pass(&self) {
        let next = [self.clock.next_sleeper(), self.cluster.next_event()].into_iter().flatten().min();
        match next {
            Some(next) if next > self.clock.monotonic() => self.clock.advance_to(next),
            Some(_) | None => self.clock.advance(Duration::from_millis(1)),
        }
    }

    /// Lets processes that stood still go on, if they may.
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
        if lost && self.worker_stood_still {
            self.late_changes += self.faults.changes() - before;
        }
    }

    /// Lets processes that stood still go on to their end.
    pub fn finish_zombies(&mut self) {
        self.faults.release();
        for _ in 0..2_000 {
            if self.zombies.0.is_empty() {
                return;
            }
            self.wake_zombies();
            self.let_time_pass();
        }
        // A worker's turn that lost everything ends; one that goes on for ever is cut off like a process.
        self.zombies.0.clear();
    }

    /// Asks the services something, as a client that does not give up: the process may die under it, the answer may be
    /// lost, and then it asks again under the same key.
    ///
    /// # Errors
    /// The services' refusal.
    pub fn ask<T: 'static>(
        &mut self,
        request: impl Fn(Arc<Manager>, Request) -> Asking<T>,
    ) -> Result<T, ManagerError> {
        self.keys += 1;
        let key = IdempotencyKey::parse(&format!("key-{}", self.keys)).ok();
        let request_of = Request { key, ..Request::by(actor(), Role::Admin) };
        for attempt in 0..ASKS {
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
                Driven::Done(answer) => return answer,
                Driven::Crashed | Driven::Paused => self.restart(),
            }
        }
        panic!("nobody answers a request");
    }

    /// Nothing goes wrong any more, and what was late arrives.
    pub fn heal(&mut self) {
        let gate = self.faults.clone();
        let _ = self.drive(async move { gate.heal().await });
    }

    /// Lets the worker look once; what it ran, unless its process was stopped.
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

    /// Whether no worker has anything to do before a person says something.
    pub fn rests(&self) -> bool {
        self.live().iter().all(|live| self.waits_for_a_word(&live.subject))
    }

    fn live(&self) -> Vec<cdm_core::ports::PendingWork> {
        now(self.raw.store.pending_work()).unwrap_or_default()
    }

    /// Lets the workers work until nobody has anything to do.
    pub fn run(&mut self) {
        for number in 1..=TURNS {
            let turn = self.run_once();
            if self.rests() {
                return;
            }
            if number == PATIENCE {
                self.heal();
            }
            // What waits for an operation that is parked waits for a person.
            if number > PATIENCE + PATIENCE / 4 && !self.parked().is_empty() {
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
        panic!("the world does not come to rest: {:#?}", self.live());
    }

    /// Lets faults end: what was late arrives, who stood still goes on, and whatever is parked is retried once it can
    /// succeed.
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
                let _ = self.ask(move |manager, request| {
                    let id = id.clone();
                    Box::pin(async move { manager.retry(&request, &id).await })
                });
            }
            self.run();
        }
    }

    /// Everything that is broken: after any effect so far, or now, at rest.
    pub fn violations(&mut self) -> Vec<Violation> {
        let mut found = self.checker.violations();
        found.extend(rest::violations(self));
        found
    }

    /// Puts things of a stranger beside those of the site: they must still be there in the end.
    pub fn surround(&mut self, id: &str) {
        let Some(site) = self.store.all_sites().into_iter().find(|site| site.id.as_str() == id) else {
            return;
        };
        let uid = site.uid.to_string();
        let (stem, last) = uid.split_at(uid.len() - 1);
        let neighbour = if last == "0" { "1" } else { "0" };
        for key in [format!("sites/{stem}{neighbour}/index.php"), format!("sites/{stem}{neighbour}/.cdm")] {
            self.objects.seed(key.clone());
            self.foreign.push(key);
        }
    }

    /// Keys of strangers that [`World::surround`] put there.
    pub fn foreign(&self) -> &[String] {
        &self.foreign
    }

    /// Creates a site `id` at `<id>.example.org`.
    ///
    /// # Errors
    /// The services' refusal.
    pub fn create(&mut self, id: &str) -> Result<Accepted, ManagerError> {
        let new = new_site(id);
        self.ask(move |manager, request| {
            let new = new.clone();
            Box::pin(async move { manager.create_site(&request, &new).await })
        })
    }

    /// Creates and provisions a site, and waits for it.
    ///
    /// # Panics
    /// When it is refused.
    pub fn settle_site(&mut self, id: &str) {
        self.create(id).unwrap_or_else(|error| panic!("`{id}` is not created: {error}"));
        self.run();
        self.on_site(id, Verb::Provision)
            .unwrap_or_else(|error| panic!("`{id}` is not provisioned: {error}"));
        self.run();
    }

    /// Asks for something to be done to a site.
    ///
    /// # Errors
    /// The services' refusal.
    pub fn on_site(&mut self, id: &str, verb: Verb) -> Result<Accepted, ManagerError> {
        let id = site_id(id);
        self.ask(move |manager, request| {
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

    /// Makes a colour the canary.
    ///
    /// # Errors
    /// The services' refusal.
    pub fn select(&mut self, color: Color) -> Result<(), ManagerError> {
        self.ask(move |manager, request| {
            Box::pin(async move { manager.select(&request, color).await.map(drop) })
        })
    }

    /// Deploys a digest.
    ///
    /// # Errors
    /// The services' refusal.
    pub fn deploy(
        &mut self,
        digest: Digest,
        service: Color,
        promote: bool,
    ) -> Result<Accepted, ManagerError> {
        let deploy = DeployRequest { digest, service: Some(service), promote };
        self.ask(move |manager, request| Box::pin(async move { manager.deploy(&request, deploy).await }))
    }

    /// Changes a site's record behind everyone's back.
    ///
    /// # Panics
    /// When there is no such site.
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

    /// Now, as people read it.
    pub fn wall(&self) -> Timestamp {
        self.clock.wall()
    }
}

/// What may be asked of a site that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Make it live.
    Provision,
    /// Assign it to the canary.
    Upgrade,
    /// Move it to the canary.
    Promote,
    /// Remove it.
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

/// The value of a future that never waits.
///
/// # Panics
/// When it waits.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a future waits that should not"),
    }
}

/// The digest of the `n`th image.
///
/// # Panics
/// Never: the text is a digest.
pub fn digest(n: u8) -> Digest {
    Digest::parse(&format!("{n:02x}").repeat(32)).unwrap_or_else(|error| panic!("{error}"))
}

fn site_id(id: &str) -> SiteId {
    SiteId::parse(id).unwrap_or_else(|error| panic!("{error}"))
}

fn actor() -> Actor {
    crate::build::actor()
}

/// The site `id`, to be served at `<id>.example.org` and `www.<id>.example.org`.
///
/// # Panics
/// When `id` is no site id.
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
