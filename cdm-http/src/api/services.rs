//! The two services, their images and the requests to change them.

use std::collections::BTreeMap;

use cdm_core::domain::{self, Color, ImageError, Subject, service};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::freeze::Freeze;
use super::operation::Operation;
use super::{ActorName, Digest, InvalidFields, OperationId, RolloutId, ServiceName, Time, wire_enum};

wire_enum! {
    /// The verdict on a digest; `rolled_back` stays until a user sets another verdict.
    pub enum Verdict from service::Verdict {
        /// The digest has no verdict.
        Unknown = "unknown" (service::Verdict::Unknown),
        /// The digest works; a rollback may select it.
        Healthy = "healthy" (service::Verdict::Healthy),
        /// A rollback replaced the digest.
        RolledBack = "rolled_back" (service::Verdict::RolledBack),
        /// The digest failed, or a user marked it as bad; a rollback never selects it.
        Bad = "bad" (service::Verdict::Bad),
    }
}

/// Both services and the active canary.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Services {
    /// The active canary and its image.
    pub canary: Canary,
    /// The services by name: `blue` and `green`.
    #[schema(value_type = BTreeMap<String, Service>)]
    pub services: BTreeMap<ServiceName, Service>,
    /// The unfinished rollout that moves sites; null without one.
    #[schema(required = true)]
    pub rollout: Option<RolloutId>,
    /// The freezes in effect.
    pub freezes: Vec<Freeze>,
}

/// The active canary: the target of promotes and rollouts, and the default service of new sites.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Canary {
    /// The name of the service.
    #[serde(rename = "selector")]
    pub service: ServiceName,
    /// The image of the service; null if the service runs no image by digest.
    #[schema(required = true)]
    pub image: Option<String>,
}

/// The state of a service: its image, pods, sites and verdict.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// The image of the service; null if the service runs no image by digest.
    #[schema(required = true)]
    pub image: Option<String>,
    /// The desired number of pods.
    pub desired: u32,
    /// The number of pods of the current template.
    pub updated: u32,
    /// The number of pods that pass their readiness check.
    pub ready: u32,
    /// The number of pods that are available and run the desired digest.
    pub available: u32,
    /// The number of sites that are assigned to the service.
    pub sites: u64,
    /// The verdict on the digest of the service.
    pub verdict: Verdict,
    /// The deploy that runs on the service; null without one.
    #[schema(required = true)]
    pub operation: Option<OperationId>,
}

/// The result of a selection.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Selected {
    /// The result as text.
    pub message: String,
    /// Whether another service was the active canary before.
    pub changed: bool,
    /// The active canary after the selection.
    pub canary: Canary,
    /// Warnings about the active canary.
    pub warnings: Vec<String>,
}

/// The result of a selection, or the operation of a deploy.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Changed {
    /// The response to a request with `selector`.
    Selected(Selected),
    /// The response to a request with `imageTag`.
    Deployed(Box<Operation>),
}

/// A release: one deploy of a digest to a service.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// The service that the digest was deployed to.
    pub service: ServiceName,
    /// The deployed digest, with `sha256:`.
    pub digest: Digest,
    /// When the digest was deployed.
    pub deployed_at: Time,
    /// The actor who deployed the digest.
    pub deployed_by: ActorName,
    /// The operation of the deploy; null for a digest that was found running.
    #[schema(required = true)]
    pub operation: Option<OperationId>,
    /// The verdict on the digest.
    pub verdict: Verdict,
    /// The reason of the verdict.
    #[schema(required = true)]
    pub reason: Option<String>,
    /// When all pods with the digest became available.
    #[schema(required = true)]
    pub ready_at: Option<Time>,
}

impl Release {
    /// Returns a release of the service `color` as the API shows it.
    pub fn new(color: Color, release: &service::Release) -> Self {
        let operation = domain::OperationId::on(release.number, Subject::Service(color));
        Self {
            service: color.into(),
            digest: Digest::from(&release.digest),
            deployed_at: release.at.into(),
            deployed_by: ActorName::from(&release.by),
            operation: (release.number > 0).then(|| OperationId::from(&operation)),
            verdict: release.verdict.into(),
            reason: release.reason.clone(),
            ready_at: release.ready_at.map(Time),
        }
    }
}

