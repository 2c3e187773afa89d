//! Operations of a JSON patch (RFC 6902). A path is a list of unescaped keys.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation, RemoveOperation, ReplaceOperation, TestOperation};
use serde_json::Value;

pub(super) const fn label(name: &str) -> [&str; 3] {
    ["metadata", "labels", name]
}

pub(super) const fn annotation(name: &str) -> [&str; 3] {
    ["metadata", "annotations", name]
}

/// Rejects the whole patch unless the path has this value.
pub(super) fn test(path: &[&str], value: impl Into<Value>) -> PatchOperation {
    PatchOperation::Test(TestOperation { path: pointer(path), value: value.into() })
}

pub(super) fn add(path: &[&str], value: impl Into<Value>) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: pointer(path), value: value.into() })
}

pub(super) fn replace(path: &[&str], value: impl Into<Value>) -> PatchOperation {
    PatchOperation::Replace(ReplaceOperation { path: pointer(path), value: value.into() })
}

pub(super) fn remove(path: &[&str]) -> PatchOperation {
    PatchOperation::Remove(RemoveOperation { path: pointer(path) })
}

fn pointer(path: &[&str]) -> PointerBuf {
    PointerBuf::from_tokens(path.iter().copied())
}
