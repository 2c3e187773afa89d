//! The state that the requests of one router share.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::events::Hub;
use crate::limits::Limits;
use crate::metrics::Metrics;
#[cfg(feature = "oidc")]
use crate::oidc_metadata::MetadataCache;
use crate::password::Passwords;
use crate::request_id::RequestIds;
use crate::settings::App;
use crate::stream_permits::StreamPermits;

/// The state that all requests of one router share.
pub(crate) type SharedState = Arc<AppState>;

/// An [`App`] together with the counters, caches and pools of its router.
#[derive(Debug)]
pub(crate) struct AppState {
    pub(crate) app: App,
    pub(crate) limits: Limits,
    pub(crate) passwords: Passwords,
    #[cfg(feature = "oidc")]
    pub(crate) provider: MetadataCache,
    pub(crate) metrics: Metrics,
    pub(crate) hub: Arc<Hub>,
    pub(crate) request_ids: RequestIds,
    pub(crate) stream_permits: StreamPermits,
    pub(crate) stopping: CancellationToken,
    /// Returns the OpenAPI document.
    pub(crate) openapi: fn() -> &'static str,
}

impl AppState {
    pub(crate) fn new(app: App, stopping: CancellationToken, openapi: fn() -> &'static str) -> SharedState {
        let hub = Hub::new(Arc::clone(&app.manager), Arc::clone(&app.clock));
        Arc::new(Self {
            limits: Limits::new(&app.settings, &app.clock),
            passwords: Passwords::default(),
            #[cfg(feature = "oidc")]
            provider: MetadataCache::default(),
            metrics: Metrics::new(),
            hub,
            request_ids: RequestIds::new(),
            stream_permits: StreamPermits::new(app.settings.streams),
            stopping,
            openapi,
            app,
        })
    }

    /// Returns the configured image repository.
    pub(crate) fn repository(&self) -> Option<&str> {
        self.app.settings.repository.as_deref()
    }

    /// Returns the image reference of `digest` as responses and pages show it: after the repository if one is configured.
    pub(crate) fn image(&self, digest: Option<cdm_core::domain::Digest>) -> Option<String> {
        digest.map(|digest| match &self.app.settings.repository {
            Some(repository) => format!("{repository}@{digest}"),
            None => digest.to_string(),
        })
    }
}
