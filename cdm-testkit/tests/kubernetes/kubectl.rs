//! A second, independent client: kubectl works with this server.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use cdm_core::adapters::SystemClock;
use cdm_core::domain::{MonotonicTime, Timestamp};
use cdm_core::ports::Clock;
use cdm_testkit::backends;
use cdm_testkit::kubernetes::{Container, Containers, Exit, KubernetesApi, Pace, Settings, User};
use serde_json::{Value, json};

use super::{deployment, map};

const FIRST: &str = "site@sha256:1111111111111111111111111111111111111111111111111111111111111111";
const SECOND: &str = "site@sha256:2222222222222222222222222222222222222222222222222222222222222222";
const ROLE: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: cdm}
rules:
- apiGroups: ['', apps]
  resources: [configmaps, deployments]
  verbs: [get, list]
";

/// A kubectl with its own kubeconfig.
struct Kubectl {
    program: PathBuf,
    home: PathBuf,
    configuration: PathBuf,
}

impl Kubectl {
    fn new(program: PathBuf, who: &str, configuration: &str) -> Self {
        let home = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("kubectl-{who}"));
        std::fs::create_dir_all(&home).expect("a directory");
        let file = home.join("config");
        std::fs::write(&file, configuration).expect("a file");
        Self { program, home, configuration: file }
    }

    fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new(&self.program)
            .args(arguments)
            .env("KUBECONFIG", &self.configuration)
            .env("HOME", &self.home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        child.stdin.take().expect("an input").write_all(input.as_bytes()).expect("kubectl reads");
        child.wait_with_output().expect("kubectl ends")
    }

    /// Returns the output of a successful command.
    fn stdout(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {arguments:?}: {text}{error}");
        text
    }

    /// Returns the errors of a failed command.
    fn stderr(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input);
        assert!(!output.status.success(), "kubectl {arguments:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
    }

    fn object(&self, arguments: &[&str]) -> Value {
        let text = self.stdout(&[arguments, &["-o", "json"]].concat(), "");
        serde_json::from_str(&text).expect("JSON")
    }
}

/// Containers that print their arguments.
#[derive(Debug)]
struct Echo;

impl Containers for Echo {
    fn run(&self, container: &Container) -> Exit {
        Exit::success(format!("{}\n", container.argv.join(" ")))
    }
}

/// A clock on which ten seconds pass in one second.
#[derive(Debug)]
struct Fast(SystemClock);

const FASTER: u64 = 10;

#[async_trait]
impl Clock for Fast {
    fn wall(&self) -> Timestamp {
        self.0.wall()
    }

    fn monotonic(&self) -> MonotonicTime {
        MonotonicTime::from_millis(self.0.monotonic().millis() * FASTER)
    }

