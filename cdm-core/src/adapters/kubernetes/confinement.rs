//! What a job copies from the Deployment of its service, and what it does not: the Deployment is written for pods that
//! serve visitors, while a job also runs commands with a site's credentials.

use serde_json::{Value, json};

use super::names::text;
use super::settings::KubernetesSettings;

/// Returns the pod of a Deployment's template, and the container in it that runs the image.
pub(super) fn container<'a>(
    settings: &KubernetesSettings,
    template: &'a Value,
) -> Option<(&'a Value, &'a Value)> {
    let pod = template.get("spec")?;
    let mut containers = pod.get("containers").and_then(Value::as_array)?.iter();
    let found = containers.find(|container| text(container, "/name") == Some(&settings.container))?;
    Some((pod, found))
}

/// Returns why jobs cannot be created from this pod template of a Deployment, or cannot work; `None` if they can.
pub(super) fn unsupported(settings: &KubernetesSettings, template: &Value) -> Option<String> {
    let (pod, container) = container(settings, template)?;
    let account = text(pod, "/serviceAccountName").filter(|name| *name != "default");
    let unnamed = account.filter(|_| settings.job_service_account.is_none()).map(|name| {
        format!(
            "its pods use the service account `{name}`, which jobs do not use; set \
             `CDM_JOB_SERVICE_ACCOUNT` to the service account for jobs, or to `default`"
        )
    });
    node_access(pod, container).or(unnamed)
}

/// Returns why a mounted volume cannot be used by a job: it exposes files of the node, or a token of the API server.
pub(super) fn node_access(pod: &Value, container: &Value) -> Option<String> {
    mounted(pod, container).find_map(|volume| {
        let name = text(volume, "/name").unwrap_or_default();
        if volume.get("hostPath").is_some() {
            return Some(format!(
                "the volume `{name}` is a `hostPath`, which jobs do not mount; use a `persistentVolumeClaim` \
                 instead"
            ));
        }
        let sources = volume.pointer("/projected/sources").and_then(Value::as_array);
        let token = sources.into_iter().flatten().any(|source| source.get("serviceAccountToken").is_some());
        token.then(|| {
            format!("the volume `{name}` has a token of the service account, which jobs do not mount")
        })
    })
}

/// Returns the volumes that a container mounts.
pub(super) fn mounted<'a>(pod: &'a Value, container: &'a Value) -> impl Iterator<Item = &'a Value> {
    let mounts = |name: Option<&str>| {
        let mounts = container.get("volumeMounts").and_then(Value::as_array);
        mounts.into_iter().flatten().any(|mount| text(mount, "/name") == name)
    };
    let volumes = pod.get("volumes").and_then(Value::as_array).into_iter().flatten();
    volumes.filter(move |volume| mounts(text(volume, "/name")))
}

/// Sets the fields of a pod that the Pod Security Standard `restricted` requires, unless the Deployment sets them. A
/// pod with the explicit user ID 0 may run as root.
pub(super) fn restrict_pod(context: &mut Value, container: &Value) {
    let root = |user: Option<&Value>| user.and_then(Value::as_i64) == Some(0);
    let is_root = root(context.get("runAsUser")) || root(container.pointer("/securityContext/runAsUser"));
    if context.get("runAsNonRoot").is_none() && !is_root {
        context["runAsNonRoot"] = json!(true);
    }
    if context.get("seccompProfile").is_none() {
        context["seccompProfile"] = json!({ "type": "RuntimeDefault" });
    }
}

