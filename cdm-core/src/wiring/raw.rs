//! What a configuration file may say: every key optional, no other key known.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde::Deserialize;

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) listen: Option<String>,
    pub(super) trusted_proxies: Option<Vec<String>>,
    pub(super) tls_cert: Option<String>,
    pub(super) tls_key: Option<String>,
    pub(super) allow_plaintext: Option<bool>,
    pub(super) public_url: Option<String>,
    pub(super) router_listen: Option<String>,
    pub(super) data_dir: Option<String>,
    pub(super) backend: Option<String>,
    pub(super) backends: Option<RawBackends>,
    pub(super) admin_token_file: Option<String>,
    pub(super) image_repository: Option<String>,
    pub(super) workers: Option<usize>,
    pub(super) log: Option<String>,
    pub(super) log_format: Option<String>,
    pub(super) limits: Option<RawLimits>,
    pub(super) site: Option<RawSite>,
    pub(super) local: Option<RawLocal>,
    pub(super) table: Option<String>,
    pub(super) bucket: Option<String>,
    pub(super) s3_path_style: Option<bool>,
    pub(super) secret_prefix: Option<String>,
    pub(super) aws: Option<RawAws>,
    pub(super) database: Option<RawDatabase>,
    pub(super) kubernetes: Option<RawKubernetes>,
    pub(super) wp: Option<RawWp>,
    pub(super) gate: Option<RawGate>,
    pub(super) webhooks: Option<RawWebhooks>,
    pub(super) oidc: Option<super::oidc::RawOidc>,
    pub(super) retention: Option<super::retention::RawRetention>,
    pub(super) retry: Option<super::retry::RawRetry>,
    pub(super) passwords: Option<String>,
    pub(super) second_factor: Option<String>,
}

/// `[webhooks]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWebhooks {
    pub(super) allow: Option<Vec<String>>,
}

/// `[gate]`: where the health gates of rollouts ask.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGate {
    pub(super) address: Option<String>,
    pub(super) private: Option<bool>,
    pub(super) header: Option<String>,
    pub(super) blue: Option<String>,
    pub(super) green: Option<String>,
}

/// `[backends]`: another backend than `backend` for some ports.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBackends {
    pub(super) store: Option<String>,
    pub(super) secrets: Option<String>,
    pub(super) objects: Option<String>,
    pub(super) cluster: Option<String>,
}

/// `[aws]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAws {
    pub(super) region: Option<String>,
    pub(super) profile: Option<String>,
    pub(super) endpoint: Option<String>,
}

/// `[database]`: the server of the sites' databases.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDatabase {
    pub(super) url_file: Option<String>,
    pub(super) address: Option<String>,
    pub(super) user_host: Option<String>,
}

/// `[wp]`: how `wp` is run in the image.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWp {
    pub(super) path: Option<String>,
    pub(super) allow_root: Option<bool>,
}

/// `[kubernetes]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKubernetes {
    pub(super) kubeconfig: Option<String>,
    pub(super) context: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) canary_configmap: Option<String>,
    pub(super) canary_key: Option<String>,
    pub(super) container: Option<String>,
    pub(super) blue: Option<RawNames>,
    pub(super) green: Option<RawNames>,
    pub(super) port: Option<u16>,
    pub(super) wp: Option<Vec<String>>,
    pub(super) flush: Option<RawFlush>,
    pub(super) jobs: Option<RawJobs>,
    pub(super) routes: Option<String>,
    pub(super) ingress: Option<RawIngress>,
    pub(super) gateway: Option<RawGateway>,
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

/// `[kubernetes.flush]`: how the caches of many sites are flushed.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFlush {
    pub(super) pods: Option<u32>,
    pub(super) sites_per_pod: Option<u32>,
    pub(super) memory: Option<String>,
}

/// `[kubernetes.jobs]`: whom jobs run as, and what they may do.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawJobs {
    pub(super) service_account: Option<String>,
    pub(super) security: Option<String>,
}

/// `[kubernetes.blue]`, `[kubernetes.green]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNames {
    pub(super) deployment: Option<String>,
    pub(super) service: Option<String>,
}

/// `[kubernetes.ingress]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawIngress {
    pub(super) class: Option<String>,
    pub(super) tls_secret: Option<String>,
}

/// `[kubernetes.gateway]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGateway {
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    pub(super) section: Option<String>,
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
