//! A store that outlives its workers, and the workers that die on it.

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
use cdm_testkit::log::{EffectLog, What};

use crate::Told;
use crate::driver::Driver;
use crate::process::{Process, in_memory, rested};

/// A point at which a worker dies.
#[derive(Clone, Copy)]
pub(super) struct Kill {
    /// After how many port calls.
    pub(super) after: usize,
    /// The call that comes then.
    pub(super) at: CallSite,
    /// On which side of that call's effect.
    pub(super) fault: Fault,
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.fault {
            Fault::CrashAfterEffect => "after `{}` took effect, before it hears of it",
            _ => "before `{}`",
        };
        write!(f, "{}, its port call {}", side.replace("{}", self.at.name), self.after + 1)
    }
}

/// A platform with one site that was created, and the request to provision it accepted.
pub(super) struct Bench {
    clock: SimClock,
    log: EffectLog,
    ports: Ports,
    driver: Driver,
    /// A process that only takes requests; it outlives the workers.
    frontend: Process,
    provision: OperationId,
}

impl Bench {
    /// How many things a site has when it is provisioned: two secrets, a database, a marker, a route and two jobs.
    pub(super) const CREATED: usize = 7;

    pub(super) fn new() -> Told<Self> {
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

    /// The port calls of a worker that provisions the site undisturbed.
    pub(super) fn calls_of_a_provision(&mut self) -> Told<Vec<CallSite>> {
        let gate = FaultInjector::default();
        let worker = Process::new("worker-1", &faulty(&self.ports, &gate)).worker;
        gate.start_trace();
        self.driver.spawn(async move { worker.run().await });
        self.rested()?;
        Ok(gate.trace())
    }

    /// Has a worker provision the site until it is killed; the operation as it leaves it.
    pub(super) fn provision_until(&mut self, kill: Kill) -> Told<Operation> {
        let gate = FaultInjector::default();
        gate.arm(Plan(vec![(kill.after, kill.fault)]));
        let worker = Process::new("worker-1", &faulty(&self.ports, &gate)).worker;
        let doomed = self.driver.spawn(async move { worker.run().await });
        let rested = rested(&self.ports, &self.frontend.manager, &self.provision);
        // The gate holds the fatal call for ever; dropping the worker there is its death.
        if let Some(rested) = self.driver.block_on_unless(rested, || gate.take_halt().is_some()) {
            return Err(format!("killed {kill}, it came to {} first", rested?.state.status).into());
        }
        self.driver.kill(doomed);
        self.operation()
    }

    /// Has another worker finish what the first one left; the operation at its end, and how long it lay untouched.
    pub(super) fn go_on(&mut self, left: &Operation) -> Told<(Operation, Duration)> {
        let died = self.clock.monotonic();
        let worker = Process::new("worker-2", &self.ports).worker;
        self.driver.spawn(async move { worker.run().await });
        let manager = Arc::clone(&self.frontend.manager);
        let clock = &self.ports.clock;
        let taken_over = async {
            loop {
                let now = manager.operation(&self.provision).await?;
                if now.state.epoch > left.state.epoch || now.state.status.rests() {
                    return Ok::<_, ManagerError>(clock.monotonic().since(died));
                }
                clock.sleep_until(clock.monotonic().after(Duration::from_millis(100))).await;
            }
        };
        let lay = self.driver.block_on(taken_over)?;
        Ok((self.rested()?, lay))
    }

    /// Everything that was created, and how often.
    pub(super) fn created(&self) -> BTreeMap<String, u32> {
        let mut created = BTreeMap::new();
        for effect in self.log.since(0) {
            let what = match effect.what {
                What::SecretCreated(name) => format!("secret {:?}", name.kind),
                What::DatabaseEnsured { created: true, .. } => "database".to_owned(),
                What::MarkerPut(_) => "marker of its files".to_owned(),
                What::RouteCreated(..) => "route".to_owned(),
                What::JobStarted(_, _, word) => format!("job {word}"),
                _ => continue,
            };
            *created.entry(what).or_default() += 1;
        }
        created
    }

    fn operation(&mut self) -> Told<Operation> {
        Ok(self.driver.block_on(self.frontend.manager.operation(&self.provision))?)
    }

    fn rested(&mut self) -> Told<Operation> {
        Ok(self.driver.block_on(rested(&self.ports, &self.frontend.manager, &self.provision))?)
    }
}

/// Creates the site, and asks for its provision.
async fn accept(frontend: &Process, new: &NewSite) -> Told<OperationId> {
    let request = Request::by(Actor::parse("operator")?, Role::Admin);
    frontend.manager.create_site(&request, new).await?;
    // A create waits for nothing, so one turn of a worker is all it takes.
    frontend.worker.run_once().await;
    match frontend.manager.provision(&request, &new.id).await? {
        Accepted::Operation(id) => Ok(id),
        Accepted::Rollout(_) | Accepted::Freeze(_) | Accepted::Webhook(_) | Accepted::Done => {
            Err("a provision is an operation".into())
        }
    }
}

fn new_site() -> Told<NewSite> {
    Ok(NewSite {
        id: SiteId::parse("shop")?,
        name: SiteName::parse("The Shop")?,
        theme: Theme::parse("plain")?,
        hostnames: Hostnames::parse(&["shop.example.org"], "shop.example.org")?,
        service: None,
    })
}
