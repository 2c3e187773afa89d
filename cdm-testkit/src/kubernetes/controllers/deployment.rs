//! Deployments: one ReplicaSet for each template. Pods move from the old ReplicaSets to the new one within the
//! limits of the strategy.

use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::Timestamp;
use serde_json::{Value, json};

use super::super::kinds::Kind;
use super::super::object::Object;
use super::super::store::{Key, Store};
use super::super::writes::{self, Propagation, Run};
use super::{
    ControllerMemory, all, condition, garbage_collector, is_terminating, owned, put_if_changed, reference,
};

const HASH: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";

/// The last progress of a Deployment.
#[derive(Debug)]
pub(super) struct Progress {
    generation: Option<i64>,
    /// Number of updated, ready and available pods, and the negative number of old pods.
    counts: [i64; 4],
    at: Timestamp,
    state: RolloutState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RolloutState {
    InProgress,
    Complete,
    TimedOut,
}

pub(super) fn reconcile(store: &mut Store, memory: &mut ControllerMemory, now: Timestamp) {
    for (key, deployment) in all(store, "deployments") {
        if !is_terminating(&deployment) {
            reconcile_one(store, memory, now, &key, &deployment);
        }
    }
}

fn reconcile_one(
    store: &mut Store,
    memory: &mut ControllerMemory,
    now: Timestamp,
    key: &Key,
    deployment: &Value,
) {
    let sets = owned(store, "replicasets", deployment);
    let (mut new, mut old): (Vec<_>, Vec<_>) = sets.into_iter().partition(|(_, set)| is_of(set, deployment));
    let mut revision = deployment
        .pointer("/metadata/annotations")
        .map(|all| all.text(&pointer(REVISION)))
        .unwrap_or_default()
        .to_owned();
    if new.is_empty() && !deployment.is("/spec/paused") {
        let next = 1 + old.iter().map(|(_, set)| revision_of(set)).max().unwrap_or(0);
        new.extend(create(store, now, key, deployment, next));
    }
    if let Some((set_key, set)) = new.first() {
        // A template that returns makes its ReplicaSet the latest revision.
        let newest = old.iter().map(|(_, set)| revision_of(set)).max().unwrap_or(0);
        if revision_of(set) <= newest {
            let mut set = set.as_ref().clone();
            set.map("/metadata/annotations").insert(REVISION.to_owned(), json!((newest + 1).to_string()));
            revision = (newest + 1).to_string();
            put_if_changed(store, set_key, set);
        } else {
            revision = revision_of(set).to_string();
        }
    }
    if !deployment.is("/spec/paused") {
        scale(store, deployment, &new, &old);
    }
    let present = |sets: &[(Key, Arc<Value>)]| -> Vec<Arc<Value>> {
        sets.iter().filter_map(|(key, _)| store.get(key).cloned()).collect()
    };
    let (new, old_sets) = (present(&new), present(&old));
    write_status(store, memory, now, key, deployment, &new, &old_sets, &revision);
    old.retain(|(_, set)| spec_replicas(set) == 0 && set.number("/status/replicas").unwrap_or(0) == 0);
    old.sort_by_key(|(_, set)| revision_of(set));
    let limit = usize::try_from(deployment.number("/spec/revisionHistoryLimit").unwrap_or(10)).unwrap_or(10);
    let many = old.len().saturating_sub(limit);
    for (key, _) in old.drain(..many) {
        garbage_collector::delete(store, now, &key, Propagation::Background);
    }
}

/// Returns whether a ReplicaSet has the current template.
fn is_of(set: &Value, deployment: &Value) -> bool {
    let mut template = set["spec"]["template"].clone();
    template.map("/metadata/labels").remove(HASH);
    template == deployment["spec"]["template"]
}

fn create(
    store: &mut Store,
    now: Timestamp,
    key: &Key,
    deployment: &Value,
    revision: i64,
) -> Option<(Key, Arc<Value>)> {
    let kind = Kind::of("replicasets")?;
    let hash = format!("{:08x}", hash(&deployment["spec"]["template"]));
    let mut template = deployment["spec"]["template"].clone();
    template.map("/metadata/labels").insert(HASH.to_owned(), json!(hash));
    let mut selector = deployment["spec"]["selector"].clone();
    selector.map("/matchLabels").insert(HASH.to_owned(), json!(hash));
    let name = format!("{}-{hash}", key.2);
    let set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": name, "labels": template["metadata"]["labels"], "ownerReferences": reference(deployment),
            "annotations": {REVISION: revision.to_string()},
        },
        "spec": {
            "replicas": 0, "selector": selector, "template": template,
            "minReadySeconds": deployment.number("/spec/minReadySeconds").unwrap_or(0),
        },
    });
    let set = writes::create(store, now, kind, &key.1, set, Run::Real).ok()?;
    Some((("replicasets", key.1.clone(), name), set))
}