    async fn sleep_until(&self, until: MonotonicTime) {
        self.0.sleep_until(MonotonicTime::from_millis(until.millis().div_ceil(FASTER))).await;
    }
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_works_with_the_server() {
    let Some(program) = backends::address("CDM_TEST_KUBECTL").map(PathBuf::from) else { return };
    let reader = User::with_roles("reader", "reader-token", ROLE, "cdm").expect("a role");
    let settings = Settings {
        pace: Pace::Clock(Arc::new(Fast(SystemClock::new()))),
        users: vec![reader],
        containers: Arc::new(Echo),
        ..Settings::default()
    };
    let api = KubernetesApi::start(settings).await.expect("a server");
    let kubectl =
        Kubectl::new(program.clone(), "administrator", &api.kubeconfig_by_address(api.token(), "cdm"));
    let reader = Kubectl::new(program, "reader", &api.kubeconfig_by_address("reader-token", "cdm"));
    tokio::task::spawn_blocking(move || {
        objects(&kubectl);
        deployments(&kubectl);
        jobs(&kubectl);
        rights(&kubectl, &reader);
    })
    .await
    .expect("no panic");
    drop(api);
}

fn objects(kubectl: &Kubectl) {
    has(&kubectl.stdout(&["api-resources"], ""), &["configmaps", "httproutes", "deploy", "jobs"]);
    // For objects of its own making, kubectl uses a format that the server does not support.
    let create = ["create", "--validate=false", "-f", "-"];
    let one = map("one", json!({}), json!({"a": "1"})).to_string();
    has(&kubectl.stdout(&create, &one), &["configmap/one created"]);
    has(&kubectl.stderr(&create, &one), &["AlreadyExists"]);
    has(&kubectl.stderr(&["get", "configmap", "no"], ""), &["NotFound", "configmaps \"no\" not found"]);
    kubectl.stdout(&["label", "configmap", "one", "app=blue"], "");
    kubectl.stdout(&["annotate", "configmap", "one", "cdm/fence=7"], "");
    let key = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"password": "x"},
    });
    kubectl.stdout(&create, &key.to_string());
    has(&kubectl.stdout(&["get", "configmaps,secrets", "-o", "name"], ""), &["configmap/one", "secret/key"]);
    assert_eq!(kubectl.stdout(&["get", "cm", "-l", "app in (green)", "-o", "name"], ""), "");
    has(&kubectl.stdout(&["get", "cm", "--field-selector", "metadata.name=one"], ""), &["NAME", "one"]);
    has(&kubectl.stdout(&["describe", "configmap", "one"], ""), &["cdm/fence: 7", "app=blue"]);
    for (kind, patch) in [
        (
            "json",
            r#"[{"op":"test","path":"/data/a","value":"1"},{"op":"replace","path":"/data/a","value":"2"}]"#,
        ),
        ("merge", r#"{"data":{"b":"3"}}"#),
        ("strategic", r#"{"data":{"c":"4"}}"#),
    ] {
        kubectl.stdout(&["patch", "configmap", "one", "--type", kind, "-p", patch], "");
    }
    let one = kubectl.object(&["get", "configmap", "one"]);
    assert_eq!(one["data"], json!({"a": "2", "b": "3", "c": "4"}));
    let failed = r#"[{"op":"test","path":"/data/a","value":"1"}]"#;
    kubectl.stderr(&["patch", "configmap", "one", "--type", "json", "-p", failed], "");
    kubectl.stdout(&["annotate", "configmap", "one", "cdm/fence=8", "--overwrite"], "");
    has(
        &kubectl.stderr(&["replace", "--validate=false", "-f", "-"], &one.to_string()),
        &["Conflict", "the object has been modified"],
    );
    has(
        &kubectl.stderr(&create, &map("Upper", json!({}), json!({})).to_string()),
        &["is invalid: metadata.name: Invalid value"],
    );
    kubectl.stdout(&["delete", "configmap", "one"], "");
    let applied = map("two", json!({}), json!({"a": "1"})).to_string();
    let apply = ["apply", "--server-side", "--validate=false", "-f", "-"];
    for _ in 0..2 {
        has(&kubectl.stdout(&apply, &applied), &["configmap/two serverside-applied"]);
    }
    kubectl.stderr(&["get", "configmap", "one"], "");
    let route = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "rrr"},
        "spec": {"rules": [{"host": "rrr.example.com", "http": {"paths": [{
            "path": "/", "pathType": "Prefix", "backend": {"service": {"name": "blue", "port": {"number": 80}}},
        }]}}]},
    });
    kubectl.stdout(&["apply", "--validate=false", "-f", "-"], &route.to_string());
    has(&kubectl.stdout(&["describe", "ingress", "rrr"], ""), &["rrr.example.com", "blue:80"]);
}

