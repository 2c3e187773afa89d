//! Secrets Manager as documented, where moto is more lenient: a create of a secret that is scheduled for deletion, and
//! the limits of names, tokens and values.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cdm_core::ports::Clock;
use cdm_testkit::proxy::{HttpRequest, HttpResponse, Proxy};
use serde_json::{Value, json};

#[derive(Debug, Default)]
struct Secret {
    /// The version's token and value.
    version: Option<(String, String)>,
    tags: Value,
    /// Time of the deletion, in seconds since the epoch.
    deleted: Option<u64>,
}

/// Starts a server that follows the documentation.
pub(crate) async fn start(clock: Arc<dyn Clock>) -> Proxy {
    let stored: Mutex<BTreeMap<String, Secret>> = Mutex::default();
    let respond = move |request: &HttpRequest| {
        let mut stored = stored.lock().unwrap_or_else(PoisonError::into_inner);
        match response_body(&mut stored, request) {
            Ok(body) => json(200, &body),
            Err(code) => error(400, code),
        }
    };
    Proxy::stub(clock, respond).await.expect("a stub")
}

/// Returns an error response of the service.
pub(crate) fn error(status: u16, code: &str) -> HttpResponse {
    json(status, &json!({ "__type": code, "Message": "a-message-of-the-service" }))
}

fn json(status: u16, body: &Value) -> HttpResponse {
    HttpResponse::new(status, "application/x-amz-json-1.1", &body.to_string())
}

fn response_body(
    stored: &mut BTreeMap<String, Secret>,
    request: &HttpRequest,
) -> Result<Value, &'static str> {
    let body: Value = serde_json::from_slice(&request.body).map_err(|_| "SerializationException")?;
    let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
    if request.operation() == "CreateSecret" {
        return create(stored, &text("Name"), &body);
    }
    let name = text("SecretId");
    let secret = stored.get_mut(&name).ok_or("ResourceNotFoundException")?;
    match (request.operation().as_str(), secret.deleted) {
        ("DescribeSecret", deleted) => {
            let mut description = json!({ "ARN": arn(&name), "Name": name, "Tags": secret.tags });
            if let Some(deleted) = deleted {
                description["DeletedDate"] = json!(deleted);
            }
            Ok(description)
        }
        ("GetSecretValue" | "DeleteSecret", Some(_)) => Err("InvalidRequestException"),
        ("GetSecretValue", None) => {
            let (token, value) = secret.version.as_ref().ok_or("ResourceNotFoundException")?;
            Ok(json!({ "ARN": arn(&name), "Name": name, "VersionId": token, "SecretString": value }))
        }
        ("DeleteSecret", None) => {
            let days = body["RecoveryWindowInDays"].as_u64().unwrap_or(30);
            if !(7..=30).contains(&days) || body["ForceDeleteWithoutRecovery"] == true {
                return Err("InvalidParameterException");
            }
            secret.deleted = Some(4_000_000_000 + days * 86_400);
            Ok(json!({ "ARN": arn(&name), "Name": name, "DeletionDate": secret.deleted }))
        }
        _ => Err("UnknownOperationException"),
    }
}

fn create(stored: &mut BTreeMap<String, Secret>, name: &str, body: &Value) -> Result<Value, &'static str> {
    let token = body["ClientRequestToken"].as_str().unwrap_or_default();
    let value = body["SecretString"].as_str();
    let plain = |character: char| character.is_ascii_alphanumeric() || "/_+=.@-".contains(character);
    if name.is_empty() || name.len() > 512 || !name.chars().all(plain) {
        return Err("ValidationException");
    }
    if !(32..=64).contains(&token.len())
        || value.is_some_and(|value| value.is_empty() || value.len() > 65_536)
    {
        return Err("ValidationException");
    }
    if let Some(existing) = stored.get(name) {
        let same = value.map(|value| (token.to_owned(), value.to_owned()));
        return match existing.deleted {
            Some(_) => Err("InvalidRequestException"),
            None if same.is_some() && existing.version == same => {
                Ok(json!({ "ARN": arn(name), "Name": name }))
            }
            None => Err("ResourceExistsException"),
        };
    }
    let version = value.map(|value| (token.to_owned(), value.to_owned()));
    stored.insert(name.to_owned(), Secret { version, tags: body["Tags"].clone(), deleted: None });
    Ok(json!({ "ARN": arn(name), "Name": name }))
}

fn arn(name: &str) -> String {
    format!("arn:aws:secretsmanager:eu-central-1:123456789012:secret:{name}-a1b2c3")
}
