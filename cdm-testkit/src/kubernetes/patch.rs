//! JSON patches, merge patches and strategic merge patches.

use serde_json::{Map, Value};

use super::object::Object;
use super::status_error::StatusError;

/// Applies a JSON patch completely or not at all.
pub(super) fn json_patch(object: &Value, patch: &Value) -> Result<Value, StatusError> {
    let wrong =
        || StatusError::bad_request("error decoding patch: json: cannot unmarshal into a list of operations");
    let mut patched = object.clone();
    for operation in patch.as_array().ok_or_else(wrong)? {
        step(&mut patched, operation).ok_or_else(StatusError::patch_does_not_fit)?;
    }
    Ok(patched)
}

fn step(object: &mut Value, operation: &Value) -> Option<()> {
    let path = operation.get("path")?.as_str()?;
    let value = || operation.get("value").cloned();
    let from = || operation.get("from")?.as_str();
    match operation.text("/op") {
        "add" => add(object, path, value()?),
        "remove" => remove(object, path).map(drop),
        "replace" => {
            *object.pointer_mut(path)? = value()?;
            Some(())
        }
        "move" => {
            let moved = remove(object, from()?)?;
            add(object, path, moved)
        }
        "copy" => {
            let copied = object.pointer(from()?)?.clone();
            add(object, path, copied)
        }
        // A missing value equals null, as in the library that real servers use.
        "test" => (object.pointer(path).unwrap_or(&Value::Null) == &value()?).then_some(()),
        _ => None,
    }
}

fn split_pointer(path: &str) -> Option<(&str, String)> {
    let (parent, key) = path.rsplit_once('/')?;
    Some((parent, key.replace("~1", "/").replace("~0", "~")))
}

fn add(object: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        *object = value;
        return Some(());
    }
    let (parent, key) = split_pointer(path)?;
    match object.pointer_mut(parent)? {
        Value::Object(map) => drop(map.insert(key, value)),
        Value::Array(list) if key == "-" => list.push(value),
        Value::Array(list) => {
            let at = key.parse().ok().filter(|at| *at <= list.len())?;
            list.insert(at, value);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
    }
    Some(())
}

