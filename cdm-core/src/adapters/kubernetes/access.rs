//! What the role of CDM's account has to allow, asked of the server rule by rule.

use serde_json::json;

use super::api::{CONFIG_MAPS, DEPLOYMENTS, JOBS, PODS, Resource, SECRETS, Session};
use super::failure::Failure;
use super::settings::KubernetesSettings;
use super::shape;
use crate::domain::Color;
use crate::ports::ErrorKind;

/// A resource, a part of it or nothing, and what is done with it.
type Rule = (Resource, &'static str, &'static [&'static str]);

const RULES: &[Rule] = &[
    (CONFIG_MAPS, "", &["get", "list", "create", "patch", "delete"]),
    (SECRETS, "", &["create", "delete"]),
    (PODS, "", &["list", "watch"]),
    (PODS, "log", &["get"]),
    (DEPLOYMENTS, "", &["list", "watch"]),
    (JOBS, "", &["get", "list", "watch", "create", "patch", "delete"]),
];

const ROUTES: &[&str] = &["get", "list", "create", "patch", "delete"];

/// Fails with the first thing that the role does not allow.
pub(super) async fn check(session: &Session<'_>, settings: &KubernetesSettings) -> Result<(), Failure> {
    for (resource, part, verbs) in RULES {
        for verb in *verbs {
            ask(session, *resource, (part, ""), verb).await?;
        }
    }
    for verb in ROUTES {
        ask(session, shape::resource(&settings.route), ("", ""), verb).await?;
    }
    for color in Color::ALL {
        for verb in ["get", "patch"] {
            ask(session, DEPLOYMENTS, ("", &settings.names(color).deployment), verb).await?;
        }
    }
    Ok(())
}

async fn ask(
    session: &Session<'_>,
    resource: Resource,
    (part, name): (&str, &str),
    verb: &str,
) -> Result<(), Failure> {
    let attributes = json!({
        "namespace": session.namespace(),
        "group": resource.group,
        "resource": resource.plural,
        "subresource": part,
        "name": name,
        "verb": verb,
    });
    if session.may(&attributes).await? {
        return Ok(());
    }
    let part = if part.is_empty() { String::new() } else { format!("/{part}") };
    let name = if name.is_empty() { String::new() } else { format!(" `{name}`") };
    let group = if resource.group.is_empty() { String::new() } else { format!(".{}", resource.group) };
    let what = format!("{}{group}{part}{name}", resource.plural);
    let namespace = session.namespace();
    let message = format!("the role does not allow to {verb} {what} in the namespace `{namespace}`");
    Err(Failure::new(ErrorKind::Denied, message))
}
