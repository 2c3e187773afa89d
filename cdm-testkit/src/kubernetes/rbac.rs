//! Who asks, and whether a Role allows it.

use std::fmt;

use serde_json::Value;

use super::kinds::Kind;
use super::object::Object;

/// Somebody who may ask the server something.
#[derive(Clone)]
pub struct User {
    name: String,
    token: String,
    /// `None`: everything.
    rules: Option<Vec<Rule>>,
}

/// One rule of a Role.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    /// Where the Role lives; empty for a ClusterRole.
    namespace: String,
    groups: Vec<String>,
    resources: Vec<String>,
    verbs: Vec<String>,
    names: Vec<String>,
}

/// What somebody wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish<'a> {
    pub(super) verb: &'a str,
    pub(super) group: &'a str,
    /// With its sub-resource, such as `pods/log`.
    pub(super) resource: &'a str,
    pub(super) namespace: &'a str,
    /// Empty where none is named.
    pub(super) name: &'a str,
}

impl User {
    /// A user of that name who may do everything, known by a bearer token.
    pub fn administrator(name: &str, token: &str) -> Self {
        Self { name: name.to_owned(), token: token.to_owned(), rules: None }
    }

    /// A user who may do what the Roles and ClusterRoles say that stand in `documents`, in YAML or JSON; what else stands
    /// there is passed over. Every Role is taken to be bound to this user in its own namespace, or in `namespace` where
    /// it names none, and every ClusterRole in all of them.
    ///
    /// # Errors
    /// What is wrong with the documents; one without any rule is wrong.
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
                rules.extend(object.list("/rules").iter().map(|rule| Rule::read(rule, namespace)));
            }
        }
        if rules.is_empty() {
            return Err("no Role with a rule".to_owned());
        }
        Ok(Self { name: name.to_owned(), token: token.to_owned(), rules: Some(rules) })
    }

    /// The same user without the rule of that number, counted from 0 in the order of the documents.
    #[must_use]
    pub fn without_rule(mut self, number: usize) -> Self {
        if let Some(rules) = self.rules.as_mut().filter(|rules| number < rules.len()) {
            rules.remove(number);
        }
        self
    }

    /// How many rules this user has; an administrator has none.
    pub fn rules(&self) -> usize {
        self.rules.as_ref().map_or(0, Vec::len)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    pub(super) fn may(&self, wish: &Wish<'_>) -> bool {
        self.rules.as_ref().is_none_or(|rules| rules.iter().any(|rule| rule.allows(wish)))
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Rule {
    fn read(rule: &Value, namespace: &str) -> Self {
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

    fn allows(&self, wish: &Wish<'_>) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|one| one == "*" || one == wanted);
        (self.namespace.is_empty() || self.namespace == wish.namespace)
            && has(&self.groups, wish.group)
            && has(&self.resources, wish.resource)
            && has(&self.verbs, wish.verb)
            && (self.names.is_empty() || self.names.iter().any(|name| name == wish.name))
    }
}

/// The words of a refusal.
pub(super) fn denied(user: &str, wish: &Wish<'_>, kind: &Kind) -> String {
    let place = if wish.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {:?}", wish.namespace)
    };
    format!(
        "User {user:?} cannot {} resource {:?} in API group {:?} {place}",
        wish.verb, wish.resource, kind.group
    )
}
