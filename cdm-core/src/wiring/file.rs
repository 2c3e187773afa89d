//! The keys of a configuration file. Every key is optional; an unknown key is an error.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde::Deserialize;

/// A configuration file as it is written, before its values are validated.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
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
    pub(super) concurrency: Option<usize>,
    /// The earlier name of `concurrency`.
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

/// `[webhooks]`: webhook receivers with internal addresses.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWebhooks {
    pub(super) allowed_receivers: Option<Vec<String>>,
    /// The earlier name of `allowed_receivers`.
    pub(super) allow: Option<Vec<String>>,
}

/// `[gate]`: where the health gates of rollouts send their requests.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGate {
    pub(super) address: Option<String>,
    pub(super) private: Option<bool>,
    pub(super) header: Option<String>,
    pub(super) blue: Option<String>,
    pub(super) green: Option<String>,
}

/// `[backends]`: the backends of ports that differ from `backend`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBackends {
    pub(super) store: Option<String>,
    pub(super) secrets: Option<String>,
    pub(super) objects: Option<String>,
    pub(super) cluster: Option<String>,
}

/// `[aws]`: overrides of AWS's own settings.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAws {
    pub(super) region: Option<String>,
    pub(super) profile: Option<String>,
    pub(super) endpoint: Option<String>,
}

/// `[database]`: the server of the site databases.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDatabase {
    pub(super) url_file: Option<String>,
    pub(super) address: Option<String>,
    pub(super) user_host: Option<String>,
}

/// `[wp]`: how jobs run `wp` in the image.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWp {
    pub(super) path: Option<String>,
    pub(super) allow_root: Option<bool>,
}

/// `[kubernetes]`: the cluster, and the names of its objects.
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

/// `[kubernetes.flush]`: the pods that flush the caches of a rollout's window.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFlush {
    pub(super) pods: Option<u32>,
    pub(super) sites_per_pod: Option<u32>,
    pub(super) memory: Option<String>,
}

/// `[kubernetes.jobs]`: the service account and the security context of jobs.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawJobs {
    pub(super) service_account: Option<String>,
    pub(super) security: Option<String>,
}

/// `[kubernetes.blue]`, `[kubernetes.green]`: the names of a service's Deployment and Service.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNames {
    pub(super) deployment: Option<String>,
    pub(super) service: Option<String>,
}

/// `[kubernetes.ingress]`: the class and the TLS Secret of Ingresses.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawIngress {
    pub(super) class: Option<String>,
    pub(super) tls_secret: Option<String>,
}

/// `[kubernetes.gateway]`: the Gateway, and its listener, of HTTPRoutes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGateway {
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    pub(super) section: Option<String>,
}

/// `[limits]`: the request limits of the API, each at least 1.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    pub(super) rate: Option<NonZeroU32>,
    pub(super) burst: Option<NonZeroU32>,
    pub(super) auth_failures_per_minute: Option<NonZeroU32>,
    /// The earlier name of `auth_failures_per_minute`.
    pub(super) failures: Option<NonZeroU32>,
}

/// `[site]`: the address scheme and the administrator of new sites.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSite {
    pub(super) scheme: Option<String>,
    pub(super) admin_user: Option<String>,
    pub(super) admin_email: Option<String>,
}

/// `[local]`: delays of the local cluster, in milliseconds.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLocal {
    pub(super) pod_start_ms: Option<u64>,
    pub(super) progress_deadline_ms: Option<u64>,
    pub(super) job_ms: Option<u64>,
}
