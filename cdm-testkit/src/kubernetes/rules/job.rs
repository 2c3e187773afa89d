//! Validation and defaults of Jobs.

use serde_json::{Value, json};

use super::super::object::Object;
use super::super::status_error::Cause;
use super::{metadata, pods, unchanged};

const MAX_RULES: usize = 20;

pub(super) fn set_defaults(object: &mut Value) {
    if object.number("/spec/completions").is_none() && object.number("/spec/parallelism").is_none() {
        object.put("/spec/completions", 1);
    }
    object.default_to("/spec/parallelism", 1);
    let per_index = object.number("/spec/backoffLimitPerIndex").is_some();
    object.default_to("/spec/backoffLimit", if per_index { i32::MAX } else { 6 });
    object.default_to("/spec/completionMode", "NonIndexed");
    object.default_to("/spec/suspend", false);
    let policy = object.pointer("/spec/podFailurePolicy").is_some();
    object.default_to("/spec/podReplacementPolicy", if policy { "Failed" } else { "TerminatingOrFailed" });
    let rules = object.pointer_mut("/spec/podFailurePolicy/rules").and_then(Value::as_array_mut);
    for condition in rules
        .into_iter()
        .flatten()
        .filter_map(|rule| rule.get_mut("onPodConditions").and_then(Value::as_array_mut))
        .flatten()
    {
        condition.default_to("/status", "True");
    }
    if !object.is("/spec/manualSelector") {
        let (name, uid) = (object.text("/metadata/name").to_owned(), object.text("/metadata/uid").to_owned());
        object.default_to(
            "/spec/selector",
            json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}),
        );
        let labels = object.map("/spec/template/metadata/labels");
        for (key, value) in [
            ("batch.kubernetes.io/controller-uid", &uid),
            ("controller-uid", &uid),
            ("batch.kubernetes.io/job-name", &name),
            ("job-name", &name),
        ] {
            labels.insert(key.to_owned(), json!(value));
        }
    }
    pods::set_defaults(object, "/spec/template/spec");
}

pub(super) fn validate(object: &Value, before: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::labels(object, "/spec/template/metadata/labels");
    causes.extend(pods::validate(object, "/spec/template/spec", &["OnFailure", "Never"]));
    for number in [
        "completions",
        "parallelism",
        "backoffLimit",
        "activeDeadlineSeconds",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        let value = object.pointer(&format!("/spec/{number}"));
        if value.is_some_and(|value| !value.is_null() && value.as_i64().is_none_or(|value| value < 0)) {
            causes.push(Cause::invalid(
                format!("spec.{number}"),
                &json!(value),
                "must be greater than or equal to 0",
            ));
        }
    }
    match object.text("/spec/completionMode") {
        "Indexed" => {
            if object.number("/spec/completions").is_none() {
                causes.push(Cause::required("spec.completions", "when completion mode is Indexed"));
            }
        }
        "NonIndexed" => {
            if object.number("/spec/backoffLimitPerIndex").is_some() {
                let why = "requires indexed completion mode";
                causes.push(Cause::invalid(
                    "spec.backoffLimitPerIndex",
                    &object["spec"]["backoffLimitPerIndex"],
                    why,
                ));
            }
        }
        other => causes.push(Cause::unsupported("spec.completionMode", other, &["Indexed", "NonIndexed"])),
    }
    if object.number("/spec/maxFailedIndexes").is_some()
        && object.number("/spec/backoffLimitPerIndex").is_none()
    {
        causes.push(Cause::required("spec.backoffLimitPerIndex", "when maxFailedIndexes is specified"));
    }
    causes.extend(validate_policy(object));
    if let Some(before) = before {
        for field in ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy"] {
            unchanged(object, before, &format!("/spec/{field}"), &mut causes);
        }
        let indexed = object.text("/spec/completionMode") == "Indexed";
        let together = object.number("/spec/completions") == object.number("/spec/parallelism");
        if !(indexed && together) {
            unchanged(object, before, "/spec/completions", &mut causes);
        }
        // A real server allows some changes of a suspended Job that never started; this one does not.
        unchanged(object, before, "/spec/template", &mut causes);
    }
    causes
}

fn validate_policy(object: &Value) -> Vec<Cause> {
    const FIELD: &str = "spec.podFailurePolicy";
    let mut causes = Vec::new();
    if object.pointer("/spec/podFailurePolicy").is_none() {
        return causes;
    }
    let pod = &object["spec"]["template"]["spec"];
    if pod.text("/restartPolicy") != "Never" {
        let field = "spec.template.spec.restartPolicy";
        let why = "only \"Never\" is supported when podFailurePolicy is specified";
        causes.push(Cause::invalid(field, &pod["restartPolicy"], why));
    }
    if object.text("/spec/podReplacementPolicy") != "Failed" {
        causes.push(Cause::unsupported(
            "spec.podReplacementPolicy",
            object.text("/spec/podReplacementPolicy"),
            &["Failed"],
        ));
    }
    let rules = object.list("/spec/podFailurePolicy/rules");
    if rules.len() > MAX_RULES {
        causes.push(Cause::too_long(format!("{FIELD}.rules"), MAX_RULES));
    }
    for (number, rule) in rules.iter().enumerate() {
        let location = format!("{FIELD}.rules[{number}]");
        let action = rule.text("/action");
        let known: &[&str] = if object.number("/spec/backoffLimitPerIndex").is_some() {
            &["Count", "FailIndex", "FailJob", "Ignore"]
        } else {
            &["Count", "FailJob", "Ignore"]
        };
        if !known.contains(&action) {
            causes.push(Cause::unsupported(format!("{location}.action"), action, known));
        }
        let codes = rule.get("onExitCodes").filter(|codes| !codes.is_null());
        let conditions = !rule.list("/onPodConditions").is_empty();
        if codes.is_some() == conditions {
            let why = "exactly one of onExitCodes and onPodConditions must be specified";
            causes.push(Cause::invalid(location.clone(), &json!(action), why));
        }
        let Some(codes) = codes else { continue };
        let location = format!("{location}.onExitCodes");
        let operator = codes.text("/operator");
        if !["In", "NotIn"].contains(&operator) {
            causes.push(Cause::unsupported(format!("{location}.operator"), operator, &["In", "NotIn"]));
        }
        let values: Vec<i64> = codes.list("/values").iter().filter_map(Value::as_i64).collect();
        if values.is_empty() || values.len() > 255 || !values.is_sorted_by(|one, next| one < next) {
            causes.push(Cause::invalid(
                format!("{location}.values"),
                &codes["values"],
                "must be ordered and unique, 1 to 255 of them",
            ));
        }
        if operator == "In" && values.contains(&0) {
            causes.push(Cause::invalid(
                format!("{location}.values[0]"),
                &json!(0),
                "must not be 0 for the In operator",
            ));
        }
        let name = codes.text("/containerName");
        let mut containers = pod.list("/containers").iter().chain(pod.list("/initContainers"));
        if !name.is_empty() && !containers.any(|container| container.text("/name") == name) {
            let why = "must be one of the container or initContainer names in the pod template";
            causes.push(Cause::invalid(format!("{location}.containerName"), &json!(name), why));
        }
    }
    causes
}
