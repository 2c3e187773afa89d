//! Where the services, the routes and the jobs are, and how they look. Plain values, judged before they are used.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::Color;

/// How to reach the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// By the service account of the pod that this runs in.
    InCluster,
    /// By a kubeconfig file, with that context or its current one.
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// The context.
        context: Option<String>,
    },
}

/// The names of one of the two services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceNames {
    /// Its Deployment.
    pub deployment: String,
    /// Its Service, to which routes point.
    pub service: String,
}

/// What a site's route is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// An Ingress.
    Ingress {
        /// Its class; the cluster's default class where nothing is set.
        class: Option<String>,
        /// The Secret with the certificate for its hostnames.
        tls_secret: Option<String>,
    },
    /// An HTTPRoute of the Gateway API.
    HttpRoute {
        /// The Gateway.
        gateway: String,
        /// The Gateway's namespace, where it is another one.
        namespace: Option<String>,
        /// The Gateway's listener, where not all of them.
        section: Option<String>,
    },
}

/// Whether sites' own addresses begin with `http` or `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `http://`
    Http,
    /// `https://`
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

/// Where sites are kept, as the image is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The DynamoDB table.
    pub table: String,
    /// What the names of secrets begin with.
    pub secret_prefix: String,
}

/// What a job's pod may do where the Deployment of its service does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JobSecurity {
    /// What the Pod Security Standard `restricted` asks for: not as root, no further privileges, no capabilities, the
    /// runtime's seccomp profile. An image whose user is root needs a `runAsUser` in the Deployment.
    #[default]
    Restricted,
    /// Whatever the cluster allows a pod that says nothing.
    AsDeployed,
}

/// Whether `wp` may run as root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WpRoot {
    /// It refuses, as it does by itself.
    #[default]
    Refused,
    /// It may: `--allow-root`.
    Allowed,
}

/// How CDM works on a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesSettings {
    /// The namespace of everything below.
    pub namespace: String,
    /// The ConfigMap with the canary's state.
    pub canary_config_map: String,
    /// Its key.
    pub canary_key: String,
    /// The repository of the image, without tag and digest.
    pub image: String,
    /// The container that runs it.
    pub container: String,
    /// Blue.
    pub blue: ServiceNames,
    /// Green.
    pub green: ServiceNames,
    /// The port of both Services.
    pub port: u16,
    /// What routes are.
    pub route: RouteKind,
    /// Annotations of every route.
    pub route_annotations: BTreeMap<String, String>,
    /// How sites' own addresses begin.
    pub scheme: Scheme,
    /// The command that is `wp` in the image.
    pub wp: Vec<String>,
    /// Where WordPress is in the image, an absolute path; `None` for the container's working directory.
    pub wp_path: Option<String>,
    /// Whether `wp` may run as root, where the Deployment has its pods run so.
    pub wp_root: WpRoot,
    /// The service account of jobs' pods; `None` for the namespace's `default`. The services' own is not taken over.
    pub job_service_account: Option<String>,
    /// What jobs' pods may do where the Deployment does not say.
    pub job_security: JobSecurity,
    /// How long a job may take.
    pub job_deadline: Duration,
    /// How long an ended job is kept, with its pods and their logs. Its Secret is not.
    pub job_kept: Duration,
    /// How many pods of a batch are at work at once.
    pub batch_width: u32,
    /// How many sites a pod of a batch has at most, each in a container of its own.
    pub batch_slots: u32,
    /// How much memory such a container may take, as Kubernetes writes quantities.
    pub batch_memory: String,
    /// Where the image has to look sites up; not checked where nothing is set.
    pub lookup: Option<Lookup>,
}

impl KubernetesSettings {
    /// The usual names in `namespace`, with an Ingress of the default class for each site.
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

    /// The names of a service.
    pub const fn names(&self, color: Color) -> &ServiceNames {
        match color {
            Color::Blue => &self.blue,
            Color::Green => &self.green,
        }
    }

    /// The service whose Deployment has that name.
    pub(super) fn selector_of(&self, deployment: &str) -> Option<Color> {
        Color::ALL.into_iter().find(|color| self.names(*color).deployment == deployment)
    }

    /// Judges what can be judged without the cluster.
    pub(super) fn judge(&self) -> Result<(), KubernetesError> {
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
            return Err(KubernetesError::SameColours);
        }
        if self.image.is_empty() || self.image.contains('@') || self.image.contains(char::is_whitespace) {
            return Err(KubernetesError::Image);
        }
        if self.wp.is_empty()
            || self.batch_memory.is_empty()
            || self.batch_width == 0
            || self.batch_slots == 0
        {
            return Err(KubernetesError::Nothing);
        }
        if self.wp_path.as_deref().is_some_and(|path| !path.starts_with('/')) {
            return Err(KubernetesError::WpPath);
        }
        Ok(())
    }
}

/// A name as Kubernetes wants them: a label of RFC 1123, or several with dots between.
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

/// Why settings, or an access to a cluster, are of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KubernetesError {
    /// A name that Kubernetes does not have.
    #[error("{0} has no name of lower-case letters, digits, hyphens and dots")]
    Name(&'static str),
    /// The two services are one.
    #[error("blue and green have Deployments and Services of their own")]
    SameColours,
    /// The repository.
    #[error("the image is a repository, without a digest")]
    Image,
    /// A command, or a measure of a batch, of nothing.
    #[error("the command `wp` is not empty, nor are a batch's pods, sites in a pod, and memory")]
    Nothing,
    /// The directory of WordPress.
    #[error("the directory of WordPress in the image is an absolute path")]
    WpPath,
    /// No way to the API server.
    #[error("there is no access to the cluster: {0}")]
    Access(String),
}
