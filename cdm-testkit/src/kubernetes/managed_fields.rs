//! Server-side apply: the owner of each field, and the result of applying an object to the stored one.
//!
//! Ownership is tracked from the first apply on. Fields from before belong to `before-first-apply`.

use std::collections::{BTreeMap, BTreeSet};

use cdm_core::domain::Timestamp;
use serde_json::{Map, Value, json};

use super::object::Object;
use super::object::rfc3339;
use super::patch::merge_key;
use super::status_error::StatusError;

/// The path of a field. A part is `f:` and a name, or `k:` and the key of a list entry; `.` is the entry
/// itself.
type FieldPath = Vec<String>;
/// The fields of every owner, by manager name and operation.
type Owners = BTreeMap<(String, &'static str), BTreeSet<FieldPath>>;

const APPLY: &str = "Apply";
const UPDATE: &str = "Update";
const ENTRY: &str = ".";
/// Metadata fields without owners.
const UNOWNED: &[&str] = &[
    "name",
    "generateName",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
];

/// Whether an apply takes over fields of other owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Force {
    Yes,
    No,
}

/// Applies an object to the stored one. Fields that the manager applied before and omits now are removed,
/// unless others own them.
pub(super) fn apply(
    live: Option<&Value>,
    applied: &Value,
    manager: &str,
    force: Force,
    now: Timestamp,
) -> Result<Value, StatusError> {
    if manager.is_empty() {
        let message = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
        return Err(StatusError::new(422, "Invalid", message));
    }
    if !applied.list("/metadata/managedFields").is_empty() {
        return Err(StatusError::bad_request("metadata.managedFields must be nil"));
    }
    let mut owners = live.map(owners).unwrap_or_default();
    if let Some(live) = live.filter(|_| owners.is_empty()) {
        owners.insert(("before-first-apply".to_owned(), UPDATE), fields(live));
    }
    let own = (manager.to_owned(), APPLY);
    let wanted = fields(applied);
    let mut conflicts = Vec::new();
    for (owner, theirs) in owners.iter_mut().filter(|(owner, _)| **owner != own) {
        let differs = |path: &&FieldPath| {
            live.is_some_and(|live| at(live, path).is_some() && !same(live, applied, path))
        };
        let taken: Vec<FieldPath> = wanted.intersection(theirs).filter(differs).cloned().collect();
        match force {
            Force::Yes => theirs.retain(|path| !taken.contains(path)),
            Force::No => conflicts.extend(taken.iter().map(|path| (owner.0.clone(), display(path)))),
        }
    }
    if !conflicts.is_empty() {
        return Err(StatusError::owned(&conflicts));
    }
    let before = owners.remove(&own).unwrap_or_default();
    let mut merged = live.cloned().unwrap_or_else(|| applied.clone());
    for gone in before.difference(&wanted) {
        let whole = gone.last().is_some_and(|last| last == ENTRY);
        let kept = if whole { &gone[..gone.len() - 1] } else { gone.as_slice() };
        let others = owners.values().flatten().any(|path| path.starts_with(kept));
        if !others {
            remove(&mut merged, kept);
        }
    }
    for path in &wanted {
        put(&mut merged, path, at(applied, path));
    }
    if let Some(version) = applied.pointer("/metadata/resourceVersion") {
        merged.put("/metadata/resourceVersion", version.clone());
    }
    owners.insert(own, wanted);
    set_managed_fields(&mut merged, &owners, now);
    Ok(merged)
}

/// Assigns the fields that a write changes to its manager. Objects that were never applied have no owners.
pub(super) fn record_update(before: &Value, object: &mut Value, manager: &str, now: Timestamp) {
    let mut owners = owners(before);
    if owners.is_empty() {
        return;
    }
    let existing = fields(object);
    let changed: BTreeSet<FieldPath> =
        existing.iter().filter(|path| !same(before, object, path)).cloned().collect();
    for fields in owners.values_mut() {
        fields.retain(|path| existing.contains(path) && !changed.contains(path));
    }
    if !changed.is_empty() {
        owners.entry((manager.to_owned(), UPDATE)).or_default().extend(changed);
    }
    set_managed_fields(object, &owners, now);
}

/// Returns the fields that an object sets.
fn fields(object: &Value) -> BTreeSet<FieldPath> {
    let mut all = BTreeSet::new();
    for (name, value) in object.entries("") {
        match name {
            "apiVersion" | "kind" | "status" => {}
            "metadata" => {
                for (name, value) in value.entries("").filter(|(name, _)| !UNOWNED.contains(name)) {
                    gather(value, name, &vec!["f:metadata".to_owned(), format!("f:{name}")], &mut all);
                }
            }
            _ => gather(value, name, &vec![format!("f:{name}")], &mut all),
        }
    }
    all
}

fn gather(value: &Value, name: &str, path: &FieldPath, all: &mut BTreeSet<FieldPath>) {
    let below = |part: String| [path.as_slice(), &[part]].concat();
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (name, value) in map {
                gather(value, name, &below(format!("f:{name}")), all);
            }
        }
        Value::Array(list) if list.first().is_some_and(|entry| merge_key(name, entry).is_some()) => {
            for entry in list {
                let Some(key) = merge_key(name, entry) else { continue };
                let entry_path = below(format!("k:{}", json!({key: entry[key]})));
                all.insert([entry_path.as_slice(), &[ENTRY.to_owned()]].concat());
                gather(entry, "", &entry_path, all);
            }
        }
        _ => drop(all.insert(path.clone())),
    }
}

