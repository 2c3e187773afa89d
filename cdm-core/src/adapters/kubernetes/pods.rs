//! What keeps a pod from getting on, in the platform's own words, and whether it speaks against the image.

use serde_json::Value;

use super::canary::digest_of;
use super::names::text;
use crate::domain::Digest;

/// How much of a container's last words is kept.
const WORDS: usize = 300;

/// What keeps a pod from getting on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) cause: Cause,
    pub(super) message: String,
}

/// What sort of thing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// No node takes the pod.
    Unschedulable,
    /// A mount, a Secret or a setting is missing.
    Configuration,
    /// The registry refuses, or is not to be reached.
    Registry,
    /// The registry has no such image.
    AbsentImage,
    /// The program ends again and again.
    Crash,
}

impl Trouble {
    /// Whether a job's pod waits for what no waiting brings: an image that does not come, or one whose user is root where
    /// the pod may not run as root.
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

    /// Whether the image did not come to the node.
    pub(super) const fn is_pull(self) -> bool {
        match self {
            Self::Registry | Self::AbsentImage => true,
            Self::Unschedulable | Self::Configuration | Self::Crash => false,
        }
    }
}

/// The worst that keeps a pod from getting on.
pub(super) fn trouble(pod: &Value) -> Option<Trouble> {
    let waiting = statuses(pod).filter_map(|status| of_container(status, pod));
    waiting.chain(unschedulable(pod)).max_by_key(|trouble| trouble.cause)
}

/// The statuses of all its containers, those that run first before the others.
pub(super) fn statuses(pod: &Value) -> impl Iterator<Item = &Value> {
    let of = |list: &str| pod.pointer(list).and_then(Value::as_array).into_iter().flatten();
    of("/status/initContainerStatuses").chain(of("/status/containerStatuses"))
}

pub(super) fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready").and_then(|condition| text(condition, "/status")) == Some("True")
}

pub(super) fn is_going(object: &Value) -> bool {
    text(object, "/metadata/deletionTimestamp").is_some()
}

/// A condition of an object's status.
pub(super) fn condition<'a>(object: &'a Value, of_type: &str) -> Option<&'a Value> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|condition| text(condition, "/type") == Some(of_type))
}

/// The image that a pod's container was asked for.
pub(super) fn image<'a>(pod_spec: &'a Value, container: &str) -> Option<&'a str> {
    let containers = pod_spec.get("containers")?.as_array()?;
    text(containers.iter().find(|candidate| text(candidate, "/name") == Some(container))?, "/image")
}

/// Whether a pod's container runs that digest, by what its node says. A node that only names its own copy says nothing
/// about the registry's digest; there the pod's wish counts, which is by content too.
pub(super) fn runs(pod: &Value, container: &str, digest: Digest) -> bool {
    let mut statuses = statuses(pod).filter(|status| text(status, "/name") == Some(container));
    let Some(image_id) = statuses.find_map(|status| text(status, "/imageID")) else { return false };
    match image_id.rsplit_once('@') {
        Some(_) => digest_of(image_id) == Some(digest),
        None => {
            let wanted = pod.get("spec").and_then(|spec| image(spec, container));
            !image_id.is_empty() && wanted.and_then(digest_of) == Some(digest)
        }
    }
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended<'a> {
    pub(super) code: i64,
    name: &'a str,
    words: &'a str,
}

impl Ended<'_> {
    /// Whether its last words have this line.
    pub(super) fn says(&self, line: &str) -> bool {
        self.words.lines().any(|said| said.trim() == line)
    }

    /// Its last words, with its name.
    pub(super) fn told(&self) -> String {
        format!("`{}` ended with {}: {}", self.name, self.code, tail(self.words))
    }
}

/// How the container of a status ended; `None` while it has not.
pub(super) fn exit(status: &Value) -> Option<Ended<'_>> {
    let code = status.pointer("/state/terminated/exitCode").and_then(Value::as_i64)?;
    let reason = text(status, "/state/terminated/reason").filter(|reason| *reason != "Error");
    let words = text(status, "/state/terminated/message").or(reason).unwrap_or_default();
    Some(Ended { code, name: text(status, "/name").unwrap_or_default(), words })
}

