//! The test environment: a separate cluster for each test, with two services that run an image, an account with the
//! shipped role, and containers that behave like `wp`.

use std::io::Write as _;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use cdm_core::adapters::kubernetes::{
    Access, KubernetesCluster, KubernetesError, KubernetesSettings, RouteKind,
};
use cdm_core::domain::Color;
use cdm_core::domain::{
    DatabaseName, Digest, Hostnames, JobName, SecretKind, SecretName, SiteId, SiteName, Theme, Uid,
};
use cdm_core::ports::{
    CallContext, Clock, ClusterOps, Cms, Credentials, Database, Job, JobKind, JobSpec, JobState, Outcome,
    PortError, RouteSpec, SecretStore, StoredSecret,
};
use cdm_testkit::contract::cluster::Images;
use cdm_testkit::contract::{Settle, SuiteContext, SystemEnv};
use cdm_testkit::kubernetes::{Containers, KubernetesApi, Settings, User, WordPress};
use secrecy::SecretString;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

pub(crate) const NAMESPACE: &str = "wp-platform";
pub(crate) const REPOSITORY: &str = "registry.example/wordpress";
const TOKEN: &str = "the-token-of-cdm";
const ROLE: &str = include_str!("../../../deploy/kubernetes/role.yaml");
const HTTP_ROUTES: &str = include_str!("../../../deploy/kubernetes/role-httproute.yaml");
/// Substring of every password in the test environment.
pub(crate) const CANARY: &str = "hush-canary";

pub(crate) static IMAGES: LazyLock<Images> =
    LazyLock::new(|| Images { first: digest("1"), second: digest("2") });

pub(crate) fn digest(digit: &str) -> Digest {
    Digest::parse(&digit.repeat(64)).expect("a digest")
}

pub(crate) fn ingress() -> RouteKind {
    RouteKind::Ingress { class: Some("public".to_owned()), tls_secret: None }
}

pub(crate) fn gateway() -> RouteKind {
    RouteKind::HttpRoute { gateway: "front".to_owned(), namespace: None, section: None }
}

/// Returns the account with the shipped role for those routes.
pub(crate) fn account(route: &RouteKind) -> User {
    match route {
        RouteKind::Ingress { .. } => User::with_roles("cdm", TOKEN, ROLE, NAMESPACE).expect("a role"),
        RouteKind::HttpRoute { .. } => {
            let roles = format!("{ROLE}\n---\n{HTTP_ROUTES}");
            let user = User::with_roles("cdm", TOKEN, &roles, NAMESPACE).expect("a role");
            let last_of_first = user.rules() - 2;
            user.without_rule(last_of_first)
        }
    }
}

/// A secret store that returns credentials for every site.
#[derive(Debug, Default)]
pub(crate) struct StaticSecrets;

#[async_trait]
impl SecretStore for StaticSecrets {
    async fn create(&self, _: &CallContext, _: &SecretName, _: &Credentials) -> Outcome<()> {
        Outcome::Applied(())
    }

    async fn read(&self, name: &SecretName) -> Result<Option<StoredSecret>, PortError> {
        let password = SecretString::from(format!("{CANARY}-{}", name.uid));
        Ok(Some(StoredSecret::Value(match name.kind {
            SecretKind::Database => {
                let dbname = DatabaseName::of(name.uid).to_string();
                let username = dbname.clone();
                Credentials::Database(Database {
                    host: "db.internal".to_owned(),
                    port: 3306,
                    dbname,
                    username,
                    password,
                })
            }
            SecretKind::Webhook | SecretKind::Sealing => return Ok(None),
            SecretKind::Cms => {
                let (username, email) = ("admin".to_owned(), "admin@example.com".to_owned());
                Credentials::Cms(Cms { username, password, email })
            }
        })))
    }

    async fn schedule_delete(&self, _: &CallContext, _: &SecretName) -> Outcome<()> {
        Outcome::Applied(())
    }
}

