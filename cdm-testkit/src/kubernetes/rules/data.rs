//! ConfigMaps and Secrets.

use serde_json::{Value, json};

use super::super::base64;
use super::super::kinds::Kind;
use super::super::object::Object;
use super::super::refusal::{Cause, Refusal};
use super::unchanged;

const MOST_BYTES: usize = 1 << 20;

/// `stringData` is written and never read.
pub(super) fn fill_in_secret(object: &mut Value) -> Result<(), Refusal> {
    if let Some(plain) = object.remove("/stringData") {
        for (key, value) in plain.entries("") {
            let text = value.as_str().unwrap_or_default();
            object.map("/data").insert(key.to_owned(), json!(base64::encode(text.as_bytes())));
        }
    }
    object.default_to("/type", "Opaque");
    for (_, value) in object.entries("/data") {
        if value.as_str().and_then(base64::decode).is_none() {
            let message =
                "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 0";
            return Err(Refusal::bad_request(message));
        }
    }
    Ok(())
}

pub(super) fn judge(kind: &Kind, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut size = 0;
    for map in ["data", "binaryData"] {
        for (key, value) in object.entries(&format!("/{map}")) {
            let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
            if key.is_empty()
                || key.len() > 253
                || !key.chars().all(plain)
                || key == "."
                || key.starts_with("..")
            {
                let why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
                causes.push(Cause::invalid(format!("{map}[{key}]"), &json!(key), why));
            }
            match value.as_str() {
                Some(text) if kind.plural == "secrets" => {
                    size += base64::decode(text).map_or(0, |bytes| bytes.len())
                }
                Some(text) => size += text.len(),
                None => causes.push(Cause::invalid(format!("{map}[{key}]"), value, "must be a string")),
            }
        }
    }
    if size > MOST_BYTES {
        causes.push(Cause::too_long("data", MOST_BYTES));
    }
    causes
}

pub(super) fn judge_change(object: &Value, before: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    if before.is("/immutable") {
        for part in ["data", "binaryData", "immutable"] {
            if object.get(part) != before.get(part) {
                causes.push(Cause::forbidden(part, "field is immutable when `immutable` is set"));
            }
        }
    }
    unchanged(object, before, "/type", &mut causes);
    causes
}
