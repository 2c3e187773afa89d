//! A whole site's life on a cluster of one's own: created, provisioned, promoted, spared a broken image, rolled back
//! under, and terminated. Every claim is checked by looking at the cluster and the other backends.

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
use cdm_testkit::contract::{Cx, Settle, cluster};
use cdm_testkit::ids::SeededIds;
use cdm_testkit::log::EffectLog;

use crate::Told;
use crate::driver::Driver;
use crate::own_cluster::{Image, OwnCluster};
use crate::process::{Process, in_memory, quiet, rested};

/// The images of the story.
struct Images {
    first: Digest,
    second: Digest,
    broken: Digest,
}

impl Images {
    fn new() -> Told<Self> {
        let digest = |hex: &str| Digest::parse(&hex.repeat(32));
        Ok(Self { first: digest("a1")?, second: digest("b2")?, broken: digest("bb")? })
    }

    fn registry(&self) -> [(Digest, Image); 3] {
        [(self.first, Image::Works), (self.second, Image::Works), (self.broken, Image::Crashes)]
    }
}

/// Holds [`OwnCluster`] against the port's contract, then plays the story, telling it to `out`.
///
/// # Errors
/// The first claim that does not hold.
///
/// # Panics
/// With the promise that the cluster breaks.
pub fn play(out: &mut dyn Write) -> Told<()> {
    let images = Images::new()?;
    keep_the_contract(&images);
    writeln!(out, "The cluster keeps every promise of its port.")?;

    let mut life = Life::begin(out, &images)?;
    life.deploy_first(&images)?;
    let uid = life.create()?;
    life.provision(uid)?;
    life.promote(uid, &images)?;
    life.deploy_broken(uid, &images)?;
    life.roll_back(uid, &images)?;
    life.terminate(uid)
}

/// Runs the suite that every implementation of the port has to pass, on a cluster that nobody else uses.
fn keep_the_contract(images: &Images) {
    let (clock, ids) = (SimClock::new(), SeededIds::new(7));
    let own = OwnCluster::new(Arc::new(clock.clone()), images.registry());
    let settle = Moments(clock.clone());
    let ready = cluster::Images { first: images.first, second: images.second };
    let suite = async { cluster::suite(&own, ready, &Cx::new(&clock, &ids, &settle)).await };
    Driver::new(clock.clone()).block_on(suite);
}

/// Lets a moment pass between two looks of the suite.
#[derive(Debug)]
struct Moments(SimClock);

#[async_trait]
impl Settle for Moments {
    async fn settle(&self) {
        self.0.advance(Duration::from_secs(1));
    }
}

/// The platform, and whoever tells of it.
struct Life<'a> {
    out: &'a mut dyn Write,
    driver: RefCell<Driver>,
    ports: Ports,
    cluster: OwnCluster,
    manager: Arc<Manager>,
    request: Request,
    site: SiteId,
}

impl<'a> Life<'a> {
    /// A platform of one process on a cluster that runs nothing.
    fn begin(out: &'a mut dyn Write, images: &Images) -> Told<Self> {
        let clock = SimClock::new();
        let cluster = OwnCluster::new(Arc::new(clock.clone()), images.registry());
        let ports = in_memory(Arc::new(cluster.clone()), &clock, &EffectLog::off());
        let Process { manager, worker } = Process::new("worker-1", &ports);
        let mut driver = Driver::new(clock);
        driver.spawn(async move { worker.run().await });
        let (request, site) = (Request::by(Actor::parse("operator")?, Role::Admin), SiteId::parse("shop")?);
        Ok(Self { out, driver: RefCell::new(driver), ports, cluster, manager, request, site })
    }

    fn deploy_first(&mut self, images: &Images) -> Told<()> {
        self.say("The first image is deployed to both services.")?;
        for color in Color::ALL {
            let deployed = self.deploy(images.first, color)?;
            self.claim(format!("the deploy to {color} has succeeded"), succeeded(&deployed))?;
            let view = self.service(color)?;
            let runs = view.digest == Some(images.first) && view.is_ready();
            self.claim(format!("{color} runs it, ready"), runs)?;
        }
        Ok(())
    }

