//! The lifecycle of a site on a custom cluster: create, provision, promote, a broken image, a rollback, and
//! terminate. Each claim is checked by reading the cluster and the other backends.

use std::cell::RefCell;
use std::fmt::Display;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cdm_core::domain::operation::StepStatus;
use cdm_core::domain::{
    Actor, Color, Digest, Hostnames, ObjectPrefix, Operation, Release, Role, SecretKind, SecretName, Site,
    SiteId, SiteName, Status, TerminalStatus, Theme, Uid, Verdict,
};
use cdm_core::manager::{Accepted, DeployRequest, Manager, ManagerError, NewSite, Request};
use cdm_core::ports::{ClusterOps, Ports, Route, ServiceView, SiteDatabase, StoredSecret};
use cdm_testkit::clock::SimClock;
use cdm_testkit::contract::{Settle, SuiteContext, cluster};
use cdm_testkit::ids::SeededIds;
use cdm_testkit::log::EffectLog;

use crate::ExampleResult;
use crate::driver::Driver;
use crate::own_cluster::{Image, OwnCluster};
use crate::process::{Process, in_memory, wait_until_idle, wait_until_settled};

struct Images {
    first: Digest,
    second: Digest,
    broken: Digest,
}

impl Images {
    fn new() -> ExampleResult<Self> {
        let digest = |hex: &str| Digest::parse(&hex.repeat(32));
        Ok(Self { first: digest("a1")?, second: digest("b2")?, broken: digest("bb")? })
    }

    fn registry(&self) -> [(Digest, Image); 3] {
        [(self.first, Image::Works), (self.second, Image::Works), (self.broken, Image::Crashes)]
    }
}

/// Runs the contract suite of the port on [`OwnCluster`], then the lifecycle; prints each claim to `out`.
///
/// # Errors
/// The first claim that does not hold.
///
/// # Panics
/// When the cluster breaks the contract.
pub fn run(out: &mut dyn Write) -> ExampleResult<()> {
    let images = Images::new()?;
    run_contract_suite(&images);
    writeln!(out, "The cluster passes the contract suite of its port.")?;

    let mut lifecycle = Lifecycle::begin(out, &images)?;
    lifecycle.deploy_first(&images)?;
    let uid = lifecycle.create()?;
    lifecycle.provision(uid)?;
    lifecycle.promote(uid, &images)?;
    lifecycle.deploy_broken(uid, &images)?;
    lifecycle.roll_back(uid, &images)?;
    lifecycle.terminate(uid)
}

/// Runs the suite that every implementation of the port must pass, on a separate cluster.
fn run_contract_suite(images: &Images) {
    let (clock, ids) = (SimClock::new(), SeededIds::new(7));
    let own = OwnCluster::new(Arc::new(clock.clone()), images.registry());
    let settle = AdvanceClock(clock.clone());
    let ready = cluster::Images { first: images.first, second: images.second };
    let suite = async { cluster::suite(&own, ready, &SuiteContext::new(&clock, &ids, &settle)).await };
    Driver::new(clock.clone()).block_on(suite);
}

/// Advances the clock between two polls of the suite.
#[derive(Debug)]
struct AdvanceClock(SimClock);

#[async_trait]
impl Settle for AdvanceClock {
    async fn settle(&self) {
        self.0.advance(Duration::from_secs(1));
    }
}

/// The platform, and the output.
struct Lifecycle<'a> {
    out: &'a mut dyn Write,
    driver: RefCell<Driver>,
    ports: Ports,
    cluster: OwnCluster,
    manager: Arc<Manager>,
    request: Request,
    site: SiteId,
}

impl<'a> Lifecycle<'a> {
    /// Starts a platform of one process, on a cluster that runs nothing.
    fn begin(out: &'a mut dyn Write, images: &Images) -> ExampleResult<Self> {
        let clock = SimClock::new();
        let cluster = OwnCluster::new(Arc::new(clock.clone()), images.registry());
        let ports = in_memory(Arc::new(cluster.clone()), &clock, &EffectLog::off());
        let Process { manager, worker } = Process::new("worker-1", &ports);
        let mut driver = Driver::new(clock);
        driver.spawn(async move { worker.run().await });
        let (request, site) = (Request::by(Actor::parse("operator")?, Role::Admin), SiteId::parse("shop")?);
        Ok(Self { out, driver: RefCell::new(driver), ports, cluster, manager, request, site })
    }

    fn deploy_first(&mut self, images: &Images) -> ExampleResult<()> {
        self.print("The first image is deployed to both services.")?;
        for color in Color::ALL {
            let deployed = self.deploy(images.first, color)?;
            self.claim(format!("the deploy to {color} has succeeded"), succeeded(&deployed))?;
            let view = self.service(color)?;
            let runs = view.digest == Some(images.first) && view.is_ready();
            self.claim(format!("{color} runs it, ready"), runs)?;
        }
        Ok(())
    }

