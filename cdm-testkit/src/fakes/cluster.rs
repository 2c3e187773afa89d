//! An in-memory cluster: a canary, two services whose pods follow a script, routes, and jobs with a duration.
//!
//! Nothing runs in the background. The state of pods and jobs is computed from the clock on each read, so a
//! simulated platform can advance from event to event with [`FakeCluster::next_event`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cdm_core::domain::{Color, Digest, Fence, Hostname, JobName, MonotonicTime, Template, Uid};
use cdm_core::ports::{
    CallContext, Canary, CanaryVersion, ChangeCursor, Changed, Clock, ClusterOps, ErrorKind, ImageWant, Job,
    JobFailure, JobKind, JobSpec, JobState, Outcome, PodFailure, PortError, Route, RouteSpec, ServiceView,
};

use super::FakeDatabases;
use crate::clock::SimClock;
use crate::installation::{InstallResult, Installation};
use crate::log::{Effect, EffectKind, EffectLog};

/// An in-memory cluster. Clones share one cluster.
///
/// Each service has two desired pods, and initially runs nothing.
#[derive(Clone)]
pub struct FakeCluster {
    state: Arc<Mutex<State>>,
    log: EffectLog,
    clock: SimClock,
    databases: Option<FakeDatabases>,
}

impl FakeCluster {
    /// Creates a cluster with two services that run nothing, no canary, no routes and no jobs.
    pub fn new(log: EffectLog, clock: SimClock) -> Self {
        Self { state: Arc::default(), log, clock, databases: None }
    }

    /// Returns the same cluster, with installations that write to these databases. Without databases,
    /// installations write nothing.
    #[must_use]
    pub fn with_databases(self, databases: FakeDatabases) -> Self {
        Self { databases: Some(databases), ..self }
    }

    /// Interrupts the next installations after these numbers of writes; see
    /// [`crate::installation::Installation`].
    pub fn interrupt_installs(&self, interrupts: impl IntoIterator<Item = usize>) {
        self.lock().interrupts.extend(interrupts);
    }

    /// Sets the script for pods of `digest`. The script applies to later deployments.
    pub fn script(&self, digest: Digest, script: ImageScript) {
        self.lock().scripts.insert(digest, script);
    }

    /// Makes a service run `digest`, ready immediately and with a zero fence, as if a person had installed it.
    /// Logs nothing.
    pub fn install(&self, color: Color, digest: Digest) {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        let template = state.new_template(digest);
        let service = state.service(color);
        service.deploy(now, digest, template, READY_IMMEDIATELY);
        service.fence = Fence::default();
    }

    /// Sets the number of desired pods of a service.
    pub fn desired(&self, color: Color, n: u32) {
        self.lock().service(color).desired = n;
    }

    /// Makes a service unready, optionally with a pod failure, until it is repaired or gets another template.
    pub fn break_service(&self, color: Color, failure: Option<PodFailure>) {
        let now = self.clock.monotonic();
        if let Some(running) = &mut self.lock().service(color).running {
            running.drop_old_pods(now);
            running.broken = Some(Breakage(failure));
        }
    }

    /// Undoes [`FakeCluster::break_service`].
    pub fn repair_service(&self, color: Color) {
        if let Some(running) = &mut self.lock().service(color).running {
            running.broken = None;
        }
    }

    /// Adds a route of another owner with this hostname.
    pub fn foreign_route(&self, host: Hostname) {
        self.lock().hosts.insert(host);
    }

    /// Returns all routes of CDM, in the order of their uids.
    pub fn routes(&self) -> Vec<Route> {
        self.lock().routes.values().cloned().collect()
    }

    /// Sets the scripts of the next jobs with this word, one for each start. Later jobs use the default script.
    pub fn script_job(&self, word: &str, scripts: Vec<JobScript>) {
        self.lock().job_scripts.insert(word.to_owned(), scripts.into());
    }

    /// Returns all jobs of CDM: name, uid if there is one, and state.
    pub fn jobs(&self) -> Vec<(JobName, Option<Uid>, JobState)> {
        let now = self.clock.monotonic();
        let state = self.lock();
        state.jobs.iter().map(|(name, job)| (name.clone(), job.owner, job.state(now))).collect()
    }

