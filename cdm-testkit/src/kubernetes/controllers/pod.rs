//! Pods: placed, pulled, started, ready or ended, as their image's fate and their containers have it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::Timestamp;
use serde_json::{Value, json};

use super::super::containers::{Exit, Fate};
use super::super::object::Object;
use super::super::store::{Key, Store};
use super::super::time::written;
use super::start::{self, Obstacle};
use super::{Memory, all, condition, has_condition, keep, leaving};

/// From being placed to the start of its containers, and from there to being ready; and how long an end takes.
const MOMENT: Duration = Duration::from_secs(1);
/// The first wait before a container is started again, doubled each time, and the longest.
const BACKOFF: Duration = Duration::from_secs(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);
const REGISTRY: &str = "failed to pull and unpack image";

/// What a pod has behind it.
#[derive(Debug, Default)]
pub(super) struct Life {
    stage: Stage,
    initial: Vec<Slot>,
    main: Vec<Slot>,
    /// By container.
    pub(super) logs: BTreeMap<String, String>,
    ready_since: Option<Timestamp>,
    gone_at: Option<Timestamp>,
    /// The version in which its end was shown; nothing follows on that.
    rests: Option<String>,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Unplaced,
    Starting(Timestamp),
    /// An image is not to be had, since.
    Pulling(Timestamp),
    /// The container of that number, of those that run before the others, ends then.
    Initial(usize, Timestamp, Exit),
    /// They run for good, since.
    Serving(Timestamp),
    /// They are started again then.
    Crashed(Timestamp),
    /// They run to their ends.
    Working(Vec<(Timestamp, Exit)>),
    Over,
}

/// A container's status.
#[derive(Debug, Default)]
struct Slot {
    state: Value,
    last: Value,
    restarts: u32,
    ready: bool,
    started: Option<Timestamp>,
}

impl Memory {
    /// Since when a pod is ready.
    pub(super) fn ready_since(&self, pod: &Value) -> Option<Timestamp> {
        self.pods.get(pod.text("/metadata/uid")).and_then(|life| life.ready_since)
    }
}

pub(super) fn look(store: &mut Store, memory: &mut Memory, now: Timestamp) {
    let pods = all(store, "pods");
    let there: BTreeSet<&str> = pods.iter().map(|(_, pod)| pod.text("/metadata/uid")).collect();
    memory.pods.retain(|uid, _| there.contains(uid.as_str()));
    for (key, pod) in &pods {
        let uid = pod.text("/metadata/uid").to_owned();
        let mut life = memory.pods.remove(&uid).unwrap_or_default();
        if leaving(pod) {
            leave(store, memory, now, key, pod, &mut life);
        } else if life.rests.as_deref() != Some(pod.text("/metadata/resourceVersion")) {
            live(store, memory, now, pod, &mut life);
            show(store, now, key, pod, &life, memory);
            if let (Stage::Over, Some(shown)) = (&life.stage, store.get(key)) {
                life.rests = Some(shown.text("/metadata/resourceVersion").to_owned());
            }
        }
        memory.pods.insert(uid, life);
    }
}

/// Ends a pod that was deleted, after its moment.
fn leave(store: &mut Store, memory: &mut Memory, now: Timestamp, key: &Key, pod: &Value, life: &mut Life) {
    let runs = matches!(life.stage, Stage::Initial(..) | Stage::Serving(_) | Stage::Working(_));
    let grace =
        Duration::from_secs(pod.number("/metadata/deletionGracePeriodSeconds").unwrap_or(0).unsigned_abs());
    let moment = if runs { MOMENT.min(grace) } else { Duration::ZERO };
    let gone_at = *life.gone_at.get_or_insert(now.after(moment));
    if now < gone_at {
        memory.wake_at(gone_at);
    } else if pod.list("/metadata/finalizers").is_empty() {
        store.remove(key);
    }
}

fn specs<'a>(pod: &'a Value, list: &str) -> &'a [Value] {
    pod.list(&format!("/spec/{list}"))
}