fn remove(object: &mut Value, path: &str) -> Option<Value> {
    let (parent, key) = split_pointer(path)?;
    match object.pointer_mut(parent)? {
        Value::Object(map) => map.remove(&key),
        Value::Array(list) => {
            let at = key.parse().ok().filter(|at| *at < list.len())?;
            Some(list.remove(at))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// Applies a merge patch: maps are merged, `null` removes a key, and any other value replaces.
pub(super) fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Some(map) = object.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// Returns the key that identifies the entries of a list, for the lists that are merged entry by entry.
pub(super) fn merge_key(list: &str, entry: &Value) -> Option<&'static str> {
    match list {
        "containers" | "initContainers" | "env" | "volumes" | "imagePullSecrets" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        "ports" if entry.get("containerPort").is_some() => Some("containerPort"),
        "ports" => Some("port"),
        "ownerReferences" => Some("uid"),
        "conditions" => Some("type"),
        _ => None,
    }
}

/// Applies a strategic merge patch: like a merge patch, but some lists are merged by a key of their entries.
pub(super) fn strategic(object: &mut Value, patch: &Value) -> Result<(), StatusError> {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return Ok(());
    };
    if patch.get("$patch").and_then(Value::as_str) == Some("replace") {
        let mut whole = patch.clone();
        whole.remove("$patch");
        *object = Value::Object(whole);
        return Ok(());
    }
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Some(map) = object.as_object_mut() else { return Ok(()) };
    for (key, value) in patch {
        match value {
            Value::Null => drop(map.remove(key)),
            Value::Array(entries) if key.starts_with("$setElementOrder/") => {
                let list = key.trim_start_matches("$setElementOrder/");
                order(map.get_mut(list), list, entries);
            }
            Value::Array(entries) if key.starts_with("$deleteFromPrimitiveList/") => {
                let list = key.trim_start_matches("$deleteFromPrimitiveList/");
                if let Some(list) = map.get_mut(list).and_then(Value::as_array_mut) {
                    list.retain(|entry| !entries.contains(entry));
                }
            }
            _ if key == "$retainKeys" => {
                let kept = value.as_array().map(Vec::as_slice).unwrap_or_default();
                map.retain(|key, _| kept.iter().any(|one| one == key));
            }
            _ if key.starts_with('$') => {
                return Err(StatusError::bad_request(format!("the directive {key:?} is not supported here")));
            }
            Value::Array(entries) => {
                entries_by_key(map.entry(key).or_insert(Value::Null), key, entries)?;
            }
            _ => strategic(map.entry(key).or_insert(Value::Null), value)?,
        }
    }
    // A patch states the order of a list separately from its entries; the order applies to the merged list.
    for (key, value) in patch {
        if let (Some(list), Value::Array(entries)) = (key.strip_prefix("$setElementOrder/"), value) {
            order(map.get_mut(list), list, entries);
        }
    }
    Ok(())
}

fn entries_by_key(object: &mut Value, list: &str, entries: &[Value]) -> Result<(), StatusError> {
    let key = entries.first().and_then(|entry| merge_key(list, entry));
    let (Some(key), false) = (key, entries.is_empty()) else {
        if list == "finalizers" {
            // The only list of plain values that is merged.
            let mut all = object.as_array().cloned().unwrap_or_default();
            all.extend(entries.iter().filter(|entry| !object.list("").contains(entry)).cloned());
            *object = Value::Array(all);
        } else {
            *object = Value::Array(entries.to_vec());
        }
        return Ok(());
    };
    if !object.is_array() {
        *object = Value::Array(Vec::new());
    }
    let Some(all) = object.as_array_mut() else { return Ok(()) };
    if entries.iter().any(|entry| entry.text("/$patch") == "replace") {
        all.clear();
    }
    for entry in entries {
        let at = all.iter().position(|one| one.get(key) == entry.get(key));
        match (entry.text("/$patch"), at) {
            ("replace", _) | ("delete", None) => {}
            ("delete", Some(at)) => drop(all.remove(at)),
            (_, Some(at)) => strategic(&mut all[at], entry)?,
            (_, None) => {
                let mut fresh = Value::Null;
                strategic(&mut fresh, entry)?;
                all.push(fresh);
            }
        }
    }
    Ok(())
}

fn order(object: Option<&mut Value>, list: &str, wanted: &[Value]) {
    let Some(all) = object.and_then(Value::as_array_mut) else { return };
    let rank = |entry: &Value| {
        wanted.iter().position(|one| match merge_key(list, entry) {
            Some(key) => one.get(key) == entry.get(key),
            None => one == entry,
        })
    };
    all.sort_by_key(|entry| rank(entry).unwrap_or(usize::MAX));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_json_patch_is_all_or_nothing() {
        let object = json!({"a": {"b": [1, 2]}, "c/d": "x"});
        let patch = json!([
            {"op": "test", "path": "/c~1d", "value": "x"},
            {"op": "add", "path": "/a/b/-", "value": 3},
            {"op": "remove", "path": "/a/b/0"},
            {"op": "copy", "from": "/a/b/0", "path": "/e"},
            {"op": "move", "from": "/e", "path": "/f"},
            {"op": "replace", "path": "/c~1d", "value": "y"},
        ]);
        let patched = json_patch(&object, &patch).expect("a patch that fits");
        assert_eq!(patched, json!({"a": {"b": [2, 3]}, "c/d": "y", "f": 2}));
        for unfit in [
            json!([{"op": "test", "path": "/a/x", "value": 1}]),
            json!([{"op": "replace", "path": "/x", "value": 1}]),
            json!([{"op": "remove", "path": "/a/b/7"}]),
            json!([{"op": "add", "path": "/x/y", "value": 1}]),
        ] {
            assert_eq!(json_patch(&object, &unfit).expect_err("unfit").code, 422, "{unfit}");
        }
    }

    #[test]
    fn a_strategic_patch_merges_containers_by_name() {
        let mut object = json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]});
        let patch = json!({
            "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
            "containers": [{"name": "b", "image": "3"}],
        });
        strategic(&mut object, &patch).expect("a patch that fits");
        assert_eq!(object, json!({"containers": [{"name": "b", "image": "3"}, {"name": "a", "image": "1"}]}));
        strategic(&mut object, &json!({"containers": [{"name": "a", "$patch": "delete"}]})).expect("a fit");
        assert_eq!(object, json!({"containers": [{"name": "b", "image": "3"}]}));
    }
}
