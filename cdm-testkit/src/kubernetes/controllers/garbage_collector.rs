//! The garbage collector: deletes dependents of missing owners, and completes staged deletions.

use std::collections::BTreeSet;
use std::sync::Arc;

use cdm_core::domain::Timestamp;
use serde_json::{Value, json};

use super::super::kinds::{Kind, Scope};
use super::super::object::Object;
use super::super::store::{Key, Store};
use super::super::writes::{self, DeleteOptions, FOREGROUND, Gone, ORPHAN, Propagation, Run};
use super::is_terminating;

pub(super) fn reconcile(store: &mut Store, now: Timestamp) {
    let keys: Vec<Key> = store.keys().cloned().collect();
    for key in keys {
        let Some(object) = store.get(&key).cloned() else { continue };
        if !object.list("/metadata/ownerReferences").is_empty() {
            collect_dependent(store, now, &key, &object);
        }
        if is_terminating(&object) {
            finish_deletion(store, now, &key, &object);
        }
    }
}

/// Deletes an object with this propagation to its dependents.
pub(super) fn delete(store: &mut Store, now: Timestamp, key: &Key, propagation: Propagation) {
    let Some(kind) = Kind::of(key.0) else { return };
    let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
    // The object may already be gone.
    let _: Result<(Arc<Value>, Gone), _> = writes::delete(store, now, kind, key, &options, Run::Real);
}

/// The state of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Alive,
    Absent,
    /// The owner waits until its dependents are gone.
    Waiting,
}

fn owner(store: &Store, namespace: &str, reference: &Value) -> Owner {
    // An owner of an unsupported kind counts as present.
    let Some(kind) = Kind::named(reference.text("/apiVersion"), reference.text("/kind")) else {
        return Owner::Alive;
    };
    let namespace = if kind.scope == Scope::Namespace { namespace } else { "" };
    let key: Key = (kind.plural, namespace.to_owned(), reference.text("/name").to_owned());
    match store.get(&key).filter(|owner| owner["metadata"]["uid"] == reference["uid"]) {
        None => Owner::Absent,
        Some(owner) if is_terminating(owner) && has_finalizer(owner, FOREGROUND) => Owner::Waiting,
        Some(_) => Owner::Alive,
    }
}

fn collect_dependent(store: &mut Store, now: Timestamp, key: &Key, object: &Value) {
    let references = object.list("/metadata/ownerReferences");
    let owners: Vec<Owner> = references.iter().map(|reference| owner(store, &key.1, reference)).collect();
    if owners.iter().all(|owner| *owner == Owner::Absent) {
        if !is_terminating(object) {
            delete(store, now, key, Propagation::Background);
        }
    } else if owners.contains(&Owner::Waiting) && !owners.contains(&Owner::Alive) {
        if !is_terminating(object) {
            delete(store, now, key, Propagation::Foreground);
        }
    } else if owners.contains(&Owner::Absent) {
        let kept: Vec<Value> = references
            .iter()
            .zip(&owners)
            .filter(|(_, owner)| **owner != Owner::Absent)
            .map(|(reference, _)| reference.clone())
            .collect();
        let mut object = object.clone();
        object.put("/metadata/ownerReferences", kept);
        store.put(key.clone(), object);
    }
}

fn finish_deletion(store: &mut Store, now: Timestamp, key: &Key, object: &Value) {
    if key.0 == "namespaces" {
        let within: Vec<Key> = store.keys().filter(|(_, place, _)| *place == key.2).cloned().collect();
        for key in &within {
            delete(store, now, key, Propagation::Background);
        }
        if within.is_empty() {
            store.remove(key);
        }
        return;
    }
    let uid = object.text("/metadata/uid");
    let refers = |reference: &Value| reference.text("/uid") == uid;
    let dependents: Vec<Key> = store
        .keys()
        .filter(|other| {
            let dependent = store.get(other).map(|other| other.list("/metadata/ownerReferences"));
            dependent.unwrap_or_default().iter().any(refers)
        })
        .cloned()
        .collect();
    if has_finalizer(object, ORPHAN) {
        for dependent in dependents {
            let Some(mut freed) = store.get(&dependent).map(|one| one.as_ref().clone()) else { continue };
            let mut kept = freed.list("/metadata/ownerReferences").to_vec();
            kept.retain(|reference| !refers(reference));
            freed.remove("/metadata/ownerReferences");
            if !kept.is_empty() {
                freed.put("/metadata/ownerReferences", kept);
            }
            store.put(dependent, freed);
        }
        without_finalizer(store, key, object, ORPHAN);
    } else if has_finalizer(object, FOREGROUND) {
        let blocking: BTreeSet<bool> = dependents
            .iter()
            .filter_map(|dependent| store.get(dependent))
            .flat_map(|dependent| dependent.list("/metadata/ownerReferences"))
            .filter(|reference| refers(reference))
            .map(|reference| reference.is("/blockOwnerDeletion"))
            .collect();
        if !blocking.contains(&true) {
            without_finalizer(store, key, object, FOREGROUND);
        }
    }
}

fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    object.list("/metadata/finalizers").contains(&json!(finalizer))
}

fn without_finalizer(store: &mut Store, key: &Key, object: &Value, finalizer: &str) {
    let mut object = object.clone();
    let mut kept = object.list("/metadata/finalizers").to_vec();
    kept.retain(|one| one != finalizer);
    object.remove("/metadata/finalizers");
    if !kept.is_empty() {
        object.put("/metadata/finalizers", kept);
        store.put(key.clone(), object);
    } else if key.0 == "pods" {
        // A pod still has its time to end.
        store.put(key.clone(), object);
    } else {
        store.remove(key);
    }
}
