//! Creating, changing and deleting objects, with what a real server keeps to itself: uids, versions, generations, the
//! status, deletion in stages.

use std::sync::Arc;

use cdm_core::domain::Timestamp;
use serde_json::{Value, json};

use super::kinds::{Kind, Origin, Scope, StatusPart};
use super::object::Object;
use super::refusal::{Cause, Refusal};
use super::rules;
use super::store::{Key, Store};
use super::time::written;

/// What becomes of the dependents of an object that is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// Which part of an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Main,
    Status,
}

/// Whether what was decided is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    Real,
    Dry,
}

/// What a delete asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct DeleteOptions {
    pub(super) uid: Option<String>,
    pub(super) version: Option<String>,
    pub(super) propagation: Option<Propagation>,
    /// Seconds that a pod gets to end.
    pub(super) grace: Option<u64>,
}

pub(super) const FOREGROUND: &str = "foregroundDeletion";
pub(super) const ORPHAN: &str = "orphan";

impl DeleteOptions {
    pub(super) fn read(body: &Value, propagation: &str, grace: &str) -> Result<Self, Refusal> {
        let word = body.text("/propagationPolicy");
        let propagation = match if word.is_empty() { propagation } else { word } {
            "" => None,
            "Background" => Some(Propagation::Background),
            "Foreground" => Some(Propagation::Foreground),
            "Orphan" => Some(Propagation::Orphan),
            other => {
                let message =
                    format!("invalid DeleteOptions: propagationPolicy: Unsupported value: {other:?}");
                return Err(Refusal::new(422, "Invalid", message));
            }
        };
        let text = |pointer: &str| Some(body.text(pointer).to_owned()).filter(|text| !text.is_empty());
        let said = body.number("/gracePeriodSeconds").and_then(|grace| u64::try_from(grace).ok());
        Ok(Self {
            uid: text("/preconditions/uid"),
            version: text("/preconditions/resourceVersion"),
            propagation,
            grace: said.or_else(|| grace.parse().ok()),
        })
    }
}

/// Creates an object; answers it as it is kept.
pub(super) fn create(
    store: &mut Store,
    now: Timestamp,
    kind: &'static Kind,
    namespace: &str,
    mut object: Value,
    run: Run,
) -> Result<Arc<Value>, Refusal> {
    fits(kind, namespace, &mut object)?;
    if !object.text("/metadata/resourceVersion").is_empty() {
        return Err(Refusal::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let uid = store.uid();
    if object.text("/metadata/name").is_empty() {
        let prefix = object.text("/metadata/generateName");
        if prefix.is_empty() {
            let cause = Cause::required("metadata.name", "name or generateName is required");
            return Err(Refusal::invalid(kind, "", &[cause]));
        }
        let name = format!("{prefix}{}", &uid[uid.len() - 5..]);
        object.put("/metadata/name", name);
    }
    let name = object.text("/metadata/name").to_owned();
    place_is_open(store, kind, namespace, &name)?;
    let key: Key = (kind.plural, namespace.to_owned(), name.clone());
    if store.get(&key).is_some() {
        return Err(Refusal::exists(kind, &name));
    }
    for own in ["selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        object.remove(&format!("/metadata/{own}"));
    }
    object.put("/metadata/uid", uid);
    object.put("/metadata/creationTimestamp", written(now));
    if kind.status == StatusPart::Apart {
        object.remove("/status");
        object.put("/metadata/generation", 1);
    }
    rules::fill_in(kind, &mut object, store)?;
    rules::judge(kind, &object, None)?;
    match run {
        Run::Real => Ok(store.put(key, object)),
        Run::Dry => Ok(Arc::new(object)),
    }
}

/// Puts `object` in the place of what is there.
pub(super) fn update(
    store: &mut Store,
    kind: &'static Kind,
    key: &Key,
    part: Part,
    mut object: Value,
    run: Run,
) -> Result<Arc<Value>, Refusal> {
    let name = key.2.as_str();
    let Some(before) = store.get(key).cloned() else { return Err(Refusal::not_found(kind, name)) };
    fits(kind, &key.1, &mut object)?;
    if object.text("/metadata/name") != name {
        let message = format!(
            "the name of the object ({}) does not match the name on the URL ({name})",
            object.text("/metadata/name")
        );
        return Err(Refusal::bad_request(message));
    }
    let version = object.text("/metadata/resourceVersion");
    if version.is_empty() && kind.origin == Origin::Custom {
        let cause = Cause::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
        return Err(Refusal::invalid(kind, name, &[cause]));
    }
    if !version.is_empty() && version != before.text("/metadata/resourceVersion") {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        return Err(Refusal::conflict(kind, name, why));
    }
    let (uid, known) = (object.text("/metadata/uid"), before.text("/metadata/uid"));
    if !uid.is_empty() && uid != known {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {known}");
        return Err(Refusal::conflict(kind, name, &why));
    }
    // What stays as it was, whatever the request says.
    for own in [
        "uid",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "resourceVersion",
    ] {
        let pointer = format!("/metadata/{own}");
        object.remove(&pointer);
        if let Some(value) = before.pointer(&pointer) {
            object.put(&pointer, value.clone());
        }
    }
    object.remove("/metadata/selfLink");
    match part {
        Part::Main if kind.status == StatusPart::Apart => replace(&mut object, &before, "status"),
        Part::Main => {}
        Part::Status => {
            let status = object.remove("/status");
            object = before.as_ref().clone();
            object.remove("/status");
            if let Some(status) = status {
                object.put("/status", status);
            }
        }
    }
    if kind.plural == "services" {
        for own in ["clusterIP", "clusterIPs"] {
            object.default_to(&format!("/spec/{own}"), before["spec"][own].clone());
        }
    }
    rules::fill_in(kind, &mut object, store)?;
    rules::judge(kind, &object, Some(&before))?;
    if kind.status == StatusPart::Apart && object.get("spec") != before.get("spec") {
        let generation = before.number("/metadata/generation").unwrap_or(0) + 1;
        object.put("/metadata/generation", generation);
    }
    if object == *before {
        return Ok(before);
    }
    if run == Run::Dry {
        return Ok(Arc::new(object));
    }
    let leaving = !object.text("/metadata/deletionTimestamp").is_empty();
    let kept = store.put(key.clone(), object);
    if leaving && kept.list("/metadata/finalizers").is_empty() && kind.plural != "pods" {
        store.remove(key);
    }
    Ok(kept)
}

/// Deletes an object: at once, or when its finalizers are gone. Answers it as it was last, and whether it is gone.
pub(super) fn delete(
    store: &mut Store,
    now: Timestamp,
    kind: &'static Kind,
    key: &Key,
    options: &DeleteOptions,
    run: Run,
) -> Result<(Arc<Value>, Gone), Refusal> {
    let name = key.2.as_str();
    let Some(before) = store.get(key).cloned() else { return Err(Refusal::not_found(kind, name)) };
    let (uid, version) = (before.text("/metadata/uid"), before.text("/metadata/resourceVersion"));
    if let Some(wanted) = options.uid.as_deref().filter(|wanted| *wanted != uid) {
        let why = format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been \
             deleted and then recreated"
        );
        return Err(Refusal::conflict(kind, name, &why));
    }
    if let Some(wanted) = options.version.as_deref().filter(|wanted| *wanted != version) {
        let why = format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({version}). \
             The object might have been modified"
        );
        return Err(Refusal::conflict(kind, name, &why));
    }
    if run == Run::Dry {
        return Ok((before, Gone::Yes));
    }
    // Who deletes a Job and says nothing keeps its pods: that is the old default, and still the server's.
    let usual = if kind.plural == "jobs" { Propagation::Orphan } else { Propagation::Background };
    let mut finalizers: Vec<Value> = before.list("/metadata/finalizers").to_vec();
    finalizers.retain(|finalizer| finalizer != FOREGROUND && finalizer != ORPHAN);
    match options.propagation.unwrap_or(usual) {
        Propagation::Background => {}
        Propagation::Foreground => finalizers.push(json!(FOREGROUND)),
        Propagation::Orphan => finalizers.push(json!(ORPHAN)),
    }
    let graceful = kind.plural == "pods" && options.grace != Some(0);
    if finalizers.is_empty() && !graceful && kind.plural != "namespaces" {
        store.remove(key);
        return Ok((before, Gone::Yes));
    }
    let mut leaving = before.as_ref().clone();
    if finalizers.is_empty() {
        leaving.remove("/metadata/finalizers");
    } else {
        leaving.put("/metadata/finalizers", finalizers);
    }
    if leaving.text("/metadata/deletionTimestamp").is_empty() {
        leaving.put("/metadata/deletionTimestamp", written(now));
        leaving.put(
            "/metadata/deletionGracePeriodSeconds",
            if graceful { options.grace.unwrap_or(30) } else { 0 },
        );
    }
    if kind.plural == "namespaces" {
        leaving.put("/status/phase", "Terminating");
    }
    if leaving == *before {
        return Ok((before, Gone::Later));
    }
    Ok((store.put(key.clone(), leaving), Gone::Later))
}

