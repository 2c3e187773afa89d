//! What the cloud backends are configured with. Plain values: builds without these backends judge them too.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hyper::header::HeaderName;
use secrecy::SecretString;

use super::choice::BackendSelection;
use super::config::{ConfigError, Environment};
use super::given::{parsed, pick, secret, text};
use super::raw::{Raw, RawFlush, RawGate, RawKubernetes, RawNames, RawWp};

/// What the cloud backends are configured with.
#[derive(Clone, Debug)]
pub struct CloudConfig {
    /// The DynamoDB table. `CDM_TABLE`, `table`.
    pub table: String,
    /// The S3 bucket. `CDM_BUCKET`, `bucket`.
    pub bucket: String,
    /// Whether the bucket stands in the path of S3's addresses. `CDM_S3_PATH_STYLE`, `s3_path_style`.
    pub s3_path_style: bool,
    /// What the names of secrets begin with. `CDM_SECRET_PREFIX`, `secret_prefix`.
    pub secret_prefix: String,
    /// The database server and its administrator. `CDM_DATABASE_URL`, `CDM_DATABASE_URL_FILE`, `database.url_file`.
    pub database_url: Option<SecretString>,
    /// Host and port by which sites reach it, where these are others than the URL's. `database.address`.
    pub database_address: Option<(String, u16)>,
    /// From where sites' users may connect. `database.user_host`.
    pub database_user_host: String,
    /// The AWS region, profile and endpoint, where they are not in AWS's own variables. `aws.region`, …
    pub aws: AwsConfig,
    /// Where health gates ask. `CDM_GATE_ADDRESS`, `gate.…`.
    pub gate: GateConfig,
    /// Kubernetes. `CDM_NAMESPACE`, `CDM_CANARY_CONFIGMAP`, `CDM_ROUTES`, `kubernetes.…`.
    pub kubernetes: KubernetesConfig,
    /// How `wp` is run in the image.
    pub wp: WpConfig,
}

/// Where AWS is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AwsConfig {
    /// `aws.region`.
    pub region: Option<String>,
    /// `aws.profile`.
    pub profile: Option<String>,
    /// `aws.endpoint`.
    pub endpoint: Option<String>,
}

/// Where the health gates of rollouts ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateConfig {
    /// Host and port at which visitors' requests arrive; `None`: where each hostname leads. `gate.address`.
    pub address: Option<(String, u16)>,
    /// Whether a hostname may lead to a private address. `gate.private`.
    pub private: bool,
    /// Host and port of the services, blue and green; `None`: their names in the cluster. `gate.blue`, `gate.green`.
    pub services: Option<[(String, u16); 2]>,
    /// The header that names the service which an answer is from. `gate.header`.
    pub header: HeaderName,
}

impl GateConfig {
    fn of(environment: Environment<'_>, raw: RawGate) -> Result<Self, ConfigError> {
        let given = pick(environment, "CDM_GATE_ADDRESS", "gate.address", raw.address);
        let services = match (raw.blue, raw.green) {
            (Some(blue), Some(green)) => Some([address("gate.blue", blue)?, address("gate.green", green)?]),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                let message = "`blue` and `green` are set together".to_owned();
                return Err(ConfigError { key: "gate.blue".to_owned(), message });
            }
        };
        let header = raw.header.unwrap_or_else(|| "x-cdm-service".to_owned());
        let wrong = |_| {
            let message = format!("\"{header}\" is no name of a header");
            ConfigError { key: "gate.header".to_owned(), message }
        };
        Ok(Self {
            address: given.map(|(key, text)| address(&key, text)).transpose()?,
            private: raw.private.unwrap_or_default(),
            services,
            header: header.parse().map_err(wrong)?,
        })
    }
}

/// How `wp` is run in the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WpConfig {
    /// The directory of WordPress, an absolute path; `None`: the container's working directory. `CDM_WP_PATH`, `wp.path`.
    pub path: Option<String>,
    /// Whether it may run as root: `--allow-root`. `CDM_WP_ALLOW_ROOT`, `wp.allow_root`.
    pub allow_root: bool,
}

impl WpConfig {
    fn of(environment: Environment<'_>, raw: RawWp) -> Result<Self, ConfigError> {
        let path = match pick(environment, "CDM_WP_PATH", "wp.path", raw.path) {
            Some((key, path)) if !path.starts_with('/') => {
                let message = format!(
                    "\"{path}\" is not an absolute path of the image, such as `/var/www/html`; leave it out for the \
                     container's working directory"
                );
                return Err(ConfigError { key, message });
            }
            given => given.map(|(_, path)| path),
        };
        let allow_root = raw.allow_root.map(|yes| yes.to_string());
        let allow_root = pick(environment, "CDM_WP_ALLOW_ROOT", "wp.allow_root", allow_root);
        Ok(Self { path, allow_root: parsed(allow_root, "false", "`true` or `false`", |_| true)? })
    }
}

