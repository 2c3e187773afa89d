//! The controller of one service: compares the pods with the desired template, starts and stops pods, and stores what
//! it observes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::host::HostContext;
use super::pod::{Pod, PodSpec};
use super::tables::{self, ServiceSpec, ServiceStatus};
use super::{changes, encoding};
use crate::adapters::embedded::file::is_full;
use crate::domain::{Color, MonotonicTime};
use crate::ports::{Changed, PodFailure};

/// The pause between two rounds while all pods are as desired.
const IDLE_INTERVAL: Duration = Duration::from_millis(500);
/// The pause between two rounds otherwise: minimum and maximum.
const BUSY_INTERVAL: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(50));
/// How long a pod that gets no new requests stays for the open ones: minimum and maximum.
const DRAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// How many pods may exist above the desired number during a rollout.
const SURGE: usize = 1;

/// Runs a service until the future is dropped, which stops its pods.
pub(super) async fn run(context: Arc<HostContext>, color: Color) {
    let mut service = Service::new(color);
    let mut change_signal = context.cluster.change_signal.subscribe();
    let settings = &context.cluster.settings;
    let busy_interval = (settings.pod_start / 4).clamp(BUSY_INTERVAL.0, BUSY_INTERVAL.1);
    let clock = &context.cluster.clock;
    loop {
        let pause = match service.reconcile(&context).await {
            Ok(Progress::Done) => IDLE_INTERVAL,
            Ok(Progress::InProgress) => busy_interval,
            // The file has logged the full disk once.
            Err(error) if is_full(&error) => IDLE_INTERVAL,
            Err(error) => {
                tracing::warn!(%error, %color, "the service cannot be reconciled at the moment");
                BUSY_INTERVAL.1
            }
        };
        let next = clock.monotonic().after(pause);
        tokio::select! {
            _ = change_signal.changed() => {}
            () = clock.sleep_until(next) => {}
        }
    }
}

enum Progress {
    Done,
    InProgress,
}

struct Service {
    color: Color,
    pods: Vec<Pod>,
    /// Pods that get no new requests, with the time since when.
    draining: Vec<(MonotonicTime, Pod)>,
    started: u64,
    /// The generation that is being rolled out; `None` before the first round.
    generation: Option<i64>,
    /// The time of the last progress of the rollout.
    progress: MonotonicTime,
    /// Whether all pods of the generation have been available at the same time once.
    rolled_out: bool,
    most_available: usize,
    reported: Option<ServiceStatus>,
    probed: MonotonicTime,
}

impl Service {
    fn new(color: Color) -> Self {
        Self {
            color,
            pods: Vec::new(),
            draining: Vec::new(),
            started: 0,
            generation: None,
            progress: MonotonicTime::default(),
            rolled_out: false,
            most_available: 0,
            reported: None,
            probed: MonotonicTime::default(),
        }
    }

    async fn reconcile(&mut self, context: &Arc<HostContext>) -> Result<Progress, sqlx::Error> {
        let now = context.cluster.clock.monotonic();
        let spec = {
            let mut reader = context.cluster.file.reader().acquire().await?;
            tables::spec(&mut reader, self.color).await?
        };
        let first = self.generation.is_none();
        let is_new = self.generation != Some(spec.generation);
        if is_new {
            self.generation = Some(spec.generation);
            (self.progress, self.rolled_out, self.most_available) = (now, false, 0);
        }
        if first {
            // Pods that served before the process ended serve again at once, also during a rollout.
            for _ in 0..spec.desired {
                self.start(context, &spec.rolled_out, Duration::ZERO).await;
            }
        }
        let settled = self.reported.as_ref().is_some_and(|status| is_done(status, &spec));
        if is_new || !settled || now.since(self.probed) >= IDLE_INTERVAL {
            self.probed = now;
            join_all(self.pods.iter_mut().map(|pod| pod.probe(context))).await;
        }
        self.adjust_pods(context, &spec, now).await;
        let ready = self.pods.iter().filter(|pod| pod.ready.is_ok()).map(|pod| pod.address);
        context.endpoints(self.color).set(ready.collect());

        let status = self.observe(&spec, now, context.cluster.settings.progress_deadline);
        let done = is_done(&status, &spec);
        if self.reported.as_ref() != Some(&status) {
            self.report(context, &spec, &status, done).await?;
            self.reported = Some(status);
        }
        self.draining.retain(|(since, pod)| {
            let age = now.since(*since);
            age < DRAIN.0 || (age < DRAIN.1 && !pod.active.is_idle())
        });
        Ok(if done && self.draining.is_empty() { Progress::Done } else { Progress::InProgress })
    }

