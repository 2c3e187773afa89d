//! Access to fields of a JSON object by JSON pointer, and the format of times.

use cdm_core::domain::Timestamp;
use serde_json::{Map, Value};

/// Formats a time by RFC 3339, in whole seconds.
pub(super) fn rfc3339(moment: Timestamp) -> String {
    let seconds = i64::try_from(moment.millis() / 1000).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// A JSON object with access by pointers such as `/metadata/name`.
pub(super) trait Object {
    /// Returns the string at a pointer; empty if the pointer has no string.
    fn text(&self, pointer: &str) -> &str;
    /// Returns the integer at a pointer.
    fn number(&self, pointer: &str) -> Option<i64>;
    /// Returns whether the value at a pointer is `true`.
    fn is(&self, pointer: &str) -> bool;
    /// Returns the array at a pointer; empty if the pointer has no array.
    fn list(&self, pointer: &str) -> &[Value];
    /// Returns the entries of the object at a pointer.
    fn entries<'a>(&'a self, pointer: &str) -> impl Iterator<Item = (&'a str, &'a Value)>;
    /// Sets the value at a pointer, creating its parents. Keys with a slash are not supported.
    fn put(&mut self, pointer: &str, value: impl Into<Value>);
    /// Sets the value at a pointer if it is missing or null.
    fn default_to(&mut self, pointer: &str, value: impl Into<Value>);
    /// Removes the value at a pointer.
    fn remove(&mut self, pointer: &str) -> Option<Value>;
    /// Returns the object at a pointer, creating it if it is missing.
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

/// Returns the value as a map; replaces any other value with an empty map.
fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value.as_object_mut() {
        Some(map) => map,
        None => unreachable!("the value was replaced by a map"),
    }
}