    /// Returns the flushed sites: the number of the operation or rollout that started the job, and the uid of
    /// the site.
    pub fn flushes(&self) -> BTreeSet<(u64, Uid)> {
        self.lock().flushes.clone()
    }

    /// Returns whether the credentials of a job still exist.
    pub fn holds_credentials(&self, name: &JobName) -> bool {
        self.lock().jobs.get(name).is_some_and(|job| job.credentials)
    }

    /// Returns the service whose image a job runs.
    pub fn job_service(&self, name: &JobName) -> Option<Color> {
        self.lock().jobs.get(name).map(|job| job.service)
    }

    /// Removes a job, as a cluster does some time after the job's end.
    pub fn expire_job(&self, name: &JobName) {
        self.lock().remove_job(name);
    }

    /// Discards the change history: every cursor issued so far is too old.
    pub fn forget_changes(&self) {
        let mut state = self.lock();
        state.change_count += 1;
        state.discarded = state.change_count;
        state.history.clear();
        state.latest_change.clear();
    }

    /// Returns the next time after now at which a job ends or the view of a service changes.
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

    fn log(&self, by: Fence, kind: impl FnOnce() -> EffectKind) {
        self.log.push(|| Effect { at: self.clock.monotonic(), by, kind: kind() });
    }

    /// Rejects a call that came too late, and logs the rejection.
    fn reject(
        &self,
        call: &CallContext,
        method: &'static str,
        kind: ErrorKind,
        message: &str,
    ) -> Outcome<()> {
        self.log(call.fence, || EffectKind::Rejected(method));
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
            let message = "the canary has a different version";
            return self.reject(call, "cluster.set_canary", ErrorKind::Conflict, message);
        }
        state.canary_writes += 1;
        let version = CanaryVersion(state.canary_writes.to_string());
        state.canary = Some(Canary { color, digest, version });
        self.log(call.fence, || EffectKind::CanarySet(color, digest));
        Outcome::Applied(())
    }

    async fn service(&self, color: Color) -> Result<ServiceView, PortError> {
        let view = self.lock().service(color).view(color, self.clock.monotonic());
        self.log(Fence::default(), || EffectKind::ServiceRead(color, view.is_ready()));
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
            let message = "the workload has a different fence";
            return self.reject(call, "cluster.set_image", ErrorKind::Conflict, message);
        }
        let digest = match want {
            ImageWant::Digest(digest) => *digest,
            ImageWant::Template(template) => match digest_in(template) {
                Some(digest) => digest,
                None => return not_applied(ErrorKind::Invalid, "the template is not from this cluster"),
            },
        };
        let before = state.service(color).running.as_ref().map(|running| running.digest);
        // As in Kubernetes, a write that does not change the template restarts nothing.
        if !state.service(color).runs(want) {
            let template = match want {
                ImageWant::Digest(_) => state.new_template(digest),
                ImageWant::Template(template) => template.clone(),
            };
            let script = state.scripts.get(&digest).cloned().unwrap_or_default();
            let service = state.service(color);
            // The pods of a template that was ready before were kept, so the template is ready immediately.
            let script = if service.ready_templates.contains(&template) { READY_IMMEDIATELY } else { script };
            service.deploy(now, digest, template, script);
        }
        state.service(color).fence = call.fence;
        self.log(call.fence, || EffectKind::ImageSet(color, before, Some(digest)));
        Outcome::Applied(())
    }

    async fn route(&self, uid: Uid) -> Result<Option<Route>, PortError> {
        Ok(self.lock().routes.get(&uid).cloned())
    }

    async fn put_route(&self, call: &CallContext, spec: &RouteSpec) -> Outcome<()> {
        let mut state = self.lock();
        if state.released.contains(&spec.uid) {
            let message = "the uid was released";
            return self.reject(call, "cluster.put_route", ErrorKind::Gone, message);
        }
        if state.routes.contains_key(&spec.uid) {
            return not_applied(ErrorKind::Exists, "the site already has a route");
        }
        if spec.hostnames.all().iter().any(|host| state.hosts.contains(host)) {
            return not_applied(ErrorKind::Foreign, "another owner's route has one of the hostnames");
        }
        state.hosts.extend(spec.hostnames.all().iter().cloned());
        let RouteSpec { uid, hostnames, service, .. } = spec.clone();
        state.routes.insert(uid, Route { uid, hostnames, service, fence: call.fence });
        self.log(call.fence, || EffectKind::RouteCreated(uid, service));
        Outcome::Applied(())
    }

    async fn move_route(&self, call: &CallContext, uid: Uid, expect: Fence, to: Color) -> Outcome<()> {
        const METHOD: &str = "cluster.move_route";
        let mut state = self.lock();
        let Some(route) = state.routes.get_mut(&uid) else {
            let message = "the site has no route";
            if state.released.contains(&uid) {
                return self.reject(call, METHOD, ErrorKind::NotFound, message);
            }
            return not_applied(ErrorKind::NotFound, message);
        };
        if route.fence != expect {
            return self.reject(call, METHOD, ErrorKind::Conflict, "the route has a different fence");
        }
        let from = std::mem::replace(&mut route.service, to);
        route.fence = call.fence;
        self.log(call.fence, || EffectKind::RouteMoved(uid, from, to));
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
            self.log(call.fence, || EffectKind::Released(uid, route.is_some()));
        }
        Outcome::Applied(())
    }

    async fn run_job(&self, call: &CallContext, spec: &JobSpec) -> Outcome<()> {
        let mut state = self.lock();
        let (owner, word) = (spec.kind.uid(), spec.kind.word());
        if owner.is_some_and(|uid| state.released.contains(&uid)) {
            let message = "the uid was released";
            return self.reject(call, "cluster.run_job", ErrorKind::Gone, message);
        }
        let existing = state.jobs.get(&spec.name);
        if existing.is_some_and(|job| job.owner != owner) {
            return not_applied(ErrorKind::Foreign, "another owner has a job with this name");
        }
        if existing.is_some() {
            return not_applied(ErrorKind::Exists, "the job already exists");
        }
        if let JobKind::FlushCaches { uids } = &spec.kind {
            state.flushes.extend(uids.iter().map(|uid| (call.fence.number, *uid)));
        }
        let scripted = state.job_scripts.get_mut(word).and_then(VecDeque::pop_front);
        let script = match (scripted, &spec.kind, &self.databases) {
            (Some(script), ..) => script,
            (None, JobKind::Install { uid, .. }, Some(databases)) => {
                let interrupt = state.interrupts.pop_front();
                JobScript {
                    result: install_state(databases.install(*uid, interrupt)),
                    ..JobScript::default()
                }
            }
            (None, ..) => JobScript::default(),
        };
        state.add_job(
            spec.name.clone(),
            StartedJob {
                owner,
                service: spec.service,
                word,
                since: self.clock.monotonic(),
                script,
                credentials: !matches!(spec.kind, JobKind::FlushCaches { .. }),
            },
        );
        self.log(call.fence, || EffectKind::JobStarted(spec.name.clone(), owner, word));
        Outcome::Applied(())
    }

    async fn job(&self, name: &JobName) -> Result<Option<Job>, PortError> {
        let now = self.clock.monotonic();
        Ok(self.lock().jobs.get_mut(name).map(|job| {
            job.remove_credentials(now);
            job.view(now)
        }))
    }

    async fn changes(
        &self,
        cursor: ChangeCursor,
        _wait: Duration,
    ) -> Result<(Vec<Changed>, ChangeCursor), PortError> {
        let mut state = self.lock();
        state.record_elapsed(self.clock.monotonic());
        let next = ChangeCursor(state.change_count);
        if cursor.0 < state.discarded || cursor > next {
            return Ok((vec![Changed::Anything], next));
        }
        Ok((state.history.range(cursor.0 + 1..).map(|(_, changed)| changed.clone()).collect(), next))
    }
}