    /// Starts pods of the desired template within the surge limit, and stops others as soon as they are not needed.
    async fn adjust_pods(&mut self, context: &Arc<HostContext>, spec: &ServiceSpec, now: MonotonicTime) {
        let is_current = |pod: &Pod| pod.template == spec.template;
        let available = self.pods.iter().filter(|pod| pod.ready.is_ok()).count();
        let mut surplus = available.saturating_sub(spec.desired);
        let mut at = 0;
        while let Some(pod) = self.pods.get(at) {
            let stops = !is_current(pod) && (pod.ready.is_err() || surplus > 0);
            if !stops {
                at += 1;
                continue;
            }
            surplus -= usize::from(pod.ready.is_ok() && surplus > 0);
            let pod = self.pods.remove(at);
            tracing::debug!(pod = %pod.name, "stopping a pod");
            self.draining.push((now, pod));
        }
        let current = self.pods.iter().filter(|pod| is_current(pod)).count();
        let capacity = (spec.desired + SURGE).saturating_sub(self.pods.len());
        let delay = context.cluster.images().of(spec.digest).start;
        let delay = delay.unwrap_or(context.cluster.settings.pod_start);
        for _ in 0..spec.desired.saturating_sub(current).min(capacity) {
            self.start(context, &spec.template, delay).await;
        }
    }

    async fn start(&mut self, context: &Arc<HostContext>, template: &str, start: Duration) {
        let Some(digest) = encoding::digest_in(template) else { return };
        self.started += 1;
        let name = format!("{}-{}-{}", self.color, encoding::revision_in(template), self.started);
        let spec = PodSpec { name, service: self.color, digest, template: template.to_owned(), start };
        match Pod::start(context, spec).await {
            Ok(mut pod) => {
                tracing::debug!(pod = %pod.name, address = %pod.address, "starting a pod");
                if start.is_zero() {
                    pod.probe(context).await;
                }
                self.pods.push(pod);
            }
            Err(error) => tracing::warn!(%error, "a pod could not be started"),
        }
    }

    fn observe(&mut self, spec: &ServiceSpec, now: MonotonicTime, deadline: Duration) -> ServiceStatus {
        let current = || self.pods.iter().filter(|pod| pod.template == spec.template);
        let updated = current().count();
        let available = current().filter(|pod| pod.ready.is_ok()).count();
        let total = self.pods.len();
        if available > self.most_available {
            (self.most_available, self.progress) = (available, now);
        }
        self.rolled_out |= updated == spec.desired && available == updated && total == updated;
        let unready = current().find_map(|pod| Some((&pod.name, pod.ready.as_ref().err()?)));
        let late = !self.rolled_out && now.since(self.progress) >= deadline;
        let failure = unready.filter(|_| late || self.rolled_out).map(|(pod, why)| {
            let counts = format!("{available} of {} updated pods are available", spec.desired);
            let what = if late {
                format!("deployment \"{}\" exceeded its progress deadline: {counts}", self.color)
            } else {
                counts
            };
            PodFailure { definite: late, blames_image: true, message: format!("{what}; pod {pod}: {why}") }
        });
        ServiceStatus {
            generation: spec.generation,
            updated,
            ready: self.pods.iter().filter(|pod| pod.ready.is_ok()).count(),
            available,
            total,
            failure,
        }
    }

    async fn report(
        &self,
        context: &HostContext,
        spec: &ServiceSpec,
        status: &ServiceStatus,
        done: bool,
    ) -> Result<(), sqlx::Error> {
        let mut tx = context.cluster.file.begin().await?;
        tables::store_status(&mut tx, self.color, &context.boot, status).await?;
        if done && spec.rolled_out != spec.template {
            tables::set_rolled_out(&mut tx, self.color, &spec.template).await?;
        }
        changes::record(&mut tx, &Changed::Service(self.color)).await?;
        tx.commit().await?;
        context.cluster.notify();
        Ok(())
    }
}

/// Returns whether the observed state is the desired one.
fn is_done(status: &ServiceStatus, spec: &ServiceSpec) -> bool {
    status.generation == spec.generation
        && status.updated == spec.desired
        && status.available == spec.desired
        && status.total == spec.desired
}
