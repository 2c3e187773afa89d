//! Why a pod does not start or become ready, in the words of Kubernetes, and whether the image is the cause.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};
use serde_json::Value;

use super::names::{self, text};
use crate::domain::Digest;

/// Maximum length of a container's message, in characters.
const MAX_MESSAGE: usize = 300;

/// Why a pod does not start or become ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodProblem {
    pub(super) cause: Cause,
    pub(super) message: String,
}

/// The category of a problem, in order of severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// No node can run the pod.
    Unschedulable,
    /// A volume, a Secret or a setting is missing.
    Configuration,
    /// The registry rejects the pull or cannot be reached.
    Registry,
    /// The registry does not have the image.
    AbsentImage,
    /// The container crashes repeatedly.
    Crash,
}

impl PodProblem {
    /// Returns whether waiting cannot help a job's pod: its image cannot be pulled, or the image's user is root
    /// although the pod must not run as root.
    pub(super) fn fails_job(&self) -> bool {
        self.cause.is_pull() || self.message.contains("runAsNonRoot")
    }
}

impl Cause {
    pub(super) const fn blames_image(self) -> bool {
        match self {
            Self::Unschedulable | Self::Configuration | Self::Registry => false,
            Self::AbsentImage | Self::Crash => true,
        }
    }

    /// Returns whether the image could not be pulled.
    pub(super) const fn is_pull(self) -> bool {
        match self {
            Self::Registry | Self::AbsentImage => true,
            Self::Unschedulable | Self::Configuration | Self::Crash => false,
        }
    }
}

/// Returns the most severe problem of a pod.
pub(super) fn problem(pod: &Pod) -> Option<PodProblem> {
    let waiting = statuses(pod).filter_map(|status| of_container(status, pod));
    waiting.chain(unschedulable(pod)).max_by_key(|problem| problem.cause)
}

/// Returns the statuses of all containers, init containers first.
pub(super) fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|status| {
        let init_containers = status.init_container_statuses.iter().flatten();
        init_containers.chain(status.container_statuses.iter().flatten())
    })
}

pub(super) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

fn condition<'a>(pod: &'a Pod, of_type: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == of_type)
}

/// Returns the image of a container of a pod.
pub(super) fn image<'a>(pod: &'a Pod, container: &str) -> Option<&'a str> {
    let containers = &pod.spec.as_ref()?.containers;
    containers.iter().find(|candidate| candidate.name == container)?.image.as_deref()
}

/// Returns the image of a container in a pod template.
pub(super) fn template_image<'a>(template: &'a Value, container: &str) -> Option<&'a str> {
    let containers = template.pointer("/spec/containers")?.as_array()?;
    text(containers.iter().find(|candidate| text(candidate, "/name") == Some(container))?, "/image")
}

/// Returns the digest in an image reference; `None` for a tag.
pub(super) fn digest_of(image: &str) -> Option<Digest> {
    Digest::parse(image.rsplit_once('@')?.1).ok()
}

/// Returns whether a pod's container runs this digest, as its node reports. If the node reports only a local image ID,
/// which is not the registry's digest, the digest in the pod's specification counts.
pub(super) fn runs(pod: &Pod, container: &str, digest: Digest) -> bool {
    let Some(status) = statuses(pod).find(|status| status.name == container) else { return false };
    let image_id = &status.image_id;
    match image_id.rsplit_once('@') {
        Some(_) => digest_of(image_id) == Some(digest),
        None => !image_id.is_empty() && image(pod, container).and_then(digest_of) == Some(digest),
    }
}

/// The termination of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Termination<'a> {
    pub(super) code: i32,
    name: &'a str,
    message: &'a str,
}

impl Termination<'_> {
    /// Returns whether the termination message has this line.
    pub(super) fn has_line(&self, line: &str) -> bool {
        self.message.lines().any(|detail| detail.trim() == line)
    }

    /// Returns the termination message, with the container's name and exit code.
    pub(super) fn describe(&self) -> String {
        format!("`{}` ended with {}: {}", self.name, self.code, tail(self.message))
    }
}

/// Returns the termination in a container's status; `None` if the container has not terminated.
pub(super) fn exit(status: &ContainerStatus) -> Option<Termination<'_>> {
    let terminated = status.state.as_ref()?.terminated.as_ref()?;
    let reason = terminated.reason.as_deref().filter(|reason| *reason != "Error");
    let message = terminated.message.as_deref().or(reason).unwrap_or_default();
    Some(Termination { code: terminated.exit_code, name: &status.name, message })
}

/// Returns the message of the first container that failed, with its name.
pub(super) fn failure_message(pod: &Pod) -> Option<String> {
    statuses(pod).filter_map(exit).find(|exit| exit.code != 0).map(|exit| exit.describe())
}

/// Returns the end of a text, as one line.
pub(super) fn tail(text: &str) -> String {
    let line: Vec<&str> = text.split_whitespace().collect();
    let line = line.join(" ");
    let skip = line.chars().count().saturating_sub(MAX_MESSAGE);
    line.chars().skip(skip).collect()
}

