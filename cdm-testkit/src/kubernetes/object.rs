//! Reading and writing a place in an object by its JSON pointer.

use serde_json::{Map, Value};

/// An object that is looked at by pointers, such as `/metadata/name`.
pub(super) trait Object {
    /// The text at a place; empty where there is none.
    fn text(&self, pointer: &str) -> &str;
    /// The number at a place.
    fn number(&self, pointer: &str) -> Option<i64>;
    /// Whether `true` stands at a place.
    fn is(&self, pointer: &str) -> bool;
    /// The list at a place; empty where there is none.
    fn list(&self, pointer: &str) -> &[Value];
    /// The entries of the map at a place.
    fn entries<'a>(&'a self, pointer: &str) -> impl Iterator<Item = (&'a str, &'a Value)>;
    /// Writes a place, making what leads to it. Keys with a slash cannot be written so.
    fn put(&mut self, pointer: &str, value: impl Into<Value>);
    /// Writes a place where nothing is.
    fn default_to(&mut self, pointer: &str, value: impl Into<Value>);
    /// Takes a place away.
    fn remove(&mut self, pointer: &str) -> Option<Value>;
    /// The map at a place, made where there is none.
    fn map(&mut self, pointer: &str) -> &mut Map<String, Value>;
}

impl Object for Value {
    fn text(&self, pointer: &str) -> &str {
        self.pointer(pointer).and_then(Self::as_str).unwrap_or_default()
    }

    fn number(&self, pointer: &str) -> Option<i64> {
        self.pointer(pointer).and_then(Self::as_i64)
    }

    fn is(&self, pointer: &str) -> bool {
        self.pointer(pointer) == Some(&Self::Bool(true))
    }

    fn list(&self, pointer: &str) -> &[Self] {
        self.pointer(pointer).and_then(Self::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    fn entries<'a>(&'a self, pointer: &str) -> impl Iterator<Item = (&'a str, &'a Self)> {
        let map = self.pointer(pointer).and_then(Self::as_object);
        map.into_iter().flatten().map(|(key, value)| (key.as_str(), value))
    }

    fn put(&mut self, pointer: &str, value: impl Into<Self>) {
        let (parent, key) = pointer.rsplit_once('/').unwrap_or_default();
        self.map(parent).insert(key.to_owned(), value.into());
    }

    fn default_to(&mut self, pointer: &str, value: impl Into<Self>) {
        if self.pointer(pointer).is_none_or(Self::is_null) {
            self.put(pointer, value);
        }
    }

    fn remove(&mut self, pointer: &str) -> Option<Self> {
        let (parent, key) = pointer.rsplit_once('/')?;
        self.pointer_mut(parent)?.as_object_mut()?.remove(key)
    }

    fn map(&mut self, pointer: &str) -> &mut Map<String, Self> {
        let mut map = as_map(self);
        for key in pointer.split('/').filter(|key| !key.is_empty()) {
            map = as_map(map.entry(key).or_insert(Self::Null));
        }
        map
    }
}

/// What it is as a map; something else makes way for an empty one.
fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value.as_object_mut() {
        Some(map) => map,
        None => unreachable!("it was made a map"),
    }
}
