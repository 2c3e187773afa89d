//! Changes the image of a service with one JSON patch, which tests the workload's fence and writes the caller's.

use json_patch::PatchOperation;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::jiff;
use kube::api::Patch;
use serde_json::{Value, json};

use super::api::Session;
use super::failure::Failure;
use super::names::{FENCE, annotation, fence, text};
use super::patch::{self, add, replace, test};
use super::service::{Workload, workload};
use super::settings::KubernetesSettings;
use crate::domain::{Color, Fence};
use crate::ports::{CallContext, ErrorKind, ImageWant};

/// The annotation with which `kubectl` restarts pods.
const RESTARTED: &str = "kubectl.kubernetes.io/restartedAt";
/// How often a patch is tried again after a concurrent change of the workload.
const MAX_ATTEMPTS: usize = 4;

pub(super) async fn set(
    session: &Session<'_>,
    settings: &KubernetesSettings,
    call: &CallContext,
    color: Color,
    (expect, want): (Fence, &ImageWant),
) -> Result<(), Failure> {
    let name = &settings.names(color).deployment;
    let other = || Failure::new(ErrorKind::Conflict, format!("the workload of `{color}` has another fence"));
    let mut refused = other();
    for _ in 0..MAX_ATTEMPTS {
        let workload = workload(session, settings, color).await?;
        if fence(&workload.deployment.metadata)? != expect {
            return Err(other());
        }
        let now = session.clock().wall().millis();
        let operations = operations(&workload, settings, call.fence, want, now)?;
        match session.patch::<Deployment>(name, Patch::Json(json_patch::Patch(operations))).await {
            Ok(_) => return Ok(()),
            // A test failed: of the fence, or of a field that changes without it. Reading again shows which.
            Err(failure) if is_failed_test(&failure) => refused = failure,
            Err(failure) => return Err(failure),
        }
    }
    Err(refused)
}

/// Returns whether a patch may have been rejected because one of its tests failed.
pub(super) fn is_failed_test(failure: &Failure) -> bool {
    matches!(failure.kind, ErrorKind::Invalid | ErrorKind::Conflict) && !failure.maybe_applied
}

fn operations(
    workload: &Workload,
    settings: &KubernetesSettings,
    fence: Fence,
    want: &ImageWant,
    now: u64,
) -> Result<Vec<PatchOperation>, Failure> {
    let invalid = |message: &str| Failure::new(ErrorKind::Invalid, message);
    let metadata = &workload.deployment.metadata;
    let mut operations = vec![match annotation(metadata, FENCE) {
        Some(stored) => test(&patch::annotation(FENCE), stored),
        // Without a fence, the patch tests the resource version of the whole object.
        None => {
            test(&["metadata", "resourceVersion"], metadata.resource_version.as_deref().unwrap_or_default())
        }
    }];
    if metadata.annotations.is_none() {
        operations.push(add(&["metadata", "annotations"], json!({})));
    }
    operations.push(add(&patch::annotation(FENCE), fence.to_string()));
    match want {
        ImageWant::Template(template) => {
            let template: Value = serde_json::from_str(template.as_str())
                .map_err(|_| invalid("the template was not created by this cluster"))?;
            if template.pointer("/spec/containers").is_none() {
                return Err(invalid("the template was not created by this cluster"));
            }
            if workload.template != template {
                operations.push(replace(&["spec", "template"], template));
            }
        }
        ImageWant::Digest(digest) => {
            let containers = workload.template.pointer("/spec/containers").and_then(Value::as_array);
            let containers = containers.into_iter().flatten();
            let (index, container) = containers
                .enumerate()
                .find(|(_, container)| text(container, "/name") == Some(&settings.container))
                .ok_or_else(|| invalid(&format!("the workload has no container `{}`", settings.container)))?;
            let image = format!("{}@{digest}", settings.image);
            if text(container, "/image") != Some(&image) {
                let index = index.to_string();
                let field =
                    |name: &'static str| ["spec", "template", "spec", "containers", index.as_str(), name];
                operations.push(test(&field("name"), settings.container.as_str()));
                operations.push(replace(&field("image"), image));
                operations.extend(restart(workload, now));
            }
        }
    }
    Ok(operations)
}

