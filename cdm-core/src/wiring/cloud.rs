//! Opens the cloud backends by their configuration.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::OnceCell;

use super::backends::{Backend, Opened, StartError, impl_backend};
use super::cloud_config::{CloudConfig, KubernetesConfig, Routes};
use super::config::Config;
use crate::adapters::aws::{Aws, AwsSettings};
use crate::adapters::dynamodb::{DynamoStore, DynamoTable, DynamoTokens};
use crate::adapters::kubernetes::{
    Access, JobSecurity, KubernetesCluster, KubernetesSettings, Lookup, RouteKind, Scheme, ServiceNames,
    WpRoot,
};
use crate::adapters::mysql::{MysqlDatabases, MysqlSettings};
use crate::adapters::outbound::probe::{HttpProbe, ProbeSettings};
use crate::adapters::s3::{S3Objects, S3Settings};
use crate::adapters::secrets_manager::{SecretsManager, SecretsManagerSettings};
use crate::ports::{
    Clock, ClusterOps, HealthProbe, ObjectStore, SecretStore, SiteDatabases, Store, TokenStore,
};

/// The configuration of the cloud backends, and the AWS account that several of them share.
pub(super) struct CloudBackends<'a> {
    config: &'a CloudConfig,
    image_repository: &'a str,
    https: bool,
    event_retention: Option<Duration>,
    aws: OnceCell<Aws>,
    clock: Arc<dyn Clock>,
}

impl<'a> CloudBackends<'a> {
    /// Sends no request before a backend is opened.
    pub(super) fn new(config: &'a Config, clock: Arc<dyn Clock>) -> Self {
        Self {
            config: &config.cloud,
            image_repository: config.image_repository.as_deref().unwrap_or_default(),
            https: config.site_scheme == "https",
            event_retention: config.retention.events,
            aws: OnceCell::new(),
            clock,
        }
    }

    /// Returns the AWS account. A region or credentials that are not configured come from AWS's own sources, such as
    /// environment variables, profiles, and the metadata of the container or instance.
    async fn aws(&self) -> &Aws {
        let aws = &self.config.aws;
        let settings = AwsSettings {
            region: aws.region.clone(),
            profile: aws.profile.clone(),
            endpoint: aws.endpoint.clone(),
        };
        self.aws.get_or_init(|| async move { Aws::load(&settings).await }).await
    }

    pub(super) async fn store(&self) -> (Opened<dyn Store>, Arc<dyn TokenStore>) {
        let table = DynamoTable::new(self.aws().await, &self.config.table, Arc::clone(&self.clock));
        let table = table.keeping_events(self.event_retention);
        let (store, tokens) = (DynamoStore::new(table.clone()), DynamoTokens::new(table.clone()));
        (Opened { port: Arc::new(store), backend: Arc::new(table) }, Arc::new(tokens))
    }

    pub(super) async fn secrets(&self) -> Result<Opened<dyn SecretStore>, StartError> {
        let settings = SecretsManagerSettings { prefix: self.config.secret_prefix.clone() };
        let secrets = SecretsManager::new(self.aws().await, &settings, Arc::clone(&self.clock));
        let secrets = Arc::new(
            secrets.map_err(|error| StartError::new("set up the client of AWS Secrets Manager", error))?,
        );
        Ok(Opened { port: Arc::clone(&secrets) as _, backend: secrets })
    }

    pub(super) async fn objects(&self) -> Opened<dyn ObjectStore> {
        let settings = S3Settings {
            bucket: self.config.bucket.clone(),
            endpoint: None,
            path_style: self.config.s3_path_style,
        };
        let objects = Arc::new(S3Objects::new(self.aws().await, &settings, Arc::clone(&self.clock)));
        Opened { port: Arc::clone(&objects) as _, backend: objects }
    }

