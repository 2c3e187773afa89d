//! A store that outlives its workers, and workers that are killed while they use it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::{
    Actor, Color, Digest, Hostnames, Operation, OperationId, Role, SiteId, SiteName, Theme,
};
use cdm_core::manager::{Accepted, ManagerError, NewSite, Request};
use cdm_core::ports::{Clock, Ports};
use cdm_testkit::clock::SimClock;
use cdm_testkit::fakes::FakeCluster;
use cdm_testkit::faults::{CallSite, Fault, FaultInjector, Plan, faulty};
use cdm_testkit::log::{EffectKind, EffectLog};

use crate::ExampleResult;
use crate::driver::Driver;
use crate::process::{Process, in_memory, wait_until_settled};

/// A point at which a worker is killed.
#[derive(Clone, Copy)]
pub(super) struct Kill {
    /// Number of port calls before that point.
    pub(super) after: usize,
    /// The port call at that point.
    pub(super) at: CallSite,
    /// Before the call, or between its effect and its response.
    pub(super) fault: Fault,
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.fault {
            Fault::CrashAfterEffect => "after `{}` took effect, before its response",
            _ => "before `{}`",
        };
        write!(f, "{}, its port call {}", side.replace("{}", self.at.name), self.after + 1)
    }
}

/// A platform with one created site, and an accepted request to provision it.
pub(super) struct Scenario {
    clock: SimClock,
    log: EffectLog,
    ports: Ports,
    driver: Driver,
    /// A process that only accepts requests; it outlives the workers.
    frontend: Process,
    provision: OperationId,
}

impl Scenario {
    /// Number of objects that a provision creates: two secrets, a database, a marker, a route and two jobs.
    pub(super) const CREATED: usize = 7;

    pub(super) fn new() -> ExampleResult<Self> {
        let (clock, log) = (SimClock::new(), EffectLog::new());
        let cluster = FakeCluster::new(log.clone(), clock.clone());
        for color in Color::ALL {
            cluster.install(color, Digest::parse(&"a1".repeat(32))?);
        }
        let ports = in_memory(Arc::new(cluster), &clock, &log);
        let frontend = Process::new("frontend", &ports);
        let mut driver = Driver::new(clock.clone());
        let provision = driver.block_on(accept(&frontend, &new_site()?))?;
        Ok(Self { clock, log, ports, driver, frontend, provision })
    }

    /// Returns the port calls of a worker that provisions the site without a fault.
    pub(super) fn calls_of_a_provision(&mut self) -> ExampleResult<Vec<CallSite>> {
        let injector = FaultInjector::default();
        let worker = Process::new("worker-1", &faulty(&self.ports, &injector)).worker;
        injector.start_trace();
        self.driver.spawn(async move { worker.run().await });
        self.wait_until_settled()?;
        Ok(injector.trace())
    }

    /// Runs a worker until it is killed, and returns the operation as the worker left it.
    pub(super) fn provision_until(&mut self, kill: Kill) -> ExampleResult<Operation> {
        let injector = FaultInjector::default();
        injector.arm(Plan(vec![(kill.after, kill.fault)]));
        let worker = Process::new("worker-1", &faulty(&self.ports, &injector)).worker;
        let doomed = self.driver.spawn(async move { worker.run().await });
        let settled = wait_until_settled(&self.ports, &self.frontend.manager, &self.provision);
        // The injector holds the fatal call forever; dropping the worker at that point is its death.
        if let Some(settled) = self.driver.block_on_unless(settled, || injector.take_halt().is_some()) {
            return Err(format!(
                "the worker was to be killed {kill}, but the operation was {} first",
                settled?.state.status
            )
            .into());
        }
        self.driver.kill(doomed);
        self.operation()
    }

    /// Runs another worker until the operation ends; returns the operation, and the time until it was taken over.
    pub(super) fn resume(&mut self, before: &Operation) -> ExampleResult<(Operation, Duration)> {
        let died = self.clock.monotonic();
        let worker = Process::new("worker-2", &self.ports).worker;
        self.driver.spawn(async move { worker.run().await });
        let manager = Arc::clone(&self.frontend.manager);
        let clock = &self.ports.clock;
        let taken_over = async {
            loop {
                let now = manager.operation(&self.provision).await?;
                if now.state.epoch > before.state.epoch || now.state.status.is_settled() {
                    return Ok::<_, ManagerError>(clock.monotonic().since(died));
                }
                clock.sleep_until(clock.monotonic().after(Duration::from_millis(100))).await;
            }
        };
        let takeover = self.driver.block_on(taken_over)?;
        Ok((self.wait_until_settled()?, takeover))
    }

    /// Returns the created objects, and how often each was created.
    pub(super) fn created(&self) -> BTreeMap<String, u32> {
        let mut created = BTreeMap::new();
        for effect in self.log.since(0) {
            let what = match effect.kind {
                EffectKind::SecretCreated(name) => format!("secret {:?}", name.kind),
                EffectKind::DatabaseEnsured { created: true, .. } => "database".to_owned(),
                EffectKind::MarkerPut(_) => "marker of its files".to_owned(),
                EffectKind::RouteCreated(..) => "route".to_owned(),
                EffectKind::JobStarted(_, _, word) => format!("job {word}"),
                _ => continue,
            };
            *created.entry(what).or_default() += 1;
        }
        created
    }

    fn operation(&mut self) -> ExampleResult<Operation> {
        Ok(self.driver.block_on(self.frontend.manager.operation(&self.provision))?)
    }

    fn wait_until_settled(&mut self) -> ExampleResult<Operation> {
        Ok(self.driver.block_on(wait_until_settled(&self.ports, &self.frontend.manager, &self.provision))?)
    }
}

/// Creates the site, and requests its provision.
async fn accept(frontend: &Process, new: &NewSite) -> ExampleResult<OperationId> {
    let request = Request::by(Actor::parse("operator")?, Role::Admin);
    frontend.manager.create_site(&request, new).await?;
    // A create does not wait for anything, so one run of a worker completes it.
    frontend.worker.run_once().await;
    match frontend.manager.provision(&request, &new.id).await? {
        Accepted::Operation(id) => Ok(id),
        Accepted::Rollout(_) | Accepted::Freeze(_) | Accepted::Webhook(_) | Accepted::Done => {
            Err("a provision is an operation".into())
        }
    }
}

fn new_site() -> ExampleResult<NewSite> {
    Ok(NewSite {
        id: SiteId::parse("shop")?,
        name: SiteName::parse("The Shop")?,
        theme: Theme::parse("plain")?,
        hostnames: Hostnames::parse(&["shop.example.org"], "shop.example.org")?,
        service: None,
    })
}