/// Returns whether two objects have the same value at a path; for a list entry itself, whether both have the
/// entry.
fn same(one: &Value, other: &Value, path: &FieldPath) -> bool {
    let (one, other) = (at(one, path), at(other, path));
    match path.last() {
        Some(last) if last == ENTRY => one.is_some() == other.is_some(),
        _ => one == other,
    }
}

fn is_entry(entry: &Value, key: &str) -> bool {
    let key: Map<String, Value> = serde_json::from_str(key).unwrap_or_default();
    key.iter().all(|(name, value)| entry.get(name) == Some(value))
}

/// Returns the value at a path.
fn at<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(object, |object, part| match part.split_at_checked(2) {
        Some(("f:", name)) => object.get(name),
        Some(("k:", key)) => object.as_array()?.iter().find(|entry| is_entry(entry, key)),
        _ => Some(object),
    })
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

fn put(object: &mut Value, path: &[String], value: Option<&Value>) {
    let Some((part, rest)) = path.split_first() else {
        // An empty map does not change the fields in it.
        let says_nothing = value.is_some_and(is_empty) && object.is_object();
        if let Some(value) = value.filter(|_| !says_nothing) {
            *object = value.clone();
        }
        return;
    };
    match part.split_at_checked(2) {
        Some(("f:", name)) => put(object.map("").entry(name).or_insert(Value::Null), rest, value),
        Some(("k:", key)) => {
            if !object.is_array() {
                *object = json!([]);
            }
            let Some(list) = object.as_array_mut() else { return };
            let found = list.iter().position(|entry| is_entry(entry, key));
            let number = found.unwrap_or_else(|| {
                list.push(serde_json::from_str(key).unwrap_or_default());
                list.len() - 1
            });
            put(&mut list[number], rest, value);
        }
        // The entry exists at this point.
        _ => {}
    }
}

/// Removes the value at a path, and then each parent that is empty.
fn remove(object: &mut Value, path: &[String]) {
    let Some((part, rest)) = path.split_first() else { return };
    match part.split_at_checked(2) {
        Some(("f:", name)) => {
            let Some(map) = object.as_object_mut() else { return };
            let Some(inner) = map.get_mut(name) else { return };
            remove(inner, rest);
            if rest.is_empty() || is_empty(inner) {
                map.remove(name);
            }
        }
        Some(("k:", key)) => {
            let Some(list) = object.as_array_mut() else { return };
            let Some(number) = list.iter().position(|entry| is_entry(entry, key)) else { return };
            remove(&mut list[number], rest);
            if rest.is_empty() || is_empty(&list[number]) {
                list.remove(number);
            }
        }
        _ => {}
    }
}

/// Returns a path as messages name it, such as `.spec.replicas`.
fn display(path: &[String]) -> String {
    let parts = path.iter().filter(|part| *part != ENTRY).map(|part| match part.split_at_checked(2) {
        Some(("k:", key)) => {
            let key: Map<String, Value> = serde_json::from_str(key).unwrap_or_default();
            key.iter().map(|(name, value)| format!("[{name}={value}]")).collect()
        }
        Some((_, name)) => format!(".{name}"),
        None => String::new(),
    });
    parts.collect()
}

fn owners(object: &Value) -> Owners {
    let mut owners = Owners::new();
    for entry in object.list("/metadata/managedFields") {
        let operation = if entry.text("/operation") == APPLY { APPLY } else { UPDATE };
        let mut all = BTreeSet::new();
        read(&entry["fieldsV1"], &Vec::new(), &mut all);
        owners.entry((entry.text("/manager").to_owned(), operation)).or_default().extend(all);
    }
    owners
}

fn read(tree: &Value, path: &FieldPath, all: &mut BTreeSet<FieldPath>) {
    for (part, below) in tree.entries("") {
        let path = [path.as_slice(), &[part.to_owned()]].concat();
        if below.entries("").next().is_none() {
            all.insert(path);
        } else {
            read(below, &path, all);
        }
    }
}

fn set_managed_fields(object: &mut Value, owners: &Owners, now: Timestamp) {
    let api_version = object["apiVersion"].clone();
    let entries: Vec<Value> = owners
        .iter()
        .filter(|(_, fields)| !fields.is_empty())
        .map(|((manager, operation), fields)| {
            let mut tree = json!({});
            for path in fields {
                let leaf = path.iter().fold(&mut tree, |tree, part| {
                    tree.map("").entry(part.clone()).or_insert_with(|| json!({}))
                });
                debug_assert!(leaf.is_object());
            }
            json!({
                "manager": manager, "operation": operation, "apiVersion": api_version, "time": rfc3339(now),
                "fieldsType": "FieldsV1", "fieldsV1": tree,
            })
        })
        .collect();
    // The time of an entry is the time of its last change, so that an unchanged object is not written.
    let entries = entries.into_iter().map(|entry| {
        let same = |before: &&Value| {
            ["manager", "operation", "fieldsV1"].iter().all(|part| before[*part] == entry[*part])
        };
        let before = object.list("/metadata/managedFields").iter().find(same);
        before.cloned().unwrap_or(entry)
    });
    let entries: Vec<Value> = entries.collect();
    object.put("/metadata/managedFields", entries);
}
