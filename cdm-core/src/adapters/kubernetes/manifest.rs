//! The manifest of a site's route: an Ingress with a rule for every hostname, or an HTTPRoute.

use serde_json::{Value, json};

use super::api::{HTTP_ROUTES, INGRESSES, Resource};
use super::failure::Failure;
use super::names::{FENCE, annotation, annotation_path, fence, label_path, labels, of_site, site_of, text};
use super::settings::{KubernetesSettings, RouteKind};
use crate::domain::{Color, Fence, Hostname, Hostnames, Uid};
use crate::ports::{ErrorKind, Route, RouteSpec};

/// The component label of a route.
pub(super) const ROUTE: &str = "route";
/// The annotation with the canonical hostname.
const CANONICAL: &str = "cdm/canonical-hostname";
/// The label with the number of hostnames of a route, which a move tests.
const COUNT: &str = "cdm/hostnames";
/// The prefix of the labels by which the route of a hostname is found.
const HOST: &str = "cdm-host";

/// The resource of routes.
pub(super) const fn resource(kind: &RouteKind) -> Resource {
    match kind {
        RouteKind::Ingress { .. } => INGRESSES,
        RouteKind::HttpRoute { .. } => HTTP_ROUTES,
    }
}

/// The label of the route of a hostname. It has a hash, since a hostname may be too long for a label.
pub(super) fn host_label(host: &Hostname) -> String {
    use sha2::{Digest as _, Sha256};
    let hash = Sha256::digest(host.as_str().as_bytes());
    format!("{HOST}/{}", hex::encode(&hash[..20]))
}

/// The object of a route.
pub(super) fn object(settings: &KubernetesSettings, spec: &RouteSpec, fence: Fence, owner: &Value) -> Value {
    let hosts = spec.hostnames.all();
    let service = &settings.names(spec.service).service;
    let body = match &settings.route {
        RouteKind::Ingress { class, tls_secret } => ingress(settings, hosts, service, (class, tls_secret)),
        RouteKind::HttpRoute { gateway, namespace, section } => {
            let mut parent = json!({ "name": gateway });
            if let Some(namespace) = namespace {
                parent["namespace"] = json!(namespace);
            }
            if let Some(section) = section {
                parent["sectionName"] = json!(section);
            }
            json!({
                "parentRefs": [parent],
                "hostnames": hosts.iter().map(Hostname::as_str).collect::<Vec<_>>(),
                "rules": [{ "backendRefs": [{ "name": service, "port": settings.port }] }],
            })
        }
    };
    let mut annotations = json!(settings.route_annotations);
    annotations[FENCE] = json!(fence.to_string());
    annotations[CANONICAL] = json!(spec.hostnames.canonical().as_str());
    let mut labels = labels(ROUTE, spec.uid, Some(&spec.site));
    labels[COUNT] = json!(hosts.len().to_string());
    for host in hosts {
        labels[host_label(host)] = json!("");
    }
    let resource = resource(&settings.route);
    json!({
        "apiVersion": resource.api_version(),
        "kind": resource.kind,
        "metadata": {
            "name": of_site(spec.uid),
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [owner],
        },
        "spec": body,
    })
}

fn ingress(
    settings: &KubernetesSettings,
    hosts: &[Hostname],
    service: &str,
    (class, tls_secret): (&Option<String>, &Option<String>),
) -> Value {
    let rule = |host: &Hostname| {
        let backend = json!({ "service": { "name": service, "port": { "number": settings.port } } });
        let paths = json!([{ "path": "/", "pathType": "Prefix", "backend": backend }]);
        json!({ "host": host.as_str(), "http": { "paths": paths } })
    };
    let mut spec = json!({ "rules": hosts.iter().map(rule).collect::<Vec<_>>() });
    if let Some(class) = class {
        spec["ingressClassName"] = json!(class);
    }
    if let Some(secret) = tls_secret {
        let hosts: Vec<&str> = hosts.iter().map(Hostname::as_str).collect();
        spec["tls"] = json!([{ "hosts": hosts, "secretName": secret }]);
    }
    spec
}

