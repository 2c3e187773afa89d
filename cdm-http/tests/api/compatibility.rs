//! The current OpenAPI document compared with the document of an earlier version.
//!
//! Both documents are normalized first: references are resolved, so that component names do not count; texts for people
//! (descriptions, summaries, titles, examples) are removed; and two representations of the same values become one. What
//! is left is what a client depends on, and has to be the same, except for the additions that this file lists.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::support::served;

/// The document of the version that is named in its path.
const FROZEN: &str = include_str!("../stored/data/openapi-6c45bd0.json");

/// What the current document may have in addition: the ends of the addresses that a failure of this test prints, such as
/// `schema properties region`. An enum value is `enum "…"`, a required field `required "…"`.
const ADDITIONS: &[&str] = &[];

/// Keys whose value is a text for people.
const TEXTS: [&str; 6] = ["description", "summary", "title", "examples", "example", "externalDocs"];

/// Keys whose value is a map from names to objects: a field that is named `description` is no text.
const MAPS: [&str; 10] = [
    "properties",
    "patternProperties",
    "$defs",
    "paths",
    "responses",
    "headers",
    "content",
    "securitySchemes",
    "callbacks",
    "links",
];

#[tokio::test]
async fn document_is_compatible_with_frozen_document() {
    let differences = differences(&frozen(), &served().await, ADDITIONS);
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn breaking_changes_are_detected() {
    type Edit = fn(&mut Value);
    let changes: [(&str, Edit, &str); 13] = [
        (
            "a changed type",
            |document| *at(document, "/components/schemas/Site/properties/name") = json!({"type": "integer"}),
            "properties name type was \"string\", is \"integer\"",
        ),
        (
            "a renamed field",
            |document| {
                let fields = object(document, "/components/schemas/Site/properties");
                let field = fields.remove("theme").expect("a field");
                fields.insert("skin".to_owned(), field);
            },
            "properties theme is gone",
        ),
        (
            "a new field",
            |document| {
                let field = json!({"type": "string", "description": "New."});
                object(document, "/components/schemas/Site/properties").insert("title".to_owned(), field);
            },
            "properties title is new",
        ),
        (
            "a field that may be absent",
            |document| drop(list(document, "/components/schemas/Site/required").remove(0)),
            "required \"id\" is gone",
        ),
        (
            "a removed status",
            |document| drop(object(document, "/paths/~1sites~1{id}/get/responses").remove("404")),
            "paths /sites/{id} get responses 404 is gone",
        ),
        (
            "a new status",
            |document| {
                let response = json!({"description": "Gone."});
                object(document, "/paths/~1sites~1{id}/get/responses").insert("410".to_owned(), response);
            },
            "paths /sites/{id} get responses 410 is new",
        ),
        (
            "a new enum value",
            |document| list(document, "/components/schemas/SiteState/enum").push(json!("asleep")),
            "enum \"asleep\" is new",
        ),
        (
            "a removed enum value",
            |document| drop(list(document, "/components/schemas/OperationStatus/enum").remove(0)),
            "enum \"queued\" is gone",
        ),
        (
            "a removed method",
            |document| drop(object(document, "/paths/~1sites~1{id}").remove("delete")),
            "paths /sites/{id} delete is gone",
        ),
        (
            "a removed path",
            |document| drop(object(document, "/paths").remove("/freezes")),
            "paths /freezes is gone",
        ),
        (
            "a removed parameter",
            |document| {
                list(document, "/paths/~1sites/get/parameters").retain(|known| known["name"] != "drifted");
            },
            "paths /sites get parameters query drifted is gone",
        ),
        (
            "a changed limit",
            |document| {
                *at(document, "/components/schemas/StartRollout/properties/maxConcurrent/maximum") =
                    json!(64);
            },
            "maxConcurrent oneOf[0] maximum was 512, is 64",
        ),
        (
            "a value that may be null",
            |document| {
                *at(document, "/components/schemas/Site/properties/name") =
                    json!({"type": ["string", "null"]});
            },
            "properties name",
        ),
    ];
    for (name, change, expected) in changes {
        let mut changed = frozen();
        change(&mut changed);
        let found = differences(&frozen(), &changed, &[]);
        assert!(found.iter().any(|line| line.contains(expected)), "{name}: {found:#?}");
    }
}

#[test]
fn listed_additions_are_allowed() {
    let mut changed = frozen();
    list(&mut changed, "/components/schemas/SiteState/enum").push(json!("asleep"));
    assert!(!differences(&frozen(), &changed, &[]).is_empty());
    assert_eq!(differences(&frozen(), &changed, &["enum \"asleep\""]), Vec::<String>::new());
    // A list of additions allows no removal.
    list(&mut changed, "/components/schemas/SiteState/enum").remove(0);
    assert!(!differences(&frozen(), &changed, &["enum \"asleep\"", "enum \"creating\""]).is_empty());
}

#[test]
fn equal_representations_have_no_differences() {
    let renamed =
        frozen().to_string().replace("#/components/schemas/SiteState\"", "#/components/schemas/Phase\"");
    let mut changed: Value = serde_json::from_str(&renamed).expect("JSON");
    let schemas = object(&mut changed, "/components/schemas");
    let state = schemas.remove("SiteState").expect("a schema");
    let values = state["enum"].as_array().expect("values").iter().rev();
    let arms: Vec<Value> =
        values.map(|value| json!({"type": "string", "const": value, "description": "One."})).collect();
    schemas.insert("Phase".to_owned(), json!({"oneOf": arms, "title": "Phase"}));
    list(&mut changed, "/components/schemas/Site/required").reverse();
    list(&mut changed, "/paths/~1sites/get/parameters").reverse();
    *at(&mut changed, "/components/schemas/Rollout/allOf/1/properties/imageTag") =
        json!({"oneOf": [{"type": "null"}, {"type": "string"}], "description": "Other words."});
    assert_eq!(differences(&frozen(), &changed, &[]), Vec::<String>::new());
}

#[test]
fn recursive_schemas_are_resolved_once() {
    let node = |field: &str| {
        let child = json!({"$ref": "#/components/schemas/Node"});
        json!({"paths": {}, "components": {"schemas": {"Node": {"type": "object", "properties": {field: child}}},
            "securitySchemes": {"tree": {"$ref": "#/components/schemas/Node"}}}})
    };
    assert_eq!(differences(&node("child"), &node("child"), &[]), Vec::<String>::new());
    assert!(!differences(&node("child"), &node("leaf"), &[]).is_empty());
}

fn frozen() -> Value {
    serde_json::from_str(FROZEN).expect("a document")
}

fn at<'a>(document: &'a mut Value, pointer: &str) -> &'a mut Value {
    document.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}"))
}

