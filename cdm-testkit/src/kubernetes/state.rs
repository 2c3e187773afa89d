//! The state of the server behind one lock, and its responses to requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdm_core::domain::Timestamp;
use serde_json::{Value, json};

use super::containers::Containers;
use super::controllers::ControllerMemory;
use super::faults::RequestLog;
use super::kinds::{ACCESS_REVIEW, Kind, Origin, Scope};
use super::managed_fields::{self, Force};
use super::object::Object;
use super::object::rfc3339;
use super::patch;
use super::rbac::{AccessRequest, User, denial_message};
use super::request::ApiRequest;
use super::selector::Selector;
use super::status_error::StatusError;
use super::store::{Key, Store};
use super::watches::{Signals, WatchStart};
use super::writes::{self, Gone, Part};

#[derive(Debug)]
pub(super) struct State {
    pub(super) store: Store,
    pub(super) now: Timestamp,
    pub(super) users: Vec<User>,
    pub(super) request_log: RequestLog,
    pub(super) signals: Signals,
    pub(super) memory: ControllerMemory,
}

/// A successful response.
#[derive(Debug)]
pub(super) enum Reply {
    Object(u16, Value),
    /// An object with a warning in a header.
    Warned(Value, &'static str),
    Text(String),
    Watch(WatchStart),
}

const WARNING: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to \
                       remove them or set propagationPolicy=Orphan to suppress this warning";
const PATCHES: &str =
    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
const APPLY: &str = "application/apply-patch+yaml";

impl State {
    pub(super) fn new(
        now: Timestamp,
        users: Vec<User>,
        namespaces: &[String],
        containers: Arc<dyn Containers>,
    ) -> Self {
        let mut store = Store::default();
        for name in namespaces {
            let mut namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            namespace.put("/metadata/uid", store.uid());
            namespace.put("/metadata/creationTimestamp", rfc3339(now));
            namespace.put("/status/phase", "Active");
            store.put(("namespaces", String::new(), name.clone()), namespace);
        }
        Self {
            store,
            now,
            users,
            request_log: RequestLog::default(),
            signals: Signals::default(),
            memory: ControllerMemory::new(containers),
        }
    }

    /// Returns the user of a token.
    pub(super) fn user(&self, token: &str) -> Option<&User> {
        self.users.iter().find(|user| user.token() == token)
    }

    /// Handles a request, if the user is authorized.
    pub(super) fn serve(&mut self, user: &User, request: &ApiRequest) -> Result<Reply, StatusError> {
        if request.kind.plural == ACCESS_REVIEW.plural {
            return review(user, &request.object()?);
        }
        let resource = request.resource();
        let access = request.access(&resource);
        if !user.is_allowed(&access) {
            return Err(StatusError::forbidden(
                request.kind,
                &request.name,
                &denial_message(user.name(), &access, request.kind),
            ));
        }
        if request.kind.scope == Scope::Namespace
            && request.namespace.is_empty()
            && !["list", "watch"].contains(&request.verb)
        {
            return Err(StatusError::method());
        }
        let key: Key = (request.kind.plural, request.namespace.clone(), request.name.clone());
        match request.verb {
            "get" if request.part == "log" => self.log(request, &key).map(Reply::Text),
            "get" => {
                let found = self
                    .store
                    .get(&key)
                    .ok_or_else(|| StatusError::not_found(request.kind, &request.name))?;
                Ok(Reply::Object(200, found.as_ref().clone()))
            }
            "list" => self.list(request),
            "watch" => WatchStart::of(request, self).map(Reply::Watch),
            "create" => {
                let object = request.object()?;
                let created = writes::create(
                    &mut self.store,
                    self.now,
                    request.kind,
                    &request.namespace,
                    object,
                    request.run()?,
                )?;
                Ok(Reply::Object(201, created.as_ref().clone()))
            }
            "update" => {
                let mut object = request.object()?;
                if let Some(before) = self.store.get(&key) {
                    managed_fields::record_update(before, &mut object, request.manager(), self.now);
                }
                let updated = writes::update(
                    &mut self.store,
                    request.kind,
                    &key,
                    part(request),
                    object,
                    request.run()?,
                )?;
                Ok(Reply::Object(200, updated.as_ref().clone()))
            }
            "patch" if request.content_type.starts_with(APPLY) => self.apply(user, request, &key),
            "patch" => self.patch(request, &key),
            "delete" => self.delete(request, &key),
            _ => self.delete_all(request),
        }
    }

