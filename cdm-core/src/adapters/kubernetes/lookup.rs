//! Whether the image looks its sites up where this server keeps them, as far as a Deployment tells, and whether jobs can
//! be made of it. A flush has nobody's credentials, so an image that looks elsewhere flushes nothing, and serves nothing
//! either.

use serde_json::Value;

use super::api::Session;
use super::confinement;
use super::failure::Failure;
use super::names::text;
use super::service;
use super::settings::{KubernetesSettings, Lookup};
use crate::domain::Color;
use crate::ports::ErrorKind;

/// What an image takes for a variable that nobody set, by the contract with it.
const UNSET: &str = "cdm";

/// Fails with the first variable by which an image looks elsewhere, or with what jobs do not take over.
pub(super) async fn check(session: &Session<'_>, settings: &KubernetesSettings) -> Result<(), Failure> {
    for color in Color::ALL {
        let deployment = service::deployment(session, settings, color).await?;
        let elsewhere = settings.lookup.as_ref().and_then(|lookup| problem(settings, lookup, &deployment));
        if let Some(problem) = elsewhere.or_else(|| confinement::unfit(settings, &deployment)) {
            let name = &settings.names(color).deployment;
            return Err(Failure::new(ErrorKind::Invalid, format!("the Deployment `{name}`: {problem}")));
        }
    }
    Ok(())
}

fn problem(settings: &KubernetesSettings, lookup: &Lookup, deployment: &Value) -> Option<String> {
    let containers = deployment.pointer("/spec/template/spec/containers").and_then(Value::as_array)?;
    let container = containers.iter().find(|one| text(one, "/name") == Some(&settings.container))?;
    let list = |name: &str| container.get(name).and_then(Value::as_array).into_iter().flatten();
    let wanted = [("CDM_TABLE", &lookup.table), ("CDM_SECRET_PREFIX", &lookup.secret_prefix)];
    wanted.into_iter().find_map(|(name, wanted)| {
        // The last one of a name counts.
        let given = list("env").rfind(|variable| text(variable, "/name") == Some(name));
        let value = match given {
            // What a ConfigMap or a Secret says is not looked into.
            Some(variable) if variable.get("valueFrom").is_some() => return None,
            Some(variable) => text(variable, "/value").unwrap_or_default(),
            None if list("envFrom").next().is_some() => return None,
            None => UNSET,
        };
        let container = &settings.container;
        (value != wanted).then(|| {
            format!(
                "its image looks sites up by `{name}={value}`, and this server keeps them under `{wanted}`; set \
                 `{name}` of the container `{container}` to that"
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_image_that_looks_elsewhere_is_found() {
        let settings = KubernetesSettings::new("sites", "repo");
        let said = |table: &str, container: Value| {
            let lookup = Lookup { table: table.to_owned(), secret_prefix: "cdm".to_owned() };
            let mut container = container;
            container["name"] = json!("web");
            let spec = json!({ "containers": [{ "name": "proxy" }, container] });
            problem(&settings, &lookup, &json!({ "spec": { "template": { "spec": spec } } }))
        };
        let with = |value: &str| json!({ "env": [{ "name": "CDM_TABLE", "value": value }] });
        assert_eq!(said("cdm", json!({})), None);
        assert_eq!(said("sites", with("sites")), None);
        let from = json!({ "secretKeyRef": { "name": "settings", "key": "table" } });
        assert_eq!(said("sites", json!({ "env": [{ "name": "CDM_TABLE", "valueFrom": from }] })), None);
        assert_eq!(said("sites", json!({ "envFrom": [{ "configMapRef": { "name": "settings" } }] })), None);
        let problem = said("sites", json!({})).expect("a problem");
        assert!(problem.contains("`CDM_TABLE=cdm`") && problem.contains("`sites`"), "{problem}");
        assert!(said("cdm", with("other")).is_some_and(|problem| problem.contains("CDM_TABLE=other")));
    }
}
