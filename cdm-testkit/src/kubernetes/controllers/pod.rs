//! Pods: scheduled, pulled, started, ready or ended, by the behavior of their images and containers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::Timestamp;
use serde_json::{Value, json};

use super::super::containers::{Exit, ImageBehavior};
use super::super::object::Object;
use super::super::object::rfc3339;
use super::super::store::{Key, Store};
use super::container::{self, StartError};
use super::{ControllerMemory, all, condition, has_condition, is_terminating, put_if_changed};

/// Time from scheduling to the start of the containers, from there to readiness, and for a graceful end.
const MOMENT: Duration = Duration::from_secs(1);
/// The initial delay before a container restarts, doubled each time, and the maximum delay.
const BACKOFF: Duration = Duration::from_secs(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);
const REGISTRY: &str = "failed to pull and unpack image";

#[derive(Debug, Default)]
pub(super) struct PodState {
    stage: Stage,
    initial: Vec<ContainerStatus>,
    main: Vec<ContainerStatus>,
    /// The text of each log, by the name of its container.
    pub(super) logs: BTreeMap<String, String>,
    ready_since: Option<Timestamp>,
    gone_at: Option<Timestamp>,
    /// The resource version in which the end was reported; the pod does not change after it.
    final_version: Option<String>,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Unscheduled,
    Starting(Timestamp),
    /// An image cannot be pulled since this time.
    Pulling(Timestamp),
    /// The init container with this index ends at this time.
    Initial(usize, Timestamp, Exit),
    /// The containers run without an end since this time.
    Serving(Timestamp),
    /// The containers restart at this time.
    Crashed(Timestamp),
    /// The containers run until they end.
    Working(Vec<(Timestamp, Exit)>),
    Ended,
}

#[derive(Debug, Default)]
struct ContainerStatus {
    state: Value,
    last: Value,
    restarts: u32,
    ready: bool,
    started: Option<Timestamp>,
}

impl ControllerMemory {
    /// Returns the time since which a pod is ready.
    pub(super) fn ready_since(&self, pod: &Value) -> Option<Timestamp> {
        self.pods.get(pod.text("/metadata/uid")).and_then(|state| state.ready_since)
    }
}

pub(super) fn reconcile(store: &mut Store, memory: &mut ControllerMemory, now: Timestamp) {
    let pods = all(store, "pods");
    let existing: BTreeSet<&str> = pods.iter().map(|(_, pod)| pod.text("/metadata/uid")).collect();
    memory.pods.retain(|uid, _| existing.contains(uid.as_str()));
    for (key, pod) in &pods {
        let uid = pod.text("/metadata/uid").to_owned();
        let mut state = memory.pods.remove(&uid).unwrap_or_default();
        if is_terminating(pod) {
            terminate(store, memory, now, key, pod, &mut state);
        } else if state.final_version.as_deref() != Some(pod.text("/metadata/resourceVersion")) {
            advance_pod(store, memory, now, pod, &mut state);
            write_status(store, now, key, pod, &state, memory);
            if let (Stage::Ended, Some(shown)) = (&state.stage, store.get(key)) {
                state.final_version = Some(shown.text("/metadata/resourceVersion").to_owned());
            }
        }
        memory.pods.insert(uid, state);
    }
}

/// Ends a deleted pod after its grace period.
fn terminate(
    store: &mut Store,
    memory: &mut ControllerMemory,
    now: Timestamp,
    key: &Key,
    pod: &Value,
    state: &mut PodState,
) {
    let runs = matches!(state.stage, Stage::Initial(..) | Stage::Serving(_) | Stage::Working(_));
    let grace =
        Duration::from_secs(pod.number("/metadata/deletionGracePeriodSeconds").unwrap_or(0).unsigned_abs());
    let moment = if runs { MOMENT.min(grace) } else { Duration::ZERO };
    let gone_at = *state.gone_at.get_or_insert(now.after(moment));
    if now < gone_at {
        memory.wake_at(gone_at);
    } else if pod.list("/metadata/finalizers").is_empty() {
        store.remove(key);
    }
}

fn specs<'a>(pod: &'a Value, list: &str) -> &'a [Value] {
    pod.list(&format!("/spec/{list}"))
}