fn live(store: &Store, memory: &mut Memory, now: Timestamp, pod: &Value, life: &mut Life) {
    if life.main.is_empty() {
        life.initial =
            specs(pod, "initContainers").iter().map(|_| Slot::waiting("PodInitializing")).collect();
        let reason = if life.initial.is_empty() { "ContainerCreating" } else { "PodInitializing" };
        life.main = specs(pod, "containers").iter().map(|_| Slot::waiting(reason)).collect();
    }
    // Each turn takes a pod one stage on; there are few of them, and it stops where it has to wait.
    for _ in 0..64 {
        if !step(store, memory, now, pod, life) {
            break;
        }
    }
    let due = match &life.stage {
        Stage::Starting(at) | Stage::Crashed(at) => Some(*at),
        Stage::Pulling(since) => Some(since.after(BACKOFF)),
        Stage::Initial(_, until, _) => Some(*until),
        Stage::Serving(since) => Some(since.after(MOMENT)),
        Stage::Working(ends) => ends.iter().map(|(until, _)| *until).filter(|until| *until > now).min(),
        Stage::Unplaced | Stage::Over => None,
    };
    if let Some(due) = due.filter(|due| *due > now) {
        memory.wake_at(due);
    }
}

/// Takes a pod one stage on; whether it came on.
fn step(store: &Store, memory: &Memory, now: Timestamp, pod: &Value, life: &mut Life) -> bool {
    let fates = |list: &str| -> Vec<Fate> {
        specs(pod, list).iter().map(|spec| memory.fate(spec.text("/image"))).collect()
    };
    let fate = |bad: Fate| fates("containers").contains(&bad) || fates("initContainers").contains(&bad);
    let absent = |fate: &Fate| matches!(fate, Fate::Missing | Fate::Refused);
    match &life.stage {
        Stage::Unplaced if fate(Fate::Unschedulable) => return false,
        Stage::Unplaced => life.stage = Stage::Starting(now.after(MOMENT)),
        Stage::Starting(at) if now < *at => return false,
        Stage::Starting(_) if fate(Fate::Missing) || fate(Fate::Refused) => life.stage = Stage::Pulling(now),
        Stage::Starting(_) => return begin(store, memory, now, pod, life, 0),
        Stage::Pulling(since) => {
            if !fate(Fate::Missing) && !fate(Fate::Refused) {
                life.stage = Stage::Starting(now);
                return true;
            }
            let reason = if now < since.after(BACKOFF) { "ErrImagePull" } else { "ImagePullBackOff" };
            let (initial, main) = (fates("initContainers"), fates("containers"));
            let blocked = initial.iter().any(absent);
            for (slots, fates, list) in
                [(&mut life.initial, initial, "initContainers"), (&mut life.main, main, "containers")]
            {
                for ((slot, fate), spec) in slots.iter_mut().zip(fates).zip(specs(pod, list)) {
                    if absent(&fate) && (list == "initContainers" || !blocked) {
                        slot.state = pull_failure(reason, spec.text("/image"), fate);
                    }
                }
            }
            return false;
        }
        Stage::Initial(_, until, _) if now < *until => return false,
        Stage::Initial(at, _, exit) => {
            let (at, exit) = (*at, exit.clone());
            life.initial[at].end(&specs(pod, "initContainers")[at], &exit, now);
            if exit.code == 0 {
                return begin(store, memory, now, pod, life, at + 1);
            }
            life.stage = if pod.text("/spec/restartPolicy") == "Never" {
                Stage::Over
            } else {
                life.initial[at].restarts += 1;
                Stage::Crashed(now.after(backoff(life.initial[at].restarts)))
            };
        }
        Stage::Serving(_) if fate(Fate::Crashing) => {
            life.ready_since = None;
            crash(life, pod, now);
        }
        Stage::Serving(since) => {
            let ready = now >= since.after(MOMENT) && !fate(Fate::NeverReady);
            life.main.iter_mut().for_each(|slot| slot.ready = ready);
            life.ready_since = if ready { life.ready_since.or(Some(now)) } else { None };
            return false;
        }
        Stage::Crashed(until) if now < *until => return false,
        Stage::Crashed(_) => return begin(store, memory, now, pod, life, 0),
        Stage::Working(_) => return work(now, pod, life),
        Stage::Over => return false,
    }
    true
}

/// Starts the containers that run before the others, from number `at` on, or the others.
fn begin(store: &Store, memory: &Memory, now: Timestamp, pod: &Value, life: &mut Life, at: usize) -> bool {
    let initial = specs(pod, "initContainers");
    if let Some(spec) = initial.get(at) {
        if spec.text("/restartPolicy") == "Always" {
            // One that stays beside the others needs nothing but to be there.
            life.initial[at].begin(now);
            return begin(store, memory, now, pod, life, at + 1);
        }
        let Some(exit) = run(store, memory, pod, spec, &mut life.initial[at], &mut life.logs) else {
            return false;
        };
        life.initial[at].begin(now);
        life.stage = Stage::Initial(at, now.after(exit.takes), exit);
        return true;
    }
    let containers = specs(pod, "containers");
    if pod.text("/spec/restartPolicy") == "Always" {
        for (spec, slot) in containers.iter().zip(&mut life.main) {
            if let Err(obstacle) = start::container(store, pod, spec) {
                slot.state = obstacle.state();
                return false;
            }
        }
        life.main.iter_mut().for_each(|slot| slot.begin(now));
        life.stage = Stage::Serving(now);
        return true;
    }
    let mut ends = Vec::new();
    for (spec, slot) in containers.iter().zip(&mut life.main) {
        let Some(exit) = run(store, memory, pod, spec, slot, &mut life.logs) else { return false };
        slot.begin(now);
        slot.ready = true;
        ends.push((now.after(exit.takes), exit));
    }
    life.stage = Stage::Working(ends);
    true
}