fn object<'a>(document: &'a mut Value, pointer: &str) -> &'a mut Map<String, Value> {
    at(document, pointer).as_object_mut().expect("an object")
}

fn list<'a>(document: &'a mut Value, pointer: &str) -> &'a mut Vec<Value> {
    at(document, pointer).as_array_mut().expect("a list")
}

/// What the two documents do not have in common, but for `additions` of the second one.
fn differences(before: &Value, now: &Value, additions: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    compare("", &normalized(before), &normalized(now), additions, &mut found);
    found
}

/// The parts of a document that a client depends on.
fn normalized(document: &Value) -> Value {
    let parts = json!({"paths": document["paths"],
        "securitySchemes": document["components"]["securitySchemes"], "security": document["security"],
        "servers": document["servers"]});
    Normalizer { document }.object(parts.as_object().expect("an object"), &mut Vec::new())
}

struct Normalizer<'a> {
    document: &'a Value,
}

impl Normalizer<'_> {
    /// `open` has the references that are being resolved.
    fn value(&self, value: &Value, open: &mut Vec<String>) -> Value {
        match value {
            Value::Object(fields) => self.object(fields, open),
            Value::Array(items) => items.iter().map(|item| self.value(item, open)).collect(),
            scalar => scalar.clone(),
        }
    }

    fn object(&self, fields: &Map<String, Value>, open: &mut Vec<String>) -> Value {
        let mut result = Map::new();
        if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
            if let Some(depth) = open.iter().rev().position(|known| known == target) {
                return json!({"recursion": depth});
            }
            let found = target.strip_prefix('#').and_then(|pointer| self.document.pointer(pointer));
            open.push(target.to_owned());
            let found =
                self.value(found.unwrap_or_else(|| panic!("`{target}` is not in the document")), open);
            open.pop();
            result.extend(found.as_object().expect("an object").clone());
        }
        for (key, value) in fields {
            let value = match (key.as_str(), value) {
                ("$ref", _) => continue,
                (text, _) if TEXTS.contains(&text) => continue,
                ("parameters", Value::Array(items)) => self.parameters(items, open),
                (map, Value::Object(named)) if MAPS.contains(&map) => {
                    named.iter().map(|(name, value)| (name.clone(), self.value(value, open))).collect()
                }
                // Values, not schemas.
                ("default" | "enum" | "const", value) => value.clone(),
                (_, value) => self.value(value, open),
            };
            result.insert(key.clone(), value);
        }
        canonical(result)
    }

    /// Parameters by place and name; their order means nothing.
    fn parameters(&self, items: &[Value], open: &mut Vec<String>) -> Value {
        let named = items.iter().map(|item| {
            let item = self.value(item, open);
            let word = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
            (format!("{} {}", word("in"), word("name")), item.clone())
        });
        named.collect::<Map<_, _>>().into()
    }
}

