//! What happens by itself: controllers that look at the objects, change some, and say when they want to look again.

mod collect;
mod deployment;
mod job;
mod pod;
mod replicas;
mod start;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::Timestamp;
use serde_json::{Value, json};

use self::deployment::Progress;
use self::job::Tally;
use self::pod::Life;
use super::containers::{Containers, Fate};
use super::kinds::Kind;
use super::object::Object;
use super::state::State;
use super::store::{Key, Store};
use super::time::written;

/// Most rounds in which controllers answer each other; a platform that needs more goes round in circles.
const MOST_ROUNDS: usize = 1_000;

/// What the controllers remember, by the objects' uids.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) containers: Arc<dyn Containers>,
    /// By the image, or the end of its name.
    pub(super) fates: BTreeMap<String, Fate>,
    pods: BTreeMap<String, Life>,
    jobs: BTreeMap<String, Tally>,
    deployments: BTreeMap<String, Progress>,
    /// When someone wants to look again.
    wake: Option<Timestamp>,
    /// The version of the store after the last round.
    seen: Option<u64>,
}

impl Memory {
    pub(super) fn new(containers: Arc<dyn Containers>) -> Self {
        Self {
            containers,
            fates: BTreeMap::new(),
            pods: BTreeMap::new(),
            jobs: BTreeMap::new(),
            deployments: BTreeMap::new(),
            wake: None,
            seen: None,
        }
    }

    /// Decides anew, whatever was seen.
    pub(super) fn poll_interval(&mut self) {
        self.seen = None;
    }

    /// What a container of a pod printed, or is printing.
    pub(super) fn log(&self, pod: &Value, container: &str) -> Option<&str> {
        self.pods.get(pod.text("/metadata/uid"))?.logs.get(container).map(String::as_str)
    }

    fn fate(&self, image: &str) -> Fate {
        let found = self.fates.iter().find(|(name, _)| image.ends_with(name.as_str()));
        found.map(|(_, fate)| *fate).unwrap_or_default()
    }

    fn wake_at(&mut self, moment: Timestamp) {
        self.wake = Some(self.wake.map_or(moment, |wake| wake.min(moment)));
    }
}

/// Lets time pass, and everything happen that happens in it.
pub(super) fn advance(state: &mut State, span: Duration) {
    let target = state.now.after(span);
    settle(state);
    while let Some(wake) = state.memory.wake.filter(|wake| *wake <= target) {
        state.now = wake.max(state.now);
        state.memory.poll_interval();
        settle(state);
    }
    state.now = target;
}

/// Lets controllers answer each other until nothing is left to be done now.
fn settle(state: &mut State) {
    for _ in 0..MOST_ROUNDS {
        if state.memory.seen == Some(state.store.version()) {
            return;
        }
        state.memory.seen = Some(state.store.version());
        state.memory.wake = None;
        let (store, memory, now) = (&mut state.store, &mut state.memory, state.now);
        collect::look(store, now);
        deployment::look(store, memory, now);
        replicas::look(store, memory, now);
        job::look(store, memory, now);
        pod::look(store, memory, now);
    }
}

/// The objects of a resource, wherever they live.
fn all(store: &Store, resource: &str) -> Vec<(Key, Arc<Value>)> {
    let Some(kind) = Kind::of(resource) else { return Vec::new() };
    store.of(kind, None).map(|(key, object)| (key.clone(), Arc::clone(object))).collect()
}

/// The objects of a resource that a controller made, by its uid.
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

/// The objects of a resource that controllers made, by the controller's uid.
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

/// Writes an object if that changes it.
fn keep(store: &mut Store, key: &Key, object: Value) {
    if store.get(key).is_some_and(|before| **before != object) {
        store.put(key.clone(), object);
    }
}

fn leaving(object: &Value) -> bool {
    !object.text("/metadata/deletionTimestamp").is_empty()
}

/// A reference to the controller that made an object.
fn reference(owner: &Value) -> Value {
    json!([{
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
    }])
}

/// A pod of a template.
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

/// Sets a condition of a status; its transition is now where its status changes.
fn condition(object: &mut Value, name: &str, status: &str, reason: &str, message: &str, now: Timestamp) {
    let mut conditions = object.list("/status/conditions").to_vec();
    let at = conditions.iter().position(|one| one["type"] == name);
    let before = at.map(|at| conditions.remove(at)).unwrap_or(Value::Null);
    let same = before.text("/status") == status;
    let changed = !same || before.text("/reason") != reason || before.text("/message") != message;
    let transition = if same { before["lastTransitionTime"].clone() } else { json!(written(now)) };
    let mut fresh = json!({"type": name, "status": status, "lastTransitionTime": transition});
    if !reason.is_empty() {
        fresh["reason"] = json!(reason);
        fresh["message"] = json!(message);
    }
    let stamp = match object.text("/kind") {
        "Deployment" => "lastUpdateTime",
        _ => "lastProbeTime",
    };
    fresh[stamp] = if changed { json!(written(now)) } else { before[stamp].clone() };
    conditions.insert(at.unwrap_or(conditions.len()), fresh);
    object.put("/status/conditions", conditions);
}

fn has_condition(object: &Value, name: &str) -> bool {
    object.list("/status/conditions").iter().any(|one| one["type"] == name && one["status"] == "True")
}
