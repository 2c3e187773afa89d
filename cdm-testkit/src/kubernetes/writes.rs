//! Creation, update and deletion of objects, with the fields that a real server controls: uids, versions,
//! generations, the status and staged deletion.

use std::sync::Arc;

use cdm_core::domain::Timestamp;
use serde_json::{Value, json};

use super::kinds::{Kind, Origin, Scope, StatusPart};
use super::object::Object;
use super::object::rfc3339;
use super::rules;
use super::status_error::{Cause, StatusError};
use super::store::{Key, Store};

/// What happens to the dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// The part of an object that a request writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Main,
    Status,
}

/// The `dryRun` option of a write. A dry run is validated, but not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    Real,
    Dry,
}

#[derive(Clone, Debug, Default)]
pub(super) struct DeleteOptions {
    pub(super) uid: Option<String>,
    pub(super) version: Option<String>,
    pub(super) propagation: Option<Propagation>,
    /// Grace period of a pod, in seconds.
    pub(super) grace: Option<u64>,
}

pub(super) const FOREGROUND: &str = "foregroundDeletion";
pub(super) const ORPHAN: &str = "orphan";

impl DeleteOptions {
    pub(super) fn parse(body: &Value, propagation: &str, grace: &str) -> Result<Self, StatusError> {
        let word = body.text("/propagationPolicy");
        let propagation = match if word.is_empty() { propagation } else { word } {
            "" => None,
            "Background" => Some(Propagation::Background),
            "Foreground" => Some(Propagation::Foreground),
            "Orphan" => Some(Propagation::Orphan),
            other => {
                let message =
                    format!("invalid DeleteOptions: propagationPolicy: Unsupported value: {other:?}");
                return Err(StatusError::new(422, "Invalid", message));
            }
        };
        let text = |pointer: &str| Some(body.text(pointer).to_owned()).filter(|text| !text.is_empty());
        let declared = body.number("/gracePeriodSeconds").and_then(|grace| u64::try_from(grace).ok());
        Ok(Self {
            uid: text("/preconditions/uid"),
            version: text("/preconditions/resourceVersion"),
            propagation,
            grace: declared.or_else(|| grace.parse().ok()),
        })
    }
}