/// Where Kubernetes is and what things are called there.
#[derive(Clone, Debug)]
pub struct KubernetesConfig {
    /// A kubeconfig file; `None`: the account of the pod. `KUBECONFIG`, `kubernetes.kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// A context of it; `None`: its current one. `kubernetes.context`.
    pub context: Option<String>,
    /// The namespace.
    pub namespace: String,
    /// The canary's ConfigMap.
    pub canary_config_map: String,
    /// Its key. `kubernetes.canary_key`.
    pub canary_key: String,
    /// The container that runs the image. `kubernetes.container`.
    pub container: String,
    /// Deployment and Service of blue. `kubernetes.blue`.
    pub blue: (String, String),
    /// Deployment and Service of green. `kubernetes.green`.
    pub green: (String, String),
    /// The Services' port. `kubernetes.port`.
    pub port: u16,
    /// What `wp` is in the image. `kubernetes.wp`.
    pub wp: Vec<String>,
    /// How the caches of many sites are flushed. `kubernetes.flush`.
    pub flush: Flush,
    /// The service account of jobs; `None`: the namespace's `default`. `CDM_JOB_SERVICE_ACCOUNT`,
    /// `kubernetes.jobs.service_account`.
    pub job_service_account: Option<String>,
    /// Whether jobs are restricted where the Deployments say nothing. `kubernetes.jobs.security`.
    pub jobs_restricted: bool,
    /// What routes are.
    pub routes: Routes,
    /// Annotations of every route. `kubernetes.annotations`.
    pub annotations: BTreeMap<String, String>,
}

/// How the caches of many sites are flushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flush {
    /// How many pods are at work at once.
    pub pods: u32,
    /// How many sites a pod has at most; 1 for a pod of its own for each.
    pub sites_per_pod: u32,
    /// The memory of a site's container.
    pub memory: String,
}

/// What a site's route is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Routes {
    /// An Ingress. `kubernetes.ingress`.
    Ingress {
        /// Its class.
        class: Option<String>,
        /// The Secret with its certificate.
        tls_secret: Option<String>,
    },
    /// An HTTPRoute. `kubernetes.gateway`.
    HttpRoute {
        /// The Gateway.
        name: String,
        /// Its namespace.
        namespace: Option<String>,
        /// Its listener.
        section: Option<String>,
    },
}

impl CloudConfig {
    pub(super) fn of(
        environment: Environment<'_>,
        raw: Raw,
        choice: &BackendSelection,
    ) -> Result<Self, ConfigError> {
        let text = |variable: &str, key: &str, of_file, default: &str| {
            text(environment, variable, key, of_file, default)
        };
        let database = raw.database.unwrap_or_default();
        let url = secret(
            environment,
            "CDM_DATABASE_URL",
            database.url_file.map(|path| ("database.url_file", path)),
        )?;
        let aws = raw.aws.unwrap_or_default();
        // A store that is not AWS's own has no host name for every bucket, as a rule.
        let elsewhere = aws.endpoint.is_some()
            || ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"].iter().any(|name| environment(name).is_some());
        let path_style = raw.s3_path_style.map(|yes: bool| yes.to_string());
        let path_style = pick(environment, "CDM_S3_PATH_STYLE", "s3_path_style", path_style);
        let path_style = parsed(path_style, &elsewhere.to_string(), "`true` or `false`", |_| true)?;
        let made = Self {
            table: text("CDM_TABLE", "table", raw.table, "cdm"),
            bucket: text("CDM_BUCKET", "bucket", raw.bucket, ""),
            s3_path_style: path_style,
            secret_prefix: text("CDM_SECRET_PREFIX", "secret_prefix", raw.secret_prefix, "cdm"),
            database_url: url.map(|(_, url)| url),
            database_address: database.address.map(|text| address("database.address", text)).transpose()?,
            database_user_host: database.user_host.unwrap_or_else(|| "%".to_owned()),
            aws: AwsConfig { region: aws.region, profile: aws.profile, endpoint: aws.endpoint },
            gate: GateConfig::of(environment, raw.gate.unwrap_or_default())?,
            kubernetes: KubernetesConfig::of(environment, raw.kubernetes.unwrap_or_default())?,
            wp: WpConfig::of(environment, raw.wp.unwrap_or_default())?,
        };
        let missing = |key: &str, what: &str| {
            Err(ConfigError { key: key.to_owned(), message: format!("is not set; {what}") })
        };
        if choice.objects.is_cloud() && made.bucket.is_empty() {
            return missing("CDM_BUCKET", "name the S3 bucket for the sites' files");
        }
        if choice.cluster.is_cloud() && made.database_url.is_none() {
            return missing(
                "CDM_DATABASE_URL",
                "say where the sites' databases are: mysql://user:password@host:port/",
            );
        }
        Ok(made)
    }
}

