//! A cluster in memory: a canary, two services whose pods follow a script, routes, and jobs that take their time.
//!
//! Nothing runs in the background. What a pod or a job has come to is computed from the clock whenever someone looks,
//! so the world goes from event to event by [`FakeCluster::next_event`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cdm_core::domain::{Color, Digest, Fence, Hostname, JobName, MonotonicTime, Template, Uid};
use cdm_core::ports::{
    CallContext, Canary, CanaryVersion, ChangeCursor, Changed, Clock, ClusterOps, ErrorKind, ImageWant, Job,
    JobKind, JobSpec, JobState, Outcome, PodFailure, PortError, Route, RouteSpec, ServiceView,
};

use super::FakeDatabases;
use super::jobs::{Run, installed};
use super::script::{ImageScript, JobScript};
use crate::clock::SimClock;
use crate::log::{Effect, EffectLog, What};

/// Plays a cluster in memory; clones are the same cluster.
///
/// Both services want two pods and run nothing at first.
#[derive(Clone)]
pub struct FakeCluster {
    state: Arc<Mutex<State>>,
    log: EffectLog,
    clock: SimClock,
    databases: Option<FakeDatabases>,
}

impl FakeCluster {
    /// A cluster with two services that run nothing, no canary, no route and no job.
    pub fn new(log: EffectLog, clock: SimClock) -> Self {
        Self { state: Arc::default(), log, clock, databases: None }
    }

    /// The same cluster, whose installations write into these databases. Without databases they write nowhere.
    #[must_use]
    pub fn with_databases(self, databases: FakeDatabases) -> Self {
        Self { databases: Some(databases), ..self }
    }

    /// Ends the next installations after so many writes each; see [`crate::installation::Installation`].
    pub fn cut_installs(&self, cuts: impl IntoIterator<Item = usize>) {
        self.lock().cuts.extend(cuts);
    }

    /// Says how pods of `digest` fare wherever it is set from now on.
    pub fn script(&self, digest: Digest, script: ImageScript) {
        self.lock().scripts.insert(digest, script);
    }

    /// Has a service run `digest`, ready now and untouched by CDM, as someone set it up before. Logs nothing.
    pub fn install(&self, color: Color, digest: Digest) {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        let template = state.new_template(digest);
        let service = state.service(color);
        service.deploy(now, digest, template, READY_AT_ONCE);
        service.fence = Fence::default();
    }

    /// Has a service want `n` pods.
    pub fn desired(&self, color: Color, n: u32) {
        self.lock().service(color).desired = n;
    }

    /// Makes a service unready, with a failure to show or none, until it is mended or gets another template.
    pub fn break_service(&self, color: Color, failure: Option<PodFailure>) {
        let now = self.clock.monotonic();
        if let Some(running) = &mut self.lock().service(color).running {
            running.settle(now);
            running.broken = Some(Breakage(failure));
        }
    }

    /// Undoes [`FakeCluster::break_service`].
    pub fn mend_service(&self, color: Color) {
        if let Some(running) = &mut self.lock().service(color).running {
            running.broken = None;
        }
    }

    /// Plants a stranger's route with this hostname.
    pub fn foreign_route(&self, host: Hostname) {
        self.lock().hosts.insert(host);
    }

    /// Every route but strangers', in the order of their uids.
    pub fn routes(&self) -> Vec<Route> {
        self.lock().routes.values().cloned().collect()
    }

    /// Says how the next jobs of that word fare, one script a start; those after them fare by default.
    pub fn script_job(&self, word: &str, scripts: Vec<JobScript>) {
        self.lock().job_scripts.insert(word.to_owned(), scripts.into());
    }

    /// Plants a stranger's job of this name.
    pub fn foreign_job(&self, name: JobName) {
        self.lock().foreign_jobs.insert(name);
    }

    /// Every job but strangers', with the uid where it has one and what has become of it.
    pub fn jobs(&self) -> Vec<(JobName, Option<Uid>, JobState)> {
        let now = self.clock.monotonic();
        let state = self.lock();
        state.jobs.iter().map(|(name, job)| (name.clone(), job.owner, job.state(now))).collect()
    }

