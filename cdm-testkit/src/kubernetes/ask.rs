//! A request in the terms of the API: verb, kind, names, options.

use std::collections::BTreeMap;

use hyper::Method;
use hyper::body::Bytes;
use serde_json::Value;

use super::kinds::{ACCESS_REVIEW, Kind, Scope};
use super::object::Object;
use super::protobuf;
use super::rbac::Wish;
use super::refusal::Refusal;
use super::writes::Run;

/// What someone asks.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) verb: &'static str,
    pub(super) kind: &'static Kind,
    /// Empty for all of them, or for a kind that has none.
    pub(super) namespace: String,
    /// Empty for none.
    pub(super) name: String,
    /// `status`, `log`, or empty.
    pub(super) part: String,
    pub(super) query: BTreeMap<String, String>,
    pub(super) content_type: String,
    pub(super) agent: String,
    pub(super) body: Bytes,
}

impl Ask {
    /// What a path and a method mean; `Ok(None)` where the path names no resource.
    pub(super) fn read(method: &Method, path: &[&str], query: &str) -> Result<Option<Self>, Refusal> {
        let (group, version, rest) = match path {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Ok(None),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() && rest[0] != "status" => {
                (*namespace, rest)
            }
            _ => ("", rest),
        };
        let (plural, name, part) = match rest {
            [plural] => (*plural, "", ""),
            [plural, name] => (*plural, *name, ""),
            [plural, name, part] => (*plural, *name, *part),
            _ => return Ok(None),
        };
        let Some(kind) = Kind::at(group, version, plural) else { return Ok(None) };
        let known = matches!((part, kind.plural), ("", _) | ("status", _) | ("log", "pods"));
        let placed = namespace.is_empty() || kind.scope == Scope::Namespace;
        if !known || !placed {
            return Ok(None);
        }
        let query: BTreeMap<String, String> = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decoded(key), decoded(value))
            })
            .collect();
        let watch = query.get("watch").is_some_and(|watch| watch == "true" || watch == "1");
        let verb = match (method.as_str(), name.is_empty()) {
            ("GET", true) if watch => "watch",
            ("GET", true) => "list",
            ("GET", false) => "get",
            ("POST", true) => "create",
            ("PUT", false) => "update",
            ("PATCH", false) => "patch",
            ("DELETE", false) => "delete",
            ("DELETE", true) => "deletecollection",
            _ => return Err(Refusal::method()),
        };
        if kind.plural == ACCESS_REVIEW.plural && verb != "create" {
            return Err(Refusal::method());
        }
        let mut name = decoded(name);
        if name.is_empty() && verb != "create" {
            // A list of one is asked under that one's name, so that a Role may allow it.
            let fields = query.get("fieldSelector").map(String::as_str).unwrap_or_default();
            name = fields
                .strip_prefix("metadata.name=")
                .filter(|name| !name.contains(','))
                .unwrap_or_default()
                .to_owned();
        }
        Ok(Some(Self {
            verb,
            kind,
            namespace: decoded(namespace),
            name,
            part: part.to_owned(),
            query,
            content_type: String::new(),
            agent: String::new(),
            body: Bytes::new(),
        }))
    }

    /// The resource as Roles name it.
    pub(super) fn resource(&self) -> String {
        if self.part.is_empty() {
            self.kind.plural.to_owned()
        } else {
            format!("{}/{}", self.kind.plural, self.part)
        }
    }

    pub(super) fn wish<'a>(&'a self, resource: &'a str) -> Wish<'a> {
        // A namespace is judged as if it lay in itself.
        let namespace = if self.kind.plural == "namespaces" { &self.name } else { &self.namespace };
        Wish { verb: self.verb, group: self.kind.group, resource, namespace, name: &self.name }
    }

    pub(super) fn option(&self, name: &str) -> &str {
        self.query.get(name).map(String::as_str).unwrap_or_default()
    }

    pub(super) fn run(&self) -> Result<Run, Refusal> {
        match self.option("dryRun") {
            "" => Ok(Run::Real),
            "All" => Ok(Run::Dry),
            other => Err(Refusal::new(
                422,
                "Invalid",
                format!("dryRun: Unsupported value: {other:?}: supported values: \"All\""),
            )),
        }
    }

    /// The body as an object, from JSON or YAML; null where there is none.
    pub(super) fn object(&self) -> Result<Value, Refusal> {
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        if self.content_type.contains("protobuf") {
            let review = protobuf::access_review(&self.body);
            return review.ok_or_else(|| Refusal::media_type("application/json, application/yaml"));
        }
        let yaml = self.content_type.contains("yaml");
        let parsed = match std::str::from_utf8(&self.body) {
            Ok(text) if yaml => serde_norway::from_str(text).map_err(|error| error.to_string()),
            Ok(text) => serde_json::from_str(text).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        parsed.map_err(|error| {
            Refusal::bad_request(format!(
                "the object provided is unrecognized (must be of type {}): {error}",
                self.kind.kind
            ))
        })
    }

    /// The name of what is to be created, as far as the body tells.
    pub(super) fn created(&self) -> String {
        self.object().map(|object| object.text("/metadata/name").to_owned()).unwrap_or_default()
    }

    /// Who writes, as owners of fields are named.
    pub(super) fn manager(&self) -> &str {
        match self.option("fieldManager") {
            "" => self.agent.split('/').next().unwrap_or_default(),
            named => named,
        }
    }

    /// The delete options of the body.
    pub(super) fn delete_options(&self) -> Result<super::writes::DeleteOptions, Refusal> {
        let body = self.object()?;
        if !["", "DeleteOptions"].contains(&body.text("/kind")) {
            return Err(Refusal::bad_request("the body is no DeleteOptions"));
        }
        super::writes::DeleteOptions::read(
            &body,
            self.option("propagationPolicy"),
            self.option("gracePeriodSeconds"),
        )
    }
}

/// A part of a URL with its escapes undone.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match (byte, digits.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'+', _) => bytes.push(b' '),
            (b'%', Some(escaped)) => {
                bytes.push(escaped);
                rest = &rest[2..];
            }
            _ => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
