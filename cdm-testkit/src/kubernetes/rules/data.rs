//! Validation and defaults of ConfigMaps and Secrets.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::super::kinds::Kind;
use super::super::object::Object;
use super::super::status_error::{Cause, StatusError};
use super::unchanged;

const MAX_DATA_BYTES: usize = 1 << 20;

/// Moves `stringData`, which is write-only, to `data`, and sets the default type.
pub(super) fn set_secret_defaults(object: &mut Value) -> Result<(), StatusError> {
    if let Some(plain) = object.remove("/stringData") {
        for (key, value) in plain.entries("") {
            let text = value.as_str().unwrap_or_default();
            object.map("/data").insert(key.to_owned(), json!(BASE64.encode(text)));
        }
    }
    object.default_to("/type", "Opaque");
    for (_, value) in object.entries("/data") {
        if value.as_str().is_none_or(|text| BASE64.decode(text).is_err()) {
            let message =
                "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 0";
            return Err(StatusError::bad_request(message));
        }
    }
    Ok(())
}

pub(super) fn validate(kind: &Kind, object: &Value) -> Vec<Cause> {
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
                    size += BASE64.decode(text).map_or(0, |bytes| bytes.len())
                }
                Some(text) => size += text.len(),
                None => causes.push(Cause::invalid(format!("{map}[{key}]"), value, "must be a string")),
            }
        }
    }
    if size > MAX_DATA_BYTES {
        causes.push(Cause::too_long("data", MAX_DATA_BYTES));
    }
    causes
}

pub(super) fn validate_change(object: &Value, before: &Value) -> Vec<Cause> {
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