const READY_IMMEDIATELY: ImageScript = ImageScript { ready_after: Some(Duration::ZERO), failure: None };

/// The lifecycle of pods of a digest, timed from their deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageScript {
    /// Time until all pods are available; `None` if they never are.
    pub ready_after: Option<Duration>,
    /// A pod failure, and the time after which it permanently prevents availability.
    pub failure: Option<(Duration, PodFailure)>,
}

impl Default for ImageScript {
    /// Returns a script with pods that are ready after 10 seconds.
    fn default() -> Self {
        Self { ready_after: Some(Duration::from_secs(10)), failure: None }
    }
}

/// The lifecycle of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobScript {
    /// Duration of the job.
    pub takes: Duration,
    /// Final state of the job; [`JobState::Running`] if it never ends.
    pub result: JobState,
}

impl Default for JobScript {
    /// Returns a script with a job that succeeds after 3 seconds and fails for no site.
    fn default() -> Self {
        Self { takes: Duration::from_secs(3), result: JobState::Succeeded { failed: Vec::new() } }
    }
}

#[derive(Debug, Default)]
struct State {
    canary: Option<Canary>,
    canary_writes: u64,
    services: BTreeMap<Color, Service>,
    scripts: BTreeMap<Digest, ImageScript>,
    templates: u64,
    routes: BTreeMap<Uid, Route>,
    /// The hostnames of all routes, including those of other owners.
    hosts: BTreeSet<Hostname>,
    jobs: BTreeMap<JobName, StartedJob>,
    job_scripts: BTreeMap<String, VecDeque<JobScript>>,
    /// Numbers of writes after which the next installations are interrupted.
    interrupts: VecDeque<usize>,
    flushes: BTreeSet<(u64, Uid)>,
    /// The names of all jobs of a uid, including removed jobs.
    owned: BTreeMap<Uid, Vec<JobName>>,
    released: BTreeSet<Uid>,
    /// Ends of jobs that are not in the change history yet.
    ends: BTreeSet<(MonotonicTime, JobName)>,
    /// The last change of each service and job, keyed by its sequence number.
    history: BTreeMap<u64, Changed>,
    latest_change: BTreeMap<Changed, u64>,
    change_count: u64,
    /// Cursors below this number are too old.
    discarded: u64,
}

