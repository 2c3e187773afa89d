//! The Job object of a job: the service's container without probes, hooks and ports, with separate labels.

use k8s_openapi::api::batch::v1::{
    Job, JobSpec as BatchJobSpec, PodFailurePolicy, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::ObjectMeta;
use serde_json::{Map, Value, json};

use super::batch::{self, Batch};
use super::confinement::{container, mounted, node_access, restrict_pod, restricted_container};
use super::failure::Failure;
use super::names::{CDM, COMPONENT, MANAGED_BY, Texts, UID, text, texts};
use super::settings::{JobSecurity, KubernetesSettings};
use super::wp::{Command, Commands, FILES, proof_annotation};
use crate::ports::{ErrorKind, JobSpec};

/// The component label of a job and of its pods.
pub(super) const JOB: &str = "job";
/// The label with the kind of a job.
pub(super) const KIND: &str = "cdm/job";
/// The volume with the files of a job.
const VOLUME: &str = "cdm-job";
/// The environment variable with a pod's index in a batch.
const INDEX: &str = "CDM_INDEX";
/// The environment variables of a site's database. Jobs use the variants of the variables that name a file.
const DATABASE: [(&str, &str); 4] = [
    ("WORDPRESS_DB_HOST", "host"),
    ("WORDPRESS_DB_NAME", "name"),
    ("WORDPRESS_DB_USER", "user"),
    ("WORDPRESS_DB_PASSWORD", "password"),
];
/// The environment variable with the path of the configuration file of `wp`, and the name of the file.
const CONFIGURATION: (&str, &str) = ("WP_CLI_CONFIG_PATH", "wp-cli.yml");

/// The sites that a job works for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// One site, with its credentials.
    Site,
    /// Several sites, without credentials.
    Batch(Batch),
}

/// The name of the configuration file of `wp`.
pub(super) const CONFIGURATION_FILE: &str = CONFIGURATION.1;

/// Returns the labels of a job and of its pods. Never the labels of the service, which would route visitors to these
/// pods.
fn labels(spec: &JobSpec) -> Texts {
    let mut labels = texts([(MANAGED_BY, CDM), (COMPONENT, JOB), (KIND, spec.kind.word())]);
    labels.extend(spec.kind.uid().map(|uid| (UID.to_owned(), uid.to_string())));
    labels
}

/// Returns the Job object, suspended until its files exist.
///
/// The object is JSON, because its pod is copied from the Deployment with the fields that this version of its type does
/// not have.
pub(super) fn object(
    settings: &KubernetesSettings,
    template: &Value,
    spec: &JobSpec,
    (commands, work): (&Commands, &Work),
    owner: Option<OwnerReference>,
) -> Result<Value, Failure> {
    let (copied, container) = container(settings, template).ok_or_else(|| {
        let message =
            format!("the Deployment of `{}` has no container `{}`", spec.service, settings.container);
        Failure::new(ErrorKind::Invalid, message)
    })?;
    if let Some(problem) = node_access(copied, container) {
        let message = format!("the Deployment of `{}`: {problem}", spec.service);
        return Err(Failure::new(ErrorKind::Invalid, message));
    }
    let proofs = commands.proofs.iter();
    let mut annotations: Texts =
        proofs.map(|(container, proof)| (proof_annotation(container), proof.clone())).collect();
    let mut body = BatchJobSpec {
        suspend: Some(true),
        // The caller that started the job tries again with another job.
        backoff_limit: Some(0),
        active_deadline_seconds: Some(
            i64::try_from(settings.job_deadline.as_secs().max(1)).unwrap_or(i64::MAX),
        ),
        ttl_seconds_after_finished: Some(i32::try_from(settings.job_kept.as_secs()).unwrap_or(i32::MAX)),
        pod_replacement_policy: Some("Failed".to_owned()),
        pod_failure_policy: Some(ignore_disruptions()),
        ..BatchJobSpec::default()
    };
    if let Work::Batch(batch) = work {
        batch.write(settings, &mut annotations, &mut body);
    }
    let job = Job {
        metadata: ObjectMeta {
            name: Some(spec.name.as_str().to_owned()),
            labels: Some(labels(spec)),
            annotations: Some(annotations),
            owner_references: Some(owner.into_iter().collect()),
            ..ObjectMeta::default()
        },
        spec: Some(body),
        status: None,
    };
    let mut job = serde_json::to_value(job)
        .map_err(|_| Failure::new(ErrorKind::Invalid, "the Job cannot be encoded"))?;
    job["spec"]["template"] = json!({
        "metadata": { "labels": labels(spec) },
        "spec": pod(settings, copied, (container, spec.name.as_str()), commands, work),
    });
    Ok(job)
}

