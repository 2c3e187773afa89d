//! The shipped admission policies: everything that the adapter writes is accepted, and what a thief of its account would
//! write is not.
//!
//! The expressions are evaluated by an interpreter of CEL, with the variables that an API server gives them; there is no
//! API server here. What differs from one: an API server also checks types when a policy is applied, and limits costs.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::LazyLock;

use cdm_core::domain::Color;
use cdm_core::ports::{ClusterOps, ImageWant, JobKind, Outcome};
use cel::{Context, Program, Value as Cel};
use serde_json::{Value, json};

use crate::lab::{IMAGES, Lab, NAMESPACE, REPOSITORY, gateway, ingress};

const POLICIES: &str = include_str!("../../../deploy/kubernetes/admission-policy.yaml");
const CHART: &str = include_str!("../../../deploy/helm/cdm/templates/admission-policy.yaml");
const ACCOUNT: &str = "system:serviceaccount:cdm:cdm";

/// A request as admission sees it.
#[derive(Clone, Debug)]
struct Asked {
    operation: &'static str,
    group: &'static str,
    resource: &'static str,
    user: &'static str,
    old: Value,
    new: Value,
}

impl Asked {
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
    // The lab's repository, and its account of jobs, in place of those of an installation.
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

/// What an expression says; an error of its evaluation is told.
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

/// The message with which a policy refuses a request; an expression that cannot be evaluated refuses it too, as
/// `failurePolicy: Fail` has it.
fn refusal(policy: &Value, asked: &Asked) -> Option<String> {
    let spec = &policy["spec"];
    let names = |rule: &Value, key: &str, one: &str| {
        rule[key].as_array().expect("a list").iter().any(|name| name == one || name == "*")
    };
    let covers = |rule: &&Value| {
        names(rule, "apiGroups", asked.group)
            && names(rule, "resources", asked.resource)
            && names(rule, "operations", asked.operation)
    };
    list(spec, "/matchConstraints/resourceRules").into_iter().find(covers)?;
    let mut context = Context::default();
    context.add_variable_from_value("object", value(&asked.new));
    context.add_variable_from_value("oldObject", value(&asked.old));
    let request = json!({
        "operation": asked.operation,
        "name": asked.name(),
        "namespace": NAMESPACE,
        "resource": { "group": asked.group, "resource": asked.resource },
        "userInfo": { "username": asked.user },
    });
    context.add_variable_from_value("request", value(&request));
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
        // An API server evaluates a variable where it is used, and refuses there.
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

fn judge(asked: &Asked) -> Option<String> {
    static ALL: LazyLock<Vec<Value>> = LazyLock::new(policies);
    ALL.iter().find_map(|policy| refusal(policy, asked))
}

#[track_caller]
fn accepted(asked: &Asked) {
    assert_eq!(judge(asked), None, "{asked:#?}");
}

#[track_caller]
fn refused(asked: &Asked, by: &str) {
    let why = judge(asked).unwrap_or_else(|| panic!("accepted: {asked:#?}"));
    assert!(why.contains(by), "`{why}` in place of `{by}`");
    // Of anybody else these policies say nothing.
    assert_eq!(
        judge(&Asked { user: "system:serviceaccount:kube-system:job-controller", ..asked.clone() }),
        None
    );
}

/// A job of the adapter as the API server keeps it, with its Secret.
async fn a_job(lab: &Lab) -> (Value, Value) {
    let spec = lab.install(lab.cx().uid(), "A Title");
    assert_eq!(lab.cluster.run_job(&lab.cx().call(), &spec).await, Outcome::Applied(()));
    let job = lab.api.object("jobs", NAMESPACE, spec.name.as_str()).expect("a job");
    let secret = lab.api.object("secrets", NAMESPACE, spec.name.as_str()).expect("a Secret");
    (job, secret)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_the_adapter_writes_is_accepted() {
    for route in [ingress(), gateway()] {
        let lab = Lab::start(route).await;
        lab.cluster.bootstrap().await.expect("all in order");
        let uid = lab.cx().uid();
        let spec = lab.route_spec(uid, &["rrr.example.com"]);
        assert_eq!(lab.cluster.put_route(&lab.cx().call(), &spec).await, Outcome::Applied(()));
        let flush = lab.job(JobKind::FlushCaches { uids: vec![uid, lab.cx().uid()] });
        for job in [lab.install(uid, "A Title"), lab.theme(uid, "shop"), flush] {
            assert_eq!(lab.cluster.run_job(&lab.cx().call(), &job).await, Outcome::Applied(()));
        }
        let mut seen = 0;
        for resource in ["jobs", "secrets", "configmaps", "ingresses", "httproutes"] {
            for object in lab.api.objects(resource, NAMESPACE) {
                seen += 1;
                accepted(&Asked::create(resource, &object));
                if object["metadata"]["name"] != "canary-env" {
                    accepted(&Asked::update(resource, &object, &object));
                    accepted(&Asked::delete(resource, &object));
                }
            }
        }
        assert_eq!(seen, 3 + 2 + 3 + 1, "jobs, Secrets, an anchor with canary and addresses, a route");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_set_and_nothing_else() {
    let lab = Lab::start(ingress()).await;
    let name = "blue-deployment";
    let deployment = || lab.api.object("deployments", NAMESPACE, name).expect("a Deployment");
    let before = deployment();
    let view = lab.cluster.service(Color::Blue).await.expect("a service");
    let call = lab.cx().call();
    let want = ImageWant::Digest(IMAGES.first);
    assert_eq!(lab.cluster.set_image(&call, Color::Blue, view.fence, &want).await, Outcome::Applied(()));
    let after = deployment();
    assert_ne!(before["spec"], after["spec"]);
    accepted(&Asked::update("deployments", &before, &after));
    let template = view.template.expect("a template");
    let back = ImageWant::Template(template);
    let put = lab.cluster.set_image(&lab.cx().call(), Color::Blue, call.fence, &back).await;
    assert_eq!(put, Outcome::Applied(()));
    accepted(&Asked::update("deployments", &after, &deployment()));

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
        refused(&Asked::update("deployments", &after, &changed), "CDM");
    }
}

/// An object with another value at a path, whose last part is made where it is not there.
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
async fn a_job_is_no_way_to_other_accounts_and_secrets() {
    let lab = Lab::start(ingress()).await;
    let (job, _) = a_job(&lab).await;
    accepted(&Asked::create("jobs", &job));
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
        for asked in [Asked::create("jobs", &hostile), Asked::update("jobs", &job, &hostile)] {
            refused(&asked, by);
        }
    }
    // A Job that has the name of somebody's Secret would mount it as its own.
    let mut named = with(&job, "/metadata/name", json!("tls"));
    named = with(
        &named,
        &format!("{pod}/volumes"),
        volume(json!({ "name": "x", "secret": { "secretName": "tls" } })),
    );
    refused(&Asked::create("jobs", &named), "named for what it does");
    // Labels by which a Service would send it visitors' requests.
    refused(
        &Asked::create("jobs", &with(&job, "/spec/template/metadata/labels/app", json!("blue"))),
        "CDM's labels and no others",
    );
    let unlabelled = with(&job, "/metadata/labels", json!({}));
    refused(&Asked::create("jobs", &unlabelled), "CDM");
    // What the services' own container refers to is listed by whoever sets them up.
    let listed = POLICIES
        .replace("- name: secrets\n      expression: '[]'", "- name: secrets\n      expression: '[\"tls\"]'");
    let listed =
        listed.replace("REPOSITORY/wordpress", REPOSITORY).replace("'\"wordpress\"'", "'\"default\"'");
    let policy: Value = serde_norway::from_str(listed.split("\n---\n").next().expect("one")).expect("YAML");
    let own = with(&job, &format!("{pod}/containers/0/env"), env_of("tls"));
    assert_eq!(refusal(&policy, &Asked::create("jobs", &own)), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_a_jobs_and_holds_nothing_of_the_clusters() {
    let lab = Lab::start(ingress()).await;
    let (_, secret) = a_job(&lab).await;
    let other = json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1" }]);
    for (pointer, hostile, by) in [
        ("/type", json!("kubernetes.io/service-account-token"), "Opaque"),
        ("/type", Value::Null, "Opaque"),
        ("/metadata/name", json!("cdm"), "the name of its Job"),
        ("/metadata/ownerReferences", other, "belongs to its Job"),
        ("/metadata/ownerReferences", json!([]), "belongs to its Job"),
        ("/metadata/labels", json!({}), "CDM's label"),
    ] {
        refused(&Asked::create("secrets", &with(&secret, pointer, hostile)), by);
    }
    let strangers = json!({ "metadata": { "name": "tls", "labels": { "app": "x" } } });
    for resource in ["secrets", "configmaps", "jobs", "ingresses", "httproutes"] {
        refused(&Asked::delete(resource, &strangers), "and nothing else");
        refused(&Asked::create(resource, &strangers), "CDM");
        let taken = with(&strangers, "/metadata/labels", json!({ "app.kubernetes.io/managed-by": "cdm" }));
        refused(&Asked::update(resource, &strangers, &taken), "CDM");
    }
    // The canary's state may be somebody's, and is never deleted.
    let canary = json!({ "metadata": { "name": "canary-env" } });
    accepted(&Asked::update("configmaps", &canary, &canary));
    refused(&Asked::delete("configmaps", &canary), "and nothing else");
}

#[test]
fn every_policy_is_bound_and_denies_in_the_services_namespace() {
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
            // Without a reason the API server would call it invalid, as it does with what is written wrongly.
            one["message"].is_string() && one["reason"] == "Forbidden"
        }));
    }
}

/// The chart's text with what its values are by default.
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

/// A Deployment of an image that says nothing of privileges makes a job that `restricted` takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_pod_is_within_the_pod_security_standard() {
    let lab = Lab::start(ingress()).await;
    let (job, _) = a_job(&lab).await;
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
