//! The state of a service: its Deployment by the rule of `kubectl rollout status`, and what its pods actually run.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use super::api::Session;
use super::failure::Failure;
use super::names::{fence, is_deleting};
use super::pods::{self, PodProblem, digest_of};
use super::settings::KubernetesSettings;
use crate::domain::{Color, Template};
use crate::ports::{ErrorKind, PodFailure, ServiceView};

/// The Deployment of a service.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    /// The Deployment, with an empty pod template.
    pub(super) deployment: Deployment,
    /// The pod template as JSON. Jobs and rollbacks copy it, so it keeps fields that this version of its type does not
    /// have.
    pub(super) template: Value,
}

impl Workload {
    pub(super) fn parse(mut object: Value) -> Result<Self, Failure> {
        let template = object.pointer_mut("/spec/template").map(Value::take).unwrap_or_default();
        let deployment = serde_json::from_value(object).map_err(|_| {
            Failure::new(ErrorKind::Unavailable, "the API server returned an invalid Deployment")
        })?;
        Ok(Self { deployment, template })
    }
}

pub(super) async fn read(
    session: &Session<'_>,
    settings: &KubernetesSettings,
    color: Color,
) -> Result<ServiceView, Failure> {
    let workload = workload(session, settings, color).await?;
    let selector = workload.deployment.spec.as_ref().map(|spec| label_selector(&spec.selector));
    let pods = session.list(&selector.unwrap_or_default()).await?;
    view(color, &settings.container, &workload, &pods)
}

/// Reads the Deployment of a service.
pub(super) async fn workload(
    session: &Session<'_>,
    settings: &KubernetesSettings,
    color: Color,
) -> Result<Workload, Failure> {
    let name = &settings.names(color).deployment;
    let object = session.get_json::<Deployment>(name).await?.ok_or_else(|| {
        Failure::new(ErrorKind::NotFound, format!("the Deployment `{name}` of `{color}` does not exist"))
    })?;
    Workload::parse(object)
}

/// Returns a label selector in the format of a query.
fn label_selector(selector: &LabelSelector) -> String {
    let labels = selector.match_labels.iter().flatten();
    let mut parts: Vec<String> = labels.map(|(key, value)| format!("{key}={value}")).collect();
    for expression in selector.match_expressions.iter().flatten() {
        let key = &expression.key;
        let values = expression.values.as_deref().unwrap_or_default().join(",");
        parts.push(match expression.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.clone(),
        });
    }
    parts.join(",")
}

fn view(color: Color, container: &str, workload: &Workload, pods: &[Pod]) -> Result<ServiceView, Failure> {
    let Workload { deployment, template } = workload;
    let status = deployment.status.clone().unwrap_or_default();
    let count = |number: Option<i32>| number.and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
    let wanted = pods::template_image(template, container).ok_or_else(|| {
        Failure::new(
            ErrorKind::Invalid,
            format!("the Deployment of `{color}` has no container `{container}`"),
        )
    })?;
    let digest = digest_of(wanted);
    let present: Vec<&Pod> = pods
        .iter()
        .filter(|pod| !is_deleting(&pod.metadata))
        .filter(|pod| pods::image(pod, container) == Some(wanted))
        .collect();
    let runs_it = |pod: &&&Pod| digest.is_none_or(|digest| pods::runs(pod, container, digest));
    let proven = present.iter().filter(|pod| pods::is_ready(pod)).filter(runs_it).count();
    let available = count(status.available_replicas).min(u32::try_from(proven).unwrap_or(u32::MAX));
    let observed = status.observed_generation >= deployment.metadata.generation;
    let desired = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    Ok(ServiceView {
        color,
        digest,
        template: Some(Template::new(&template.to_string())),
        fence: fence(&deployment.metadata)?,
        desired: desired.map_or(1, |n| u32::try_from(n).unwrap_or(u32::MAX)),
        updated: count(status.updated_replicas),
        ready: count(status.ready_replicas),
        available,
        total: count(status.replicas),
        observed,
        failure: if observed { failure(deployment, &present) } else { None },
    })
}

