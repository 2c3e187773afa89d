//! One watch for each kind of object, shared by all callers. The watches record changes, and the state of jobs, so that
//! a running job needs no request.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, pin_mut};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::api;
use super::changes::ChangeLog;
use super::job::JOB;
use super::job_status;
use super::jobs::Leftover;
use super::names::{CDM, COMPONENT, MANAGED_BY, label, name};
use super::pods;
use super::settings::KubernetesSettings;
use crate::domain::JobName;
use crate::ports::{ChangeCursor, Changed, Clock};

/// After how many seconds the server ends a watch, and a new one continues. Limits how long a dead connection goes
/// unnoticed.
const WATCH_SECONDS: u32 = 60;

/// The kinds of objects that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Job,
    Pod,
    Deployment,
}

/// The state of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Suspended,
    Running,
    Ended,
}

#[derive(Debug, Default)]
struct WatchState {
    changes: ChangeLog,
    /// The kinds whose watch is up to date, and the kinds whose watch has been up to date before.
    live: HashSet<Kind>,
    known: HashSet<Kind>,
    jobs: HashMap<String, Stage>,
    /// The pods with a problem that waiting cannot solve, with the names of their jobs.
    blocked: HashMap<String, String>,
    /// Ended Jobs whose Secret may still exist, and whether the latest call of `leftovers` skipped the Job.
    leftovers: HashMap<String, (Leftover, bool)>,
}

