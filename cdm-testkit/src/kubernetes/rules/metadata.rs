//! Validation of names, labels and annotations.

use serde_json::{Value, json};

use super::super::kinds::Kind;
use super::super::object::Object;
use super::super::status_error::Cause;

const MAX_ANNOTATION_BYTES: usize = 256 * 1024;
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
                         and must start and end with an alphanumeric character (e.g. 'example.com', regex used for \
                         validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
                     start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for \
                     validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
                           '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or \
                           'my_value',  or '12345', regex used for validation is \
                           '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

pub(super) fn validate(kind: &Kind, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let name = object.text("/metadata/name");
    let wrong = match kind.plural {
        "namespaces" | "services" => (!is_label(name)).then_some(LABEL),
        _ => (!is_subdomain(name)).then_some(SUBDOMAIN),
    };
    if let Some(rule) = wrong {
        causes.push(Cause::invalid("metadata.name", &json!(name), rule));
    }
    causes.extend(labels(object, "/metadata/labels"));
    let mut size = 0;
    for (key, value) in object.entries("/metadata/annotations") {
        if !is_qualified(key) {
            causes.push(Cause::invalid("metadata.annotations", &json!(key), "name part must be valid"));
        }
        match value.as_str() {
            Some(text) => size += key.len() + text.len(),
            None => causes.push(Cause::invalid("metadata.annotations", value, "must be a string")),
        }
    }
    if size > MAX_ANNOTATION_BYTES {
        causes.push(Cause::too_long("metadata.annotations", MAX_ANNOTATION_BYTES));
    }
    for (number, owner) in object.list("/metadata/ownerReferences").iter().enumerate() {
        for part in ["apiVersion", "kind", "name", "uid"] {
            if owner.text(&format!("/{part}")).is_empty() {
                let field = format!("metadata.ownerReferences[{number}].{part}");
                causes.push(Cause::invalid(field, &json!(""), "must not be empty"));
            }
        }
    }
    causes
}

/// Returns the errors in the labels at a pointer.
pub(super) fn labels(object: &Value, pointer: &str) -> Vec<Cause> {
    let field = pointer.trim_start_matches('/').replace('/', ".");
    let mut causes = Vec::new();
    for (key, value) in object.entries(pointer) {
        if !is_qualified(key) {
            causes.push(Cause::invalid(field.clone(), &json!(key), "name part must be a qualified name"));
        }
        let text = value.as_str().unwrap_or("\u{0}");
        if text.len() > 63 {
            causes.push(Cause::invalid(field.clone(), value, "must be no more than 63 characters"));
        } else if !text.is_empty() && !is_word(text) {
            causes.push(Cause::invalid(field.clone(), value, LABEL_VALUE));
        }
    }
    causes
}

/// Returns whether a text is a DNS label in lower case.
pub(super) fn is_label(text: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.chars().all(|letter| plain(letter) || letter == '-')
        && text.starts_with(plain)
        && text.ends_with(plain)
}

/// Returns whether a text consists of DNS labels separated by dots. A label may be as long as the whole name,
/// as in the real rule.
pub(super) fn is_subdomain(text: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    text.len() <= 253
        && text.split('.').all(|part| {
            part.chars().all(|letter| plain(letter) || letter == '-')
                && part.starts_with(plain)
                && part.ends_with(plain)
        })
}

/// Returns whether a text has only letters, digits and inner `-`, `_` and `.`.
fn is_word(text: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric();
    text.chars().all(|letter| plain(letter) || "-_.".contains(letter))
        && text.starts_with(plain)
        && text.ends_with(plain)
}

/// Returns whether a text is the name of a label or an annotation, with or without a prefix.
fn is_qualified(text: &str) -> bool {
    let (prefix, name) = text.split_once('/').unwrap_or(("a", text));
    is_subdomain(&prefix.to_lowercase()) && (1..=63).contains(&name.len()) && is_word(name)
}
