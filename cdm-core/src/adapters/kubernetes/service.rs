//! The state of a service: its Deployment by the rule of `kubectl rollout status`, and what its pods actually run.

use serde_json::Value;

use super::api::{DEPLOYMENTS, PODS, Session};
use super::canary::digest_of;
use super::failure::Failure;
use super::names::{fence, text};
use super::pods::{self, PodProblem};
use super::settings::KubernetesSettings;
use crate::domain::{Color, Template};
use crate::ports::{ErrorKind, PodFailure, ServiceView};

pub(super) async fn read(
    session: &Session<'_>,
    settings: &KubernetesSettings,
    color: Color,
) -> Result<ServiceView, Failure> {
    let deployment = deployment(session, settings, color).await?;
    let pods = session.list(PODS, &label_selector(&deployment)).await?;
    view(color, &settings.container, &deployment, &pods)
}

/// Reads the Deployment of a service.
pub(super) async fn deployment(
    session: &Session<'_>,
    settings: &KubernetesSettings,
    color: Color,
) -> Result<Value, Failure> {
    let name = &settings.names(color).deployment;
    session.get(DEPLOYMENTS, name).await?.ok_or_else(|| {
        Failure::new(ErrorKind::NotFound, format!("the Deployment `{name}` of `{color}` does not exist"))
    })
}

/// The label selector of a Deployment, in the format of a query.
fn label_selector(deployment: &Value) -> String {
    let mut parts = Vec::new();
    let selector = deployment.pointer("/spec/selector");
    let labels = selector.and_then(|selector| selector.get("matchLabels")?.as_object());
    for (key, value) in labels.into_iter().flatten() {
        parts.push(format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    let expressions = selector.and_then(|selector| selector.get("matchExpressions")?.as_array());
    for expression in expressions.into_iter().flatten() {
        let key = text(expression, "/key").unwrap_or_default();
        let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
        let values: Vec<&str> = values.filter_map(Value::as_str).collect();
        match text(expression, "/operator").unwrap_or_default() {
            "In" => parts.push(format!("{key} in ({})", values.join(","))),
            "NotIn" => parts.push(format!("{key} notin ({})", values.join(","))),
            "DoesNotExist" => parts.push(format!("!{key}")),
            _ => parts.push(key.to_owned()),
        }
    }
    parts.join(",")
}

fn view(color: Color, container: &str, deployment: &Value, pods: &[Value]) -> Result<ServiceView, Failure> {
    let number = |pointer: &str| deployment.pointer(pointer).and_then(Value::as_u64);
    let count = |pointer: &str| number(pointer).and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
    let template = deployment.pointer("/spec/template");
    let wanted =
        template.and_then(|template| pods::image(template.get("spec")?, container)).ok_or_else(|| {
            Failure::new(
                ErrorKind::Invalid,
                format!("the Deployment of `{color}` has no container `{container}`"),
            )
        })?;
    let digest = digest_of(wanted);
    let present: Vec<&Value> = pods
        .iter()
        .filter(|pod| !pods::is_deleting(pod))
        .filter(|pod| pod.get("spec").and_then(|spec| pods::image(spec, container)) == Some(wanted))
        .collect();
    let runs_it = |pod: &&&Value| digest.is_none_or(|digest| pods::runs(pod, container, digest));
    let proven = present.iter().filter(|pod| pods::is_ready(pod)).filter(runs_it).count();
    let available = count("/status/availableReplicas").min(u32::try_from(proven).unwrap_or(u32::MAX));
    let observed = number("/status/observedGeneration") >= number("/metadata/generation");
    Ok(ServiceView {
        color,
        digest,
        template: template.map(|template| Template::new(&template.to_string())),
        fence: fence(deployment)?,
        desired: number("/spec/replicas").map_or(1, |n| u32::try_from(n).unwrap_or(u32::MAX)),
        updated: count("/status/updatedReplicas"),
        ready: count("/status/readyReplicas"),
        available,
        total: count("/status/replicas"),
        observed,
        failure: if observed { failure(deployment, &present) } else { None },
    })
}

/// Why the pods of the current template do not become ready; `None` if there is no problem.
fn failure(deployment: &Value, present: &[&Value]) -> Option<PodFailure> {
    let unready: Vec<&Value> = present.iter().copied().filter(|pod| !pods::is_ready(pod)).collect();
    let problem = unready.iter().filter_map(|pod| pods::problem(pod)).max_by_key(|problem| problem.cause);
    let message_of = |condition: &Value| text(condition, "/message").unwrap_or_default().to_owned();
    let deadline_exceeded = pods::condition(deployment, "Progressing").filter(|condition| {
        text(condition, "/status") == Some("False")
            && text(condition, "/reason") == Some("ProgressDeadlineExceeded")
    });
    let replica_failure = pods::condition(deployment, "ReplicaFailure")
        .filter(|condition| text(condition, "/status") == Some("True"));
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
        view(Color::Blue, "web", &deployed(status), pods).expect("a view")
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
    fn a_label_selector_has_labels_and_expressions() {
        let mut deployment = deployed(&json!({}));
        deployment["spec"]["selector"]["matchExpressions"] = json!([
            { "key": "tier", "operator": "In", "values": ["a", "b"] },
            { "key": "old", "operator": "DoesNotExist" },
            { "key": "new", "operator": "Exists" },
        ]);
        assert_eq!(label_selector(&deployment), "app=blue,tier in (a,b),!old,new");
    }
}
