//! The servers run in a separate process, so that their CPU time is not counted for the arms: a Kubernetes API on
//! loopback, and a counting proxy in front of dynoxide.

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

/// Number of requests, by server and request type.
pub(crate) type Counts = BTreeMap<String, u64>;

/// The server process; it ends when this value is dropped.
#[derive(Debug)]
pub(crate) struct Servers {
    process: Mutex<(Child, ChildStdin, BufReader<ChildStdout>)>,
    /// A kubeconfig of CDM's service account.
    pub(crate) kubeconfig: String,
    /// The same kubeconfig for `kubectl`.
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
        let where_they_are = read_json(&mut stdout);
        let text = |name: &str| where_they_are[name].as_str().unwrap_or_default().to_owned();
        Self {
            kubeconfig: text("kubeconfig"),
            for_kubectl: text("for_kubectl"),
            dynamodb: text("dynamodb"),
            process: Mutex::new((child, stdin, stdout)),
        }
    }

    fn query(&self, word: &str) -> Value {
        let mut process = self.process.lock().expect("the server process");
        writeln!(process.1, "{word}").expect("the server process reads its input");
        read_json(&mut process.2)
    }

    /// Resets the counters.
    pub(crate) fn reset(&self) {
        self.query("forget");
    }

    /// Returns the requests since the last reset.
    pub(crate) fn counts(&self) -> Counts {
        serde_json::from_value(self.query("counts")).expect("counts")
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        if let Ok(process) = self.process.get_mut() {
            // The process may have ended already.
            drop(process.0.kill());
            drop(process.0.wait());
        }
    }
}

fn read_json(from: &mut BufReader<ChildStdout>) -> Value {
    let mut text = String::new();
    from.read_line(&mut text).expect("the server process replies");
    serde_json::from_str(&text).expect("a line of JSON")
}

/// Serves until standard input is closed.
pub(crate) async fn serve(dynamodb: &str) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let role = include_str!("../../../deploy/kubernetes/role.yaml");
    let settings = Settings {
        pace: Pace::Manual,
        namespaces: vec![NAMESPACE.to_owned()],
        users: vec![User::with_roles("cdm", TOKEN, role, NAMESPACE).expect("the shipped role")],
        containers: Arc::new(InstantContainers),
    };
    let api = Arc::new(KubernetesApi::start(settings).await.expect("a Kubernetes API"));
    for object in services() {
        api.put(&object).expect("an object");
    }
    api.advance(Duration::from_secs(60));
    tokio::spawn(speed_up(Arc::clone(&api), Arc::clone(&clock)));
    let proxy = Proxy::http(dynamodb, clock).await.expect("a proxy");
    println!(
        "{}",
        json!({
            "kubeconfig": api.kubeconfig_of(TOKEN, NAMESPACE),
            "for_kubectl": api.kubeconfig_by_address(TOKEN, NAMESPACE),
            "dynamodb": proxy.url(),
        })
    );
    let mut before = (0, 0);
    let words = tokio::task::block_in_place(|| std::io::stdin().lock().lines().map_while(Result::ok));
    for word in words {
        let now = (proxy.changes(), proxy.request_count());
        if word == "forget" {
            api.forget_requests();
            before = now;
            println!("null");
            continue;
        }
        let mut counts = Counts::new();
        for request in api.requests() {
            *counts.entry(format!("Kubernetes: {} {}", request.verb, request.resource)).or_default() += 1;
        }
        let changes = now.0 - before.0;
        counts.insert("DynamoDB: writes".to_owned(), changes);
        counts.insert("DynamoDB: reads".to_owned(), now.1 - before.1 - changes);
        println!("{}", serde_json::to_string(&counts).expect("JSON"));
    }
}

/// Advances the cluster's clock fifty times as fast as real time, because the start time of pods is not measured.
async fn speed_up(api: Arc<KubernetesApi>, clock: Arc<dyn Clock>) {
    loop {
        clock.sleep_until(clock.monotonic().after(Duration::from_millis(2))).await;
        api.advance(Duration::from_millis(100));
    }
}

/// Containers of jobs that flush caches immediately, and prove it in the termination message, as the prelude does.
#[derive(Debug)]
struct InstantContainers;

impl Containers for InstantContainers {
    fn run(&self, _: &Container) -> Exit {
        let flushed = "Success: The cache was flushed.\n";
        Exit { takes: Duration::ZERO, message: flushed.to_owned(), ..Exit::success(flushed) }
    }
}

/// Returns the two Deployments with their Services, as an administrator creates them.
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