/// Opens a cluster with these settings and credentials.
pub(crate) async fn open_cluster(
    settings: KubernetesSettings,
    access: &Access,
) -> Result<KubernetesCluster, KubernetesError> {
    KubernetesCluster::new(settings, access, Arc::new(StaticSecrets), Arc::new(SystemEnv::new().clock)).await
}

#[derive(Debug)]
pub(crate) struct TestEnv {
    pub(crate) suite: SystemEnv,
    pub(crate) api: KubernetesApi,
    pub(crate) wordpress: Arc<WordPress>,
    pub(crate) cluster: KubernetesCluster,
    kubeconfig: NamedTempFile,
}

impl TestEnv {
    pub(crate) async fn start(route: RouteKind) -> Self {
        let account = account(&route);
        Self::with(route, account).await
    }

    pub(crate) async fn with(route: RouteKind, account: User) -> Self {
        let wordpress = Arc::new(WordPress::with_themes(&["shop"]));
        let containers = Arc::clone(&wordpress) as Arc<dyn Containers>;
        Self::running(route, account, wordpress, containers, |_| ()).await
    }

    /// Starts an environment with adjusted settings.
    pub(crate) async fn with_settings(adjust: impl FnOnce(&mut KubernetesSettings)) -> Self {
        let wordpress = Arc::new(WordPress::with_themes(&["shop"]));
        let containers = Arc::clone(&wordpress) as Arc<dyn Containers>;
        Self::running(ingress(), account(&ingress()), wordpress, containers, adjust).await
    }

    /// Starts an environment whose jobs run in these containers.
    pub(crate) async fn with_containers(containers: Arc<dyn Containers>) -> Self {
        Self::with_containers_and_settings(containers, |_| ()).await
    }

    pub(crate) async fn with_containers_and_settings(
        containers: Arc<dyn Containers>,
        adjust: impl FnOnce(&mut KubernetesSettings),
    ) -> Self {
        Self::running(ingress(), account(&ingress()), Arc::default(), containers, adjust).await
    }

    async fn running(
        route: RouteKind,
        account: User,
        wordpress: Arc<WordPress>,
        containers: Arc<dyn Containers>,
        adjust: impl FnOnce(&mut KubernetesSettings),
    ) -> Self {
        let namespaces = vec![NAMESPACE.to_owned()];
        let settings = Settings { namespaces, users: vec![account], containers, ..Settings::default() };
        let api = KubernetesApi::start(settings).await.expect("a server");
        for color in Color::ALL {
            api.put(&deployment(color)).expect("a service");
        }
        api.advance(Duration::from_secs(60));
        let mut kubeconfig = NamedTempFile::new().expect("a file");
        kubeconfig.write_all(api.kubeconfig_of(TOKEN, NAMESPACE).as_bytes()).expect("a kubeconfig");
        let path = kubeconfig.path().to_owned();
        let suite = SystemEnv::new();
        let mut settings = KubernetesSettings { route, ..KubernetesSettings::new(NAMESPACE, REPOSITORY) };
        adjust(&mut settings);
        let access = Access::Kubeconfig { path, context: None };
        let cluster =
            KubernetesCluster::new(settings, &access, Arc::new(StaticSecrets), Arc::new(suite.clock));
        let cluster = cluster.await.expect("a cluster");
        Self { suite, api, wordpress, cluster, kubeconfig }
    }

    /// Returns a second client of the same cluster, as a newly started process would have.
    pub(crate) async fn reopen(&self) -> KubernetesCluster {
        let path = self.kubeconfig.path().to_owned();
        let settings = KubernetesSettings::new(NAMESPACE, REPOSITORY);
        open_cluster(settings, &Access::Kubeconfig { path, context: None }).await.expect("a cluster")
    }

