//! The Postman collection and its environment are generated from the OpenAPI document, and are complete.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::support::served;

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/postman");
const SCHEMA: &str = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json";

/// The variables of the environment, with their values.
const VARIABLES: [(&str, &str); 12] = [
    ("baseUrl", "http://127.0.0.1:8080"),
    ("token", ""),
    ("siteId", "rrr"),
    ("operationId", ""),
    ("rolloutId", ""),
    ("tokenId", ""),
    ("userName", "ada"),
    ("freezeId", ""),
    ("webhookId", ""),
    ("selector", "blue"),
    ("digest", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
    ("step", "Install"),
];

/// Stores ids of responses, so that the next request can refer to them.
const KEEP_IDS: [&str; 10] = [
    "let body = {};",
    "try { body = pm.response.json(); } catch (error) { /* no JSON */ }",
    "const id = String(body.id || \"\");",
    "if (id.startsWith(\"op-\")) { pm.environment.set(\"operationId\", id); }",
    "if (id.startsWith(\"rollout-\")) { pm.environment.set(\"rolloutId\", id); }",
    "if (body.rollout) { pm.environment.set(\"rolloutId\", body.rollout); }",
    "if (body.operation) { pm.environment.set(\"operationId\", body.operation); }",
    "if (body.role && id) { pm.environment.set(\"tokenId\", id); }",
    "if (id.startsWith(\"freeze-\")) { pm.environment.set(\"freezeId\", id); }",
    "if (id.startsWith(\"webhook-\")) { pm.environment.set(\"webhookId\", id); }",
];

/// Returns the variable that replaces a parameter in a path.
fn variable(path: &str, part: &str) -> String {
    let name = match (part, path.split('/').nth(1)) {
        ("{id}", Some("sites")) => "siteId",
        ("{id}", Some("operations")) => "operationId",
        ("{id}", Some("rollouts")) => "rolloutId",
        ("{id}", Some("tokens")) => "tokenId",
        ("{id}", Some("freezes")) => "freezeId",
        ("{id}", Some("webhooks")) => "webhookId",
        ("{selector}", _) => "selector",
        ("{digest}", _) => "digest",
        ("{name}", Some("users")) => "userName",
        ("{name}", _) => "step",
        _ => return part.to_owned(),
    };
    format!("{{{{{name}}}}}")
}

fn request(path: &str, method: &str, operation: &Value, body: Option<&Value>) -> Value {
    let parts: Vec<String> = path.split('/').skip(1).map(|part| variable(path, part)).collect();
    let mut url = json!({"raw": format!("{{{{baseUrl}}}}/{}", parts.join("/")), "host": ["{{baseUrl}}"], "path": parts});
    let (mut headers, mut query) = (Vec::new(), Vec::new());
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let (name, description) = (&parameter["name"], &parameter["description"]);
        let value = if name == "Idempotency-Key" { "{{$guid}}" } else { "" };
        let entry = json!({"key": name, "value": value, "description": description, "disabled": true});
        match parameter["in"].as_str() {
            Some("query") => query.push(entry),
            Some("header") => headers.push(entry),
            _ => {}
        }
    }
    if !query.is_empty() {
        url["query"] = query.into();
    }
    let description = operation["description"].as_str().map_or(String::new(), |more| format!("\n\n{more}"));
    let description = format!("{}{description}", operation["summary"].as_str().unwrap_or_default());
    let mut request =
        json!({"method": method.to_uppercase(), "header": headers, "url": url, "description": description});
    if let Some(body) = body {
        let raw = serde_json::to_string_pretty(body).expect("JSON");
        request["body"] = json!({"mode": "raw", "raw": raw, "options": {"raw": {"language": "json"}}});
    }
    if operation["responses"]["401"].is_null() {
        request["auth"] = json!({"type": "noauth"});
    }
    request
}

/// Returns the requests of one operation: one, or one for each example of its body.
fn requests(path: &str, method: &str, operation: &Value) -> Vec<Value> {
    let name = operation["summary"].as_str().unwrap_or_default().trim_end_matches('.');
    let item = |name: &str, body| json!({"name": name, "request": request(path, method, operation, body), "response": []});
    match operation["requestBody"]["content"]["application/json"]["examples"].as_object() {
        None => vec![item(name, None)],
        Some(examples) => {
            let all = examples.values();
            all.map(|one| item(one["summary"].as_str().unwrap_or(name), Some(&one["value"]))).collect()
        }
    }
}

