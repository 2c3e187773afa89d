//! A platform on real backends: MariaDB, moto (Secrets Manager and S3), dynoxide (DynamoDB), and the Kubernetes API on
//! loopback; and servers that use them, with a proxy that can inject faults in front of each backend.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use cdm_core::adapters::{OsIds, SystemClock};
use cdm_core::ports::{Clock, Entropy};
use cdm_testkit::backends;
use cdm_testkit::kubernetes::{Container, Containers, Exit, KubernetesApi, Pace, Settings, User, WordPress};
use cdm_testkit::proxy::Proxy;
use serde_json::{Value, json};
use tempfile::TempDir;

use cdm_testkit::server::{Server, ServerMode, client, command, directory};

pub(crate) const NAMESPACE: &str = "wp-platform";
const REPOSITORY: &str = "registry.example.com/wordpress";
const TOKEN: &str = "the-service-account";

/// The addresses of the backends.
#[derive(Debug)]
struct Addresses {
    aws: String,
    dynamodb: String,
    mysql: String,
    python: String,
}

/// One platform. Its table, bucket and prefix are separate; the shared database server distinguishes platforms by the
/// uids of the sites.
#[derive(Debug)]
pub(crate) struct Platform {
    dir: TempDir,
    addresses: Addresses,
    /// The name of its table, bucket and prefix.
    name: String,
    pub(crate) kubernetes: KubernetesApi,
    /// What the jobs of its sites did.
    pub(crate) wordpress: Arc<WordPress>,
    /// The proxy of each backend, by name.
    pub(crate) proxies: BTreeMap<&'static str, Proxy>,
}

