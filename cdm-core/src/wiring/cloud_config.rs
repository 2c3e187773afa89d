//! Configuration of the cloud backends. Plain values, which builds without the cloud backends validate too.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hyper::header::HeaderName;
use secrecy::SecretString;

use super::backend_selection::BackendSelection;
use super::config::{ConfigError, Environment};
use super::file::{RawConfig, RawFlush, RawGate, RawKubernetes, RawNames, RawWp};
use super::sources::{parsed, pick, secret, text};

/// The configuration of the cloud backends.
#[derive(Clone, Debug)]
pub struct CloudConfig {
    /// The DynamoDB table, by default `cdm`. `CDM_TABLE`, `table`.
    pub table: String,
    /// The S3 bucket for site files; required if the object store is in the cloud, otherwise empty by default.
    /// `CDM_BUCKET`, `bucket`.
    pub bucket: String,
    /// Whether requests to S3 have the bucket in the path instead of the host name; by default only if an endpoint is
    /// configured. `CDM_S3_PATH_STYLE`, `s3_path_style`.
    pub s3_path_style: bool,
    /// The prefix of the names of secrets, by default `cdm`. Installations in one AWS account need different prefixes.
    /// `CDM_SECRET_PREFIX`, `secret_prefix`.
    pub secret_prefix: String,
    /// The URL of the database server, with its administrator and password; required if the cluster is in the cloud.
    /// `CDM_DATABASE_URL`, `CDM_DATABASE_URL_FILE`, `database.url_file`.
    pub database_url: Option<SecretString>,
    /// The host and port at which sites reach the database server; `None`: those of the URL. `database.address`.
    pub database_address: Option<(String, u16)>,
    /// The host from which the database users of sites may connect, by default `%`: any host. A narrower value makes
    /// stolen credentials useless on other hosts, and must cover the addresses of all pods. `database.user_host`.
    pub database_user_host: String,
    /// The AWS region, profile and endpoint. `aws.…`.
    pub aws: AwsConfig,
    /// The addresses of health gates. `CDM_GATE_ADDRESS`, `gate.…`.
    pub gate: GateConfig,
    /// The cluster and its objects. `CDM_NAMESPACE`, `CDM_CANARY_CONFIGMAP`, `CDM_ROUTES`, `kubernetes.…`.
    pub kubernetes: KubernetesConfig,
    /// How jobs run `wp`. `CDM_WP_PATH`, `CDM_WP_ALLOW_ROOT`, `wp.…`.
    pub wp: WpConfig,
}

/// The AWS account. A field that is `None` comes from AWS's own sources, as for the AWS command line. No field has
/// another default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AwsConfig {
    /// The region, such as `eu-central-1`. `aws.region`.
    pub region: Option<String>,
    /// A profile of AWS's configuration files. `aws.profile`.
    pub profile: Option<String>,
    /// The URL of an endpoint that replaces AWS's own, for all of its services. `aws.endpoint`.
    pub endpoint: Option<String>,
}

/// Where the health gates of rollouts send their requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateConfig {
    /// The host and port at which the routes of sites are served, such as those of the Ingress controller; `None`: the
    /// address that the hostname of each site resolves to. `CDM_GATE_ADDRESS`, `gate.address`.
    pub address: Option<(String, u16)>,
    /// Whether the hostname of a site may resolve to a private address; by default `false`. `true` permits internal
    /// sites, and lets the owner of a hostname direct health checks to private addresses. `gate.private`.
    pub private: bool,
    /// The host and port of the services, blue and green; `None`: their names in the cluster. `gate.blue`, `gate.green`.
    pub services: Option<[(String, u16); 2]>,
    /// The response header that names the responding service, by default `x-cdm-service`. `gate.header`.
    pub header: HeaderName,
}

impl GateConfig {
    fn resolve(environment: Environment<'_>, raw: RawGate) -> Result<Self, ConfigError> {
        let route = pick(environment, "CDM_GATE_ADDRESS", "gate.address", raw.address);
        let services = match (raw.blue, raw.green) {
            (Some(blue), Some(green)) => Some([address("gate.blue", blue)?, address("gate.green", green)?]),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                let message = "must be set together with `gate.green`".to_owned();
                return Err(ConfigError { key: "gate.blue".to_owned(), message });
            }
        };
        let header = raw.header.unwrap_or_else(|| "x-cdm-service".to_owned());
        let invalid = |_| {
            let message = format!("`{header}` is not a valid header name");
            ConfigError { key: "gate.header".to_owned(), message }
        };
        Ok(Self {
            address: route.map(|(key, text)| address(&key, text)).transpose()?,
            private: raw.private.unwrap_or_default(),
            services,
            header: header.parse().map_err(invalid)?,
        })
    }
}

