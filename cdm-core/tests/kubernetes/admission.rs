//! The shipped admission policies: they accept every write of the adapter, and reject the writes of an attacker who
//! has stolen its account.
//!
//! The expressions are evaluated by a CEL interpreter with the variables that an API server provides, without an API
//! server. An API server additionally checks types when a policy is applied, and limits costs.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::LazyLock;

use cdm_core::domain::Color;
use cdm_core::ports::{ClusterOps, ImageWant, JobKind, Outcome};
use cel::{Context, Program, Value as Cel};
use serde_json::{Value, json};

use crate::env::{IMAGES, NAMESPACE, REPOSITORY, TestEnv, gateway, ingress};

const POLICIES: &str = include_str!("../../../deploy/kubernetes/admission-policy.yaml");
const CHART: &str = include_str!("../../../deploy/helm/cdm/templates/admission-policy.yaml");
const ACCOUNT: &str = "system:serviceaccount:cdm:cdm";

/// An admission request.
#[derive(Clone, Debug)]
struct AdmissionRequest {
    operation: &'static str,
    group: &'static str,
    resource: &'static str,
    user: &'static str,
    old: Value,
    new: Value,
}

impl AdmissionRequest {
    fn create(resource: &'static str, object: &Value) -> Self {
        Self { operation: "CREATE", new: object.clone(), ..Self::of(resource) }
    }

    fn update(resource: &'static str, old: &Value, new: &Value) -> Self {
        Self { operation: "UPDATE", old: old.clone(), new: new.clone(), ..Self::of(resource) }
    }

    fn delete(resource: &'static str, object: &Value) -> Self {
        Self { operation: "DELETE", old: object.clone(), ..Self::of(resource) }
    }

    fn of(resource: &'static str) -> Self {
        let group = match resource {
            "jobs" => "batch",
            "deployments" => "apps",
            "ingresses" => "networking.k8s.io",
            "httproutes" => "gateway.networking.k8s.io",
            _ => "",
        };
        Self { operation: "", group, resource, user: ACCOUNT, old: Value::Null, new: Value::Null }
    }

    fn name(&self) -> &Value {
        let object = if self.new.is_null() { &self.old } else { &self.new };
        &object["metadata"]["name"]
    }
}

fn documents() -> Vec<Value> {
    // The repository and the service account of jobs of the test environment, instead of those of an installation.
    let text =
        POLICIES.replace("REPOSITORY/wordpress", REPOSITORY).replace("'\"wordpress\"'", "'\"default\"'");
    let read = |document: &str| serde_norway::from_str(document).expect("YAML");
    text.split("\n---\n").map(read).collect()
}

fn policies() -> Vec<Value> {
    documents().into_iter().filter(|document| document["kind"] == "ValidatingAdmissionPolicy").collect()
}

fn list<'a>(value: &'a Value, pointer: &str) -> Vec<&'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten().collect()
}

fn value(of: &Value) -> Cel {
    cel::to_value(of).expect("a value")
}

/// Evaluates an expression; an evaluation error is returned.
fn evaluate(context: &Context<'_, '_>, expression: &Value) -> Result<Cel, String> {
    thread_local! {
        static COMPILED: RefCell<HashMap<String, Rc<Program>>> = RefCell::default();
    }
    let text = expression.as_str().expect("an expression");
    let compile = || Rc::new(Program::compile(text).unwrap_or_else(|error| panic!("{text}: {error}")));
    let program =
        COMPILED.with_borrow_mut(|known| Rc::clone(known.entry(text.to_owned()).or_insert_with(compile)));
    program.execute(context).map_err(|error| error.to_string())
}

