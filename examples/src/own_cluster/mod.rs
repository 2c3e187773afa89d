//! A custom cluster behind [`ClusterOps`]: two services, routes and jobs inside this process.
//!
//! The cluster is small, and fulfills the contract of the port. Three rules are essential:
//! - **A worker that lost its lease moves nothing.** A workload and a route carry the fence of their last write, and
//!   the canary carries a version. A write names the one that it expects, and is a `Conflict` if it finds another one.
//!   Compare and write happen under one lock; a real cluster uses a resource version or a conditional update.
//! - **A released uid stays released.** The uid is stored permanently, so a late call with it is `Gone`.
//! - **A repeated call is distinguished from a foreign one.** A job with the same name is `Exists` for its owner, and
//!   `Foreign` for other owners.
//!
//! Only [`ClusterOps::changes`] waits, so no deadline expires inside another call, and no response is lost: this
//! cluster never returns [`Outcome::Unknown`]. A cluster behind a network must return it on every time-out.

mod changes;
mod jobs;
mod workload;

pub use workload::Image;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cdm_core::domain::{Color, Digest, Fence, JobName, MonotonicTime, Uid};
use cdm_core::ports::{
    CallContext, Canary, CanaryVersion, ChangeCursor, Changed, Clock, ClusterOps, ErrorKind, ImageWant, Job,
    JobSpec, Outcome, PortError, Route, RouteSpec, ServiceView,
};

use changes::ChangeLog;
use jobs::Jobs;
use workload::{PodTemplate, Workload};

/// The cluster; clones share its state.
#[derive(Clone)]
pub struct OwnCluster {
    state: Arc<Mutex<State>>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Default)]
struct State {
    /// The images that can be run.
    images: BTreeMap<Digest, Image>,
    canary: Option<Canary>,
    canary_writes: u64,
    blue: Workload,
    green: Workload,
    routes: BTreeMap<Uid, Route>,
    jobs: Jobs,
    /// Released uids. A uid is never reused, so entries are never removed.
    released: BTreeSet<Uid>,
    changes: ChangeLog,
}

impl OwnCluster {
    /// Creates a cluster with two services that run nothing, and a registry with these images.
    pub fn new(clock: Arc<dyn Clock>, images: impl IntoIterator<Item = (Digest, Image)>) -> Self {
        let state = State { images: images.into_iter().collect(), ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), clock }
    }

    /// Describes all objects of a uid; empty after a release.
    pub fn objects_of(&self, uid: Uid) -> Vec<String> {
        let state = self.lock();
        let route = state.routes.get(&uid).map(|route| format!("a route to {}", route.service));
        let jobs = state.jobs.of(uid).map(|name| format!("the job {name}"));
        route.into_iter().chain(jobs).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> MonotonicTime {
        self.clock.monotonic()
    }
}

impl State {
    const fn workload(&self, color: Color) -> &Workload {
        match color {
            Color::Blue => &self.blue,
            Color::Green => &self.green,
        }
    }

    const fn workload_mut(&mut self, color: Color) -> &mut Workload {
        match color {
            Color::Blue => &mut self.blue,
            Color::Green => &mut self.green,
        }
    }

    /// Returns how the pods of an image behave; an image that is not in the registry cannot be pulled.
    fn image(&self, digest: Digest) -> Image {
        self.images.get(&digest).copied().unwrap_or(Image::Absent)
    }

    fn has_host_of(&self, spec: &RouteSpec) -> bool {
        let taken = self.routes.values().flat_map(|route| route.hostnames.all());
        taken.into_iter().any(|host| spec.hostnames.all().contains(host))
    }
}

#[async_trait]
impl ClusterOps for OwnCluster {
    async fn canary(&self) -> Result<Option<Canary>, PortError> {
        Ok(self.lock().canary.clone())
    }

    async fn set_canary(
        &self,
        _: &CallContext,
        expect: Option<&CanaryVersion>,
        color: Color,
        digest: Option<Digest>,
    ) -> Outcome<()> {
        let mut state = self.lock();
        if state.canary.as_ref().map(|canary| &canary.version) != expect {
            return rejected(ErrorKind::Conflict, "the canary has another version");
        }
        state.canary_writes += 1;
        let version = CanaryVersion(state.canary_writes.to_string());
        state.canary = Some(Canary { color, digest, version });
        Outcome::Applied(())
    }

    async fn service(&self, color: Color) -> Result<ServiceView, PortError> {
        Ok(self.lock().workload(color).view(color, self.now()))
    }