/// How jobs run `wp` in the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WpConfig {
    /// The directory of WordPress in the image, an absolute path; `None`: the container's working directory.
    /// `CDM_WP_PATH`, `wp.path`.
    pub path: Option<String>,
    /// Whether `wp` may run as root (`--allow-root`), for Deployments whose pods do; by default `false`. With `true`,
    /// code of a plugin runs as root in the container of a job. `CDM_WP_ALLOW_ROOT`, `wp.allow_root`.
    pub allow_root: bool,
}

impl WpConfig {
    fn resolve(environment: Environment<'_>, raw: RawWp) -> Result<Self, ConfigError> {
        let path = match pick(environment, "CDM_WP_PATH", "wp.path", raw.path) {
            Some((key, path)) if !path.starts_with('/') => {
                let message = format!(
                    "`{path}` is not an absolute path in the image, such as `/var/www/html`; remove the setting to use \
                     the container's working directory"
                );
                return Err(ConfigError { key, message });
            }
            path => path.map(|(_, path)| path),
        };
        let allow_root = raw.allow_root.map(|allowed| allowed.to_string());
        let allow_root = pick(environment, "CDM_WP_ALLOW_ROOT", "wp.allow_root", allow_root);
        Ok(Self { path, allow_root: parsed(allow_root, "false", "`true` or `false`", |_| true)? })
    }
}

/// The Kubernetes cluster, and the names of its objects.
#[derive(Clone, Debug)]
pub struct KubernetesConfig {
    /// A kubeconfig file; `None`: the service account of the pod. `KUBECONFIG`, `kubernetes.kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig file; `None`: its current context. `kubernetes.context`.
    pub context: Option<String>,
    /// The namespace of the services and of everything that CDM creates, by default `wp-platform`. `CDM_NAMESPACE`,
    /// `kubernetes.namespace`.
    pub namespace: String,
    /// The ConfigMap that stores the active canary service, by default `canary-env`. `CDM_CANARY_CONFIGMAP`,
    /// `kubernetes.canary_configmap`.
    pub canary_config_map: String,
    /// The key in that ConfigMap, by default `canaryEnv`. `kubernetes.canary_key`.
    pub canary_key: String,
    /// The container of the Deployments that runs the image, by default `web`. `kubernetes.container`.
    pub container: String,
    /// The Deployment and the Service of blue, by default `blue-deployment` and `blue`. `kubernetes.blue`.
    pub blue: (String, String),
    /// The Deployment and the Service of green, by default `green-deployment` and `green`. `kubernetes.green`.
    pub green: (String, String),
    /// The port of both Services, by default 80. `kubernetes.port`.
    pub port: u16,
    /// The command that runs `wp` in the image, by default `["wp"]`. `kubernetes.wp`.
    pub wp: Vec<String>,
    /// The pods that flush the caches of a rollout's window. `kubernetes.flush`.
    pub flush: FlushConfig,
    /// The service account of jobs; `None`: `default` of the namespace. `CDM_JOB_SERVICE_ACCOUNT`,
    /// `kubernetes.jobs.service_account`.
    pub job_service_account: Option<String>,
    /// Whether jobs meet the Pod Security Standard `restricted` where the Deployment does not specify otherwise; by
    /// default `true`. `false` is for images that `restricted` prevents from running. `restricted` or `as-deployed` in
    /// `kubernetes.jobs.security`.
    pub jobs_restricted: bool,
    /// The kind of route objects, by default Ingresses of the default class. `CDM_ROUTES`, `kubernetes.routes`.
    pub routes: Routes,
    /// Annotations of every route, by default none. `kubernetes.annotations`.
    pub annotations: BTreeMap<String, String>,
}

/// The pods that flush the caches of a rollout's window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlushConfig {
    /// The number of pods that flush in parallel, from 1 to 1000; by default 4. More pods flush a window sooner, and
    /// use more of the cluster.
    pub pods: u32,
    /// The maximum number of sites in each pod, from 1 to 100; by default 20. 1 means one pod per site. More sites in a
    /// pod need fewer pods, but larger ones.
    pub sites_per_pod: u32,
    /// The memory limit of a site's container, a Kubernetes quantity; by default `256Mi`. Kubernetes validates it. Too
    /// small a limit ends the container.
    pub memory: String,
}

/// The kind of object that routes a site's hostnames to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Routes {
    /// An Ingress. `kubernetes.ingress`.
    Ingress {
        /// The Ingress class; `None`: the default class of the cluster.
        class: Option<String>,
        /// The Secret with the certificate; `None`: the Ingress names no Secret.
        tls_secret: Option<String>,
    },
    /// An HTTPRoute. `kubernetes.gateway`.
    HttpRoute {
        /// The name of the Gateway.
        name: String,
        /// The namespace of the Gateway; `None`: that of the routes.
        namespace: Option<String>,
        /// The listener of the Gateway; `None`: all of its listeners.
        section: Option<String>,
    },
}

