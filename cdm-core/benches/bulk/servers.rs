//! The servers, in a process of their own, so that their time on a processor is not the arms': a Kubernetes API on
//! loopback, and a proxy before dynoxide that counts.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cdm_core::adapters::SystemClock;
use cdm_core::ports::Clock;
use cdm_testkit::kubernetes::{Container, Containers, Exit, KubernetesApi, Pace, Settings, User};
use cdm_testkit::proxy::Proxy;
use serde_json::{Value, json};

pub(crate) const NAMESPACE: &str = "wp-platform";
pub(crate) const REPOSITORY: &str = "registry.example.com/wordpress";
const TOKEN: &str = "the-service-account";

/// Requests, by server and what was asked.
pub(crate) type Counts = BTreeMap<String, u64>;

/// Servers in a process that ends with this.
#[derive(Debug)]
pub(crate) struct Servers {
    process: Mutex<(Child, ChildStdin, BufReader<ChildStdout>)>,
    /// A kubeconfig of CDM's account.
    pub(crate) kubeconfig: String,
    /// The same for kubectl.
    pub(crate) for_kubectl: String,
    /// The address of DynamoDB.
    pub(crate) dynamodb: String,
}

impl Servers {
    pub(crate) fn start(dynamodb: &str) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args(["servers", dynamodb])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the servers start");
        let stdin = child.stdin.take().expect("its input");
        let mut stdout = BufReader::new(child.stdout.take().expect("its output"));
        let where_they_are = line(&mut stdout);
        let text = |name: &str| where_they_are[name].as_str().unwrap_or_default().to_owned();
        Self {
            kubeconfig: text("kubeconfig"),
            for_kubectl: text("for_kubectl"),
            dynamodb: text("dynamodb"),
            process: Mutex::new((child, stdin, stdout)),
        }
    }

    fn ask(&self, word: &str) -> Value {
        let mut process = self.process.lock().expect("the servers");
        writeln!(process.1, "{word}").expect("the servers listen");
        line(&mut process.2)
    }

    /// Begins to count anew.
    pub(crate) fn forget(&self) {
        self.ask("forget");
    }

    /// What was asked since.
    pub(crate) fn counts(&self) -> Counts {
        serde_json::from_value(self.ask("counts")).expect("counts")
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        if let Ok(process) = self.process.get_mut() {
            // It may have ended already.
            drop(process.0.kill());
            drop(process.0.wait());
        }
    }
}

fn line(from: &mut BufReader<ChildStdout>) -> Value {
    let mut text = String::new();
    from.read_line(&mut text).expect("the servers answer");
    serde_json::from_str(&text).expect("a line of JSON")
}

/// Serves until the input ends.
pub(crate) async fn serve(dynamodb: &str) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let role = include_str!("../../../deploy/kubernetes/role.yaml");
    let settings = Settings {
        pace: Pace::Manual,
        namespaces: vec![NAMESPACE.to_owned()],
        users: vec![User::with_roles("cdm", TOKEN, role, NAMESPACE).expect("the shipped role")],
        containers: Arc::new(AtOnce),
    };
    let api = Arc::new(KubernetesApi::start(settings).await.expect("a Kubernetes API"));
    for object in services() {
        api.put(&object).expect("an object");
    }
    api.advance(Duration::from_secs(60));
    tokio::spawn(hurry(Arc::clone(&api), Arc::clone(&clock)));
    let upstream = dynamodb.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let proxy = Proxy::http(upstream, clock).await.expect("a proxy");
    println!(
        "{}",
        json!({
            "kubeconfig": api.kubeconfig_of(TOKEN, NAMESPACE),
            "for_kubectl": api.kubeconfig_by_address(TOKEN, NAMESPACE),
            "dynamodb": format!("http://{}", proxy.address()),
        })
    );
    let mut before = (0, 0);
    let words = tokio::task::block_in_place(|| std::io::stdin().lock().lines().map_while(Result::ok));
    for word in words {
        let now = (proxy.changes(), proxy.asked());
        if word == "forget" {
            api.forget_requests();
            before = now;
            println!("null");
            continue;
        }
        let mut counts = Counts::new();
        for asked in api.requests() {
            *counts.entry(format!("Kubernetes: {} {}", asked.verb, asked.resource)).or_default() += 1;
        }
        let changes = now.0 - before.0;
        counts.insert("DynamoDB: writes".to_owned(), changes);
        counts.insert("DynamoDB: reads".to_owned(), now.1 - before.1 - changes);
        println!("{}", serde_json::to_string(&counts).expect("JSON"));
    }
}

/// Lets the cluster's time run fifty times as fast: how long pods take to start is not what is measured.
async fn hurry(api: Arc<KubernetesApi>, clock: Arc<dyn Clock>) {
    loop {
        clock.sleep_until(clock.monotonic().after(Duration::from_millis(2))).await;
        api.advance(Duration::from_millis(100));
    }
}

/// Containers of jobs that are done at once.
#[derive(Debug)]
struct AtOnce;

impl Containers for AtOnce {
    fn run(&self, _: &Container) -> Exit {
        Exit { takes: Duration::ZERO, ..Exit::success("Success: The cache was flushed.\n") }
    }
}

/// The two Deployments with their Services, as an administrator makes them.
fn services() -> Vec<Value> {
    let of = |color: &str| {
        let labels = json!({"app": color});
        let image = format!("{REPOSITORY}@sha256:{}", "0".repeat(64));
        let container = json!({
            "name": "web", "image": image, "ports": [{"containerPort": 80}],
            "env": [{"name": "CDM_TABLE", "value": "cdm"}, {"name": "CDM_SECRET_PREFIX", "value": "cdm"}],
        });
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": format!("{color}-deployment"), "namespace": NAMESPACE, "labels": labels},
            "spec": {
                "replicas": 2, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        });
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": color, "namespace": NAMESPACE},
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 80}]},
        });
        [deployment, service]
    };
    ["blue", "green"].into_iter().flat_map(of).collect()
}