    pub(crate) fn cx(&self) -> SuiteContext<'_> {
        SuiteContext::new(&self.suite.clock, &self.suite.ids, self)
    }

    /// Panics if a request was denied for lack of permissions, or a container had access to data that it must not
    /// have.
    #[track_caller]
    pub(crate) fn assert_allowed(&self) {
        let denied: Vec<_> = self.api.requests().into_iter().filter(|request| request.code == 403).collect();
        assert_eq!(denied, [], "the shipped role allows every request");
        assert_eq!(self.wordpress.violations(), Vec::<String>::new());
    }

    pub(crate) fn route_spec(&self, uid: Uid, hosts: &[&str]) -> RouteSpec {
        let hostnames = Hostnames::parse(hosts, hosts[0]).expect("hostnames");
        RouteSpec { uid, site: self.cx().site(uid), hostnames, service: Color::Blue }
    }

    pub(crate) fn install(&self, uid: Uid, title: &str) -> JobSpec {
        let host = format!("{uid}.example.com");
        let hostnames = Hostnames::parse(&[&host], &host).expect("hostnames");
        let title = SiteName::parse(title).expect("a title");
        self.job(JobKind::Install { uid, hostnames, title })
    }

    pub(crate) fn theme(&self, uid: Uid, theme: &str) -> JobSpec {
        self.job(JobKind::ActivateTheme { uid, theme: Theme::parse(theme).expect("a theme") })
    }

    pub(crate) fn job(&self, kind: JobKind) -> JobSpec {
        let site = SiteId::parse("rrr").expect("a site id");
        let name = JobName::of_site(&site, kind.word(), self.cx().number(), 1);
        JobSpec { name, service: Color::Blue, kind }
    }

    /// Starts a job, which must be applied, and waits for its end.
    pub(crate) async fn finish(&self, spec: &JobSpec) -> Job {
        assert_eq!(self.cluster.run_job(&self.cx().call(), spec).await, Outcome::Applied(()));
        self.ended(&spec.name).await
    }

    pub(crate) async fn ended(&self, name: &JobName) -> Job {
        self.cx()
            .until("a job ends", async || {
                let job = self.cluster.job(name).await.expect("a response");
                job.filter(|job| job.state != JobState::Running)
            })
            .await
    }

    /// Returns a call context with a short deadline.
    pub(crate) fn short_call(&self) -> CallContext {
        let deadline = self.suite.clock.monotonic().after(Duration::from_millis(150));
        CallContext { deadline, ..self.cx().call() }
    }

    /// Returns the number of requests with that verb and resource.
    pub(crate) fn count(&self, verb: &str, resource: &str) -> usize {
        let requests = self.api.requests();
        requests.iter().filter(|request| request.verb == verb && request.resource == resource).count()
    }
}

#[async_trait]
impl Settle for TestEnv {
    /// Advances the cluster by one second; watches receive its changes within milliseconds.
    async fn settle(&self) {
        self.api.advance(Duration::from_secs(1));
        self.suite.clock.sleep_until(self.suite.clock.monotonic().after(Duration::from_millis(20))).await;
    }

    fn holds_credentials(&self, job: &JobName) -> Option<bool> {
        Some(self.api.object("secrets", NAMESPACE, job.as_str()).is_some())
    }
}

/// Returns a service as an administrator created it, including settings that must not appear in the pod of a job.
pub(crate) fn deployment(color: Color) -> Value {
    let probe = json!({ "httpGet": { "path": "/", "port": 80 } });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": format!("{color}-deployment"), "namespace": NAMESPACE },
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": { "app": color.as_str() } },
            "template": {
                "metadata": { "labels": { "app": color.as_str() } },
                "spec": { "containers": [
                    { "name": "proxy", "image": "proxy:1" },
                    {
                        "name": "web",
                        "image": format!("{REPOSITORY}:6.8"),
                        "ports": [{ "containerPort": 80 }],
                        "readinessProbe": probe,
                        "livenessProbe": probe,
                        "lifecycle": { "preStop": { "exec": { "command": ["sleep", "5"] } } },
                        "env": [{ "name": "CDM_TABLE", "value": "cdm" }],
                    },
                ] },
            },
        },
    })
}