/// Whether a deleted object is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    Yes,
    Later,
}

/// That an object is of the kind and namespace of its path; what it does not say is filled in.
fn fits(kind: &Kind, namespace: &str, object: &mut Value) -> Result<(), Refusal> {
    if !object.is_object() {
        return Err(Refusal::bad_request("the body is no object"));
    }
    let said = (object.text("/apiVersion"), object.text("/kind"));
    if said != (kind.api_version().as_str(), kind.kind) {
        let message = format!(
            "the object of kind {:?} and version {:?} does not match the expected {} {}",
            said.1,
            said.0,
            kind.api_version(),
            kind.kind
        );
        return Err(Refusal::bad_request(message));
    }
    if !object.get("metadata").is_some_and(Value::is_object) {
        object.put("/metadata", json!({}));
    }
    for map in ["labels", "annotations"] {
        let pointer = format!("/metadata/{map}");
        if object.pointer(&pointer).is_some_and(Value::is_null) {
            object.remove(&pointer);
        }
    }
    match (kind.scope, object.text("/metadata/namespace")) {
        (Scope::Namespace, "") => object.put("/metadata/namespace", namespace),
        (Scope::Namespace, said) if said == namespace => {}
        (Scope::Cluster, "") => {}
        _ => {
            let message =
                "the namespace of the provided object does not match the namespace sent on the request";
            return Err(Refusal::bad_request(message));
        }
    }
    Ok(())
}

fn place_is_open(store: &Store, kind: &Kind, namespace: &str, name: &str) -> Result<(), Refusal> {
    if kind.scope == Scope::Cluster {
        return Ok(());
    }
    let key: Key = ("namespaces", String::new(), namespace.to_owned());
    match (store.get(&key), Kind::of("namespaces")) {
        (Some(place), _) if !place.text("/metadata/deletionTimestamp").is_empty() => {
            let why = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            Err(Refusal::forbidden(kind, name, &why))
        }
        (None, Some(places)) => Err(Refusal::not_found(places, namespace)),
        _ => Ok(()),
    }
}

fn replace(object: &mut Value, before: &Value, part: &str) {
    let pointer = format!("/{part}");
    object.remove(&pointer);
    if let Some(value) = before.get(part) {
        object.put(&pointer, value.clone());
    }
}
