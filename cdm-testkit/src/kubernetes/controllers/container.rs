//! The start of a container by a kubelet: variables, files and arguments are resolved from the current objects.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::collections::BTreeMap;

use serde_json::Value;

use super::super::containers::Container;
use super::super::object::Object;
use super::super::store::{Key, Store};

/// Why a container cannot be started.
#[derive(Debug)]
pub(super) enum StartError {
    /// The source of a volume is missing: the container stays in `ContainerCreating`.
    MissingVolume,
    /// The source of a variable is missing.
    MissingVariable(String),
}

/// Resolves a container of a pod from its spec.
pub(super) fn resolve(store: &Store, pod: &Value, spec: &Value) -> Result<Container, StartError> {
    let texts = |pointer: &str| -> BTreeMap<String, String> {
        let entries = pod.entries(pointer);
        entries.map(|(key, value)| (key.to_owned(), value.as_str().unwrap_or_default().to_owned())).collect()
    };
    let env = environment(store, pod, spec)?;
    let argv = spec.list("/command").iter().chain(spec.list("/args")).filter_map(Value::as_str);
    let argv = argv.map(|argument| expanded(argument, &env)).collect();
    Ok(Container {
        name: spec.text("/name").to_owned(),
        pod: pod.text("/metadata/name").to_owned(),
        image: spec.text("/image").to_owned(),
        argv,
        files: files(store, pod, spec, &env)?,
        annotations: texts("/metadata/annotations"),
        labels: texts("/metadata/labels"),
        env,
    })
}

fn environment(store: &Store, pod: &Value, spec: &Value) -> Result<BTreeMap<String, String>, StartError> {
    let mut env = BTreeMap::new();
    for source in spec.list("/envFrom") {
        for (part, resource) in [("configMapRef", "configmaps"), ("secretRef", "secrets")] {
            let Some(reference) = source.get(part) else { continue };
            let name = reference.text("/name");
            match data(store, resource, pod, name) {
                Some(data) => env.extend(
                    data.into_iter().map(|(key, value)| (format!("{}{key}", source.text("/prefix")), value)),
                ),
                None if reference.is("/optional") => {}
                None => {
                    return Err(StartError::MissingVariable(format!(
                        "{} {name:?} not found",
                        resource.trim_end_matches('s')
                    )));
                }
            }
        }
    }
    for variable in spec.list("/env") {
        let value = match variable.get("valueFrom").filter(|from| !from.is_null()) {
            Some(from) => referred(store, pod, from)?,
            // A variable may refer only to earlier variables.
            None => Some(expanded(variable.text("/value"), &env)),
        };
        if let Some(value) = value {
            env.insert(variable.text("/name").to_owned(), value);
        }
    }
    Ok(env)
}

fn referred(store: &Store, pod: &Value, from: &Value) -> Result<Option<String>, StartError> {
    for (part, resource) in [("configMapKeyRef", "configmaps"), ("secretKeyRef", "secrets")] {
        let Some(reference) = from.get(part) else { continue };
        let (name, key) = (reference.text("/name"), reference.text("/key"));
        let found = data(store, resource, pod, name).and_then(|mut data| data.remove(key));
        if found.is_none() && !reference.is("/optional") {
            let resource = resource.trim_end_matches('s');
            return Err(StartError::MissingVariable(format!(
                "couldn't find key {key} in {resource} {name:?}"
            )));
        }
        return Ok(found);
    }
    Ok(Some(downward(pod, from.text("/fieldRef/fieldPath"))))
}

/// Returns a field of the pod, as `fieldRef` names it.
fn downward(pod: &Value, path: &str) -> String {
    if let Some((map, rest)) = path.split_once("['") {
        let key = rest.trim_end_matches("']");
        let map = pod.pointer(&format!("/{}", map.replace('.', "/")));
        return map.and_then(|map| map.get(key)).and_then(Value::as_str).unwrap_or_default().to_owned();
    }
    pod.text(&format!("/{}", path.replace('.', "/"))).to_owned()
}

