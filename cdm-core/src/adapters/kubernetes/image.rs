//! Changes the image of a service with one JSON patch, which tests the workload's fence and writes the caller's.

use k8s_openapi::jiff;
use serde_json::{Value, json};

use super::api::{DEPLOYMENTS, Patch, Session};
use super::failure::Failure;
use super::names::{FENCE, annotation, annotation_path, escaped, fence, text};
use super::service::deployment;
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
        let workload = deployment(session, settings, color).await?;
        if fence(&workload)? != expect {
            return Err(other());
        }
        let now = session.clock().wall().millis();
        let patch = patch(&workload, settings, call.fence, want, now)?;
        match session.patch(DEPLOYMENTS, name, Patch::Json(&patch)).await {
            Ok(_) => return Ok(()),
            // A test failed: of the fence, or of a field that changes without it. Reading again shows which.
            Err(failure) if is_failed_test(&failure) => refused = failure,
            Err(failure) => return Err(failure),
        }
    }
    Err(refused)
}

/// Whether a patch may have been rejected because one of its tests failed.
pub(super) fn is_failed_test(failure: &Failure) -> bool {
    matches!(failure.kind, ErrorKind::Invalid | ErrorKind::Conflict) && !failure.maybe_applied
}

fn patch(
    workload: &Value,
    settings: &KubernetesSettings,
    fence: Fence,
    want: &ImageWant,
    now: u64,
) -> Result<Vec<Value>, Failure> {
    let invalid = |message: &str| Failure::new(ErrorKind::Invalid, message);
    let mut patch = vec![match annotation(workload, FENCE) {
        Some(stored) => json!({ "op": "test", "path": annotation_path(FENCE), "value": stored }),
        // Without a fence, the patch tests the resource version of the whole object.
        None => {
            let version = text(workload, "/metadata/resourceVersion").unwrap_or_default();
            json!({ "op": "test", "path": "/metadata/resourceVersion", "value": version })
        }
    }];
    if workload.pointer("/metadata/annotations").is_none() {
        patch.push(json!({ "op": "add", "path": "/metadata/annotations", "value": {} }));
    }
    patch.push(json!({ "op": "add", "path": annotation_path(FENCE), "value": fence.to_string() }));
    match want {
        ImageWant::Template(template) => {
            let template: Value = serde_json::from_str(template.as_str())
                .map_err(|_| invalid("the template was not created by this cluster"))?;
            if template.pointer("/spec/containers").is_none() {
                return Err(invalid("the template was not created by this cluster"));
            }
            if workload.pointer("/spec/template") != Some(&template) {
                patch.push(json!({ "op": "replace", "path": "/spec/template", "value": template }));
            }
        }
        ImageWant::Digest(digest) => {
            let containers = workload.pointer("/spec/template/spec/containers").and_then(Value::as_array);
            let mut containers = containers.into_iter().flatten();
            let named = |container: &Value| text(container, "/name") == Some(&settings.container);
            let at = containers
                .position(named)
                .ok_or_else(|| invalid(&format!("the workload has no container `{}`", settings.container)))?;
            let path = format!("/spec/template/spec/containers/{at}");
            let image = format!("{}@{digest}", settings.image);
            if workload.pointer(&format!("{path}/image")).and_then(Value::as_str) != Some(&image) {
                let named =
                    json!({ "op": "test", "path": format!("{path}/name"), "value": settings.container });
                patch.push(named);
                patch.push(json!({ "op": "replace", "path": format!("{path}/image"), "value": image }));
                patch.extend(restart(workload, now));
            }
        }
    }
    Ok(patch)
}

fn restart(workload: &Value, now: u64) -> Vec<Value> {
    let now = i64::try_from(now).ok().and_then(|now| jiff::Timestamp::from_millisecond(now).ok());
    let Some(now) = now else { return Vec::new() };
    let mut patch = Vec::new();
    for parent in ["/spec/template/metadata", "/spec/template/metadata/annotations"] {
        if workload.pointer(parent).is_none() {
            patch.push(json!({ "op": "add", "path": parent, "value": {} }));
        }
    }
    let path = format!("/spec/template/metadata/annotations/{}", escaped(RESTARTED));
    patch.push(json!({ "op": "add", "path": path, "value": now.to_string() }));
    patch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Digest, Template};

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

    fn digest() -> Digest {
        Digest::parse(&"a".repeat(64)).expect("a digest")
    }

    #[test]
    fn the_image_is_replaced_under_the_fence() {
        let result = patch(&workload(), &settings(), Fence::new(4, 1), &ImageWant::Digest(digest()), 1_000);
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
        assert_eq!(result.map(Value::from), Ok(want));
    }

    #[test]
    fn an_unchanged_image_restarts_nothing() {
        let mut workload = workload();
        let image = format!("registry.example/wordpress@{}", digest());
        workload["spec"]["template"]["spec"]["containers"][1]["image"] = json!(image);
        let template = Template::new(&workload["spec"]["template"].to_string());
        for want in [ImageWant::Digest(digest()), ImageWant::Template(template)] {
            let result = patch(&workload, &settings(), Fence::new(4, 1), &want, 1_000).expect("a patch");
            assert_eq!(result.len(), 2, "{result:?}");
        }
    }

    #[test]
    fn without_a_fence_the_resource_version_is_tested() {
        let mut workload = workload();
        workload["metadata"] = json!({ "resourceVersion": "12" });
        let want = ImageWant::Digest(digest());
        let result = patch(&workload, &settings(), Fence::new(4, 1), &want, 1_000).expect("a patch");
        assert_eq!(result[0], json!({ "op": "test", "path": "/metadata/resourceVersion", "value": "12" }));
        assert_eq!(result[1], json!({ "op": "add", "path": "/metadata/annotations", "value": {} }));
    }

    #[test]
    fn an_invalid_template_is_rejected() {
        for text in ["", "template:1", "{}", "[]"] {
            let want = ImageWant::Template(Template::new(text));
            let refused = patch(&workload(), &settings(), Fence::new(4, 1), &want, 1).expect_err(text);
            assert_eq!(refused.kind, ErrorKind::Invalid);
        }
    }
}
