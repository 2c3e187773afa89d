//! One watch for each kind, shared by everyone who waits: what it tells becomes news, and a job that is known to run
//! is not asked for.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, pin_mut};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::job::JOB;
use super::jobs::Leftover;
use super::names::{CDM, COMPONENT, MANAGED_BY};
use super::news::News;
use super::pods;
use super::settings::KubernetesSettings;
use super::verdict;
use crate::domain::JobName;
use crate::ports::{ChangeCursor, Changed, Clock};

/// After how many seconds the server ends a watch, and a new one goes on where it was. A connection that is dead without
/// a sign is found out soon after.
const WATCH: u32 = 60;

/// The three kinds that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Job,
    Pod,
    Deployment,
}

/// What is known of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Asleep,
    Running,
    Ended,
}

#[derive(Debug, Default)]
struct Seen {
    news: News,
    /// The kinds whose watch is up to date, and those that have been so before.
    live: HashSet<Kind>,
    known: HashSet<Kind>,
    jobs: HashMap<String, Stage>,
    /// The pods that do not get on, with their jobs' names.
    stuck: HashMap<String, String>,
    /// Ended Jobs whose Secret may still exist, and whether the latest call of `leftovers` skipped the Job.
    leftovers: HashMap<String, (Leftover, bool)>,
}