/// Returns why the pods of the current template do not become ready; `None` if there is no problem.
fn failure(deployment: &Deployment, present: &[&Pod]) -> Option<PodFailure> {
    let unready: Vec<&Pod> = present.iter().copied().filter(|pod| !pods::is_ready(pod)).collect();
    let problem = unready.iter().filter_map(|pod| pods::problem(pod)).max_by_key(|problem| problem.cause);
    let conditions = deployment.status.as_ref().and_then(|status| status.conditions.as_deref());
    let condition = |of_type: &str| conditions?.iter().find(|condition| condition.type_ == of_type);
    let message_of = |condition: &DeploymentCondition| condition.message.clone().unwrap_or_default();
    let deadline_exceeded = condition("Progressing").filter(|condition| {
        condition.status == "False" && condition.reason.as_deref() == Some("ProgressDeadlineExceeded")
    });
    let replica_failure = condition("ReplicaFailure").filter(|condition| condition.status == "True");
    let (blames_image, message) = match (problem, replica_failure, deadline_exceeded) {
        (Some(PodProblem { cause, message }), _, _) => (cause.blames_image(), message),
        (None, Some(replica_failure), _) => (false, message_of(replica_failure)),
        // The pods run, but fail their readiness check.
        (None, None, Some(deadline_exceeded)) => (!unready.is_empty(), message_of(deadline_exceeded)),
        (None, None, None) => return None,
    };
    Some(PodFailure { definite: deadline_exceeded.is_some(), blames_image, message })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn image(letter: &str) -> String {
        format!("repo@sha256:{}", letter.repeat(64))
    }

    fn deployed(status: &Value) -> Value {
        json!({
            "metadata": { "generation": 4, "annotations": { "cdm/fence": "7.2" } },
            "spec": {
                "replicas": 2,
                "selector": { "matchLabels": { "app": "blue" } },
                "template": { "spec": { "containers": [
                    { "name": "proxy", "image": "proxy:1" },
                    { "name": "web", "image": image("a") },
                ] } },
            },
            "status": status,
        })
    }

    fn done() -> Value {
        json!({
            "observedGeneration": 4, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2,
            "availableReplicas": 2,
        })
    }

    fn pod(letter: &str, ready: &str) -> Value {
        json!({
            "metadata": { "name": "blue-x" },
            "spec": { "containers": [{ "name": "web", "image": image(letter) }] },
            "status": {
                "conditions": [{ "type": "Ready", "status": ready }],
                "containerStatuses": [{ "name": "web", "imageID": image(letter), "state": { "running": {} } }],
            },
        })
    }

    fn view_of(status: &Value, pods: &[Value]) -> ServiceView {
        let workload = Workload::parse(deployed(status)).expect("a Deployment");
        let pods = pods.iter().map(|pod| serde_json::from_value(pod.clone()).expect("a pod"));
        view(Color::Blue, "web", &workload, &pods.collect::<Vec<Pod>>()).expect("a view")
    }

    #[test]
    fn a_service_is_ready_by_the_rule_of_kubectl_and_by_its_pods() {
        let pods = [pod("a", "True"), pod("a", "True")];
        let ready = view_of(&done(), &pods);
        assert!(ready.is_ready(), "{ready:?}");
        assert_eq!(ready.fence.to_string(), "7.2");
        for (name, value) in
            [("observedGeneration", 3), ("updatedReplicas", 1), ("availableReplicas", 1), ("replicas", 3)]
        {
            let mut status = done();
            status[name] = json!(value);
            assert!(!view_of(&status, &pods).is_ready(), "{name}");
        }
        assert!(!view_of(&done(), &[pod("a", "True"), pod("b", "True")]).is_ready(), "another image");
        assert!(!view_of(&done(), &[pod("a", "True"), pod("a", "False")]).is_ready(), "an unready pod");
        let mut other = pod("a", "True");
        other["status"]["containerStatuses"][0]["imageID"] = json!(image("b"));
        assert!(!view_of(&done(), &[pod("a", "True"), other]).is_ready(), "the node runs another image");
    }

    #[test]
    fn a_deadline_with_unready_pods_blames_the_image() {
        let mut status = done();
        status["availableReplicas"] = json!(0);
        assert_eq!(view_of(&status, &[pod("a", "False")]).failure, None);
        status["conditions"] = json!([{
            "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "too long",
        }]);
        let failure = view_of(&status, &[pod("a", "False")]).failure.expect("a failure");
        assert_eq!((failure.definite, failure.blames_image), (true, true));
        assert_eq!(failure.message, "too long");
        let nothing = view_of(&status, &[]).failure.expect("a failure");
        assert_eq!((nothing.definite, nothing.blames_image), (true, false));
        status["observedGeneration"] = json!(3);
        assert_eq!(view_of(&status, &[pod("a", "False")]).failure, None, "of an earlier template");
    }

    #[test]
    fn a_template_keeps_unknown_fields() {
        let mut object = deployed(&done());
        object["spec"]["template"]["spec"]["fieldOfALaterVersion"] = json!({ "a": 1 });
        let template = object["spec"]["template"].clone();
        let workload = Workload::parse(object).expect("a Deployment");
        assert_eq!(workload.template, template);
        let view = view(Color::Blue, "web", &workload, &[]).expect("a view");
        assert_eq!(view.template, Some(Template::new(&template.to_string())));
    }

    #[test]
    fn a_label_selector_has_labels_and_expressions() {
        let mut selector = deployed(&json!({}))["spec"]["selector"].take();
        selector["matchExpressions"] = json!([
            { "key": "tier", "operator": "In", "values": ["a", "b"] },
            { "key": "old", "operator": "DoesNotExist" },
            { "key": "new", "operator": "Exists" },
        ]);
        let selector = serde_json::from_value(selector).expect("a label selector");
        assert_eq!(label_selector(&selector), "app=blue,tier in (a,b),!old,new");
    }
}