/// `true` or `false`, also as a string, since some clients send strings.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Flag {
    /// The value as a JSON boolean.
    Bool(bool),
    /// The value as a JSON string.
    Text(FlagText),
}

/// A flag as a string: `"true"` or `"false"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FlagText {
    /// The string `"true"`, for a flag that is set.
    True,
    /// The string `"false"`, for a flag that is not set.
    False,
}

impl Default for Flag {
    fn default() -> Self {
        Self::Bool(false)
    }
}

impl Flag {
    /// Returns the value of the flag.
    pub const fn is_set(self) -> bool {
        match self {
            Self::Bool(set) => set,
            Self::Text(text) => matches!(text, FlagText::True),
        }
    }
}

/// A request to select the active canary, or to deploy an image.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum ServicesChange {
    /// Selects the active canary.
    Select(SelectService),
    /// Deploys an image to a service.
    Deploy(DeployImage),
}

/// A request to select the active canary.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SelectService {
    /// The service that becomes the active canary.
    #[serde(rename = "selector")]
    pub service: ServiceName,
}

/// A request to deploy an image.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeployImage {
    /// The digest to deploy: 64 hex digits, with or without `sha256:`; or `[repository][:tag]@sha256:…` in the configured
    /// repository.
    #[schema(pattern = "^(([A-Za-z0-9._/:-]*@)?sha256:)?[0-9a-f]{64}$")]
    pub image_tag: String,
    /// Whether the routes of the service's sites are moved to the service after the deploy. Default: `false`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promote: Option<Flag>,
    /// The service to deploy to. Default: the active canary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
}

/// The unvalidated form of [`ServicesChange`], so that an error can name its field.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangeServices {
    /// The service that becomes the active canary.
    pub selector: Option<ServiceName>,
    /// The digest to deploy.
    pub image_tag: Option<String>,
    /// Whether the routes of the service's sites are moved to the service after the deploy; only with an image.
    pub promote: Option<Flag>,
    /// The service to deploy to; only with an image. Default: the active canary.
    pub service: Option<ServiceName>,
}

/// A request to roll a service back.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The service to roll back. Default: the active canary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
}

/// A user's verdict on a digest.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// The verdict to set.
    pub verdict: MarkVerdict,
    /// The reason of the verdict.
    #[schema(min_length = 1, max_length = 500)]
    pub reason: String,
}

/// The verdicts that a user may set.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MarkVerdict {
    /// Removes the verdict on the digest.
    Unknown,
    /// The digest works; rollbacks may deploy it.
    Healthy,
    /// The digest is bad; rollbacks skip it, and retries need `force`.
    Bad,
}

impl From<MarkVerdict> for service::Verdict {
    fn from(verdict: MarkVerdict) -> Self {
        match verdict {
            MarkVerdict::Unknown => Self::Unknown,
            MarkVerdict::Healthy => Self::Healthy,
            MarkVerdict::Bad => Self::Bad,
        }
    }
}

/// Parses an `imageTag`: a digest, or an image reference with a digest in the configured repository.
///
/// # Errors
/// The error of the field `imageTag`.
pub fn digest(text: &str, repository: Option<&str>) -> Result<domain::Digest, InvalidFields> {
    digest_of("imageTag", text, repository)
}

/// Parses an image reference in the format of `imageTag` in another field.
///
/// # Errors
/// The error of the field.
pub fn digest_of(field: &str, text: &str, repository: Option<&str>) -> Result<domain::Digest, InvalidFields> {
    domain::Digest::of_image(text, repository).map_err(|broken| match broken {
        ImageError::Tag => InvalidFields::coded("tags_not_allowed", field, broken.to_string()),
        ImageError::Repository { .. } | ImageError::Digest(_) => {
            InvalidFields::one(field, broken.to_string())
        }
    })
}