    fn list(&self, request: &ApiRequest) -> Result<Reply, StatusError> {
        let selector =
            Selector::parse(request.kind, request.option("labelSelector"), request.option("fieldSelector"))?;
        let namespace = Some(request.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        let limit = request.option("limit").parse::<usize>().unwrap_or(0);
        let (version, from) = match request.option("continue") {
            "" => (self.version_of_list(request)?, None),
            token => {
                let (version, key) = parse_continue_token(token)
                    .ok_or_else(|| StatusError::bad_request("continue key is not valid"))?;
                (version, Some(key))
            }
        };
        if version < self.store.compacted() {
            let message = "The provided continue parameter is too old to display a consistent list result. You can start a \
                           new list without the continue parameter.";
            return Err(StatusError::expired(message));
        }
        let objects = self.store.at(request.kind, namespace, version);
        let chosen: Vec<(&Key, &Arc<Value>)> = objects
            .iter()
            .filter(|((_, place, name), _)| {
                from.as_ref().is_none_or(|from| (place, name) > (&from.0, &from.1))
            })
            .filter(|(_, object)| selector.matches(object))
            .collect();
        let mut metadata = json!({"resourceVersion": version.to_string()});
        let mut shown = chosen.as_slice();
        if limit > 0 && chosen.len() > limit {
            shown = &chosen[..limit];
            let (_, place, name) = chosen[limit - 1].0;
            metadata["continue"] = json!(format!("{version}/{place}/{name}"));
            metadata["remainingItemCount"] = json!(chosen.len() - limit);
        }
        let items: Vec<Value> = shown.iter().map(|(_, object)| item(request.kind, object)).collect();
        Ok(Reply::Object(
            200,
            json!({
                "kind": format!("{}List", request.kind.kind), "apiVersion": request.kind.api_version(),
                "metadata": metadata, "items": items,
            }),
        ))
    }

    /// Returns the version that a list without `continue` shows.
    fn version_of_list(&self, request: &ApiRequest) -> Result<u64, StatusError> {
        let current = self.store.version();
        let wanted = request.option("resourceVersion");
        if wanted.is_empty() || wanted == "0" {
            return Ok(current);
        }
        let wanted: u64 = wanted.parse().map_err(|_| StatusError::bad_request("invalid resource version"))?;
        if wanted > current {
            let message = format!("Too large resource version: {wanted}, current: {current}");
            return Err(StatusError::new(504, "Timeout", message));
        }
        if request.option("resourceVersionMatch") != "Exact" {
            return Ok(current);
        }
        if wanted < self.store.compacted() {
            return Err(StatusError::expired(format!(
                "The resourceVersion for the provided list is too old: {wanted}"
            )));
        }
        Ok(wanted)
    }

    fn patch(&mut self, request: &ApiRequest, key: &Key) -> Result<Reply, StatusError> {
        let body = request.object()?;
        let existing = self.store.get(key).cloned();
        let kind = request.content_type.split(';').next().unwrap_or_default().trim();
        let before = existing.ok_or_else(|| StatusError::not_found(request.kind, &request.name))?;
        let mut patched = before.as_ref().clone();
        match kind {
            "application/json-patch+json" => patched = patch::json_patch(&patched, &body)?,
            "application/merge-patch+json" => patch::merge(&mut patched, &body),
            "application/strategic-merge-patch+json" if request.kind.origin == Origin::Builtin => {
                patch::strategic(&mut patched, &body)?;
            }
            _ => return Err(StatusError::media_type(PATCHES)),
        }
        managed_fields::record_update(&before, &mut patched, request.manager(), self.now);
        let updated =
            writes::update(&mut self.store, request.kind, key, part(request), patched, request.run()?)?;
        Ok(Reply::Object(200, updated.as_ref().clone()))
    }

    /// Applies an object server-side, creating it if necessary.
    fn apply(&mut self, user: &User, request: &ApiRequest, key: &Key) -> Result<Reply, StatusError> {
        let applied = request.object()?;
        let live = self.store.get(key).cloned();
        let force = if request.option("force") == "true" { Force::Yes } else { Force::No };
        let manager = request.option("fieldManager");
        let mut object = managed_fields::apply(live.as_deref(), &applied, manager, force, self.now)?;
        object.default_to("/metadata/name", request.name.as_str());
        if live.is_some() {
            let part = part(request);
            let updated = writes::update(&mut self.store, request.kind, key, part, object, request.run()?)?;
            return Ok(Reply::Object(200, updated.as_ref().clone()));
        }
        let access = AccessRequest { verb: "create", name: "", ..request.access(request.kind.plural) };
        if !user.is_allowed(&access) {
            return Err(StatusError::forbidden(
                request.kind,
                &request.name,
                &denial_message(user.name(), &access, request.kind),
            ));
        }
        let run = request.run()?;
        let created =
            writes::create(&mut self.store, self.now, request.kind, &request.namespace, object, run)?;
        Ok(Reply::Object(201, created.as_ref().clone()))
    }

    fn delete(&mut self, request: &ApiRequest, key: &Key) -> Result<Reply, StatusError> {
        let options = request.delete_options()?;
        let (last, gone) =
            writes::delete(&mut self.store, self.now, request.kind, key, &options, request.run()?)?;
        let reply = match gone {
            Gone::Later => last.as_ref().clone(),
            Gone::Yes => json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                "details": {
                    "name": request.name, "group": request.kind.group, "kind": request.kind.plural, "uid": last.text("/metadata/uid"),
                },
            }),
        };
        if request.kind.plural == "jobs" && options.propagation.is_none() {
            return Ok(Reply::Warned(reply, WARNING));
        }
        Ok(Reply::Object(200, reply))
    }

