//! Configuration of the cloud backends. Plain values, which builds without the cloud backends validate too.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hyper::header::HeaderName;
use secrecy::SecretString;

use super::backend_selection::BackendSelection;
use super::file::{RawConfig, RawFlush, RawGate, RawGateway, RawIngress, RawKubernetes, RawNames, RawWp};
use super::sources::{ConfigError, Environment, Setting};

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
    fn resolve(environment: Environment<'_>, raw: &RawGate) -> Result<Self, ConfigError> {
        let (blue, green) = (raw.blue(environment), raw.green(environment));
        let services = match (blue.parsed_by(address)?, green.parsed_by(address)?) {
            (Some(blue), Some(green)) => Some([blue, green]),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err(blue.error(format!("must be set together with `{}`", green.name())));
            }
        };
        let header = raw
            .header(environment)
            .parsed_by(|name| name.parse().map_err(|_| format!("`{name}` is not a valid header name")))?;
        Ok(Self {
            address: raw.address(environment).parsed_by(address)?,
            private: raw.private,
            services,
            header: header.unwrap_or(HeaderName::from_static("x-cdm-service")),
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
    fn resolve(environment: Environment<'_>, raw: &RawWp) -> Result<Self, ConfigError> {
        let path = raw.path(environment).checked_by(|path| {
            if path.starts_with('/') {
                return Ok(());
            }
            Err(format!(
                "`{path}` is not an absolute path in the image, such as `/var/www/html`; remove the setting to use \
                 the container's working directory"
            ))
        })?;
        Ok(Self { path, allow_root: raw.allow_root(environment).flag(false)? })
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
        let url = raw.database.url_file(environment).secret(environment)?;
        // An object store other than AWS's own usually has no host name for each bucket.
        let custom_endpoint = raw.aws.endpoint.is_some()
            || ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"].iter().any(|name| environment(name).is_some());
        let bucket = raw.bucket(environment);
        let config = Self {
            table: raw.table(environment).text_or("cdm"),
            bucket: bucket.text_or(""),
            s3_path_style: raw.s3_path_style(environment).flag(custom_endpoint)?,
            secret_prefix: raw.secret_prefix(environment).text_or("cdm"),
            database_url: url.value,
            database_address: raw.database.address(environment).parsed_by(address)?,
            gate: GateConfig::resolve(environment, &raw.gate)?,
            wp: WpConfig::resolve(environment, &raw.wp)?,
            kubernetes: KubernetesConfig::resolve(environment, raw.kubernetes)?,
            database_user_host: raw.database.user_host.unwrap_or_else(|| "%".to_owned()),
            aws: AwsConfig { region: raw.aws.region, profile: raw.aws.profile, endpoint: raw.aws.endpoint },
        };
        if backends.objects.is_cloud() && config.bucket.is_empty() {
            return Err(bucket.missing("the S3 bucket for site files"));
        }
        if backends.cluster.is_cloud() && config.database_url.is_none() {
            let expected = "the URL of the database server, `mysql://user:password@host:port/`";
            return Err(ConfigError::missing(url.name, expected));
        }
        Ok(config)
    }
}

impl KubernetesConfig {
    fn resolve(environment: Environment<'_>, raw: RawKubernetes) -> Result<Self, ConfigError> {
        let security = raw.jobs.security(environment).parsed_by(|security| match security {
            "restricted" => Ok(true),
            "as-deployed" => Ok(false),
            other => Err(format!("`{other}` is neither `restricted` nor `as-deployed`")),
        })?;
        let names = |service: &str, names: RawNames| {
            (
                names.deployment.unwrap_or_else(|| format!("{service}-deployment")),
                names.service.unwrap_or_else(|| service.to_owned()),
            )
        };
        Ok(Self {
            kubeconfig: raw.kubeconfig(environment).text().map(PathBuf::from),
            namespace: raw.namespace(environment).text_or("wp-platform"),
            canary_config_map: raw.canary_configmap(environment).text_or("canary-env"),
            flush: FlushConfig::resolve(environment, &raw.flush)?,
            job_service_account: raw.jobs.service_account(environment).text(),
            jobs_restricted: security.unwrap_or(true),
            routes: routes(&raw.routes(environment), raw.ingress, raw.gateway)?,
            context: raw.context,
            canary_key: raw.canary_key.unwrap_or_else(|| "canaryEnv".to_owned()),
            container: raw.container.unwrap_or_else(|| "web".to_owned()),
            blue: names("blue", raw.blue),
            green: names("green", raw.green),
            port: raw.port.unwrap_or(80),
            wp: raw.wp.unwrap_or_else(|| vec!["wp".to_owned()]),
            annotations: raw.annotations,
        })
    }
}

/// Returns the kind of route objects.
fn routes(kind: &Setting, ingress: RawIngress, gateway: Option<RawGateway>) -> Result<Routes, ConfigError> {
    match (kind.text().as_deref(), gateway) {
        (None | Some("ingress"), _) => {
            Ok(Routes::Ingress { class: ingress.class, tls_secret: ingress.tls_secret })
        }
        (Some("httproute"), Some(RawGateway { name, namespace, section })) => {
            Ok(Routes::HttpRoute { name, namespace, section })
        }
        (Some("httproute"), None) => {
            Err(kind.error("`httproute` requires `[kubernetes.gateway]` with the `name` of a Gateway"))
        }
        (Some(other), _) => Err(kind.error(format!("`{other}` is neither `ingress` nor `httproute`"))),
    }
}

impl FlushConfig {
    /// Validates everything but the memory: Kubernetes defines quantities, and validates them.
    fn resolve(environment: Environment<'_>, raw: &RawFlush) -> Result<Self, ConfigError> {
        let within = |setting: Setting, default: &str, max: u32| {
            setting.parsed(default, &format!("a number from 1 to {max}"), |number| (1..=max).contains(number))
        };
        Ok(Self {
            pods: within(raw.pods(environment), "4", 1_000)?,
            sites_per_pod: within(raw.sites_per_pod(environment), "20", 100)?,
            memory: raw.memory.clone().unwrap_or_else(|| "256Mi".to_owned()),
        })
    }
}

/// Parses `host:port`.
fn address(text: &str) -> Result<(String, u16), String> {
    let parsed = text.rsplit_once(':').and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
    parsed.ok_or_else(|| format!("`{text}` is not a host and a port, such as `host.internal:3306`"))
}
