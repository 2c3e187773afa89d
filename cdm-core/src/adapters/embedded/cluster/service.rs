//! The controller of one service: compares the pods that there are with the template that shall run, starts and stops
//! pods, and writes down what it sees.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::host::World;
use super::pod::{Pod, PodSpec};
use super::tables::{self, Seen, Wanted};
use super::{news, shapes};
use crate::adapters::embedded::file::is_full;
use crate::domain::{Color, MonotonicTime};
use crate::ports::{Changed, PodFailure};

/// Between two looks at pods that are all as they shall be.
const IDLE: Duration = Duration::from_millis(500);
/// Between two looks otherwise, at most and at least.
const BUSY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(50));
/// How long a pod that no request goes to any more is kept for those that were on their way.
const DRAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// Pods that there may be above those wanted while templates change.
const SURGE: usize = 1;

/// Runs a service until it is dropped, and its pods with it.
pub(super) async fn keep(world: Arc<World>, color: Color) {
    let mut service = Service::new(color);
    let mut pulse = world.cluster.pulse.subscribe();
    let settings = &world.cluster.settings;
    let busy = (settings.pod_start / 4).clamp(BUSY.0, BUSY.1);
    let clock = &world.cluster.clock;
    loop {
        let pause = match service.round(&world).await {
            Ok(Progress::Done) => IDLE,
            Ok(Progress::Going) => busy,
            // The file has said so once.
            Err(error) if is_full(&error) => IDLE,
            Err(error) => {
                tracing::warn!(%error, %color, "a service cannot be looked after for the moment");
                BUSY.1
            }
        };
        let next = clock.monotonic().after(pause);
        tokio::select! {
            _ = pulse.changed() => {}
            () = clock.sleep_until(next) => {}
        }
    }
}

enum Progress {
    Done,
    Going,
}

