//! Server-side apply: who owns which field, and what an applied object makes of what is there.
//!
//! Ownership is kept from the first apply on; what was there before belongs to `before-first-apply`.

use std::collections::{BTreeMap, BTreeSet};

use cdm_core::domain::Timestamp;
use serde_json::{Map, Value, json};

use super::object::Object;
use super::patch::merge_key;
use super::refusal::Refusal;
use super::time::written;

/// Where a field is: `f:` and its name, or `k:` and the key of a list's entry; `.` is the entry itself.
type Place = Vec<String>;
/// The fields of every owner, by name and operation.
type Owners = BTreeMap<(String, &'static str), BTreeSet<Place>>;

const APPLY: &str = "Apply";
const UPDATE: &str = "Update";
const ITSELF: &str = ".";
/// Fields of the metadata that nobody owns.
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

/// Whether fields of others are taken from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Force {
    Yes,
    No,
}

/// What is there, with what somebody applies; what he applied before and does not now goes, unless others own it.
pub(super) fn apply(
    live: Option<&Value>,
    applied: &Value,
    manager: &str,
    force: Force,
    now: Timestamp,
) -> Result<Value, Refusal> {
    if manager.is_empty() {
        let message = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
        return Err(Refusal::new(422, "Invalid", message));
    }
    if !applied.list("/metadata/managedFields").is_empty() {
        return Err(Refusal::bad_request("metadata.managedFields must be nil"));
    }
    let mut owners = live.map(owners).unwrap_or_default();
    if let Some(live) = live.filter(|_| owners.is_empty()) {
        owners.insert(("before-first-apply".to_owned(), UPDATE), fields(live));
    }
    let own = (manager.to_owned(), APPLY);
    let wanted = fields(applied);
    let mut conflicts = Vec::new();
    for (owner, theirs) in owners.iter_mut().filter(|(owner, _)| **owner != own) {
        let differs = |place: &&Place| {
            live.is_some_and(|live| at(live, place).is_some() && !same(live, applied, place))
        };
        let taken: Vec<Place> = wanted.intersection(theirs).filter(differs).cloned().collect();
        match force {
            Force::Yes => theirs.retain(|place| !taken.contains(place)),
            Force::No => conflicts.extend(taken.iter().map(|place| (owner.0.clone(), shown(place)))),
        }
    }
    if !conflicts.is_empty() {
        return Err(Refusal::owned(&conflicts));
    }
    let before = owners.remove(&own).unwrap_or_default();
    let mut merged = live.cloned().unwrap_or_else(|| applied.clone());
    for gone in before.difference(&wanted) {
        let whole = gone.last().is_some_and(|last| last == ITSELF);
        let kept = if whole { &gone[..gone.len() - 1] } else { gone.as_slice() };
        let others = owners.values().flatten().any(|place| place.starts_with(kept));
        if !others {
            remove(&mut merged, kept);
        }
    }
    for place in &wanted {
        put(&mut merged, place, at(applied, place));
    }
    if let Some(version) = applied.pointer("/metadata/resourceVersion") {
        merged.put("/metadata/resourceVersion", version.clone());
    }
    owners.insert(own, wanted);
    keep(&mut merged, &owners, now);
    Ok(merged)
}

/// Gives what a write changes to whoever writes. Objects that nobody ever applied have no owners.
pub(super) fn note(before: &Value, object: &mut Value, manager: &str, now: Timestamp) {
    let mut owners = owners(before);
    if owners.is_empty() {
        return;
    }
    let there = fields(object);
    let changed: BTreeSet<Place> =
        there.iter().filter(|place| !same(before, object, place)).cloned().collect();
    for fields in owners.values_mut() {
        fields.retain(|place| there.contains(place) && !changed.contains(place));
    }
    if !changed.is_empty() {
        owners.entry((manager.to_owned(), UPDATE)).or_default().extend(changed);
    }
    keep(object, &owners, now);
}

/// The fields that an object sets.
fn fields(object: &Value) -> BTreeSet<Place> {
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

fn gather(value: &Value, name: &str, place: &Place, all: &mut BTreeSet<Place>) {
    let below = |part: String| [place.as_slice(), &[part]].concat();
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (name, value) in map {
                gather(value, name, &below(format!("f:{name}")), all);
            }
        }
        Value::Array(list) if list.first().is_some_and(|entry| merge_key(name, entry).is_some()) => {
            for entry in list {
                let Some(key) = merge_key(name, entry) else { continue };
                let entry_place = below(format!("k:{}", json!({key: entry[key]})));
                all.insert([entry_place.as_slice(), &[ITSELF.to_owned()]].concat());
                gather(entry, "", &entry_place, all);
            }
        }
        _ => drop(all.insert(place.clone())),
    }
}

/// Whether the same stands at a place of two objects; of a list's entry itself, whether both have it.
fn same(one: &Value, other: &Value, place: &Place) -> bool {
    let (one, other) = (at(one, place), at(other, place));
    match place.last() {
        Some(last) if last == ITSELF => one.is_some() == other.is_some(),
        _ => one == other,
    }
}

fn is_entry(entry: &Value, key: &str) -> bool {
    let key: Map<String, Value> = serde_json::from_str(key).unwrap_or_default();
    key.iter().all(|(name, value)| entry.get(name) == Some(value))
}

/// What stands at a place.
fn at<'a>(object: &'a Value, place: &[String]) -> Option<&'a Value> {
    place.iter().try_fold(object, |object, part| match part.split_at_checked(2) {
        Some(("f:", name)) => object.get(name),
        Some(("k:", key)) => object.as_array()?.iter().find(|entry| is_entry(entry, key)),
        _ => Some(object),
    })
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

fn put(object: &mut Value, place: &[String], value: Option<&Value>) {
    let Some((part, rest)) = place.split_first() else {
        // An empty map says nothing about what is in it.
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
        // The entry is there by now.
        _ => {}
    }
}

/// Takes a place away, and what is empty then.
fn remove(object: &mut Value, place: &[String]) {
    let Some((part, rest)) = place.split_first() else { return };
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

/// A place as messages name it, such as `.spec.replicas`.
fn shown(place: &[String]) -> String {
    let parts = place.iter().filter(|part| *part != ITSELF).map(|part| match part.split_at_checked(2) {
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

fn read(tree: &Value, place: &Place, all: &mut BTreeSet<Place>) {
    for (part, below) in tree.entries("") {
        let place = [place.as_slice(), &[part.to_owned()]].concat();
        if below.entries("").next().is_none() {
            all.insert(place);
        } else {
            read(below, &place, all);
        }
    }
}

fn keep(object: &mut Value, owners: &Owners, now: Timestamp) {
    let api_version = object["apiVersion"].clone();
    let entries: Vec<Value> = owners
        .iter()
        .filter(|(_, fields)| !fields.is_empty())
        .map(|((manager, operation), fields)| {
            let mut tree = json!({});
            for place in fields {
                let leaf = place.iter().fold(&mut tree, |tree, part| {
                    tree.map("").entry(part.clone()).or_insert_with(|| json!({}))
                });
                debug_assert!(leaf.is_object());
            }
            json!({
                "manager": manager, "operation": operation, "apiVersion": api_version, "time": written(now),
                "fieldsType": "FieldsV1", "fieldsV1": tree,
            })
        })
        .collect();
    // The moment of an entry is that of its last change, so that what changes nothing writes nothing.
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
