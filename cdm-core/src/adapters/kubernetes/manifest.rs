//! The manifest of a site's route: an Ingress with a rule for every hostname, or an HTTPRoute.

use json_patch::PatchOperation;
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend,
    IngressSpec, IngressTLS, ServiceBackendPort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::CustomResource;
use kube::api::Patch;
use kube::core::ObjectMeta;
use serde::{Deserialize, Serialize};

use super::api::{Kind, Session};
use super::failure::Failure;
use super::names::{FENCE, UID, annotation, fence, is_deleting, labels, of_site, site_of};
use super::patch::{self, replace, test};
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

/// The fields of an HTTPRoute of the Gateway API that routes use; `k8s-openapi` has the types of Kubernetes only.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, CustomResource)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "HTTPRoute",
    plural = "httproutes",
    namespaced,
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct HttpRouteSpec {
    parent_refs: Vec<ParentReference>,
    hostnames: Vec<String>,
    rules: Vec<HttpRouteRule>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct ParentReference {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    section_name: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct HttpRouteRule {
    backend_refs: Vec<BackendReference>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
struct BackendReference {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

impl Kind for HTTPRoute {}

/// The object of a route, which belongs to another owner unless it has the labels of CDM.
#[derive(Clone, Debug)]
pub(super) enum RouteObject {
    Ingress(Ingress),
    HttpRoute(HTTPRoute),
}

/// Returns the group and the name in paths of the objects of routes.
pub(super) const fn resource(kind: &RouteKind) -> (&'static str, &'static str) {
    match kind {
        RouteKind::Ingress { .. } => ("networking.k8s.io", "ingresses"),
        RouteKind::HttpRoute { .. } => ("gateway.networking.k8s.io", "httproutes"),
    }
}

/// Returns the label of the route of a hostname. It has a hash, since a hostname may be too long for a label.
pub(super) fn host_label(host: &Hostname) -> String {
    use sha2::{Digest as _, Sha256};
    let hash = Sha256::digest(host.as_str().as_bytes());
    format!("{HOST}/{}", hex::encode(&hash[..20]))
}

impl RouteObject {
    pub(super) fn new(
        settings: &KubernetesSettings,
        spec: &RouteSpec,
        fence: Fence,
        owner: OwnerReference,
    ) -> Self {
        let hosts = spec.hostnames.all();
        let mut annotations = settings.route_annotations.clone();
        annotations.insert(FENCE.to_owned(), fence.to_string());
        annotations.insert(CANONICAL.to_owned(), spec.hostnames.canonical().as_str().to_owned());
        let mut labels = labels(ROUTE, spec.uid, Some(&spec.site));
        labels.insert(COUNT.to_owned(), hosts.len().to_string());
        labels.extend(hosts.iter().map(|host| (host_label(host), String::new())));
        let metadata = ObjectMeta {
            name: Some(of_site(spec.uid)),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        };
        let service = &settings.names(spec.service).service;
        match &settings.route {
            RouteKind::Ingress { class, tls_secret } => {
                let spec = ingress(hosts, (service, settings.port), (class, tls_secret));
                Self::Ingress(Ingress { metadata, spec: Some(spec), status: None })
            }
            RouteKind::HttpRoute { gateway, namespace, section } => {
                let parent = ParentReference {
                    name: gateway.clone(),
                    namespace: namespace.clone(),
                    section_name: section.clone(),
                };
                let backend = BackendReference { name: service.clone(), port: Some(settings.port) };
                let spec = HttpRouteSpec {
                    parent_refs: vec![parent],
                    hostnames: hosts.iter().map(ToString::to_string).collect(),
                    rules: vec![HttpRouteRule { backend_refs: vec![backend] }],
                };
                Self::HttpRoute(HTTPRoute { metadata, spec })
            }
        }
    }

    pub(super) async fn get(
        session: &Session<'_>,
        kind: &RouteKind,
        name: &str,
    ) -> Result<Option<Self>, Failure> {
        Ok(match kind {
            RouteKind::Ingress { .. } => session.get(name).await?.map(Self::Ingress),
            RouteKind::HttpRoute { .. } => session.get(name).await?.map(Self::HttpRoute),
        })
    }

    pub(super) async fn list(
        session: &Session<'_>,
        kind: &RouteKind,
        labels: &str,
    ) -> Result<Vec<Self>, Failure> {
        Ok(match kind {
            RouteKind::Ingress { .. } => session.list(labels).await?.into_iter().map(Self::Ingress).collect(),
            RouteKind::HttpRoute { .. } => {
                session.list(labels).await?.into_iter().map(Self::HttpRoute).collect()
            }
        })
    }

    pub(super) async fn create(&self, session: &Session<'_>) -> Result<(), Failure> {
        match self {
            Self::Ingress(route) => session.create::<Ingress>(route).await.map(drop),
            Self::HttpRoute(route) => session.create::<HTTPRoute>(route).await.map(drop),
        }
    }

    pub(super) const fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Ingress(route) => &route.metadata,
            Self::HttpRoute(route) => &route.metadata,
        }
    }

    pub(super) fn hosts(&self) -> Vec<&str> {
        match self {
            Self::Ingress(route) => rules(route).filter_map(|rule| rule.host.as_deref()).collect(),
            Self::HttpRoute(route) => route.spec.hostnames.iter().map(String::as_str).collect(),
        }
    }

    /// Returns the Kubernetes Services that the rules point to.
    fn services(&self) -> Vec<&str> {
        match self {
            Self::Ingress(route) => {
                let first = rules(route).filter_map(|rule| rule.http.as_ref()?.paths.first());
                first.filter_map(|path| Some(path.backend.service.as_ref()?.name.as_str())).collect()
            }
            Self::HttpRoute(route) => {
                let first = route.spec.rules.iter().filter_map(|rule| rule.backend_refs.first());
                first.map(|backend| backend.name.as_str()).collect()
            }
        }
    }

    /// Returns the number of rules that a move changes.
    pub(super) fn moved_rules(&self) -> usize {
        match self {
            Self::Ingress(_) => self.hosts().len(),
            Self::HttpRoute(_) => 1,
        }
    }
}

pub(super) async fn patch(
    session: &Session<'_>,
    kind: &RouteKind,
    name: &str,
    operations: Vec<PatchOperation>,
) -> Result<(), Failure> {
    let patch = Patch::Json(json_patch::Patch(operations));
    match kind {
        RouteKind::Ingress { .. } => session.patch::<Ingress>(name, patch).await.map(drop),
        RouteKind::HttpRoute { .. } => session.patch::<HTTPRoute>(name, patch).await.map(drop),
    }
}

pub(super) async fn delete(
    session: &Session<'_>,
    kind: &RouteKind,
    name: &str,
    uid: &str,
) -> Result<(), Failure> {
    match kind {
        RouteKind::Ingress { .. } => session.delete::<Ingress>(name, Some(uid)).await,
        RouteKind::HttpRoute { .. } => session.delete::<HTTPRoute>(name, Some(uid)).await,
    }
}

fn rules(route: &Ingress) -> impl Iterator<Item = &IngressRule> {
    route.spec.iter().flat_map(|spec| spec.rules.iter().flatten())
}

fn ingress(
    hosts: &[Hostname],
    (service, port): (&str, u16),
    (class, tls_secret): (&Option<String>, &Option<String>),
) -> IngressSpec {
    let rule = |host: &Hostname| {
        let port = ServiceBackendPort { number: Some(i32::from(port)), name: None };
        let service = IngressServiceBackend { name: service.to_owned(), port: Some(port) };
        let path = HTTPIngressPath {
            path: Some("/".to_owned()),
            path_type: "Prefix".to_owned(),
            backend: IngressBackend { service: Some(service), resource: None },
        };
        let http = HTTPIngressRuleValue { paths: vec![path] };
        IngressRule { host: Some(host.to_string()), http: Some(http) }
    };
    let tls = |secret: &String| {
        let hosts = Some(hosts.iter().map(ToString::to_string).collect());
        vec![IngressTLS { hosts, secret_name: Some(secret.clone()) }]
    };
    IngressSpec {
        default_backend: None,
        ingress_class_name: class.clone(),
        rules: Some(hosts.iter().map(rule).collect()),
        tls: tls_secret.as_ref().map(tls),
    }
}

/// Converts an object to a route; `None` if the object is being deleted.
pub(super) fn route(
    settings: &KubernetesSettings,
    uid: Uid,
    object: &RouteObject,
) -> Result<Option<Route>, Failure> {
    let metadata = object.metadata();
    if is_deleting(metadata) {
        return Ok(None);
    }
    if site_of(metadata) != Some(uid) {
        let message = "an object that CDM did not create has the name of the site's route";
        return Err(Failure::new(ErrorKind::Foreign, message));
    }
    let changed = || Failure::new(ErrorKind::Foreign, "the site's route was changed by another program");
    let canonical = annotation(metadata, CANONICAL).unwrap_or_default();
    let hostnames = Hostnames::parse(&object.hosts(), canonical).map_err(|_| changed())?;
    let mut services = object.services().into_iter();
    let service = services.next().ok_or_else(changed)?;
    if services.any(|other| other != service) {
        return Err(changed());
    }
    let named = |color: &Color| settings.names(*color).service == service;
    let service = Color::ALL.into_iter().find(named).ok_or_else(changed)?;
    Ok(Some(Route { uid, hostnames, service, fence: fence(metadata)? }))
}

/// Returns the patch that moves a route with this number of rules to a service, on the condition that uid and fence
/// match.
pub(super) fn move_patch(
    settings: &KubernetesSettings,
    uid: Uid,
    rules: usize,
    (expect, fence): (Fence, Fence),
    to: Color,
) -> Vec<PatchOperation> {
    let service = settings.names(to).service.as_str();
    let mut operations =
        vec![test(&patch::label(UID), uid.to_string()), test(&patch::annotation(FENCE), expect.to_string())];
    let service_of_rule: &[&str] = match &settings.route {
        RouteKind::Ingress { .. } => {
            operations.push(test(&patch::label(COUNT), rules.to_string()));
            &["http", "paths", "0", "backend", "service", "name"]
        }
        RouteKind::HttpRoute { .. } => &["backendRefs", "0", "name"],
    };
    for index in 0..rules {
        let index = index.to_string();
        let path = [["spec", "rules", index.as_str()].as_slice(), service_of_rule].concat();
        operations.push(replace(&path, service));
    }
    operations.push(replace(&patch::annotation(FENCE), fence.to_string()));
    operations
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::{Epoch, SiteId};

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

    /// Returns the object of a route as JSON.
    fn written(settings: &KubernetesSettings, spec: &RouteSpec) -> Value {
        match RouteObject::new(settings, spec, Fence::new(7, Epoch(1)), OwnerReference::default()) {
            RouteObject::Ingress(route) => json!(route),
            RouteObject::HttpRoute(route) => json!(route),
        }
    }

    fn read(settings: &KubernetesSettings, object: &Value) -> RouteObject {
        match settings.route {
            RouteKind::Ingress { .. } => {
                RouteObject::Ingress(serde_json::from_value(object.clone()).expect("an Ingress"))
            }
            RouteKind::HttpRoute { .. } => {
                RouteObject::HttpRoute(serde_json::from_value(object.clone()).expect("an HTTPRoute"))
            }
        }
    }

    #[test]
    fn a_route_is_read_as_it_was_written() {
        for settings in kinds() {
            let spec = spec();
            let object =
                RouteObject::new(&settings, &spec, Fence::new(7, Epoch(1)), OwnerReference::default());
            let route = route(&settings, spec.uid, &object).expect("a route").expect("a route");
            let RouteSpec { uid, hostnames, service, .. } = spec;
            assert_eq!(route, Route { uid, hostnames, service, fence: Fence::new(7, Epoch(1)) });
        }
    }

    #[test]
    fn every_hostname_is_a_rule_of_the_ingress() {
        let [settings, gateway] = kinds();
        let result = written(&settings, &spec());
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
        assert_eq!((&result["kind"], &result["spec"]), (&json!("Ingress"), &expected));
        let result = written(&gateway, &spec());
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
        let fences = (Fence::new(7, Epoch(1)), Fence::new(8, Epoch(1)));
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
        assert_eq!(json!(patch), expected);
        let patch = move_patch(&gateway, uid, 1, fences, Color::Green);
        let service =
            json!({ "op": "replace", "path": "/spec/rules/0/backendRefs/0/name", "value": "green" });
        assert_eq!((patch.len(), json!(patch[2])), (4, service));
    }

    #[test]
    fn objects_of_others_are_foreign() {
        for settings in kinds() {
            let spec = spec();
            let result = written(&settings, &spec);
            let kind = |object: &Value| {
                route(&settings, spec.uid, &read(&settings, object)).map_err(|failure| failure.kind)
            };
            let mut foreign = result.clone();
            foreign["metadata"]["labels"] = json!({ "app.kubernetes.io/managed-by": "Helm" });
            let mut elsewhere = result.clone();
            let pointer = match settings.route {
                RouteKind::Ingress { .. } => "/spec/rules/0/http/paths/0/backend/service/name",
                RouteKind::HttpRoute { .. } => "/spec/rules/0/backendRefs/0/name",
            };
            *elsewhere.pointer_mut(pointer).expect("a service") = json!("x");
            for object in [foreign, elsewhere] {
                assert_eq!(kind(&object), Err(ErrorKind::Foreign));
            }
            let mut going = result;
            going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            assert_eq!(kind(&going), Ok(None));
        }
    }
}
