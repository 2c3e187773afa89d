//! Names, labels and annotations of CDM's objects.

use std::collections::BTreeMap;

use kube::core::ObjectMeta;
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
/// The annotation with the uid of a Job's Secret, which exists as long as the Secret may exist.
pub(super) const SECRET: &str = "cdm/secret";

/// Labels or annotations.
pub(super) type Texts = BTreeMap<String, String>;

/// Returns the name of a site's anchor, its tombstone and its route.
pub(super) fn of_site(uid: Uid) -> String {
    format!("cdm-{uid}")
}

/// Returns the label selector of a uid's objects of one component.
pub(super) fn label_selector(component: &str, uid: Uid) -> String {
    format!("{MANAGED_BY}={CDM},{COMPONENT}={component},{UID}={uid}")
}

/// Returns the value of a label.
pub(super) fn label<'a>(object: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    object.labels.as_ref()?.get(name).map(String::as_str)
}

/// Returns the value of an annotation.
pub(super) fn annotation<'a>(object: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    object.annotations.as_ref()?.get(name).map(String::as_str)
}

pub(super) fn name(object: &ObjectMeta) -> &str {
    object.name.as_deref().unwrap_or_default()
}

/// Returns the Kubernetes uid of an object, for an owner reference or a precondition.
pub(super) fn own_uid(object: &ObjectMeta) -> &str {
    object.uid.as_deref().unwrap_or_default()
}

pub(super) fn is_deleting(object: &ObjectMeta) -> bool {
    object.deletion_timestamp.is_some()
}

/// Returns the uid of the site that owns the object; `None` if CDM did not create it, or not for a single site.
pub(super) fn site_of(object: &ObjectMeta) -> Option<Uid> {
    if label(object, MANAGED_BY) != Some(CDM) {
        return None;
    }
    Uid::parse(label(object, UID)?).ok()
}

/// Returns the fence of an object; the default fence if none was written.
pub(super) fn fence(object: &ObjectMeta) -> Result<Fence, Failure> {
    let Some(text) = annotation(object, FENCE) else { return Ok(Fence::default()) };
    let invalid =
        || Failure::new(ErrorKind::Invalid, format!("the annotation `{FENCE}` is not a valid fence"));
    Fence::parse(text).ok_or_else(invalid)
}

/// Labels or annotations from names and values.
pub(super) fn texts<const N: usize>(pairs: [(&str, &str); N]) -> Texts {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// Returns the labels of an object of a site.
pub(super) fn labels(component: &str, uid: Uid, site: Option<&SiteId>) -> Texts {
    let mut labels = texts([(MANAGED_BY, CDM), (COMPONENT, component), (UID, &uid.to_string())]);
    labels.extend(site.map(|site| (SITE.to_owned(), site.as_str().to_owned())));
    labels
}

/// Returns the string at a JSON pointer.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}
