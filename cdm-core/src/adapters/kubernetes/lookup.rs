//! Checks that the image looks up sites in this server's table, as far as its Deployment shows, and that jobs can be
//! created from the Deployment. A flush has no credentials, so an image that uses another table flushes nothing, and
//! serves no site either.

use serde_json::Value;

use super::api::Session;
use super::confinement;
use super::failure::Failure;
use super::names::text;
use super::service;
use super::settings::{KubernetesSettings, Lookup};
use crate::domain::Color;
use crate::ports::ErrorKind;

/// The value that the image uses for a variable that is not set, by the tenant contract.
const UNSET: &str = "cdm";

/// Fails with the first variable that has another value than this server, or with what jobs do not copy from the
/// Deployment.
pub(super) async fn check(session: &Session<'_>, settings: &KubernetesSettings) -> Result<(), Failure> {
    for color in Color::ALL {
        let template = service::workload(session, settings, color).await?.template;
        let lookup_problem = settings.lookup.as_ref().and_then(|lookup| problem(settings, lookup, &template));
        if let Some(problem) = lookup_problem.or_else(|| confinement::unsupported(settings, &template)) {
            let name = &settings.names(color).deployment;
            return Err(Failure::new(ErrorKind::Invalid, format!("the Deployment `{name}`: {problem}")));
        }
    }
    Ok(())
}

fn problem(settings: &KubernetesSettings, lookup: &Lookup, template: &Value) -> Option<String> {
    let (_, container) = confinement::container(settings, template)?;
    let list = |name: &str| container.get(name).and_then(Value::as_array).into_iter().flatten();
    let wanted = [("CDM_TABLE", &lookup.table), ("CDM_SECRET_PREFIX", &lookup.secret_prefix)];
    wanted.into_iter().find_map(|(name, wanted)| {
        // The last variable with a name takes effect.
        let given = list("env").rfind(|variable| text(variable, "/name") == Some(name));
        let value = match given {
            // Values from a ConfigMap or a Secret are not checked.
            Some(variable) if variable.get("valueFrom").is_some() => return None,
            Some(variable) => text(variable, "/value").unwrap_or_default(),
            None if list("envFrom").next().is_some() => return None,
            None => UNSET,
        };
        let container = &settings.container;
        (value != wanted).then(|| {
            format!(
                "the image looks up sites with `{name}={value}`, but this server stores them with `{wanted}`; set \
                 `{name}` to `{wanted}` in the container `{container}`"
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_image_with_another_table_is_reported() {
        let settings = KubernetesSettings::new("sites", "repo");
        let reported = |table: &str, container: Value| {
            let lookup = Lookup { table: table.to_owned(), secret_prefix: "cdm".to_owned() };
            let mut container = container;
            container["name"] = json!("web");
            let spec = json!({ "containers": [{ "name": "proxy" }, container] });
            problem(&settings, &lookup, &json!({ "spec": spec }))
        };
        let with = |value: &str| json!({ "env": [{ "name": "CDM_TABLE", "value": value }] });
        assert_eq!(reported("cdm", json!({})), None);
        assert_eq!(reported("sites", with("sites")), None);
        let from = json!({ "secretKeyRef": { "name": "settings", "key": "table" } });
        assert_eq!(reported("sites", json!({ "env": [{ "name": "CDM_TABLE", "valueFrom": from }] })), None);
        assert_eq!(
            reported("sites", json!({ "envFrom": [{ "configMapRef": { "name": "settings" } }] })),
            None
        );
        let problem = reported("sites", json!({})).expect("a problem");
        assert!(problem.contains("`CDM_TABLE=cdm`") && problem.contains("`sites`"), "{problem}");
        assert!(reported("cdm", with("other")).is_some_and(|problem| problem.contains("CDM_TABLE=other")));
    }
}