impl KubernetesConfig {
    fn of(environment: Environment<'_>, raw: RawKubernetes) -> Result<Self, ConfigError> {
        let text = |variable: &str, key: &str, of_file, default: &str| {
            text(environment, variable, key, of_file, default)
        };
        let (ingress, gateway) = (raw.ingress.unwrap_or_default(), raw.gateway);
        let routes = match pick(environment, "CDM_ROUTES", "kubernetes.routes", raw.routes) {
            None => Routes::Ingress { class: ingress.class, tls_secret: ingress.tls_secret },
            Some((_, kind)) if kind == "ingress" => {
                Routes::Ingress { class: ingress.class, tls_secret: ingress.tls_secret }
            }
            Some((key, kind)) if kind == "httproute" => {
                let message =
                    "`httproute` needs `[kubernetes.gateway]` with the `name` of a Gateway".to_owned();
                let gateway = gateway.ok_or(ConfigError { key, message })?;
                Routes::HttpRoute {
                    name: gateway.name,
                    namespace: gateway.namespace,
                    section: gateway.section,
                }
            }
            Some((key, kind)) => {
                return Err(ConfigError {
                    key,
                    message: format!("\"{kind}\" is neither `ingress` nor `httproute`"),
                });
            }
        };
        let names = |service: &str, given: Option<RawNames>| {
            let given = given.unwrap_or_default();
            let usual = || (format!("{service}-deployment"), service.to_owned());
            (given.deployment.unwrap_or_else(|| usual().0), given.service.unwrap_or_else(|| usual().1))
        };
        let jobs = raw.jobs.unwrap_or_default();
        let jobs_restricted = match jobs.security.as_deref() {
            None | Some("restricted") => true,
            Some("as-deployed") => false,
            Some(other) => {
                let message = format!("\"{other}\" is neither `restricted` nor `as-deployed`");
                return Err(ConfigError { key: "kubernetes.jobs.security".to_owned(), message });
            }
        };
        let job_service_account = pick(
            environment,
            "CDM_JOB_SERVICE_ACCOUNT",
            "kubernetes.jobs.service_account",
            jobs.service_account,
        );
        let kubeconfig = pick(environment, "KUBECONFIG", "kubernetes.kubeconfig", raw.kubeconfig);
        Ok(Self {
            kubeconfig: kubeconfig.map(|(_, path)| PathBuf::from(path)),
            context: raw.context,
            namespace: text("CDM_NAMESPACE", "kubernetes.namespace", raw.namespace, "wp-platform"),
            canary_config_map: text(
                "CDM_CANARY_CONFIGMAP",
                "kubernetes.canary_configmap",
                raw.canary_configmap,
                "canary-env",
            ),
            canary_key: raw.canary_key.unwrap_or_else(|| "canaryEnv".to_owned()),
            container: raw.container.unwrap_or_else(|| "web".to_owned()),
            blue: names("blue", raw.blue),
            green: names("green", raw.green),
            port: raw.port.unwrap_or(80),
            wp: raw.wp.unwrap_or_else(|| vec!["wp".to_owned()]),
            flush: flush(raw.flush.unwrap_or_default())?,
            job_service_account: job_service_account.map(|(_, name)| name),
            jobs_restricted,
            routes,
            annotations: raw.annotations.unwrap_or_default(),
        })
    }
}

/// Memory is left to Kubernetes to judge, as quantities are its own.
fn flush(raw: RawFlush) -> Result<Flush, ConfigError> {
    let within = |key: &str, given: u32, most: u32| match given {
        many if (1..=most).contains(&many) => Ok(many),
        many => Err(ConfigError {
            key: format!("kubernetes.flush.{key}"),
            message: format!("{many} is not 1 to {most}"),
        }),
    };
    Ok(Flush {
        pods: within("pods", raw.pods.unwrap_or(4), 1_000)?,
        sites_per_pod: within("sites_per_pod", raw.sites_per_pod.unwrap_or(20), 100)?,
        memory: raw.memory.unwrap_or_else(|| "256Mi".to_owned()),
    })
}

/// `host:port`.
fn address(key: &str, text: String) -> Result<(String, u16), ConfigError> {
    let parsed = text.rsplit_once(':').and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
    let wrong = || ConfigError {
        key: key.to_owned(),
        message: format!("\"{text}\" is not a host and a port, such as `host.internal:3306`"),
    };
    parsed.ok_or_else(wrong)
}