impl State {
    fn service(&mut self, color: Color) -> &mut Service {
        self.services.entry(color).or_default()
    }

    fn new_template(&mut self, digest: Digest) -> Template {
        self.templates += 1;
        Template::new(&format!("template:{digest}:{}", self.templates))
    }

    fn add_job(&mut self, name: JobName, job: StartedJob) {
        self.ends.extend(job.ends().map(|end| (end, name.clone())));
        if let Some(uid) = job.owner {
            self.owned.entry(uid).or_default().push(name.clone());
        }
        self.record_change(Changed::Job(name.clone()));
        self.jobs.insert(name, job);
    }

    fn remove_job(&mut self, name: &JobName) {
        let Some(job) = self.jobs.remove(name) else { return };
        if let Some(end) = job.ends() {
            self.ends.remove(&(end, name.clone()));
        }
        self.record_change(Changed::Job(name.clone()));
    }

    /// Records the changes that the clock alone has caused since the last call.
    fn record_elapsed(&mut self, now: MonotonicTime) {
        while let Some((end, _)) = self.ends.first()
            && *end <= now
            && let Some((_, name)) = self.ends.pop_first()
        {
            if let Some(job) = self.jobs.get_mut(&name) {
                job.remove_credentials(now);
            }
            self.record_change(Changed::Job(name));
        }
        for color in Color::ALL {
            let service = self.service(color);
            let view = service.view(color, now);
            if service.last_view.as_ref() != Some(&view) {
                service.last_view = Some(view);
                self.record_change(Changed::Service(color));
            }
        }
    }

    fn record_change(&mut self, changed: Changed) {
        self.change_count += 1;
        if let Some(earlier) = self.latest_change.insert(changed.clone(), self.change_count) {
            self.history.remove(&earlier);
        }
        self.history.insert(self.change_count, changed);
    }
}