impl Platform {
    /// Creates a platform without a server; `None` if the backends were not started.
    pub(crate) async fn open() -> Option<Self> {
        let addresses = Addresses {
            aws: backends::address("CDM_TEST_AWS_ENDPOINT")?,
            dynamodb: backends::address("CDM_TEST_DYNOXIDE")?,
            mysql: backends::address("CDM_TEST_MYSQL")?,
            python: backends::address("CDM_TEST_PYTHON")?,
        };
        // Installs the TLS provider of the process.
        drop(client());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let name = format!("cdm-{:016x}", OsIds::new().expect("random bytes").write().0);
        let role = include_str!("../../../deploy/kubernetes/role.yaml");
        let wordpress = Arc::new(WordPress::with_themes(&["twentytwentyfive"]));
        let settings = Settings {
            pace: Pace::Clock(Arc::clone(&clock)),
            namespaces: vec![NAMESPACE.to_owned()],
            users: vec![User::with_roles("cdm", TOKEN, role, NAMESPACE).expect("the shipped role")],
            containers: Arc::new(InstantContainers(Arc::clone(&wordpress))),
        };
        let kubernetes = KubernetesApi::start(settings).await.expect("the Kubernetes API");
        for object in services(&name) {
            kubernetes.put(&object).expect("an object of the platform");
        }
        let http = async |url: String| Proxy::http(&url, Arc::clone(&clock)).await.expect("a proxy");
        let mysql = addresses.mysql.trim_start_matches("mysql://root@").trim_end_matches('/').to_owned();
        let proxies = BTreeMap::from([
            ("aws", http(addresses.aws.clone()).await),
            ("dynamodb", http(addresses.dynamodb.clone()).await),
            ("kubernetes", http(kubernetes.url()).await),
            ("mysql", Proxy::stream(mysql, Arc::clone(&clock)).await.expect("a proxy")),
        ]);
        let platform = Self { dir: directory(), addresses, name, kubernetes, wordpress, proxies };
        let kubeconfig = platform.kubernetes.kubeconfig_of(TOKEN, NAMESPACE);
        let kubeconfig =
            kubeconfig.replace(&platform.kubernetes.url(), &platform.proxy_address("kubernetes"));
        std::fs::write(platform.dir.path().join("kubeconfig"), kubeconfig).expect("a kubeconfig");
        let made = platform.command().arg("--bootstrap").output().expect("the server runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Some(platform)
    }

    fn proxy_address(&self, part: &str) -> String {
        format!("http://{}", self.proxies[part].address())
    }

    /// Returns the command of a server on this platform.
    fn command(&self) -> Command {
        let mut command = command(self.dir.path(), "backend = \"cloud\"\n");
        let mysql = self.proxies["mysql"].address();
        command
            .env_remove("CDM_DATA_DIR")
            .env("AWS_ENDPOINT_URL", self.proxy_address("aws"))
            .env("AWS_ENDPOINT_URL_DYNAMODB", self.proxy_address("dynamodb"))
            .env("KUBECONFIG", self.dir.path().join("kubeconfig"))
            .env("CDM_TABLE", &self.name)
            .env("CDM_BUCKET", &self.name)
            .env("CDM_SECRET_PREFIX", &self.name)
            .env("CDM_DATABASE_URL", format!("mysql://root@{mysql}/"))
            .env("CDM_IMAGE_REPOSITORY", REPOSITORY)
            .env("CDM_SITE_ADMIN_EMAIL", "admin@example.org");
        command
    }

    /// Starts a server, and waits until it listens.
    pub(crate) fn start(&self) -> Server {
        Server::listen(self.command().spawn().expect("the server starts"), ServerMode::Api)
    }

    /// Starts a server with further environment variables, and waits until it listens.
    pub(crate) fn start_with(&self, variables: &[(&str, &str)]) -> Server {
        let mut command = self.command();
        command.envs(variables.iter().copied());
        Server::listen(command.spawn().expect("the server starts"), ServerMode::Api)
    }

    /// Returns the content of the backends, read with other clients.
    pub(crate) fn outside(&self) -> Outside {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cloud/outside.py");
        let mut boto3 = Command::new(&self.addresses.python);
        let at = [&self.addresses.aws, &self.addresses.dynamodb];
        boto3.arg(script).args(at).args([&self.name, &self.name, &self.name]);
        let aws: Value = serde_json::from_str(&output(&mut boto3)).expect("the output of boto3");
        let (host, port) =
            self.addresses.mysql.trim_start_matches("mysql://root@").split_once(':').expect("a port");
        let ask = |statement: &str| {
            let mut client = Command::new("mariadb");
            client.args(["--no-defaults", "-N", "-uroot", "-h", host, "-P", port.trim_end_matches('/')]);
            let text = output(client.args(["-e", statement]));
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        Outside {
            aws,
            databases: ask("SHOW DATABASES LIKE 'site\\_%'"),
            users: ask("SELECT user FROM mysql.user WHERE user LIKE 'site\\_%'"),
            ingresses: self.kubernetes.objects("ingresses", NAMESPACE),
            secrets: self.kubernetes.objects("secrets", NAMESPACE),
            jobs: self.kubernetes.objects("jobs", NAMESPACE),
        }
    }
}

/// The simulated `wp` of the image, which takes no time.
#[derive(Debug)]
struct InstantContainers(Arc<WordPress>);

impl Containers for InstantContainers {
    fn run(&self, container: &Container) -> Exit {
        Exit { takes: Duration::ZERO, ..self.0.run(container) }
    }
}

/// The content of the backends.
#[derive(Debug)]
pub(crate) struct Outside {
    /// The output of `outside.py`.
    pub(crate) aws: Value,
    pub(crate) databases: Vec<String>,
    pub(crate) users: Vec<String>,
    pub(crate) ingresses: Vec<Value>,
    pub(crate) secrets: Vec<Value>,
    pub(crate) jobs: Vec<Value>,
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Returns the two Deployments with their Services, as an administrator creates them; the image finds its sites in
/// that table.
fn services(table: &str) -> Vec<Value> {
    ["blue", "green"]
        .into_iter()
        .flat_map(|color| {
            let labels = json!({"app": color});
            let image = format!("{REPOSITORY}@sha256:{}", "0".repeat(64));
            let container = json!({
                "name": "web", "image": image, "ports": [{"containerPort": 80}],
                "readinessProbe": {"httpGet": {"path": "/", "port": 80}},
                "env": [
                    {"name": "CDM_TABLE", "value": table}, {"name": "CDM_SECRET_PREFIX", "value": table},
                ],
            });
            let deployment = json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": format!("{color}-deployment"), "namespace": NAMESPACE, "labels": labels},
                "spec": {
                    "replicas": 2, "selector": {"matchLabels": labels}, "progressDeadlineSeconds": 30,
                    "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
                },
            });
            let service = json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": color, "namespace": NAMESPACE},
                "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 80}]},
            });
            [deployment, service]
        })
        .collect()
}
