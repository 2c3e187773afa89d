//! All that the server knows, behind one lock, and what it answers from that.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdm_core::domain::Timestamp;
use serde_json::{Value, json};

use super::ask::Ask;
use super::containers::Containers;
use super::controllers::Memory;
use super::faults::Ledger;
use super::kinds::{ACCESS_REVIEW, Kind, Origin, Scope};
use super::object::Object;
use super::owners::{self, Force};
use super::patch;
use super::rbac::{User, Wish, denied};
use super::refusal::Refusal;
use super::selector::Selector;
use super::store::{Key, Store};
use super::time::written;
use super::watching::{Signals, Start};
use super::writes::{self, Gone, Part};

/// The server's state.
#[derive(Debug)]
pub(super) struct State {
    pub(super) store: Store,
    pub(super) now: Timestamp,
    pub(super) users: Vec<User>,
    pub(super) ledger: Ledger,
    pub(super) signals: Signals,
    pub(super) memory: Memory,
}

/// What is answered.
#[derive(Debug)]
pub(super) enum Answer {
    Object(u16, Value),
    /// With a warning in a header.
    Warned(Value, &'static str),
    Text(String),
    Watch(Start),
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
            namespace.put("/metadata/creationTimestamp", written(now));
            namespace.put("/status/phase", "Active");
            store.put(("namespaces", String::new(), name.clone()), namespace);
        }
        Self {
            store,
            now,
            users,
            ledger: Ledger::default(),
            signals: Signals::default(),
            memory: Memory::new(containers),
        }
    }

    /// The user of a token.
    pub(super) fn user(&self, token: &str) -> Option<&User> {
        self.users.iter().find(|user| user.token() == token)
    }

    /// Does what is asked, if the user may.
    pub(super) fn serve(&mut self, user: &User, ask: &Ask) -> Result<Answer, Refusal> {
        if ask.kind.plural == ACCESS_REVIEW.plural {
            return review(user, &ask.object()?);
        }
        let resource = ask.resource();
        let wish = ask.wish(&resource);
        if !user.may(&wish) {
            return Err(Refusal::forbidden(ask.kind, &ask.name, &denied(user.name(), &wish, ask.kind)));
        }
        if ask.kind.scope == Scope::Namespace
            && ask.namespace.is_empty()
            && !["list", "watch"].contains(&ask.verb)
        {
            return Err(Refusal::method());
        }
        let key: Key = (ask.kind.plural, ask.namespace.clone(), ask.name.clone());
        match ask.verb {
            "get" if ask.part == "log" => self.log(ask, &key).map(Answer::Text),
            "get" => {
                let found = self.store.get(&key).ok_or_else(|| Refusal::not_found(ask.kind, &ask.name))?;
                Ok(Answer::Object(200, found.as_ref().clone()))
            }
            "list" => self.list(ask),
            "watch" => Start::of(ask, self).map(Answer::Watch),
            "create" => {
                let object = ask.object()?;
                let created =
                    writes::create(&mut self.store, self.now, ask.kind, &ask.namespace, object, ask.run()?)?;
                Ok(Answer::Object(201, created.as_ref().clone()))
            }
            "update" => {
                let mut object = ask.object()?;
                if let Some(before) = self.store.get(&key) {
                    owners::note(before, &mut object, ask.manager(), self.now);
                }
                let updated = writes::update(&mut self.store, ask.kind, &key, part(ask), object, ask.run()?)?;
                Ok(Answer::Object(200, updated.as_ref().clone()))
            }
            "patch" if ask.content_type.starts_with(APPLY) => self.apply(user, ask, &key),
            "patch" => self.patch(ask, &key),
            "delete" => self.delete(ask, &key),
            _ => self.delete_all(ask),
        }
    }

    fn list(&self, ask: &Ask) -> Result<Answer, Refusal> {
        let selector = Selector::parse(ask.kind, ask.option("labelSelector"), ask.option("fieldSelector"))?;
        let namespace = Some(ask.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        let limit = ask.option("limit").parse::<usize>().unwrap_or(0);
        let (version, from) = match ask.option("continue") {
            "" => (self.version_of_list(ask)?, None),
            token => {
                let (version, key) =
                    token_read(token).ok_or_else(|| Refusal::bad_request("continue key is not valid"))?;
                (version, Some(key))
            }
        };
        if version < self.store.compacted() {
            let message = "The provided continue parameter is too old to display a consistent list result. You can start a \
                           new list without the continue parameter.";
            return Err(Refusal::expired(message));
        }
        let objects = self.store.at(ask.kind, namespace, version);
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
        let items: Vec<Value> = shown.iter().map(|(_, object)| item(ask.kind, object)).collect();
        Ok(Answer::Object(
            200,
            json!({
                "kind": format!("{}List", ask.kind.kind), "apiVersion": ask.kind.api_version(),
                "metadata": metadata, "items": items,
            }),
        ))
    }

    /// The version that a list without `continue` shows.
    fn version_of_list(&self, ask: &Ask) -> Result<u64, Refusal> {
        let current = self.store.version();
        let wanted = ask.option("resourceVersion");
        if wanted.is_empty() || wanted == "0" {
            return Ok(current);
        }
        let wanted: u64 = wanted.parse().map_err(|_| Refusal::bad_request("invalid resource version"))?;
        if wanted > current {
            let message = format!("Too large resource version: {wanted}, current: {current}");
            return Err(Refusal::new(504, "Timeout", message));
        }
        if ask.option("resourceVersionMatch") != "Exact" {
            return Ok(current);
        }
        if wanted < self.store.compacted() {
            return Err(Refusal::expired(format!(
                "The resourceVersion for the provided list is too old: {wanted}"
            )));
        }
        Ok(wanted)
    }

    fn patch(&mut self, ask: &Ask, key: &Key) -> Result<Answer, Refusal> {
        let body = ask.object()?;
        let there = self.store.get(key).cloned();
        let kind = ask.content_type.split(';').next().unwrap_or_default().trim();
        let before = there.ok_or_else(|| Refusal::not_found(ask.kind, &ask.name))?;
        let mut patched = before.as_ref().clone();
        match kind {
            "application/json-patch+json" => patched = patch::json_patch(&patched, &body)?,
            "application/merge-patch+json" => patch::merge(&mut patched, &body),
            "application/strategic-merge-patch+json" if ask.kind.origin == Origin::Builtin => {
                patch::strategic(&mut patched, &body)?;
            }
            _ => return Err(Refusal::media_type(PATCHES)),
        }
        owners::note(&before, &mut patched, ask.manager(), self.now);
        let updated = writes::update(&mut self.store, ask.kind, key, part(ask), patched, ask.run()?)?;
        Ok(Answer::Object(200, updated.as_ref().clone()))
    }

    /// Creates an object, or brings it to what somebody applies.
    fn apply(&mut self, user: &User, ask: &Ask, key: &Key) -> Result<Answer, Refusal> {
        let applied = ask.object()?;
        let live = self.store.get(key).cloned();
        let force = if ask.option("force") == "true" { Force::Yes } else { Force::No };
        let manager = ask.option("fieldManager");
        let mut object = owners::apply(live.as_deref(), &applied, manager, force, self.now)?;
        object.default_to("/metadata/name", ask.name.as_str());
        if live.is_some() {
            let part = part(ask);
            let updated = writes::update(&mut self.store, ask.kind, key, part, object, ask.run()?)?;
            return Ok(Answer::Object(200, updated.as_ref().clone()));
        }
        let wish = Wish { verb: "create", name: "", ..ask.wish(ask.kind.plural) };
        if !user.may(&wish) {
            return Err(Refusal::forbidden(ask.kind, &ask.name, &denied(user.name(), &wish, ask.kind)));
        }
        let run = ask.run()?;
        let created = writes::create(&mut self.store, self.now, ask.kind, &ask.namespace, object, run)?;
        Ok(Answer::Object(201, created.as_ref().clone()))
    }

    fn delete(&mut self, ask: &Ask, key: &Key) -> Result<Answer, Refusal> {
        let options = ask.delete_options()?;
        let (last, gone) = writes::delete(&mut self.store, self.now, ask.kind, key, &options, ask.run()?)?;
        let answer = match gone {
            Gone::Later => last.as_ref().clone(),
            Gone::Yes => json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                "details": {
                    "name": ask.name, "group": ask.kind.group, "kind": ask.kind.plural, "uid": last.text("/metadata/uid"),
                },
            }),
        };
        if ask.kind.plural == "jobs" && options.propagation.is_none() {
            return Ok(Answer::Warned(answer, WARNING));
        }
        Ok(Answer::Object(200, answer))
    }

    fn delete_all(&mut self, ask: &Ask) -> Result<Answer, Refusal> {
        let options = ask.delete_options()?;
        let selector = Selector::parse(ask.kind, ask.option("labelSelector"), ask.option("fieldSelector"))?;
        let chosen: Vec<(Key, Arc<Value>)> = self
            .store
            .of(ask.kind, Some(&ask.namespace))
            .filter(|(_, object)| selector.matches(object))
            .map(|(key, object)| (key.clone(), Arc::clone(object)))
            .collect();
        let run = ask.run()?;
        for (key, _) in &chosen {
            writes::delete(&mut self.store, self.now, ask.kind, key, &options, run)?;
        }
        let items: Vec<Value> = chosen.iter().map(|(_, object)| item(ask.kind, object)).collect();
        Ok(Answer::Object(
            200,
            json!({
                "kind": format!("{}List", ask.kind.kind), "apiVersion": ask.kind.api_version(),
                "metadata": {"resourceVersion": self.store.version().to_string()}, "items": items,
            }),
        ))
    }

    fn log(&self, ask: &Ask, key: &Key) -> Result<String, Refusal> {
        let pod = self.store.get(key).ok_or_else(|| Refusal::not_found(ask.kind, &ask.name))?;
        let all = pod.list("/spec/initContainers").iter().chain(pod.list("/spec/containers"));
        let names: Vec<&str> = all.map(|spec| spec.text("/name")).collect();
        let container = match (ask.option("container"), names.as_slice()) {
            ("", [only]) => only,
            ("", _) if pod.list("/spec/containers").len() == 1 => pod.text("/spec/containers/0/name"),
            ("", _) => {
                let choice = names.join(" ");
                let message = format!(
                    "a container name must be specified for pod {}, choose one of: [{choice}]",
                    ask.name
                );
                return Err(Refusal::bad_request(message));
            }
            (named, names) if names.contains(&named) => named,
            (named, _) => {
                return Err(Refusal::bad_request(format!(
                    "container {named} is not valid for pod {}",
                    ask.name
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
            let message = format!("container {container:?} in pod {:?} is waiting to start: {why}", ask.name);
            return Err(Refusal::bad_request(message));
        };
        let lines: Vec<&str> = log.split_inclusive('\n').collect();
        let tail = ask.option("tailLines").parse().unwrap_or(usize::MAX);
        let shown = lines[lines.len().saturating_sub(tail)..].concat();
        let limit = ask.option("limitBytes").parse().unwrap_or(usize::MAX).min(shown.len());
        let end = (0..=limit).rev().find(|at| shown.is_char_boundary(*at)).unwrap_or(0);
        Ok(shown[..end].to_owned())
    }

    /// How many objects there are of each kind.
    pub(super) fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for (plural, _, _) in self.store.keys() {
            *counts.entry(*plural).or_insert(0) += 1;
        }
        counts
    }
}

fn part(ask: &Ask) -> Part {
    if ask.part == "status" { Part::Status } else { Part::Main }
}

/// An object as lists show it: those of the built-in kinds do not say what they are.
fn item(kind: &Kind, object: &Value) -> Value {
    let mut item = object.clone();
    if let (Origin::Builtin, Some(map)) = (kind.origin, item.as_object_mut()) {
        map.remove("kind");
        map.remove("apiVersion");
    }
    item
}

fn token_read(token: &str) -> Option<(u64, (String, String))> {
    let mut parts = token.splitn(3, '/');
    let version = parts.next()?.parse().ok()?;
    Some((version, (parts.next()?.to_owned(), parts.next()?.to_owned())))
}

/// Whether the user may do what a review asks.
fn review(user: &User, object: &Value) -> Result<Answer, Refusal> {
    let asked = &object["spec"]["resourceAttributes"];
    let resource = match asked.text("/subresource") {
        "" => asked.text("/resource").to_owned(),
        part => format!("{}/{part}", asked.text("/resource")),
    };
    let wish = Wish {
        verb: asked.text("/verb"),
        group: asked.text("/group"),
        resource: &resource,
        namespace: asked.text("/namespace"),
        name: asked.text("/name"),
    };
    let mut answer = object.clone();
    answer.put("/status", json!({"allowed": user.may(&wish)}));
    Ok(Answer::Object(201, answer))
}
