//! Names, labels and annotations of CDM's objects.

use serde_json::Value;

use super::failure::Failure;
use crate::domain::{Fence, SiteId, Uid};
use crate::ports::ErrorKind;

/// The label of every object that CDM creates, and its value.
pub(super) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
pub(super) const CDM: &str = "cdm";
/// The label with the kind of object: `anchor`, `tombstone`, `route` or `job`.
pub(super) const COMPONENT: &str = "app.kubernetes.io/component";
/// The label with the site's uid.
pub(super) const UID: &str = "cdm/uid";
/// The label with the site's ID, for people.
pub(super) const SITE: &str = "cdm/site";
/// The annotation with the fence of the last write.
pub(super) const FENCE: &str = "cdm/fence";

/// The name of a site's anchor, its tombstone and its route.
pub(super) fn of_site(uid: Uid) -> String {
    format!("cdm-{uid}")
}

/// The label selector of a uid's objects of one component.
pub(super) fn label_selector(component: &str, uid: Uid) -> String {
    format!("{MANAGED_BY}={CDM},{COMPONENT}={component},{UID}={uid}")
}

/// The string at a JSON pointer of an object.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer).and_then(Value::as_str)
}

/// The value of a label.
pub(super) fn label<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.pointer("/metadata/labels")?.get(name)?.as_str()
}

/// The value of an annotation.
pub(super) fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.pointer("/metadata/annotations")?.get(name)?.as_str()
}

/// The Kubernetes uid of an object, for an owner reference or a precondition.
pub(super) fn own_uid(object: &Value) -> &str {
    text(object, "/metadata/uid").unwrap_or_default()
}

/// The uid of the site that owns the object; `None` if CDM did not create it, or not for a single site.
pub(super) fn site_of(object: &Value) -> Option<Uid> {
    if label(object, MANAGED_BY) != Some(CDM) {
        return None;
    }
    Uid::parse(label(object, UID)?).ok()
}

/// The fence of an object; the default fence if none was written.
pub(super) fn fence(object: &Value) -> Result<Fence, Failure> {
    let Some(text) = annotation(object, FENCE) else { return Ok(Fence::default()) };
    let invalid =
        || Failure::new(ErrorKind::Invalid, format!("the annotation `{FENCE}` is not a valid fence"));
    Fence::parse(text).ok_or_else(invalid)
}

/// Escapes a key as a part of a JSON pointer.
pub(super) fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// The path of an annotation in a JSON patch.
pub(super) fn annotation_path(name: &str) -> String {
    format!("/metadata/annotations/{}", escaped(name))
}

/// The path of a label in a JSON patch.
pub(super) fn label_path(name: &str) -> String {
    format!("/metadata/labels/{}", escaped(name))
}

/// The labels of an object of a site.
pub(super) fn labels(component: &str, uid: Uid, site: Option<&SiteId>) -> Value {
    let mut labels = serde_json::json!({ MANAGED_BY: CDM, COMPONENT: component, UID: uid.to_string() });
    if let Some(site) = site {
        labels[SITE] = Value::from(site.as_str());
    }
    labels
}
