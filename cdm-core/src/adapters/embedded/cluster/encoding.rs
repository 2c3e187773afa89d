//! The stored formats of templates, jobs and failures.

use serde::{Deserialize, Serialize};

use crate::domain::{Digest, Hostnames, SiteName, Theme, Uid};
use crate::ports::{JobFailure, JobKind, JobState, PodFailure};

#[derive(Serialize, Deserialize)]
struct TemplateJson {
    image: String,
    revision: i64,
}

#[derive(Serialize, Deserialize)]
struct FailureJson {
    definite: bool,
    blames_image: bool,
    message: String,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "kebab-case")]
enum KindJson {
    Install { uid: String, hostnames: Vec<String>, canonical: String, title: String },
    ActivateTheme { uid: String, theme: String },
    FlushCaches { uids: Vec<String> },
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
enum StateJson {
    Running,
    Succeeded {
        failed: Vec<(String, String)>,
    },
    /// Older versions stored only whether a theme was missing. `theme_missing` is still written for versions that do
    /// not read `cause`.
    Failed {
        message: String,
        theme_missing: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<String>,
    },
}

/// Encodes a template of an image; the revision makes every template different.
pub(super) fn template(image: Digest, revision: i64) -> String {
    text(&TemplateJson { image: image.to_string(), revision })
}

/// Returns the digest in a template; `None` if this cluster did not create the template.
pub(super) fn digest_in(template: &str) -> Option<Digest> {
    let json: TemplateJson = serde_json::from_str(template).ok()?;
    Digest::parse(&json.image).ok()
}

/// Returns the revision in a template, which is part of the names of its pods.
pub(super) fn revision_in(template: &str) -> i64 {
    serde_json::from_str(template).map_or(0, |json: TemplateJson| json.revision)
}

pub(super) fn failure(failure: &PodFailure) -> String {
    let PodFailure { definite, blames_image, message } = failure.clone();
    text(&FailureJson { definite, blames_image, message })
}

pub(super) fn parse_failure(text: &str) -> Option<PodFailure> {
    let FailureJson { definite, blames_image, message } = serde_json::from_str(text).ok()?;
    Some(PodFailure { definite, blames_image, message })
}

pub(super) fn kind(kind: &JobKind) -> String {
    text(&match kind {
        JobKind::Install { uid, hostnames, title } => KindJson::Install {
            uid: uid.to_string(),
            hostnames: names(hostnames),
            canonical: hostnames.canonical().to_string(),
            title: title.to_string(),
        },
        JobKind::ActivateTheme { uid, theme } => {
            KindJson::ActivateTheme { uid: uid.to_string(), theme: theme.to_string() }
        }
        JobKind::FlushCaches { uids } => {
            KindJson::FlushCaches { uids: uids.iter().map(ToString::to_string).collect() }
        }
    })
}

pub(super) fn parse_kind(text: &str) -> Option<JobKind> {
    Some(match serde_json::from_str(text).ok()? {
        KindJson::Install { uid, hostnames, canonical, title } => JobKind::Install {
            uid: Uid::parse(&uid).ok()?,
            hostnames: Hostnames::parse(&hostnames, &canonical).ok()?,
            title: SiteName::parse(&title).ok()?,
        },
        KindJson::ActivateTheme { uid, theme } => {
            JobKind::ActivateTheme { uid: Uid::parse(&uid).ok()?, theme: Theme::parse(&theme).ok()? }
        }
        KindJson::FlushCaches { uids } => {
            JobKind::FlushCaches { uids: uids.iter().map(|uid| Uid::parse(uid).ok()).collect::<Option<_>>()? }
        }
    })
}

pub(super) fn state(state: &JobState) -> String {
    text(&match state.clone() {
        JobState::Running => StateJson::Running,
        JobState::Succeeded { failed } => StateJson::Succeeded {
            failed: failed.into_iter().map(|(uid, message)| (uid.to_string(), message)).collect(),
        },
        JobState::Failed { message, cause } => StateJson::Failed {
            message,
            theme_missing: cause == JobFailure::ThemeMissing,
            cause: Some(cause.as_str().to_owned()),
        },
    })
}

pub(super) fn parse_state(text: &str) -> Option<JobState> {
    Some(match serde_json::from_str(text).ok()? {
        StateJson::Running => JobState::Running,
        StateJson::Succeeded { failed } => JobState::Succeeded {
            failed: failed
                .into_iter()
                .map(|(uid, message)| Some((Uid::parse(&uid).ok()?, message)))
                .collect::<Option<_>>()?,
        },
        StateJson::Failed { message, theme_missing, cause } => JobState::Failed {
            message,
            cause: match cause {
                Some(cause) => JobFailure::parse(&cause),
                None if theme_missing => JobFailure::ThemeMissing,
                None => JobFailure::Other,
            },
        },
    })
}

/// Encodes the hostnames of a route: the canonical one, then all in order.
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

/// Encodes a document. These types contain only texts and numbers, which always have a JSON representation.
fn text<T: Serialize>(json: &T) -> String {
    serde_json::to_string(json)
        .unwrap_or_else(|error| unreachable!("texts and numbers are valid JSON: {error}"))
}