fn advance_pod(
    store: &Store,
    memory: &mut ControllerMemory,
    now: Timestamp,
    pod: &Value,
    state: &mut PodState,
) {
    if state.main.is_empty() {
        state.initial = specs(pod, "initContainers")
            .iter()
            .map(|_| ContainerStatus::waiting("PodInitializing"))
            .collect();
        let reason = if state.initial.is_empty() { "ContainerCreating" } else { "PodInitializing" };
        state.main = specs(pod, "containers").iter().map(|_| ContainerStatus::waiting(reason)).collect();
    }
    // Each iteration advances a pod by one stage, until it has to wait.
    for _ in 0..64 {
        if !step(store, memory, now, pod, state) {
            break;
        }
    }
    let due = match &state.stage {
        Stage::Starting(at) | Stage::Crashed(at) => Some(*at),
        Stage::Pulling(since) => Some(since.after(BACKOFF)),
        Stage::Initial(_, until, _) => Some(*until),
        Stage::Serving(since) => Some(since.after(MOMENT)),
        Stage::Working(ends) => ends.iter().map(|(until, _)| *until).filter(|until| *until > now).min(),
        Stage::Unscheduled | Stage::Ended => None,
    };
    if let Some(due) = due.filter(|due| *due > now) {
        memory.wake_at(due);
    }
}

/// Advances a pod by one stage; returns whether the stage changed.
fn step(store: &Store, memory: &ControllerMemory, now: Timestamp, pod: &Value, state: &mut PodState) -> bool {
    let behaviors = |list: &str| -> Vec<ImageBehavior> {
        specs(pod, list).iter().map(|spec| memory.behavior(spec.text("/image"))).collect()
    };
    let behavior = |bad: ImageBehavior| {
        behaviors("containers").contains(&bad) || behaviors("initContainers").contains(&bad)
    };
    let absent =
        |behavior: &ImageBehavior| matches!(behavior, ImageBehavior::Missing | ImageBehavior::PullRejected);
    match &state.stage {
        Stage::Unscheduled if behavior(ImageBehavior::Unschedulable) => return false,
        Stage::Unscheduled => state.stage = Stage::Starting(now.after(MOMENT)),
        Stage::Starting(at) if now < *at => return false,
        Stage::Starting(_) if behavior(ImageBehavior::Missing) || behavior(ImageBehavior::PullRejected) => {
            state.stage = Stage::Pulling(now)
        }
        Stage::Starting(_) => return begin(store, memory, now, pod, state, 0),
        Stage::Pulling(since) => {
            if !behavior(ImageBehavior::Missing) && !behavior(ImageBehavior::PullRejected) {
                state.stage = Stage::Starting(now);
                return true;
            }
            let reason = if now < since.after(BACKOFF) { "ErrImagePull" } else { "ImagePullBackOff" };
            let (initial, main) = (behaviors("initContainers"), behaviors("containers"));
            let blocked = initial.iter().any(absent);
            for (statuses, behaviors, list) in
                [(&mut state.initial, initial, "initContainers"), (&mut state.main, main, "containers")]
            {
                for ((status, behavior), spec) in statuses.iter_mut().zip(behaviors).zip(specs(pod, list)) {
                    if absent(&behavior) && (list == "initContainers" || !blocked) {
                        status.state = pull_failure(reason, spec.text("/image"), behavior);
                    }
                }
            }
            return false;
        }
        Stage::Initial(_, until, _) if now < *until => return false,
        Stage::Initial(at, _, exit) => {
            let (at, exit) = (*at, exit.clone());
            state.initial[at].end(&specs(pod, "initContainers")[at], &exit, now);
            if exit.code == 0 {
                return begin(store, memory, now, pod, state, at + 1);
            }
            state.stage = if pod.text("/spec/restartPolicy") == "Never" {
                Stage::Ended
            } else {
                state.initial[at].restarts += 1;
                Stage::Crashed(now.after(backoff(state.initial[at].restarts)))
            };
        }
        Stage::Serving(_) if behavior(ImageBehavior::Crashing) => {
            state.ready_since = None;
            crash(state, pod, now);
        }
        Stage::Serving(since) => {
            let ready = now >= since.after(MOMENT) && !behavior(ImageBehavior::NeverReady);
            state.main.iter_mut().for_each(|status| status.ready = ready);
            state.ready_since = if ready { state.ready_since.or(Some(now)) } else { None };
            return false;
        }
        Stage::Crashed(until) if now < *until => return false,
        Stage::Crashed(_) => return begin(store, memory, now, pod, state, 0),
        Stage::Working(_) => return work(now, pod, state),
        Stage::Ended => return false,
    }
    true
}