    async fn set_image(
        &self,
        call: &CallContext,
        color: Color,
        expect: Fence,
        want: &ImageWant,
    ) -> Outcome<()> {
        let mut state = self.lock();
        let workload = state.workload(color);
        // The fence is compared first: a repetition of a call that was applied is a conflict too.
        if workload.fence() != expect {
            return rejected(ErrorKind::Conflict, "the workload carries another fence");
        }
        let template = match want {
            ImageWant::Digest(digest) => workload.template_with(*digest),
            ImageWant::Template(template) => match PodTemplate::parse(template) {
                Some(template) => template,
                None => {
                    return rejected(ErrorKind::Invalid, "the template is not in the format of this cluster");
                }
            },
        };
        let image = state.image(template.image);
        let moments = state.workload_mut(color).run(template, image, call.fence, self.now());
        for moment in moments {
            state.changes.schedule(moment, Changed::Service(color));
        }
        Outcome::Applied(())
    }

    async fn route(&self, uid: Uid) -> Result<Option<Route>, PortError> {
        Ok(self.lock().routes.get(&uid).cloned())
    }

    async fn put_route(&self, call: &CallContext, spec: &RouteSpec) -> Outcome<()> {
        let mut state = self.lock();
        if state.released.contains(&spec.uid) {
            return rejected(ErrorKind::Gone, "the uid was released");
        }
        if state.routes.contains_key(&spec.uid) {
            return rejected(ErrorKind::Exists, "the site has a route");
        }
        if state.has_host_of(spec) {
            return rejected(ErrorKind::Foreign, "another route has one of the hostnames");
        }
        let RouteSpec { uid, hostnames, service, .. } = spec.clone();
        state.routes.insert(uid, Route { uid, hostnames, service, fence: call.fence });
        Outcome::Applied(())
    }

    async fn move_route(&self, call: &CallContext, uid: Uid, expect: Fence, to: Color) -> Outcome<()> {
        let mut state = self.lock();
        let Some(route) = state.routes.get_mut(&uid) else {
            return rejected(ErrorKind::NotFound, "the site has no route");
        };
        if route.fence != expect {
            return rejected(ErrorKind::Conflict, "the route carries another fence");
        }
        // Both in one write: a reader never sees the new service with the old fence.
        (route.service, route.fence) = (to, call.fence);
        Outcome::Applied(())
    }

    async fn release(&self, _: &CallContext, uid: Uid) -> Outcome<()> {
        let mut state = self.lock();
        // Stored first, even if there is nothing to remove: later calls find the uid released.
        state.released.insert(uid);
        state.routes.remove(&uid);
        for name in state.jobs.remove_of(uid) {
            state.changes.schedule(self.now(), Changed::Job(name));
        }
        Outcome::Applied(())
    }

    async fn run_job(&self, _: &CallContext, spec: &JobSpec) -> Outcome<()> {
        let mut state = self.lock();
        let owner = spec.kind.uid();
        if owner.is_some_and(|uid| state.released.contains(&uid)) {
            return rejected(ErrorKind::Gone, "the uid was released");
        }
        match state.jobs.owner(&spec.name) {
            Some(held) if held == owner => return rejected(ErrorKind::Exists, "the job exists already"),
            Some(_) => return rejected(ErrorKind::Foreign, "another owner has a job of that name"),
            None => {}
        }
        let image = state.workload(spec.service).image();
        let image = image.map_or(Image::Absent, |digest| state.image(digest));
        let now = self.now();
        let end = state.jobs.start(spec, image, now);
        for moment in [now, end] {
            state.changes.schedule(moment, Changed::Job(spec.name.clone()));
        }
        Outcome::Applied(())
    }

    async fn job(&self, name: &JobName) -> Result<Option<Job>, PortError> {
        Ok(self.lock().jobs.view(name, self.now()))
    }

    async fn changes(
        &self,
        cursor: ChangeCursor,
        wait: Duration,
    ) -> Result<(Vec<Changed>, ChangeCursor), PortError> {
        let until = self.now().after(wait);
        loop {
            // The lock is released before anything is awaited.
            let (received, next) = {
                let mut state = self.lock();
                (state.changes.since(cursor, self.now()), state.changes.next())
            };
            if !received.0.is_empty() || self.now() >= until {
                return Ok(received);
            }
            self.clock.sleep_until(next.map_or(until, |next| next.min(until))).await;
        }
    }
}

impl fmt::Debug for OwnCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnCluster").finish_non_exhaustive()
    }
}

fn rejected(kind: ErrorKind, message: &str) -> Outcome<()> {
    Outcome::NotApplied(PortError::new("cluster", kind, message))
}