/// Runs a container, unless something keeps it from being started.
fn run(
    store: &Store,
    memory: &Memory,
    pod: &Value,
    spec: &Value,
    slot: &mut Slot,
    logs: &mut BTreeMap<String, String>,
) -> Option<Exit> {
    let exit = match start::container(store, pod, spec) {
        Ok(_) if memory.fate(spec.text("/image")) == Fate::Crashing => Exit::failure(1, "it crashed\n"),
        Ok(container) => memory.containers.run(&container),
        Err(obstacle) => {
            slot.state = obstacle.state();
            return None;
        }
    };
    logs.insert(spec.text("/name").to_owned(), exit.log.clone());
    Some(exit)
}

/// Ends the containers whose time has come; whether the pod came on.
fn work(now: Timestamp, pod: &Value, life: &mut Life) -> bool {
    let Stage::Working(ends) = &life.stage else { return false };
    let ends = ends.clone();
    for (((until, exit), slot), spec) in ends.iter().zip(&mut life.main).zip(specs(pod, "containers")) {
        if now >= *until && slot.state.get("running").is_some() {
            slot.end(spec, exit, now);
        }
    }
    if ends.iter().any(|(until, _)| now < *until) {
        return false;
    }
    let failed = ends.iter().any(|(_, exit)| exit.code != 0);
    if failed && pod.text("/spec/restartPolicy") == "OnFailure" {
        crash(life, pod, now);
    } else {
        life.stage = Stage::Over;
    }
    true
}

/// Ends what runs with 1, and waits before it is started again.
fn crash(life: &mut Life, pod: &Value, now: Timestamp) {
    for (slot, spec) in life.main.iter_mut().zip(specs(pod, "containers")) {
        if slot.state.get("running").is_some() {
            slot.end(spec, &Exit::failure(1, "it crashed\n"), now);
        }
        slot.restarts += 1;
        slot.last = std::mem::take(&mut slot.state);
        let name = spec.text("/name");
        let message =
            format!("back-off restarting failed container={name} pod={}", pod.text("/metadata/name"));
        slot.state = json!({"waiting": {"reason": "CrashLoopBackOff", "message": message}});
    }
    let restarts = life.main.first().map_or(1, |slot| slot.restarts);
    life.stage = Stage::Crashed(now.after(backoff(restarts)));
}

fn backoff(times: u32) -> Duration {
    BACKOFF.saturating_mul(1 << times.saturating_sub(1).min(8)).min(LONGEST_BACKOFF)
}

fn pull_failure(reason: &str, image: &str, fate: Fate) -> Value {
    let said = match fate {
        Fate::Refused => format!(
            "rpc error: code = Unknown desc = {REGISTRY} {image:?}: failed to resolve reference {image:?}: unexpected \
             status from HEAD request: 429 Too Many Requests"
        ),
        _ => format!(
            "rpc error: code = NotFound desc = {REGISTRY} {image:?}: failed to resolve reference {image:?}: {image}: \
             not found"
        ),
    };
    // As kubelets since 1.32 say: the failure itself follows.
    let message = match reason {
        "ImagePullBackOff" => format!("Back-off pulling image {image:?}: ErrImagePull: {said}"),
        _ => said,
    };
    json!({"waiting": {"reason": reason, "message": message}})
}

impl Obstacle {
    fn state(&self) -> Value {
        match self {
            Self::Mount => json!({"waiting": {"reason": "ContainerCreating"}}),
            Self::Config(message) => {
                json!({"waiting": {"reason": "CreateContainerConfigError", "message": message}})
            }
        }
    }
}

impl Slot {
    fn waiting(reason: &str) -> Self {
        Self { state: json!({"waiting": {"reason": reason}}), ..Self::default() }
    }

    fn begin(&mut self, now: Timestamp) {
        self.started = Some(now);
        self.state = json!({"running": {"startedAt": written(now)}});
    }