/// One representation of what a schema can say in several ways.
fn canonical(mut schema: Map<String, Value>) -> Value {
    if let Some(value) = schema.remove("const") {
        schema.insert("enum".to_owned(), json!([value]));
    }
    // Objects that are all required at once are one object.
    if let Some(Value::Array(parts)) = schema.get("allOf")
        && parts.iter().all(|part| part["properties"].is_object() || parts.len() == 1)
        && let Some(merged) = merged(parts)
    {
        schema.remove("allOf");
        schema.extend(merged);
    }
    // A type that may be null is a choice between that type and null.
    if let Some(Value::Array(types)) = schema.get("type") {
        let mut arms = vec![json!({"type": "null"})];
        let others: Vec<&Value> = types.iter().filter(|name| **name != "null").collect();
        if others.len() == 1 && types.len() == 2 {
            let mut arm = schema.clone();
            arm.insert("type".to_owned(), others[0].clone());
            arms.push(canonical(arm));
            schema = Map::from_iter([("oneOf".to_owned(), arms.into())]);
        }
    }
    if let Some(arms) = schema.remove("anyOf") {
        schema.entry("oneOf").or_insert(arms);
    }
    // A choice between string values is an enumeration.
    if let Some(Value::Array(arms)) = schema.get("oneOf") {
        let values = |arm: &Value| match (&arm["type"], &arm["enum"]) {
            (Value::String(name), Value::Array(values)) if name == "string" => Some(values.clone()),
            _ => None,
        };
        if let Some(values) = arms.iter().map(values).collect::<Option<Vec<_>>>() {
            schema.remove("oneOf");
            schema.insert("type".to_owned(), "string".into());
            schema.insert("enum".to_owned(), values.concat().into());
        }
    }
    for key in ["enum", "required", "type", "oneOf"] {
        if let Some(Value::Array(values)) = schema.get_mut(key) {
            values.sort_by_key(Value::to_string);
            values.dedup();
        }
    }
    schema.into()
}

/// The parts of an `allOf` in one schema; `None` where two of them differ in the same thing.
fn merged(parts: &[Value]) -> Option<Map<String, Value>> {
    let mut whole = Map::new();
    for part in parts {
        for (key, value) in part.as_object()? {
            match (key.as_str(), whole.get_mut(key), value) {
                (_, None, value) => drop(whole.insert(key.clone(), value.clone())),
                ("properties", Some(Value::Object(known)), Value::Object(more)) => {
                    if more.iter().any(|(name, field)| known.get(name).is_some_and(|known| known != field)) {
                        return None;
                    }
                    known.extend(more.clone());
                }
                ("required", Some(Value::Array(known)), Value::Array(more)) => known.extend(more.clone()),
                (_, Some(known), value) if known == value => {}
                _ => return None,
            }
        }
    }
    Some(whole)
}

fn compare(at: &str, before: &Value, now: &Value, additions: &[&str], found: &mut Vec<String>) {
    let allowed = |at: &str| additions.iter().any(|end| at.ends_with(end));
    let gone = |at: String| format!("{at} is gone");
    match (before, now) {
        (Value::Object(before), Value::Object(now)) => {
            let keys: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
            for key in keys {
                let at = if at.is_empty() { key.clone() } else { format!("{at} {key}") };
                match (before.get(key), now.get(key)) {
                    (Some(before), Some(now)) => compare(&at, before, now, additions, found),
                    (Some(_), None) => found.push(gone(at)),
                    (None, Some(_)) if allowed(&at) => {}
                    (None, _) => found.push(format!("{at} is new")),
                }
            }
        }
        (Value::Array(before), Value::Array(now)) if scalars(before) && scalars(now) => {
            let named = |values: &[Value]| -> BTreeSet<String> {
                values.iter().map(|value| format!("{at} {value}")).collect()
            };
            let (before, now) = (named(before), named(now));
            found.extend(before.difference(&now).cloned().map(gone));
            let new = now.difference(&before).filter(|at| !allowed(at));
            found.extend(new.map(|at| format!("{at} is new")));
        }
        (Value::Array(before), Value::Array(now)) if before.len() == now.len() => {
            for (index, (before, now)) in before.iter().zip(now).enumerate() {
                compare(&format!("{at}[{index}]"), before, now, additions, found);
            }
        }
        _ if before == now => {}
        _ => found.push(format!("{at} was {before}, is {now}")),
    }
}

fn scalars(values: &[Value]) -> bool {
    values.iter().all(|value| !value.is_object() && !value.is_array())
}