    /// Opens the site databases on their server, and the cluster whose pods use them.
    pub(super) async fn databases_and_cluster(
        &self,
        secrets: &Arc<dyn SecretStore>,
    ) -> Result<(Opened<dyn SiteDatabases>, Opened<dyn ClusterOps>, Arc<dyn HealthProbe>), StartError> {
        let settings = MysqlSettings {
            url: self.config.database_url.clone().unwrap_or_default(),
            password: None,
            address: self.config.database_address.clone(),
            user_host: self.config.database_user_host.clone(),
        };
        let databases = MysqlDatabases::new(&settings, Arc::clone(&self.clock));
        let databases = Arc::new(
            databases.map_err(|error| StartError::new("set up the client of the database server", error))?,
        );
        let kubernetes = &self.config.kubernetes;
        let settings = self.cluster_settings(kubernetes);
        let access = match &kubernetes.kubeconfig {
            None => Access::InCluster,
            Some(path) => Access::Kubeconfig { path: path.clone(), context: kubernetes.context.clone() },
        };
        let cluster =
            KubernetesCluster::new(settings, &access, Arc::clone(secrets), Arc::clone(&self.clock)).await;
        let cluster =
            Arc::new(cluster.map_err(|error| StartError::new("set up the client of Kubernetes", error))?);
        let databases = Opened { port: Arc::clone(&databases) as _, backend: databases };
        let probe = HttpProbe::new(self.probe_settings(kubernetes), Arc::clone(&self.clock));
        Ok((databases, Opened { port: Arc::clone(&cluster) as _, backend: cluster }, Arc::new(probe)))
    }

    /// Returns the settings of health gates. Unless configured otherwise, they reach the services by their names in the
    /// cluster.
    fn probe_settings(&self, config: &KubernetesConfig) -> ProbeSettings {
        let service =
            |(_, name): &(String, String)| (format!("{name}.{}.svc", config.namespace), config.port);
        ProbeSettings {
            https: self.https,
            route: self.config.gate.address.clone(),
            private: self.config.gate.private,
            services: self
                .config
                .gate
                .services
                .clone()
                .unwrap_or([service(&config.blue), service(&config.green)]),
            header: self.config.gate.header.clone(),
        }
    }

    fn cluster_settings(&self, config: &KubernetesConfig) -> KubernetesSettings {
        let names = |(deployment, service): &(String, String)| ServiceNames {
            deployment: deployment.clone(),
            service: service.clone(),
        };
        let route = match config.routes.clone() {
            Routes::Ingress { class, tls_secret } => RouteKind::Ingress { class, tls_secret },
            Routes::HttpRoute { name, namespace, section } => {
                RouteKind::HttpRoute { gateway: name, namespace, section }
            }
        };
        KubernetesSettings {
            canary_config_map: config.canary_config_map.clone(),
            canary_key: config.canary_key.clone(),
            container: config.container.clone(),
            blue: names(&config.blue),
            green: names(&config.green),
            port: config.port,
            wp: config.wp.clone(),
            wp_path: self.config.wp.path.clone(),
            wp_root: if self.config.wp.allow_root { WpRoot::Allowed } else { WpRoot::Refused },
            job_service_account: config.job_service_account.clone(),
            job_security: if config.jobs_restricted {
                JobSecurity::Restricted
            } else {
                JobSecurity::AsDeployed
            },
            batch_width: config.flush.pods,
            batch_slots: config.flush.sites_per_pod,
            batch_memory: config.flush.memory.clone(),
            lookup: Some(Lookup {
                table: self.config.table.clone(),
                secret_prefix: self.config.secret_prefix.clone(),
            }),
            route,
            route_annotations: config.annotations.clone(),
            scheme: if self.https { Scheme::Https } else { Scheme::Http },
            ..KubernetesSettings::new(&config.namespace, self.image_repository)
        }
    }
}

impl_backend!(SecretsManager, MysqlDatabases; bootstrap DynamoTable, S3Objects, KubernetesCluster);
