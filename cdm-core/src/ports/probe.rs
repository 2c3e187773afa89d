//! What a site answers.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::rollout::ProbeResponse;
use crate::domain::{Color, Hostname, Uid};

/// Asks sites over HTTP, for their health. Changes nothing.
///
/// Follows no redirect: that is an answer like any other. Reads at most a bounded beginning of a body; a text that
/// comes after it was not found.
#[async_trait]
pub trait HealthProbe: Send + Sync + fmt::Debug + 'static {
    /// What the site answers now.
    ///
    /// # Errors
    /// [`Inconclusive`] when it cannot be asked, or nothing came that is an answer. An answer of whatever status is
    /// none.
    async fn probe(&self, check: &ProbeRequest) -> Result<ProbeResponse, Inconclusive>;
}

/// What is asked of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeRequest {
    /// Whose.
    pub uid: Uid,
    /// The hostname that is asked for.
    pub host: Hostname,
    /// Which way.
    pub via: Via,
    /// Path and query.
    pub path: String,
    /// The text that is looked for in the body.
    pub text: Option<String>,
    /// How long it may take.
    pub timeout: Duration,
}

/// Which way a site is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Via {
    /// As its visitors come, through its route.
    Route,
    /// At a service, wherever its route points.
    Service(Color),
}

/// A site could not be asked. That says nothing of it, nor of the image behind it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the site cannot be asked: {0}")]
pub struct Inconclusive(pub String);
