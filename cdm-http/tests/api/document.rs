//! The committed OpenAPI document equals the served one.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{TestEnv, served};

#[tokio::test]
async fn the_committed_document_equals_the_served_one() {
    let env = TestEnv::new().await;
    let served = env.ask("GET /openapi.json", None).await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    #[expect(clippy::disallowed_methods, reason = "set by a developer who changes the routes")]
    if std::env::var_os("CDM_BLESS").is_some() {
        std::fs::write(path, &served.text).expect("written");
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == served.text, "openapi.json is outdated: run this test with CDM_BLESS=1");
    let document = served.json();
    assert_eq!(document["openapi"].as_str().map(|version| version.starts_with("3.1")), Some(true));
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("an item") {
            assert!(operation["summary"].is_string() && operation["tags"].is_array(), "{method} {path}");
            for (status, response) in operation["responses"].as_object().expect("responses") {
                if status.as_str() < "4" {
                    assert!(response["headers"]["X-Request-Id"].is_object(), "{method} {path} {status}");
                }
                let described = response["description"].as_str().is_some_and(|text| !text.is_empty());
                assert!(described && response["content"].is_object(), "{method} {path} {status}");
            }
        }
    }
}

/// Returns every operation with its path and method.
fn operations(document: &Value) -> Vec<(String, &Value)> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("an item") {
            all.push((format!("{method} {path}"), operation));
        }
    }
    all
}

#[tokio::test]
async fn every_operation_has_a_unique_name_and_every_body_has_examples() {
    let document = served().await;
    let mut names = BTreeSet::new();
    for (line, operation) in operations(&document) {
        let name = operation["operationId"].as_str().unwrap_or_default();
        assert!(name.len() > 6 && names.insert(name), "{line}: `{name}`");
        if operation["requestBody"].is_object() {
            let examples = &operation["requestBody"]["content"]["application/json"]["examples"];
            let examples = examples.as_object().unwrap_or_else(|| panic!("{line} has no example"));
            assert!(examples.values().all(|one| one["summary"].is_string() && one["value"].is_object()));
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(parameter["description"].is_string(), "{line}: {parameter}");
            assert_eq!(parameter["required"], parameter["in"] == "path", "{line}: {parameter}");
        }
    }
}

/// Headers that clients may send and must expect, in addition to the bodies.
#[tokio::test]
async fn headers_are_in_the_document() {
    let document = served().await;
    for (line, operation) in operations(&document) {
        let takes = |name: &str| {
            let all = operation["parameters"].as_array().into_iter().flatten();
            all.into_iter().any(|parameter| parameter["name"] == name && parameter["in"] == "header")
        };
        let (writes, of_token) = (!line.starts_with("get "), line.contains("/tokens"));
        assert!(takes("X-Request-Id"), "{line}");
        assert_eq!(takes("Idempotency-Key"), writes && !of_token, "{line}");
        assert_eq!(takes("Last-Event-ID"), line.ends_with("/events"), "{line}");
        let declares = |status: &str, name: &str| operation["responses"][status]["headers"][name].is_object();
        let guarded = operation["responses"]["401"].is_object();
        assert_eq!(declares("429", "Retry-After"), guarded, "{line}");
        assert_eq!(declares("202", "Location"), operation["responses"]["202"].is_object(), "{line}");
        if operation["parameters"].to_string().contains("\"wait\"") && writes {
            let either = declares("200", "Location") || declares("201", "Location");
            assert!(either && declares("202", "Location"), "{line}: 200 after `wait`, or 202");
        }
    }
}

/// A closed set of values is listed as an enumeration.
#[tokio::test]
async fn closed_sets_are_enumerations() {
    let document = served().await;
    let words = |name: &str| document["components"]["schemas"][name]["enum"].as_array().map_or(0, Vec::len);
    let sets = ["ServiceName", "SiteState", "OperationKind", "OperationStatus", "StepStatus", "RolloutKind"];
    assert_eq!(sets.map(words), [2, 7, 7, 7, 5, 3]);
    assert_eq!(words("FrameKind"), 4);
    assert_eq!(["RolloutStatus", "Verdict", "Role", "ScopeName"].map(words), [7, 4, 3, 5]);
}