fn collection(document: &Value) -> Value {
    let mut folders = Vec::new();
    for tag in document["tags"].as_array().expect("tags") {
        let mut items = Vec::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("an item") {
                if operation["tags"][0] == tag["name"] {
                    items.extend(requests(path, method, operation));
                }
            }
        }
        folders.push(json!({"name": tag["name"], "description": tag["description"], "item": items}));
    }
    let bearer = json!([{"key": "token", "value": "{{token}}", "type": "string"}]);
    let script = json!({"type": "text/javascript", "exec": KEEP_IDS});
    json!({
        "info": {
            "name": document["info"]["title"],
            "description": document["info"]["description"],
            "schema": SCHEMA,
        },
        "auth": {"type": "bearer", "bearer": bearer},
        "event": [{"listen": "test", "script": script}],
        "item": folders,
    })
}

fn environment() -> Value {
    let values = VARIABLES.map(|(key, value)| {
        let kind = if key == "token" { "secret" } else { "default" };
        json!({"key": key, "value": value, "type": kind, "enabled": true})
    });
    json!({"name": "Cloud Deployment Manager, this machine", "values": values, "_postman_variable_scope": "environment"})
}

/// Returns the committed file; rewrites it first if `CDM_BLESS` is set.
fn committed(name: &str, made: &Value) -> String {
    let path = format!("{DIRECTORY}/{name}");
    let text = serde_json::to_string_pretty(made).expect("JSON") + "\n";
    #[expect(clippy::disallowed_methods, reason = "set by a developer who changes the routes")]
    if std::env::var_os("CDM_BLESS").is_some() {
        std::fs::create_dir_all(DIRECTORY).expect("a directory");
        std::fs::write(&path, &text).expect("written");
    }
    let existing = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(existing == text, "{name} is outdated: run this test with CDM_BLESS=1");
    existing
}

#[tokio::test]
async fn the_committed_files_match_the_document() {
    committed("cdm.postman_collection.json", &collection(&served().await));
    committed("cdm.postman_environment.json", &environment());
}

/// Returns every `{{variable}}` of a text.
fn variables(text: &str) -> BTreeSet<&str> {
    text.split("{{").skip(1).filter_map(|rest| rest.split_once("}}")).map(|(name, _)| name).collect()
}

#[tokio::test]
async fn every_route_is_included_and_every_variable_is_defined() {
    let document = served().await;
    let made = collection(&document);
    let mut requested = BTreeSet::new();
    for folder in made["item"].as_array().expect("folders") {
        assert!(
            folder["description"].is_string() && folder["item"].as_array().is_some_and(|all| !all.is_empty())
        );
        for item in folder["item"].as_array().expect("requests") {
            let request = &item["request"];
            let path: Vec<&str> =
                request["url"]["path"].as_array().expect("a path").iter().filter_map(Value::as_str).collect();
            let open = |part: &&str| part.starts_with('{') && !part.starts_with("{{");
            assert!(!path.iter().any(open), "a part of {path:?} has no variable");
            assert_eq!(request["url"]["raw"], format!("{{{{baseUrl}}}}/{}", path.join("/")));
            assert!(item["name"].as_str().is_some_and(|name| !name.is_empty()), "{item}");
            let method = request["method"].as_str().expect("a method");
            requested.insert(format!("{method} /{}", path.join("/")));
            if let Some(raw) = request["body"]["raw"].as_str() {
                assert!(serde_json::from_str::<Map<String, Value>>(raw).is_ok(), "{raw}");
            }
        }
    }
    for (path, item) in document["paths"].as_object().expect("paths") {
        for method in item.as_object().expect("an item").keys() {
            let parts: Vec<String> = path.split('/').skip(1).map(|part| variable(path, part)).collect();
            let line = format!("{} /{}", method.to_uppercase(), parts.join("/"));
            assert!(requested.remove(&line), "{line} is missing");
        }
    }
    assert!(requested.is_empty(), "{requested:?}");
    let text = made.to_string();
    let known: BTreeSet<&str> = VARIABLES.iter().map(|(name, _)| *name).chain(["$guid"]).collect();
    assert_eq!(variables(&text), known);
}
