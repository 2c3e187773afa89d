//! Validation and defaults of pods and pod templates.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::object::Object;
use super::super::status_error::Cause;
use super::metadata::is_label;

pub(super) const POD_RESTART_POLICIES: &[&str] = &["Always", "OnFailure", "Never"];

pub(super) fn set_defaults(object: &mut Value, spec: &str) {
    let defaults = [
        ("restartPolicy", json!("Always")),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("securityContext", json!({})),
    ];
    for (field, value) in defaults {
        object.default_to(&format!("{spec}/{field}"), value);
    }
    if let Some(account) = object.pointer(&format!("{spec}/serviceAccountName")).cloned() {
        object.put(&format!("{spec}/serviceAccount"), account);
    }
    for list in ["containers", "initContainers"] {
        let containers = object.pointer_mut(&format!("{spec}/{list}")).and_then(Value::as_array_mut);
        containers.into_iter().flatten().for_each(set_container_defaults);
    }
    let volumes = object.pointer_mut(&format!("{spec}/volumes")).and_then(Value::as_array_mut);
    for volume in volumes.into_iter().flatten() {
        for source in ["secret", "configMap", "projected", "downwardAPI"] {
            if volume.get(source).is_some() {
                volume.default_to(&format!("/{source}/defaultMode"), 420);
            }
        }
    }
}

fn set_container_defaults(container: &mut Value) {
    let image = container.text("/image");
    let named = image.rsplit('/').next().unwrap_or_default();
    let latest = !named.contains('@') && (!named.contains(':') || named.ends_with(":latest"));
    container.default_to("/imagePullPolicy", if latest { "Always" } else { "IfNotPresent" });
    container.default_to("/terminationMessagePath", "/dev/termination-log");
    container.default_to("/terminationMessagePolicy", "File");
    container.default_to("/resources", json!({}));
    for port in container.pointer_mut("/ports").and_then(Value::as_array_mut).into_iter().flatten() {
        port.default_to("/protocol", "TCP");
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get_mut(probe).filter(|probe| probe.is_object()) else { continue };
        for (field, value) in
            [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
        {
            probe.default_to(&format!("/{field}"), value);
        }
        if probe.get("httpGet").is_some() {
            probe.default_to("/httpGet/scheme", "HTTP");
            probe.default_to("/httpGet/path", "/");
        }
    }
    for variable in container.pointer_mut("/env").and_then(Value::as_array_mut).into_iter().flatten() {
        if variable.pointer("/valueFrom/fieldRef").is_some() {
            variable.default_to("/valueFrom/fieldRef/apiVersion", "v1");
        }
    }
}

/// Returns the errors in the pod spec at a pointer.
pub(super) fn validate(object: &Value, spec: &str, restarts: &[&str]) -> Vec<Cause> {
    let mut causes = Vec::new();
    let field = spec.trim_start_matches('/').replace('/', ".");
    let pod = object.pointer(spec).unwrap_or(&Value::Null);
    let restart = pod.text("/restartPolicy");
    if !restarts.contains(&restart) {
        causes.push(Cause::unsupported(format!("{field}.restartPolicy"), restart, restarts));
    }
    if pod.list("/containers").is_empty() {
        causes.push(Cause::required(format!("{field}.containers"), ""));
    }
    let mut volumes = BTreeSet::new();
    for (number, volume) in pod.list("/volumes").iter().enumerate() {
        let name = volume.text("/name");
        if !is_label(name) || !volumes.insert(name) {
            causes.push(Cause::invalid(
                format!("{field}.volumes[{number}].name"),
                &json!(name),
                "must be a unique label",
            ));
        }
        if volume.as_object().is_none_or(|parts| parts.len() != 2) {
            causes.push(Cause::forbidden(
                format!("{field}.volumes[{number}]"),
                "must specify exactly one volume type",
            ));
        }
    }
    let mut names = BTreeSet::new();
    for list in ["initContainers", "containers"] {
        for (number, container) in pod.list(&format!("/{list}")).iter().enumerate() {
            let location = format!("{field}.{list}[{number}]");
            let name = container.text("/name");
            if !is_label(name) || !names.insert(name) {
                causes.push(Cause::invalid(
                    format!("{location}.name"),
                    &json!(name),
                    "must be a unique label",
                ));
            }
            if container.text("/image").is_empty() {
                causes.push(Cause::required(format!("{location}.image"), ""));
            }
            let sidecar = container.text("/restartPolicy") == "Always";
            for absent in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
                if list == "initContainers" && !sidecar && container.get(absent).is_some() {
                    causes.push(Cause::forbidden(
                        format!("{location}.{absent}"),
                        "may not be set for init containers without restartPolicy=Always",
                    ));
                }
            }
            causes.extend(validate_container(container, &location, &volumes));
        }
    }
    causes
}

fn validate_container(container: &Value, location: &str, volumes: &BTreeSet<&str>) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (number, variable) in container.list("/env").iter().enumerate() {
        let name = variable.text("/name");
        if name.is_empty() || name.contains('=') {
            causes.push(Cause::invalid(
                format!("{location}.env[{number}].name"),
                &json!(name),
                "must be a name",
            ));
        }
        if variable.get("valueFrom").is_some() && !variable.text("/value").is_empty() {
            let why = "may not be specified when `value` is not empty";
            causes.push(Cause::invalid(format!("{location}.env[{number}].valueFrom"), &json!(""), why));
        }
        if variable.get("value").is_some_and(|value| !value.is_string()) {
            causes.push(Cause::invalid(
                format!("{location}.env[{number}].value"),
                &json!(name),
                "must be a string",
            ));
        }
    }
    let mut paths = BTreeSet::new();
    for (number, mount) in container.list("/volumeMounts").iter().enumerate() {
        let location = format!("{location}.volumeMounts[{number}]");
        let (name, path) = (mount.text("/name"), mount.text("/mountPath"));
        if !volumes.contains(name) {
            causes.push(Cause::not_found(format!("{location}.name"), name));
        }
        if path.is_empty() {
            causes.push(Cause::required(format!("{location}.mountPath"), ""));
        } else if !paths.insert(path) {
            causes.push(Cause::invalid(format!("{location}.mountPath"), &json!(path), "must be unique"));
        }
    }
    causes
}