/// The last words of a container that failed, with its name.
pub(super) fn last_words(pod: &Value) -> Option<String> {
    statuses(pod).filter_map(exit).find(|exit| exit.code != 0).map(|exit| exit.told())
}

/// The end of a text, on one line.
pub(super) fn tail(text: &str) -> String {
    let line: Vec<&str> = text.split_whitespace().collect();
    let line = line.join(" ");
    let skip = line.chars().count().saturating_sub(WORDS);
    line.chars().skip(skip).collect()
}

fn of_container(status: &Value, pod: &Value) -> Option<Trouble> {
    let reason = text(status, "/state/waiting/reason")?;
    let said = text(status, "/state/waiting/message").unwrap_or_default();
    let cause = match reason {
        "ErrImagePull" | "ImagePullBackOff" | "ImageInspectError" | "RegistryUnavailable" => pull(said),
        "InvalidImageName" | "ErrImageNeverPull" => Cause::AbsentImage,
        "CrashLoopBackOff" | "RunContainerError" | "CreateContainerError" => Cause::Crash,
        "CreateContainerConfigError" => Cause::Configuration,
        _ => return None,
    };
    let ended = status.pointer("/lastState/terminated").map(|ended| {
        let code = ended.get("exitCode").and_then(Value::as_i64).unwrap_or_default();
        let words = text(ended, "/message").or_else(|| text(ended, "/reason")).unwrap_or_default();
        format!(", ended with {code}: {words}")
    });
    let pod = text(pod, "/metadata/name").unwrap_or_default();
    let words = ended.unwrap_or_else(|| format!(": {said}"));
    Some(Trouble { cause, message: format!("pod `{pod}`: {reason}{}", tail(&words)) })
}

/// What a failed pull says. A registry's refusal is no word about the image; only that there is none is.
fn pull(said: &str) -> Cause {
    const REFUSED: &[&str] =
        &["denied", "unauthorized", "authentication", "authorization", "toomanyrequests", "429"];
    const ABSENT: &[&str] = &["not found", "manifest unknown", "no such", "does not exist"];
    let said = said.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if !says(REFUSED) && says(ABSENT) { Cause::AbsentImage } else { Cause::Registry }
}

fn unschedulable(pod: &Value) -> Option<Trouble> {
    let scheduled = condition(pod, "PodScheduled")?;
    if text(scheduled, "/status") != Some("False") {
        return None;
    }
    let name = text(pod, "/metadata/name").unwrap_or_default();
    let said = text(scheduled, "/message").unwrap_or_default();
    let message = format!("pod `{name}` is not scheduled: {}", tail(said));
    Some(Trouble { cause: Cause::Unschedulable, message })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn waiting(reason: &str, message: &str) -> Value {
        let state = json!({ "waiting": { "reason": reason, "message": message } });
        json!({
            "metadata": { "name": "blue-1" },
            "status": { "containerStatuses": [{ "name": "web", "state": state }] },
        })
    }

    #[test]
    fn only_an_absent_image_and_a_crash_speak_against_the_image() {
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
            let trouble = trouble(&waiting(reason, message)).expect(reason);
            assert_eq!(trouble.cause, cause, "{reason} {message}");
            assert!(trouble.message.contains(reason), "{}", trouble.message);
        }
        assert_eq!(trouble(&waiting("ContainerCreating", "")), None);
        assert_eq!(trouble(&waiting("PodInitializing", "")), None);
    }

    #[test]
    fn a_pod_without_a_node_is_no_word_about_the_image() {
        let pod = json!({
            "metadata": { "name": "blue-1" },
            "status": { "conditions": [
                { "type": "PodScheduled", "status": "False", "message": "0/3 nodes are available" },
            ] },
        });
        let trouble = trouble(&pod).expect("trouble");
        assert!(!trouble.cause.blames_image());
        assert!(trouble.message.contains("0/3 nodes"));
    }

    #[test]
    fn the_nodes_word_about_the_image_counts() {
        let digest = |letter: &str| format!("sha256:{}", letter.repeat(64));
        let pod = |image_id: &str| {
            json!({
                "spec": { "containers": [{ "name": "web", "image": format!("repo@{}", digest("a")) }] },
                "status": { "containerStatuses": [{ "name": "web", "imageID": image_id }] },
            })
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
        assert!(!runs(&json!({}), "web", wanted));
    }
}