/// Returns the policy that does not count a pod as failed that its node evicted.
fn ignore_disruptions() -> PodFailurePolicy {
    let disrupted = PodFailurePolicyOnPodConditionsPattern {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
    };
    let rule = PodFailurePolicyRule {
        action: "Ignore".to_owned(),
        on_pod_conditions: Some(vec![disrupted]),
        on_exit_codes: None,
    };
    PodFailurePolicy { rules: vec![rule] }
}

/// Returns the pod: scheduled like the service's pods, with only the volumes that its container mounts, the service
/// account for jobs, and no access to the node. Its permissions are restricted unless the Deployment sets them.
fn pod(
    settings: &KubernetesSettings,
    template: &Value,
    (container, files): (&Value, &str),
    commands: &Commands,
    work: &Work,
) -> Value {
    const COPIED_FIELDS: [&str; 12] = [
        "dnsConfig",
        "dnsPolicy",
        "hostAliases",
        "imagePullSecrets",
        "nodeSelector",
        "os",
        "preemptionPolicy",
        "priorityClassName",
        "runtimeClassName",
        "schedulerName",
        "securityContext",
        "tolerations",
    ];
    let mut pod = Map::new();
    for name in COPIED_FIELDS {
        if let Some(value) = template.get(name) {
            pod.insert(name.to_owned(), value.clone());
        }
    }
    // Pod affinity and anti-affinity refer to the labels of the service's pods.
    if let Some(affinity) = template.pointer("/affinity/nodeAffinity") {
        pod.insert("affinity".to_owned(), json!({ "nodeAffinity": affinity }));
    }
    let mut volumes: Vec<Value> = mounted(template, container).cloned().collect();
    volumes.push(match work {
        Work::Site => json!({ "name": VOLUME, "secret": { "secretName": files, "defaultMode": 0o444 } }),
        Work::Batch(_) => json!({ "name": VOLUME, "configMap": { "name": files, "defaultMode": 0o444 } }),
    });
    pod.insert("volumes".to_owned(), json!(volumes));
    pod.insert("restartPolicy".to_owned(), json!("Never"));
    pod.insert("enableServiceLinks".to_owned(), json!(false));
    pod.insert("automountServiceAccountToken".to_owned(), json!(false));
    if let Some(account) = &settings.job_service_account {
        pod.insert("serviceAccountName".to_owned(), json!(account));
    }
    let restricted = settings.job_security == JobSecurity::Restricted;
    if restricted {
        let context = pod.entry("securityContext").or_insert_with(|| json!({}));
        restrict_pod(context, container);
    }
    let container = &if restricted { restricted_container(container) } else { container.clone() };
    let containers = match work {
        Work::Site => {
            let before: Vec<Value> =
                commands.before.iter().map(|command| of_site(container, command)).collect();
            if !before.is_empty() {
                pod.insert("initContainers".to_owned(), json!(before));
            }
            vec![of_site(container, &commands.last)]
        }
        Work::Batch(batch) => {
            (0..batch.slots()).map(|slot| of_slot(settings, container, &commands.last, slot)).collect()
        }
    };
    pod.insert("containers".to_owned(), json!(containers));
    Value::Object(pod)
}

/// Returns a container with the credentials of a site.
fn of_site(container: &Value, command: &Command) -> Value {
    let path = |name: &str| format!("{FILES}/{name}");
    let mut environment = environment(container);
    environment.extend(
        DATABASE.iter().map(|(name, file)| json!({ "name": format!("{name}_FILE"), "value": path(file) })),
    );
    if command.container == "install" {
        environment.push(json!({ "name": CONFIGURATION.0, "value": path(CONFIGURATION_FILE) }));
    }
    with_command(container, command.container, &command.argv, environment)
}

/// Returns a container of a batch, which gets a site's address and nothing else. It does little work and runs in
/// parallel with other containers, so its resource requests are smaller than the service's.
fn of_slot(settings: &KubernetesSettings, container: &Value, command: &Command, slot: usize) -> Value {
    let field = "metadata.annotations['batch.kubernetes.io/job-completion-index']";
    // The index comes first, because later variables refer to it.
    let mut all = vec![json!({ "name": INDEX, "valueFrom": { "fieldRef": { "fieldPath": field } } })];
    all.extend(environment(container));
    let path = format!("{FILES}/$({INDEX}).{}", batch::file(slot));
    all.push(json!({ "name": CONFIGURATION.0, "value": path }));
    let mut result = with_command(container, &batch::container(slot), &command.argv, all);
    result["resources"] = json!({
        "requests": { "cpu": "20m", "memory": "64Mi" },
        "limits": { "memory": settings.batch_memory },
    });
    result
}