fn spec_replicas(set: &Value) -> i64 {
    set.number("/spec/replicas").unwrap_or(0)
}

fn status(set: &Value, name: &str) -> i64 {
    set.number(&format!("/status/{name}")).unwrap_or(0)
}

fn revision_of(set: &Value) -> i64 {
    let annotations = set.pointer("/metadata/annotations");
    annotations.map(|all| all.text(&pointer(REVISION))).unwrap_or_default().parse().unwrap_or(0)
}

fn pointer(key: &str) -> String {
    format!("/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// Returns `maxSurge` and `maxUnavailable` as numbers of pods.
fn limits(deployment: &Value) -> (i64, i64) {
    let wanted = spec_replicas(deployment);
    let share = |name: &str, up: i64| {
        let value =
            deployment.pointer(&format!("/spec/strategy/rollingUpdate/{name}")).unwrap_or(&Value::Null);
        match value.as_str().and_then(|text| text.strip_suffix('%')) {
            Some(percent) => (wanted * percent.parse::<i64>().unwrap_or(0) + up) / 100,
            None => value.as_i64().unwrap_or(0),
        }
    };
    if deployment.text("/spec/strategy/type") == "Recreate" {
        return (0, wanted);
    }
    match (share("maxSurge", 99), share("maxUnavailable", 0)) {
        (0, 0) => (0, 1),
        limits => limits,
    }
}

fn scale(store: &mut Store, deployment: &Value, new: &[(Key, Arc<Value>)], old: &[(Key, Arc<Value>)]) {
    let wanted = spec_replicas(deployment);
    let (surge, fewer) = limits(deployment);
    let recreate = deployment.text("/spec/strategy/type") == "Recreate";
    let all = || new.iter().chain(old);
    let total: i64 = all().map(|(_, set)| spec_replicas(set)).sum();
    let existing: i64 = old.iter().map(|(_, set)| status(set, "replicas")).sum();
    if let Some((key, set)) = new.first() {
        let has = spec_replicas(set);
        let next = if has > wanted {
            wanted
        } else if recreate && existing > 0 {
            has
        } else {
            wanted.min(has + (wanted + surge - total).max(0))
        };
        resize(store, key, next);
    }
    // Old pods are removed as long as enough other pods are available; pods that are not ready are removed
    // first.
    let missing: i64 = new.iter().map(|(_, set)| spec_replicas(set) - status(set, "availableReplicas")).sum();
    let mut spare = total - (wanted - fewer) - missing.max(0);
    let available: i64 = all().map(|(_, set)| status(set, "availableReplicas")).sum();
    let mut spare_available = available - (wanted - fewer);
    for (key, set) in old {
        let mut has = spec_replicas(set);
        let broken = (has - status(set, "availableReplicas")).clamp(0, spare.max(0));
        has -= broken;
        spare -= broken;
        let going = spare_available.min(spare).min(has).max(0);
        has -= going;
        spare -= going;
        spare_available -= going;
        resize(store, key, has);
    }
}

fn resize(store: &mut Store, key: &Key, replicas: i64) {
    let Some(mut set) = store.get(key).map(|set| set.as_ref().clone()) else { return };
    if spec_replicas(&set) != replicas {
        set.put("/spec/replicas", replicas);
        let generation = set.number("/metadata/generation").unwrap_or(0) + 1;
        set.put("/metadata/generation", generation);
        store.put(key.clone(), set);
    }
}

#[expect(clippy::too_many_arguments, reason = "the status depends on all of these values")]
fn write_status(
    store: &mut Store,
    memory: &mut ControllerMemory,
    now: Timestamp,
    key: &Key,
    deployment: &Value,
    new: &[Arc<Value>],
    old: &[Arc<Value>],
    revision: &str,
) {
    let sum = |name: &str| -> i64 { new.iter().chain(old).map(|set| status(set, name)).sum() };
    let (total, ready, available) = (sum("replicas"), sum("readyReplicas"), sum("availableReplicas"));
    let updated: i64 = new.iter().map(|set| status(set, "replicas")).sum();
    let wanted = spec_replicas(deployment);
    let mut shown = deployment.clone();
    if !revision.is_empty() {
        shown.map("/metadata/annotations").insert(REVISION.to_owned(), json!(revision));
    }
    let conditions = deployment["status"]["conditions"].clone();
    let mut status = json!({"observedGeneration": deployment["metadata"]["generation"]});
    if conditions.is_array() {
        status["conditions"] = conditions;
    }
    let unavailable = (total.max(wanted) - available).max(0);
    for (name, many) in [
        ("replicas", total),
        ("updatedReplicas", updated),
        ("readyReplicas", ready),
        ("availableReplicas", available),
        ("unavailableReplicas", unavailable),
    ] {
        if many > 0 {
            status[name] = json!(many);
        }
    }
    shown.put("/status", status);
    let (_, fewer) = limits(deployment);
    if available >= wanted - fewer {
        let message = "Deployment has minimum availability.";
        condition(&mut shown, "Available", "True", "MinimumReplicasAvailable", message, now);
    } else {
        let message = "Deployment does not have minimum availability.";
        condition(&mut shown, "Available", "False", "MinimumReplicasUnavailable", message, now);
    }
    let complete = updated == wanted && total == wanted && available == wanted;
    let name = new.first().map(|set| set.text("/metadata/name")).unwrap_or_default();
    let rollout = progress(
        memory,
        now,
        deployment,
        [updated, ready, available, updated - total],
        complete.then_some(RolloutState::Complete),
    );
    let describe = |what: &str| format!("ReplicaSet \"{name}\" {what}");
    let (state, reason, message) = match rollout {
        _ if deployment.is("/spec/paused") => {
            ("Unknown", "DeploymentPaused", "Deployment is paused".to_owned())
        }
        RolloutState::Complete => {
            ("True", "NewReplicaSetAvailable", describe("has successfully progressed."))
        }
        RolloutState::InProgress => ("True", "ReplicaSetUpdated", describe("is progressing.")),
        RolloutState::TimedOut => {
            ("False", "ProgressDeadlineExceeded", describe("has timed out progressing."))
        }
    };
    condition(&mut shown, "Progressing", state, reason, &message, now);
    put_if_changed(store, key, shown);
}

/// Records the progress of a rollout, and returns whether it is in progress, complete or timed out.
fn progress(
    memory: &mut ControllerMemory,
    now: Timestamp,
    deployment: &Value,
    counts: [i64; 4],
    complete: Option<RolloutState>,
) -> RolloutState {
    let generation = deployment.number("/metadata/generation");
    let fresh = Progress { generation, counts, at: now, state: RolloutState::InProgress };
    let progress = memory.deployments.entry(deployment.text("/metadata/uid").to_owned()).or_insert(fresh);
    if progress.generation != generation {
        *progress = Progress { generation, counts, at: now, state: RolloutState::InProgress };
    }
    if progress.counts.iter().zip(counts).any(|(before, now)| now > *before) {
        progress.at = now;
        progress.state = RolloutState::InProgress;
    }
    progress.counts = counts;
    if let Some(complete) = complete {
        progress.state = complete;
    }
    if progress.state == RolloutState::InProgress {
        let timeout = deployment.number("/spec/progressDeadlineSeconds").unwrap_or(600).unsigned_abs();
        let until = progress.at.after(Duration::from_secs(timeout));
        if now >= until {
            progress.state = RolloutState::TimedOut;
        } else {
            memory.wake_at(until);
            return RolloutState::InProgress;
        }
    }
    progress.state
}

/// Returns a hash of a template that does not depend on the order of its keys.
fn hash(value: &Value) -> u32 {
    fn mix(hash: u32, bytes: &[u8]) -> u32 {
        bytes.iter().fold(hash, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(16_777_619))
    }
    match value {
        Value::Object(map) => {
            let mut keys: Vec<_> = map.iter().collect();
            keys.sort_by_key(|(key, _)| key.as_str());
            keys.into_iter().fold(2_166_136_261, |all, (key, value)| {
                mix(mix(all, key.as_bytes()), &hash(value).to_be_bytes())
            })
        }
        Value::Array(list) => {
            list.iter().fold(2_166_136_263, |all, value| mix(all, &hash(value).to_be_bytes()))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            mix(2_166_136_265, value.to_string().as_bytes())
        }
    }
}
