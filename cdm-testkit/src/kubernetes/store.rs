//! The objects, their versions, and the history of changes for watches and earlier states.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::kinds::Kind;
use super::object::Object;

/// Maximum changes in the history.
const MAX_CHANGES: usize = 50_000;

/// Key of an object: plural name of its kind, namespace (empty for a cluster-scoped kind) and name.
pub(super) type Key = (&'static str, String, String);

/// One change of an object.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) key: Key,
    pub(super) before: Option<Arc<Value>>,
    /// `None` if the object was removed. A watch then sends `before` with the version of the change.
    pub(super) after: Option<Arc<Value>>,
}

/// All objects and their history.
#[derive(Debug, Default)]
pub(super) struct Store {
    objects: BTreeMap<Key, Arc<Value>>,
    changes: Vec<Change>,
    version: u64,
    /// Changes up to this version were discarded.
    compacted: u64,
    uids: u64,
}

impl Store {
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn compacted(&self) -> u64 {
        self.compacted
    }

    pub(super) fn uid(&mut self) -> String {
        self.uids += 1;
        format!("00000000-0000-4000-8000-{:012x}", self.uids)
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// Returns the objects of a kind, in one namespace or in all.
    pub(super) fn of(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
    ) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        let from = (kind.plural, namespace.unwrap_or_default().to_owned(), String::new());
        let namespace = namespace.map(str::to_owned);
        let plural = kind.plural;
        self.objects.range(from..).take_while(move |((of, object_namespace, _), _)| {
            *of == plural && namespace.as_deref().is_none_or(|namespace| namespace == object_namespace)
        })
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.objects.keys()
    }

    /// Returns the objects of a kind at a version that is still in the history.
    pub(super) fn at(&self, kind: &Kind, namespace: Option<&str>, version: u64) -> BTreeMap<Key, Arc<Value>> {
        let mut objects: BTreeMap<Key, Arc<Value>> =
            self.of(kind, namespace).map(|(key, object)| (key.clone(), Arc::clone(object))).collect();
        for change in self.changes.iter().rev().take_while(|change| change.version > version) {
            let (of, object_namespace, _) = &change.key;
            if *of != kind.plural || namespace.is_some_and(|namespace| namespace != object_namespace) {
                continue;
            }
            match &change.before {
                Some(before) => objects.insert(change.key.clone(), Arc::clone(before)),
                None => objects.remove(&change.key),
            };
        }
        objects
    }

    /// Returns the changes after a version.
    pub(super) fn after(&self, version: u64) -> &[Change] {
        let from = self.changes.partition_point(|change| change.version <= version);
        &self.changes[from..]
    }

    /// Stores an object under the next version.
    pub(super) fn put(&mut self, key: Key, mut object: Value) -> Arc<Value> {
        self.version += 1;
        object.put("/metadata/resourceVersion", self.version.to_string());
        let object = Arc::new(object);
        let before = self.objects.insert(key.clone(), Arc::clone(&object));
        self.log(Change { version: self.version, key, before, after: Some(Arc::clone(&object)) });
        object
    }

    /// Removes an object, and reports the change to watches. Returns `None` if the object does not exist.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let before = self.objects.remove(key)?;
        self.version += 1;
        self.log(Change {
            version: self.version,
            key: key.clone(),
            before: Some(Arc::clone(&before)),
            after: None,
        });
        Some(before)
    }

    /// Discards all changes so far.
    pub(super) fn compact(&mut self) {
        self.compacted = self.version;
        self.changes.clear();
    }

    /// Discards all versions including the current one, as if other objects had changed since.
    pub(super) fn forget(&mut self) {
        self.version += 1;
        self.compact();
    }

    fn log(&mut self, change: Change) {
        self.changes.push(change);
        if self.changes.len() > MAX_CHANGES {
            let half = self.changes.len() / 2;
            self.compacted = self.changes[half - 1].version;
            self.changes.drain(..half);
        }
    }
}

impl Change {
    /// Returns the last state of a removed object, as a watch sends it.
    pub(super) fn last(&self, before: &Value) -> Value {
        let mut last = before.clone();
        last["metadata"]["resourceVersion"] = json!(self.version.to_string());
        last
    }
}
