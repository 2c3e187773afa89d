//! Controllers, which read the objects, change some of them, and schedule their next run.

mod container;
mod deployment;
mod garbage_collector;
mod job;
mod pod;
mod replicaset;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::Timestamp;
use serde_json::{Value, json};

use self::deployment::Progress;
use self::job::JobCounters;
use self::pod::PodState;
use super::containers::{Containers, ImageBehavior};
use super::kinds::Kind;
use super::object::Object;
use super::object::rfc3339;
use super::state::State;
use super::store::{Key, Store};

/// Maximum rounds of controllers that react to each other; more rounds indicate an endless loop.
const MAX_ROUNDS: usize = 1_000;

/// The state of the controllers, by the uids of the objects.
#[derive(Debug)]
pub(super) struct ControllerMemory {
    pub(super) containers: Arc<dyn Containers>,
    /// The behavior of images, by the end of their reference.
    pub(super) behaviors: BTreeMap<String, ImageBehavior>,
    pods: BTreeMap<String, PodState>,
    jobs: BTreeMap<String, JobCounters>,
    deployments: BTreeMap<String, Progress>,
    /// Time of the next scheduled run.
    wake: Option<Timestamp>,
    /// Version of the store after the last round.
    last_version: Option<u64>,
}

impl ControllerMemory {
    pub(super) fn new(containers: Arc<dyn Containers>) -> Self {
        Self {
            containers,
            behaviors: BTreeMap::new(),
            pods: BTreeMap::new(),
            jobs: BTreeMap::new(),
            deployments: BTreeMap::new(),
            wake: None,
            last_version: None,
        }
    }

    /// Makes the controllers run again, even if no object changed.
    pub(super) fn invalidate(&mut self) {
        self.last_version = None;
    }

    /// Returns the log of a container of a pod.
    pub(super) fn log(&self, pod: &Value, container: &str) -> Option<&str> {
        self.pods.get(pod.text("/metadata/uid"))?.logs.get(container).map(String::as_str)
    }

    fn behavior(&self, image: &str) -> ImageBehavior {
        let found = self.behaviors.iter().find(|(name, _)| image.ends_with(name.as_str()));
        found.map(|(_, behavior)| *behavior).unwrap_or_default()
    }

    fn wake_at(&mut self, moment: Timestamp) {
        self.wake = Some(self.wake.map_or(moment, |wake| wake.min(moment)));
    }
}

/// Advances the time, and runs the controllers for each moment until then.
pub(super) fn advance(state: &mut State, span: Duration) {
    let target = state.now.after(span);
    settle(state);
    while let Some(wake) = state.memory.wake.filter(|wake| *wake <= target) {
        state.now = wake.max(state.now);
        state.memory.invalidate();
        settle(state);
    }
    state.now = target;
}

/// Runs the controllers until no object changes.
fn settle(state: &mut State) {
    for _ in 0..MAX_ROUNDS {
        if state.memory.last_version == Some(state.store.version()) {
            return;
        }
        state.memory.last_version = Some(state.store.version());
        state.memory.wake = None;
        let (store, memory, now) = (&mut state.store, &mut state.memory, state.now);
        garbage_collector::reconcile(store, now);
        deployment::reconcile(store, memory, now);
        replicaset::reconcile(store, memory, now);
        job::reconcile(store, memory, now);
        pod::reconcile(store, memory, now);
    }
}

/// Returns the objects of a resource in all namespaces.
fn all(store: &Store, resource: &str) -> Vec<(Key, Arc<Value>)> {
    let Some(kind) = Kind::of(resource) else { return Vec::new() };
    store.of(kind, None).map(|(key, object)| (key.clone(), Arc::clone(object))).collect()
}

/// Returns the objects of a resource that this controller owns, by its uid.
fn owned(store: &Store, resource: &str, owner: &Value) -> Vec<(Key, Arc<Value>)> {
    let Some(kind) = Kind::of(resource) else { return Vec::new() };
    let uid = owner.text("/metadata/uid");
    let of_owner = |object: &Value| {
        let mut owners = object.list("/metadata/ownerReferences").iter();
        owners.any(|reference| reference.is("/controller") && reference.text("/uid") == uid)
    };
    store
        .of(kind, Some(owner.text("/metadata/namespace")))
        .filter(|(_, object)| of_owner(object))
        .map(|(key, object)| (key.clone(), Arc::clone(object)))
        .collect()
}

/// Returns the objects of a resource that have a controller, by the uid of the controller.
fn by_controller(store: &Store, resource: &str) -> BTreeMap<String, Vec<(Key, Arc<Value>)>> {
    let mut all_by_uid: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (key, object) in all(store, resource) {
        let mut owners = object.list("/metadata/ownerReferences").iter();
        if let Some(owner) = owners.find(|reference| reference.is("/controller")) {
            all_by_uid.entry(owner.text("/uid").to_owned()).or_default().push((key, Arc::clone(&object)));
        }
    }
    all_by_uid
}

/// Writes an object if it differs from the stored one.
fn put_if_changed(store: &mut Store, key: &Key, object: Value) {
    if store.get(key).is_some_and(|before| **before != object) {
        store.put(key.clone(), object);
    }
}

fn is_terminating(object: &Value) -> bool {
    !object.text("/metadata/deletionTimestamp").is_empty()
}

/// Returns owner references to a controller.
fn reference(owner: &Value) -> Value {
    json!([{
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
    }])
}

/// Returns a pod from the template of its owner.
fn pod_of(owner: &Value, name: &str) -> Value {
    let template = &owner["spec"]["template"];
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "labels": template["metadata"]["labels"],
            "annotations": template["metadata"]["annotations"], "ownerReferences": reference(owner),
        },
        "spec": template["spec"],
    });
    if pod["metadata"]["annotations"].is_null() {
        pod.remove("/metadata/annotations");
    }
    pod
}

/// Sets a condition of a status. Its transition time changes only with its status.
fn condition(object: &mut Value, name: &str, status: &str, reason: &str, message: &str, now: Timestamp) {
    let mut conditions = object.list("/status/conditions").to_vec();
    let at = conditions.iter().position(|one| one["type"] == name);
    let before = at.map(|at| conditions.remove(at)).unwrap_or(Value::Null);
    let same = before.text("/status") == status;
    let changed = !same || before.text("/reason") != reason || before.text("/message") != message;
    let transition = if same { before["lastTransitionTime"].clone() } else { json!(rfc3339(now)) };
    let mut fresh = json!({"type": name, "status": status, "lastTransitionTime": transition});
    if !reason.is_empty() {
        fresh["reason"] = json!(reason);
        fresh["message"] = json!(message);
    }
    let stamp = match object.text("/kind") {
        "Deployment" => "lastUpdateTime",
        _ => "lastProbeTime",
    };
    fresh[stamp] = if changed { json!(rfc3339(now)) } else { before[stamp].clone() };
    conditions.insert(at.unwrap_or(conditions.len()), fresh);
    object.put("/status/conditions", conditions);
}

fn has_condition(object: &Value, name: &str) -> bool {
    object.list("/status/conditions").iter().any(|one| one["type"] == name && one["status"] == "True")
}