/// Starts the init containers from index `at` on, or the main containers.
fn begin(
    store: &Store,
    memory: &ControllerMemory,
    now: Timestamp,
    pod: &Value,
    state: &mut PodState,
    at: usize,
) -> bool {
    let initial = specs(pod, "initContainers");
    if let Some(spec) = initial.get(at) {
        if spec.text("/restartPolicy") == "Always" {
            // A sidecar only has to be started.
            state.initial[at].begin(now);
            return begin(store, memory, now, pod, state, at + 1);
        }
        let Some(exit) = run(store, memory, pod, spec, &mut state.initial[at], &mut state.logs) else {
            return false;
        };
        state.initial[at].begin(now);
        state.stage = Stage::Initial(at, now.after(exit.takes), exit);
        return true;
    }
    let containers = specs(pod, "containers");
    if pod.text("/spec/restartPolicy") == "Always" {
        for (spec, status) in containers.iter().zip(&mut state.main) {
            if let Err(error) = container::resolve(store, pod, spec) {
                status.state = error.state();
                return false;
            }
        }
        state.main.iter_mut().for_each(|status| status.begin(now));
        state.stage = Stage::Serving(now);
        return true;
    }
    let mut ends = Vec::new();
    for (spec, status) in containers.iter().zip(&mut state.main) {
        let Some(exit) = run(store, memory, pod, spec, status, &mut state.logs) else { return false };
        status.begin(now);
        status.ready = true;
        ends.push((now.after(exit.takes), exit));
    }
    state.stage = Stage::Working(ends);
    true
}

/// Runs a container, unless it cannot be started.
fn run(
    store: &Store,
    memory: &ControllerMemory,
    pod: &Value,
    spec: &Value,
    status: &mut ContainerStatus,
    logs: &mut BTreeMap<String, String>,
) -> Option<Exit> {
    let exit = match container::resolve(store, pod, spec) {
        Ok(_) if memory.behavior(spec.text("/image")) == ImageBehavior::Crashing => {
            Exit::failure(1, "it crashed\n")
        }
        Ok(container) => memory.containers.run(&container),
        Err(error) => {
            status.state = error.state();
            return None;
        }
    };
    logs.insert(spec.text("/name").to_owned(), exit.log.clone());
    Some(exit)
}

/// Ends the containers whose time has come; returns whether the stage changed.
fn work(now: Timestamp, pod: &Value, state: &mut PodState) -> bool {
    let Stage::Working(ends) = &state.stage else { return false };
    let ends = ends.clone();
    for (((until, exit), status), spec) in ends.iter().zip(&mut state.main).zip(specs(pod, "containers")) {
        if now >= *until && status.state.get("running").is_some() {
            status.end(spec, exit, now);
        }
    }
    if ends.iter().any(|(until, _)| now < *until) {
        return false;
    }
    let failed = ends.iter().any(|(_, exit)| exit.code != 0);
    if failed && pod.text("/spec/restartPolicy") == "OnFailure" {
        crash(state, pod, now);
    } else {
        state.stage = Stage::Ended;
    }
    true
}

/// Ends the running containers with code 1, and schedules their restart.
fn crash(state: &mut PodState, pod: &Value, now: Timestamp) {
    for (status, spec) in state.main.iter_mut().zip(specs(pod, "containers")) {
        if status.state.get("running").is_some() {
            status.end(spec, &Exit::failure(1, "it crashed\n"), now);
        }
        status.restarts += 1;
        status.last = std::mem::take(&mut status.state);
        let name = spec.text("/name");
        let message =
            format!("back-off restarting failed container={name} pod={}", pod.text("/metadata/name"));
        status.state = json!({"waiting": {"reason": "CrashLoopBackOff", "message": message}});
    }
    let restarts = state.main.first().map_or(1, |status| status.restarts);
    state.stage = Stage::Crashed(now.after(backoff(restarts)));
}

fn backoff(times: u32) -> Duration {
    BACKOFF.saturating_mul(1 << times.saturating_sub(1).min(8)).min(LONGEST_BACKOFF)
}

fn pull_failure(reason: &str, image: &str, behavior: ImageBehavior) -> Value {
    let cause = match behavior {
        ImageBehavior::PullRejected => format!(
            "rpc error: code = Unknown desc = {REGISTRY} {image:?}: failed to resolve reference {image:?}: unexpected \
             status from HEAD request: 429 Too Many Requests"
        ),
        _ => format!(
            "rpc error: code = NotFound desc = {REGISTRY} {image:?}: failed to resolve reference {image:?}: {image}: \
             not found"
        ),
    };
    // As kubelets do since 1.32: the message includes the failure itself.
    let message = match reason {
        "ImagePullBackOff" => format!("Back-off pulling image {image:?}: ErrImagePull: {cause}"),
        _ => cause,
    };
    json!({"waiting": {"reason": reason, "message": message}})
}