/// Returns the service's container with another command.
fn with_command(container: &Value, name: &str, argv: &[String], environment: Vec<Value>) -> Value {
    const DROPPED: [&str; 11] = [
        "args",
        "lifecycle",
        "livenessProbe",
        "ports",
        "readinessProbe",
        "restartPolicy",
        "startupProbe",
        "stdin",
        "terminationMessagePath",
        "tty",
        "volumeDevices",
    ];
    let mut result = container.clone();
    if let Some(fields) = result.as_object_mut() {
        fields.retain(|name, _| !DROPPED.contains(&name.as_str()));
    }
    result["name"] = json!(name);
    result["command"] = json!(argv);
    result["env"] = json!(environment);
    result["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    let mounts = container.get("volumeMounts").and_then(Value::as_array).into_iter().flatten();
    let mut mounts: Vec<Value> = mounts.cloned().collect();
    mounts.push(json!({ "name": VOLUME, "mountPath": FILES, "readOnly": true }));
    result["volumeMounts"] = json!(mounts);
    result
}

/// Returns the service's environment variables, except those that the job sets.
fn environment(container: &Value) -> Vec<Value> {
    let is_set_by_job = |name: &str| {
        name == INDEX
            || name == CONFIGURATION.0
            || DATABASE.iter().any(|(variable, _)| name.strip_suffix("_FILE").unwrap_or(name) == *variable)
    };
    let variables = container.get("env").and_then(Value::as_array).into_iter().flatten();
    variables.filter(|variable| !text(variable, "/name").is_some_and(is_set_by_job)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::kubernetes::wp;
    use crate::domain::{Color, JobName, SiteId, Theme, Uid};
    use crate::ports::JobKind;

    fn settings() -> KubernetesSettings {
        KubernetesSettings::new("sites", "repo")
    }

    fn template() -> Value {
        let web = json!({
            "name": "web",
            "image": "repo@sha256:aa",
            "args": ["apache2-foreground"],
            "ports": [{ "containerPort": 80 }],
            "livenessProbe": {}, "readinessProbe": {}, "startupProbe": {}, "lifecycle": {},
            "env": [
                { "name": "CDM_TABLE", "value": "cdm" },
                { "name": "WORDPRESS_DB_PASSWORD", "value": "shared" },
                { "name": "WORDPRESS_DB_HOST_FILE", "value": "/else" },
            ],
            "envFrom": [{ "configMapRef": { "name": "settings" } }],
            "volumeMounts": [{ "name": "uploads", "mountPath": "/var/www/uploads" }],
            "resources": { "limits": { "memory": "512Mi" } },
        });
        json!({
            "metadata": { "labels": { "app": "blue" }, "annotations": { "a": "b" } },
            "spec": {
                "containers": [{ "name": "proxy", "image": "proxy:1" }, web],
                "initContainers": [{ "name": "first" }],
                "volumes": [{ "name": "uploads", "emptyDir": {} }, { "name": "proxy", "emptyDir": {} }],
                "serviceAccountName": "wordpress",
                "securityContext": { "runAsUser": 33 },
                "nodeSelector": { "pool": "web" },
                "affinity": { "podAntiAffinity": {}, "nodeAffinity": { "x": 1 } },
                "topologySpreadConstraints": [{}],
                "restartPolicy": "Always",
            },
        })
    }

    fn theme_job() -> Value {
        let spec = JobSpec {
            name: JobName::of_site(&SiteId::parse("rrr").expect("an id"), "activate-theme", 78, 1),
            service: Color::Blue,
            kind: JobKind::ActivateTheme {
                uid: Uid::from_parts(1, 1),
                theme: Theme::parse("twentytwentysix").expect("a theme"),
            },
        };
        let commands = wp::activate_theme(&settings(), "https://rrr.example.com", "twentytwentysix");
        let owner = OwnerReference { uid: "anchor".to_owned(), ..OwnerReference::default() };
        object(&settings(), &template(), &spec, (&commands, &Work::Site), Some(owner)).expect("a job")
    }

    #[test]
    fn the_pod_has_only_the_services_container() {
        let job = theme_job();
        let pod = &job["spec"]["template"]["spec"];
        let containers = pod["containers"].as_array().expect("containers");
        assert_eq!(containers.len(), 1);
        let web = &containers[0];
        for gone in ["args", "ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
            assert_eq!(web[gone], Value::Null, "{gone}");
        }
        assert_eq!(web["image"], json!("repo@sha256:aa"));
        assert_eq!(web["resources"]["limits"]["memory"], json!("512Mi"));
        assert_eq!(web["command"][0], json!("wp"));
        assert_eq!(pod["initContainers"].as_array().map(Vec::len), Some(1));
        assert_eq!(pod["initContainers"][0]["command"][2], json!("activate"));
        let volumes: Vec<_> = pod["volumes"].as_array().into_iter().flatten().map(|v| &v["name"]).collect();
        assert_eq!(volumes, ["uploads", VOLUME]);
        assert_eq!(pod["restartPolicy"], json!("Never"));
        assert_eq!(pod["affinity"], json!({ "nodeAffinity": { "x": 1 } }));
        assert_eq!(pod["topologySpreadConstraints"], Value::Null);
    }

    #[test]
    fn the_pod_has_no_label_of_the_service() {
        let job = theme_job();
        let labels = &job["spec"]["template"]["metadata"]["labels"];
        assert_eq!(labels["app"], Value::Null);
        assert_eq!(labels[UID], json!(Uid::from_parts(1, 1).to_string()));
        assert_eq!(labels, &job["metadata"]["labels"]);
    }

    #[test]
    fn credentials_are_passed_only_as_files() {
        let job = theme_job();
        let env = job.pointer("/spec/template/spec/containers/0/env").expect("an environment");
        let expected = json!([
            { "name": "CDM_TABLE", "value": "cdm" },
            { "name": "WORDPRESS_DB_HOST_FILE", "value": "/run/cdm/host" },
            { "name": "WORDPRESS_DB_NAME_FILE", "value": "/run/cdm/name" },
            { "name": "WORDPRESS_DB_USER_FILE", "value": "/run/cdm/user" },
            { "name": "WORDPRESS_DB_PASSWORD_FILE", "value": "/run/cdm/password" },
        ]);
        assert_eq!(env, &expected);
        assert_eq!(job["spec"]["suspend"], json!(true));
        assert_eq!(job["metadata"]["ownerReferences"][0]["uid"], json!("anchor"));
    }

    #[test]
    fn a_batch_has_a_container_for_each_slot_and_no_credentials() {
        let uids: Vec<Uid> = (1..=20).map(|n| Uid::from_parts(1, n)).collect();
        let spec = JobSpec {
            name: JobName::of_window("flush-caches", 9, 0, 1),
            service: Color::Green,
            kind: JobKind::FlushCaches { uids: uids.clone() },
        };
        let work = Work::Batch(Batch::new(uids, Vec::new(), 8));
        let commands = wp::flush_caches(&settings());
        let job = object(&settings(), &template(), &spec, (&commands, &work), None).expect("a job");
        let pod = job.pointer("/spec/template/spec").expect("a pod");
        let containers = pod["containers"].as_array().expect("containers");
        let names: Vec<&str> = containers.iter().filter_map(|container| text(container, "/name")).collect();
        assert_eq!(names, ["flush-0", "flush-1", "flush-2", "flush-3", "flush-4", "flush-5", "flush-6"]);
        assert_eq!(pod.get("initContainers"), None);
        for (slot, container) in containers.iter().enumerate() {
            let env = container["env"].as_array().expect("variables");
            assert_eq!(env[0]["name"], json!(INDEX));
            let path = format!("/run/cdm/$(CDM_INDEX).{slot}.yml");
            assert_eq!(env.last(), Some(&json!({ "name": "WP_CLI_CONFIG_PATH", "value": path })));
            assert_eq!(container["resources"]["limits"]["memory"], json!("256Mi"));
            assert_eq!(
                container["command"],
                json!([
                    "wp",
                    "cache",
                    "flush",
                    "--skip-plugins",
                    "--skip-themes",
                    "--require=/run/cdm/wp-cli.php"
                ])
            );
        }
        let written = pod.to_string();
        assert!(!written.contains("WORDPRESS_DB") && !written.contains("secretName"), "{written}");
        let volume =
            json!({ "name": VOLUME, "configMap": { "name": spec.name.as_str(), "defaultMode": 0o444 } });
        assert!(pod["volumes"].as_array().expect("volumes").contains(&volume));
        assert_eq!(job["metadata"]["ownerReferences"], json!([]));
        assert_eq!(job["metadata"]["labels"][UID], Value::Null);
    }

    #[test]
    fn a_missing_container_is_rejected() {
        let settings = KubernetesSettings { container: "php".to_owned(), ..settings() };
        let spec = JobSpec {
            name: JobName::of_window("flush-caches", 9, 0, 1),
            service: Color::Green,
            kind: JobKind::FlushCaches { uids: Vec::new() },
        };
        let commands = wp::flush_caches(&settings);
        let refused = object(&settings, &template(), &spec, (&commands, &Work::Site), None);
        assert_eq!(refused.map_err(|failure| failure.kind), Err(ErrorKind::Invalid));
    }
}
