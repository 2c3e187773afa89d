//! ReplicaSets: keep the desired number of pods, and report how many are ready and available.

use std::time::Duration;

use cdm_core::domain::Timestamp;
use serde_json::{Value, json};

use super::super::kinds::Kind;
use super::super::object::Object;
use super::super::store::{Key, Store};
use super::super::writes::{self, Propagation, Run};
use super::{
    ControllerMemory, all, garbage_collector, has_condition, is_terminating, owned, pod_of, put_if_changed,
};

pub(super) fn reconcile(store: &mut Store, memory: &mut ControllerMemory, now: Timestamp) {
    for (key, set) in all(store, "replicasets") {
        if !is_terminating(&set) {
            reconcile_one(store, memory, now, &key, &set);
        }
    }
}

fn reconcile_one(store: &mut Store, memory: &mut ControllerMemory, now: Timestamp, key: &Key, set: &Value) {
    let Some(kind) = Kind::of("pods") else { return };
    let mut pods = owned(store, "pods", set);
    pods.retain(|(_, pod)| {
        !is_terminating(pod) && !["Failed", "Succeeded"].contains(&pod.text("/status/phase"))
    });
    let wanted = usize::try_from(set.number("/spec/replicas").unwrap_or(0)).unwrap_or(0);
    for _ in pods.len()..wanted {
        let name = format!("{}-{}", key.2, suffix(store));
        // If the creation is rejected, for example in a terminating namespace, the next round tries again.
        if let Ok(pod) = writes::create(store, now, kind, &key.1, pod_of(set, &name), Run::Real) {
            pods.push((("pods", key.1.clone(), name), pod));
        }
    }
    if pods.len() > wanted {
        // Pods that are not ready are removed first, then the youngest.
        pods.sort_by_key(|(key, pod)| (has_condition(pod, "Ready"), std::cmp::Reverse(key.2.clone())));
        let many = pods.len() - wanted;
        for (key, _) in pods.drain(..many) {
            garbage_collector::delete(store, now, &key, Propagation::Background);
        }
    }
    let wait = Duration::from_secs(set.number("/spec/minReadySeconds").unwrap_or(0).unsigned_abs());
    let (mut ready, mut available) = (0, 0);
    for (_, pod) in &pods {
        let Some(since) = memory.ready_since(pod) else { continue };
        ready += 1;
        if now >= since.after(wait) {
            available += 1;
        } else {
            memory.wake_at(since.after(wait));
        }
    }
    let mut shown = json!({"replicas": pods.len(), "observedGeneration": set["metadata"]["generation"]});
    for (name, many) in
        [("fullyLabeledReplicas", pods.len()), ("readyReplicas", ready), ("availableReplicas", available)]
    {
        if many > 0 {
            shown[name] = json!(many);
        }
    }
    let mut set = set.clone();
    set.put("/status", shown);
    put_if_changed(store, key, set);
}

/// Returns five letters for a unique object name.
pub(super) fn suffix(store: &mut Store) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut number =
        store.uid().bytes().fold(7_u64, |all, byte| all.wrapping_mul(131).wrapping_add(u64::from(byte)));
    let mut name = String::new();
    for _ in 0..5 {
        name.push(char::from(LETTERS[(number % LETTERS.len() as u64) as usize]));
        number /= LETTERS.len() as u64;
    }
    name
}