fn restart(workload: &Workload, now: u64) -> Vec<PatchOperation> {
    let now = i64::try_from(now).ok().and_then(|now| jiff::Timestamp::from_millisecond(now).ok());
    let Some(now) = now else { return Vec::new() };
    let mut operations = Vec::new();
    let path = ["spec", "template", "metadata", "annotations", RESTARTED];
    if workload.template.get("metadata").is_none() {
        operations.push(add(&path[..3], json!({})));
    }
    if workload.template.pointer("/metadata/annotations").is_none() {
        operations.push(add(&path[..4], json!({})));
    }
    operations.push(add(&path, now.to_string()));
    operations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Digest, Epoch, Template};

    fn settings() -> KubernetesSettings {
        KubernetesSettings::new("sites", "registry.example/wordpress")
    }

    fn workload() -> Value {
        json!({
            "metadata": { "resourceVersion": "12", "annotations": { "cdm/fence": "3.1" } },
            "spec": { "template": { "spec": { "containers": [
                { "name": "proxy", "image": "proxy:1" },
                { "name": "web", "image": "registry.example/wordpress:6" },
            ] } } },
        })
    }

    /// Returns the operations as JSON.
    fn patched(workload: Value, fence: Fence, want: &ImageWant, now: u64) -> Result<Value, Failure> {
        let workload = Workload::parse(workload).expect("a Deployment");
        operations(&workload, &settings(), fence, want, now).map(|operations| json!(operations))
    }

    fn digest() -> Digest {
        Digest::parse(&"a".repeat(64)).expect("a digest")
    }

    #[test]
    fn the_image_is_replaced_under_the_fence() {
        let result = patched(workload(), Fence::new(4, Epoch(1)), &ImageWant::Digest(digest()), 1_000);
        let image = format!("registry.example/wordpress@{}", digest());
        let want = json!([
            { "op": "test", "path": "/metadata/annotations/cdm~1fence", "value": "3.1" },
            { "op": "add", "path": "/metadata/annotations/cdm~1fence", "value": "4.1" },
            { "op": "test", "path": "/spec/template/spec/containers/1/name", "value": "web" },
            { "op": "replace", "path": "/spec/template/spec/containers/1/image", "value": image },
            { "op": "add", "path": "/spec/template/metadata", "value": {} },
            { "op": "add", "path": "/spec/template/metadata/annotations", "value": {} },
            {
                "op": "add",
                "path": "/spec/template/metadata/annotations/kubectl.kubernetes.io~1restartedAt",
                "value": "1970-01-01T00:00:01Z",
            },
        ]);
        assert_eq!(result, Ok(want));
    }

    #[test]
    fn an_unchanged_image_restarts_nothing() {
        let mut workload = workload();
        let image = format!("registry.example/wordpress@{}", digest());
        workload["spec"]["template"]["spec"]["containers"][1]["image"] = json!(image);
        let template = Template::new(&workload["spec"]["template"].to_string());
        for want in [ImageWant::Digest(digest()), ImageWant::Template(template)] {
            let result = patched(workload.clone(), Fence::new(4, Epoch(1)), &want, 1_000).expect("a patch");
            assert_eq!(result.as_array().map(Vec::len), Some(2), "{result:?}");
        }
    }

    #[test]
    fn without_a_fence_the_resource_version_is_tested() {
        let mut workload = workload();
        workload["metadata"] = json!({ "resourceVersion": "12" });
        let want = ImageWant::Digest(digest());
        let result = patched(workload.clone(), Fence::new(4, Epoch(1)), &want, 1_000).expect("a patch");
        assert_eq!(result[0], json!({ "op": "test", "path": "/metadata/resourceVersion", "value": "12" }));
        assert_eq!(result[1], json!({ "op": "add", "path": "/metadata/annotations", "value": {} }));
    }

    #[test]
    fn an_invalid_template_is_rejected() {
        for text in ["", "template:1", "{}", "[]"] {
            let want = ImageWant::Template(Template::new(text));
            let refused = patched(workload(), Fence::new(4, Epoch(1)), &want, 1).expect_err(text);
            assert_eq!(refused.kind, ErrorKind::Invalid);
        }
    }
}