#[derive(Debug)]
struct Service {
    desired: u32,
    fence: Fence,
    running: Option<Running>,
    /// Templates that were ready when they were replaced.
    ready_templates: BTreeSet<Template>,
    /// The view in the last recorded change.
    last_view: Option<ServiceView>,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            desired: 2,
            fence: Fence::default(),
            running: None,
            ready_templates: BTreeSet::new(),
            last_view: None,
        }
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
                self.ready_templates.insert(before.template);
            } else {
                old = if before.is_rolled_out(now) { 0 } else { before.old };
                self.ready_templates.remove(&before.template);
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

/// What a service runs, and the state of its pods.
#[derive(Debug)]
struct Running {
    digest: Digest,
    template: Template,
    since: MonotonicTime,
    script: ImageScript,
    /// Pods of the previous template, which serve until this template is rolled out.
    old: u32,
    broken: Option<Breakage>,
}

/// A service that a test made unready, and the failure that it reports.
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

    /// Returns whether all pods of this template have been available, so that no pods of an earlier template
    /// remain.
    fn is_rolled_out(&self, now: MonotonicTime) -> bool {
        self.ready_at().is_some_and(|at| at <= now && self.fails_at().is_none_or(|fails| at < fails))
    }

    /// Returns whether all pods are available now.
    fn is_up(&self, now: MonotonicTime) -> bool {
        self.broken.is_none() && self.is_rolled_out(now) && self.fails_at().is_none_or(|at| now < at)
    }

    /// Removes old pods that have been replaced, so that a breakage does not restore them.
    fn drop_old_pods(&mut self, now: MonotonicTime) {
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

/// Returns the state of a job that installs WordPress, then checks the address and the administrator.
fn install_state(done: Option<(InstallResult, Installation)>) -> JobState {
    let failed = |message: &str, cause| JobState::Failed { message: message.to_owned(), cause };
    match done {
        None => failed("Error establishing a database connection.", JobFailure::DatabaseRefused),
        Some((InstallResult::Interrupted, _)) => failed("`install` ended with 137", JobFailure::Other),
        Some((InstallResult::TablesUnavailable, _)) => {
            failed(Installation::UNAVAILABLE, JobFailure::InstallIncomplete)
        }
        Some((InstallResult::Installed | InstallResult::AlreadyInstalled, contents))
            if contents.is_complete() =>
        {
            JobState::Succeeded { failed: Vec::new() }
        }
        Some((InstallResult::Installed | InstallResult::AlreadyInstalled, _)) => {
            failed("Could not get 'cdm_installed' option. Does it exist?", JobFailure::InstallIncomplete)
        }
    }
}

#[derive(Debug)]
struct StartedJob {
    owner: Option<Uid>,
    service: Color,
    word: &'static str,
    since: MonotonicTime,
    script: JobScript,
    /// Whether credentials for this job are in the cluster.
    credentials: bool,
}

impl StartedJob {
    fn ends(&self) -> Option<MonotonicTime> {
        (self.script.result != JobState::Running).then(|| self.since.after(self.script.takes))
    }

    fn state(&self, now: MonotonicTime) -> JobState {
        match self.ends() {
            Some(end) if end <= now => self.script.result.clone(),
            Some(_) | None => JobState::Running,
        }
    }

    /// Removes the credentials of an ended job.
    fn remove_credentials(&mut self, now: MonotonicTime) {
        self.credentials &= self.state(now) == JobState::Running;
    }

    fn view(&self, now: MonotonicTime) -> Job {
        let state = self.state(now);
        let word = match state {
            JobState::Running => "started",
            JobState::Succeeded { .. } => "done",
            JobState::Failed { .. } => "failed",
        };
        Job { log: format!("{}: {word}", self.word), state }
    }
}

fn digest_in(template: &Template) -> Option<Digest> {
    let (digest, _) = template.as_str().strip_prefix("template:")?.rsplit_once(':')?;
    Digest::parse(digest).ok()
}

fn not_applied(kind: ErrorKind, message: &str) -> Outcome<()> {
    Outcome::NotApplied(PortError::new("cluster", kind, message))
}