/// Converts an object to a route; `None` if the object is being deleted.
pub(super) fn route(
    settings: &KubernetesSettings,
    uid: Uid,
    object: &Value,
) -> Result<Option<Route>, Failure> {
    if super::pods::is_deleting(object) {
        return Ok(None);
    }
    if site_of(object) != Some(uid) {
        let message = "an object that CDM did not create has the name of the site's route";
        return Err(Failure::new(ErrorKind::Foreign, message));
    }
    let changed = || Failure::new(ErrorKind::Foreign, "the site's route was changed by another program");
    let hosts = hosts(object);
    let canonical = annotation(object, CANONICAL).unwrap_or_default();
    let hostnames = Hostnames::parse(&hosts, canonical).map_err(|_| changed())?;
    let mut services = services(object).into_iter();
    let service = services.next().ok_or_else(changed)?;
    if services.any(|other| other != service) {
        return Err(changed());
    }
    let named = |selector: &Color| settings.names(*selector).service == service;
    let service = Color::ALL.into_iter().find(named).ok_or_else(changed)?;
    Ok(Some(Route { uid, hostnames, service, fence: fence(object)? }))
}

/// The hostnames of any Ingress or HTTPRoute.
pub(super) fn hosts(object: &Value) -> Vec<&str> {
    let list = |pointer: &str| object.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    let of_rules = list("/spec/rules").filter_map(|rule| text(rule, "/host"));
    list("/spec/hostnames").filter_map(Value::as_str).chain(of_rules).collect()
}

fn services(object: &Value) -> Vec<&str> {
    let rules = object.pointer("/spec/rules").and_then(Value::as_array).into_iter().flatten();
    let backend =
        |rule| text(rule, "/http/paths/0/backend/service/name").or_else(|| text(rule, "/backendRefs/0/name"));
    rules.filter_map(backend).collect()
}

/// The number of rules that a move changes.
pub(super) fn rules(kind: &RouteKind, object: &Value) -> usize {
    match kind {
        RouteKind::Ingress { .. } => hosts(object).len(),
        RouteKind::HttpRoute { .. } => 1,
    }
}

