//! Users, and whether a Role allows their requests.

use std::fmt;

use serde_json::Value;

use super::kinds::Kind;
use super::object::Object;

/// A user who may send requests to the server.
#[derive(Clone)]
pub struct User {
    name: String,
    token: String,
    /// `None` allows everything.
    rules: Option<Vec<Rule>>,
}

/// One rule of a Role.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    /// Namespace of the Role; empty for a ClusterRole.
    namespace: String,
    groups: Vec<String>,
    resources: Vec<String>,
    verbs: Vec<String>,
    names: Vec<String>,
}

/// The attributes of a request, for authorization.
#[derive(Clone, Copy, Debug)]
pub(super) struct AccessRequest<'a> {
    pub(super) verb: &'a str,
    pub(super) group: &'a str,
    /// Resource with its sub-resource, such as `pods/log`.
    pub(super) resource: &'a str,
    pub(super) namespace: &'a str,
    /// Empty if the request names no object.
    pub(super) name: &'a str,
}

impl User {
    /// Returns a user with a bearer token who may do everything.
    pub fn administrator(name: &str, token: &str) -> Self {
        Self { name: name.to_owned(), token: token.to_owned(), rules: None }
    }

    /// Returns a user with the Roles and ClusterRoles in `documents`, in YAML or JSON. Other documents are
    /// ignored. Each Role is bound to the user in its own namespace, or in `namespace` if it names none; each
    /// ClusterRole is bound in all namespaces.
    ///
    /// # Errors
    /// Returns an error if the documents are invalid, or contain no rule.
    pub fn with_roles(name: &str, token: &str, documents: &str, namespace: &str) -> Result<Self, String> {
        let mut rules = Vec::new();
        for document in serde_norway::Deserializer::from_str(documents) {
            let object: Value =
                serde::Deserialize::deserialize(document).map_err(|error| error.to_string())?;
            let listed = object.list("/items");
            for object in if listed.is_empty() { std::slice::from_ref(&object) } else { listed } {
                let namespace = match object.text("/kind") {
                    "Role" if object.text("/metadata/namespace").is_empty() => namespace,
                    "Role" => object.text("/metadata/namespace"),
                    "ClusterRole" => "",
                    _ => continue,
                };
                rules.extend(object.list("/rules").iter().map(|rule| Rule::parse(rule, namespace)));
            }
        }
        if rules.is_empty() {
            return Err("no Role with a rule".to_owned());
        }
        Ok(Self { name: name.to_owned(), token: token.to_owned(), rules: Some(rules) })
    }

    /// Returns the same user without one rule. Rules are numbered from 0 in the order of the documents.
    #[must_use]
    pub fn without_rule(mut self, number: usize) -> Self {
        if let Some(rules) = self.rules.as_mut().filter(|rules| number < rules.len()) {
            rules.remove(number);
        }
        self
    }

    /// Returns the number of rules; 0 for an administrator.
    pub fn rules(&self) -> usize {
        self.rules.as_ref().map_or(0, Vec::len)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    pub(super) fn is_allowed(&self, access: &AccessRequest<'_>) -> bool {
        self.rules.as_ref().is_none_or(|rules| rules.iter().any(|rule| rule.allows(access)))
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Rule {
    fn parse(rule: &Value, namespace: &str) -> Self {
        let texts = |pointer: &str| {
            rule.list(pointer).iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
        };
        Self {
            namespace: namespace.to_owned(),
            groups: texts("/apiGroups"),
            resources: texts("/resources"),
            verbs: texts("/verbs"),
            names: texts("/resourceNames"),
        }
    }

    fn allows(&self, access: &AccessRequest<'_>) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|one| one == "*" || one == wanted);
        (self.namespace.is_empty() || self.namespace == access.namespace)
            && has(&self.groups, access.group)
            && has(&self.resources, access.resource)
            && has(&self.verbs, access.verb)
            && (self.names.is_empty() || self.names.iter().any(|name| name == access.name))
    }
}

pub(super) fn denial_message(user: &str, access: &AccessRequest<'_>, kind: &Kind) -> String {
    let scope = if access.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {:?}", access.namespace)
    };
    format!(
        "User {user:?} cannot {} resource {:?} in API group {:?} {scope}",
        access.verb, access.resource, kind.group
    )
}