    /// Whose caches jobs were started for, and the number of the operation or rollout that did.
    pub fn flushes(&self) -> BTreeSet<(u64, Uid)> {
        self.lock().flushes.clone()
    }

    /// Whether the credentials that a job was given are still there.
    pub fn holds_credentials(&self, name: &JobName) -> bool {
        self.lock().jobs.get(name).is_some_and(|job| job.credentials)
    }

    /// The service in whose image a job runs.
    pub fn job_service(&self, name: &JobName) -> Option<Color> {
        self.lock().jobs.get(name).map(|job| job.service)
    }

    /// Removes a job, as a cluster does some time after its end.
    pub fn expire_job(&self, name: &JobName) {
        self.lock().remove_job(name);
    }

    /// Forgets which changes came when: every mark given so far is too old from now on.
    pub fn forget_changes(&self) {
        let mut state = self.lock();
        state.news_count += 1;
        state.forgotten = state.news_count;
        state.news.clear();
        state.news_of.clear();
    }

    /// The next moment after now at which a job ends, or what a service shows changes of itself.
    pub fn next_event(&self) -> Option<MonotonicTime> {
        let now = self.clock.monotonic();
        let state = self.lock();
        let job = state.ends.iter().map(|(end, _)| *end).find(|end| *end > now);
        let runs = state.services.values().filter_map(|service| service.running.as_ref());
        let pods = runs.filter_map(|running| running.next_change(now));
        pods.chain(job).min()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self, by: Fence, what: impl FnOnce() -> What) {
        self.log.push(|| Effect { at: self.clock.monotonic(), by, what: what() });
    }

    /// Refuses an effect that came too late.
    fn refuse(
        &self,
        call: &CallContext,
        method: &'static str,
        kind: ErrorKind,
        message: &str,
    ) -> Outcome<()> {
        self.log(call.fence, || What::Refused(method));
        not_applied(kind, message)
    }
}

impl fmt::Debug for FakeCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeCluster").finish_non_exhaustive()
    }
}

#[async_trait]
impl ClusterOps for FakeCluster {
    async fn canary(&self) -> Result<Option<Canary>, PortError> {
        Ok(self.lock().canary.clone())
    }

    async fn set_canary(
        &self,
        call: &CallContext,
        expect: Option<&CanaryVersion>,
        color: Color,
        digest: Option<Digest>,
    ) -> Outcome<()> {
        let mut state = self.lock();
        if state.canary.as_ref().map(|canary| &canary.version) != expect {
            let message = "the canary has another version";
            return self.refuse(call, "cluster.set_canary", ErrorKind::Conflict, message);
        }
        state.canary_writes += 1;
        let version = CanaryVersion(state.canary_writes.to_string());
        state.canary = Some(Canary { color, digest, version });
        self.log(call.fence, || What::CanarySet(color, digest));
        Outcome::Applied(())
    }

    async fn service(&self, color: Color) -> Result<ServiceView, PortError> {
        let view = self.lock().service(color).view(color, self.clock.monotonic());
        self.log(Fence::default(), || What::Looked(color, view.is_ready()));
        Ok(view)
    }

    async fn set_image(
        &self,
        call: &CallContext,
        color: Color,
        expect: Fence,
        want: &ImageWant,
    ) -> Outcome<()> {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        if state.service(color).fence != expect {
            let message = "the workload carries another fence";
            return self.refuse(call, "cluster.set_image", ErrorKind::Conflict, message);
        }
        let digest = match want {
            ImageWant::Digest(digest) => *digest,
            ImageWant::Template(template) => match digest_in(template) {
                Some(digest) => digest,
                None => return not_applied(ErrorKind::Invalid, "the template is none of this cluster's"),
            },
        };
        let before = state.service(color).running.as_ref().map(|running| running.digest);
        // As in Kubernetes, a write that leaves the template as it is restarts nothing.
        if !state.service(color).runs(want) {
            let template = match want {
                ImageWant::Digest(_) => state.new_template(digest),
                ImageWant::Template(template) => template.clone(),
            };
            let script = state.scripts.get(&digest).cloned().unwrap_or_default();
            let service = state.service(color);
            // Its pods were kept, so a template that was ready is so again at once.
            let script = if service.proven.contains(&template) { READY_AT_ONCE } else { script };
            service.deploy(now, digest, template, script);
        }
        state.service(color).fence = call.fence;
        self.log(call.fence, || What::ImageSet(color, before, Some(digest)));
        Outcome::Applied(())
    }