impl CloudConfig {
    pub(super) fn resolve(
        environment: Environment<'_>,
        raw: RawConfig,
        backends: &BackendSelection,
    ) -> Result<Self, ConfigError> {
        let text = |variable: &str, key: &str, from_file, default: &str| {
            text(environment, variable, key, from_file, default)
        };
        let database = raw.database.unwrap_or_default();
        let url = secret(
            environment,
            "CDM_DATABASE_URL",
            database.url_file.map(|path| ("database.url_file", path)),
        )?;
        let aws = raw.aws.unwrap_or_default();
        // An object store other than AWS's own usually has no host name for each bucket.
        let custom_endpoint = aws.endpoint.is_some()
            || ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"].iter().any(|name| environment(name).is_some());
        let path_style = raw.s3_path_style.map(|path_style: bool| path_style.to_string());
        let path_style = pick(environment, "CDM_S3_PATH_STYLE", "s3_path_style", path_style);
        let path_style = parsed(path_style, &custom_endpoint.to_string(), "`true` or `false`", |_| true)?;
        let config = Self {
            table: text("CDM_TABLE", "table", raw.table, "cdm"),
            bucket: text("CDM_BUCKET", "bucket", raw.bucket, ""),
            s3_path_style: path_style,
            secret_prefix: text("CDM_SECRET_PREFIX", "secret_prefix", raw.secret_prefix, "cdm"),
            database_url: url.map(|(_, url)| url),
            database_address: database.address.map(|text| address("database.address", text)).transpose()?,
            database_user_host: database.user_host.unwrap_or_else(|| "%".to_owned()),
            aws: AwsConfig { region: aws.region, profile: aws.profile, endpoint: aws.endpoint },
            gate: GateConfig::resolve(environment, raw.gate.unwrap_or_default())?,
            kubernetes: KubernetesConfig::resolve(environment, raw.kubernetes.unwrap_or_default())?,
            wp: WpConfig::resolve(environment, raw.wp.unwrap_or_default())?,
        };
        let missing = |key: &str, hint: &str| {
            Err(ConfigError { key: key.to_owned(), message: format!("is not set; {hint}") })
        };
        if backends.objects.is_cloud() && config.bucket.is_empty() {
            return missing("CDM_BUCKET", "set it to the S3 bucket for site files");
        }
        if backends.cluster.is_cloud() && config.database_url.is_none() {
            return missing(
                "CDM_DATABASE_URL",
                "set it to the URL of the database server, `mysql://user:password@host:port/`",
            );
        }
        Ok(config)
    }
}

impl KubernetesConfig {
    fn resolve(environment: Environment<'_>, raw: RawKubernetes) -> Result<Self, ConfigError> {
        let text = |variable: &str, key: &str, from_file, default: &str| {
            text(environment, variable, key, from_file, default)
        };
        let (ingress, gateway) = (raw.ingress.unwrap_or_default(), raw.gateway);
        let routes = match pick(environment, "CDM_ROUTES", "kubernetes.routes", raw.routes) {
            None => Routes::Ingress { class: ingress.class, tls_secret: ingress.tls_secret },
            Some((_, kind)) if kind == "ingress" => {
                Routes::Ingress { class: ingress.class, tls_secret: ingress.tls_secret }
            }
            Some((key, kind)) if kind == "httproute" => {
                let message =
                    "`httproute` requires `[kubernetes.gateway]` with the `name` of a Gateway".to_owned();
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
                    message: format!("`{kind}` is neither `ingress` nor `httproute`"),
                });
            }
        };
        let names = |service: &str, names: Option<RawNames>| {
            let RawNames { deployment, service: name } = names.unwrap_or_default();
            (
                deployment.unwrap_or_else(|| format!("{service}-deployment")),
                name.unwrap_or_else(|| service.to_owned()),
            )
        };
        let jobs = raw.jobs.unwrap_or_default();
        let jobs_restricted = match jobs.security.as_deref() {
            None | Some("restricted") => true,
            Some("as-deployed") => false,
            Some(other) => {
                let message = format!("`{other}` is neither `restricted` nor `as-deployed`");
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

/// Validates everything but the memory: Kubernetes defines quantities, and validates them.
fn flush(raw: RawFlush) -> Result<FlushConfig, ConfigError> {
    let within = |key: &str, number: u32, max: u32| match number {
        number if (1..=max).contains(&number) => Ok(number),
        number => Err(ConfigError {
            key: format!("kubernetes.flush.{key}"),
            message: format!("`{number}` is not a number from 1 to {max}"),
        }),
    };
    Ok(FlushConfig {
        pods: within("pods", raw.pods.unwrap_or(4), 1_000)?,
        sites_per_pod: within("sites_per_pod", raw.sites_per_pod.unwrap_or(20), 100)?,
        memory: raw.memory.unwrap_or_else(|| "256Mi".to_owned()),
    })
}

/// Parses `host:port`.
fn address(key: &str, text: String) -> Result<(String, u16), ConfigError> {
    let parsed = text.rsplit_once(':').and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
    let invalid = || ConfigError {
        key: key.to_owned(),
        message: format!("`{text}` is not a host and a port, such as `host.internal:3306`"),
    };
    parsed.ok_or_else(invalid)
}
