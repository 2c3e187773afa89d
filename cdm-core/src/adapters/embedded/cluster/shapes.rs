//! How templates, jobs and failures are written down, and read back.

use serde::{Deserialize, Serialize};

use crate::domain::{Digest, Hostnames, SiteName, Theme, Uid};
use crate::ports::{JobFailure, JobKind, JobState, PodFailure};

#[derive(Serialize, Deserialize)]
struct TemplateShape {
    image: String,
    revision: i64,
}

#[derive(Serialize, Deserialize)]
struct FailureShape {
    definite: bool,
    blames_image: bool,
    message: String,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "kebab-case")]
enum KindShape {
    Install { uid: String, hostnames: Vec<String>, canonical: String, title: String },
    ActivateTheme { uid: String, theme: String },
    FlushCaches { uids: Vec<String> },
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
enum StateShape {
    Running,
    Succeeded {
        failed: Vec<(String, String)>,
    },
    /// Jobs of before have no cause but whether a theme was missing, which stays for a version that knows no other.
    Failed {
        message: String,
        theme_missing: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<String>,
    },
}

/// A template of this digest; the revision makes it unlike every other.
pub(super) fn template(image: Digest, revision: i64) -> String {
    text(&TemplateShape { image: image.to_string(), revision })
}

/// The digest in a template; `None` where the text is none of this cluster's.
pub(super) fn digest_in(template: &str) -> Option<Digest> {
    let shape: TemplateShape = serde_json::from_str(template).ok()?;
    Digest::parse(&shape.image).ok()
}

/// The revision in a template, to name pods by.
pub(super) fn revision_in(template: &str) -> i64 {
    serde_json::from_str(template).map_or(0, |shape: TemplateShape| shape.revision)
}

pub(super) fn failure(failure: &PodFailure) -> String {
    let PodFailure { definite, blames_image, message } = failure.clone();
    text(&FailureShape { definite, blames_image, message })
}

pub(super) fn parse_failure(text: &str) -> Option<PodFailure> {
    let FailureShape { definite, blames_image, message } = serde_json::from_str(text).ok()?;
    Some(PodFailure { definite, blames_image, message })
}

pub(super) fn kind(kind: &JobKind) -> String {
    text(&match kind {
        JobKind::Install { uid, hostnames, title } => KindShape::Install {
            uid: uid.to_string(),
            hostnames: names(hostnames),
            canonical: hostnames.canonical().to_string(),
            title: title.to_string(),
        },
        JobKind::ActivateTheme { uid, theme } => {
            KindShape::ActivateTheme { uid: uid.to_string(), theme: theme.to_string() }
        }
        JobKind::FlushCaches { uids } => {
            KindShape::FlushCaches { uids: uids.iter().map(ToString::to_string).collect() }
        }
    })
}

pub(super) fn parse_kind(text: &str) -> Option<JobKind> {
    Some(match serde_json::from_str(text).ok()? {
        KindShape::Install { uid, hostnames, canonical, title } => JobKind::Install {
            uid: Uid::parse(&uid).ok()?,
            hostnames: Hostnames::parse(&hostnames, &canonical).ok()?,
            title: SiteName::parse(&title).ok()?,
        },
        KindShape::ActivateTheme { uid, theme } => {
            JobKind::ActivateTheme { uid: Uid::parse(&uid).ok()?, theme: Theme::parse(&theme).ok()? }
        }
        KindShape::FlushCaches { uids } => {
            JobKind::FlushCaches { uids: uids.iter().map(|uid| Uid::parse(uid).ok()).collect::<Option<_>>()? }
        }
    })
}

pub(super) fn state(state: &JobState) -> String {
    text(&match state.clone() {
        JobState::Running => StateShape::Running,
        JobState::Succeeded { failed } => StateShape::Succeeded {
            failed: failed.into_iter().map(|(uid, message)| (uid.to_string(), message)).collect(),
        },
        JobState::Failed { message, cause } => StateShape::Failed {
            message,
            theme_missing: cause == JobFailure::ThemeMissing,
            cause: Some(cause.as_str().to_owned()),
        },
    })
}

pub(super) fn parse_state(text: &str) -> Option<JobState> {
    Some(match serde_json::from_str(text).ok()? {
        StateShape::Running => JobState::Running,
        StateShape::Succeeded { failed } => JobState::Succeeded {
            failed: failed
                .into_iter()
                .map(|(uid, message)| Some((Uid::parse(&uid).ok()?, message)))
                .collect::<Option<_>>()?,
        },
        StateShape::Failed { message, theme_missing, cause } => JobState::Failed {
            message,
            cause: match cause {
                Some(cause) => JobFailure::parse(&cause),
                None if theme_missing => JobFailure::ThemeMissing,
                None => JobFailure::Other,
            },
        },
    })
}

/// The hostnames of a route: the canonical one first, then all in their order.
pub(super) fn hostnames(hostnames: &Hostnames) -> String {
    text(&(hostnames.canonical().to_string(), names(hostnames)))
}

pub(super) fn parse_hostnames(text: &str) -> Option<Hostnames> {
    let (canonical, names): (String, Vec<String>) = serde_json::from_str(text).ok()?;
    Hostnames::parse(&names, &canonical).ok()
}

fn names(hostnames: &Hostnames) -> Vec<String> {
    hostnames.all().iter().map(ToString::to_string).collect()
}

/// These shapes are of texts and numbers only, which always have a JSON text.
fn text<T: Serialize>(shape: &T) -> String {
    serde_json::to_string(shape).unwrap_or_else(|error| unreachable!("texts and numbers: {error}"))
}