/// Watches the objects, from the first request for changes on.
#[derive(Debug)]
pub(super) struct Watches {
    state: Arc<Mutex<WatchState>>,
    change_signal: Arc<watch::Sender<()>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Watches {
    pub(super) fn new() -> Self {
        Self {
            state: Arc::default(),
            change_signal: Arc::new(watch::Sender::new(())),
            tasks: Mutex::default(),
        }
    }

    /// Returns the changes since `cursor`; waits up to `wait` for the first one.
    pub(super) async fn since(
        &self,
        clock: &dyn Clock,
        cursor: ChangeCursor,
        wait: Duration,
    ) -> (Vec<Changed>, ChangeCursor) {
        let until = clock.monotonic().after(wait);
        let mut change_signal = self.change_signal.subscribe();
        loop {
            change_signal.mark_unchanged();
            let (changes, next) = lock(&self.state).changes.since(cursor);
            if !changes.is_empty() || clock.monotonic() >= until {
                return (changes, next);
            }
            tokio::select! {
                _ = change_signal.changed() => {}
                () = clock.sleep_until(until) => {}
            }
        }
    }

    /// Returns whether a job is known to run, without a pod that cannot start.
    pub(super) fn is_running(&self, name: &JobName) -> bool {
        let state = lock(&self.state);
        [Kind::Job, Kind::Pod].iter().all(|kind| state.live.contains(kind))
            && state.jobs.get(name.as_str()) == Some(&Stage::Running)
            && !state.blocked.values().any(|job| job == name.as_str())
    }

    /// Returns some of the ended jobs whose Secrets still existed at the previous call. Reading a job that an operation
    /// waits for deletes its Secret, so the others are left over. Jobs whose Secrets are not deleted are returned
    /// again.
    pub(super) fn leftovers(&self) -> Vec<Leftover> {
        /// Maximum number of jobs that one call returns.
        const MAX_RETURNED: usize = 16;
        let mut state = lock(&self.state);
        let all = state.leftovers.values_mut();
        // Each job is returned by every second call, so that another process with the same watch can delete its Secret.
        let selected = all.filter_map(|(leftover, skipped)| {
            *skipped = !*skipped;
            (!*skipped).then(|| leftover.clone())
        });
        selected.take(MAX_RETURNED).collect()
    }

    /// Removes a job whose Secret was deleted.
    pub(super) fn cleared(&self, leftover: &Leftover) {
        lock(&self.state).leftovers.retain(|_, (other, _)| other != leftover);
    }

    /// Starts the watches, if they have not started.
    pub(super) fn start(&self, client: &Client, settings: &Arc<KubernetesSettings>) {
        let mut tasks = lock(&self.tasks);
        if !tasks.is_empty() {
            return;
        }
        let job_labels = format!("{MANAGED_BY}={CDM},{COMPONENT}={JOB}");
        let config = Config::default().timeout(WATCH_SECONDS);
        let namespace = &settings.namespace;
        let watcher_of = |kind| KindWatch {
            kind,
            settings: settings.clone(),
            state: self.state.clone(),
            change_signal: self.change_signal.clone(),
        };
        let jobs = Api::<Job>::namespaced(client.clone(), namespace);
        tasks.spawn(watcher_of(Kind::Job).run(jobs, config.clone().labels(&job_labels)));
        let pods = Api::<Pod>::namespaced(client.clone(), namespace);
        tasks.spawn(watcher_of(Kind::Pod).run(pods, config.clone().labels(&job_labels)));
        let deployments = Api::<Deployment>::namespaced(client.clone(), namespace);
        tasks.spawn(watcher_of(Kind::Deployment).run(deployments, config));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct KindWatch {
    kind: Kind,
    settings: Arc<KubernetesSettings>,
    state: Arc<Mutex<WatchState>>,
    change_signal: Arc<watch::Sender<()>>,
}

impl KindWatch {
    async fn run<K: Watched>(self, api: Api<K>, config: Config) {
        loop {
            self.watch_once(api.clone(), config.clone()).await;
        }
    }

    /// Watches until the watch must be created again: if the server no longer has the version of a list when the watch
    /// starts, the watcher does not list again, and every further attempt would be rejected.
    async fn watch_once<K: Watched>(&self, api: Api<K>, config: Config) {
        let events = watcher(api, config).default_backoff();
        pin_mut!(events);
        let mut too_old = false;
        while let Some(event) = events.next().await {
            // Only the second time, so that the backoff of the watcher passes before the new list.
            let again = event.as_ref().is_err_and(is_too_old);
            if again && too_old {
                return;
            }
            too_old = again;
            let mut state = lock(&self.state);
            match event {
                Ok(Event::Init) => {
                    state.live.remove(&self.kind);
                    state.clear(self.kind);
                }
                Ok(Event::InitDone) => {
                    state.live.insert(self.kind);
                    // Deletions during the interruption were not reported.
                    if !state.known.insert(self.kind) {
                        state.changes.invalidate();
                    }
                }
                Ok(Event::InitApply(object)) => object.apply(&self.settings, &mut state),
                Ok(Event::Apply(object)) => {
                    state.live.insert(self.kind);
                    object.apply(&self.settings, &mut state);
                }
                Ok(Event::Delete(object)) => {
                    state.live.insert(self.kind);
                    object.delete(&self.settings, &mut state);
                }
                Err(error) => {
                    // Until the watch is up to date again, callers read from the server.
                    state.live.remove(&self.kind);
                    tracing::warn!(kind = ?self.kind, error = %failure(&error), "a watch was interrupted");
                }
            }
            drop(state);
            self.change_signal.send_replace(());
        }
    }
}

/// A kind of object that is watched.
trait Watched: api::Kind + Send + 'static {
    /// Records a created or changed object.
    fn apply(&self, settings: &KubernetesSettings, state: &mut WatchState);
    /// Records a deleted object.
    fn delete(&self, settings: &KubernetesSettings, state: &mut WatchState);
}

impl Watched for Deployment {
    fn apply(&self, settings: &KubernetesSettings, state: &mut WatchState) {
        if let Some(color) = settings.color_of(name(&self.metadata)) {
            state.changes.record(Changed::Service(color));
        }
    }

    fn delete(&self, settings: &KubernetesSettings, state: &mut WatchState) {
        self.apply(settings, state);
    }
}

impl Watched for Job {
    fn apply(&self, _: &KubernetesSettings, state: &mut WatchState) {
        let name = name(&self.metadata);
        match Leftover::of(self) {
            Some(leftover) => {
                let entry = state.leftovers.entry(name.to_owned());
                let entry = entry.or_insert_with(|| (leftover.clone(), false));
                if entry.0 != leftover {
                    *entry = (leftover, false);
                }
            }
            None => drop(state.leftovers.remove(name)),
        }
        let stage = match job_status::end(self) {
            Some(_) => Stage::Ended,
            None if job_status::is_suspended(self) => Stage::Suspended,
            None => Stage::Running,
        };
        if state.jobs.insert(name.to_owned(), stage) != Some(stage) {
            notify_job(state, name);
        }
    }

    fn delete(&self, _: &KubernetesSettings, state: &mut WatchState) {
        let name = name(&self.metadata);
        state.jobs.remove(name);
        state.leftovers.remove(name);
        notify_job(state, name);
    }
}

impl Watched for Pod {
    fn apply(&self, _: &KubernetesSettings, state: &mut WatchState) {
        let Some(job) = label(&self.metadata, "batch.kubernetes.io/job-name") else { return };
        let name = name(&self.metadata);
        let is_blocked = pods::problem(self).is_some_and(|problem| problem.fails_job());
        if is_blocked && state.blocked.insert(name.to_owned(), job.to_owned()).is_none() {
            notify_job(state, job);
        }
        if !is_blocked {
            state.blocked.remove(name);
        }
    }

    fn delete(&self, _: &KubernetesSettings, state: &mut WatchState) {
        state.blocked.remove(name(&self.metadata));
    }
}

impl WatchState {
    /// Discards the state of a kind before a complete list of its objects.
    fn clear(&mut self, kind: Kind) {
        match kind {
            Kind::Job => {
                self.jobs.clear();
                self.leftovers.clear();
            }
            Kind::Pod => self.blocked.clear(),
            Kind::Deployment => {}
        }
    }
}

fn notify_job(state: &mut WatchState, name: &str) {
    if let Some(name) = JobName::parse(name) {
        state.changes.record(Changed::Job(name));
    }
}

/// Returns whether a watch did not start because its resource version is too old.
fn is_too_old(error: &kube::runtime::watcher::Error) -> bool {
    use kube::runtime::watcher::Error;
    matches!(error, Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410)
}

/// Returns the message of a watch's error, without details, which may have content of an object.
fn failure(error: &kube::runtime::watcher::Error) -> &'static str {
    use kube::runtime::watcher::Error;
    match error {
        Error::InitialListFailed(_) => "the list failed",
        Error::WatchStartFailed(_) => "the watch did not start",
        Error::WatchError(_) => "the server ended the watch",
        Error::WatchFailed(_) => "the connection was lost",
        Error::NoResourceVersion => "the list has no resource version",
    }
}
