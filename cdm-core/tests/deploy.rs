//! Checks the shipped manifests as text: they contain what the documentation states, and the chart differs from them
//! only in names.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

fn shipped(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn objects(text: &str) -> Vec<Value> {
    let read = |document: &str| {
        serde_norway::from_str(document).unwrap_or_else(|error| panic!("{document}: {error}"))
    };
    text.split("\n---\n").map(read).collect()
}

fn manifest(file: &str) -> Vec<Value> {
    objects(&shipped(&format!("kubernetes/{file}")))
}

/// Returns a template of the chart rendered with its default values, for the release `cdm` in the namespace `cdm`.
fn template(file: &str) -> Vec<Value> {
    let values: Value = serde_norway::from_str(&shipped("helm/cdm/values.yaml")).expect("values");
    let text = shipped(&format!("helm/cdm/templates/{file}"));
    let (mut lines, mut repeated) = (Vec::new(), None::<(Value, Vec<String>)>);
    for line in text.lines() {
        let trimmed = line.trim();
        if let Some(list) = trimmed.strip_prefix("{{- range ") {
            let list = value_of(&values, list.trim_end_matches(" }}"));
            repeated = Some((list, Vec::new()));
        } else if trimmed == "{{- end }}" {
            for item in repeated.take().into_iter().flat_map(|(list, body)| {
                let items = list.as_array().expect("a list").clone();
                items
                    .into_iter()
                    .flat_map(move |item| {
                        body.iter().map(|line| line.replace("{{ . }}", &item.to_string())).collect::<Vec<_>>()
                    })
                    .collect::<Vec<_>>()
            }) {
                lines.push(item);
            }
        } else if let Some((_, body)) = &mut repeated {
            body.push(line.to_owned());
        } else if trimmed.starts_with("{{- if ") {
            // Sections that are enabled by default.
        } else if trimmed.starts_with("{{- include \"cdm.labels\"") {
            let indent = &line[..line.len() - line.trim_start().len()];
            lines.push(format!("{indent}app.kubernetes.io/name: cdm"));
        } else {
            lines.push(filled(&values, line));
        }
    }
    objects(&lines.join("\n"))
}

fn value_of(values: &Value, path: &str) -> Value {
    let pointer = path.trim().strip_prefix(".Values").expect("a value").replace('.', "/");
    values.pointer(&pointer).unwrap_or_else(|| panic!("{path} is no value")).clone()
}

fn filled(values: &Value, line: &str) -> String {
    let mut line = line.replace("{{ .Release.Name }}", "cdm").replace("{{ .Release.Namespace }}", "cdm");
    while let Some((before, rest)) = line.clone().split_once("{{ ") {
        let (path, after) = rest.split_once(" }}").expect("an end");
        let value = value_of(values, path);
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        line = format!("{before}{text}{after}");
    }
    line
}

fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let is_match = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
    objects.iter().find(is_match).unwrap_or_else(|| panic!("{kind} {name}"))
}

/// Returns every port that a rule without peers opens, and the addresses and namespaces of the other rules.
fn egress(policy: &Value) -> (Vec<u64>, Vec<String>) {
    let (mut ports, mut places) = (Vec::new(), Vec::new());
    for rule in policy["spec"]["egress"].as_array().expect("rules") {
        assert!(
            rule["ports"].as_array().is_some_and(|ports| !ports.is_empty()),
            "a rule without ports: {rule}"
        );
        match rule["to"].as_array() {
            None => ports.extend(
                rule["ports"].as_array().into_iter().flatten().filter_map(|port| port["port"].as_u64()),
            ),
            Some(to) => places.extend(to.iter().map(ToString::to_string)),
        }
    }
    ports.sort_unstable();
    ports.dedup();
    (ports, places)
}

