//! Validation and defaults of Services, Ingresses and HTTPRoutes.

use serde_json::{Value, json};

use super::super::object::Object;
use super::super::status_error::Cause;
use super::super::store::Store;
use super::metadata::is_subdomain;

const MAX_ROUTE_ENTRIES: usize = 16;

pub(super) fn set_service_defaults(object: &mut Value, store: &mut Store) {
    object.default_to("/spec/type", "ClusterIP");
    object.default_to("/spec/sessionAffinity", "None");
    object.default_to("/spec/internalTrafficPolicy", "Cluster");
    if object.pointer("/spec/clusterIP").is_none() {
        let number = store.version() % 65_000 + 1;
        let address = format!("10.96.{}.{}", number / 250, number % 250 + 1);
        object.put("/spec/clusterIPs", json!([address]));
        object.put("/spec/clusterIP", address);
    }
    for port in object.pointer_mut("/spec/ports").and_then(Value::as_array_mut).into_iter().flatten() {
        port.default_to("/protocol", "TCP");
        let number = port["port"].clone();
        port.default_to("/targetPort", number);
    }
}

/// Sets the defaults of the kind's definition.
pub(super) fn set_route_defaults(object: &mut Value) {
    let each = |object: &mut Value, pointer: &str, fill: fn(&mut Value)| {
        object.pointer_mut(pointer).and_then(Value::as_array_mut).into_iter().flatten().for_each(fill);
    };
    each(object, "/spec/parentRefs", |parent| {
        parent.default_to("/group", "gateway.networking.k8s.io");
        parent.default_to("/kind", "Gateway");
    });
    for rule in object.pointer_mut("/spec/rules").and_then(Value::as_array_mut).into_iter().flatten() {
        rule.default_to("/matches", json!([{"path": {"type": "PathPrefix", "value": "/"}}]));
        each(rule, "/matches", |one| {
            one.default_to("/path/type", "PathPrefix");
            one.default_to("/path/value", "/");
        });
        each(rule, "/backendRefs", |backend| {
            backend.default_to("/group", "");
            backend.default_to("/kind", "Service");
            backend.default_to("/weight", 1);
        });
    }
}

pub(super) fn validate_ingress(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = &object["spec"];
    if spec.list("/rules").is_empty() && spec.get("defaultBackend").is_none() {
        let why = "either `defaultBackend` or `rules` must be specified";
        causes.push(Cause::invalid("spec", &json!([]), why));
    }
    for (number, rule) in spec.list("/rules").iter().enumerate() {
        let location = format!("spec.rules[{number}]");
        let host = rule.text("/host");
        if !host.is_empty() && !is_host(host) {
            causes.push(Cause::invalid(format!("{location}.host"), &json!(host), "must be a DNS name"));
        }
        let paths = rule.list("/http/paths");
        if rule.get("http").is_some() && paths.is_empty() {
            causes.push(Cause::required(format!("{location}.http.paths"), ""));
        }
        for (number, path) in paths.iter().enumerate() {
            let location = format!("{location}.http.paths[{number}]");
            let kind = path.text("/pathType");
            if kind.is_empty() {
                causes.push(Cause::required(format!("{location}.pathType"), "pathType must be specified"));
            } else if !["Exact", "Prefix", "ImplementationSpecific"].contains(&kind) {
                let known = ["Exact", "ImplementationSpecific", "Prefix"];
                causes.push(Cause::unsupported(format!("{location}.pathType"), kind, &known));
            }
            if !path.text("/path").starts_with('/') && kind != "ImplementationSpecific" {
                causes.push(Cause::invalid(
                    format!("{location}.path"),
                    &path["path"],
                    "must be an absolute path",
                ));
            }
            let service = &path["backend"]["service"];
            if service.text("/name").is_empty() {
                causes.push(Cause::required(format!("{location}.backend.service.name"), ""));
            }
            if service.number("/port/number").is_none() == service.text("/port/name").is_empty() {
                let why = "port name or number is required, and not both";
                causes.push(Cause::required(format!("{location}.backend.service.port"), why));
            }
        }
    }
    causes
}

pub(super) fn validate_route(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = &object["spec"];
    for list in ["hostnames", "rules"] {
        let many = spec.list(&format!("/{list}")).len();
        if many > MAX_ROUTE_ENTRIES {
            causes.push(Cause::too_many(format!("spec.{list}"), many, MAX_ROUTE_ENTRIES));
        }
    }
    for (number, host) in spec.list("/hostnames").iter().enumerate() {
        if !host.as_str().is_some_and(is_host) {
            causes.push(Cause::invalid(format!("spec.hostnames[{number}]"), host, "must be a DNS name"));
        }
    }
    for (number, parent) in spec.list("/parentRefs").iter().enumerate() {
        if parent.text("/name").is_empty() {
            causes.push(Cause::required(format!("spec.parentRefs[{number}].name"), ""));
        }
    }
    for (number, rule) in spec.list("/rules").iter().enumerate() {
        for (at, backend) in rule.list("/backendRefs").iter().enumerate() {
            let location = format!("spec.rules[{number}].backendRefs[{at}]");
            if backend.text("/name").is_empty() {
                causes.push(Cause::required(format!("{location}.name"), ""));
            }
            if backend.text("/kind") == "Service" && backend.number("/port").is_none() {
                causes.push(Cause::invalid(
                    location,
                    &json!("object"),
                    "Must have port for Service reference",
                ));
            }
        }
    }
    causes
}

fn is_host(text: &str) -> bool {
    let rest = text.strip_prefix("*.").unwrap_or(text);
    is_subdomain(rest) && rest.parse::<std::net::IpAddr>().is_err()
}