    fn delete_all(&mut self, request: &ApiRequest) -> Result<Reply, StatusError> {
        let options = request.delete_options()?;
        let selector =
            Selector::parse(request.kind, request.option("labelSelector"), request.option("fieldSelector"))?;
        let chosen: Vec<(Key, Arc<Value>)> = self
            .store
            .of(request.kind, Some(&request.namespace))
            .filter(|(_, object)| selector.matches(object))
            .map(|(key, object)| (key.clone(), Arc::clone(object)))
            .collect();
        let run = request.run()?;
        for (key, _) in &chosen {
            writes::delete(&mut self.store, self.now, request.kind, key, &options, run)?;
        }
        let items: Vec<Value> = chosen.iter().map(|(_, object)| item(request.kind, object)).collect();
        Ok(Reply::Object(
            200,
            json!({
                "kind": format!("{}List", request.kind.kind), "apiVersion": request.kind.api_version(),
                "metadata": {"resourceVersion": self.store.version().to_string()}, "items": items,
            }),
        ))
    }

    fn log(&self, request: &ApiRequest, key: &Key) -> Result<String, StatusError> {
        let pod = self.store.get(key).ok_or_else(|| StatusError::not_found(request.kind, &request.name))?;
        let all = pod.list("/spec/initContainers").iter().chain(pod.list("/spec/containers"));
        let names: Vec<&str> = all.map(|spec| spec.text("/name")).collect();
        let container = match (request.option("container"), names.as_slice()) {
            ("", [only]) => only,
            ("", _) if pod.list("/spec/containers").len() == 1 => pod.text("/spec/containers/0/name"),
            ("", _) => {
                let choice = names.join(" ");
                let message = format!(
                    "a container name must be specified for pod {}, choose one of: [{choice}]",
                    request.name
                );
                return Err(StatusError::bad_request(message));
            }
            (named, names) if names.contains(&named) => named,
            (named, _) => {
                return Err(StatusError::bad_request(format!(
                    "container {named} is not valid for pod {}",
                    request.name
                )));
            }
        };
        let Some(log) = self.memory.log(pod, container) else {
            let statuses = ["initContainerStatuses", "containerStatuses"]
                .map(|list| pod.list(&format!("/status/{list}")));
            let status = statuses.into_iter().flatten().find(|status| status["name"] == container);
            if status.is_some_and(|status| status.pointer("/state/waiting").is_none()) {
                return Ok(String::new());
            }
            let reason = status.map(|status| status.text("/state/waiting/reason")).unwrap_or_default();
            let why = match reason {
                "ErrImagePull" | "ImagePullBackOff" => "trying and failing to pull image".to_owned(),
                other => other.to_owned(),
            };
            let message =
                format!("container {container:?} in pod {:?} is waiting to start: {why}", request.name);
            return Err(StatusError::bad_request(message));
        };
        let lines: Vec<&str> = log.split_inclusive('\n').collect();
        let tail = request.option("tailLines").parse().unwrap_or(usize::MAX);
        let shown = lines[lines.len().saturating_sub(tail)..].concat();
        let limit = request.option("limitBytes").parse().unwrap_or(usize::MAX).min(shown.len());
        let end = (0..=limit).rev().find(|at| shown.is_char_boundary(*at)).unwrap_or(0);
        Ok(shown[..end].to_owned())
    }

    /// Returns the number of objects of each kind.
    pub(super) fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for (plural, _, _) in self.store.keys() {
            *counts.entry(*plural).or_insert(0) += 1;
        }
        counts
    }
}

fn part(request: &ApiRequest) -> Part {
    if request.part == "status" { Part::Status } else { Part::Main }
}

/// Returns an object as lists show it: items of built-in kinds omit `kind` and `apiVersion`.
fn item(kind: &Kind, object: &Value) -> Value {
    let mut item = object.clone();
    if let (Origin::Builtin, Some(map)) = (kind.origin, item.as_object_mut()) {
        map.remove("kind");
        map.remove("apiVersion");
    }
    item
}

fn parse_continue_token(token: &str) -> Option<(u64, (String, String))> {
    let mut parts = token.splitn(3, '/');
    let version = parts.next()?.parse().ok()?;
    Some((version, (parts.next()?.to_owned(), parts.next()?.to_owned())))
}

/// Returns whether the user may do what a review asks.
fn review(user: &User, object: &Value) -> Result<Reply, StatusError> {
    let attributes = &object["spec"]["resourceAttributes"];
    let resource = match attributes.text("/subresource") {
        "" => attributes.text("/resource").to_owned(),
        part => format!("{}/{part}", attributes.text("/resource")),
    };
    let access = AccessRequest {
        verb: attributes.text("/verb"),
        group: attributes.text("/group"),
        resource: &resource,
        namespace: attributes.text("/namespace"),
        name: attributes.text("/name"),
    };
    let mut reply = object.clone();
    reply.put("/status", json!({"allowed": user.is_allowed(&access)}));
    Ok(Reply::Object(201, reply))
}