/// Returns the message with which a policy rejects a request. An expression that cannot be evaluated rejects the
/// request as well, as with `failurePolicy: Fail`.
fn rejection(policy: &Value, request: &AdmissionRequest) -> Option<String> {
    let spec = &policy["spec"];
    let names = |rule: &Value, key: &str, one: &str| {
        rule[key].as_array().expect("a list").iter().any(|name| name == one || name == "*")
    };
    let covers = |rule: &&Value| {
        names(rule, "apiGroups", request.group)
            && names(rule, "resources", request.resource)
            && names(rule, "operations", request.operation)
    };
    list(spec, "/matchConstraints/resourceRules").into_iter().find(covers)?;
    let mut context = Context::default();
    context.add_variable_from_value("object", value(&request.new));
    context.add_variable_from_value("oldObject", value(&request.old));
    let request_variable = json!({
        "operation": request.operation,
        "name": request.name(),
        "namespace": NAMESPACE,
        "resource": { "group": request.group, "resource": request.resource },
        "userInfo": { "username": request.user },
    });
    context.add_variable_from_value("request", value(&request_variable));
    for condition in list(spec, "/matchConditions") {
        match evaluate(&context, &condition["expression"]) {
            Ok(Cel::Bool(true)) => {}
            Ok(Cel::Bool(false)) => return None,
            other => return Some(format!("{}: {other:?}", condition["name"])),
        }
    }
    let mut variables = HashMap::<String, Cel>::new();
    for variable in list(spec, "/variables") {
        context.add_variable_from_value("variables", variables.clone());
        // An API server evaluates a variable where it is used, and rejects the request there.
        if let Ok(value) = evaluate(&context, &variable["expression"]) {
            variables.insert(variable["name"].as_str().expect("a name").to_owned(), value);
        }
    }
    context.add_variable_from_value("variables", variables);
    list(spec, "/validations").into_iter().find_map(|validation| {
        match evaluate(&context, &validation["expression"]) {
            Ok(Cel::Bool(true)) => None,
            Ok(Cel::Bool(false)) => Some(validation["message"].as_str().expect("a message").to_owned()),
            other => Some(format!("{}: {other:?}", validation["message"])),
        }
    })
}

fn first_rejection(request: &AdmissionRequest) -> Option<String> {
    static ALL: LazyLock<Vec<Value>> = LazyLock::new(policies);
    ALL.iter().find_map(|policy| rejection(policy, request))
}

#[track_caller]
fn assert_accepted(request: &AdmissionRequest) {
    assert_eq!(first_rejection(request), None, "{request:#?}");
}

#[track_caller]
fn assert_rejected(request: &AdmissionRequest, by: &str) {
    let why = first_rejection(request).unwrap_or_else(|| panic!("accepted: {request:#?}"));
    assert!(why.contains(by), "`{why}` instead of `{by}`");
    // The policies do not apply to other accounts.
    assert_eq!(
        first_rejection(&AdmissionRequest {
            user: "system:serviceaccount:kube-system:job-controller",
            ..request.clone()
        }),
        None
    );
}

