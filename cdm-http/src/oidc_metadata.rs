//! The cached metadata of the OpenID Connect provider. [`crate::console`] fetches it.

use cdm_core::domain::MonotonicTime;
use openidconnect::core::CoreProviderMetadata;
use tokio::sync::Mutex;

use crate::error::ApiError;

/// The provider's metadata. One request at a time fetches it, so the number of sign-ins does not change the load on the
/// provider.
#[derive(Debug, Default)]
pub(crate) struct MetadataCache(pub(crate) Mutex<Option<CachedMetadata>>);

/// The result of the last fetch.
#[derive(Debug)]
pub(crate) struct CachedMetadata {
    pub(crate) fetched_at: MonotonicTime,
    pub(crate) metadata: Result<CoreProviderMetadata, ApiError>,
}