impl StartError {
    fn state(&self) -> Value {
        match self {
            Self::MissingVolume => json!({"waiting": {"reason": "ContainerCreating"}}),
            Self::MissingVariable(message) => {
                json!({"waiting": {"reason": "CreateContainerConfigError", "message": message}})
            }
        }
    }
}

impl ContainerStatus {
    fn waiting(reason: &str) -> Self {
        Self { state: json!({"waiting": {"reason": reason}}), ..Self::default() }
    }

    fn begin(&mut self, now: Timestamp) {
        self.started = Some(now);
        self.state = json!({"running": {"startedAt": rfc3339(now)}});
    }

    fn end(&mut self, spec: &Value, exit: &Exit, now: Timestamp) {
        let mut ended = json!({
            "exitCode": exit.code, "reason": if exit.code == 0 { "Completed" } else { "Error" },
            "startedAt": rfc3339(self.started.unwrap_or(now)), "finishedAt": rfc3339(now),
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

/// Returns the last 80 lines of a log, at most 2048 bytes.
fn tail(log: &str) -> &str {
    let lines = log.trim_end_matches('\n').rmatch_indices('\n').nth(79).map_or(0, |(at, _)| at + 1);
    let from = lines.max(log.len().saturating_sub(2_048));
    let from = (from..=log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(log.len());
    &log[from..]
}

/// Returns the id of a pulled image: a digest is its own id, and a tag has a digest derived from its name.
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

fn write_status(
    store: &mut Store,
    now: Timestamp,
    key: &Key,
    pod: &Arc<Value>,
    state: &PodState,
    memory: &ControllerMemory,
) {
    let mut shown = pod.as_ref().clone();
    let scheduled = !matches!(state.stage, Stage::Unscheduled);
    let failed = |statuses: &[ContainerStatus]| {
        statuses.iter().any(|status| status.state.number("/terminated/exitCode").unwrap_or(0) != 0)
    };
    let phase = match state.stage {
        Stage::Ended if failed(&state.initial) || failed(&state.main) => "Failed",
        Stage::Ended => "Succeeded",
        Stage::Serving(_) | Stage::Working(_) => "Running",
        Stage::Crashed(_) if state.main.iter().any(|status| status.started.is_some()) => "Running",
        _ => "Pending",
    };
    shown.put("/status/phase", phase);
    shown.put("/status/qosClass", "BestEffort");
    if scheduled {
        shown.put("/spec/nodeName", "loopback");
        shown.default_to("/status/startTime", rfc3339(now));
        for (list, statuses) in [("initContainer", &state.initial), ("container", &state.main)] {
            let statuses: Vec<Value> = statuses
                .iter()
                .zip(specs(pod, &format!("{list}s")))
                .map(|(status, spec)| status.shown(spec))
                .collect();
            if !statuses.is_empty() {
                shown.put(&format!("/status/{list}Statuses"), statuses);
            }
        }
        condition(&mut shown, "PodScheduled", "True", "", "", now);
    } else {
        let unschedulable = specs(pod, "containers")
            .iter()
            .any(|spec| memory.behavior(spec.text("/image")) == ImageBehavior::Unschedulable);
        if unschedulable {
            let message = "0/3 nodes are available: 3 Insufficient cpu.";
            condition(&mut shown, "PodScheduled", "False", "Unschedulable", message, now);
        }
    }
    if scheduled {
        let initialized =
            state.main.iter().any(|status| status.started.is_some()) || state.initial.is_empty();
        let ready = state.main.iter().all(|status| status.ready);
        let over = matches!(state.stage, Stage::Ended) && phase == "Succeeded";
        let reason = if over { "PodCompleted" } else { "ContainersNotReady" };
        for (name, holds) in [("Initialized", initialized), ("ContainersReady", ready), ("Ready", ready)] {
            if holds {
                condition(&mut shown, name, "True", "", "", now);
            } else {
                condition(&mut shown, name, "False", reason, "containers with unready status", now);
            }
        }
        debug_assert_eq!(has_condition(&shown, "Ready"), ready);
    }
    put_if_changed(store, key, shown);
}