/// Returns a job of the adapter as the API server stores it, with its Secret.
async fn a_job(env: &TestEnv) -> (Value, Value) {
    let spec = env.install(env.cx().uid(), "A Title");
    assert_eq!(env.cluster.run_job(&env.cx().call(), &spec).await, Outcome::Applied(()));
    let job = env.api.object("jobs", NAMESPACE, spec.name.as_str()).expect("a job");
    let secret = env.api.object("secrets", NAMESPACE, spec.name.as_str()).expect("a Secret");
    (job, secret)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_writes_of_the_adapter_are_accepted() {
    for route in [ingress(), gateway()] {
        let env = TestEnv::start(route).await;
        env.cluster.bootstrap().await.expect("the configuration is valid");
        let uid = env.cx().uid();
        let spec = env.route_spec(uid, &["rrr.example.com"]);
        assert_eq!(env.cluster.put_route(&env.cx().call(), &spec).await, Outcome::Applied(()));
        let flush = env.job(JobKind::FlushCaches { uids: vec![uid, env.cx().uid()] });
        for job in [env.install(uid, "A Title"), env.theme(uid, "shop"), flush] {
            assert_eq!(env.cluster.run_job(&env.cx().call(), &job).await, Outcome::Applied(()));
        }
        let mut writes = 0;
        for resource in ["jobs", "secrets", "configmaps", "ingresses", "httproutes"] {
            for object in env.api.objects(resource, NAMESPACE) {
                writes += 1;
                assert_accepted(&AdmissionRequest::create(resource, &object));
                if object["metadata"]["name"] != "canary-env" {
                    assert_accepted(&AdmissionRequest::update(resource, &object, &object));
                    assert_accepted(&AdmissionRequest::delete(resource, &object));
                }
            }
        }
        assert_eq!(writes, 3 + 2 + 3 + 1, "jobs, Secrets, an anchor with canary and addresses, a route");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_image_of_a_deployment_can_change() {
    let env = TestEnv::start(ingress()).await;
    let name = "blue-deployment";
    let deployment = || env.api.object("deployments", NAMESPACE, name).expect("a Deployment");
    let before = deployment();
    let view = env.cluster.service(Color::Blue).await.expect("a service");
    let call = env.cx().call();
    let desired = ImageWant::Digest(IMAGES.first);
    assert_eq!(env.cluster.set_image(&call, Color::Blue, view.fence, &desired).await, Outcome::Applied(()));
    let after = deployment();
    assert_ne!(before["spec"], after["spec"]);
    assert_accepted(&AdmissionRequest::update("deployments", &before, &after));
    let template = view.template.expect("a template");
    let back = ImageWant::Template(template);
    let put = env.cluster.set_image(&env.cx().call(), Color::Blue, call.fence, &back).await;
    assert_eq!(put, Outcome::Applied(()));
    assert_accepted(&AdmissionRequest::update("deployments", &after, &deployment()));

    let spec = "/spec/template/spec";
    for (pointer, hostile) in [
        ("/serviceAccountName", json!("admin")),
        ("/automountServiceAccountToken", json!(false)),
        ("/hostNetwork", json!(true)),
        ("/hostPID", json!(true)),
        ("/volumes", json!([{ "name": "root", "hostPath": { "path": "/" } }])),
        ("/initContainers", json!([{ "name": "x", "image": "evil" }])),
        ("/containers/1/image", json!("evil@sha256:00")),
        ("/containers/1/image", json!(format!("{REPOSITORY}.evil.example@sha256:00"))),
        ("/containers/0/image", json!("evil:1")),
        ("/containers/1/command", json!(["sh"])),
        ("/containers/1/args", json!(["-c", "id"])),
        ("/containers/1/env", json!([])),
        ("/containers/1/envFrom", json!([{ "secretRef": { "name": "other" } }])),
        ("/containers/1/volumeMounts", json!([{ "name": "x", "mountPath": "/x" }])),
        ("/containers/1/lifecycle", json!({ "postStart": { "exec": { "command": ["sh"] } } })),
        ("/containers/1/securityContext", json!({ "privileged": true })),
        ("/containers/1/name", json!("other")),
    ] {
        let changed = with(&after, &format!("{spec}{pointer}"), hostile);
        assert_rejected(&AdmissionRequest::update("deployments", &after, &changed), "CDM");
    }
}

/// Returns the object with another value at a path; the last element of the path is created if it is missing.
fn with(object: &Value, pointer: &str, new: Value) -> Value {
    let mut object = object.clone();
    let (parent, last) = pointer.rsplit_once('/').expect("a path");
    let last = last.replace("~1", "/");
    let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("{parent}"));
    match last.parse::<usize>() {
        Ok(index) => parent[index] = new,
        Err(_) => parent[last] = new,
    }
    object
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_gives_no_access_to_other_accounts_and_secrets() {
    let env = TestEnv::start(ingress()).await;
    let (job, _) = a_job(&env).await;
    assert_accepted(&AdmissionRequest::create("jobs", &job));
    let volume = |volume: Value| json!([volume]);
    let pod = "/spec/template/spec";
    let env_of = |secret: &str| json!([{ "name": "X", "valueFrom": { "secretKeyRef": { "name": secret, "key": "k" } } }]);
    for (pointer, hostile, by) in [
        ("serviceAccountName", json!("admin"), "service account of jobs"),
        ("serviceAccount", json!("admin"), "service account of jobs"),
        ("automountServiceAccountToken", json!(true), "no token"),
        ("automountServiceAccountToken", Value::Null, "no token"),
        ("hostNetwork", json!(true), "nothing of its node"),
        ("hostPID", json!(true), "nothing of its node"),
        ("hostIPC", json!(true), "nothing of its node"),
        ("nodeName", json!("control-plane"), "nothing of its node"),
        ("volumes", volume(json!({ "name": "x", "hostPath": { "path": "/" } })), "mounts its own Secret"),
        (
            "volumes",
            volume(json!({ "name": "x", "secret": { "secretName": "tls" } })),
            "mounts its own Secret",
        ),
        (
            "volumes",
            volume(json!({ "name": "x", "nfs": { "server": "x", "path": "/" } })),
            "mounts its own Secret",
        ),
        (
            "volumes",
            volume(json!({ "name": "x", "csi": { "driver": "secrets-store" } })),
            "mounts its own Secret",
        ),
        (
            "volumes",
            volume(json!({ "name": "x", "persistentVolumeClaim": { "claimName": "backups" } })),
            "mounts its own Secret",
        ),
        (
            "volumes",
            volume(json!({ "name": "x", "projected": { "sources": [{ "secret": { "name": "tls" } }] } })),
            "mounts its own Secret",
        ),
        (
            "volumes",
            volume(
                json!({ "name": "x", "projected": { "sources": [{ "serviceAccountToken": { "path": "t" } }] } }),
            ),
            "mounts its own Secret",
        ),
        ("containers/0/env", env_of("tls"), "into its environment"),
        ("initContainers/0/env", env_of("tls"), "into its environment"),
        ("containers/0/envFrom", json!([{ "secretRef": { "name": "tls" } }]), "into its environment"),
        ("containers/0/image", json!("evil:1"), "the image of the two services"),
        ("initContainers/1/image", json!(format!("{REPOSITORY}-evil:1")), "the image of the two services"),
        ("containers/0/securityContext", json!({ "privileged": true }), "not privileged"),
    ] {
        let hostile = with(&job, &format!("{pod}/{pointer}"), hostile);
        for request in
            [AdmissionRequest::create("jobs", &hostile), AdmissionRequest::update("jobs", &job, &hostile)]
        {
            assert_rejected(&request, by);
        }
    }
    // A Job with the name of a foreign Secret would mount that Secret as its own.
    let mut named = with(&job, "/metadata/name", json!("tls"));
    named = with(
        &named,
        &format!("{pod}/volumes"),
        volume(json!({ "name": "x", "secret": { "secretName": "tls" } })),
    );
    assert_rejected(&AdmissionRequest::create("jobs", &named), "named for what it does");
    // Labels that would add its pod to a Service.
    assert_rejected(
        &AdmissionRequest::create("jobs", &with(&job, "/spec/template/metadata/labels/app", json!("blue"))),
        "CDM's labels and no others",
    );
    let unlabeled = with(&job, "/metadata/labels", json!({}));
    assert_rejected(&AdmissionRequest::create("jobs", &unlabeled), "CDM");
    // Secrets that the container of the services refers to are listed by the administrator.
    let listed = POLICIES
        .replace("- name: secrets\n      expression: '[]'", "- name: secrets\n      expression: '[\"tls\"]'");
    let listed =
        listed.replace("REPOSITORY/wordpress", REPOSITORY).replace("'\"wordpress\"'", "'\"default\"'");
    let policy: Value = serde_norway::from_str(listed.split("\n---\n").next().expect("one")).expect("YAML");
    let own = with(&job, &format!("{pod}/containers/0/env"), env_of("tls"));
    assert_eq!(rejection(&policy, &AdmissionRequest::create("jobs", &own)), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_belongs_to_its_job_and_has_no_special_type() {
    let env = TestEnv::start(ingress()).await;
    let (_, secret) = a_job(&env).await;
    let other = json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1" }]);
    for (pointer, hostile, by) in [
        ("/type", json!("kubernetes.io/service-account-token"), "Opaque"),
        ("/type", Value::Null, "Opaque"),
        ("/metadata/name", json!("cdm"), "the name of its Job"),
        ("/metadata/ownerReferences", other, "belongs to its Job"),
        ("/metadata/ownerReferences", json!([]), "belongs to its Job"),
        ("/metadata/labels", json!({}), "CDM's label"),
    ] {
        assert_rejected(&AdmissionRequest::create("secrets", &with(&secret, pointer, hostile)), by);
    }
    let foreign = json!({ "metadata": { "name": "tls", "labels": { "app": "x" } } });
    for resource in ["secrets", "configmaps", "jobs", "ingresses", "httproutes"] {
        assert_rejected(&AdmissionRequest::delete(resource, &foreign), "and nothing else");
        assert_rejected(&AdmissionRequest::create(resource, &foreign), "CDM");
        let labeled = with(&foreign, "/metadata/labels", json!({ "app.kubernetes.io/managed-by": "cdm" }));
        assert_rejected(&AdmissionRequest::update(resource, &foreign, &labeled), "CDM");
    }
    // The canary's state may belong to another program, and is never deleted.
    let canary = json!({ "metadata": { "name": "canary-env" } });
    assert_accepted(&AdmissionRequest::update("configmaps", &canary, &canary));
    assert_rejected(&AdmissionRequest::delete("configmaps", &canary), "and nothing else");
}

#[test]
fn every_policy_is_bound_and_denies_in_the_namespace_of_the_services() {
    let documents = documents();
    let policies = policies();
    assert_eq!((documents.len(), policies.len()), (8, 4));
    for policy in &policies {
        let bound = |document: &&Value| {
            document["kind"] == "ValidatingAdmissionPolicyBinding"
                && document["spec"]["policyName"] == policy["metadata"]["name"]
        };
        let binding = documents.iter().find(bound).expect("a binding");
        assert_eq!(binding["spec"]["validationActions"], json!(["Deny"]));
        assert_eq!(policy["spec"]["failurePolicy"], "Fail");
        let color = &policy["spec"]["matchConstraints"]["namespaceSelector"]["matchLabels"];
        assert_eq!(color["kubernetes.io/metadata.name"], NAMESPACE);
        assert!(list(policy, "/spec/validations").iter().all(|one| {
            // Without a reason the API server would report the request as invalid, like a malformed object.
            one["message"].is_string() && one["reason"] == "Forbidden"
        }));
    }
}

/// Compares the chart's text, with default values, to the manifest.
#[test]
fn the_chart_has_the_same_policies() {
    let mut text = CHART.to_owned();
    for (of_chart, plain) in [
        ("{{ .Release.Namespace }}:{{ .Release.Name }}", "cdm:cdm"),
        ("{{ .Release.Name }}-{{ .Release.Namespace }}-", "cdm-"),
        ("{{ .Values.platform.namespace }}", NAMESPACE),
        ("{{ .Values.platform.jobServiceAccount }}", "wordpress"),
        ("{{ .Values.platform.imageRepository }}", "REPOSITORY/wordpress"),
        ("{{ toJson .Values.platform.jobSecrets }}", "[]"),
        ("{{ toJson .Values.platform.jobClaims }}", "[]"),
        ("{{ .Values.platform.canaryConfigMap }}", "canary-env"),
    ] {
        assert!(text.contains(of_chart), "{of_chart}");
        text = text.replace(of_chart, plain);
    }
    let plain = &POLICIES[POLICIES.find("apiVersion:").expect("an object")..];
    let (_, text) = text.split_once("{{- if .Values.admissionPolicy.enabled }}\n").expect("a condition");
    assert_eq!(text.strip_suffix("{{- end }}\n"), Some(plain));
}

/// A Deployment of an image without a security context yields a job that `restricted` accepts.
#[tokio::test(flavor = "multi_thread")]
async fn the_pod_of_a_job_fulfills_the_pod_security_standard() {
    let env = TestEnv::start(ingress()).await;
    let (job, _) = a_job(&env).await;
    let pod = &job["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], json!(true));
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let containers = list(pod, "/containers").into_iter().chain(list(pod, "/initContainers"));
    for container in containers {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], json!(false));
        assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }));
    }
    for field in ["hostNetwork", "hostPID", "hostIPC", "serviceAccountName"] {
        assert_eq!(pod[field], Value::Null, "{field}");
    }
    assert_eq!(pod["automountServiceAccountToken"], json!(false));
    for volume in list(pod, "/volumes") {
        assert_eq!(volume["hostPath"], Value::Null);
    }
}