    fn end(&mut self, spec: &Value, exit: &Exit, now: Timestamp) {
        let mut ended = json!({
            "exitCode": exit.code, "reason": if exit.code == 0 { "Completed" } else { "Error" },
            "startedAt": written(self.started.unwrap_or(now)), "finishedAt": written(now),
        });
        if !exit.message.is_empty() {
            ended["message"] = json!(exit.message);
        } else if exit.code != 0 && spec.text("/terminationMessagePolicy") == "FallbackToLogsOnError" {
            ended["message"] = json!(tail(&exit.log));
        }
        self.state = json!({"terminated": ended});
        self.ready = false;
    }

    fn shown(&self, spec: &Value) -> Value {
        let image = spec.text("/image");
        let running = self.state.get("running").is_some();
        let pulled = self.started.is_some();
        json!({
            "name": spec["name"], "image": image, "imageID": if pulled { image_id(image) } else { String::new() },
            "ready": self.ready, "started": running, "restartCount": self.restarts,
            "state": self.state, "lastState": if self.last.is_null() { json!({}) } else { self.last.clone() },
        })
    }
}

/// The last 80 lines of a log, and of these the last 2048 bytes.
fn tail(log: &str) -> &str {
    let lines = log.trim_end_matches('\n').rmatch_indices('\n').nth(79).map_or(0, |(at, _)| at + 1);
    let from = lines.max(log.len().saturating_sub(2_048));
    let from = (from..=log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(log.len());
    &log[from..]
}

/// What was pulled: a digest is itself, a tag is a digest that its name decides.
fn image_id(image: &str) -> String {
    if image.contains("@sha256:") {
        return image.to_owned();
    }
    let name = image.rsplit_once(':').map_or(image, |(name, _)| name);
    let number = image.bytes().fold(14_695_981_039_346_656_037_u64, |all, byte| {
        (all ^ u64::from(byte)).wrapping_mul(1_099_511_628_211)
    });
    format!("{name}@sha256:{number:064x}")
}

fn show(store: &mut Store, now: Timestamp, key: &Key, pod: &Arc<Value>, life: &Life, memory: &Memory) {
    let mut shown = pod.as_ref().clone();
    let placed = !matches!(life.stage, Stage::Unplaced);
    let failed =
        |slots: &[Slot]| slots.iter().any(|slot| slot.state.number("/terminated/exitCode").unwrap_or(0) != 0);
    let phase = match life.stage {
        Stage::Over if failed(&life.initial) || failed(&life.main) => "Failed",
        Stage::Over => "Succeeded",
        Stage::Serving(_) | Stage::Working(_) => "Running",
        Stage::Crashed(_) if life.main.iter().any(|slot| slot.started.is_some()) => "Running",
        _ => "Pending",
    };
    shown.put("/status/phase", phase);
    shown.put("/status/qosClass", "BestEffort");
    if placed {
        shown.put("/spec/nodeName", "loopback");
        shown.default_to("/status/startTime", written(now));
        for (list, slots) in [("initContainer", &life.initial), ("container", &life.main)] {
            let statuses: Vec<Value> = slots
                .iter()
                .zip(specs(pod, &format!("{list}s")))
                .map(|(slot, spec)| slot.shown(spec))
                .collect();
            if !statuses.is_empty() {
                shown.put(&format!("/status/{list}Statuses"), statuses);
            }
        }
        condition(&mut shown, "PodScheduled", "True", "", "", now);
    } else {
        let unschedulable = specs(pod, "containers")
            .iter()
            .any(|spec| memory.fate(spec.text("/image")) == Fate::Unschedulable);
        if unschedulable {
            let message = "0/3 nodes are available: 3 Insufficient cpu.";
            condition(&mut shown, "PodScheduled", "False", "Unschedulable", message, now);
        }
    }
    if placed {
        let initialized = life.main.iter().any(|slot| slot.started.is_some()) || life.initial.is_empty();
        let ready = life.main.iter().all(|slot| slot.ready);
        let over = matches!(life.stage, Stage::Over) && phase == "Succeeded";
        let reason = if over { "PodCompleted" } else { "ContainersNotReady" };
        for (name, locked_color) in
            [("Initialized", initialized), ("ContainersReady", ready), ("Ready", ready)]
        {
            if locked_color {
                condition(&mut shown, name, "True", "", "", now);
            } else {
                condition(&mut shown, name, "False", reason, "containers with unready status", now);
            }
        }
        debug_assert_eq!(has_condition(&shown, "Ready"), ready);
    }
    keep(store, key, shown);
}