#[test]
fn namespaces_enforce_a_pod_security_standard() {
    let objects = manifest("namespaces.yaml");
    let label = |name: &str, mode: &str| {
        named(&objects, "Namespace", name)["metadata"]["labels"][format!("pod-security.kubernetes.io/{mode}")]
            .clone()
    };
    assert_eq!(label("cdm", "enforce"), "restricted");
    assert_eq!(label("wp-platform", "enforce"), "baseline");
    for mode in ["audit", "warn"] {
        assert_eq!(label("wp-platform", mode), "restricted");
    }
    let account = named(&objects, "ServiceAccount", "wordpress");
    assert_eq!(account["automountServiceAccountToken"], json!(false));
}

#[test]
fn network_policies_deny_by_default() {
    let plain = manifest("network-policy.yaml");
    let all = named(&plain, "NetworkPolicy", "default-deny");
    assert_eq!(all["spec"], json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] }));
    for objects in [plain, template("network-policy.yaml")] {
        let [server, jobs] = ["cdm", "cdm-jobs"].map(|name| named(&objects, "NetworkPolicy", name));
        for policy in [server, jobs] {
            assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
            let (_, places) = egress(policy);
            // None of them allows the address at which a node serves its own credentials.
            assert!(
                places.iter().all(|place| !place.contains("169.254.169.254") && !place.contains("0.0.0.0/0"))
            );
        }
        assert_eq!(egress(server).0, [53, 443, 3306, 6443]);
        assert_eq!(egress(jobs).0, [53, 443, 3306, 6379, 11211]);
        assert_eq!(jobs["spec"].get("ingress"), None, "jobs accept no connections");
        assert_eq!(jobs["metadata"]["namespace"], "wp-platform");
        let labels = &jobs["spec"]["podSelector"]["matchLabels"];
        assert_eq!(labels["app.kubernetes.io/component"], "job");
    }
}

#[test]
fn the_server_and_the_policies_name_the_same_service_account_of_jobs() {
    let server = shipped("kubernetes/server.yaml");
    let (_, after) = server.split_once("CDM_JOB_SERVICE_ACCOUNT\n").expect("the variable");
    assert_eq!(after.lines().next().map(str::trim), Some("value: wordpress"));
    assert!(shipped("kubernetes/admission-policy.yaml").contains("'\"wordpress\"'"));
    let values: Value = serde_norway::from_str(&shipped("helm/cdm/values.yaml")).expect("values");
    assert_eq!(values["platform"]["jobServiceAccount"], "wordpress");
    for template in ["server.yaml", "admission-policy.yaml"] {
        assert!(
            shipped(&format!("helm/cdm/templates/{template}")).contains(".Values.platform.jobServiceAccount")
        );
    }
}

#[test]
fn the_chart_has_the_rules_of_the_role_manifest() {
    let plain = manifest("role.yaml");
    let chart = shipped("helm/cdm/templates/role.yaml");
    for rule in named(&plain, "Role", "cdm")["rules"].as_array().expect("rules") {
        let one = |key: &str| {
            let items = rule[key].as_array().into_iter().flatten();
            items.filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        };
        let resources = format!("resources: [{}]", one("resources"));
        assert!(chart.contains(&resources), "{resources}");
        assert!(chart.contains(&format!("verbs: [{}]", one("verbs"))), "{rule}");
    }
}

#[test]
fn the_container_is_built_from_images_pinned_by_digest() {
    let text = shipped("container/Dockerfile");
    let stages: Vec<_> = text.lines().filter(|line| line.starts_with("FROM ")).collect();
    assert_eq!(stages.last(), Some(&"FROM scratch"));
    for stage in &stages[..stages.len() - 1] {
        let argument =
            stage.strip_prefix("FROM ${").and_then(|rest| rest.split_once(":?")).map(|(name, _)| name);
        let argument = argument.unwrap_or_else(|| panic!("{stage}"));
        assert!(text.contains(&format!("\nARG {argument}\n")), "{argument} has no default");
        let check = format!("case \"${argument}\" in *@sha256:*)");
        assert!(text.contains(&check), "{check}");
        assert!(text.contains(&format!("--build-arg {argument}=")), "the command names {argument}");
    }
}