    fn create(&mut self) -> ExampleResult<Uid> {
        self.print("The site `shop` is created.")?;
        let new = NewSite {
            id: self.site.clone(),
            name: SiteName::parse("The Shop")?,
            theme: Theme::parse("plain")?,
            hostnames: Hostnames::parse(&["shop.example.org", "www.shop.example.org"], "shop.example.org")?,
            service: None,
        };
        let created = self.submit(async |manager, request| manager.create_site(request, &new).await)?;
        self.claim("the create has succeeded", succeeded(&created))?;
        let site = self.read_site()?;
        self.claim("the active canary's service, blue, is its service", site.service == Color::Blue)?;
        let stored = self.secret(site.uid)?;
        self.claim("its credentials are stored", matches!(stored, Some(StoredSecret::Value(_))))?;
        self.claim("it has no route yet", self.route(site.uid)?.is_none())?;
        Ok(site.uid)
    }

    fn provision(&mut self, uid: Uid) -> ExampleResult<()> {
        self.print("It is provisioned.")?;
        let id = self.site.clone();
        let done = self.submit(async |manager, request| manager.provision(request, &id).await)?;
        self.claim("the provision has succeeded", succeeded(&done))?;
        self.claim("its route points to blue", self.points_to(uid, Color::Blue)?)?;
        let whole = SiteDatabase { database: true, user: true };
        self.claim("it has a database and a user", self.database(uid)? == whole)?;
        self.claim("the marker of its files is stored", !self.files(uid)?.is_empty())
    }

    fn promote(&mut self, uid: Uid, images: &Images) -> ExampleResult<()> {
        self.print("The second image is deployed to green, green is selected, and the site is promoted.")?;
        let deployed = self.deploy(images.second, Color::Green)?;
        self.claim("the deploy to green has succeeded", succeeded(&deployed))?;
        self.claim("the site's route still points to blue", self.points_to(uid, Color::Blue)?)?;
        let selected = self.submit(async |manager, request| {
            let selected = manager.select(request, Color::Green).await?;
            Ok(selected.operation.map_or(Accepted::Done, Accepted::Operation))
        })?;
        self.claim("the selection has succeeded", succeeded(&selected))?;
        self.claim("the canary is green with the second image", self.canary_is(images.second)?)?;
        let id = self.site.clone();
        let promoted = self.submit(async |manager, request| manager.promote(request, &id).await)?;
        self.claim("the promote has succeeded", succeeded(&promoted))?;
        self.claim("its route points to green", self.points_to(uid, Color::Green)?)?;
        self.claim("its record says green", self.read_site()?.service == Color::Green)
    }

    fn deploy_broken(&mut self, uid: Uid, images: &Images) -> ExampleResult<()> {
        self.print("An image whose pods crash is deployed to green.")?;
        let template = self.service(Color::Green)?.template;
        let deployed = self.deploy(images.broken, Color::Green)?;
        // An operation that has ended stores its reason in the step that ended it.
        let steps = deployed.iter().flat_map(|deployed| &deployed.state.steps);
        let why =
            steps.filter(|step| step.status == StepStatus::Failed).find_map(|step| step.message.clone());
        let why = why.unwrap_or_default();
        let failed = deployed
            .as_ref()
            .is_some_and(|deployed| deployed.state.status == Status::Ended(TerminalStatus::Failed));
        self.claim(format!("the deploy has failed: {why}"), failed && !why.is_empty())?;
        let view = self.service(Color::Green)?;
        let restored = view.digest == Some(images.second) && view.is_ready();
        self.claim("green runs the second image again, ready", restored)?;
        self.claim("green has its earlier pod template, unchanged", view.template == template)?;
        self.claim("the canary still has the second image", self.canary_is(images.second)?)?;
        self.claim("the site's route points to green", self.points_to(uid, Color::Green)?)?;
        let history = self.wait_for(self.manager.history(Color::Green))?;
        let bad = |release: &Release| release.digest == images.broken && release.verdict == Verdict::Bad;
        let judged = history.iter().any(bad);
        self.claim("the broken image is marked bad", judged)
    }

    fn roll_back(&mut self, uid: Uid, images: &Images) -> ExampleResult<()> {
        self.print("Green is rolled back.")?;
        let green = Some(Color::Green);
        let done = self.submit(async |manager, request| manager.rollback(request, green).await)?;
        self.claim("the rollback has succeeded", succeeded(&done))?;
        let view = self.service(Color::Green)?;
        let first = view.digest == Some(images.first) && view.is_ready();
        self.claim("green runs the first image, the newest other healthy one", first)?;
        self.claim("the canary has the first image too", self.canary_is(images.first)?)?;
        self.claim("the site's route points to green", self.points_to(uid, Color::Green)?)
    }