    async fn route(&self, uid: Uid) -> Result<Option<Route>, PortError> {
        Ok(self.lock().routes.get(&uid).cloned())
    }

    async fn put_route(&self, call: &CallContext, spec: &RouteSpec) -> Outcome<()> {
        let mut state = self.lock();
        if state.released.contains(&spec.uid) {
            let message = "the uid was released";
            return self.refuse(call, "cluster.put_route", ErrorKind::Gone, message);
        }
        if state.routes.contains_key(&spec.uid) {
            return not_applied(ErrorKind::Exists, "the site has a route");
        }
        if spec.hostnames.all().iter().any(|host| state.hosts.contains(host)) {
            return not_applied(ErrorKind::Foreign, "another owner's route has one of the hostnames");
        }
        state.hosts.extend(spec.hostnames.all().iter().cloned());
        let RouteSpec { uid, hostnames, service, .. } = spec.clone();
        state.routes.insert(uid, Route { uid, hostnames, service, fence: call.fence });
        self.log(call.fence, || What::RouteCreated(uid, service));
        Outcome::Applied(())
    }

    async fn move_route(&self, call: &CallContext, uid: Uid, expect: Fence, to: Color) -> Outcome<()> {
        const METHOD: &str = "cluster.move_route";
        let mut state = self.lock();
        let Some(route) = state.routes.get_mut(&uid) else {
            let message = "the site has no route";
            if state.released.contains(&uid) {
                return self.refuse(call, METHOD, ErrorKind::NotFound, message);
            }
            return not_applied(ErrorKind::NotFound, message);
        };
        if route.fence != expect {
            return self.refuse(call, METHOD, ErrorKind::Conflict, "the route carries another fence");
        }
        let from = std::mem::replace(&mut route.service, to);
        route.fence = call.fence;
        self.log(call.fence, || What::RouteMoved(uid, from, to));
        Outcome::Applied(())
    }

    async fn release(&self, call: &CallContext, uid: Uid) -> Outcome<()> {
        let mut state = self.lock();
        if state.released.insert(uid) {
            let route = state.routes.remove(&uid);
            for host in route.iter().flat_map(|route| route.hostnames.all()) {
                state.hosts.remove(host);
            }
            for name in state.owned.remove(&uid).unwrap_or_default() {
                state.remove_job(&name);
            }
            self.log(call.fence, || What::Released(uid, route.is_some()));
        }
        Outcome::Applied(())
    }

    async fn run_job(&self, call: &CallContext, spec: &JobSpec) -> Outcome<()> {
        let mut state = self.lock();
        let (owner, word) = (spec.kind.uid(), spec.kind.word());
        if owner.is_some_and(|uid| state.released.contains(&uid)) {
            let message = "the uid was released";
            return self.refuse(call, "cluster.run_job", ErrorKind::Gone, message);
        }
        let held = state.jobs.get(&spec.name);
        if state.foreign_jobs.contains(&spec.name) || held.is_some_and(|job| job.owner != owner) {
            return not_applied(ErrorKind::Foreign, "another owner has a job of that name");
        }
        if held.is_some() {
            return not_applied(ErrorKind::Exists, "the job is there");
        }
        if let JobKind::FlushCaches { uids } = &spec.kind {
            state.flushes.extend(uids.iter().map(|uid| (call.fence.number, *uid)));
        }
        let scripted = state.job_scripts.get_mut(word).and_then(VecDeque::pop_front);
        let script = match (scripted, &spec.kind, &self.databases) {
            (Some(script), ..) => script,
            (None, JobKind::Install { uid, .. }, Some(databases)) => {
                let cut = state.cuts.pop_front();
                JobScript { result: installed(databases.install(*uid, cut)), ..JobScript::default() }
            }
            (None, ..) => JobScript::default(),
        };
        state.add_job(
            spec.name.clone(),
            Run {
                owner,
                service: spec.service,
                word,
                since: self.clock.monotonic(),
                script,
                credentials: !matches!(spec.kind, JobKind::FlushCaches { .. }),
            },
        );
        self.log(call.fence, || What::JobStarted(spec.name.clone(), owner, word));
        Outcome::Applied(())
    }

