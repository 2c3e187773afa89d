//! What a configuration file may say: every key optional, no other key known.

use std::num::NonZeroU32;

use serde::Deserialize;

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) listen: Option<String>,
    pub(super) router_listen: Option<String>,
    pub(super) data_dir: Option<String>,
    pub(super) backend: Option<String>,
    pub(super) admin_token_file: Option<String>,
    pub(super) image_repository: Option<String>,
    pub(super) workers: Option<usize>,
    pub(super) allow_tags: Option<bool>,
    pub(super) log: Option<String>,
    pub(super) log_format: Option<String>,
    pub(super) limits: Option<RawLimits>,
    pub(super) site: Option<RawSite>,
    pub(super) local: Option<RawLocal>,
}

/// `[limits]`: how much the API bears; each at least 1.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    pub(super) rate: Option<NonZeroU32>,
    pub(super) burst: Option<NonZeroU32>,
    pub(super) failures: Option<NonZeroU32>,
}

/// `[site]`: what new sites are installed with.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSite {
    pub(super) scheme: Option<String>,
    pub(super) admin_user: Option<String>,
    pub(super) admin_email: Option<String>,
}

/// `[local]`: how quick the local cluster is.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLocal {
    pub(super) pod_start_ms: Option<u64>,
    pub(super) progress_deadline_ms: Option<u64>,
    pub(super) job_ms: Option<u64>,
}
