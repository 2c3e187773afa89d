//! The kinds that the server supports, as its discovery endpoints list them.

use serde_json::{Value, json};

/// A kind of object.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) kind: &'static str,
    /// Plural name in paths and rules, unique among the kinds here.
    pub(super) plural: &'static str,
    pub(super) short: &'static [&'static str],
    pub(super) scope: Scope,
    pub(super) status: StatusPart,
    pub(super) origin: Origin,
}

/// Whether objects of a kind belong to a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Cluster,
    Namespace,
}

/// Whether a kind has a status, and how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StatusPart {
    /// The kind has no status.
    Absent,
    /// The status is written only through the sub-resource.
    Subresource,
}

/// Origin of a definition. Custom kinds support no strategic merge patch, and no update without a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Builtin,
    Custom,
}

const fn kind(group: &'static str, version: &'static str, kind: &'static str, plural: &'static str) -> Kind {
    Kind {
        group,
        version,
        kind,
        plural,
        short: &[],
        scope: Scope::Namespace,
        status: StatusPart::Absent,
        origin: Origin::Builtin,
    }
}

const fn with_status(mut kind: Kind, short: &'static [&'static str]) -> Kind {
    kind.status = StatusPart::Subresource;
    kind.short = short;
    kind
}

/// All kinds with stored objects.
pub(super) static KINDS: &[Kind] = &[
    Kind { short: &["cm"], ..kind("", "v1", "ConfigMap", "configmaps") },
    Kind { short: &["ev"], ..kind("", "v1", "Event", "events") },
    Kind { scope: Scope::Cluster, ..with_status(kind("", "v1", "Namespace", "namespaces"), &["ns"]) },
    with_status(kind("", "v1", "Pod", "pods"), &["po"]),
    kind("", "v1", "Secret", "secrets"),
    with_status(kind("", "v1", "Service", "services"), &["svc"]),
    with_status(kind("apps", "v1", "Deployment", "deployments"), &["deploy"]),
    with_status(kind("apps", "v1", "ReplicaSet", "replicasets"), &["rs"]),
    with_status(kind("batch", "v1", "Job", "jobs"), &[]),
    with_status(kind("networking.k8s.io", "v1", "Ingress", "ingresses"), &["ing"]),
    Kind {
        origin: Origin::Custom,
        ..with_status(kind("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"), &[])
    },
];

/// The one kind that is evaluated and not stored.
pub(super) static ACCESS_REVIEW: Kind = Kind {
    scope: Scope::Cluster,
    ..kind("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews")
};

const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

impl Kind {
    /// Returns the kind at this group, version and plural name.
    pub(super) fn at(group: &str, version: &str, plural: &str) -> Option<&'static Self> {
        let all = KINDS.iter().chain(std::iter::once(&ACCESS_REVIEW));
        all.into_iter().find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
    }

    /// Returns the stored kind with this plural name in any group.
    pub(super) fn of(plural: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.plural == plural)
    }

    /// Returns the stored kind that an object declares.
    pub(super) fn named(api_version: &str, name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.kind == name && kind.api_version() == api_version)
    }

    pub(super) fn api_version(&self) -> String {
        join(self.group, self.version)
    }

    /// Returns the kind as messages name it, such as `Deployment.apps`.
    pub(super) fn qualified_kind(&self) -> String {
        if self.group.is_empty() { self.kind.to_owned() } else { format!("{}.{}", self.kind, self.group) }
    }

    /// Returns the resource as messages name it, such as `deployments.apps`.
    pub(super) fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    fn resources(&self) -> Vec<Value> {
        let namespaced = self.scope == Scope::Namespace;
        let entry = |name: String, kind: &str, verbs: &[&str]| json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": verbs});
        if self.plural == ACCESS_REVIEW.plural {
            return vec![entry(self.plural.to_owned(), self.kind, &["create"])];
        }
        let mut main = entry(self.plural.to_owned(), self.kind, VERBS);
        main["singularName"] = json!(self.kind.to_lowercase());
        if !self.short.is_empty() {
            main["shortNames"] = json!(self.short);
        }
        let mut all = vec![main];
        if self.status == StatusPart::Subresource {
            all.push(entry(format!("{}/status", self.plural), self.kind, &["get", "patch", "update"]));
        }
        if self.plural == "pods" {
            all.push(entry("pods/log".to_owned(), self.kind, &["get"]));
        }
        all
    }
}

fn join(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Returns the response to a discovery request; `None` if the path is not a discovery path.
pub(super) fn discovery(path: &[&str]) -> Option<Value> {
    match path {
        ["version"] => Some(json!({
            "major": "1", "minor": "33", "gitVersion": "v1.33.0", "gitCommit": "", "gitTreeState": "clean",
            "buildDate": "2025-04-23T00:00:00Z", "goVersion": "", "compiler": "", "platform": "linux/amd64",
        })),
        ["api"] => Some(json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1"}],
        })),
        ["apis"] => {
            let groups: Vec<Value> =
                groups().into_iter().map(|(group, version)| entry(group, version)).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["apis", group] => {
            let (group, version) = groups().into_iter().find(|(known, _)| known == group)?;
            let mut document = entry(group, version);
            document["kind"] = json!("APIGroup");
            document["apiVersion"] = json!("v1");
            Some(document)
        }
        ["api", version] => resources("", version),
        ["apis", group, version] => resources(group, version),
        _ => None,
    }
}

fn groups() -> Vec<(&'static str, &'static str)> {
    let mut all: Vec<_> = KINDS.iter().map(|kind| (kind.group, kind.version)).collect();
    all.push((ACCESS_REVIEW.group, ACCESS_REVIEW.version));
    all.retain(|(group, _)| !group.is_empty());
    all.dedup();
    all
}

fn entry(group: &str, version: &str) -> Value {
    let version = json!({"groupVersion": join(group, version), "version": version});
    json!({"name": group, "versions": [version], "preferredVersion": version})
}

fn resources(group: &str, version: &str) -> Option<Value> {
    let all = KINDS.iter().chain(std::iter::once(&ACCESS_REVIEW));
    let resources: Vec<Value> =
        all.filter(|kind| kind.group == group && kind.version == version).flat_map(Kind::resources).collect();
    (!resources.is_empty()).then(|| {
        json!({
            "kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": join(group, version), "resources": resources,
        })
    })
}