    async fn job(&self, name: &JobName) -> Result<Option<Job>, PortError> {
        let now = self.clock.monotonic();
        Ok(self.lock().jobs.get_mut(name).map(|job| {
            job.forget(now);
            job.view(now)
        }))
    }

    async fn changes(
        &self,
        mark: ChangeCursor,
        _wait: Duration,
    ) -> Result<(Vec<Changed>, ChangeCursor), PortError> {
        let mut state = self.lock();
        state.gather_news(self.clock.monotonic());
        let next = ChangeCursor(state.news_count);
        if mark.0 < state.forgotten || mark > next {
            return Ok((vec![Changed::Anything], next));
        }
        Ok((state.news.range(mark.0 + 1..).map(|(_, changed)| changed.clone()).collect(), next))
    }
}

const READY_AT_ONCE: ImageScript = ImageScript { ready_after: Some(Duration::ZERO), failure: None };

#[derive(Debug, Default)]
struct State {
    canary: Option<Canary>,
    canary_writes: u64,
    services: BTreeMap<Color, Service>,
    scripts: BTreeMap<Digest, ImageScript>,
    templates: u64,
    routes: BTreeMap<Uid, Route>,
    /// The hostnames of all routes, strangers' too.
    hosts: BTreeSet<Hostname>,
    jobs: BTreeMap<JobName, Run>,
    job_scripts: BTreeMap<String, VecDeque<JobScript>>,
    foreign_jobs: BTreeSet<JobName>,
    /// After how many writes the next installations are ended.
    cuts: VecDeque<usize>,
    flushes: BTreeSet<(u64, Uid)>,
    /// The jobs of a uid, also some that are there no more.
    owned: BTreeMap<Uid, Vec<JobName>>,
    released: BTreeSet<Uid>,
    /// When jobs end, those whose end was not told yet.
    ends: BTreeSet<(MonotonicTime, JobName)>,
    /// What changed, each thing once, by the number of its last change.
    news: BTreeMap<u64, Changed>,
    news_of: BTreeMap<Changed, u64>,
    news_count: u64,
    /// Marks below this one are too old.
    forgotten: u64,
}

impl State {
    fn service(&mut self, color: Color) -> &mut Service {
        self.services.entry(color).or_default()
    }

    fn new_template(&mut self, digest: Digest) -> Template {
        self.templates += 1;
        Template::new(&format!("template:{digest}:{}", self.templates))
    }

    fn add_job(&mut self, name: JobName, job: Run) {
        self.ends.extend(job.ends().map(|end| (end, name.clone())));
        if let Some(uid) = job.owner {
            self.owned.entry(uid).or_default().push(name.clone());
        }
        self.tell(Changed::Job(name.clone()));
        self.jobs.insert(name, job);
    }

    fn remove_job(&mut self, name: &JobName) {
        let Some(job) = self.jobs.remove(name) else { return };
        if let Some(end) = job.ends() {
            self.ends.remove(&(end, name.clone()));
        }
        self.tell(Changed::Job(name.clone()));
    }

    /// Tells what time alone has brought about since the last time someone asked.
    fn gather_news(&mut self, now: MonotonicTime) {
        while let Some((end, _)) = self.ends.first()
            && *end <= now
            && let Some((_, name)) = self.ends.pop_first()
        {
            if let Some(job) = self.jobs.get_mut(&name) {
                job.forget(now);
            }
            self.tell(Changed::Job(name));
        }
        for color in Color::ALL {
            let service = self.service(color);
            let view = service.view(color, now);
            if service.told.as_ref() != Some(&view) {
                service.told = Some(view);
                self.tell(Changed::Service(color));
            }
        }
    }

    fn tell(&mut self, changed: Changed) {
        self.news_count += 1;
        if let Some(earlier) = self.news_of.insert(changed.clone(), self.news_count) {
            self.news.remove(&earlier);
        }
        self.news.insert(self.news_count, changed);
    }
}

#[derive(Debug)]
struct Service {
    desired: u32,
    fence: Fence,
    running: Option<Running>,
    /// The templates that were ready when another one took their place.
    proven: BTreeSet<Template>,
    /// The view that was last told as news.
    told: Option<ServiceView>,
}