/// Returns a container with the fields that `restricted` requires, unless the Deployment sets them.
pub(super) fn restricted_container(container: &Value) -> Value {
    let mut container = container.clone();
    let context = &mut container["securityContext"];
    if context.get("allowPrivilegeEscalation").is_none()
        && context.get("privileged").and_then(Value::as_bool) != Some(true)
    {
        context["allowPrivilegeEscalation"] = json!(false);
    }
    if context.pointer("/capabilities/drop").is_none() {
        context["capabilities"]["drop"] = json!(["ALL"]);
    }
    container
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(account: Option<&str>) -> KubernetesSettings {
        let job_service_account = account.map(str::to_owned);
        KubernetesSettings { job_service_account, ..KubernetesSettings::new("sites", "repo") }
    }

    fn template(volume: Value, account: &str) -> Value {
        json!({ "spec": {
            "serviceAccountName": account,
            "containers": [
                { "name": "proxy", "volumeMounts": [{ "name": "other", "mountPath": "/o" }] },
                { "name": "web", "volumeMounts": [{ "name": "files", "mountPath": "/f" }] },
            ],
            "volumes": [volume, { "name": "other", "hostPath": { "path": "/" } }],
        } })
    }

    #[test]
    fn a_volume_of_the_node_or_with_a_token_is_rejected() {
        let reported = |volume| unsupported(&settings(None), &template(volume, "default"));
        assert_eq!(
            reported(json!({ "name": "files", "emptyDir": {} })),
            None,
            "the volume of the proxy is not mounted by the job"
        );
        let node_volume = reported(json!({ "name": "files", "hostPath": { "path": "/srv" } }));
        assert!(node_volume.is_some_and(|why| why.contains("`files`") && why.contains("hostPath")));
        let sources = json!([{ "configMap": { "name": "x" } }, { "serviceAccountToken": { "path": "t" } }]);
        let token = reported(json!({ "name": "files", "projected": { "sources": sources } }));
        assert!(token.is_some_and(|why| why.contains("token")));
    }

    #[test]
    fn a_service_account_must_be_configured_or_the_default() {
        let reported = |configured, account| {
            unsupported(&settings(configured), &template(json!({ "name": "files", "emptyDir": {} }), account))
        };
        assert!(reported(None, "wordpress").is_some_and(|why| why.contains("`wordpress`")));
        assert_eq!(reported(None, "default"), None);
        assert_eq!(reported(Some("default"), "wordpress"), None);
        assert_eq!(reported(Some("jobs"), "wordpress"), None);
    }

    #[test]
    fn security_settings_of_the_deployment_are_kept() {
        let container = |context: Value| json!({ "name": "web", "securityContext": context });
        let restricted = |context| restricted_container(&container(context))["securityContext"].clone();
        let all = json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } });
        assert_eq!(restricted_container(&json!({ "name": "web" }))["securityContext"], all);
        assert_eq!(restricted(json!({ "runAsUser": 33 }))["runAsUser"], json!(33));
        let own = json!({ "allowPrivilegeEscalation": true, "capabilities": { "drop": ["NET_RAW"] } });
        assert_eq!(restricted(own.clone()), own);
        let added = restricted(json!({ "capabilities": { "add": ["NET_BIND_SERVICE"] } }));
        assert_eq!(added["capabilities"], json!({ "add": ["NET_BIND_SERVICE"], "drop": ["ALL"] }));
        // The API server rejects the combination.
        assert_eq!(restricted(json!({ "privileged": true }))["allowPrivilegeEscalation"], Value::Null);
    }

    #[test]
    fn a_pod_is_not_root_unless_its_user_id_is_zero() {
        let restricted = |pod: Value, container: Value| {
            let mut context = pod;
            restrict_pod(&mut context, &json!({ "securityContext": container }));
            context
        };
        let seccomp = json!({ "type": "RuntimeDefault" });
        let none = restricted(json!({}), json!({}));
        assert_eq!(none, json!({ "runAsNonRoot": true, "seccompProfile": seccomp }));
        for (pod, container) in
            [(json!({ "runAsUser": 0 }), json!({})), (json!({}), json!({ "runAsUser": 0 }))]
        {
            assert_eq!(restricted(pod, container)["runAsNonRoot"], Value::Null);
        }
        let own = json!({ "runAsNonRoot": false, "seccompProfile": { "type": "Unconfined" } });
        assert_eq!(restricted(own.clone(), json!({})), own);
    }
}
