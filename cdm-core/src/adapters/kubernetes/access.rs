//! Checks the permissions of CDM's service account, one rule at a time.

use serde_json::json;

use super::api::{CONFIG_MAPS, DEPLOYMENTS, JOBS, PODS, Resource, SECRETS, Session};
use super::failure::Failure;
use super::manifest;
use super::settings::KubernetesSettings;
use crate::domain::Color;
use crate::ports::ErrorKind;

/// A resource, a subresource or an empty string, and the required verbs.
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

/// Fails with the first permission that the role does not grant.
pub(super) async fn check(session: &Session<'_>, settings: &KubernetesSettings) -> Result<(), Failure> {
    for (resource, part, verbs) in RULES {
        for verb in *verbs {
            check_rule(session, *resource, (part, ""), verb).await?;
        }
    }
    for verb in ROUTES {
        check_rule(session, manifest::resource(&settings.route), ("", ""), verb).await?;
    }
    for color in Color::ALL {
        for verb in ["get", "patch"] {
            check_rule(session, DEPLOYMENTS, ("", &settings.names(color).deployment), verb).await?;
        }
    }
    Ok(())
}

async fn check_rule(
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
    if session.is_allowed(&attributes).await? {
        return Ok(());
    }
    let part = if part.is_empty() { String::new() } else { format!("/{part}") };
    let name = if name.is_empty() { String::new() } else { format!(" `{name}`") };
    let group = if resource.group.is_empty() { String::new() } else { format!(".{}", resource.group) };
    let what = format!("{}{group}{part}{name}", resource.plural);
    let namespace = session.namespace();
    let message =
        format!("the role does not grant the verb `{verb}` on {what} in the namespace `{namespace}`");
    Err(Failure::new(ErrorKind::Denied, message))
}
