//! The keys of a configuration file, and the environment variables that override them.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde::Deserialize;

use super::oidc::RawOidc;
use super::retention::RawRetention;
use super::retry::RawRetry;
use super::sources::{List, keys};

keys! {
    /// A configuration file as it is written, before its values are validated.
    RawConfig in "" {
        listen: String as "CDM_LISTEN",
        trusted_proxies: List as "CDM_TRUSTED_PROXIES",
        tls_cert: String as "CDM_TLS_CERT",
        tls_key: String as "CDM_TLS_KEY",
        allow_plaintext: bool as "CDM_ALLOW_PLAINTEXT",
        public_url: String as "CDM_PUBLIC_URL",
        router_listen: String as "CDM_ROUTER_LISTEN",
        data_dir: String as "CDM_DATA_DIR",
        backend: String as "CDM_BACKEND",
        admin_token_file: String as "CDM_ADMIN_TOKEN_FILE",
        image_repository: String as "CDM_IMAGE_REPOSITORY",
        concurrency: usize as "CDM_CONCURRENCY",
        /// The earlier name of `concurrency`.
        workers: usize as "CDM_WORKERS",
        log: String as "CDM_LOG",
        log_format: String as "CDM_LOG_FORMAT",
        table: String as "CDM_TABLE",
        bucket: String as "CDM_BUCKET",
        s3_path_style: bool as "CDM_S3_PATH_STYLE",
        secret_prefix: String as "CDM_SECRET_PREFIX",
        passwords: String as "CDM_PASSWORDS",
        second_factor: String as "CDM_SECOND_FACTOR",
    }
    plain {
        backends: RawBackends,
        limits: RawLimits,
        site: RawSite,
        local: RawLocal,
        aws: RawAws,
        database: RawDatabase,
        kubernetes: RawKubernetes,
        wp: RawWp,
        gate: RawGate,
        webhooks: RawWebhooks,
        oidc: RawOidc,
        retention: RawRetention,
        retry: RawRetry,
    }
}

keys! {
    /// `[webhooks]`: webhook receivers with internal addresses.
    RawWebhooks in "webhooks." {
        allowed_receivers: List as "CDM_WEBHOOKS_ALLOWED_RECEIVERS",
        /// The earlier name of `allowed_receivers`.
        allow: List as "CDM_WEBHOOKS_ALLOW",
    }
}

keys! {
    /// `[gate]`: where the health gates of rollouts send their requests.
    RawGate in "gate." {
        address: String as "CDM_GATE_ADDRESS",
        header: String,
        blue: String,
        green: String,
    }
    plain {
        private: bool,
    }
}

keys! {
    /// `[backends]`: the backends of ports that differ from `backend`.
    RawBackends in "backends." {
        store: String,
        secrets: String,
        objects: String,
        cluster: String,
    }
}

/// `[aws]`: overrides of AWS's own settings.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAws {
    pub(super) region: Option<String>,
    pub(super) profile: Option<String>,
    pub(super) endpoint: Option<String>,
}

keys! {
    /// `[database]`: the server of the site databases.
    RawDatabase in "database." {
        url_file: String as "CDM_DATABASE_URL_FILE",
        address: String,
    }
    plain {
        user_host: Option<String>,
    }
}

keys! {
    /// `[wp]`: how jobs run `wp` in the image.
    RawWp in "wp." {
        path: String as "CDM_WP_PATH",
        allow_root: bool as "CDM_WP_ALLOW_ROOT",
    }
}

keys! {
    /// `[kubernetes]`: the cluster, and the names of its objects.
    RawKubernetes in "kubernetes." {
        kubeconfig: String as "KUBECONFIG",
        namespace: String as "CDM_NAMESPACE",
        canary_configmap: String as "CDM_CANARY_CONFIGMAP",
        routes: String as "CDM_ROUTES",
    }
    plain {
        context: Option<String>,
        canary_key: Option<String>,
        container: Option<String>,
        blue: RawNames,
        green: RawNames,
        port: Option<u16>,
        wp: Option<Vec<String>>,
        flush: RawFlush,
        jobs: RawJobs,
        ingress: RawIngress,
        gateway: Option<RawGateway>,
        annotations: BTreeMap<String, String>,
    }
}

keys! {
    /// `[kubernetes.flush]`: the pods that flush the caches of a rollout's window.
    RawFlush in "kubernetes.flush." {
        pods: u32,
        sites_per_pod: u32,
    }
    plain {
        memory: Option<String>,
    }
}

keys! {
    /// `[kubernetes.jobs]`: the service account and the security context of jobs.
    RawJobs in "kubernetes.jobs." {
        service_account: String as "CDM_JOB_SERVICE_ACCOUNT",
        security: String,
    }
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

keys! {
    /// `[limits]`: the request limits of the API, each at least 1.
    RawLimits in "limits." {
        auth_failures_per_minute: NonZeroU32,
        /// The earlier name of `auth_failures_per_minute`.
        failures: NonZeroU32,
    }
    plain {
        rate: Option<NonZeroU32>,
        burst: Option<NonZeroU32>,
    }
}

keys! {
    /// `[site]`: the address scheme and the administrator of new sites.
    RawSite in "site." {
        scheme: String as "CDM_SITE_SCHEME",
        admin_user: String as "CDM_SITE_ADMIN_USER",
        admin_email: String as "CDM_SITE_ADMIN_EMAIL",
    }
}

/// `[local]`: delays of the local cluster, in milliseconds.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLocal {
    pub(super) pod_start_ms: Option<u64>,
    pub(super) progress_deadline_ms: Option<u64>,
    pub(super) job_ms: Option<u64>,
}