/// The patch that moves a route with this number of rules to a service, on the condition that uid and fence match.
pub(super) fn move_patch(
    settings: &KubernetesSettings,
    uid: Uid,
    rules: usize,
    (expect, fence): (Fence, Fence),
    to: Color,
) -> Vec<Value> {
    let service = &settings.names(to).service;
    let test = |path: String, value: String| json!({ "op": "test", "path": path, "value": value });
    let mut patch = vec![
        test(label_path(super::names::UID), uid.to_string()),
        test(annotation_path(FENCE), expect.to_string()),
    ];
    let end = match &settings.route {
        RouteKind::Ingress { .. } => {
            patch.push(test(label_path(COUNT), rules.to_string()));
            "http/paths/0/backend/service/name"
        }
        RouteKind::HttpRoute { .. } => "backendRefs/0/name",
    };
    for at in 0..rules {
        patch.push(json!({ "op": "replace", "path": format!("/spec/rules/{at}/{end}"), "value": service }));
    }
    patch.push(json!({ "op": "replace", "path": annotation_path(FENCE), "value": fence.to_string() }));
    patch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::SiteId;

    fn spec() -> RouteSpec {
        let hostnames = Hostnames::parse(&["rrr.example.com", "www.rrr.example.com"], "rrr.example.com");
        RouteSpec {
            uid: Uid::from_parts(1, 1),
            site: SiteId::parse("rrr").expect("a site id"),
            hostnames: hostnames.expect("hostnames"),
            service: Color::Blue,
        }
    }

    fn kinds() -> [KubernetesSettings; 2] {
        let settings = KubernetesSettings::new("sites", "repo");
        let class = Some("public".to_owned());
        let tls_secret = Some("certificate".to_owned());
        let ingress = RouteKind::Ingress { class, tls_secret };
        let gateway = RouteKind::HttpRoute {
            gateway: "front".to_owned(),
            namespace: Some("edge".to_owned()),
            section: Some("https".to_owned()),
        };
        [ingress, gateway].map(|route| KubernetesSettings { route, ..settings.clone() })
    }

    #[test]
    fn a_route_is_read_as_it_was_written() {
        for settings in kinds() {
            let spec = spec();
            let object = object(&settings, &spec, Fence::new(7, 1), &json!({}));
            let route = route(&settings, spec.uid, &object).expect("a route").expect("a route");
            let RouteSpec { uid, hostnames, service, .. } = spec;
            assert_eq!(route, Route { uid, hostnames, service, fence: Fence::new(7, 1) });
        }
    }

    #[test]
    fn every_hostname_is_a_rule_of_the_ingress() {
        let [settings, gateway] = kinds();
        let result = object(&settings, &spec(), Fence::new(7, 1), &json!({}));
        let paths = json!([{
            "path": "/", "pathType": "Prefix",
            "backend": { "service": { "name": "blue", "port": { "number": 80 } } },
        }]);
        let expected = json!({
            "ingressClassName": "public",
            "tls": [{ "hosts": ["rrr.example.com", "www.rrr.example.com"], "secretName": "certificate" }],
            "rules": [
                { "host": "rrr.example.com", "http": { "paths": paths } },
                { "host": "www.rrr.example.com", "http": { "paths": paths } },
            ],
        });
        assert_eq!(result["spec"], expected);
        let result = object(&gateway, &spec(), Fence::new(7, 1), &json!({}));
        let expected = json!({
            "parentRefs": [{ "name": "front", "namespace": "edge", "sectionName": "https" }],
            "hostnames": ["rrr.example.com", "www.rrr.example.com"],
            "rules": [{ "backendRefs": [{ "name": "blue", "port": 80 }] }],
        });
        assert_eq!(result["spec"], expected);
    }

    #[test]
    fn a_move_tests_owner_fence_and_number_of_rules() {
        let [settings, gateway] = kinds();
        let uid = Uid::from_parts(1, 1);
        let fences = (Fence::new(7, 1), Fence::new(8, 1));
        let patch = move_patch(&settings, uid, 2, fences, Color::Green);
        let service = |at| format!("/spec/rules/{at}/http/paths/0/backend/service/name");
        let expected = json!([
            { "op": "test", "path": "/metadata/labels/cdm~1uid", "value": uid.to_string() },
            { "op": "test", "path": "/metadata/annotations/cdm~1fence", "value": "7.1" },
            { "op": "test", "path": "/metadata/labels/cdm~1hostnames", "value": "2" },
            { "op": "replace", "path": service(0), "value": "green" },
            { "op": "replace", "path": service(1), "value": "green" },
            { "op": "replace", "path": "/metadata/annotations/cdm~1fence", "value": "8.1" },
        ]);
        assert_eq!(Value::from(patch), expected);
        let patch = move_patch(&gateway, uid, 1, fences, Color::Green);
        let service =
            json!({ "op": "replace", "path": "/spec/rules/0/backendRefs/0/name", "value": "green" });
        assert_eq!((patch.len(), &patch[2]), (4, &service));
    }

    #[test]
    fn objects_of_others_are_foreign() {
        for settings in kinds() {
            let spec = spec();
            let result = object(&settings, &spec, Fence::new(7, 1), &json!({}));
            let kind = |object: &Value| route(&settings, spec.uid, object).map_err(|failure| failure.kind);
            let mut foreign = result.clone();
            foreign["metadata"]["labels"] = json!({ "app.kubernetes.io/managed-by": "Helm" });
            let mut elsewhere = result.clone();
            elsewhere["spec"]["rules"][0] =
                json!({ "host": "rrr.example.com", "backendRefs": [{ "name": "x" }] });
            for object in [foreign, elsewhere] {
                assert_eq!(kind(&object), Err(ErrorKind::Foreign));
            }
            let mut going = result;
            going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            assert_eq!(kind(&going), Ok(None));
        }
    }
}
