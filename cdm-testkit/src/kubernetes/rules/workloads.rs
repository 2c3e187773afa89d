//! Validation and defaults of Deployments and ReplicaSets.

use serde_json::{Value, json};

use super::super::kinds::Kind;
use super::super::object::Object;
use super::super::selector::Selector;
use super::super::status_error::Cause;
use super::{metadata, pods, unchanged};

pub(super) fn set_defaults(kind: &Kind, object: &mut Value) {
    object.default_to("/spec/replicas", 1);
    if kind.plural == "deployments" {
        object.default_to("/spec/strategy/type", "RollingUpdate");
        if object.text("/spec/strategy/type") == "RollingUpdate" {
            object.default_to("/spec/strategy/rollingUpdate/maxSurge", "25%");
            object.default_to("/spec/strategy/rollingUpdate/maxUnavailable", "25%");
        }
        object.default_to("/spec/revisionHistoryLimit", 10);
        object.default_to("/spec/progressDeadlineSeconds", 600);
    }
    pods::set_defaults(object, "/spec/template/spec");
}

pub(super) fn validate(kind: &Kind, object: &Value, before: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let selector = object.pointer("/spec/selector").unwrap_or(&Value::Null);
    if selector.entries("/matchLabels").next().is_none() && selector.list("/matchExpressions").is_empty() {
        causes.push(Cause::required("spec.selector", ""));
    } else if !Selector::of_spec(selector).matches(&object["spec"]["template"]) {
        let why = "`selector` does not match template `labels`";
        causes.push(Cause::invalid(
            "spec.template.metadata.labels",
            &object["spec"]["template"]["metadata"]["labels"],
            why,
        ));
    }
    if object.number("/spec/replicas").is_none_or(|replicas| replicas < 0) {
        causes.push(Cause::invalid(
            "spec.replicas",
            &object["spec"]["replicas"],
            "must be greater than or equal to 0",
        ));
    }
    let deadline = object.number("/spec/progressDeadlineSeconds");
    if kind.plural == "deployments"
        && deadline.is_some_and(|deadline| deadline <= object.number("/spec/minReadySeconds").unwrap_or(0))
    {
        causes.push(Cause::invalid(
            "spec.progressDeadlineSeconds",
            &json!(deadline),
            "must be greater than minReadySeconds",
        ));
    }
    causes.extend(metadata::labels(object, "/spec/template/metadata/labels"));
    causes.extend(pods::validate(object, "/spec/template/spec", &["Always"]));
    if let Some(before) = before {
        unchanged(object, before, "/spec/selector", &mut causes);
    }
    causes
}