fn deployments(kubectl: &Kubectl) {
    let apply =
        |object: &Value| kubectl.stdout(&["apply", "--validate=false", "-f", "-"], &object.to_string());
    let mut blue = deployment("blue", 2, FIRST);
    has(&apply(&blue), &["deployment.apps/blue created"]);
    has(&apply(&blue), &["deployment.apps/blue unchanged"]);
    let status = || kubectl.stdout(&["rollout", "status", "deployment/blue", "--timeout=60s"], "");
    has(&status(), &["successfully rolled out"]);
    blue["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "A", "value": "1"}]);
    has(&apply(&blue), &["deployment.apps/blue configured"]);
    let image = format!("web={SECOND}");
    has(&kubectl.stdout(&["set", "image", "deployment/blue", &image], ""), &["image updated"]);
    has(&status(), &["successfully rolled out"]);
    let now = kubectl.object(&["get", "deployment", "blue"]);
    let container = &now["spec"]["template"]["spec"]["containers"][0];
    assert_eq!((&container["image"], &container["env"][0]["name"]), (&json!(SECOND), &json!("A")));
    assert_eq!(now["status"]["availableReplicas"], 2);
    has(
        &kubectl.stdout(&["describe", "deployment", "blue"], ""),
        &["2 desired | 2 updated | 2 total | 2 available", SECOND],
    );
    kubectl.stdout(&["wait", "--for=condition=available", "deployment/blue", "--timeout=60s"], "");
    kubectl.stdout(&["rollout", "restart", "deployment/blue"], "");
    has(&status(), &["successfully rolled out"]);
    has(&kubectl.stdout(&["rollout", "history", "deployment/blue"], ""), &["REVISION"]);
    kubectl.stdout(&["rollout", "undo", "deployment/blue", "--to-revision=1"], "");
    has(&status(), &["successfully rolled out"]);
    let now = kubectl.object(&["get", "deployment", "blue"]);
    assert_eq!(now["spec"]["template"]["spec"]["containers"][0]["image"], FIRST);
    let pods = kubectl.object(&["get", "pods", "-l", "app=blue"]);
    assert_eq!(pods["items"][0]["status"]["containerStatuses"][0]["imageID"], FIRST);
    has(&kubectl.stdout(&["describe", "pods", "-l", "app=blue"], ""), &["Running", FIRST]);
    kubectl.stdout(&["delete", "deployment", "blue", "--cascade=foreground", "--timeout=60s"], "");
    assert_eq!(kubectl.stdout(&["get", "pods", "-l", "app=blue", "-o", "name"], ""), "");
}

fn jobs(kubectl: &Kubectl) {
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "hello"},
        "spec": {"backoffLimit": 0, "template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "wp", "image": "site:1", "args": ["hello", "there"]}],
        }}},
    });
    has(
        &kubectl.stdout(&["create", "--validate=false", "-f", "-"], &job.to_string()),
        &["job.batch/hello created"],
    );
    kubectl.stdout(&["wait", "--for=condition=complete", "job/hello", "--timeout=60s"], "");
    assert_eq!(kubectl.stdout(&["logs", "job/hello"], ""), "hello there\n");
    has(&kubectl.stdout(&["describe", "job", "hello"], ""), &["1 Succeeded"]);
    kubectl.stdout(&["delete", "job", "hello", "--cascade=foreground", "--timeout=60s"], "");
    assert_eq!(kubectl.stdout(&["get", "pods", "-l", "job-name=hello", "-o", "name"], ""), "");
}

fn rights(kubectl: &Kubectl, reader: &Kubectl) {
    assert_eq!(kubectl.stdout(&["auth", "can-i", "delete", "jobs"], ""), "yes\n");
    assert_eq!(reader.stdout(&["auth", "can-i", "list", "deployments.apps"], ""), "yes\n");
    has(&reader.stderr(&["auth", "can-i", "delete", "deployments.apps"], ""), &["no"]);
    let seen = map("seen", json!({}), json!({})).to_string();
    kubectl.stdout(&["create", "--validate=false", "-f", "-"], &seen);
    reader.stdout(&["get", "configmap", "seen"], "");
    let refused = reader.stderr(&["delete", "configmap", "seen"], "");
    has(
        &refused,
        &[
            "Forbidden",
            "User \"reader\" cannot delete resource \"configmaps\" in API group \"\" in the namespace \"cdm\"",
        ],
    );
}