impl Default for Service {
    fn default() -> Self {
        Self { desired: 2, fence: Fence::default(), running: None, proven: BTreeSet::new(), told: None }
    }
}

impl Service {
    fn runs(&self, want: &ImageWant) -> bool {
        self.running.as_ref().is_some_and(|running| match want {
            ImageWant::Digest(digest) => running.digest == *digest,
            ImageWant::Template(template) => running.template == *template,
        })
    }

    fn deploy(&mut self, now: MonotonicTime, digest: Digest, template: Template, script: ImageScript) {
        let mut old = 0;
        if let Some(before) = self.running.take() {
            if before.is_up(now) {
                old = self.desired;
                self.proven.insert(before.template);
            } else {
                old = if before.is_rolled_out(now) { 0 } else { before.old };
                self.proven.remove(&before.template);
            }
        }
        self.running = Some(Running { digest, template, since: now, script, old, broken: None });
    }

    fn view(&self, color: Color, now: MonotonicTime) -> ServiceView {
        let running = self.running.as_ref();
        let updated = if running.is_some() { self.desired } else { 0 };
        let available = if running.is_some_and(|running| running.is_up(now)) { self.desired } else { 0 };
        let old = running.filter(|running| !running.is_rolled_out(now)).map_or(0, |running| running.old);
        ServiceView {
            color,
            digest: running.map(|running| running.digest),
            template: running.map(|running| running.template.clone()),
            fence: self.fence,
            desired: self.desired,
            updated,
            ready: available + old,
            available,
            total: updated + old,
            observed: true,
            failure: running.and_then(|running| running.failure(now)),
        }
    }
}

/// What a service runs, and how its pods fare.
#[derive(Debug)]
struct Running {
    digest: Digest,
    template: Template,
    since: MonotonicTime,
    script: ImageScript,
    /// Pods of the template before, which serve until this one is rolled out.
    old: u32,
    broken: Option<Breakage>,
}

/// A service made unready at will, and the failure to show.
#[derive(Debug)]
struct Breakage(Option<PodFailure>);

impl Running {
    fn ready_at(&self) -> Option<MonotonicTime> {
        self.script.ready_after.map(|span| self.since.after(span))
    }

    fn fails_at(&self) -> Option<MonotonicTime> {
        self.script.failure.as_ref().map(|(span, _)| self.since.after(*span))
    }

    fn failure(&self, now: MonotonicTime) -> Option<PodFailure> {
        match (&self.broken, &self.script.failure) {
            (Some(Breakage(failure)), _) => failure.clone(),
            (None, Some((_, failure))) if self.fails_at().is_some_and(|at| at <= now) => {
                Some(failure.clone())
            }
            (None, _) => None,
        }
    }

    /// Whether all pods have been available at some time, so that none of an earlier template is left.
    fn is_rolled_out(&self, now: MonotonicTime) -> bool {
        self.ready_at().is_some_and(|at| at <= now && self.fails_at().is_none_or(|fails| at < fails))
    }

    /// Whether all pods are available now.
    fn is_up(&self, now: MonotonicTime) -> bool {
        self.broken.is_none() && self.is_rolled_out(now) && self.fails_at().is_none_or(|at| now < at)
    }

    /// Lets the old pods go where they are gone, so that a breakage does not bring them back.
    fn settle(&mut self, now: MonotonicTime) {
        if self.is_rolled_out(now) {
            self.old = 0;
        }
    }

    fn next_change(&self, now: MonotonicTime) -> Option<MonotonicTime> {
        let fails = self.fails_at();
        let ready = self.ready_at().filter(|at| fails.is_none_or(|fails| *at < fails));
        ready.into_iter().chain(fails).filter(|at| *at > now).min()
    }
}

fn digest_in(template: &Template) -> Option<Digest> {
    let (digest, _) = template.as_str().strip_prefix("template:")?.rsplit_once(':')?;
    Digest::parse(digest).ok()
}

fn not_applied(kind: ErrorKind, message: &str) -> Outcome<()> {
    Outcome::NotApplied(PortError::new("cluster", kind, message))
}
