//! Checks the permissions of CDM's service account, one rule at a time.

use k8s_openapi::api::authorization::v1::ResourceAttributes;

use super::api::Session;
use super::failure::Failure;
use super::manifest;
use super::settings::KubernetesSettings;
use crate::domain::Color;
use crate::ports::ErrorKind;

/// The group of a resource, and its name in paths.
type Resource = (&'static str, &'static str);
/// A resource, a subresource or an empty string, and the required verbs.
type Rule = (Resource, &'static str, &'static [&'static str]);

const DEPLOYMENTS: Resource = ("apps", "deployments");

const RULES: &[Rule] = &[
    (("", "configmaps"), "", &["get", "list", "create", "patch", "delete"]),
    (("", "secrets"), "", &["create", "delete"]),
    (("", "pods"), "", &["list", "watch"]),
    (("", "pods"), "log", &["get"]),
    (DEPLOYMENTS, "", &["list", "watch"]),
    (("batch", "jobs"), "", &["get", "list", "watch", "create", "patch", "delete"]),
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
    (group, resource): Resource,
    (part, name): (&str, &str),
    verb: &str,
) -> Result<(), Failure> {
    let text = |text: &str| Some(text.to_owned());
    let attributes = ResourceAttributes {
        namespace: text(session.namespace()),
        group: text(group),
        resource: text(resource),
        subresource: text(part),
        name: text(name),
        verb: text(verb),
        ..ResourceAttributes::default()
    };
    if session.is_allowed(attributes).await? {
        return Ok(());
    }
    let part = if part.is_empty() { String::new() } else { format!("/{part}") };
    let name = if name.is_empty() { String::new() } else { format!(" `{name}`") };
    let group = if group.is_empty() { String::new() } else { format!(".{group}") };
    let what = format!("{resource}{group}{part}{name}");
    let namespace = session.namespace();
    let message =
        format!("the role does not grant the verb `{verb}` on {what} in the namespace `{namespace}`");
    Err(Failure::new(ErrorKind::Denied, message))
}