fn of_container(status: &ContainerStatus, pod: &Pod) -> Option<PodProblem> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    let detail = waiting.message.as_deref().unwrap_or_default();
    let cause = match reason {
        "ErrImagePull" | "ImagePullBackOff" | "ImageInspectError" | "RegistryUnavailable" => pull(detail),
        "InvalidImageName" | "ErrImageNeverPull" => Cause::AbsentImage,
        "CrashLoopBackOff" | "RunContainerError" | "CreateContainerError" => Cause::Crash,
        "CreateContainerConfigError" => Cause::Configuration,
        _ => return None,
    };
    let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    let ended = last.map(|ended| {
        let message = ended.message.as_deref().or(ended.reason.as_deref()).unwrap_or_default();
        format!(", ended with {}: {message}", ended.exit_code)
    });
    let pod = names::name(&pod.metadata);
    let message = ended.unwrap_or_else(|| format!(": {detail}"));
    Some(PodProblem { cause, message: format!("pod `{pod}`: {reason}{}", tail(&message)) })
}

/// Returns the cause of a failed pull. Only a missing image is the image's fault; a rejection by the registry is not.
fn pull(detail: &str) -> Cause {
    const REFUSED: &[&str] =
        &["denied", "unauthorized", "authentication", "authorization", "toomanyrequests", "429"];
    const ABSENT: &[&str] = &["not found", "manifest unknown", "no such", "does not exist"];
    let detail = detail.to_ascii_lowercase();
    let contains_any = |words: &[&str]| words.iter().any(|word| detail.contains(word));
    if !contains_any(REFUSED) && contains_any(ABSENT) { Cause::AbsentImage } else { Cause::Registry }
}

fn unschedulable(pod: &Pod) -> Option<PodProblem> {
    let scheduled = condition(pod, "PodScheduled")?;
    if scheduled.status != "False" {
        return None;
    }
    let name = names::name(&pod.metadata);
    let detail = scheduled.message.as_deref().unwrap_or_default();
    let message = format!("pod `{name}` is not scheduled: {}", tail(detail));
    Some(PodProblem { cause: Cause::Unschedulable, message })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod_of(value: Value) -> Pod {
        serde_json::from_value(value).expect("a pod")
    }

    fn waiting(reason: &str, message: &str) -> Pod {
        let state = json!({ "waiting": { "reason": reason, "message": message } });
        pod_of(json!({
            "metadata": { "name": "blue-1" },
            "status": { "containerStatuses": [{ "name": "web", "state": state }] },
        }))
    }

    #[test]
    fn only_a_missing_image_and_a_crash_blame_the_image() {
        for (reason, message, cause) in [
            ("ErrImagePull", "rpc error: manifest unknown", Cause::AbsentImage),
            ("ErrImagePull", "repo@sha256:00: not found", Cause::AbsentImage),
            ("ErrImagePull", "pull access denied, repository does not exist", Cause::Registry),
            ("ErrImagePull", "toomanyrequests: slow down", Cause::Registry),
            ("ImagePullBackOff", "Back-off pulling image", Cause::Registry),
            ("InvalidImageName", "", Cause::AbsentImage),
            ("CrashLoopBackOff", "back-off", Cause::Crash),
            ("CreateContainerConfigError", "secret not found", Cause::Configuration),
        ] {
            let problem = problem(&waiting(reason, message)).expect(reason);
            assert_eq!(problem.cause, cause, "{reason} {message}");
            assert!(problem.message.contains(reason), "{}", problem.message);
        }
        assert_eq!(problem(&waiting("ContainerCreating", "")), None);
        assert_eq!(problem(&waiting("PodInitializing", "")), None);
    }

    #[test]
    fn a_pod_without_a_node_does_not_blame_the_image() {
        let pod = pod_of(json!({
            "metadata": { "name": "blue-1" },
            "status": { "conditions": [
                { "type": "PodScheduled", "status": "False", "message": "0/3 nodes are available" },
            ] },
        }));
        let problem = problem(&pod).expect("a problem");
        assert!(!problem.cause.blames_image());
        assert!(problem.message.contains("0/3 nodes"));
    }

    #[test]
    fn the_image_id_of_the_node_takes_precedence() {
        let digest = |letter: &str| format!("sha256:{}", letter.repeat(64));
        let pod = |image_id: &str| {
            pod_of(json!({
                "spec": { "containers": [{ "name": "web", "image": format!("repo@{}", digest("a")) }] },
                "status": { "containerStatuses": [{ "name": "web", "imageID": image_id }] },
            }))
        };
        let wanted = Digest::parse(&digest("a")).expect("a digest");
        for (image_id, runs_it) in [
            (format!("repo@{}", digest("a")), true),
            (format!("docker-pullable://repo@{}", digest("a")), true),
            (format!("repo@{}", digest("b")), false),
            (digest("c"), true),
            (String::new(), false),
        ] {
            assert_eq!(runs(&pod(&image_id), "web", wanted), runs_it, "{image_id}");
        }
        assert!(!runs(&Pod::default(), "web", wanted));
    }
}
