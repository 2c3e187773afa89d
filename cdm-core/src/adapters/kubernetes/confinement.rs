//! What a job takes over from the Deployment of its service, and what it does not: the Deployment's author writes for
//! pods that serve visitors, and a job also runs commands that have a site's credentials.

use serde_json::{Value, json};

use super::names::text;
use super::settings::KubernetesSettings;

/// The pod's template of a Deployment, and the container in it that runs the image.
pub(super) fn container<'a>(
    settings: &KubernetesSettings,
    deployment: &'a Value,
) -> Option<(&'a Value, &'a Value)> {
    let template = deployment.pointer("/spec/template/spec")?;
    let mut containers = template.get("containers").and_then(Value::as_array)?.iter();
    let found = containers.find(|container| text(container, "/name") == Some(&settings.container))?;
    Some((template, found))
}

/// What keeps jobs from being made of this Deployment, or from doing their work there.
pub(super) fn unfit(settings: &KubernetesSettings, deployment: &Value) -> Option<String> {
    let (template, container) = container(settings, deployment)?;
    let account = text(template, "/serviceAccountName").filter(|name| *name != "default");
    let unnamed = account.filter(|_| settings.job_service_account.is_none()).map(|name| {
        format!(
            "its pods run as the service account `{name}`, which jobs do not take over; set \
             `CDM_JOB_SERVICE_ACCOUNT` to the account of jobs, or to `default`"
        )
    });
    of_the_host(template, container).or(unnamed)
}

/// A volume that gives the container a part of its node, or a token for the API server. A job has neither.
pub(super) fn of_the_host(template: &Value, container: &Value) -> Option<String> {
    mounted(template, container).find_map(|volume| {
        let name = text(volume, "/name").unwrap_or_default();
        if volume.get("hostPath").is_some() {
            return Some(format!(
                "the volume `{name}` is a `hostPath`, which no job mounts; mount a `persistentVolumeClaim` in its \
                 place"
            ));
        }
        let sources = volume.pointer("/projected/sources").and_then(Value::as_array);
        let token = sources.into_iter().flatten().any(|source| source.get("serviceAccountToken").is_some());
        token.then(|| {
            format!("the volume `{name}` holds a token of the service account, which no job mounts")
        })
    })
}

/// The volumes that a container mounts.
pub(super) fn mounted<'a>(template: &'a Value, container: &'a Value) -> impl Iterator<Item = &'a Value> {
    let mounts = |name: Option<&str>| {
        let mounts = container.get("volumeMounts").and_then(Value::as_array);
        mounts.into_iter().flatten().any(|mount| text(mount, "/name") == name)
    };
    let volumes = template.get("volumes").and_then(Value::as_array).into_iter().flatten();
    volumes.filter(move |volume| mounts(text(volume, "/name")))
}

/// Says what `restricted` wants a pod to say, where it does not say anything about it. Who is to run as root says so by
/// its number.
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

/// A container that says what `restricted` wants it to say, where it does not say anything about it.
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

    fn deployment(volume: Value, account: &str) -> Value {
        json!({ "spec": { "template": { "spec": {
            "serviceAccountName": account,
            "containers": [
                { "name": "proxy", "volumeMounts": [{ "name": "other", "mountPath": "/o" }] },
                { "name": "web", "volumeMounts": [{ "name": "files", "mountPath": "/f" }] },
            ],
            "volumes": [volume, { "name": "other", "hostPath": { "path": "/" } }],
        } } } })
    }

    #[test]
    fn a_volume_of_the_node_or_with_a_token_is_refused() {
        let said = |volume| unfit(&settings(None), &deployment(volume, "default"));
        assert_eq!(
            said(json!({ "name": "files", "emptyDir": {} })),
            None,
            "the proxy's volume is not the job's"
        );
        let of_the_node = said(json!({ "name": "files", "hostPath": { "path": "/srv" } }));
        assert!(of_the_node.is_some_and(|why| why.contains("`files`") && why.contains("hostPath")));
        let sources = json!([{ "configMap": { "name": "x" } }, { "serviceAccountToken": { "path": "t" } }]);
        let token = said(json!({ "name": "files", "projected": { "sources": sources } }));
        assert!(token.is_some_and(|why| why.contains("token")));
    }

    #[test]
    fn an_account_is_named_or_the_default() {
        let said = |configured, account| {
            unfit(&settings(configured), &deployment(json!({ "name": "files", "emptyDir": {} }), account))
        };
        assert!(said(None, "wordpress").is_some_and(|why| why.contains("`wordpress`")));
        assert_eq!(said(None, "default"), None);
        assert_eq!(said(Some("default"), "wordpress"), None);
        assert_eq!(said(Some("jobs"), "wordpress"), None);
    }

    #[test]
    fn what_the_deployment_says_about_privileges_stays() {
        let container = |context: Value| json!({ "name": "web", "securityContext": context });
        let made = |context| restricted_container(&container(context))["securityContext"].clone();
        let all = json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } });
        assert_eq!(restricted_container(&json!({ "name": "web" }))["securityContext"], all);
        assert_eq!(made(json!({ "runAsUser": 33 }))["runAsUser"], json!(33));
        let own = json!({ "allowPrivilegeEscalation": true, "capabilities": { "drop": ["NET_RAW"] } });
        assert_eq!(made(own.clone()), own);
        let added = made(json!({ "capabilities": { "add": ["NET_BIND_SERVICE"] } }));
        assert_eq!(added["capabilities"], json!({ "add": ["NET_BIND_SERVICE"], "drop": ["ALL"] }));
        // The API server refuses the two together.
        assert_eq!(made(json!({ "privileged": true }))["allowPrivilegeEscalation"], Value::Null);
    }

    #[test]
    fn a_pod_is_not_root_unless_it_says_so_by_number() {
        let made = |pod: Value, container: Value| {
            let mut context = pod;
            restrict_pod(&mut context, &json!({ "securityContext": container }));
            context
        };
        let seccomp = json!({ "type": "RuntimeDefault" });
        let none = made(json!({}), json!({}));
        assert_eq!(none, json!({ "runAsNonRoot": true, "seccompProfile": seccomp }));
        for (pod, container) in
            [(json!({ "runAsUser": 0 }), json!({})), (json!({}), json!({ "runAsUser": 0 }))]
        {
            assert_eq!(made(pod, container)["runAsNonRoot"], Value::Null);
        }
        let own = json!({ "runAsNonRoot": false, "seccompProfile": { "type": "Unconfined" } });
        assert_eq!(made(own.clone(), json!({})), own);
    }
}
