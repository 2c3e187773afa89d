//! The two services, their images and what is asked of them, on the wire.

use std::collections::BTreeMap;

use cdm_core::domain::service::{self, Verdict};
use cdm_core::domain::{Color, Digest, ImageError, OperationId, Subject};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::freeze::Freeze;
use super::time;
use super::words::{ServiceName, VerdictWord};
use crate::error::Refusal;

/// Both services and which one is the canary.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Services {
    /// The active canary.
    pub canary: Canary,
    /// By name: `blue` and `green`.
    pub services: BTreeMap<String, Service>,
    /// The unfinished rollout that moves sites.
    #[schema(required = true)]
    pub rollout: Option<String>,
    /// What stops moves.
    pub freezes: Vec<Freeze>,
}

/// The active canary.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Canary {
    /// The service.
    #[schema(value_type = ServiceName)]
    #[serde(rename = "selector")]
    pub color: String,
    /// Its image.
    #[schema(required = true)]
    pub image: Option<String>,
}

/// One service.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Service {
    /// Its image; null where it runs none by digest.
    #[schema(required = true)]
    pub image: Option<String>,
    /// Pods wanted.
    pub desired: u32,
    /// Pods of the present template.
    pub updated: u32,
    /// Pods that pass their readiness check.
    pub ready: u32,
    /// Pods that are available and run the wanted digest.
    pub available: u32,
    /// How many sites its record names.
    pub sites: u64,
    /// What is known of its digest.
    #[schema(value_type = VerdictWord)]
    pub verdict: String,
    /// The deploy at work on it.
    #[schema(required = true)]
    pub operation: Option<String>,
}

/// What came of a selection.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Selected {
    /// In words.
    pub message: String,
    /// Whether another service was active before.
    pub changed: bool,
    /// The active canary now.
    pub canary: Canary,
    /// What the caller should know.
    pub warnings: Vec<String>,
}

/// A selection that is done, or the operation of a deploy that was waited for.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Changed {
    /// Of `selector`.
    Selected(Selected),
    /// Of `imageTag`.
    Deployed(Box<super::operation::Operation>),
}

/// One deploy of a digest to a service.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// To which service.
    #[schema(value_type = ServiceName)]
    pub service: String,
    /// The digest.
    pub digest: String,
    /// When.
    #[schema(format = DateTime)]
    pub deployed_at: String,
    /// By whom.
    pub deployed_by: String,
    /// The operation that did it; null for a digest that was found running.
    #[schema(required = true)]
    pub operation: Option<String>,
    /// What is known of the digest.
    #[schema(value_type = VerdictWord)]
    pub verdict: String,
    /// Why.
    #[schema(required = true)]
    pub reason: Option<String>,
    /// Since when every pod of it has been available.
    #[schema(required = true, format = DateTime)]
    pub ready_at: Option<String>,
}

impl Release {
    pub(crate) fn new(color: Color, release: &service::Release) -> Self {
        let operation = OperationId::on(release.number, Subject::Service(color));
        Self {
            service: color.to_string(),
            digest: release.digest.to_string(),
            deployed_at: time(release.at),
            deployed_by: release.by.to_string(),
            operation: (release.number > 0).then(|| operation.to_string()),
            verdict: release.verdict.as_str().to_owned(),
            reason: release.reason.clone(),
            ready_at: release.ready_at.map(time),
        }
    }
}

/// `true` or `false`, also as text, since clients send it so.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Flag {
    /// As JSON has it.
    Bool(bool),
    /// As text.
    Text(FlagText),
}

/// `"true"` or `"false"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FlagText {
    /// Yes.
    True,
    /// No.
    False,
}

impl Flag {
    /// Whether it is set.
    pub const fn is_set(self) -> bool {
        match self {
            Self::Bool(set) => set,
            Self::Text(text) => matches!(text, FlagText::True),
        }
    }
}

/// Either a service to make the active canary, or an image to deploy.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum ServicesChange {
    /// Selects.
    Select(SelectService),
    /// Deploys.
    Deploy(DeployImage),
}

/// A service to make the active canary.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SelectService {
    /// The service.
    #[schema(value_type = ServiceName)]
    #[serde(rename = "selector")]
    pub color: String,
}

/// An image to deploy.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeployImage {
    /// The digest to deploy: 64 hex digits, with or without `sha256:`; or `[repository][:tag]@sha256:…`, of the
    /// configured repository.
    #[schema(pattern = "^(([A-Za-z0-9._/:-]*@)?sha256:)?[0-9a-f]{64}$")]
    pub image_tag: String,
    /// Whether the service's sites are routed to it afterwards.
    pub promote: Option<Flag>,
    /// The service to deploy to; the active canary where it is left out.
    #[schema(value_type = Option<ServiceName>)]
    pub service: Option<String>,
}

/// What [`ServicesChange`] says, as it comes: so that what is wrong can be told by its field.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangeServices {
    /// The service to make the active canary.
    #[serde(rename = "selector")]
    pub color: Option<String>,
    /// The digest to deploy.
    pub image_tag: Option<String>,
    /// Whether the service's sites are routed to it afterwards; only with an image.
    pub promote: Option<Flag>,
    /// The service to deploy to, the active canary where it is left out; only with an image.
    pub service: Option<String>,
}

/// Which service to roll back.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The service; the active canary where it is left out.
    #[schema(value_type = Option<ServiceName>)]
    pub service: Option<String>,
}

/// A person's verdict on a digest.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// What.
    pub verdict: MarkVerdict,
    /// Why.
    #[schema(min_length = 1, max_length = 500)]
    pub reason: String,
}

/// What a person may say of a digest.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MarkVerdict {
    /// Nothing.
    Unknown,
    /// It serves.
    Healthy,
    /// Never again.
    Bad,
}

impl From<MarkVerdict> for Verdict {
    fn from(verdict: MarkVerdict) -> Self {
        match verdict {
            MarkVerdict::Unknown => Self::Unknown,
            MarkVerdict::Healthy => Self::Healthy,
            MarkVerdict::Bad => Self::Bad,
        }
    }
}

/// An `imageTag`: a digest, or a reference with one in the configured repository.
pub(crate) fn digest(text: &str, repository: Option<&str>) -> Result<Digest, Refusal> {
    digest_of("imageTag", text, repository)
}

/// The same of another field.
pub(crate) fn digest_of(field: &str, text: &str, repository: Option<&str>) -> Result<Digest, Refusal> {
    Digest::of_image(text, repository).map_err(|broken| match broken {
        ImageError::Tag => Refusal::coded("tags_not_allowed", field, broken.to_string()),
        ImageError::Repository { .. } | ImageError::Digest(_) => Refusal::field(field, broken.to_string()),
    })
}
