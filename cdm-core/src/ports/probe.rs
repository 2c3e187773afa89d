//! Health checks of sites.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::rollout::ProbeResponse;
use crate::domain::{Color, Hostname, Uid};

/// Sends health checks to sites over HTTP. A check changes nothing.
///
/// A redirect is not followed and counts as a response like any other. Only a limited beginning of the body is read;
/// a text after it is not found.
#[async_trait]
pub trait HealthProbe: Send + Sync + fmt::Debug + 'static {
    /// Sends one request to the site and returns its response.
    ///
    /// # Errors
    /// Returns [`Inconclusive`] if the site cannot be reached, or if no valid response arrives. A response of any
    /// status is not an error.
    async fn probe(&self, check: &ProbeRequest) -> Result<ProbeResponse, Inconclusive>;
}

/// The health check of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeRequest {
    /// The uid of the site.
    pub uid: Uid,
    /// The hostname of the request.
    pub host: Hostname,
    /// The path of the request through the cluster.
    pub via: Via,
    /// The path and query of the request's URL.
    pub path: String,
    /// The text that the body has to contain; `None` if any body is accepted.
    pub text: Option<String>,
    /// The maximum duration of the check.
    pub timeout: Duration,
}

/// The way by which a request reaches a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Via {
    /// Through the site's route, as visitors reach the site.
    Route,
    /// Directly at a service, regardless of the site's route.
    Service(Color),
}

/// A site could not be probed. The result shows nothing about the site or its image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the site cannot be probed: {0}")]
pub struct Inconclusive(pub String);
