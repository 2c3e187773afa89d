//! A cluster of one's own behind [`ClusterOps`]: two services, routes and jobs inside this process.
//!
//! It is small, and it keeps every promise of the port. Three of them carry the weight:
//! - **Whoever lost the work moves nothing.** A workload and a route carry the fence of their last write, the canary a
//!   version; a write names the one that it expects, and is a `Conflict` where another one is found. Compare and write
//!   happen under one lock; a real cluster has a resource version or a conditional update for it.
//! - **What was released stays away.** The uid is remembered for good, so a late call under it is `Gone`.
//! - **A repetition is told from a stranger.** A job of the same name is `Exists` for its owner, and `Foreign` for
//!   anyone else.
//!
//! No call waits for anything but [`ClusterOps::changes`], so no deadline passes inside one, and no answer is lost:
//! this cluster never says [`Outcome::Unknown`]. One behind a network has to, at every time-out.

mod jobs;
mod news;
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

use jobs::Jobs;
use news::News;
use workload::{PodTemplate, Workload};

/// The cluster; clones are the same one.
#[derive(Clone)]
pub struct OwnCluster {
    state: Arc<Mutex<State>>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Default)]
struct State {
    /// What can be run.
    images: BTreeMap<Digest, Image>,
    canary: Option<Canary>,
    canary_writes: u64,
    blue: Workload,
    green: Workload,
    routes: BTreeMap<Uid, Route>,
    jobs: Jobs,
    /// Uids that were released. They are never used again, so nothing is ever taken out.
    released: BTreeSet<Uid>,
    news: News,
}

impl OwnCluster {
    /// A cluster with two services that run nothing yet, and a registry of these images.
    pub fn new(clock: Arc<dyn Clock>, images: impl IntoIterator<Item = (Digest, Image)>) -> Self {
        let state = State { images: images.into_iter().collect(), ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), clock }
    }

    /// Everything that there is of a uid, in words; empty after a release.
    pub fn belongings(&self, uid: Uid) -> Vec<String> {
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

    /// What becomes of the pods of an image; one that is not in the registry cannot be pulled.
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
            return refused(ErrorKind::Conflict, "the canary has another version");
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
        // The fence first: a repetition of a call that was applied is a conflict too.
        if workload.fence() != expect {
            return refused(ErrorKind::Conflict, "the workload carries another fence");
        }
        let template = match want {
            ImageWant::Digest(digest) => workload.template_with(*digest),
            ImageWant::Template(template) => match PodTemplate::parse(template) {
                Some(template) => template,
                None => return refused(ErrorKind::Invalid, "the template is none of this cluster's"),
            },
        };
        let image = state.image(template.image);
        let moments = state.workload_mut(color).run(template, image, call.fence, self.now());
        for moment in moments {
            state.news.expect(moment, Changed::Service(color));
        }
        Outcome::Applied(())
    }

    async fn route(&self, uid: Uid) -> Result<Option<Route>, PortError> {
        Ok(self.lock().routes.get(&uid).cloned())
    }

    async fn put_route(&self, call: &CallContext, spec: &RouteSpec) -> Outcome<()> {
        let mut state = self.lock();
        if state.released.contains(&spec.uid) {
            return refused(ErrorKind::Gone, "the uid was released");
        }
        if state.routes.contains_key(&spec.uid) {
            return refused(ErrorKind::Exists, "the site has a route");
        }
        if state.has_host_of(spec) {
            return refused(ErrorKind::Foreign, "another route has one of the hostnames");
        }
        let RouteSpec { uid, hostnames, service, .. } = spec.clone();
        state.routes.insert(uid, Route { uid, hostnames, service, fence: call.fence });
        Outcome::Applied(())
    }

    async fn move_route(&self, call: &CallContext, uid: Uid, expect: Fence, to: Color) -> Outcome<()> {
        let mut state = self.lock();
        let Some(route) = state.routes.get_mut(&uid) else {
            return refused(ErrorKind::NotFound, "the site has no route");
        };
        if route.fence != expect {
            return refused(ErrorKind::Conflict, "the route carries another fence");
        }
        // Both in one write: a reader never sees the new service under the old fence.
        (route.service, route.fence) = (to, call.fence);
        Outcome::Applied(())
    }

    async fn release(&self, _: &CallContext, uid: Uid) -> Outcome<()> {
        let mut state = self.lock();
        // Closed first, and also where there is nothing: what comes later finds the uid released.
        state.released.insert(uid);
        state.routes.remove(&uid);
        for name in state.jobs.remove_of(uid) {
            state.news.expect(self.now(), Changed::Job(name));
        }
        Outcome::Applied(())
    }

    async fn run_job(&self, _: &CallContext, spec: &JobSpec) -> Outcome<()> {
        let mut state = self.lock();
        let owner = spec.kind.uid();
        if owner.is_some_and(|uid| state.released.contains(&uid)) {
            return refused(ErrorKind::Gone, "the uid was released");
        }
        match state.jobs.owner(&spec.name) {
            Some(held) if held == owner => return refused(ErrorKind::Exists, "the job is there"),
            Some(_) => return refused(ErrorKind::Foreign, "another owner has a job of that name"),
            None => {}
        }
        let image = state.workload(spec.service).image();
        let image = image.map_or(Image::Absent, |digest| state.image(digest));
        let now = self.now();
        let end = state.jobs.start(spec, image, now);
        for moment in [now, end] {
            state.news.expect(moment, Changed::Job(spec.name.clone()));
        }
        Outcome::Applied(())
    }

    async fn job(&self, name: &JobName) -> Result<Option<Job>, PortError> {
        Ok(self.lock().jobs.view(name, self.now()))
    }

    async fn changes(
        &self,
        mark: ChangeCursor,
        wait: Duration,
    ) -> Result<(Vec<Changed>, ChangeCursor), PortError> {
        let until = self.now().after(wait);
        loop {
            // The lock is let go of before anything is awaited.
            let (heard, next) = {
                let mut state = self.lock();
                (state.news.since(mark, self.now()), state.news.next())
            };
            if !heard.0.is_empty() || self.now() >= until {
                return Ok(heard);
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

fn refused(kind: ErrorKind, message: &str) -> Outcome<()> {
    Outcome::NotApplied(PortError::new("cluster", kind, message))
}