struct Service {
    color: Color,
    pods: Vec<Pod>,
    /// Pods that get no new requests, and since when.
    draining: Vec<(MonotonicTime, Pod)>,
    started: u64,
    /// The generation that is being rolled out; `None` before the first look.
    generation: Option<i64>,
    /// When there was progress last, while there is some to be made.
    progress: MonotonicTime,
    /// Whether every pod of the generation has been available once.
    rolled_out: bool,
    most_available: usize,
    told: Option<Seen>,
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
            told: None,
            probed: MonotonicTime::default(),
        }
    }

    async fn round(&mut self, world: &Arc<World>) -> Result<Progress, sqlx::Error> {
        let now = world.cluster.clock.monotonic();
        let wanted = {
            let mut reader = world.cluster.file.reader().acquire().await?;
            tables::wanted(&mut reader, self.color).await?
        };
        let first = self.generation.is_none();
        let news = self.generation != Some(wanted.generation);
        if news {
            self.generation = Some(wanted.generation);
            (self.progress, self.rolled_out, self.most_available) = (now, false, 0);
        }
        if first {
            // What served before the process ended serves again, at once, whatever is to be rolled out.
            for _ in 0..wanted.desired {
                self.start(world, &wanted.rolled_out, Duration::ZERO).await;
            }
        }
        let settled = self.told.as_ref().is_some_and(|seen| is_done(seen, &wanted));
        if news || !settled || now.since(self.probed) >= IDLE {
            self.probed = now;
            join_all(self.pods.iter_mut().map(|pod| pod.probe(world))).await;
        }
        self.arrange(world, &wanted, now).await;
        let ready = self.pods.iter().filter(|pod| pod.ready.is_ok()).map(|pod| pod.address);
        world.endpoints(self.color).set(ready.collect());

        let seen = self.see(&wanted, now, world.cluster.settings.progress_deadline);
        let done = is_done(&seen, &wanted);
        if self.told.as_ref() != Some(&seen) {
            self.tell(world, &wanted, &seen, done).await?;
            self.told = Some(seen);
        }
        self.draining.retain(|(since, pod)| {
            let age = now.since(*since);
            age < DRAIN.0 || (age < DRAIN.1 && !pod.busy.is_idle())
        });
        Ok(if done && self.draining.is_empty() { Progress::Done } else { Progress::Going })
    }

    /// Starts pods of the wanted template as long as there is room, and lets others go as soon as they are not needed.
    async fn arrange(&mut self, world: &Arc<World>, wanted: &Wanted, now: MonotonicTime) {
        let is_current = |pod: &Pod| pod.template == wanted.template;
        let available = self.pods.iter().filter(|pod| pod.ready.is_ok()).count();
        let mut surplus = available.saturating_sub(wanted.desired);
        let mut at = 0;
        while let Some(pod) = self.pods.get(at) {
            let goes = !is_current(pod) && (pod.ready.is_err() || surplus > 0);
            if !goes {
                at += 1;
                continue;
            }
            surplus -= usize::from(pod.ready.is_ok() && surplus > 0);
            let pod = self.pods.remove(at);
            tracing::debug!(pod = %pod.name, "a pod goes");
            self.draining.push((now, pod));
        }
        let current = self.pods.iter().filter(|pod| is_current(pod)).count();
        let room = (wanted.desired + SURGE).saturating_sub(self.pods.len());
        let delay = world.cluster.images().of(wanted.digest).start;
        let delay = delay.unwrap_or(world.cluster.settings.pod_start);
        for _ in 0..wanted.desired.saturating_sub(current).min(room) {
            self.start(world, &wanted.template, delay).await;
        }
    }

    async fn start(&mut self, world: &Arc<World>, template: &str, start: Duration) {
        let Some(digest) = shapes::digest_in(template) else { return };
        self.started += 1;
        let name = format!("{}-{}-{}", self.color, shapes::revision_in(template), self.started);
        let spec = PodSpec { name, service: self.color, digest, template: template.to_owned(), start };
        match Pod::start(world, spec).await {
            Ok(mut pod) => {
                tracing::debug!(pod = %pod.name, address = %pod.address, "a pod starts");
                if start.is_zero() {
                    pod.probe(world).await;
                }
                self.pods.push(pod);
            }
            Err(error) => tracing::warn!(%error, "a pod cannot be started"),
        }
    }

    fn see(&mut self, wanted: &Wanted, now: MonotonicTime, deadline: Duration) -> Seen {
        let current = || self.pods.iter().filter(|pod| pod.template == wanted.template);
        let updated = current().count();
        let available = current().filter(|pod| pod.ready.is_ok()).count();
        let total = self.pods.len();
        if available > self.most_available {
            (self.most_available, self.progress) = (available, now);
        }
        self.rolled_out |= updated == wanted.desired && available == updated && total == updated;
        let complains = current().find_map(|pod| Some((&pod.name, pod.ready.as_ref().err()?)));
        let late = !self.rolled_out && now.since(self.progress) >= deadline;
        let failure = complains.filter(|_| late || self.rolled_out).map(|(pod, why)| {
            let counts = format!("{available} of {} updated pods are available", wanted.desired);
            let what = if late {
                format!("deployment \"{}\" exceeded its progress deadline: {counts}", self.color)
            } else {
                counts
            };
            PodFailure { definite: late, blames_image: true, message: format!("{what}; pod {pod}: {why}") }
        });
        Seen {
            generation: wanted.generation,
            updated,
            ready: self.pods.iter().filter(|pod| pod.ready.is_ok()).count(),
            available,
            total,
            failure,
        }
    }

    async fn tell(&self, world: &World, wanted: &Wanted, seen: &Seen, done: bool) -> Result<(), sqlx::Error> {
        let mut tx = world.cluster.file.begin().await?;
        tables::set_seen(&mut tx, self.color, &world.boot, seen).await?;
        if done && wanted.rolled_out != wanted.template {
            tables::set_rolled_out(&mut tx, self.color, &wanted.template).await?;
        }
        news::tell(&mut tx, &Changed::Service(self.color)).await?;
        tx.commit().await?;
        world.cluster.tell();
        Ok(())
    }
}

/// Whether nothing is left to be done for what is wanted.
fn is_done(seen: &Seen, wanted: &Wanted) -> bool {
    seen.generation == wanted.generation
        && seen.updated == wanted.desired
        && seen.available == wanted.desired
        && seen.total == wanted.desired
}