    fn create(&mut self) -> Told<Uid> {
        self.say("The site `shop` is created.")?;
        let new = NewSite {
            id: self.site.clone(),
            name: SiteName::parse("The Shop")?,
            theme: Theme::parse("plain")?,
            hostnames: Hostnames::parse(&["shop.example.org", "www.shop.example.org"], "shop.example.org")?,
            service: None,
        };
        let created = self.ask(async |manager, request| manager.create_site(request, &new).await)?;
        self.claim("the create has succeeded", succeeded(&created))?;
        let site = self.look()?;
        self.claim("the active canary's service, blue, is its service", site.service == Color::Blue)?;
        let stored = self.secret(site.uid)?;
        self.claim("its credentials are stored", matches!(stored, Some(StoredSecret::Value(_))))?;
        self.claim("it has no route yet", self.route(site.uid)?.is_none())?;
        Ok(site.uid)
    }

    fn provision(&mut self, uid: Uid) -> Told<()> {
        self.say("It is provisioned.")?;
        let id = self.site.clone();
        let done = self.ask(async |manager, request| manager.provision(request, &id).await)?;
        self.claim("the provision has succeeded", succeeded(&done))?;
        self.claim("its route points to blue", self.points_to(uid, Color::Blue)?)?;
        let whole = SiteDatabase { database: true, user: true };
        self.claim("it has a database and a user", self.database(uid)? == whole)?;
        self.claim("it has a place for its files", !self.files(uid)?.is_empty())
    }

    fn promote(&mut self, uid: Uid, images: &Images) -> Told<()> {
        self.say("The second image is deployed to green, green is selected, and the site is promoted.")?;
        let deployed = self.deploy(images.second, Color::Green)?;
        self.claim("the deploy to green has succeeded", succeeded(&deployed))?;
        self.claim("the site's route still points to blue", self.points_to(uid, Color::Blue)?)?;
        let selected = self.ask(async |manager, request| {
            let selected = manager.select(request, Color::Green).await?;
            Ok(selected.operation.map_or(Accepted::Done, Accepted::Operation))
        })?;
        self.claim("the selection has succeeded", succeeded(&selected))?;
        self.claim("the canary is green with the second image", self.canary_is(images.second)?)?;
        let id = self.site.clone();
        let promoted = self.ask(async |manager, request| manager.promote(request, &id).await)?;
        self.claim("the promote has succeeded", succeeded(&promoted))?;
        self.claim("its route points to green", self.points_to(uid, Color::Green)?)?;
        self.claim("its record says green", self.look()?.service == Color::Green)
    }

    fn deploy_broken(&mut self, uid: Uid, images: &Images) -> Told<()> {
        self.say("An image whose pods crash is deployed to green.")?;
        let template = self.service(Color::Green)?.template;
        let deployed = self.deploy(images.broken, Color::Green)?;
        // An operation that has ended keeps its reason in the step that ended it.
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
        self.claim("down to the whole template", view.template == template)?;
        self.claim("the canary still has the second image", self.canary_is(images.second)?)?;
        self.claim("the site's route points to green", self.points_to(uid, Color::Green)?)?;
        let history = self.wait_for(self.manager.history(Color::Green))?;
        let bad = |release: &Release| release.digest == images.broken && release.verdict == Verdict::Bad;
        let judged = history.iter().any(bad);
        self.claim("the broken image is known to be bad", judged)
    }

    fn roll_back(&mut self, uid: Uid, images: &Images) -> Told<()> {
        self.say("Green is rolled back.")?;
        let green = Some(Color::Green);
        let done = self.ask(async |manager, request| manager.rollback(request, green).await)?;
        self.claim("the rollback has succeeded", succeeded(&done))?;
        let view = self.service(Color::Green)?;
        let first = view.digest == Some(images.first) && view.is_ready();
        self.claim("green runs the first image, the newest other healthy one", first)?;
        self.claim("the canary has the first image too", self.canary_is(images.first)?)?;
        self.claim("the site's route points to green", self.points_to(uid, Color::Green)?)
    }

