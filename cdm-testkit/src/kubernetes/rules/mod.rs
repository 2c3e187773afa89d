//! Validation and defaults of objects, by kind.

mod data;
mod job;
mod metadata;
mod pods;
mod routes;
mod workloads;

use serde_json::Value;

use super::kinds::Kind;
use super::object::Object;
use super::status_error::{Cause, StatusError};
use super::store::Store;

/// Sets the defaults of an object. Its uid is already set.
pub(super) fn set_defaults(kind: &Kind, object: &mut Value, store: &mut Store) -> Result<(), StatusError> {
    match kind.plural {
        "secrets" => data::set_secret_defaults(object)?,
        "pods" => pods::set_defaults(object, "/spec"),
        "deployments" | "replicasets" => workloads::set_defaults(kind, object),
        "jobs" => job::set_defaults(object),
        "services" => routes::set_service_defaults(object, store),
        "httproutes" => routes::set_route_defaults(object),
        "namespaces" => object.default_to("/status/phase", "Active"),
        _ => {}
    }
    Ok(())
}

/// Validates an object that is created, or that replaces `before`.
pub(super) fn validate(kind: &Kind, object: &Value, before: Option<&Value>) -> Result<(), StatusError> {
    let mut causes = metadata::validate(kind, object);
    match kind.plural {
        "configmaps" | "secrets" => {
            causes.extend(data::validate(kind, object));
            causes.extend(before.map(|before| data::validate_change(object, before)).unwrap_or_default());
        }
        "pods" => causes.extend(pods::validate(object, "/spec", pods::POD_RESTART_POLICIES)),
        "deployments" | "replicasets" => causes.extend(workloads::validate(kind, object, before)),
        "jobs" => causes.extend(job::validate(object, before)),
        "ingresses" => causes.extend(routes::validate_ingress(object)),
        "httproutes" => causes.extend(routes::validate_route(object)),
        _ => {}
    }
    if causes.is_empty() {
        Ok(())
    } else {
        Err(StatusError::invalid(kind, object.text("/metadata/name"), &causes))
    }
}

/// Checks that a field did not change.
fn unchanged(object: &Value, before: &Value, pointer: &str, causes: &mut Vec<Cause>) {
    let (now, then) = (object.pointer(pointer), before.pointer(pointer));
    if now.unwrap_or(&Value::Null) != then.unwrap_or(&Value::Null) {
        let field = pointer.trim_start_matches('/').replace('/', ".");
        causes.push(Cause::invalid(field, now.unwrap_or(&Value::Null), "field is immutable"));
    }
}
