//! An API request in terms of the API: verb, kind, names and options.

use std::collections::BTreeMap;

use hyper::Method;
use hyper::body::Bytes;
use serde_json::Value;

use super::kinds::{ACCESS_REVIEW, Kind, Scope};
use super::object::Object;
use super::protobuf;
use super::rbac::AccessRequest;
use super::status_error::StatusError;
use super::writes::Run;

/// A parsed API request.
#[derive(Debug)]
pub(super) struct ApiRequest {
    pub(super) verb: &'static str,
    pub(super) kind: &'static Kind,
    /// Empty for all namespaces, or for a cluster-scoped kind.
    pub(super) namespace: String,
    /// Empty if the request names no object.
    pub(super) name: String,
    /// The sub-resource: `status`, `log`, or empty.
    pub(super) part: String,
    pub(super) query: BTreeMap<String, String>,
    pub(super) content_type: String,
    pub(super) agent: String,
    pub(super) body: Bytes,
}

impl ApiRequest {
    /// Parses a path and a method; `Ok(None)` if the path names no resource.
    pub(super) fn parse(method: &Method, path: &[&str], query: &str) -> Result<Option<Self>, StatusError> {
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
            _ => return Err(StatusError::method()),
        };
        if kind.plural == ACCESS_REVIEW.plural && verb != "create" {
            return Err(StatusError::method());
        }
        let mut name = decoded(name);
        if name.is_empty() && verb != "create" {
            // A list of a single object is authorized under the name of that object, so that a Role may allow
            // it.
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

    /// Returns the resource as Roles name it.
    pub(super) fn resource(&self) -> String {
        if self.part.is_empty() {
            self.kind.plural.to_owned()
        } else {
            format!("{}/{}", self.kind.plural, self.part)
        }
    }

    pub(super) fn access<'a>(&'a self, resource: &'a str) -> AccessRequest<'a> {
        // A namespace is authorized as an object within itself.
        let namespace = if self.kind.plural == "namespaces" { &self.name } else { &self.namespace };
        AccessRequest { verb: self.verb, group: self.kind.group, resource, namespace, name: &self.name }
    }

    pub(super) fn option(&self, name: &str) -> &str {
        self.query.get(name).map(String::as_str).unwrap_or_default()
    }

    pub(super) fn run(&self) -> Result<Run, StatusError> {
        match self.option("dryRun") {
            "" => Ok(Run::Real),
            "All" => Ok(Run::Dry),
            other => Err(StatusError::new(
                422,
                "Invalid",
                format!("dryRun: Unsupported value: {other:?}: supported values: \"All\""),
            )),
        }
    }

    /// Returns the body as an object, from JSON or YAML, or null if the body is empty.
    pub(super) fn object(&self) -> Result<Value, StatusError> {
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        if self.content_type.contains("protobuf") {
            let review = protobuf::access_review(&self.body);
            return review.ok_or_else(|| StatusError::media_type("application/json, application/yaml"));
        }
        let yaml = self.content_type.contains("yaml");
        let parsed = match std::str::from_utf8(&self.body) {
            Ok(text) if yaml => serde_norway::from_str(text).map_err(|error| error.to_string()),
            Ok(text) => serde_json::from_str(text).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        parsed.map_err(|error| {
            StatusError::bad_request(format!(
                "the object provided is unrecognized (must be of type {}): {error}",
                self.kind.kind
            ))
        })
    }

    /// Returns the name of the object to create, if the body states it.
    pub(super) fn created(&self) -> String {
        self.object().map(|object| object.text("/metadata/name").to_owned()).unwrap_or_default()
    }

    /// Returns the field manager of a write.
    pub(super) fn manager(&self) -> &str {
        match self.option("fieldManager") {
            "" => self.agent.split('/').next().unwrap_or_default(),
            named => named,
        }
    }

    /// Returns the delete options of the body.
    pub(super) fn delete_options(&self) -> Result<super::writes::DeleteOptions, StatusError> {
        let body = self.object()?;
        if !["", "DeleteOptions"].contains(&body.text("/kind")) {
            return Err(StatusError::bad_request("the body is not a DeleteOptions"));
        }
        super::writes::DeleteOptions::parse(
            &body,
            self.option("propagationPolicy"),
            self.option("gracePeriodSeconds"),
        )
    }
}

/// Decodes the percent-encoding of a part of a URL.
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