fn files(
    store: &Store,
    pod: &Value,
    spec: &Value,
    env: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, StartError> {
    let mut files = BTreeMap::new();
    for mount in spec.list("/volumeMounts") {
        let volume = pod.list("/spec/volumes").iter().find(|volume| volume["name"] == mount["name"]);
        let contents = volume.map(|volume| volume_files(store, pod, volume)).transpose()?.unwrap_or_default();
        let path = mount.text("/mountPath").trim_end_matches('/');
        let below = match mount.text("/subPathExpr") {
            "" => mount.text("/subPath").to_owned(),
            expression => expanded(expression, env),
        };
        for (name, content) in contents {
            if below.is_empty() {
                files.insert(format!("{path}/{name}"), content);
            } else if name == below {
                files.insert(path.to_owned(), content);
            } else if let Some(rest) = name.strip_prefix(&format!("{below}/")) {
                files.insert(format!("{path}/{rest}"), content);
            }
        }
    }
    Ok(files)
}

fn volume_files(store: &Store, pod: &Value, volume: &Value) -> Result<BTreeMap<String, String>, StartError> {
    if let Some(secret) = volume.get("secret") {
        return source_files(store, pod, "secrets", secret.text("/secretName"), secret);
    }
    if let Some(map) = volume.get("configMap") {
        return source_files(store, pod, "configmaps", map.text("/name"), map);
    }
    let mut files = downward_files(pod, volume.get("downwardAPI"));
    for source in volume.list("/projected/sources") {
        for (part, resource) in [("secret", "secrets"), ("configMap", "configmaps")] {
            if let Some(source) = source.get(part) {
                files.extend(source_files(store, pod, resource, source.text("/name"), source)?);
            }
        }
        files.extend(downward_files(pod, source.get("downwardAPI")));
    }
    Ok(files)
}

fn downward_files(pod: &Value, source: Option<&Value>) -> BTreeMap<String, String> {
    let items = source.map(|source| source.list("/items")).unwrap_or_default();
    items
        .iter()
        .map(|item| (item.text("/path").to_owned(), downward(pod, item.text("/fieldRef/fieldPath"))))
        .collect()
}

fn source_files(
    store: &Store,
    pod: &Value,
    resource: &'static str,
    name: &str,
    source: &Value,
) -> Result<BTreeMap<String, String>, StartError> {
    let Some(data) = data(store, resource, pod, name) else {
        return if source.is("/optional") { Ok(BTreeMap::new()) } else { Err(StartError::MissingVolume) };
    };
    let items = source.list("/items");
    if items.is_empty() {
        return Ok(data);
    }
    let mut files = BTreeMap::new();
    for item in items {
        match data.get(item.text("/key")) {
            Some(content) => drop(files.insert(item.text("/path").to_owned(), content.clone())),
            None if source.is("/optional") => {}
            None => return Err(StartError::MissingVolume),
        }
    }
    Ok(files)
}

/// Returns the entries of a ConfigMap or a Secret in the pod's namespace.
fn data(store: &Store, resource: &'static str, pod: &Value, name: &str) -> Option<BTreeMap<String, String>> {
    let key: Key = (resource, pod.text("/metadata/namespace").to_owned(), name.to_owned());
    let object = store.get(&key)?;
    let plain = |value: &Value| {
        let text = value.as_str().unwrap_or_default();
        if resource == "secrets" {
            String::from_utf8_lossy(&BASE64.decode(text).unwrap_or_default()).into_owned()
        } else {
            text.to_owned()
        }
    };
    Some(object.entries("/data").map(|(key, value)| (key.to_owned(), plain(value))).collect())
}

/// Expands `$(NAME)` if the variable is known; `$$` is a literal dollar sign.
fn expanded(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match env.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}
