//! Settings: the names of the services, the format of routes, and the properties of jobs. Checked before their use.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::Color;

/// How to connect to the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// With the service account of the pod that this process runs in.
    InCluster,
    /// With a kubeconfig file.
    Kubeconfig {
        /// The path of the file.
        path: PathBuf,
        /// The context in the file; `None` uses the file's current context.
        context: Option<String>,
    },
}

/// The names of one service's objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceNames {
    /// The name of the Deployment.
    pub deployment: String,
    /// The name of the Kubernetes Service that routes point to.
    pub service: String,
}

/// The kind of object that represents a site's route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// An Ingress, for a cluster with an ingress controller.
    Ingress {
        /// The ingress class; `None` uses the cluster's default class.
        class: Option<String>,
        /// The name of the Secret with the certificate for the hostnames; `None` serves no TLS.
        tls_secret: Option<String>,
    },
    /// An HTTPRoute of the Gateway API.
    HttpRoute {
        /// The name of the Gateway.
        gateway: String,
        /// The namespace of the Gateway; `None` for the namespace of the route.
        namespace: Option<String>,
        /// The listener of the Gateway (`sectionName`); `None` for all listeners.
        section: Option<String>,
    },
}

/// The scheme of the sites' URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `http://`, for a cluster without TLS.
    Http,
    /// `https://`, also if TLS ends in front of the cluster.
    Https,
}

impl Scheme {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Where sites are stored, by the configuration of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The name of the DynamoDB table.
    pub table: String,
    /// The prefix of the secrets' names.
    pub secret_prefix: String,
}

/// The security context of a job's pod, for fields that the Deployment of its service does not set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JobSecurity {
    /// As the Pod Security Standard `restricted` requires: no root user, no privilege escalation, no capabilities, and
    /// the runtime's default seccomp profile. An image whose user is root needs a `runAsUser` in the Deployment.
    #[default]
    Restricted,
    /// The defaults of the cluster.
    AsDeployed,
}

/// Whether `wp` may run as root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WpRoot {
    /// `wp` refuses to run as root, which is its default.
    #[default]
    Refused,
    /// `wp` runs as root, with `--allow-root`.
    Allowed,
}

/// The settings of a cluster. [`KubernetesSettings::new`] has the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesSettings {
    /// The namespace of all objects. No default.
    pub namespace: String,
    /// The name of the ConfigMap with the canary's state. Default: `canary-env`.
    pub canary_config_map: String,
    /// The key in that ConfigMap. Default: `canaryEnv`.
    pub canary_key: String,
    /// The repository of the image, without tag and digest. No default.
    pub image: String,
    /// The name of the container that runs the image. Default: `web`.
    pub container: String,
    /// The names of the blue service. Default: `blue-deployment` and `blue`.
    pub blue: ServiceNames,
    /// The names of the green service. Default: `green-deployment` and `green`.
    pub green: ServiceNames,
    /// The port of both Kubernetes Services. Default: 80.
    pub port: u16,
    /// The kind of object of routes. Default: an Ingress of the cluster's default class, without TLS.
    pub route: RouteKind,
    /// Annotations of every route, for the ingress controller. Default: none.
    pub route_annotations: BTreeMap<String, String>,
    /// The scheme of the sites' URLs. Default: `https`.
    pub scheme: Scheme,
    /// The command that runs `wp` in the image. Default: `wp`.
    pub wp: Vec<String>,
    /// The absolute path of WordPress in the image; `None` (the default) uses the container's working directory.
    pub wp_path: Option<String>,
    /// Whether `wp` may run as root, for a Deployment whose pods run as root. Default: refused.
    pub wp_root: WpRoot,
    /// The service account of jobs' pods; `None` (the default) uses the namespace's `default` account. The account of
    /// the services is never used, because jobs run commands with a site's credentials.
    pub job_service_account: Option<String>,
    /// The security context of jobs' pods where the Deployment sets none. Default: restricted. `AsDeployed` runs images
    /// that `restricted` prevents from running, with fewer restrictions.
    pub job_security: JobSecurity,
    /// Timeout of a job, in seconds of the Job's `activeDeadlineSeconds`. Default: 10 minutes. A short timeout fails
    /// slow installations, a long one delays the failure of broken ones.
    pub job_deadline: Duration,
    /// How long an ended job is kept, with its pods and their logs. Default: 24 hours. A longer time helps debugging
    /// and costs objects in the cluster. The job's Secret is deleted when the job ends.
    pub job_kept: Duration,
    /// How many pods of a batch run at a time. Default: 4. More pods flush faster and use more of the cluster.
    pub batch_width: u32,
    /// Maximum number of sites per pod of a batch, each in a separate container. Default: 20. More sites per pod need
    /// fewer pods, but larger ones.
    pub batch_slots: u32,
    /// The memory limit of each container of a batch, as a Kubernetes quantity. Default: `256Mi`. Too small a limit
    /// kills the container.
    pub batch_memory: String,
    /// The table that the image must use, which is checked at start; `None` (the default) disables the check.
    pub lookup: Option<Lookup>,
}