    fn terminate(&mut self, uid: Uid) -> Told<()> {
        self.say("The site is terminated.")?;
        let (id, hostnames) = (self.site.clone(), self.look()?.hostnames);
        let done = self.ask(async |manager, request| manager.terminate(request, &id).await)?;
        self.claim("the terminate has succeeded", succeeded(&done))?;
        let absent = self.wait_for(self.manager.site(&self.site));
        self.claim("there is no record of it", matches!(absent, Err(ManagerError::NotFound { .. })))?;
        let left = self.cluster.belongings(uid);
        self.claim("neither a route nor a job of it is left", left.is_empty())?;
        self.claim("its database and its user are gone", self.database(uid)? == SiteDatabase::default())?;
        self.claim("its files are gone", self.files(uid)?.is_empty())?;
        let secret = self.secret(uid)?;
        let unreadable = matches!(secret, None | Some(StoredSecret::Deleting));
        self.claim("its credentials cannot be read any more", unreadable)?;
        for host in hostnames.all() {
            let claimed = self.wait_for(self.ports.store.hostname(host))?;
            self.claim(format!("the hostname {host} is free"), claimed.is_none())?;
        }
        Ok(())
    }

    /// Asks the services for something, and waits until that has come to its end and what it set off has too; the
    /// operation, where it led to one.
    fn ask(
        &self,
        request: impl AsyncFnOnce(&Manager, &Request) -> Result<Accepted, ManagerError>,
    ) -> Told<Option<Operation>> {
        let (ports, manager) = (&self.ports, &self.manager);
        let asked = async {
            let operation = match request(manager, &self.request).await? {
                Accepted::Operation(id) => Some(rested(ports, manager, &id).await?),
                Accepted::Rollout(_) | Accepted::Freeze(_) | Accepted::Webhook(_) | Accepted::Done => None,
            };
            quiet(ports).await?;
            Ok::<_, ManagerError>(operation)
        };
        Ok(self.wait_for(asked)?)
    }

    fn deploy(&self, digest: Digest, color: Color) -> Told<Option<Operation>> {
        let deploy = DeployRequest { digest, service: Some(color), promote: false };
        self.ask(async |manager, request| manager.deploy(request, deploy).await)
    }

    fn look(&self) -> Told<Site> {
        Ok(self.wait_for(self.manager.site(&self.site))?)
    }

    fn route(&self, uid: Uid) -> Told<Option<Route>> {
        Ok(self.wait_for(self.cluster.route(uid))?)
    }

    fn points_to(&self, uid: Uid, color: Color) -> Told<bool> {
        Ok(self.route(uid)?.is_some_and(|route| route.service == color))
    }

    fn service(&self, color: Color) -> Told<ServiceView> {
        Ok(self.wait_for(self.cluster.service(color))?)
    }

    fn canary_is(&self, digest: Digest) -> Told<bool> {
        let canary = self.wait_for(self.cluster.canary())?;
        let wanted = (Color::Green, Some(digest));
        Ok(canary.is_some_and(|canary| (canary.color, canary.digest) == wanted))
    }

    fn database(&self, uid: Uid) -> Told<SiteDatabase> {
        Ok(self.wait_for(self.ports.databases.seen(uid))?)
    }

    fn files(&self, uid: Uid) -> Told<Vec<String>> {
        let prefix = ObjectPrefix::of(uid);
        Ok(self.wait_for(self.ports.objects.page(&prefix, None))?.keys)
    }

    fn secret(&self, uid: Uid) -> Told<Option<StoredSecret>> {
        let name = SecretName { uid, kind: SecretKind::Database };
        Ok(self.wait_for(self.ports.secrets.read(&name))?)
    }

    fn wait_for<T>(&self, future: impl Future<Output = T>) -> T {
        self.driver.borrow_mut().block_on(future)
    }

    fn say(&mut self, what: &str) -> Told<()> {
        Ok(writeln!(self.out, "{what}")?)
    }

    fn claim(&mut self, what: impl Display, holds: bool) -> Told<()> {
        writeln!(self.out, "  {} {what}", if holds { "yes:" } else { "NO: " })?;
        if holds { Ok(()) } else { Err(format!("it is not so that {what}").into()) }
    }
}

fn succeeded(operation: &Option<Operation>) -> bool {
    let ended = operation.as_ref().map(|operation| operation.state.status);
    ended == Some(Status::Ended(TerminalStatus::Succeeded))
}