    fn terminate(&mut self, uid: Uid) -> ExampleResult<()> {
        self.print("The site is terminated.")?;
        let (id, hostnames) = (self.site.clone(), self.read_site()?.hostnames);
        let done = self.submit(async |manager, request| manager.terminate(request, &id).await)?;
        self.claim("the terminate has succeeded", succeeded(&done))?;
        let absent = self.wait_for(self.manager.site(&self.site));
        self.claim("there is no record of it", matches!(absent, Err(ManagerError::NotFound { .. })))?;
        let left = self.cluster.objects_of(uid);
        self.claim("it has no route and no job", left.is_empty())?;
        self.claim("its database and its user are gone", self.database(uid)? == SiteDatabase::default())?;
        self.claim("its files are gone", self.files(uid)?.is_empty())?;
        let secret = self.secret(uid)?;
        let unreadable = matches!(secret, None | Some(StoredSecret::Deleting));
        self.claim("its credentials can no longer be read", unreadable)?;
        for host in hostnames.all() {
            let claimed = self.wait_for(self.ports.store.hostname(host))?;
            self.claim(format!("the hostname {host} is free"), claimed.is_none())?;
        }
        Ok(())
    }

    /// Submits a request, waits until its operation and all work that follows from it have ended, and returns the
    /// operation, if there is one.
    fn submit(
        &self,
        request: impl AsyncFnOnce(&Manager, &Request) -> Result<Accepted, ManagerError>,
    ) -> ExampleResult<Option<Operation>> {
        let (ports, manager) = (&self.ports, &self.manager);
        let submitted = async {
            let operation = match request(manager, &self.request).await? {
                Accepted::Operation(id) => Some(wait_until_settled(ports, manager, &id).await?),
                Accepted::Rollout(_) | Accepted::Freeze(_) | Accepted::Webhook(_) | Accepted::Done => None,
            };
            wait_until_idle(ports).await?;
            Ok::<_, ManagerError>(operation)
        };
        Ok(self.wait_for(submitted)?)
    }

    fn deploy(&self, digest: Digest, color: Color) -> ExampleResult<Option<Operation>> {
        let deploy = DeployRequest { digest, service: Some(color), promote: false };
        self.submit(async |manager, request| manager.deploy(request, deploy).await)
    }

    fn read_site(&self) -> ExampleResult<Site> {
        Ok(self.wait_for(self.manager.site(&self.site))?)
    }

    fn route(&self, uid: Uid) -> ExampleResult<Option<Route>> {
        Ok(self.wait_for(self.cluster.route(uid))?)
    }

    fn points_to(&self, uid: Uid, color: Color) -> ExampleResult<bool> {
        Ok(self.route(uid)?.is_some_and(|route| route.service == color))
    }

    fn service(&self, color: Color) -> ExampleResult<ServiceView> {
        Ok(self.wait_for(self.cluster.service(color))?)
    }

    fn canary_is(&self, digest: Digest) -> ExampleResult<bool> {
        let canary = self.wait_for(self.cluster.canary())?;
        let expected = (Color::Green, Some(digest));
        Ok(canary.is_some_and(|canary| (canary.color, canary.digest) == expected))
    }

    fn database(&self, uid: Uid) -> ExampleResult<SiteDatabase> {
        Ok(self.wait_for(self.ports.databases.seen(uid))?)
    }

    fn files(&self, uid: Uid) -> ExampleResult<Vec<String>> {
        let prefix = ObjectPrefix::of(uid);
        Ok(self.wait_for(self.ports.objects.page(&prefix, None))?.keys)
    }

    fn secret(&self, uid: Uid) -> ExampleResult<Option<StoredSecret>> {
        let name = SecretName { uid, kind: SecretKind::Database };
        Ok(self.wait_for(self.ports.secrets.read(&name))?)
    }

    fn wait_for<T>(&self, future: impl Future<Output = T>) -> T {
        self.driver.borrow_mut().block_on(future)
    }

    fn print(&mut self, what: &str) -> ExampleResult<()> {
        Ok(writeln!(self.out, "{what}")?)
    }

    fn claim(&mut self, what: impl Display, holds: bool) -> ExampleResult<()> {
        writeln!(self.out, "  {} {what}", if holds { "yes:" } else { "NO: " })?;
        if holds { Ok(()) } else { Err(format!("this claim does not hold: {what}").into()) }
    }
}

fn succeeded(operation: &Option<Operation>) -> bool {
    let ended = operation.as_ref().map(|operation| operation.state.status);
    ended == Some(Status::Ended(TerminalStatus::Succeeded))
}