/// Creates an object; returns it as stored.
pub(super) fn create(
    store: &mut Store,
    now: Timestamp,
    kind: &'static Kind,
    namespace: &str,
    mut object: Value,
    run: Run,
) -> Result<Arc<Value>, StatusError> {
    check_type(kind, namespace, &mut object)?;
    if !object.text("/metadata/resourceVersion").is_empty() {
        return Err(StatusError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let uid = store.uid();
    if object.text("/metadata/name").is_empty() {
        let prefix = object.text("/metadata/generateName");
        if prefix.is_empty() {
            let cause = Cause::required("metadata.name", "name or generateName is required");
            return Err(StatusError::invalid(kind, "", &[cause]));
        }
        let name = format!("{prefix}{}", &uid[uid.len() - 5..]);
        object.put("/metadata/name", name);
    }
    let name = object.text("/metadata/name").to_owned();
    check_namespace(store, kind, namespace, &name)?;
    let key: Key = (kind.plural, namespace.to_owned(), name.clone());
    if store.get(&key).is_some() {
        return Err(StatusError::exists(kind, &name));
    }
    for own in ["selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        object.remove(&format!("/metadata/{own}"));
    }
    object.put("/metadata/uid", uid);
    object.put("/metadata/creationTimestamp", rfc3339(now));
    if kind.status == StatusPart::Subresource {
        object.remove("/status");
        object.put("/metadata/generation", 1);
    }
    rules::set_defaults(kind, &mut object, store)?;
    rules::validate(kind, &object, None)?;
    match run {
        Run::Real => Ok(store.put(key, object)),
        Run::Dry => Ok(Arc::new(object)),
    }
}

/// Replaces the stored object with `object`.
pub(super) fn update(
    store: &mut Store,
    kind: &'static Kind,
    key: &Key,
    part: Part,
    mut object: Value,
    run: Run,
) -> Result<Arc<Value>, StatusError> {
    let name = key.2.as_str();
    let Some(before) = store.get(key).cloned() else { return Err(StatusError::not_found(kind, name)) };
    check_type(kind, &key.1, &mut object)?;
    if object.text("/metadata/name") != name {
        let message = format!(
            "the name of the object ({}) does not match the name on the URL ({name})",
            object.text("/metadata/name")
        );
        return Err(StatusError::bad_request(message));
    }
    let version = object.text("/metadata/resourceVersion");
    if version.is_empty() && kind.origin == Origin::Custom {
        let cause = Cause::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
        return Err(StatusError::invalid(kind, name, &[cause]));
    }
    if !version.is_empty() && version != before.text("/metadata/resourceVersion") {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        return Err(StatusError::conflict(kind, name, why));
    }
    let (uid, known) = (object.text("/metadata/uid"), before.text("/metadata/uid"));
    if !uid.is_empty() && uid != known {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {known}");
        return Err(StatusError::conflict(kind, name, &why));
    }
    // Fields that keep their values, regardless of the request.
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
        Part::Main if kind.status == StatusPart::Subresource => replace(&mut object, &before, "status"),
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
    rules::set_defaults(kind, &mut object, store)?;
    rules::validate(kind, &object, Some(&before))?;
    if kind.status == StatusPart::Subresource && object.get("spec") != before.get("spec") {
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

/// Deletes an object, immediately or once its finalizers are removed. Returns its last state and whether it is
/// gone.
pub(super) fn delete(
    store: &mut Store,
    now: Timestamp,
    kind: &'static Kind,
    key: &Key,
    options: &DeleteOptions,
    run: Run,
) -> Result<(Arc<Value>, Gone), StatusError> {
    let name = key.2.as_str();
    let Some(before) = store.get(key).cloned() else { return Err(StatusError::not_found(kind, name)) };
    let (uid, version) = (before.text("/metadata/uid"), before.text("/metadata/resourceVersion"));
    if let Some(wanted) = options.uid.as_deref().filter(|wanted| *wanted != uid) {
        let why = format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been \
             deleted and then recreated"
        );
        return Err(StatusError::conflict(kind, name, &why));
    }
    if let Some(wanted) = options.version.as_deref().filter(|wanted| *wanted != version) {
        let why = format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({version}). \
             The object might have been modified"
        );
        return Err(StatusError::conflict(kind, name, &why));
    }
    if run == Run::Dry {
        return Ok((before, Gone::Yes));
    }
    // Without a propagation policy, a deleted Job leaves its pods: this legacy default is still the server's.
    let default = if kind.plural == "jobs" { Propagation::Orphan } else { Propagation::Background };
    let mut finalizers: Vec<Value> = before.list("/metadata/finalizers").to_vec();
    finalizers.retain(|finalizer| finalizer != FOREGROUND && finalizer != ORPHAN);
    match options.propagation.unwrap_or(default) {
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
        leaving.put("/metadata/deletionTimestamp", rfc3339(now));
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

/// Checks that an object matches the kind and namespace of its path, and sets a missing namespace.
fn check_type(kind: &Kind, namespace: &str, object: &mut Value) -> Result<(), StatusError> {
    if !object.is_object() {
        return Err(StatusError::bad_request("the body is not an object"));
    }
    let declared = (object.text("/apiVersion"), object.text("/kind"));
    if declared != (kind.api_version().as_str(), kind.kind) {
        let message = format!(
            "the object of kind {:?} and version {:?} does not match the expected {} {}",
            declared.1,
            declared.0,
            kind.api_version(),
            kind.kind
        );
        return Err(StatusError::bad_request(message));
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
        (Scope::Namespace, declared) if declared == namespace => {}
        (Scope::Cluster, "") => {}
        _ => {
            let message =
                "the namespace of the provided object does not match the namespace sent on the request";
            return Err(StatusError::bad_request(message));
        }
    }
    Ok(())
}

fn check_namespace(store: &Store, kind: &Kind, namespace: &str, name: &str) -> Result<(), StatusError> {
    if kind.scope == Scope::Cluster {
        return Ok(());
    }
    let key: Key = ("namespaces", String::new(), namespace.to_owned());
    match (store.get(&key), Kind::of("namespaces")) {
        (Some(stored), _) if !stored.text("/metadata/deletionTimestamp").is_empty() => {
            let why = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            Err(StatusError::forbidden(kind, name, &why))
        }
        (None, Some(kind_of_namespaces)) => Err(StatusError::not_found(kind_of_namespaces, namespace)),
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