/// Follows the changes from the first question on.
#[derive(Debug)]
pub(super) struct Watches {
    seen: Arc<Mutex<Seen>>,
    pulse: Arc<watch::Sender<()>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Watches {
    pub(super) fn new() -> Self {
        Self { seen: Arc::default(), pulse: Arc::new(watch::Sender::new(())), tasks: Mutex::default() }
    }

    /// What changed since `mark`, waiting at most `wait` for something.
    pub(super) async fn since(
        &self,
        clock: &dyn Clock,
        mark: ChangeCursor,
        wait: Duration,
    ) -> (Vec<Changed>, ChangeCursor) {
        let until = clock.monotonic().after(wait);
        let mut pulse = self.pulse.subscribe();
        loop {
            pulse.mark_unchanged();
            let (news, next) = lock(&self.seen).news.since(mark);
            if !news.is_empty() || clock.monotonic() >= until {
                return (news, next);
            }
            tokio::select! {
                _ = pulse.changed() => {}
                () = clock.sleep_until(until) => {}
            }
        }
    }

    /// Whether a job is known to be at work, with nothing that keeps it from it.
    pub(super) fn is_running(&self, name: &JobName) -> bool {
        let seen = lock(&self.seen);
        [Kind::Job, Kind::Pod].iter().all(|kind| seen.live.contains(kind))
            && seen.jobs.get(name.as_str()) == Some(&Stage::Running)
            && !seen.stuck.values().any(|job| job == name.as_str())
    }

    /// Some of the jobs that ended and whose Secrets nobody has deleted since the last question: of those that are
    /// still awaited, the look at the job does it. What is not deleted now comes again.
    pub(super) fn leftovers(&self) -> Vec<Leftover> {
        /// How many are answered at once.
        const SOME: usize = 16;
        let mut seen = lock(&self.seen);
        let all = seen.leftovers.values_mut();
        // Each is answered at every second question, so that whoever else follows leaves it alone meanwhile.
        let due = all.filter_map(|(leftover, passed)| {
            *passed = !*passed;
            (!*passed).then(|| leftover.clone())
        });
        due.take(SOME).collect()
    }

    /// The Secret of a leftover is gone.
    pub(super) fn cleared(&self, leftover: &Leftover) {
        lock(&self.seen).leftovers.retain(|_, (other, _)| other != leftover);
    }

    /// Begins to follow, if that has not begun.
    pub(super) fn start(&self, client: &Client, settings: &Arc<KubernetesSettings>) {
        let mut tasks = lock(&self.tasks);
        if !tasks.is_empty() {
            return;
        }
        let ours = format!("{MANAGED_BY}={CDM},{COMPONENT}={JOB}");
        let config = Config::default().timeout(WATCH);
        let namespace = &settings.namespace;
        let follow = |kind| Follow {
            kind,
            settings: settings.clone(),
            seen: self.seen.clone(),
            pulse: self.pulse.clone(),
        };
        let jobs = Api::<Job>::namespaced(client.clone(), namespace);
        tasks.spawn(follow(Kind::Job).go(jobs, config.clone().labels(&ours)));
        let pods = Api::<Pod>::namespaced(client.clone(), namespace);
        tasks.spawn(follow(Kind::Pod).go(pods, config.clone().labels(&ours)));
        let deployments = Api::<Deployment>::namespaced(client.clone(), namespace);
        tasks.spawn(follow(Kind::Deployment).go(deployments, config));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One kind's follower.
struct Follow {
    kind: Kind,
    settings: Arc<KubernetesSettings>,
    seen: Arc<Mutex<Seen>>,
    pulse: Arc<watch::Sender<()>>,
}

impl Follow {
    async fn go<K>(self, api: Api<K>, config: Config)
    where
        K: Resource + Clone + Debug + DeserializeOwned + serde::Serialize + Send + 'static,
    {
        loop {
            self.follow(api.clone(), config.clone()).await;
        }
    }

    /// Follows until it has to be begun anew: a list whose version the server does not know any more when the watch
    /// starts is asked for again by nobody else, and the watch would be refused for ever.
    async fn follow<K>(&self, api: Api<K>, config: Config)
    where
        K: Resource + Clone + Debug + DeserializeOwned + serde::Serialize + Send + 'static,
    {
        let events = watcher(api, config).default_backoff();
        pin_mut!(events);
        let mut too_old = false;
        while let Some(event) = events.next().await {
            // The second time, so that the pause between two tries lies before the new list.
            let again = event.as_ref().is_err_and(is_too_old);
            if again && too_old {
                return;
            }
            too_old = again;
            let mut seen = lock(&self.seen);
            match event {
                Ok(Event::Init) => {
                    seen.live.remove(&self.kind);
                    seen.begin_anew(self.kind);
                }
                Ok(Event::InitDone) => {
                    seen.live.insert(self.kind);
                    // What went away in between is told by nobody.
                    if !seen.known.insert(self.kind) {
                        seen.news.forget();
                    }
                }
                Ok(Event::InitApply(object)) => self.apply(&mut seen, &object),
                Ok(Event::Apply(object)) => {
                    seen.live.insert(self.kind);
                    self.apply(&mut seen, &object);
                }
                Ok(Event::Delete(object)) => {
                    seen.live.insert(self.kind);
                    self.delete(&mut seen, &object);
                }
                Err(error) => {
                    // Until it is heard of again, who wants to know asks.
                    seen.live.remove(&self.kind);
                    tracing::warn!(kind = ?self.kind, error = %failure(&error), "a watch was interrupted");
                }
            }
            drop(seen);
            self.pulse.send_replace(());
        }
    }

    fn apply<K: Resource + serde::Serialize>(&self, seen: &mut Seen, object: &K) {
        let name = object.name_any();
        match self.kind {
            Kind::Deployment => self.tell_service(seen, &name),
            Kind::Job => {
                let Ok(object) = serde_json::to_value(object) else { return };
                match Leftover::of(&object) {
                    Some(leftover) => {
                        let held = seen.leftovers.entry(name.clone());
                        let held = held.or_insert_with(|| (leftover.clone(), false));
                        if held.0 != leftover {
                            *held = (leftover, false);
                        }
                    }
                    None => drop(seen.leftovers.remove(&name)),
                }
                let stage = match verdict::end(&object) {
                    Some(_) => Stage::Ended,
                    None if verdict::is_suspended(&object) => Stage::Asleep,
                    None => Stage::Running,
                };
                if seen.jobs.insert(name.clone(), stage) != Some(stage) {
                    tell_job(seen, &name);
                }
            }
            Kind::Pod => {
                let Ok(object) = serde_json::to_value(object) else { return };
                let Some(job) = super::names::label(&object, "batch.kubernetes.io/job-name") else { return };
                let is_stuck = pods::trouble(&object).is_some_and(|trouble| trouble.fails_job());
                if is_stuck && seen.stuck.insert(name.clone(), job.to_owned()).is_none() {
                    tell_job(seen, job);
                }
                if !is_stuck {
                    seen.stuck.remove(&name);
                }
            }
        }
    }

    fn delete<K: Resource>(&self, seen: &mut Seen, object: &K) {
        let name = object.name_any();
        match self.kind {
            Kind::Deployment => self.tell_service(seen, &name),
            Kind::Job => {
                seen.jobs.remove(&name);
                seen.leftovers.remove(&name);
                tell_job(seen, &name);
            }
            Kind::Pod => {
                seen.stuck.remove(&name);
            }
        }
    }

    fn tell_service(&self, seen: &mut Seen, name: &str) {
        if let Some(color) = self.settings.selector_of(name) {
            seen.news.tell(Changed::Service(color));
        }
    }
}

impl Seen {
    /// A list follows that has everything there is.
    fn begin_anew(&mut self, kind: Kind) {
        match kind {
            Kind::Job => {
                self.jobs.clear();
                self.leftovers.clear();
            }
            Kind::Pod => self.stuck.clear(),
            Kind::Deployment => {}
        }
    }
}

fn tell_job(seen: &mut Seen, name: &str) {
    if let Some(name) = JobName::parse(name) {
        seen.news.tell(Changed::Job(name));
    }
}

/// Whether a watch did not start because its version is too old.
fn is_too_old(error: &kube::runtime::watcher::Error) -> bool {
    use kube::runtime::watcher::Error;
    matches!(error, Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410)
}

/// What a watch's error says, without its details: these may hold what the server said about an object.
fn failure(error: &kube::runtime::watcher::Error) -> &'static str {
    use kube::runtime::watcher::Error;
    match error {
        Error::InitialListFailed(_) => "the list failed",
        Error::WatchStartFailed(_) => "it does not start",
        Error::WatchError(_) => "the server ended it",
        Error::WatchFailed(_) => "the connection broke",
        Error::NoResourceVersion => "the list has no version",
    }
}