impl KubernetesSettings {
    /// Returns the default settings for `namespace`, with an Ingress of the default class for each site.
    pub fn new(namespace: &str, image: &str) -> Self {
        let names = |color: Color| ServiceNames {
            deployment: format!("{color}-deployment"),
            service: color.to_string(),
        };
        Self {
            namespace: namespace.to_owned(),
            canary_config_map: "canary-env".to_owned(),
            canary_key: "canaryEnv".to_owned(),
            image: image.to_owned(),
            container: "web".to_owned(),
            blue: names(Color::Blue),
            green: names(Color::Green),
            port: 80,
            route: RouteKind::Ingress { class: None, tls_secret: None },
            route_annotations: BTreeMap::new(),
            scheme: Scheme::Https,
            wp: vec!["wp".to_owned()],
            wp_path: None,
            wp_root: WpRoot::Refused,
            job_service_account: None,
            job_security: JobSecurity::Restricted,
            job_deadline: Duration::from_secs(600),
            job_kept: Duration::from_secs(24 * 3600),
            batch_width: 4,
            batch_slots: 20,
            batch_memory: "256Mi".to_owned(),
            lookup: None,
        }
    }

    /// Returns the names of a service's objects.
    pub const fn names(&self, color: Color) -> &ServiceNames {
        match color {
            Color::Blue => &self.blue,
            Color::Green => &self.green,
        }
    }

    /// Returns the service whose Deployment has this name.
    pub(super) fn color_of(&self, deployment: &str) -> Option<Color> {
        Color::ALL.into_iter().find(|color| self.names(*color).deployment == deployment)
    }

    /// Checks the settings, without the cluster.
    pub(super) fn check_values(&self) -> Result<(), KubernetesError> {
        let names = [
            ("the namespace", &self.namespace),
            ("the canary's ConfigMap", &self.canary_config_map),
            ("the container", &self.container),
            ("blue's Deployment", &self.blue.deployment),
            ("green's Deployment", &self.green.deployment),
            ("blue's Service", &self.blue.service),
            ("green's Service", &self.green.service),
        ];
        if let Some((what, _)) = names.iter().find(|(_, name)| !is_name(name)) {
            return Err(KubernetesError::Name(what));
        }
        if self.job_service_account.as_deref().is_some_and(|name| !is_name(name)) {
            return Err(KubernetesError::Name("the service account of jobs"));
        }
        if self.blue.deployment == self.green.deployment || self.blue.service == self.green.service {
            return Err(KubernetesError::SameServices);
        }
        if self.image.is_empty() || self.image.contains('@') || self.image.contains(char::is_whitespace) {
            return Err(KubernetesError::Image);
        }
        if self.wp.is_empty()
            || self.batch_memory.is_empty()
            || self.batch_width == 0
            || self.batch_slots == 0
        {
            return Err(KubernetesError::Empty);
        }
        if self.wp_path.as_deref().is_some_and(|path| !path.starts_with('/')) {
            return Err(KubernetesError::WpPath);
        }
        Ok(())
    }
}

/// Returns whether a text is a valid Kubernetes name: one or more labels of RFC 1123, separated by dots.
fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Why settings, or an access configuration, cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KubernetesError {
    /// A name is not a valid Kubernetes name.
    #[error("the name of {0} is invalid; use lower-case letters, digits, hyphens and dots")]
    Name(&'static str),
    /// Both services have the same Deployment or the same Kubernetes Service.
    #[error("blue and green must have different Deployments and different Services")]
    SameServices,
    /// The image is not a repository.
    #[error("the image must be a repository without a digest")]
    Image,
    /// The command `wp`, the memory, or a number of a batch is empty or zero.
    #[error(
        "the command `wp` and the memory of a batch must not be empty, and the pods and sites of a batch must be \
         at least 1"
    )]
    Empty,
    /// The directory of WordPress is not an absolute path.
    #[error("the directory of WordPress in the image must be an absolute path")]
    WpPath,
    /// The API server cannot be accessed.
    #[error("the cluster cannot be accessed: {0}")]
    Access(String),
}
