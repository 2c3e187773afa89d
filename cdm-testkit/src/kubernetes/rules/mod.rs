//! What an object has to be like, and what is filled in where it says nothing, kind by kind.

mod data;
mod job;
mod metadata;
mod pods;
mod routes;
mod workloads;

use serde_json::Value;

use super::kinds::Kind;
use super::object::Object;
use super::refusal::{Cause, Refusal};
use super::store::Store;

/// Fills in what an object leaves open. Its uid is there already.
pub(super) fn fill_in(kind: &Kind, object: &mut Value, store: &mut Store) -> Result<(), Refusal> {
    match kind.plural {
        "secrets" => data::fill_in_secret(object)?,
        "pods" => pods::fill_in(object, "/spec"),
        "deployments" | "replicasets" => workloads::fill_in(kind, object),
        "jobs" => job::fill_in(object),
        "services" => routes::fill_in_service(object, store),
        "httproutes" => routes::fill_in_route(object),
        "namespaces" => object.default_to("/status/phase", "Active"),
        _ => {}
    }
    Ok(())
}

/// Judges an object that is to be created, or to take the place of `before`.
pub(super) fn judge(kind: &Kind, object: &Value, before: Option<&Value>) -> Result<(), Refusal> {
    let mut causes = metadata::judge(kind, object);
    match kind.plural {
        "configmaps" | "secrets" => {
            causes.extend(data::judge(kind, object));
            causes.extend(before.map(|before| data::judge_change(object, before)).unwrap_or_default());
        }
        "pods" => causes.extend(pods::judge(object, "/spec", pods::RESTARTS_OF_PODS)),
        "deployments" | "replicasets" => causes.extend(workloads::judge(kind, object, before)),
        "jobs" => causes.extend(job::judge(object, before)),
        "ingresses" => causes.extend(routes::judge_ingress(object)),
        "httproutes" => causes.extend(routes::judge_route(object)),
        _ => {}
    }
    if causes.is_empty() {
        Ok(())
    } else {
        Err(Refusal::invalid(kind, object.text("/metadata/name"), &causes))
    }
}

/// That a field stays as it was.
fn unchanged(object: &Value, before: &Value, pointer: &str, causes: &mut Vec<Cause>) {
    let (now, then) = (object.pointer(pointer), before.pointer(pointer));
    if now.unwrap_or(&Value::Null) != then.unwrap_or(&Value::Null) {
        let field = pointer.trim_start_matches('/').replace('/', ".");
        causes.push(Cause::invalid(field, now.unwrap_or(&Value::Null), "field is immutable"));
    }
}
